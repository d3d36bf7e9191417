"""Boxes of any detector, checked: arrays, tensors, and results of bcnet, supervision, ultralytics, torchvision, ...

In numpy, so that exported models take them without torch.

Letters: D boxes, H x W image.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from bcnet.structures.output import DetectionsOutput
from bcnet.words import OBJECT, class_name

if TYPE_CHECKING:
    from bcnet.structures import Detections

logger = logging.getLogger(__name__)

BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes that another detector found, checked.

    Attributes:
        boxes: float32 [D, 4], xyxy in pixels, clipped to the image.
        scores: float32 [D].
        classes: int64 [D], from 0.
        class_names: of the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: tuple[str, ...]

    def to_detections(self, image_size: tuple[int, int]) -> Detections:
        """As `Detections` in an image of (H, W), without maps."""
        import torch

        from bcnet.structures import Detections

        boxes, scores, classes = map(torch.from_numpy, (self.boxes, self.scores, self.classes))
        return Detections(image_size, boxes, scores, classes, class_names=self.class_names)


def given_boxes(
    boxes: Any,
    classes: Any = None,
    scores: Any = None,
    *,
    image_size: tuple[int, int],
    box_format: str = "xyxy",
    class_names: Sequence[str] | Mapping[int, str] = (),
    default_names: Sequence[str] = (),
    mask_classes: int = 1,
) -> GivenBoxes:
    """Boxes that another detector found, checked and clipped to the image, in their order.

    Args:
        boxes: [D, 4] in pixels of the image, an array, a tensor or lists; or what has them, with classes and scores:
            `bcnet.structures.Detections`, supervision's `Detections`, ultralytics' `Results` or `Boxes`, detectron2's
            `Instances`, a dict of "boxes", "labels" and "scores" (torchvision, transformers); or a list of one of
            them, as those detectors return it for a batch of one image. D may be 0.
        classes: [D] whole numbers from 0, or None: those of the object, else all 0. Or [D] names, as detectors of free
            text give them: of `class_names`, of the model's classes where its masks are by class, else numbered as
            they come.
        scores: [D], or None: those of the object, else all 1.
        image_size: (H, W).
        box_format: of arrays and tensors: "xyxy", "xywh" (COCO) or "cxcywh" (centre).
        class_names: of the classes 0.., or by class as ultralytics' `names`; empty takes those of the object, if it has
            any; else `default_names` for given classes, and "object" for boxes without classes.
        mask_classes: of the masks to predict: 1 for class-agnostic ones, otherwise classes must be given and below it.

    Raises:
        ValueError: another shape or format; a list of several results; a value that is not finite; a box without area
            or outside the image, with its position; classes that are not whole numbers from 0; or an object of an image
            of another size.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format is {box_format!r}; it must be one of {', '.join(map(repr, BOX_FORMATS))}")
    boxes = _of_one_image(boxes)
    found = _fields(boxes)
    if found is not None:
        box_format = "xyxy"
        own_size = getattr(boxes, "image_size", getattr(boxes, "orig_shape", None))  # Instances; ultralytics
        if own_size is not None and tuple(own_size) != tuple(image_size):
            raise ValueError(f"the boxes are of an image of {tuple(own_size)} (height, width), not {image_size}")
        boxes, own_classes, own_scores, own_names = found
        classes = own_classes if classes is None else classes
        scores = own_scores if scores is None else scores
        class_names = class_names or own_names
    values = _values("boxes", boxes)
    if values.size == 0:
        values = values.reshape(0, 4)
    if values.ndim != 2 or values.shape[1] != 4:
        hint = "; one box is [[x0, y0, x1, y1]]" if values.shape == (4,) else ""
        if values.ndim == 2 and values.shape[1] > 4:
            hint = "; scores and classes are arguments of their own: segment(image, rows[:, :4], scores=rows[:, 4])"
        raise ValueError(f"boxes must be [D, 4], got {values.shape}{hint}")
    corners = _checked(_corners(values, box_format), values, image_size, box_format)
    count = len(corners)
    if classes is None and mask_classes > 1:
        raise ValueError(f"the model has masks of {mask_classes} classes: give the class of each box")
    if isinstance(class_names, Mapping):
        class_names = _names(class_names)
    if _are_text(classes):
        class_names = class_names or (default_names if mask_classes > 1 else tuple(dict.fromkeys(map(str, classes))))
        classes = _positions(classes, class_names)
    class_names = class_names or ((OBJECT,) if classes is None else default_names)
    labels = np.zeros(count, np.float32) if classes is None else _values("classes", classes)
    confidences = np.ones(count, np.float32) if scores is None else _values("scores", scores)
    for name, value in (("classes", labels), ("scores", confidences)):
        if value.shape != (count,):
            raise ValueError(f"{name} must be [{count}] like the boxes, got {value.shape}")
    if ((labels < 0) | (labels != labels.round())).any():
        raise ValueError(f"classes must be whole numbers from 0, got {labels.tolist()[:10]}")
    if 1 < mask_classes <= float(labels.max() if count else 0):
        raise ValueError(f"class {int(labels.max())} is not one of the {mask_classes} that the model has masks of")
    return GivenBoxes(corners, confidences, labels.astype(np.int64), tuple(class_names))


