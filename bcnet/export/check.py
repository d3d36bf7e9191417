"""Comparison of an exported model with the eager one on real images: detections, boxes, scores and maps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bcnet.data import image_array
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.export.results import ArrayDetections
from bcnet.export.runtime import ExportedPredictor
from bcnet.modeling import Detector
from bcnet.modeling.detector import require_detector
from bcnet.prediction.predictor import Predictor
from bcnet.structures import Detections
from bcnet.words import counted

BOX_TOLERANCE = 1e-2  # pixels of the image
SCORE_TOLERANCE = 1e-3  # of scores and of the maps' probabilities
TIED = 1e-5  # scores that differ by less: rounding decides which comes first


@dataclass
class CheckReport:
    """The largest differences between an exported model and eager.

    Attributes:
        images: number of images compared.
        detections: number of detections in them.
        boxes: pixels of the image.
        scores, maps: probabilities.
    """

    images: int = 0
    detections: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    maps: float = 0.0

    def __str__(self) -> str:
        return (
            f"{counted(self.detections, 'detection')} in {counted(self.images, 'image')}: the same as eager; largest "
            f"differences: boxes {self.boxes:.1e} px, scores {self.scores:.1e}, maps {self.maps:.1e}"
        )


def check_export(exported: ExportedPredictor, predictor: Predictor, files: Sequence[str]) -> CheckReport:
    """Compares the results of an exported model with those of the model that it was exported from.

    Eager gets the images resized and padded as the exported file takes them. A box-prompted model gets four boxes in
    each image. All detections are compared, whatever their score.

    Args:
        exported: the file.
        predictor: the model, on the CPU.
        files: images.

    Raises:
        ValueError: no image, an image that cannot be read, or results that differ: other detections or another order,
            boxes by more than 0.01 pixels, scores or maps by more than 0.001. Names the image and the difference. Among
            detections of equal scores (`TIED`) any order is the same.
    """
    if not files:
        raise ValueError("there are no images to check the exported model on")
    model = require_detector(predictor.detector)
    info = exported.info
    report = CheckReport()
    all_maps = any(spec.on_request for spec in info.maps)
    plain = Predictor(
        model,
        augmentation=_augmentation(predictor, info.size),
        image_format=predictor.image_format,
        class_names=predictor.class_names,
        max_image_pixels=predictor.max_image_pixels,
    )
    with _padded_to(model, info.size):
        for file in files:
            image = image_array(file, max_pixels=predictor.max_image_pixels)
            if info.takes_boxes:
                boxes = _four_boxes(image.shape[0], image.shape[1])
                classes = [0, 0, 0, 0]
                expected = plain.segment(image, boxes, classes, format="RGB", with_occluder=all_maps)
                found = exported.segment(image, boxes, classes, format="RGB", with_occluder=all_maps)
            else:
                expected = plain.predict(image, "RGB", with_occluder=all_maps)
                found = exported.predict(image, "RGB", with_occluder=all_maps)
            _compare(file, found, expected, report)
    return report


def _augmentation(predictor: Predictor, size: int | None) -> Augmentation:
    if size is None:
        return predictor.augmentation
    return replace(predictor.augmentation, resize=ResizeShortestEdge((size,), size))


@contextlib.contextmanager
def _padded_to(model: Detector, size: int | None) -> Iterator[None]:
    """Pads images to a fixed size within the context: group normalisation sees the padding."""
    if size is None:
        yield
        return
    backbone: torch.nn.Module = model.backbone  # pyright: ignore[reportAssignmentType]
    own = "size_divisibility" in vars(backbone)
    before = model.size_divisibility
    backbone.size_divisibility = size  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if own:
            backbone.size_divisibility = before  # pyright: ignore[reportArgumentType]
        else:
            del backbone.size_divisibility


def _four_boxes(height: int, width: int) -> np.ndarray:
    """Boxes of several sizes that overlap: whole image, half, quarter, and one that starts at a fraction of a pixel."""
    shares = np.array([[0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.75, 0.75], [0.333, 0.111, 0.444, 0.9]])
    return (shares * [width, height, width, height]).astype(np.float32)


def _compare(file: str, found: ArrayDetections, expected: Detections, report: CheckReport) -> None:
    if len(found) != len(expected):
        raise ValueError(f"{file}: the exported model gives {len(found)} detections, eager {len(expected)}")
    classes = expected.classes.numpy()
    found = found[_order_of_ties(found, expected)]
    if not np.array_equal(np.asarray(found.classes), classes):
        first = int(np.flatnonzero(np.asarray(found.classes) != classes)[0])
        raise ValueError(
            f"{file}: detection {first} has class {int(found.classes[first])}, eager {int(classes[first])}: other "
            "detections, or another order"
        )
    if set(found.maps) != set(expected.maps):
        raise ValueError(f"{file}: the exported model has the maps {sorted(found.maps)}, eager {sorted(expected.maps)}")
    boxes = _largest(found.boxes, expected.boxes)
    scores = _largest(found.scores, expected.scores)
    maps = {name: _largest(found.maps[name], expected.maps[name]) for name in found.maps}
    limits = [("boxes", boxes, BOX_TOLERANCE), ("scores", scores, SCORE_TOLERANCE)]
    limits += [(name, difference, SCORE_TOLERANCE) for name, difference in maps.items()]
    for name, difference, limit in limits:
        if not difference <= limit:
            raise ValueError(f"{file}: {name} differ from eager by {difference:.2g}, the limit is {limit:g}")
    report.images += 1
    report.detections += len(found)
    report.boxes, report.scores = max(report.boxes, boxes), max(report.scores, scores)
    report.maps = max(report.maps, *maps.values(), 0.0)


def _order_of_ties(found: ArrayDetections, expected: Detections) -> np.ndarray:
    """Positions in `found`, int64 [D], that put detections of equal scores into eager's order, by class and box."""
    order = np.arange(len(found))
    tied = np.split(order.copy(), np.flatnonzero(-np.diff(expected.scores.numpy()) > TIED) + 1)
    for run in (run for run in tied if len(run) > 1):
        distance = np.abs(expected.boxes.numpy()[run][:, None] - found.boxes[run]).max(axis=2)
        distance[expected.classes.numpy()[run][:, None] != found.classes[run]] = np.inf
        for position, row in zip(run, distance, strict=True):
            nearest = int(row.argmin())
            order[position] = run[nearest]
            distance[:, nearest] = np.inf
    return order


def _largest(found: np.ndarray, expected: torch.Tensor) -> float:
    difference = np.abs(np.asarray(found, np.float64) - expected.double().numpy())
    return float(difference.max()) if difference.size else 0.0
