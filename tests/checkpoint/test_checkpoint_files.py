from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image

from bcnet.checkpoint import read_checkpoint, weights_of, write_checkpoint, write_weights


def test_round_trip(tmp_path):
    path = str(tmp_path / "model.pth")
    write_checkpoint({"model": {"weight": torch.arange(3)}, "iteration": 4, "rest": (1, 2.5, None, "text")}, path)
    content = read_checkpoint(path)
    assert content["rest"] == (1, 2.5, None, "text")
    assert torch.equal(content["model"]["weight"], torch.arange(3))
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "model.pth")
    write_checkpoint({"iteration": 1}, path)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        write_checkpoint({"iteration": 2, "code": lambda: None}, path)
    assert read_checkpoint(path) == {"iteration": 1}
    assert os.listdir(tmp_path) == ["model.pth"]


def test_weights_as_safetensors(tmp_path):
    path = str(tmp_path / "model.safetensors")
    shared = torch.arange(12.0).reshape(3, 4)
    state = {"a": shared, "b": shared.t(), "count": torch.tensor(5), "half": torch.ones(2, dtype=torch.bfloat16)}
    write_weights(state, path)
    content = read_checkpoint(path)
    assert set(content) == {"model"}
    assert all(torch.equal(content["model"][key], value) for key, value in state.items())
    assert {key: value.dtype for key, value in content["model"].items()} == {k: v.dtype for k, v in state.items()}
    with pytest.raises(ValueError, match=r"\.pth or \.safetensors, got 'model\.pt'"):
        write_weights(state, "model.pt")


# -- Nothing executes --------------------------------------------------------------------------------------


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl", "legacy.pth"])
def test_a_file_that_would_run_code_is_refused(tmp_path, name):
    path, marker = str(tmp_path / name), tmp_path / "executed"
    content = {"model": {"weight": torch.zeros(2) if name.endswith("pth") else np.zeros(2)}, "x": Evil(marker)}
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=name == "evil.pth")
    with pytest.raises(ValueError, match=rf"{name}.*was refused, and nothing in it was executed: .*system") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()


def global_call(module, name, arguments=b")"):
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n" + arguments + b"R."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (global_call("builtins", "eval", b"X\x01\x00\x00\x001\x85"), "builtins.eval"),
        (global_call("__builtin__", "eval", b"U\x011\x85"), "__builtin__.eval"),  # as Python 2 names it
        (global_call("numpy", "load", b"X\x01\x00\x00\x001\x85"), "numpy.load"),
        (global_call("numpy.core.multiarray", "fromfile"), "numpy.core.multiarray.fromfile"),
        (global_call("collections", "OrderedDict.fromkeys"), "collections.OrderedDict.fromkeys"),
        (global_call("copyreg", "_reconstructor"), "copyreg._reconstructor"),
        (global_call("numpy", "dtype", b"U\x02O8K\x00K\x01\x87"), "'O8', which is not a number"),
        (global_call("numpy", "dtype", b"U\x02V8K\x00K\x01\x87"), "'V8', which is not a number"),
        (global_call("_codecs", "encode", b"U\x01xU\x03hex\x86"), "encoded as 'hex'"),
        (pickle.dumps({"a": np.array([{}, 1], dtype=object)}, protocol=2), "'O8', which is not a number"),
        (pickle.dumps({"a": np.array(["text"])}, protocol=2), "'U4', which is not a number"),
        (pickle.dumps({"a": {1, 2}}, protocol=2), "__builtin__.set"),
        (pickle.dumps({"a": torch.zeros(1)}, protocol=2), "torch._utils._rebuild_tensor_v2"),
    ],
)
def test_only_numbers_and_plain_containers_are_admitted(tmp_path, content, named):
    path = tmp_path / "zoo.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="was refused") as caught:
        read_checkpoint(str(path))
    assert named in str(caught.value)


