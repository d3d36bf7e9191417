"""Atomic writing and locks of bcnet.files."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys

import portalocker
import pytest
import torch

from bcnet import files
from bcnet.checkpoint import write_checkpoint
from bcnet.checkpoint.files import write_weights
from bcnet.files import atomic_write, open_locked, read_json, write_json, write_json_list, write_text
from bcnet.garbage_collection import garbage_collection_paused

MANY = 100_000


def write_picture(path):
    """As pictures are written: without waiting for the disk."""
    with atomic_write(path, "wb", sync=False) as file:
        file.write(b"x" * 10)


WRITERS = {
    "picture": write_picture,
    "text": lambda path: write_text("x" * MANY, path),
    "json": lambda path: write_json(path, ["x"] * MANY),
    "json list": lambda path: write_json_list(path, range(MANY)),
    "checkpoint": lambda path: write_checkpoint({"model": {"w": torch.zeros(MANY)}}, path),
    "numbers in a checkpoint": lambda path: write_checkpoint({"numbers": list(range(MANY))}, path),
    "weights": lambda path: write_weights({"w": torch.zeros(MANY)}, path),
}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_alone(tmp_path, writer, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_text("old")
    (tmp_path / f"{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"no space left on the disk to write '.*file\{suffix}'") as raised:
        WRITERS[writer](str(path))
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_another_error_is_not_renamed(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "file.json", [object()])
    assert os.listdir(tmp_path) == []


LOCK = "import sys; from bcnet.files import atomic_write, open_locked; open_locked(sys.argv[1], 'a', 'taken')"


def test_a_lock_holds_against_another_process(tmp_path):
    path = str(tmp_path / "file")
    with open_locked(path, "a", "taken"):
        second = subprocess.run([sys.executable, "-c", LOCK, path], capture_output=True, text=True)
        assert "BlockingIOError: taken" in second.stderr
    assert subprocess.run([sys.executable, "-c", LOCK, path]).returncode == 0


def test_a_lock_of_a_deleted_file_is_none(tmp_path, monkeypatch):
    """Another process deletes its file between our opening and locking it: the next one would lock a new file."""
    path = tmp_path / "file"
    lock, calls = portalocker.lock, []

    def locked_after_deletion(file, flags):
        if not calls:
            path.unlink()
        calls.append(file)
        lock(file, flags)

    monkeypatch.setattr(portalocker, "lock", locked_after_deletion)
    with open_locked(path, "a", "taken"):
        second = subprocess.run([sys.executable, "-c", LOCK, str(path)], capture_output=True, text=True)
    assert "BlockingIOError: taken" in second.stderr and len(calls) == 2 and calls[0].closed


def test_json_that_is_not_strict_is_read_and_errors_are_worded_by_json(tmp_path):
    path = tmp_path / "a.json"
    for content, expected in (
        (b'{"a": [1, 2.5, "\xc3\xa9"]}', {"a": [1, 2.5, "é"]}),
        (b"[Infinity, -Infinity]", [float("inf"), -float("inf")]),
        ("[3]".encode("utf-16"), [3]),
        (b"\xef\xbb\xbf[3]", [3]),
        (b"[1e400]", [float("inf")]),
        (b'"\\ud800"', "\ud800"),
    ):
        path.write_bytes(content)
        assert read_json(path) == expected
    path.write_bytes(b'{"a": 1,}')
    with pytest.raises(
        ValueError, match=r"a\.json is not valid JSON .*Expecting property name enclosed in double quotes"
    ):
        read_json(path)


@pytest.mark.parametrize("spaces", [0, files._CHUNK - 23, files._CHUNK - 10, files._CHUNK - 2, files._CHUNK])
@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**25])
def test_integers_of_more_than_64_bits_stay_integers(spaces, number):
    value = files.parse_json(b'{"id":%b%d}' % (b" " * spaces, number), "a.json")["id"]
    assert (type(value), value) == (int, number)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_collection_is_paused_and_left_as_it_was(was_enabled):
    before = gc.isenabled()
    (gc.enable if was_enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), garbage_collection_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_enabled
    finally:
        (gc.enable if before else gc.disable)()
