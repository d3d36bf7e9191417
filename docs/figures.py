#!/usr/bin/env python
"""Draws the pictures of docs/concepts.md and docs/composition.md from synthetic scenes: python docs/figures.py

The scenes are images 18 and 1 of `bcnet data scenes --split val --seed 1 --difficulty easy`, generated here.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import cv2
import numpy as np
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data import DatasetMapper, load_dataset
from bcnet.data.composition import build_composition
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS, required_layers
from bcnet.occlusion import with_relations
from bcnet.structures import Detections
from bcnet.visualization import detections_from_targets, draw_detections, draw_heat_maps, draw_layers
from bcnet.visualization.sheet import Panel, sheet

SCENE, SIDE = 18, 360
COMPOSED_SCENE, COMPOSITION_SEED = 1, 1


def truth_of(
    dataset: str, *, amodal: bool = False, ordered: bool = True, side: int = 112
) -> tuple[np.ndarray, Detections]:
    """The scene as uint8 RGB, and its annotations as a perfect model's detections."""
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    cfg.INPUT.MASK_TARGET = "amodal" if amodal else "visible"
    mapper = DatasetMapper.from_config(cfg, training=True)
    records, info = load_dataset(dataset)
    record = records[SCENE]
    if not ordered:
        record.in_front = None
    sample = mapper(record, np.random.default_rng(0))
    image = np.ascontiguousarray(sample["image"].numpy()[mapper.channels].transpose(1, 2, 0))
    return image, with_relations(detections_from_targets(sample["targets"], image.shape[:2], info.class_names, side))


def composed_targets(dataset: str, *, side: int) -> tuple[np.ndarray, Detections]:
    """A scene with objects pasted into it, uint8 RGB, and the targets that follow from its visible masks alone."""
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.MODEL.BILAYER.OCCLUDER_TARGET = True, "front"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    cfg.INPUT.COMPOSITION.ENABLED, cfg.INPUT.COMPOSITION.PROBABILITY = True, 1.0
    records, info = load_dataset(dataset)
    for record in records:
        record.in_front = None
        for instance in record.instances:
            instance.amodal = instance.amodal_bbox = instance.hidden_fraction = None
    mapper = DatasetMapper.from_config(
        cfg,
        training=True,
        layers=required_layers((*PUBLISHED_MAPS, OCCLUDEE_AMODAL)),
        composition=build_composition(cfg, records, info.class_names),
    )
    sample = mapper(records[COMPOSED_SCENE], np.random.default_rng(COMPOSITION_SEED))
    image = np.ascontiguousarray(sample["image"].numpy()[mapper.channels].transpose(1, 2, 0))
    return image, detections_from_targets(sample["targets"], image.shape[:2], info.class_names, side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=os.path.join(os.path.dirname(__file__), "images"), metavar="FOLDER")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        annotations = generate_dataset(folder, SCENE + 1, SceneConfig.preset("easy"), seed=1, split="val")
        dataset = f"coco:{annotations}:{os.path.join(folder, 'images')}"
        image, visible = truth_of(dataset)
        _, whole = truth_of(dataset, amodal=True)
        _, symmetric = truth_of(dataset, ordered=False)
        _, learned = truth_of(dataset, side=28)
        composed, composed_panels = composed_targets(dataset, side=112)
        _, composed_maps = composed_targets(dataset, side=28)
    plain = {"long_side": SIDE, "scores": False}
    panels = [
        Panel(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), "The image"),
        Panel(draw_detections(image, visible, **plain), "Modal masks", "what is visible"),
        Panel(draw_detections(image, whole, **plain), "Amodal masks", "the whole objects"),
    ]
    pictures = {
        "concepts_masks": sheet(panels, columns=3),
        "concepts_ordered": draw_layers(image, visible, **plain),
        "concepts_symmetric": draw_layers(image, symmetric, **plain),
        "concepts_targets": draw_heat_maps(image, learned, cell=96, scores=False)[0],
        "composition_panels": draw_layers(composed, composed_panels, **plain),
        "composition_targets": draw_heat_maps(composed, composed_maps, cell=96, scores=False)[0],
    }
    os.makedirs(args.output, exist_ok=True)
    for name, picture in pictures.items():
        # 256 colours are enough for a page, and a third of the bytes.
        Image.fromarray(picture).quantize(256).save(os.path.join(args.output, f"{name}.png"), optimize=True)


if __name__ == "__main__":
    main()
