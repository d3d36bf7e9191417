"""Small real detectors and a small data set on disk."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from training_toys import with_overrides

from bcnet.config import get_cfg
from bcnet.modeling import build_model

DETECTORS = ("GeneralizedRCNN", "BCNetFCOS")


def small_config(detector: str = "GeneralizedRCNN", **overrides):
    """ResNet-18 detectors of 32 channels and three classes for images of 64 pixels, on the CPU."""
    cfg = get_cfg()
    cfg.SEED = 1
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = detector
    model.MASK_ON = True
    model.PIXEL_STD = [57.375, 57.12, 58.395]
    model.RESNETS.DEPTH = 18
    model.RESNETS.RES2_OUT_CHANNELS = 64
    model.RESNETS.STRIDE_IN_1X1 = False
    model.BACKBONE.FREEZE_AT = 0
    model.FPN.OUT_CHANNELS = 32
    model.ROI_MASK_HEAD.CONV_DIM = 32
    model.ROI_MASK_HEAD.NUM_CONV = 4
    model.ROI_HEADS.NUM_CLASSES = 3
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    model.ROI_BOX_HEAD.FC_DIM = 32
    model.RPN.PRE_NMS_TOPK_TRAIN = model.RPN.PRE_NMS_TOPK_TEST = 100
    model.RPN.POST_NMS_TOPK_TRAIN = model.RPN.POST_NMS_TOPK_TEST = 50
    model.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    model.FCOS.NUM_CONVS = 1
    model.FCOS.NORM_GROUPS = 8
    if detector == "BCNetFCOS":
        model.BACKBONE.NAME = "build_bcnet_fcos_resnet_fpn_backbone"
        model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = 64
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 4
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.LOG_PERIOD = 1
    cfg.TEST.DETECTIONS_PER_IMAGE = 10
    return with_overrides(cfg, overrides)


def finding_detector(detector: str = "GeneralizedRCNN", **overrides):
    """(config, untrained detector in eval mode) that finds something, with maps that rounding does not change."""
    torch.manual_seed(0)
    thresholds = {"MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0, "MODEL__FCOS__SCORE_THRESH_TEST": 0.0}
    cfg = small_config(detector, **thresholds, **overrides)
    model = build_model(cfg).eval()
    if detector == "BCNetFCOS":
        model.head.distances.bias.data.fill_(1.5)  # untrained, most boxes are empty
    if model.mask_branch is not None:
        for layer in (model.mask_branch.head.occluder_layer, model.mask_branch.head.occludee_layer):
            # Untrained features give affinities of 1e5, whose softmax turns rounding into another answer.
            layer.gcn.query.weight.data *= 1e-4
    return cfg, model


def write_small_data_set(folder, images: int = 5) -> str:
    """Images of 48 x 64 pixels with two overlapping rectangles each, in COCO's format; returns its spec."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries, annotations = [], []
    for index in range(images):
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        for k, (x, y) in enumerate(((4, 4), (14 + index, 12))):
            pixels[y : y + 24, x : x + 28] = rng.integers(100, 255, 3, dtype=np.uint8)
            polygon = [x, y, x + 28, y, x + 28, y + 24, x, y + 24]
            annotations.append(
                {
                    "id": 2 * index + k + 1,
                    "image_id": index + 1,
                    "category_id": (7, 8, 9)[(index + k) % 3],
                    "bbox": [x, y, 28, 24],
                    "area": 28 * 24,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        entries.append({"id": index + 1, "file_name": f"{index}.png", "height": 48, "width": 64})
    categories = [{"id": id, "name": name} for id, name in ((7, "cup"), (8, "plate"), (9, "fork"))]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return f"coco:{folder / 'annotations.json'}:{folder / 'images'}"
