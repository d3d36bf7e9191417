"""A trained model for single images: `bcnet.load` and `Predictor.predict`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bcnet.checkpoint import load_weights, local_path, read_checkpoint
from bcnet.config import load_config
from bcnet.data import dataset_files, load_dataset
from bcnet.data.transforms import Augmentation, Transform
from bcnet.engine.inference import autocast_dtype
from bcnet.modeling import build_model
from bcnet.occlusion import with_relations
from bcnet.structures import Detections

logger = logging.getLogger(__name__)


class Predictor(nn.Module):
    """A detector with what it needs to take an image as it comes: size, channel order, precision, class names.

    It is a module around the detector: `to`, `eval` and `parameters` reach the detector, and calling it, or
    `inference`, is calling the detector with images that are prepared already.

    Attributes:
        model: the detector.
        class_names: names of the classes 0..K-1; empty where they are not known.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        augmentation: Augmentation,
        image_format: str = "BGR",
        class_names: Sequence[str] = (),
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            model: a detector.
            augmentation: the resize of the test images.
            image_format: channel order that the detector takes, "BGR" or "RGB".
            class_names: K names, or none.
            amp_dtype: precision of autocast; None computes in float32.

        Raises:
            ValueError: not as many names as the detector has classes.
        """
        super().__init__()
        if class_names and len(class_names) != model.num_classes:
            raise ValueError(f"{len(class_names)} class names were given for a model of {model.num_classes} classes")
        self.model = model
        self.augmentation = augmentation
        self.image_format = image_format
        self.class_names = tuple(class_names)
        self.amp_dtype = amp_dtype

    @classmethod
    def from_config(cls, cfg, model: nn.Module, class_names: Sequence[str] = ()) -> Predictor:
        """Reads ``cfg.INPUT`` (FORMAT, MIN_SIZE_TEST, MAX_SIZE_TEST) and ``cfg.SOLVER.AMP``."""
        return cls(
            model,
            augmentation=Augmentation.from_config(cfg, training=False),
            image_format=cfg.INPUT.FORMAT,
            class_names=class_names,
            amp_dtype=autocast_dtype(cfg),
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    def forward(self, images: Sequence[Tensor], targets=None):
        """Calls the detector with prepared images."""
        return self.model(images, targets)

    def inference(self, images: Sequence[Tensor], *, with_occluder: bool = False) -> list[Detections]:
        """The detector's `inference`, with prepared images."""
        return self.model.inference(images, with_occluder=with_occluder)

    def predict(self, image: np.ndarray, format: str = "BGR", *, with_occluder: bool = False) -> Detections:
        """Detects the instances in one image.

        Args:
            image: uint8 or float [H, W, 3], 0..255, as `cv2.imread` gives it.
            format: channel order of `image`, "BGR" (cv2) or "RGB" (PIL, matplotlib).
            with_occluder: fill the occluder's maps and the boundaries too, and who hides whom
                (`Detections.occlusion`), not the masks alone.

        Returns:
            Detections: on the CPU, in pixels of `image`, with class names where they are known.

        Raises:
            ValueError: another type, shape, dtype or format, or values outside 0..255.
        """
        _check_image(image, format)
        height, width = image.shape[:2]
        pixels = _resized(image, self.augmentation.draw(height, width))
        if format != self.image_format:
            pixels = pixels[:, :, ::-1]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            detections = self.model.inference([tensor], with_occluder=with_occluder)[0]
        detections = with_relations(detections.to("cpu").rescaled((height, width)))
        detections.class_names = self.class_names
        return detections


def load(config_file: str | os.PathLike, weights: str | None = None, opts: Sequence[object] = ()) -> Predictor:
    """A model with its weights in place, in eval mode, on the config's device.

    Args:
        config_file: YAML file.
        weights: weights file; None takes MODEL.WEIGHTS of the config, "" leaves the model random.
        opts: ``KEY VALUE`` pairs in one list, e.g. ``["MODEL.DEVICE", "cpu"]``.

    Raises:
        FileNotFoundError: no such config or weights file.
        KeyError: an unknown config key.
        ValueError: a config value that makes no sense, or weights that do not fit the model (with a table).
    """
    cfg = load_config(os.fspath(config_file), opts)
    weights = cfg.MODEL.WEIGHTS if weights is None else os.fspath(weights)
    model = build_model(cfg)
    if weights:
        load_weights(model, weights)
    else:
        logger.warning("No weights were given and MODEL.WEIGHTS is empty: the model is random")
    return Predictor.from_config(cfg, model, _class_names(cfg, weights)).eval()


def _class_names(cfg, weights: str) -> tuple[str, ...]:
    """The names saved with the weights, else those of the first test set whose annotation file is here."""
    names = read_checkpoint(local_path(weights)).get("class_names") or () if weights else ()
    for dataset in cfg.DATASETS.TEST:
        files = dataset_files(dataset)
        if not names and os.path.isfile(files.annotation_file) and os.path.isdir(files.image_root):
            names = load_dataset(dataset)[1].class_names
    return tuple(names) if len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES else ()


def _check_image(image: np.ndarray, format: str) -> None:
    if format not in ("BGR", "RGB"):
        raise ValueError(f"format must be 'BGR' or 'RGB', got {format!r}")
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the image must be a numpy array [H, W, 3], got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"the image must be [H, W, 3] with at least one pixel, got shape {image.shape}")
    if image.dtype == np.uint8:
        return
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"the image must be uint8 or float, 0..255, got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # also refuses nan
        raise ValueError(f"the image's values must lie in 0..255, got {low:g}..{high:g}")
    if 0 < high <= 1:
        logger.warning("The image's values lie in %g..%g; 0..255 is expected, this image is black", low, high)


def _resized(image: np.ndarray, transform: Transform) -> np.ndarray:
    """The transformed image, uint8 or float32 [h, w, 3]; floats go through the same filter, unrounded."""
    if image.dtype == np.uint8:
        return transform.apply_image(image)
    height, width = transform.output_size
    image = image.astype(np.float32)
    if image.shape[:2] == (height, width):
        return image
    channels = [Image.fromarray(np.ascontiguousarray(image[:, :, channel])) for channel in range(3)]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels], axis=2)
