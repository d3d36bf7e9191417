"""Hints for attributes and options that do not exist: what a name of another package is called here, or the nearest."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Names of ultralytics, supervision, torchvision and detectron2.
DETECTIONS = {
    "xyxy": "boxes",
    "pred_boxes": "boxes",
    "conf": "scores",
    "confidence": "scores",
    "confidences": "scores",
    "cls": "classes",
    "class_id": "classes",
    "pred_classes": "classes",
    "labels": "classes or names",
    "mask": "masks",
    "pred_masks": "masks",
    "xy": "polygons",
    "segments": "polygons",
    "orig_img": "image",
    "id": "track_ids",
    "tracker_id": "track_ids",
    "to_df": "to_dataframe()",
    "tojson": "to_json()",
    "pandas": "to_dataframe()",
}
PREDICTOR = {"names": "class_names", "classes": "class_names", "cuda_device": "device", "track": "bcnet.tracking"}
OPTIONS = {
    "conf": "score_threshold",
    "threshold": "score_threshold",
    "iou": "nms_threshold",
    "max_det": "max_detections",
    "batch": "batch_size",
    "imgsz": "bcnet.load(..., opts=['INPUT.MIN_SIZE_TEST', 800])",
    "device": "bcnet.load(..., device=...)",
    "half": "bcnet.load(..., precision='fp16')",
    "save": "the result's save()",
    "show": "the result's show()",
}


def hint(name: str, others: Mapping[str, str], known: Iterable[str]) -> str:
    """The end of an error's sentence, such as "; did you mean score_threshold?"; empty without a likely name.

    Args:
        name: that does not exist.
        others: what names of other packages are called here.
        known: the names that exist.
    """
    meant = others.get(name) or next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)), None)
    return f"; did you mean {meant}?" if meant else ""


class AttributeHints:
    """Base of classes whose AttributeError says what the attribute is called here, if that is known."""

    attribute_hints: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # type checkers would take every attribute for known

        def __getattr__(self, name):
            inherited = getattr(super(), "__getattr__", None)
            if inherited is not None:
                try:
                    return inherited(name)
                except AttributeError:
                    pass
            known = [] if name.startswith("_") else [public for public in dir(type(self)) if public[0] != "_"]
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}{hint(name, self.attribute_hints, known)}",
                name=name,
                obj=self,
            )


def with_option_hints(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an unknown keyword is a TypeError that says what it is called here, if that is known (`OPTIONS`)."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                raise TypeError(f"{function.__name__} has no option {name!r}{hint(name, OPTIONS, known)}")
        return function(*args, **options)

    return checked
