#!/usr/bin/env python
"""Makes the pictures of docs/concepts.md from one synthetic scene: python docs/figures.py

The scene is image 18 of `bcnet data scenes --split val --seed 1 --difficulty easy`, made anew here.
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
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.occlusion import with_relations
from bcnet.structures import Detections
from bcnet.visualization import detections_from_targets, draw_detections, draw_heat_maps, draw_layers
from bcnet.visualization.layers import join_panels

SCENE, SIDE = 18, 280


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
    plain = {"long_side": SIDE, "scores": False}
    masks = join_panels(
        [
            cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC),
            draw_detections(image, visible, **plain),
            draw_detections(image, whole, **plain),
        ],
        [("The image", ""), ("Modal masks", "what is visible"), ("Amodal masks", "the whole objects")],
    )
    pictures = {
        "concepts_masks": masks,
        "concepts_ordered": draw_layers(image, visible, **plain),
        "concepts_symmetric": draw_layers(image, symmetric, **plain),
        "concepts_targets": draw_heat_maps(image, learned, cell=96, scores=False)[0],
    }
    os.makedirs(args.output, exist_ok=True)
    for name, picture in pictures.items():
        # 256 colours are enough for a page, and a third of the bytes.
        Image.fromarray(picture).quantize(256).save(os.path.join(args.output, f"{name}.png"), optimize=True)


if __name__ == "__main__":
    main()
