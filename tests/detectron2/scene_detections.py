"""Scenes with amodal masks and depth order, and detections made of their ground truth, without a model."""

from __future__ import annotations

import torch

from bcnet.bilayer import crop_layers, map_targets
from bcnet.data import DatasetMapper, load_dataset
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.maps import AMODAL, BUILT_IN_MAPS, OCCLUDEE, OCCLUDER
from bcnet.structures import Detections


def write_scenes(folder, images: int = 4) -> str:
    """Writes scenes; returns their spec."""
    generate_dataset(folder, images, SceneConfig.preset("medium"), seed=3, split="val")
    return f"coco:{folder}/annotations/val.json:{folder}/images"


def detections_of(spec: str, mask_target: str = "visible") -> dict[int, Detections]:
    """Detections with all five maps by image id: the objects, with shifted boxes, random scores and some lost."""
    records, _ = load_dataset(spec)
    mapper = DatasetMapper(
        augmentation=Augmentation(ResizeShortestEdge((0,), 9999)),
        mask_target=mask_target,
        layers=(OCCLUDEE, OCCLUDER, AMODAL),
    )
    generator = torch.Generator().manual_seed(0)
    found = {}
    for record in records:
        targets = mapper(record)["targets"]
        size = (record.height, record.width)
        boxes = targets.boxes + 2 * torch.randn(targets.boxes.shape, generator=generator)
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([size[1], size[0]] * 2))
        layers = crop_layers(targets.masks, boxes, torch.arange(len(boxes)), 28)
        maps = {name: t.values.float() * 0.9 for name, t in map_targets(BUILT_IN_MAPS, layers).items()}
        scores = torch.rand(len(boxes), generator=generator)
        order = scores.argsort(descending=True)[: max(len(boxes) - 1, 1)]
        detections = Detections(size, boxes, scores, targets.classes, maps)
        found[record.image_id] = detections[order]
    return found
