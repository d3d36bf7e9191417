"""Prediction with an exported model without torch: numpy, pillow and the package that runs the file.

Letters: H x W image, h x w resized image, D detections.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bcnet.data.image_source import image_array, source_image
from bcnet.data.transforms import Transform, resized_size
from bcnet.export.info import ExportInfo
from bcnet.export.results import ArrayDetections
from bcnet.export.sessions import Session, open_session
from bcnet.structures.source_image import SourceImage
from bcnet.words import counted


class ExportedPredictor:
    """An exported model that takes an image as it comes: what `bcnet.Predictor` is for weights.

    Attributes:
        info: what the file says of itself.
        tensors: results are `bcnet.structures.Detections`, which imports torch; otherwise `ArrayDetections`.
    """

    def __init__(self, session: Session, *, tensors: bool = False) -> None:
        self.session = session
        self.info: ExportInfo = session.info
        self.tensors = tensors

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        tensors: bool = False,
        threads: int | None = None,
        precision: str = "fp32",
    ) -> ExportedPredictor:
        """Reads a .onnx, .xml or .pt2 file; `threads` and `precision` as `open_session` takes them.

        Raises:
            FileNotFoundError, ImportError, ValueError: as `open_session`; tensors are wanted and torch is missing.
        """
        if tensors:
            importlib.import_module("torch")
        return cls(open_session(path, threads=threads, precision=precision), tensors=tensors)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.info.class_names

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    @property
    def detects(self) -> bool:
        return not self.info.takes_boxes

    @property
    def max_image_pixels(self) -> int:
        return self.info.max_image_pixels

    def __repr__(self) -> str:
        size = self.info.size or "any size"
        return (
            f"<ExportedPredictor: {self.info.detector}, {counted(self.num_classes, 'class', 'classes')}, input {size}>"
        )

    def __call__(self, images: Any, format: str = "BGR", **options: Any) -> Any:
        """`predict`."""
        return self.predict(images, format, **options)

    def predict(
        self,
        images: Any,
        format: str = "BGR",
        *,
        with_occluder: bool = False,
        score_threshold: float | None = None,
        mask_threshold: float = 0.5,
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> Any:
        """As `bcnet.Predictor.predict`, one image after the other, with the limits that the file has.

        Args:
            images, format, with_occluder, mask_threshold: as there.
            score_threshold: lowest score that is returned; one below the model's own limit, which is in the file, has
                no further effect.
            max_detections: as there, at most the file's.
            batch_size: ignored, the file takes single images.

        Raises:
            ValueError: an image that cannot be read; a threshold out of range; maps that the file does not have; a
                model that takes boxes (`segment`).
        """
        for name, value in (("score", score_threshold), ("mask", mask_threshold)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"the {name} threshold must lie in 0..1, got {value}")
        if max_detections is not None and not 1 <= max_detections <= self.info.max_detections:
            raise ValueError(
                f"max_detections must lie in 1..{self.info.max_detections}, which the model was exported with, got "
                f"{max_detections}"
            )
        if self.info.takes_boxes:
            raise ValueError("this model has no detector: give it boxes, with segment(image, boxes)")
        if with_occluder:
            self._require_layers()
        if not isinstance(images, (list, tuple)):
            images, single = [images], True
        else:
            single = False
        results = []
        for image in images:
            found = self._found(image, format, with_occluder, score_threshold, max_detections)
            results.append(self._finished(found, mask_threshold))
        return results[0] if single else results

    def segment(
        self,
        image: Any,
        boxes: Any,
        classes: Any = None,
        scores: Any = None,
        format: str = "BGR",
        *,
        class_names: Sequence[str] = (),
        mask_threshold: float = 0.5,
    ) -> Any:
        """Masks in given boxes, of a box-prompted model; D may be 0.

        Args:
            image, format: as `predict`.
            boxes: [D, 4], xyxy in pixels of the image.
            classes: [D] whole numbers from 0, or None for all 0, unless the masks are by class.
            scores: [D], or None for all 1.
            class_names: of the classes.
            mask_threshold: as `predict`.

        Raises:
            ValueError: an image that cannot be read; boxes of another shape, without area inside the image or more than
                the file takes; or a model that finds its boxes itself.
        """
        if not self.info.takes_boxes:
            raise ValueError(f"this file of a {self.info.detector} finds its boxes itself: use predict")
        pixels, source = self._read(image, format)
        size = (pixels.shape[0], pixels.shape[1])
        corners = np.asarray(boxes, np.float32).reshape(-1, 4) if np.size(boxes) == 0 else np.asarray(boxes, np.float32)
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise ValueError(f"boxes must be [D, 4], got {corners.shape}")
        if self.info.takes_classes and classes is None:
            raise ValueError(f"the model has masks of {self.num_classes} classes: give the class of each box")
        count = len(corners)
        corners = np.clip(corners, 0, np.array([size[1], size[0]] * 2, np.float32))
        empty = np.flatnonzero(~((corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])))
        if len(empty):
            raise ValueError(f"box {empty[0]} has no area inside the image of {size[1]} x {size[0]} pixels")
        if self.info.fixed and count > self.info.max_detections:
            raise ValueError(f"the file takes at most {self.info.max_detections} boxes, got {count}")
        labels = np.zeros(count, np.int64) if classes is None else np.asarray(classes, np.int64)
        confidences = np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32)
        inputs, resized = self._inputs(pixels)
        scale = np.array([resized[1] / size[1], resized[0] / size[0]] * 2, np.float32)
        padding = (0, self.info.max_detections - count if self.info.fixed else 0)
        inputs["boxes"] = np.pad(corners * scale, (padding, (0, 0)))
        if self.info.takes_classes:
            inputs["classes"] = np.pad(labels, (padding,))
        outputs = self.session.run(inputs)
        found = ArrayDetections(
            size,
            corners,
            confidences,
            labels,
            maps={spec.name: outputs[spec.name][:count] for spec in self.info.maps},
            class_names=tuple(class_names),
            specs=self.info.maps,
            roi_scale=self.info.roi_scale,
            source=source,
        )
        return self._finished(found, mask_threshold)

    def _require_layers(self) -> None:
        missing = not any(spec.on_request for spec in self.info.maps)
        if missing:
            present = ", ".join(spec.name for spec in self.info.maps) or "none"
            raise ValueError(
                f"the occluder layer is not in this file, whose maps are: {present}; export it with --maps all"
            )

    def _found(
        self, image: Any, format: str, with_occluder: bool, score_threshold: float | None, max_detections: int | None
    ) -> ArrayDetections:
        pixels, source = self._read(image, format)
        inputs, resized = self._inputs(pixels)
        outputs = self.session.run(inputs)
        count = int(outputs["count"][0]) if self.info.fixed else len(outputs["boxes"])
        specs = tuple(spec for spec in self.info.maps if with_occluder or not spec.on_request)
        found = ArrayDetections(
            resized,
            outputs["boxes"][:count],
            outputs["scores"][:count],
            outputs["classes"][:count],
            maps={spec.name: outputs[spec.name][:count] for spec in specs},
            class_names=self.class_names,
            specs=specs,
            roi_scale=self.info.roi_scale,
        )
        if score_threshold is not None:
            found = found[found.scores >= np.float32(score_threshold)]
        found = found[:max_detections].rescaled((pixels.shape[0], pixels.shape[1]))
        return replace(found, source=source)

    def _finished(self, found: ArrayDetections, mask_threshold: float) -> Any:
        found = replace(found.with_relations(), mask_threshold=mask_threshold)
        return found.to_torch() if self.tensors else found

    def _read(self, image: Any, format: str) -> tuple[np.ndarray, SourceImage]:
        pixels = image_array(image, format, "RGB", max_pixels=self.max_image_pixels)
        return pixels, source_image(image, format, self.max_image_pixels)

    def _inputs(self, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        """Inputs of the file for an image [H, W, 3] RGB, and the size (h, w) that it was resized to."""
        info = self.info
        height, width = pixels.shape[:2]
        short, long = (info.size, info.size) if info.size else (info.short_side, info.long_side)
        resized = resized_size(height, width, short, long)
        image = Transform((height, width), resized).apply_image(np.ascontiguousarray(pixels))
        padded = tuple(info.size or -(-side // info.divisor) * info.divisor for side in resized)
        canvas = np.zeros((1, 3, *padded), np.float32)
        canvas[0, :, : resized[0], : resized[1]] = image.transpose(2, 0, 1)
        return {"image": canvas, "image_size": np.array(resized, np.int64)}, resized
