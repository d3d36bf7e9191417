"""Predictor: inference on images of any kind and size with a trained model (`Predictor.predict`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from bcnet import hints
from bcnet.config import CfgNode
from bcnet.data import ImageSource
from bcnet.data.augmentation import Augmentation
from bcnet.data.classes import listed
from bcnet.data.images import MAX_IMAGE_PIXELS
from bcnet.hints import AttributeHints, with_option_hints
from bcnet.modeling import Thresholds
from bcnet.modeling.box_prompted import NO_DETECTOR
from bcnet.modeling.mask_branch import MaskBranch
from bcnet.modeling.precision import autocast, precision_dtype
from bcnet.occlusion import with_relations
from bcnet.prediction.boxes import given_boxes
from bcnet.prediction.model import InferenceModel
from bcnet.prediction.preparation import Prepared, equal_size_batches, prepare
from bcnet.prediction.pretrained import Pretrained
from bcnet.prediction.tiles import predict_on_tiles
from bcnet.prediction.tta import with_test_time_augmentation
from bcnet.structures import Detections
from bcnet.words import counted

Source = TypeVar("Source", bound=ImageSource)


class Predictor(AttributeHints, Pretrained, nn.Module):
    """A detector with what it needs to take an image as it comes: size, channel order, precision, class names.

    Calling it is `predict`. It is a module around the detector: `to`, `eval` and `parameters` reach the detector, and
    `inference` is the detector's, with images that are prepared already.

    Attributes:
        model: the detector; under TEST.AUG an `AugmentedDetector` around it.
        class_names: names of the classes 0..K-1; empty where they are not known.
        cfg: the config that the model was built from; None if it is not known.
    """

    attribute_hints = hints.PREDICTOR
    cfg: CfgNode | None = None

    def __init__(
        self,
        model: InferenceModel,
        *,
        augmentation: Augmentation,
        image_format: str = "BGR",
        class_names: Sequence[str] = (),
        amp_dtype: torch.dtype | None = None,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        """
        Args:
            model: a detector.
            augmentation: the resize of the test images.
            image_format: channel order that the detector takes, "BGR" or "RGB".
            class_names: K names, or none.
            amp_dtype: precision of autocast; None computes in float32.
            max_image_pixels: a larger image file is unreadable; 0 is no limit.

        Raises:
            ValueError: not as many names as the detector has classes.
        """
        super().__init__()
        if class_names and len(class_names) != model.num_classes:
            classes = counted(model.num_classes, "class", "classes")
            raise ValueError(f"{counted(len(class_names), 'class name')} given for a model of {classes}")
        self.model: InferenceModel = model
        self.augmentation = augmentation
        self.image_format = image_format
        self.class_names = tuple(class_names)
        self.amp_dtype = amp_dtype
        self.max_image_pixels = max_image_pixels

    @classmethod
    def from_config(
        cls, cfg, model: InferenceModel, class_names: Sequence[str] = (), *, precision: str = "fp32"
    ) -> Predictor:
        """Reads ``cfg.INPUT`` (FORMAT, {MIN,MAX}_SIZE_TEST, MAX_IMAGE_PIXELS) and ``cfg.TEST.AUG``.

        Args:
            precision: "fp32", "bf16" or "fp16".
        """
        saved = cfg
        cfg, model = with_test_time_augmentation(cfg, model)
        predictor = cls(
            model,
            augmentation=Augmentation.from_config(cfg, training=False),
            image_format=cfg.INPUT.FORMAT,
            class_names=class_names,
            amp_dtype=precision_dtype(precision),
            max_image_pixels=cfg.INPUT.MAX_IMAGE_PIXELS,
        )
        predictor.cfg = saved
        return predictor

    @property
    def detector(self) -> nn.Module:
        """The detector itself, also under TEST.AUG."""
        return cast(nn.Module, getattr(self.model, "model", self.model))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def detects(self) -> bool:
        return getattr(self.model, "detects", True)

    @property
    def mask_branch(self) -> MaskBranch | None:
        """The detector's mask branch; None without masks."""
        return getattr(self.detector, "mask_branch", None)

    @property
    def mask_classes(self) -> int:
        """Number of classes that boxes must name for their masks, 1 for class-agnostic masks."""
        return 1 if self.mask_branch is None else self.mask_branch.num_classes

    def __repr__(self) -> str:
        names = f" ({listed(self.class_names, limit=8)})" if self.class_names else ""
        in_boxes = not self.detects and self.mask_classes == 1
        classes = "boxes of any class" if in_boxes else counted(self.num_classes, "class", "classes") + names
        return f"<Predictor: {type(self.detector).__name__}, {classes}, on {self.device}>"

    def forward(self, images: ImageSource | list[Any] | tuple[Any, ...], format: str = "BGR", **options: Any) -> Any:
        """`predict`."""
        return self.predict(images, format, **options)

    def inference(self, images: Sequence[Tensor], **keywords) -> list[Detections]:
        """The detector's `inference`, with prepared images and its keywords."""
        return self.model.inference(images, **keywords)

    def inference_masks(self, images: Sequence[Tensor], detections: Sequence[Detections], **keywords):
        """The detector's `inference_masks`, with prepared images and its keywords."""
        return self.model.inference_masks(images, detections, **keywords)

    @overload
    def predict(
        self,
        images: ImageSource,
        format: str = "BGR",
        *,
        with_occluder: bool = False,
        score_threshold: float | None = None,
        mask_threshold: float = 0.5,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 4,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        images: list[Source] | tuple[Source, ...],
        format: str = "BGR",
        *,
        with_occluder: bool = False,
        score_threshold: float | None = None,
        mask_threshold: float = 0.5,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 4,
    ) -> list[Detections]: ...

    @with_option_hints
    def predict(
        self,
        images: ImageSource | list[Any] | tuple[Any, ...],
        format: str = "BGR",
        *,
        with_occluder: bool = False,
        score_threshold: float | None = None,
        mask_threshold: float = 0.5,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 4,
    ) -> Detections | list[Detections]:
        """Detects the instances in an image, or in each image of a list.

        Images of a list are batched where the detector pads them to the same size, so that each gets what it would
        get alone, up to the rounding of floating-point sums.

        Args:
            images: one image or a list of them, each of any of these kinds:

                - numpy array [H, W, 3], [H, W, 4] or grey [H, W], values 0..255 as `cv2.imread` gives them, or uint16;
                - tensor [3, H, W], [4, H, W] or grey [1, H, W], otherwise the same;
                - PIL image;
                - path of an image file, or its URL (``http://``, ``https://``).

                `bcnet.data.image_source.image_array` says more.
            format: channel order of arrays and tensors, "BGR" (cv2) or "RGB" (PIL, matplotlib, torchvision).
            with_occluder: fill the occluder's maps, the boundaries and the occlusion relations
                (`Detections.occlusion`) too, not the masks alone.
            score_threshold: lowest score that is returned, 0..1; None takes the model's own limit
                (`bcnet.modeling.Thresholds`), which is low, as COCO's metrics want it.
            mask_threshold: minimum probability for a pixel to count as mask or boundary, 0..1.
            nms_threshold: IoU above which one of two detections of a class is dropped; None takes the model's own.
            max_detections: maximum number of detections per image; None takes TEST.DETECTIONS_PER_IMAGE of the config.
            batch_size: images that go through the model together.

        Returns:
            Detections: for one image; a list of them, in order, for a list. On the CPU, in pixels of the original
            image, with class names where they are known. They know their image: `Detections.plot` draws into it. Of a
            file or URL they keep the name, an array is kept itself and not copied.

        Raises:
            ValueError: an image of another type, shape, dtype or format, with values outside 0..255, or that cannot
                be read (names its place in a list); a threshold out of range; a model that takes boxes (`segment`).
        """
        if not self.detects:
            raise ValueError(NO_DETECTOR)
        detect = functools.partial(
            self._detect,
            thresholds=Thresholds(score_threshold, nms_threshold, max_detections),
            mask_threshold=mask_threshold,
            with_occluder=with_occluder,
        )
        if not 0 <= mask_threshold <= 1:
            raise ValueError(f"the mask threshold must lie in 0..1, got {mask_threshold}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not isinstance(images, (list, tuple)):
            return detect([self._prepared(images, format)])[0]
        prepare_image = functools.partial(self._prepared, format=format)
        divisor = getattr(self.model, "size_divisibility", 1)
        results: dict[int, Detections] = {}  # by position
        for indices, batch in equal_size_batches(images, prepare_image, batch_size, divisor):
            results.update(zip(indices, detect(batch), strict=True))
        return [results[index] for index in range(len(images))]

    def predict_tiled(
        self,
        image: ImageSource,
        format: str = "BGR",
        *,
        tile: int = 640,
        overlap: float = 0.2,
        max_detections: int | None = None,
        batch_size: int = 4,
        **options: Any,
    ) -> Detections:
        """Detects the instances in a large image, or small ones, on tiles that overlap (`merge_tiles`).

        Args:
            image, format: one image, as `predict` takes it. A TIFF file is read tile by tile, and may be larger than
                the memory (`bcnet.data.image_windows.ImageWindows`).
            tile: side of the tiles in pixels of the image. Each is resized as an image of its size would be.
            overlap: lowest share of a tile's side that neighbours share, 0..1. Objects that are cut everywhere and show
                nothing in this part to both tiles stay in pieces.
            max_detections: maximum number for the image; None has no limit but that of `predict` for each tile.
            batch_size: tiles that go through the model together.
            options: further ones of `predict`.

        Returns:
            Detections: as `predict`, by descending score, with relations of the whole image.

        Raises:
            ValueError: as `predict`; a tile of no pixel or an overlap out of range.
        """
        options |= {"max_detections": max_detections, "batch_size": batch_size}
        return predict_on_tiles(self, image, format, tile=tile, overlap=overlap, **options)

    @with_option_hints
    def segment(
        self,
        image: ImageSource,
        boxes: Any,
        classes: Any = None,
        scores: Any = None,
        format: str = "BGR",
        *,
        box_format: str = "xyxy",
        class_names: Sequence[str] | Mapping[int, str] = (),
        with_occluder: bool = True,
        mask_threshold: float = 0.5,
    ) -> Detections:
        """Masks, with both layers and the occlusion relations, in boxes that any detector found.

        On the boxes and classes that `predict` gave for the image, its maps are those of `predict`, bit for bit.

        Args:
            image: one image, as `predict` takes it.
            boxes, classes, scores, box_format: see `bcnet.prediction.boxes.given_boxes`; boxes are in pixels of
                the image as `predict` sees it, EXIF orientation applied.
            format: channel order of arrays and tensors, "BGR" or "RGB".
            class_names: names of the classes. By default those that come with the boxes; else, if classes are given to
                a model that detects, the model's own; without classes every instance is an "object".
            with_occluder, mask_threshold: as for `predict`.

        Returns:
            Detections: one for each box, in the order of the boxes, on the CPU.

        Raises:
            ValueError: as `predict` for the image and `given_boxes` for the boxes; masks by class (a head that is
                not class-agnostic) and no classes, or one that the model does not have; or a model without masks.
        """
        prepared = self._prepared(image, format)
        given = given_boxes(
            boxes,
            classes,
            scores,
            image_size=prepared.size,
            box_format=box_format,
            class_names=class_names,
            default_names=self.class_names if self.detects else (),
            mask_classes=self.mask_classes,
        )
        with autocast(self.device, self.amp_dtype):
            (found,) = self.model.inference_masks(
                [prepared.pixels], [given.to_detections(prepared.size).to(self.device)], with_occluder=with_occluder
            )
        return replace(with_relations(found.to("cpu")), mask_threshold=mask_threshold, source=prepared.source)

    def _prepared(self, image: ImageSource, format: str) -> Prepared:
        return prepare(
            image,
            format,
            augmentation=self.augmentation,
            image_format=self.image_format,
            max_pixels=self.max_image_pixels,
        )

    def _detect(
        self,
        batch: Sequence[Prepared],
        *,
        thresholds: Thresholds,
        mask_threshold: float,
        with_occluder: bool,
    ) -> list[Detections]:
        with autocast(self.device, self.amp_dtype):
            per_image = self.model.inference(
                [prepared.pixels for prepared in batch],
                with_occluder=with_occluder,
                thresholds=thresholds,
                output_sizes=[prepared.size for prepared in batch],
            )
        results = []
        for detections, (_, size, source) in zip(per_image, batch, strict=True):
            detections = with_relations(detections.to("cpu").rescaled(size))
            known = {"class_names": self.class_names, "mask_threshold": mask_threshold, "source": source}
            results.append(replace(detections, **known))
        return results
