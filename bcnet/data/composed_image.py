"""An image under composition: objects pasted in front of all others or behind them, and the record of the result.

Letters: H x W image, h x w window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.data.cutouts import blend, cast_shadow, overlap
from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.data.source_masks import visible_rle
from bcnet.ops.rle import RLE, encode_window, rle_difference


@dataclass(frozen=True)
class PastedObject:
    """A cut-out at its place: coverage uint8 [h, w], colours float32 [h, w, 3], position of its first pixel."""

    category: int
    coverage: np.ndarray
    colours: np.ndarray
    x: int
    y: int


@dataclass
class ComposedObject:
    """An instance or a pasted object, with its visible masks (RLEs) before and after objects were pasted over it."""

    uncovered: RLE
    visible: RLE
    position: int | None = None  # in the record's instances
    category: int = -1  # of a pasted object


class ComposedImage:
    """An image under composition."""

    def __init__(self, image: Image.Image, record: ImageRecord) -> None:
        self.source = record
        self.size = (record.height, record.width)
        self.image = image.copy()
        self.objects: list[ComposedObject] = []
        self.pasted: list[bool] = []  # of each pasted object: in front
        self._occupied: np.ndarray | None = None  # until the next object is pasted
        for position, instance in enumerate(record.instances):
            if not instance.iscrowd:
                rle = visible_rle(record, instance)
                self.objects.append(ComposedObject(rle, rle, position))

    def targets(self, min_pixels: int) -> list[tuple[ComposedObject, float]]:
        """The source image's objects with at least `min_pixels` visible pixels, with the square root of their areas."""
        originals = [item for item in self.objects if item.position is not None]
        large = [item for item in originals if coco_mask.area(item.visible) >= min_pixels]
        return [(item, float(coco_mask.area(item.uncovered)) ** 0.5) for item in large]

    def occupied(self) -> np.ndarray:
        """bool [H, W]: the visible pixels of all objects."""
        if self._occupied is None:
            merged = coco_mask.merge([item.visible for item in self.objects])
            self._occupied = coco_mask.decode(merged).astype(bool)
        return self._occupied

    def paste(self, pasted: PastedObject, shadow: dict | None = None) -> None:
        """Adds an object in front of all others."""
        self._blend(pasted, shadow)
        rle = self._rle(pasted)
        covered = coco_mask.toBbox(rle)
        boxes = np.array([coco_mask.toBbox(o.visible) for o in self.objects]).reshape(-1, 4)
        near = (boxes[:, :2] < covered[:2] + covered[2:]) & (boxes[:, :2] + boxes[:, 2:] > covered[:2])
        for index in np.flatnonzero(near.all(axis=1)):
            self.objects[index].visible = rle_difference(self.objects[index].visible, rle)
        self._add(ComposedObject(rle, rle, category=pasted.category), in_front=True)

    def paste_behind(self, pasted: PastedObject, shadow: dict | None = None, feather: float = 0.0) -> None:
        """Adds an object behind all others; `feather` blurs its edge along what lies on it."""
        occupied = self.occupied()
        coverage, colours, x, y = pasted.coverage, pasted.colours, pasted.x, pasted.y
        if shadow is not None:
            colours = colours.copy()
            cast_shadow(colours, occupied * np.uint8(255), -x, -y, **shadow)
        window, part = overlap(coverage.shape, x, y, self.size)
        free = (~occupied[window]).astype(np.float32)
        if feather > 0:
            free = cv2.GaussianBlur(free, (0, 0), feather, borderType=cv2.BORDER_REPLICATE)
        opacity, uncovered = np.zeros_like(coverage), np.zeros_like(coverage)
        opacity[part] = np.rint(coverage[part] * free)
        uncovered[part] = coverage[part] * ~occupied[window]
        self._blend(replace(pasted, coverage=opacity, colours=colours), None)
        visible = self._rle(replace(pasted, coverage=uncovered))
        self._add(ComposedObject(self._rle(pasted), visible, category=pasted.category), in_front=False)

    def _add(self, item: ComposedObject, *, in_front: bool) -> None:
        self.objects.append(item)
        self.pasted.append(in_front)
        self._occupied = None

    def _blend(self, pasted: PastedObject, shadow: dict | None) -> None:
        margin = 0 if shadow is None else 3 * shadow["spread"]
        height, width = pasted.coverage.shape
        shape = (height + 2 * margin, width + 2 * margin)
        (rows, columns), _ = overlap(shape, pasted.x - margin, pasted.y - margin, self.size)
        patch = np.array(self.image.crop((columns.start, rows.start, columns.stop, rows.stop)), dtype=np.float32)
        x, y = pasted.x - columns.start, pasted.y - rows.start
        if shadow is not None:
            cast_shadow(patch, pasted.coverage, x, y, **shadow)
        blend(patch, pasted.coverage, pasted.colours, x, y)
        self.image.paste(Image.fromarray(np.rint(patch).astype(np.uint8)), (columns.start, rows.start))

    def _rle(self, pasted: PastedObject) -> RLE:
        (rows, columns), part = overlap(pasted.coverage.shape, pasted.x, pasted.y, self.size)
        return encode_window(pasted.coverage[part] >= 128, columns.start, rows.start, self.size)

    def record(self, min_visible: float) -> ImageRecord:
        """The record of the composed image."""
        instances = list(self.source.instances)
        for item in self.objects:
            if item.position is None:
                whole = InstanceRecord(
                    bbox=_box(item.uncovered),
                    category=item.category,
                    segmentation=dict(item.uncovered),
                    amodal=dict(item.uncovered),
                    amodal_bbox=_box(item.uncovered),
                )
                instances.append(_covered(whole, item, min_visible))
            else:
                instances[item.position] = _covered(instances[item.position], item, min_visible)
        return replace(self.source, instances=instances, pasted=tuple(self.pasted))


def _covered(instance: InstanceRecord, item: ComposedObject, min_visible: float) -> InstanceRecord:
    """An instance of the composed image, without the file's occluder mask, which is recomputed for the new image."""
    before, now = (int(coco_mask.area(rle)) for rle in (item.uncovered, item.visible))
    if now == before:
        segmentation = item.visible if instance.segmentation else instance.segmentation
        return replace(instance, segmentation=segmentation, occluder=None)
    return replace(
        instance,
        bbox=_box(item.visible),
        iscrowd=now < min_visible * before,
        segmentation=item.visible,
        occluder=None,
        area=None,
        amodal_bbox=instance.amodal_bbox or instance.bbox,
        hidden_fraction=None,
        uncovered=item.uncovered,
    )


def _box(rle: RLE) -> list[float]:
    return coco_mask.toBbox(rle).tolist()
