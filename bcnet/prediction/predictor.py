"""Predictor: inference on images of any kind and size with a trained model (`bcnet.load`, `Predictor.predict`)."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from bcnet.checkpoint import load_weights, read_model_file
from bcnet.checkpoint.packaged import with_packaged_model
from bcnet.config import CfgNode, load_config
from bcnet.data import ImageSource, UnreadableImageError, dataset_files, image_array, load_dataset
from bcnet.data.augmentation import Augmentation
from bcnet.data.images import MAX_IMAGE_PIXELS
from bcnet.modeling import Thresholds, build_model
from bcnet.modeling.precision import autocast, precision_dtype
from bcnet.occlusion import with_relations
from bcnet.prediction.boxes import given_detections, mask_classes_of
from bcnet.prediction.model import InferenceModel
from bcnet.prediction.tta import with_test_time_augmentation
from bcnet.structures import Detections

logger = logging.getLogger(__name__)

Source = TypeVar("Source", bound=ImageSource)
Prepared = tuple[Tensor, tuple[int, int]]  # the detector's input, and height and width of the image itself

BUFFERED_BATCHES = 16  # prepared images buffered until a batch of equal size is full, in batches


class Predictor(nn.Module):
    """A detector with what it needs to take an image as it comes: size, channel order, precision, class names.

    It is a module around the detector: `to`, `eval` and `parameters` reach the detector, and calling it, or
    `inference`, is calling the detector with images that are prepared already.

    Attributes:
        model: the detector; under TEST.AUG an `AugmentedDetector` around it.
        class_names: names of the classes 0..K-1; empty where they are not known.
    """

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
            raise ValueError(f"{len(class_names)} class names were given for a model of {model.num_classes} classes")
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
        cfg, model = with_test_time_augmentation(cfg, model)
        return cls(
            model,
            augmentation=Augmentation.from_config(cfg, training=False),
            image_format=cfg.INPUT.FORMAT,
            class_names=class_names,
            amp_dtype=precision_dtype(precision),
            max_image_pixels=cfg.INPUT.MAX_IMAGE_PIXELS,
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def detects(self) -> bool:
        return self.model.detects

    def forward(self, images: Sequence[Tensor], targets=None):
        """Calls the detector with prepared images."""
        return self.model(images, targets)

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
            image, with class names where they are known.

        Raises:
            ValueError: an image of another type, shape, dtype or format, with values outside 0..255, or that cannot
                be read (names its place in a list); a threshold out of range.
        """
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
        results: dict[int, Detections] = {}  # by position
        for indices, batch in self._batches(images, format, batch_size):
            results.update(zip(indices, detect(batch), strict=True))
        return [results[index] for index in range(len(images))]

    def segment(
        self,
        image: ImageSource,
        boxes: Any,
        classes: Any = None,
        scores: Any = None,
        format: str = "BGR",
        *,
        box_format: str = "xyxy",
        class_names: Sequence[str] = (),
        with_occluder: bool = True,
        mask_threshold: float = 0.5,
    ) -> Detections:
        """Masks, with both layers and the occlusion relations, in boxes that any detector found.

        On the boxes and classes that `predict` gave for the image, its maps are those of `predict`, bit for bit.

        Args:
            image: one image, as `predict` takes it.
            boxes, classes, scores, box_format: see `bcnet.prediction.boxes.given_detections`; boxes are in pixels of
                the image as `predict` sees it, EXIF orientation applied.
            format: channel order of arrays and tensors, "BGR" or "RGB".
            class_names: names of the classes. By default those that come with the boxes; else, if classes are given to
                a model that detects, the model's own.
            with_occluder, mask_threshold: as for `predict`.

        Returns:
            Detections: one for each box, in the order of the boxes, on the CPU.

        Raises:
            ValueError: as `predict` for the image and `given_detections` for the boxes; masks by class (a head that is
                not class-agnostic) and no classes, or one that the model does not have; or a model without masks.
        """
        prepared = self._prepared(image, format)
        given = given_detections(
            boxes,
            classes,
            scores,
            image_size=prepared[1],
            box_format=box_format,
            class_names=class_names,
            default_names=self.class_names if self.detects else (),
            mask_classes=mask_classes_of(self.model),
        )
        with autocast(self.device, self.amp_dtype):
            (found,) = self.model.inference_masks([prepared[0]], [given.to(self.device)], with_occluder=with_occluder)
        return replace(with_relations(found.to("cpu")), mask_threshold=mask_threshold)

    def _prepared(self, image: ImageSource, format: str) -> Prepared:
        """The detector's input, uint8 or float32 [3, h, w], and the image's own height and width."""
        pixels = image_array(image, format, self.image_format, max_pixels=self.max_image_pixels)
        height, width = pixels.shape[:2]
        pixels = self.augmentation.draw(height, width).apply_image(pixels)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), (height, width)

    def _batches(
        self, images: Sequence[ImageSource], format: str, batch_size: int
    ) -> Iterator[tuple[list[int], list[Prepared]]]:
        """Positions and inputs of images of one padded size each."""
        divisor = getattr(self.model, "size_divisibility", 1)
        buffered: dict[tuple[int, int], dict[int, Prepared]] = {}  # by padded size and position
        for index, image in enumerate(images):
            try:
                prepared = self._prepared(image, format)
            except ValueError as error:
                kind = UnreadableImageError if isinstance(error, UnreadableImageError) else ValueError
                raise kind(f"image {index} of {len(images)}: {error}") from error
            height, width = prepared[0].shape[1:]
            size = (-(-height // divisor), -(-width // divisor))
            buffered.setdefault(size, {})[index] = prepared
            if len(buffered[size]) == batch_size:
                full = size
            elif sum(map(len, buffered.values())) == BUFFERED_BATCHES * batch_size:
                full = max(buffered, key=lambda s: len(buffered[s]))
            else:
                continue
            group = buffered.pop(full)
            yield list(group), list(group.values())
        for group in buffered.values():
            yield list(group), list(group.values())

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
                [tensor for tensor, _ in batch],
                with_occluder=with_occluder,
                thresholds=thresholds,
                output_sizes=[size for _, size in batch],
            )
        results = []
        for detections, (_, size) in zip(per_image, batch, strict=True):
            detections = with_relations(detections.to("cpu").rescaled(size))
            results.append(replace(detections, class_names=self.class_names, mask_threshold=mask_threshold))
        return results


def load(
    config_file: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    opts: Sequence[object] = (),
    *,
    precision: str = "fp32",
) -> Predictor:
    """A model with its weights in place, in eval mode, on the config's device.

    Args:
        config_file: YAML file, or the name of one that comes with the package (``fcos/fcos_imprv_R_50_FPN.yaml``); None
            takes the config that training saved with the weights. A model that comes with the package ("lite") may be
            named here or as weights.
        weights: weights file or URL (see `bcnet.checkpoint`), which is read once; None takes MODEL.WEIGHTS of the
            config, "" leaves the model random.
        opts: ``KEY VALUE`` pairs in one list, e.g. ``["MODEL.DEVICE", "cpu"]``.
        precision: "fp32"; or "bf16" or "fp16" for autocast, which GPUs (and, for bf16, some CPUs) compute faster in.
            The precision of the training, SOLVER.AMP, does not matter here.

    Raises:
        FileNotFoundError: no such config or weights file.
        KeyError: an unknown config key.
        ValueError: a config value that makes no sense, weights that do not fit the model (with a table), no config
            file and none in the weights file, or an unknown precision.
    """
    precision_dtype(precision)  # an unknown one is an error before the weights are read
    config_file, weights = with_packaged_model(config_file, weights)
    source: str | None = None if weights is None else os.fspath(weights)
    content = read_model_file(source) if source else None
    if config_file is not None:
        cfg = load_config(os.fspath(config_file), opts)
    else:
        cfg = config_of_weights(source, opts, content=content)
    if source is None and cfg.MODEL.WEIGHTS:
        source = str(cfg.MODEL.WEIGHTS)
        content = read_model_file(source)
    model = build_model(cfg)
    if source and content is not None:
        load_weights(model, source, content=content)
    else:
        logger.warning("No weights were given and MODEL.WEIGHTS is empty: the model is random")
    class_names = _class_names(cfg, (content or {}).get("class_names") or ())
    return Predictor.from_config(cfg, model, class_names, precision=precision).eval()


def config_of_weights(weights: str | None, opts: Sequence[object] = (), *, content: Mapping | None = None) -> CfgNode:
    """The config that training saved with the weights, and `opts` on top of it.

    Args:
        weights: weights file or URL.
        opts: ``KEY VALUE`` pairs in one list.
        content: of the weights file, where it has been read already.

    Raises:
        FileNotFoundError: no such weights file.
        ValueError: no weights file, or one without a config: all files but those of this engine.
    """
    if content is None and weights:
        content = read_model_file(weights)
    saved = content.get("config") if content else None
    if not isinstance(saved, str):
        what = f"{weights!r} holds no config" if weights else "there are no weights to take it from"
        raise ValueError(f"name a config file: {what}")
    # Compilation made the training fast; on another machine, and for a few images, it need not pay.
    opts = ["MODEL.COMPILE", False, *opts]
    return load_config(None, opts, text=saved, source=f"the config in {weights!r}")


def _class_names(cfg, names: Sequence[str]) -> tuple[str, ...]:
    """The names saved with the weights, else those of the first test set whose annotation file is here."""
    for dataset in cfg.DATASETS.TEST:
        if not names and not dataset_files(dataset).missing():
            names = load_dataset(dataset)[1].class_names
    return tuple(names) if len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES else ()
