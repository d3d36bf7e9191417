"""Models of both hosts with one set of weights, and ground truth for both."""

from __future__ import annotations

import os

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model as build_detectron2_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from mask_layers import two_layers

from bcnet.checkpoint import to_detectron2
from bcnet.config import load_config
from bcnet.detectron2 import add_bcnet_config
from bcnet.modeling import build_model
from bcnet.structures import Targets

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "configs")
FASTER_RCNN, FCOS = "quick/bcnet_faster_rcnn.yaml", "quick/bcnet_fcos.yaml"
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.1),
    *("MODEL.FCOS.SCORE_THRESH_TEST", 0.011, "TEST.DETECTIONS_PER_IMAGE", 20),
]
SIZES = ((96, 128), (110, 90))  # of the images, (H, W)


def plugin_cfg(config_file, *opts):
    cfg = get_cfg()
    add_bcnet_config(cfg)
    cfg.merge_from_file(os.path.join(CONFIGS, config_file))
    cfg.merge_from_list([*SMALL, *opts])
    return cfg


def engine_cfg(config_file, *opts):
    return load_config(os.path.join(CONFIGS, config_file), [*SMALL, *opts])


def perturb(model):
    """Random weights with which a detector of the engine finds something, and maps that are not all 1/2."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "bias")) and tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
            elif name.endswith("running_var"):
                tensor *= 0.5 + torch.rand(tensor.shape, generator=generator)
            elif name.endswith("bn3.weight"):
                tensor *= 0.1  # random residual branches of full size would grow without end
            elif "predictor" in name:
                weights = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(weights - weights.mean(dim=1, keepdim=True))
            elif "cls_score" in name or "bbox_pred" in name:
                tensor.copy_((0.1 if "cls_score" in name else 0.02) * torch.randn(tensor.shape, generator=generator))
            elif "gcn.query" in name:
                # Untrained features give affinities whose softmax turns rounding into another answer.
                tensor *= 1e-3
        if hasattr(model, "head"):
            model.head.distances.bias += 2.0


def both_hosts(config_file, *opts):
    """(engine's model, plugin's model) in eval mode with the same weights."""
    torch.manual_seed(0)
    engine = build_model(engine_cfg(config_file, *opts)).eval()
    perturb(engine)
    plugin = build_detectron2_model(plugin_cfg(config_file, *opts)).eval()
    plugin.load_state_dict(to_detectron2(engine.state_dict()), strict=True)
    # The engine's layout, so that both take the same kernels: random weights magnify rounding a thousandfold.
    return engine, plugin.to(memory_format=torch.channels_last)


def assert_same_losses(engine, plugin):
    """The losses of `images` with `targets` are equal in training; returns the engine's."""
    expected = engine.train()(images(), targets())
    with EventStorage():
        found = plugin.train()(inputs(objects=3))
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    return expected


def images():
    random = np.random.RandomState(0)
    return [torch.from_numpy(random.randint(0, 256, (3, *size)).astype(np.uint8)) for size in SIZES]


def targets(objects=3):
    """Ground truth of `images` as the engine takes it: overlapping rectangles, each occluded by the next."""
    found = []
    for height, width in SIZES:
        occludee = torch.zeros(objects, height, width, dtype=torch.bool)
        boxes = []
        for i in range(objects):
            x, y = 8 + 14 * i, 6 + 11 * i
            occludee[i, y : y + 40, x : x + 44] = True
            boxes.append([x, y, x + 44, y + 40])
        occluder = torch.zeros_like(occludee)
        occluder[:-1] = occludee[:-1] & occludee[1:]
        found.append(
            Targets(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.arange(objects) % 6,
                two_layers(occludee, occluder),
            )
        )
    return found


def to_instances(target, size):
    """The engine's targets as detectron2's."""
    masks = target.masks.to_full(*size).bool()
    instances = Instances(size, gt_boxes=Boxes(target.boxes.clone()), gt_classes=target.classes)
    if len(target):
        instances.gt_masks = BitMasks(masks[:, 0])
        instances.gt_occluder_masks = BitMasks(masks[:, 1])
    return instances


def inputs(objects=None, **extra):
    """`images`, with ground truth if a number of objects is given, as detectron2's models take them."""
    batch = [{"image": image, "height": image.shape[1], "width": image.shape[2], **extra} for image in images()]
    if objects is not None:
        for sample, target, size in zip(batch, targets(objects), SIZES, strict=True):
            sample["instances"] = to_instances(target, size)
    return batch
