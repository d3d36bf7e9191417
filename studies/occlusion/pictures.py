"""Image grid: masks predicted by each arm for the same objects."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from pycocotools import mask as coco_mask

from bcnet.checkpoint import load_weights
from bcnet.config import load_config
from bcnet.data import ImageRecord, load_dataset, read_image
from bcnet.data.source_masks import visible_rle
from bcnet.modeling import build_model
from bcnet.prediction.ground_truth_boxes import GroundTruthBoxPredictor, ground_truth_boxes
from bcnet.structures import Detections, InstanceMasks, Targets
from bcnet.visualization import detections_from_targets, draw_detections
from studies.run_files import CONFIG_FILE

SIDE = 256  # side of an image in pixels


def draw_grid(folders: Mapping[str, str], path: str, scenes: int = 6) -> None:
    """One row per test scene: the image, the ground truth, and each arm's masks in the ground-truth boxes.

    The occluder masks of an arm are drawn in a separate column: on each object, in the object's colour.

    Args:
        folders: folder of one run per arm, all on the same scenes.
        path: PNG file to write.
        scenes: number of rows, the first test scenes.
    """
    configs = {arm: load_config(os.path.join(folder, CONFIG_FILE)) for arm, folder in folders.items()}
    records, _ = load_dataset(next(iter(configs.values())).DATASETS.TEST[0])
    records = [record for record in records if record.instances][:scenes]
    images = [read_image(record.file_name, "RGB") for record in records]
    columns = {"image": images, "truth": [_draw(i, _truth(r)) for i, r in zip(images, records, strict=True)]}
    for arm, cfg in configs.items():
        model = build_model(cfg)
        load_weights(model, os.path.join(folders[arm], "model_final.pth"))
        predict = GroundTruthBoxPredictor(cfg, model.eval())
        detections = [predict(record) for record in records]
        columns[arm] = [_draw(i, d) for i, d in zip(images, detections, strict=True)]
        if detections[0].occluder_mask is not None:
            occluders = [d.with_maps(occludee_mask=d.maps["occluder_mask"]) for d in detections]
            columns[f"{arm}: occluder"] = [_draw(i, d) for i, d in zip(images, occluders, strict=True)]
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * len(records) + 0.3), layout="constrained")
    grid = figure.subplots(len(records), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        grid[0, column].set_title(title, fontsize=10)
        for ax, picture in zip(grid[:, column], pictures, strict=True):
            ax.imshow(picture)
            ax.axis("off")
    figure.savefig(path, dpi=90)


def _draw(image: np.ndarray, detections: Detections) -> np.ndarray:
    return draw_detections(image, detections, long_side=SIDE, opacity=0.6, labels=False)


def _truth(record: ImageRecord) -> Detections:
    rles = [visible_rle(record, instance) for instance in record.instances if not instance.iscrowd]
    full = np.array([coco_mask.decode(rle) for rle in rles], dtype=np.uint8)
    masks = torch.from_numpy(full.reshape(-1, record.height, record.width))
    boxes, classes = ground_truth_boxes(record)
    targets = Targets(boxes, classes, InstanceMasks.from_full({"occludee": masks, "occluder": torch.zeros_like(masks)}))
    return detections_from_targets(targets, (record.height, record.width), side=SIDE)
