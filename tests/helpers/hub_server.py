"""A server on this machine that speaks the part of the Hugging Face Hub's API that downloads and uploads of models use.

Files travel inside the commits; the large-file storage behind the Hub is not imitated.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """What the server holds and was asked.

    Attributes:
        url: of the server, for HF_ENDPOINT.
        repos: files by name, by repository; a repository has the one branch "main".
        private: repositories that need `TOKEN`.
        requests: method and path of each request.
        messages: of the commits.
    """

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        names = "".join(f"{_oid(content)} {name}\n" for name, content in sorted(self.repos[repo].items()))
        return hashlib.sha1(names.encode()).hexdigest()


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    """A running server on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format, *args) -> None:  # keeps the tests' output clean
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._record()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if self._found(*match.groups()):
                commit = self.hub.commit(match[1])
                self._json({"_id": "1", "id": match[1], "sha": commit, "siblings": [], "tags": [], "private": False})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            if self._found(*match.groups()):
                files = self.hub.repos[match[1]]
                self._json([{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in files.items()])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = match.groups()
            if self._found(repo, revision):
                content = self.hub.repos[repo].get(name)
                if content is None:
                    self._error(404, "EntryNotFound")
                else:
                    self._send(content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.hub.commit(repo)})
        else:
            self._error(404, "RepoNotFound")

    def do_POST(self) -> None:
        path = self._record()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(repo)
            exists = repo in self.hub.repos
            self.hub.repos.setdefault(repo, {})
            self._json({"url": f"{self.hub.url}/{repo}", "name": repo}, 409 if exists else 200)
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.hub.messages.append(line["value"]["summary"])
                else:
                    value = line["value"]
                    self.hub.repos[match[1]][value["path"]] = base64.b64decode(value["content"])
            commit = self.hub.commit(match[1])
            url = f"{self.hub.url}/{match[1]}/commit/{commit}"
            self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})
        else:
            self._error(404, "RepoNotFound")

    def _record(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _found(self, repo: str, revision: str | None) -> bool:
        allowed = repo not in self.hub.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.hub.repos or not allowed:
            self._error(401, "RepoNotFound")  # as the Hub does for whoever is not logged in
            return False
        if revision not in (None, "main", self.hub.commit(repo)):
            self._error(404, "RevisionNotFound")
            return False
        return True

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _error(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": code or "Invalid credentials"}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@functools.lru_cache(maxsize=8)
def _oid(content: bytes) -> str:
    """Git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
