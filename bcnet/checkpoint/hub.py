"""Hugging Face Hub: download of models by ``hf://owner/name`` and upload of model folders (extra ``hub``).

``hf://owner/name`` is ``model.safetensors`` of a repository, ``hf://owner/name@v1.0`` that of a tag, branch or commit,
and ``hf://owner/name/other.safetensors`` another file of it. The environment variables are those of huggingface_hub:
HF_HOME (cache), HF_TOKEN (private repositories, upload), HF_ENDPOINT (another server), HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
import re
from typing import Any

from bcnet.checkpoint.model_folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, weights_in

SCHEME = "hf"
_ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def hub_file(location: str) -> str:
    """The local copy of a weights file on the Hub, downloaded unless it is in the cache, ``config.json`` beside it.

    A cached copy serves where the Hub cannot be reached.

    Args:
        location: ``hf://owner/name[@revision][/file]``.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: another form.
        FileNotFoundError: no such repository, revision or file.
        OSError: the download failed; says what to download.
    """
    match = _NAME.fullmatch(location.removeprefix(f"{SCHEME}://"))
    if match is None:
        raise ValueError(f"a model on the Hub is hf://owner/name[@revision][/file], got {location!r}")
    repo, revision, file = match["repo"], match["revision"], match["file"]
    hub = _huggingface_hub(location)
    try:
        folder = hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[file or WEIGHTS_NAME, CONFIG_NAME],
            endpoint=_endpoint(),
            **_library(),
        )
    except Exception as error:  # of several libraries
        raise _download_error(location, repo, revision, error) from error
    if file is None:
        try:
            return weights_in(folder)
        except FileNotFoundError:
            pass
    elif os.path.isfile(path := os.path.join(folder, file)):
        return path
    raise FileNotFoundError(
        f"{location}: the repository has no file {file or WEIGHTS_NAME!r}; name one of its weights files: "
        f"hf://{repo}/FILE"
    )


def check_repo_id(repo_id: str) -> str:
    """The name of a repository on the Hub, with or without ``hf://``, as ``owner/name``.

    Raises:
        ValueError: another form.
    """
    name = repo_id.removeprefix(f"{SCHEME}://")
    if not _REPO.fullmatch(name):
        raise ValueError(f"a repository on the Hub is owner/name, got {repo_id!r}")
    return name


def upload_folder(folder: str, repo_id: str, *, private: bool = False, message: str, replace_card: bool = False) -> str:
    """Uploads a model folder into a repository on the Hub, which is made if it does not exist.

    Args:
        folder: as `Predictor.save_pretrained` writes it.
        repo_id: ``owner/name``.
        private: of a new repository.
        message: of the commit.
        replace_card: replace the card of a repository that has one; people edit them.

    Returns:
        str: the URL of the repository.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: `repo_id` has another form.
        PermissionError: nobody is logged in, or may not write there.
        OSError: the upload failed.
    """
    repo = check_repo_id(repo_id)
    api = _huggingface_hub(f"hf://{repo}").HfApi(endpoint=_endpoint(), **_library())
    try:
        url = str(api.create_repo(repo, private=private, exist_ok=True))
        kept = not replace_card and api.file_exists(repo, CARD_NAME)
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=[CARD_NAME] if kept else None
        )
    except Exception as error:  # of several libraries
        if _status(error) in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
            raise PermissionError(
                f"the Hub does not let you write to {repo!r} ({_first_line(error)}). Log in with `hf auth login`, or "
                "set HF_TOKEN to a token with write access"
            ) from error
        raise OSError(f"the model cannot be uploaded to {_endpoint()}/{repo}: {_first_line(error)}") from error
    return url


def _huggingface_hub(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"{purpose} needs the package huggingface_hub: pip install 'bcnet[hub]'") from error
    return huggingface_hub


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")


def _library() -> dict[str, str]:
    import bcnet

    return {"library_name": "bcnet", "library_version": bcnet.__version__}


def _download_error(location: str, repo: str, revision: str | None, error: Exception) -> OSError:
    kind = type(error).__name__
    page = f"{_endpoint()}/{repo}"
    if kind == "GatedRepoError":
        return PermissionError(f"{location}: the repository is gated; accept its terms at {page} and log in")
    if kind == "RevisionNotFoundError":
        return FileNotFoundError(f"{location}: the repository has no revision {revision!r}")
    if kind == "RepositoryNotFoundError" or _status(error) in (401, 404):
        return FileNotFoundError(
            f"{location}: {page} does not exist, or is private: then log in with `hf auth login`, or set HF_TOKEN"
        )
    return OSError(
        f"{location} cannot be downloaded: {_first_line(error)}. On a machine with a network, run\n"
        f"  hf download {repo}{f' --revision {revision}' if revision else ''} --local-dir FOLDER\n"
        "and give the path of that folder instead of the URL"
    )


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