def test_an_admitted_name_cannot_be_tampered_with(tmp_path):
    # BUILD on a global sets its attributes; the next reading must not see any of that.
    path = tmp_path / "zoo.pkl"
    attack = b"\x80\x02cnumpy\ndtype\nN}U\x09_functionU\x01xs\x86b."
    path.write_bytes(attack)
    with pytest.raises(ValueError, match=r"zoo\.pkl"):
        read_checkpoint(str(path))
    path.write_bytes(pickle.dumps({"a": np.arange(3)}, protocol=2))
    assert read_checkpoint(str(path))["a"].tolist() == [0, 1, 2]


# -- Pickles of the zoos -----------------------------------------------------------------------------------

ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big endian": np.arange(4, dtype=">f4"),
    "half": np.arange(3, dtype=np.float16),
    "integer": np.array([-1, 2], dtype=np.int64),
    "bool": np.array([True, False]),
    "zero-dimensional": np.array(3.5, dtype=np.float32),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "strided": np.arange(10, dtype=np.float32)[::3],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays(tmp_path, protocol):
    path = tmp_path / "zoo.pkl"
    content = {"model": OrderedDict(ARRAYS), "__author__": "someone", "raw": b"\xff\x00", "lr": np.float32(0.5)}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_checkpoint(str(path))
    assert read["__author__"] == "someone" and read["raw"] == b"\xff\x00" and read["lr"] == 0.5
    assert list(read["model"]) == list(ARRAYS)
    for name, array in ARRAYS.items():
        expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        assert torch.equal(read["model"][name], expected) and read["model"][name].dtype == expected.dtype


def test_pickle_of_python_2(tmp_path):
    # {"blobs": {"w": array([1.5, -2.], "<f4")}} as Python 2 writes it: names and raw bytes are byte strings.
    raw = np.array([1.5, -2.0], dtype="<f4").tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(K\x02tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tb"
    )
    assert max(raw) > 127  # a byte that is not ASCII
    path = tmp_path / "zoo.pkl"
    path.write_bytes(b"\x80\x02}U\x05blobs}U\x01w" + array + b"ss.")
    assert weights_of(read_checkpoint(str(path)), "zoo.pkl")["w"].tolist() == [1.5, -2.0]


# -- Damaged files -----------------------------------------------------------------------------------------


def write_sample(path):
    state = {"weight": torch.arange(100.0), "bias": torch.ones(3)}
    if path.name == "legacy.pth":
        torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}, protocol=2))
    else:
        write_weights(state, str(path))


@pytest.mark.parametrize("name", ["model.pth", "legacy.pth", "model.safetensors", "model.pkl"])
def test_a_truncated_file_is_named_with_its_size(tmp_path, name):
    path = tmp_path / name
    write_sample(path)
    whole = path.read_bytes()
    assert weights_of(read_checkpoint(str(path)), name)["bias"].tolist() == [1, 1, 1]
    for size in [1, 2, 7, 9, 20, 40, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{name}' \({size} bytes\) (cannot be read|holds|was refused)"):
            read_checkpoint(str(path))


def test_what_is_no_model_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.pth' \(0 bytes\) is empty"):
        read_checkpoint(str(path))
    path.write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ValueError, match="is a web page"):
        read_checkpoint(str(path))
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="Git LFS pointer"):
        read_checkpoint(str(path))
    Image.new("RGB", (8, 8)).save(path, "PNG")
    with pytest.raises(ValueError, match=r"model\.pth' \(\d+ bytes\) is a PNG image, not a weights file$"):
        read_checkpoint(str(path))
    for name in ("model.onnx", "model.xml"):
        (tmp_path / name).write_bytes(b"<?xml")
        with pytest.raises(ValueError, match=rf"{name}' is an exported model, .* needs the weights"):
            read_checkpoint(str(tmp_path / name))
    path.write_bytes(b"epoch,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(str(path))
    torch.save([1], path)
    with pytest.raises(ValueError, match="holds a list"):
        read_checkpoint(str(path))
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_checkpoint(str(tmp_path / "none.pth"))


WEIGHT, BIAS = torch.ones(2, 3), torch.zeros(2)
PLAIN = {"head.weight": WEIGHT, "head.bias": BIAS}


def under(prefix, state=PLAIN):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        {"model": PLAIN, "iteration": 3, "lr": torch.ones(1)},
        {"state_dict": PLAIN},
        {"model_state_dict": PLAIN, "optimizer_state_dict": {"state": {}}},
        {"blobs": PLAIN},
        # DistributedDataParallel, torch.compile, either in the other, and a compiled part.
        {"model": under("module.")},
        {"model": under("_orig_mod.")},
        {"model": under("module._orig_mod.")},
        {"model": under("_orig_mod.module.")},
        {"model": {"head._orig_mod.weight": WEIGHT, "head._orig_mod.bias": BIAS}},
        # Lightning.
        {"state_dict": under("model."), "pytorch-lightning_version": "2.4"},
        {"state_dict": under("model._orig_mod."), "pytorch-lightning_version": "2.4"},
        # Files that hold nothing but an average.
        {"ema": PLAIN},
        {"ema": {"module": PLAIN, "updates": 7}},
        {"ema_state_dict": under("module.") | {"n_averaged": torch.tensor(5)}, "epoch": 1},
        {"state_dict": under("ema_model.module.")},
        # Both: the model itself.
        {"ema": under("", {"head.weight": -WEIGHT}), "model": PLAIN},
        {"model": {"epoch": 3}, "model_ema": PLAIN},
    ],
)
def test_where_the_weights_are(content):
    found = weights_of(content, "x.pth")
    assert found.keys() == PLAIN.keys() and all(found[key] is value for key, value in PLAIN.items())