def _of_one_image(boxes: Any) -> Any:
    """The result in a list of one, as detectors return it for a batch of one image; anything else as it is.

    Raises:
        ValueError: a list of several results.
    """
    if not isinstance(boxes, (list, tuple)) or not boxes:
        return boxes
    first = boxes[0]
    if not isinstance(first, Mapping) and not any(hasattr(first, name) for name in ("boxes", "pred_boxes", "xyxy")):
        return boxes
    if len(boxes) > 1:
        raise ValueError(f"got the results of {len(boxes)} images, give those of one image: results[0] of the first")
    return first


def _fields(boxes: Any) -> tuple[Any, Any, Any, tuple[str, ...]] | None:
    """Boxes (xyxy), classes, scores and class names of a result object; None for another kind."""
    if isinstance(boxes, DetectionsOutput):
        own: Any = boxes
        return own.boxes, own.classes, own.scores, tuple(own.class_names)
    if isinstance(boxes, Mapping):  # torchvision's detectors, transformers' post_process_object_detection
        if "boxes" not in boxes:
            raise ValueError(
                f"a dict must have 'boxes', and may have 'labels' and 'scores'; got {sorted(map(str, boxes))}"
            )
        classes, names, texts = boxes.get("labels"), (), boxes.get("text_labels")  # texts of zero-shot detectors alone
        if texts is not None and not _are_text(classes):
            classes, names = (texts, ()) if classes is None else _named(classes, texts)
        return boxes["boxes"], classes, boxes.get("scores"), names
    if hasattr(boxes, "boxes") and hasattr(boxes, "names"):  # ultralytics' Results
        own_boxes = boxes.boxes
        if own_boxes is None:
            raise ValueError(f"the {type(boxes).__name__} object has no boxes")
        return own_boxes.xyxy, own_boxes.cls, own_boxes.conf, _names(boxes.names)
    if hasattr(boxes, "pred_boxes"):  # detectron2's Instances
        return boxes.pred_boxes.tensor, getattr(boxes, "pred_classes", None), getattr(boxes, "scores", None), ()
    if hasattr(boxes, "xyxy"):
        classes = getattr(boxes, "class_id", getattr(boxes, "cls", None))
        scores = getattr(boxes, "confidence", getattr(boxes, "conf", None))
        data = getattr(boxes, "data", None)
        names = data.get("class_name") if isinstance(data, dict) else None
        classes, names = (classes, ()) if classes is None or names is None else _named(classes, names)
        return boxes.xyxy, classes, scores, names
    return None


