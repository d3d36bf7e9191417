"""Copy-paste augmentation with known occlusion: objects cut from other images are pasted over or behind an object.

COCO's masks carry no depth order. For a pasted object it is known: it lies in front of everything that was there
before, or behind every object, and the mask of what is covered is known too. `bcnet.data.source_masks` makes the
targets of the composed image by the table in docs/composition.md.

Both places are needed: if pasted objects always lay in front, a network could tell the order by the traces of pasting
and would find none in photos.

Letters: H x W image, h x w window.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from bcnet.data.catalog import load_dataset
from bcnet.data.classes import class_positions
from bcnet.data.composed_image import ComposedImage, PastedObject
from bcnet.data.cutouts import MAX_MAGNIFICATION, Cutout
from bcnet.data.donors import MIN_OBJECT_PIXELS, Donors, donor_indices
from bcnet.data.placement import (
    anywhere,
    contact_towards,
    find_position,
    hidden_share_behind,
    hidden_share_of,
    own_contour,
)
from bcnet.data.records import DatasetInfo, ImageRecord

MIN_TARGET_PIXELS = 24**2  # visible pixels of an object to be partly hidden
_EXPOSURE = (0.85, 1.15)  # range of a pasted object's brightness
_SHADOW_SPREAD = (0.03, 0.09)  # range of a shadow's soft edge, relative to the square root of the object's area
_TRIES = 8  # draws of target, share, object and position for each object to paste
_DIRECTIONS = 8  # directions tried around the target

_logger = logging.getLogger(__name__)


class Composition:
    """Pastes objects into an image so that each hides a randomly drawn share of a target object, or is hidden by it.

    Args:
        donors: images that pasted objects are cut from.
        probability: probability that objects are pasted into an image.
        max_objects: maximum number of pasted objects; the number is drawn from 1 to `max_objects`. Fewer are pasted if
            no object or position fits.
        behind: probability that an object is pasted behind all objects of the image instead of in front of them.
        hidden_share: range of the share to hide, of the target or of the object pasted behind it.
        scale: range of the pasted object's size (square root of its area) relative to the target's. It is increased if
            an object in front would be too small to hide the drawn share, and decreased if one behind would be too
            large to be hidden.
        feather: standard deviation in pixels of the blur of a pasted object's edge.
        shadow: maximum darkness of the shadow on what lies below, 0..1; each is drawn from 0 to `shadow`.
        min_visible: an object whose visible share falls below this is no longer an instance but a crowd.
        min_target_pixels: minimum visible area of a target.
    """

    def __init__(
        self,
        donors: Donors,
        *,
        probability: float = 0.5,
        max_objects: int = 2,
        behind: float = 0.5,
        hidden_share: tuple[float, float] = (0.1, 0.6),
        scale: tuple[float, float] = (0.6, 1.5),
        feather: float = 0.7,
        shadow: float = 0.5,
        min_visible: float = 0.2,
        min_target_pixels: int = MIN_TARGET_PIXELS,
    ) -> None:
        self.donors = donors
        self.probability = probability
        self.max_objects = max_objects
        self.behind = behind
        self.hidden_share = hidden_share
        self.scale = scale
        self.feather = feather
        self.shadow = shadow
        self.min_visible = min_visible
        self.min_target_pixels = min_target_pixels

    def __call__(
        self, image: Image.Image, record: ImageRecord, rng: np.random.Generator
    ) -> tuple[Image.Image, ImageRecord]:
        """Composes an image.

        Args:
            image: PIL image of mode "RGB".
            record: the image's record.
            rng: source of all random numbers.

        Returns:
            The composed image, of mode "RGB", and its record: visible masks and boxes without the covered pixels,
            objects with too few visible pixels as crowds, the pasted objects at the end (`ImageRecord.pasted`). If
            nothing was pasted, the arguments unchanged.

        Raises:
            UnreadableImageError, ValueError: from `Donors.draw`; or a segmentation is malformed or missing.
        """
        if rng.random() >= self.probability:
            return image, record
        count = int(rng.integers(1, self.max_objects + 1))
        cutouts = self.donors.draw(rng, exclude=record.file_name)
        if not cutouts:
            return image, record
        scene = ComposedImage(image, record)
        for _ in range(count):
            in_front = rng.random() >= self.behind
            any(self._paste_one(scene, cutouts, in_front, rng) for _ in range(_TRIES))
        return (scene.image, scene.record(self.min_visible)) if scene.pasted else (image, record)

    def _paste_one(
        self, scene: ComposedImage, cutouts: Sequence[Cutout], in_front: bool, rng: np.random.Generator
    ) -> bool:
        """Pastes one object over or behind a target for which a cut-out is large enough; False if nothing fits."""
        share = rng.uniform(*self.hidden_share)
        relative_size, limit = rng.uniform(*self.scale), np.sqrt(1.3 * share)
        relative_size = max(relative_size, limit) if in_front else min(relative_size, 1 / limit)
        sizes = [MAX_MAGNIFICATION * np.sqrt(np.count_nonzero(cutout.mask)) for cutout in cutouts]
        targets = [
            (item, size) for item, size in scene.targets(self.min_target_pixels) if relative_size * size <= max(sizes)
        ]
        if not targets:
            return False
        target, size = targets[int(rng.integers(len(targets)))]
        fitting = [i for i, largest in enumerate(sizes) if relative_size * size <= largest]
        chosen = fitting[int(rng.integers(len(fitting)))]
        scale = MAX_MAGNIFICATION * relative_size * size / sizes[chosen]
        scaled = cutouts[chosen].scaled(scale, mirrored=rng.random() < 0.5, feather=self.feather)
        mask, occupied = scaled.coverage >= 128, scene.occupied()
        directions = rng.uniform(0, 2 * np.pi, _DIRECTIONS)
        if in_front:
            hidden_at, fits = hidden_share_of(target, mask), own_contour(scaled, occupied)
            directions = directions[np.argsort(contact_towards(scaled, directions + np.pi), kind="stable")]
        else:
            hidden_at, fits = hidden_share_behind(occupied, mask), anywhere
        position = find_position(mask, target, hidden_at, fits, share, scene.size, directions)
        if position is None:
            return False
        colours = cv2.convertScaleAbs(scaled.colours(), alpha=rng.uniform(*_EXPOSURE)).astype(np.float32)
        pasted = PastedObject(cutouts[chosen].category, scaled.coverage, colours, *position)
        shadow = _draw_shadow(self.shadow, relative_size * size, rng)
        if in_front:
            scene.paste(pasted, shadow)
        else:
            scene.paste_behind(pasted, shadow, feather=self.feather)
        return True


def _draw_shadow(darkness: float, size: float, rng: np.random.Generator) -> dict | None:
    """The arguments of `cast_shadow` for an object of this size in pixels; None without a shadow."""
    if darkness == 0:
        return None
    spread = max(round(size * rng.uniform(*_SHADOW_SPREAD)), 2)
    shift = rng.integers(-spread // 2, spread // 2 + 1, 2)
    return {"darkness": rng.uniform(0, darkness), "spread": spread, "shift": (int(shift[0]), int(shift[1]))}


def build_composition(
    cfg, records: Sequence[ImageRecord], class_names: Sequence[str], stored: Sequence[ImageRecord] | None = None
) -> Composition | None:
    """The composition configured by INPUT.COMPOSITION; None if it is not enabled.

    Args:
        cfg: the config.
        records: the training images; objects are cut from them unless INPUT.COMPOSITION.SOURCE names a data set.
        class_names: names of the training classes 0..K-1. From another data set, only objects of classes with these
            names are used (`class_positions`).
        stored: the same records in the form that workers read (`SerializedList`).

    Raises:
        KeyError, FileNotFoundError: from `load_dataset`, for SOURCE.
        ValueError: malformed content, no class of SOURCE is a training class, or there is no object to cut out.
    """
    keys = cfg.INPUT.COMPOSITION
    if not keys.ENABLED:
        return None
    if keys.SOURCE:
        records, info = load_dataset(keys.SOURCE)
        stored = records = _with_classes(records, info, class_names)
    candidates = donor_indices(records)
    source = keys.SOURCE or "DATASETS.TRAIN"
    if len(candidates) == 0:
        raise ValueError(
            f"INPUT.COMPOSITION: none of the {sum(len(r.instances) for r in records)} objects of {source} can be cut "
            f"out (not a crowd, in one piece, inside the image, at least {MIN_OBJECT_PIXELS} pixels)"
        )
    _logger.info("composition: objects are cut from %d of the %d images of %s", len(candidates), len(records), source)
    donors = Donors(
        records if stored is None else stored,
        candidates,
        cache_bytes=int(keys.CACHE_MB * 2**20),
        max_image_pixels=cfg.INPUT.MAX_IMAGE_PIXELS,
        skip_unreadable=cfg.INPUT.BAD_IMAGE == "skip",
    )
    return Composition(
        donors,
        probability=keys.PROBABILITY,
        max_objects=keys.MAX_OBJECTS,
        behind=keys.BEHIND,
        hidden_share=tuple(keys.HIDDEN_SHARE),
        scale=tuple(keys.SCALE),
        feather=keys.FEATHER,
        shadow=keys.SHADOW,
        min_visible=keys.MIN_VISIBLE,
    )


def _with_classes(records: Sequence[ImageRecord], info: DatasetInfo, class_names: Sequence[str]) -> list[ImageRecord]:
    """The records with only the objects of the training classes, matched by name and renumbered."""
    source, target = f"INPUT.COMPOSITION.SOURCE {info.name!r}", "DATASETS.TRAIN"
    classes = class_positions(info.class_names, class_names, source, target)
    return [
        replace(
            record,
            instances=[
                replace(instance, category=classes[instance.category])
                for instance in record.instances
                if classes[instance.category] is not None
            ],
            in_front=None,
        )
        for record in records
    ]
