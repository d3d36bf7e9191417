"""detectron2 augmentations of INPUT.SCALE_JITTER and INPUT.COLOR_JITTER, and composition from detectron2's catalog.

Random numbers come from numpy's global generator, which detectron2 seeds in each data loader worker.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T

from bcnet.data.augmentation import Augmentation, ColorJitter
from bcnet.data.composition import Composition, build_composition
from bcnet.data.serialized_list import SerializedList
from bcnet.detectron2.datasets import dict_to_record


def random_generator() -> np.random.Generator:
    """A generator seeded by numpy's global one."""
    return np.random.default_rng(np.random.randint(2**31))


class RandomColors(T.Augmentation):
    """`ColorJitter` as an augmentation of detectron2."""

    def __init__(self, jitter: ColorJitter, image_format: str) -> None:
        """
        Args:
            image_format: "BGR" or "RGB".
        """
        super().__init__()
        self.jitter = jitter
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> T.Transform:
        seed, step = np.random.randint(2**31), -1 if self.image_format == "BGR" else 1
        return T.ColorTransform(
            lambda pixels: self.jitter.apply(np.ascontiguousarray(pixels[:, :, ::step]), np.random.default_rng(seed))[
                :, :, ::step
            ]
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.jitter})"


def training_augmentations(cfg, default: list) -> list:
    """detectron2's augmentations of a config with the colour jitter and the large-scale jitter that it asks for.

    Args:
        default: detectron2's own; its resize of the short side gives way to the scale jitter.
    """
    ours = Augmentation.from_config(cfg, training=True)
    result = list(default)
    if (scale := ours.scale_jitter) is not None:
        at = next(i for i, augmentation in enumerate(result) if isinstance(augmentation, T.ResizeShortestEdge))
        result[at : at + 1] = [
            T.ResizeScale(scale.min_scale, scale.max_scale, *scale.size),
            T.FixedSizeCrop(crop_size=tuple(scale.size)),  # pyright: ignore[reportArgumentType]
        ]
    if ours.color_jitter is not None:
        result.insert(0, RandomColors(ours.color_jitter, cfg.INPUT.FORMAT))
    return result


def catalog_composition(cfg) -> Composition | None:
    """The composition of INPUT.COMPOSITION with objects of DATASETS.TRAIN in detectron2's catalog, or of its SOURCE.

    Raises:
        KeyError, FileNotFoundError, ValueError: see `build_composition`.
    """
    if not cfg.INPUT.COMPOSITION.ENABLED:
        return None
    dicts = [dataset_dict for name in cfg.DATASETS.TRAIN for dataset_dict in DatasetCatalog.get(name)]
    records = [dict_to_record(dataset_dict) for dataset_dict in dicts if dataset_dict.get("annotations")]
    class_names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes", ()) if cfg.DATASETS.TRAIN else ()
    return build_composition(cfg, records, class_names, SerializedList(records))