def test_names_that_wrap_nothing_stay():
    state = {"module.weight": WEIGHT, "model.weight": WEIGHT, "n": 3}
    assert weights_of({"model": state}, "x.pth").keys() == {"module.weight", "model.weight"}
    # A Lightning module may hold more than the model: nothing is lost.
    lightning = {"state_dict": {**under("model."), "criterion.weight": BIAS}, "pytorch-lightning_version": "2.4"}
    assert weights_of(lightning, "x.ckpt").keys() == {*PLAIN, "criterion.weight"}


def test_without_weights():
    with pytest.raises(ValueError, match=r"'x\.pth' holds no weights; it holds 'epoch'"):
        weights_of({"model": {"epoch": 3}}, "x.pth")
    with pytest.raises(ValueError, match=r"it holds nothing"):
        weights_of({}, "x.pth")


def test_numpy_numbers_among_plain_values(tmp_path):
    path = str(tmp_path / "model.pth")
    values = {"loss": np.float64(0.5), "epoch": np.int64(3), "best": np.bool_(True), "curve": [np.float32(1.5), None]}
    torch.save({"model": {"weight": WEIGHT}, "array": np.arange(3.0), **values}, path)
    content = read_checkpoint(path)
    assert {name: content[name] for name in values} == {"loss": 0.5, "epoch": 3, "best": True, "curve": [1.5, None]}
    assert type(content["loss"]) is float and type(content["epoch"]) is int
    assert torch.equal(content["array"], torch.arange(3.0, dtype=torch.float64))
    assert torch.equal(weights_of(content, path)["weight"], WEIGHT)


@pytest.mark.parametrize("value", [np.array([1, "x"], dtype=object), np.str_("text"), np.datetime64("2024-01-01")])
def test_other_values_of_numpy_are_refused(tmp_path, value):
    path = str(tmp_path / "model.pth")
    torch.save({"model": {"weight": WEIGHT}, "value": value}, path)
    with pytest.raises(ValueError, match=r"model\.pth' .*which is not a number"):
        read_checkpoint(path)


def test_code_beside_numpys_numbers_does_not_run(tmp_path):
    path, marker = str(tmp_path / "evil.pth"), tmp_path / "executed"
    torch.save({"model": {"weight": WEIGHT}, "loss": np.float64(1), "x": Evil(marker)}, path)
    with pytest.raises(ValueError, match="was refused, and nothing in it was executed"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_pickle_that_refers_to_other_files_is_refused_in_our_words(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02Pelsewhere\n.")
    with pytest.raises(ValueError, match=r"not a weights file: it refers to data outside of the file$"):
        read_checkpoint(str(path))