def _are_text(classes: Any) -> TypeGuard[Sequence[str]]:
    """Whether classes are given by name."""
    given = isinstance(classes, (list, tuple, np.ndarray)) and len(classes) > 0
    return given and all(isinstance(one, str) for one in classes)


def _positions(texts: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The numbers of classes that are given by name.

    Raises:
        ValueError: a name that is none of the class names.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    if absent := [text for text in texts if text not in numbers]:
        raise ValueError(f"class {str(absent[0])!r} is not one of the {len(numbers)} class names")
    return [numbers[text] for text in texts]


def _named(classes: Any, texts: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """Classes and the names of the classes 0.. from class and name of each box; where they disagree, names are kept."""
    by_class: dict[int, str] = {}
    for label, text in zip(classes, texts, strict=True):
        if by_class.setdefault(int(label), str(text)) != str(text):  # of two detectors that were merged
            return list(map(str, texts)), ()
    return classes, _names(by_class)


def _names(by_class: Mapping[Any, Any]) -> tuple[str, ...]:
    """Names of the classes 0.. from names by class; a class without one is named by its number."""
    names = {int(label): str(name) for label, name in by_class.items()}
    return tuple(names.get(label, class_name(label, ())) for label in range(max(names, default=-1) + 1))


def _values(name: str, values: Any) -> np.ndarray:
    """As float32.

    Raises:
        ValueError: not numbers, or one that is not finite, with its position.
    """
    if values is None:
        raise ValueError(f"{name} must be numbers [D{', 4' * (name == 'boxes')}], got None")
    if hasattr(values, "detach"):  # a tensor, of any device and dtype: numpy has no bfloat16
        values = values.detach().cpu().float().numpy()
    try:
        array = np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers [D{', 4' * (name == 'boxes')}]: {error}") from error
    if not np.isfinite(array).all():
        position = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"{name} must be finite; at {position} there is {array[tuple(position)].item()}")
    return array


def _corners(values: np.ndarray, box_format: str) -> np.ndarray:
    """Boxes as xyxy."""
    if box_format == "xyxy":
        return values
    start, sides = values[:, :2], values[:, 2:]
    if box_format == "xywh":
        return np.concatenate([start, start + sides], axis=1)
    return np.concatenate([start - np.float32(0.5) * sides, start + np.float32(0.5) * sides], axis=1)


def _checked(corners: np.ndarray, values: np.ndarray, image_size: tuple[int, int], box_format: str) -> np.ndarray:
    """Boxes, xyxy, clipped to the image."""
    height, width = image_size
    clipped = np.clip(corners, 0, np.array([width, height, width, height], np.float32))
    for kind, kept in (("without area", corners), (f"outside the image of {width} x {height} pixels", clipped)):
        empty = np.flatnonzero((kept[:, 2:] <= kept[:, :2]).any(axis=1))
        if len(empty):
            raise ValueError(
                f"{len(empty)} of {len(corners)} boxes are {kind}, the first is box {empty[0]}, "
                f"{values[empty[0]].tolist()} as {box_format} (box_format may be {', '.join(BOX_FORMATS)})"
            )
    if len(corners) and float(corners.max()) <= 1 < min(image_size):
        logger.warning("all boxes lie within 0..1; they are taken as pixels, normalised ones must be multiplied")
    if box_format == "xywh" and corners_as_xywh(values, image_size):
        logger.warning(
            "boxes reach beyond the image as xywh and none does as xyxy; the first is %s in an image of %d x %d pixels",
            values[0].tolist(),
            width,
            height,
        )
    return clipped


def corners_as_xywh(boxes: np.ndarray, image_size: tuple[int, ...]) -> bool:
    """True if xywh boxes [D, 4] are probably xyxy ones.

    Some reach beyond the image of (H, W) by more than a twentieth of it, and as xyxy all lie inside, with an area.
    """
    sides = np.array(image_size[1::-1], np.float32)
    beyond = (boxes[:, :2] + boxes[:, 2:] > 1.05 * sides).any()
    return bool(beyond and (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sides + 1).all())
