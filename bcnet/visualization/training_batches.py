"""What the model finds in the images that it is being trained on, beside what it is to learn from them.

Letters: h x w image after augmentation, H x W picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from bcnet.modeling.precision import autocast

PANEL_SIDE = 400  # of a panel's longer side, pixels
GAP = 12  # below a row of panels, pixels
SCORE_THRESHOLD = 0.3  # in the first iterations little reaches more
MAX_DETECTIONS = 20


def draw_training_pictures(
    model: nn.Module,
    batch: Sequence[Mapping],
    *,
    image_format: str,
    class_names: Sequence[str] = (),
    amp_dtype: torch.dtype | None = None,
    max_images: int = 2,
) -> list[np.ndarray]:
    """Pictures of the first images of a batch: above what the model finds, with both layers, below its targets.

    The model is left in the mode that it was in.

    Args:
        model: a detector.
        batch: dicts with "image" (uint8 [3, h, w]) and "targets" (`Targets`).
        image_format: channel order of the images, "BGR" or "RGB".
        class_names: names of the classes 0..K-1; fewer are not used.
        amp_dtype: precision of autocast; None computes in float32.
        max_images: so many images at most, and so many pictures.

    Returns:
        list: uint8 [H, W, 3], RGB.
    """
    # Imported here: fonts and colours take a second, which a run without pictures need not wait.
    from bcnet.visualization import detections_from_targets, draw_layers

    class_names = tuple(class_names) if len(class_names) >= model.num_classes else ()
    batch = batch[:max_images]
    with autocast(model.device, amp_dtype):
        found = model.inference([record["image"] for record in batch], with_occluder=True)
    pictures = []
    for record, detections in zip(batch, found, strict=True):
        image = record["image"].cpu().permute(1, 2, 0).numpy()
        image = np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)
        # Boxes that are empty cannot be drawn.
        detections = replace(detections.to("cpu").rescaled(image.shape[:2]), class_names=class_names)
        detections = detections[detections.scores >= SCORE_THRESHOLD][:MAX_DETECTIONS]
        specs = model.mask_branch.head.maps if model.mask_branch is not None else ()
        targets = detections_from_targets(record["targets"], image.shape[:2], class_names, specs=specs)
        rows = [
            draw_layers(image, detections, long_side=PANEL_SIDE),
            draw_layers(image, targets, long_side=PANEL_SIDE, scores=False),
        ]
        pictures.append(_stacked(rows))
    return pictures


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)
