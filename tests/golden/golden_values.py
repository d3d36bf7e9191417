"""Reading the golden files, rebuilding their weights, and comparing with them.

The files hold numbers measured on two reference implementations, the published BCNet code and detectron2, with
weights that follow from the parameter names alone. ``*_keys.json`` is the reference's state dict, key -> shape.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from bcnet.checkpoint import load_weights
from bcnet.config import load_config
from bcnet.modeling import build_model

FOLDER = Path(__file__).parent
TOLERANCE = 1e-4  # of a tensor's standard deviation


def load(name):
    return dict(np.load(FOLDER / f"{name}.npz"))


def model(name, config, opts, folder):
    """Our model of a config file on the CPU in eval mode with the reference's weights read from a file in `folder`."""
    path = folder / "model.pth"
    torch.save({"model": weights(name)}, path)
    cfg = load_config(str(FOLDER.parents[1] / "configs" / config), ["MODEL.DEVICE", "cpu", *opts])
    built = build_model(cfg)
    report = load_weights(built, str(path))
    assert not report.differs and not report.skipped
    return built.eval()


def keys(name):
    return json.loads((FOLDER / f"{name}_keys.json").read_text())


def fill(name, shape):
    """The value that the reference's parameter of that name was given."""
    rs = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        v = 0.5 + rs.random_sample(shape)
    elif name.endswith("running_mean"):
        v = 0.1 * rs.standard_normal(shape)
    elif name == "head.bbox_pred.bias":
        v = 2.0 + 0.05 * rs.standard_normal(shape)
    elif name.endswith("bias"):
        v = 0.05 * rs.standard_normal(shape)
    elif name.endswith("scale"):
        v = 1.0 + 0.1 * rs.standard_normal(shape)
    elif len(shape) == 1:
        v = 0.5 + rs.random_sample(shape)
    else:
        v = rs.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if name.startswith(
            (
                "proposal_generator.rpn_head.objectness_logits",
                "proposal_generator.rpn_head.anchor_deltas",
                "roi_heads.box_predictor.",
            )
        ):
            v = v * 0.004
        if name.startswith(("mask_head.", "roi_heads.mask_head.")) and "predictor" in name:
            v = v * 0.005
        if "query_transform" in name or "key_transform" in name:
            v = v * 0.007
    return np.asarray(v, dtype=np.float32)


def weights(name):
    """The reference's state dict."""
    return {key: torch.from_numpy(np.asarray(fill(key, shape))) for key, shape in keys(name).items()}


def image():
    """The input, float32 [3, 250, 310], BGR, before mean subtraction."""
    return torch.from_numpy((np.random.RandomState(7).random_sample((3, 250, 310)) * 255).astype(np.float32))


def assert_samples(golden, name, tensor, *, shape=None):
    """Compares a tensor with the 64 samples of it, to `TOLERANCE` of the samples' standard deviation."""
    expected = golden[f"{name}_val"]
    shape = golden.get(f"{name}_shape", shape)
    if shape is not None:
        assert list(tensor.shape) == list(shape), name
    actual = tensor.detach().numpy().reshape(-1)[golden[f"{name}_idx"]]
    assert_close(actual, expected, name)


def assert_close(actual, expected, name=""):
    """Compares arrays, to `TOLERANCE` of the expected values' standard deviation."""
    difference = np.abs(np.asarray(actual, dtype=np.float64) - expected).max()
    assert difference <= TOLERANCE * expected.std(), f"{name}: {difference} of {expected.std()}"


def match_detections(golden, detections):
    """Pairs of golden and own detections of equal class, box IoU above 0.99 and scores within 1e-3.

    Returns:
        list: (golden index, own index), each index at most once.
    """
    boxes, scores, classes = (torch.from_numpy(golden[f"det_{name}"]) for name in ("boxes", "scores", "classes"))
    fits = (
        (box_iou(boxes, detections.boxes) > 0.99)
        & (classes[:, None] == detections.classes)
        & ((scores[:, None] - detections.scores).abs() < 1e-3)
    )
    pairs, taken = [], set()
    for index, candidates in enumerate(fits):
        free = [i for i in torch.nonzero(candidates)[:, 0].tolist() if i not in taken]
        if free:
            best = min(free, key=lambda i: abs(float(scores[index] - detections.scores[i])))
            taken.add(best)
            pairs.append((index, best))
    return pairs
