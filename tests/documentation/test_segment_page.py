"""docs/segment.md: the example with torchvision's detector, with random weights."""

from __future__ import annotations

import re

import torch
from example_commands import ROOT

EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_with_torchvisions_detector(folder):
    (source,) = (block for block in EXAMPLE.findall((ROOT / "docs/segment.md").read_text()) if "torchvision" in block)
    source = source.replace("weights=Weights.DEFAULT", "weights=None, weights_backbone=None, box_score_thresh=0.0")
    torch.manual_seed(0)
    namespace: dict = {}
    exec(source.replace(">= 0.5", ">= 0.0"), namespace)
    detections, found = namespace["detections"], namespace["found"]
    assert len(detections) == len(found["boxes"]) > 0
    assert torch.equal(detections.classes, found["labels"]) and detections.class_names[1] == "person"
    assert detections.maps["occluder_mask"].shape[1:] == (28, 28)
