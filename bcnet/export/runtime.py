"""Prediction with an exported model without torch: numpy, pillow and the package that runs the file.

Letters: H x W image, h x w resized image, D detections.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bcnet.data.image_source import image_array, source_image
from bcnet.data.transforms import Transform, resized_size
from bcnet.export.info import ExportInfo
from bcnet.export.results import ArrayDetections
from bcnet.export.sessions import Session, open_session
from bcnet.maps import MapSpec
from bcnet.prediction.boxes import given_boxes
from bcnet.structures.source_image import SourceImage
from bcnet.words import counted

if TYPE_CHECKING:
    from bcnet.structures import Detections


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
    def mask_classes(self) -> int:
        """Number of classes that boxes must name for their masks, 1 for class-agnostic masks."""
        return self.info.num_classes if self.info.takes_classes else 1

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

    def predict_tiled(
        self, image: Any, format: str = "BGR", *, tile: int = 640, overlap: float = 0.2, **options: Any
    ) -> Detections:
        """As `bcnet.Predictor.predict_tiled`, with torch: tiles are merged by it.

        Raises:
            ValueError: as `predict`; a tile of no pixel or an overlap out of range; a file not loaded for tensors.
        """
        if not self.tensors:
            raise ValueError("tiles are merged in torch: load the file with tensors=True, as bcnet.load does")
        from bcnet.prediction.tiles import predict_on_tiles

        return predict_on_tiles(self, image, format, tile=tile, overlap=overlap, **options)

    def segment(
        self,
        image: Any,
        boxes: Any,
        classes: Any = None,
        scores: Any = None,
        format: str = "BGR",
        *,
        box_format: str = "xyxy",
        class_names: Sequence[str] | Mapping[int, str] = (),
        with_occluder: bool = True,
        mask_threshold: float = 0.5,
    ) -> Any:
        """As `bcnet.Predictor.segment`, of a box-prompted model; D may be 0.

        Args:
            image, format, with_occluder, mask_threshold: as `predict`.
            boxes, classes, scores, box_format, class_names: see `bcnet.prediction.boxes.given_boxes`.

        Raises:
            ValueError: an image that cannot be read; boxes as `given_boxes`, or more than the file takes; maps that the
                file does not have; or a model that finds its boxes itself.
        """
        if not self.info.takes_boxes:
            raise ValueError(f"this file of a {self.info.detector} finds its boxes itself: use predict")
        if with_occluder:
            self._require_layers()
        pixels, source = self._read(image, format)
        size = (pixels.shape[0], pixels.shape[1])
        options = {"box_format": box_format, "class_names": class_names, "mask_classes": self.mask_classes}
        given = given_boxes(boxes, classes, scores, image_size=size, **options)
        count = len(given.boxes)
        if self.info.fixed and count > self.info.max_detections:
            raise ValueError(f"the file takes at most {self.info.max_detections} boxes, got {count}")
        inputs, resized = self._inputs(pixels)
        scale = np.array([resized[1] / size[1], resized[0] / size[0]] * 2, np.float32)
        padding = (0, self.info.max_detections - count if self.info.fixed else 0)
        inputs["boxes"] = np.pad(given.boxes * scale, (padding, (0, 0)))
        if self.info.takes_classes:
            inputs["classes"] = np.pad(given.classes, (padding,))
        outputs = self.session.run(inputs)
        specs = self._specs(with_occluder)
        found = ArrayDetections(
            size,
            given.boxes,
            given.scores,
            given.classes,
            maps={spec.name: outputs[spec.name][:count] for spec in specs},
            class_names=given.class_names,
            specs=specs,
            roi_scale=self.info.roi_scale,
            source=source,
        )
        return self._finished(found, mask_threshold)

    def _require_layers(self) -> None:
        if not any(spec.on_request for spec in self.info.maps):
            present = ", ".join(spec.name for spec in self.info.maps) or "none"
            raise ValueError(
                f"the occluder layer is not in this file, whose maps are: {present}; ask for masks alone "
                "(with_occluder=False), or export it with --maps all"
            )

    def _specs(self, with_occluder: bool) -> tuple[MapSpec, ...]:
        return tuple(spec for spec in self.info.maps if with_occluder or not spec.on_request)

    def _found(
        self, image: Any, format: str, with_occluder: bool, score_threshold: float | None, max_detections: int | None
    ) -> ArrayDetections:
        pixels, source = self._read(image, format)
        inputs, resized = self._inputs(pixels)
        outputs = self.session.run(inputs)
        count = int(outputs["count"][0]) if self.info.fixed else len(outputs["boxes"])
        specs = self._specs(with_occluder)
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
