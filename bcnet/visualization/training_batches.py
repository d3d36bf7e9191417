"""Pictures of training batches (VIS_PERIOD): the model's detections above, its targets below.

Letters: h x w image after augmentation, H x W picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from bcnet.data.transforms import resized_size
from bcnet.modeling import Detector
from bcnet.modeling.precision import autocast
from bcnet.structures import Detections

PANEL_SIDE = 400  # of a panel's longer side, pixels
COLUMNS = 5  # all panels in a row, the targets below the detections
GAP = 12  # below a row of panels, pixels
SCORE_THRESHOLD = 0.3  # in the first iterations little reaches more
MAX_DETECTIONS = 20


def draw_training_pictures(
    model: Detector,
    batch: Sequence[Mapping],
    *,
    image_format: str,
    class_names: Sequence[str] = (),
    amp_dtype: torch.dtype | None = None,
    max_images: int = 2,
) -> list[np.ndarray]:
    """Pictures of the first images of a batch: above the detections of the model, with both layers, below its targets.

    The model is left in the mode that it was in.

    Args:
        model: a detector.
        batch: dicts with "image" (uint8 [3, h, w]) and "targets" (`Targets`).
        image_format: channel order of the images, "BGR" or "RGB".
        class_names: names of the classes 0..K-1; fewer are not used.
        amp_dtype: precision of autocast; None computes in float32.
        max_images: maximum number of images, each of which gives a picture.

    Returns:
        list: uint8 [H, W, 3], RGB.
    """
    # Imported here: fonts and colours take a second, which a run without pictures need not wait.
    from bcnet.visualization import detections_from_targets, draw_layers, style

    class_names = tuple(class_names) if len(class_names) >= model.num_classes else ()
    branch = model.mask_branch
    shown = (
        {"specs": (), "roi_scale": 1.0}
        if branch is None
        else {"specs": branch.head.maps, "roi_scale": branch.roi_scale}
    )
    batch = batch[:max_images]
    with autocast(model.device, amp_dtype):
        images = [record["image"] for record in batch]
        if model.detects:
            results = model.inference(images, with_occluder=True)
        else:
            results = model.inference_masks(images, [_given(r, model.device) for r in batch], with_occluder=True)
    pictures = []
    for record, detections in zip(batch, results, strict=True):
        image = record["image"].cpu().permute(1, 2, 0).numpy()
        image = np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)
        targets = detections_from_targets(record["targets"], image.shape[:2], class_names, **shown)
        # Resized once, for all panels of both rows. Rescaling drops empty boxes, which cannot be drawn.
        height, width = resized_size(image.shape[0], image.shape[1], PANEL_SIDE, PANEL_SIDE)
        image = style.resized(image, width, height)
        detections = replace(detections.to("cpu").rescaled((height, width)), class_names=class_names)
        detections = detections[detections.scores >= SCORE_THRESHOLD][:MAX_DETECTIONS]
        targets = targets.rescaled((height, width))
        options = {"columns": COLUMNS, "keep_places": True}
        rows = [draw_layers(image, detections, **options), draw_layers(image, targets, scores=False, **options)]
        pictures.append(_stacked(rows))
    return pictures


def _given(record: Mapping, device: torch.device) -> Detections:
    """The ground-truth boxes of an image, for a model that takes boxes."""
    targets = record["targets"]
    height, width = record["image"].shape[1:]
    return Detections((height, width), targets.boxes, torch.ones(len(targets)), targets.classes).to(device)


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)
