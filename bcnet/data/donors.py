"""Donor images of copy-paste composition: objects cut out of a data set, with a bounded cache of cut-outs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.cutouts import Cutout, cut_out, is_large_and_whole
from bcnet.data.images import MAX_IMAGE_PIXELS, UnreadableImageError, open_record_image
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import visible_rle

MIN_OBJECT_PIXELS = 40**2  # minimum area of a cut-out object in its source image
_MIN_LARGEST_COMPONENT = 0.95  # minimum share of an object's pixels in its largest connected component

_logger = logging.getLogger(__name__)


class Donors:
    """The images of a data set that objects can be cut from, with a memory-bounded LRU cache of cut-outs.

    Args:
        records: the data set.
        candidates: int [n], indices of the records with an object that can be cut out (`donor_indices`).
        cache_bytes: memory limit of the cache.
        min_pixels: minimum area of an object.
        max_image_pixels: as in `DatasetMapper`.
        skip_unreadable: log unreadable images and skip them.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        candidates: np.ndarray,
        *,
        cache_bytes: int,
        min_pixels: int = MIN_OBJECT_PIXELS,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        skip_unreadable: bool = False,
    ) -> None:
        self.records = records
        self.candidates = candidates
        self.cache_bytes = cache_bytes
        self.min_pixels = min_pixels
        self.max_image_pixels = max_image_pixels
        self.skip_unreadable = skip_unreadable
        self.cached_bytes = 0
        self._cache: OrderedDict[int, list[Cutout]] = OrderedDict()

    def draw(self, rng: np.random.Generator, *, exclude: str = "") -> list[Cutout]:
        """The cut-outs of a random image other than the file `exclude`; empty if nothing can be cut from it.

        All come from one image, because reading it is the most expensive step of a composition.

        Raises:
            UnreadableImageError: the image cannot be read, and `skip_unreadable` is False.
            ValueError: the image's size is not the record's, or a segmentation is malformed.
        """
        if len(self.candidates) == 0:
            return []
        position = int(rng.integers(len(self.candidates)))
        for index in np.roll(self.candidates, -position)[:2].tolist():
            if self.records[index].file_name != exclude:
                return self._cutouts(index)
        return []

    def _cutouts(self, index: int) -> list[Cutout]:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        cutouts = self._cut(self.records[index])
        self._cache[index] = cutouts
        self.cached_bytes += sum(cutout.nbytes for cutout in cutouts)
        while self.cached_bytes > self.cache_bytes and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self.cached_bytes -= sum(cutout.nbytes for cutout in dropped)
        return cutouts

    def _cut(self, record: ImageRecord) -> list[Cutout]:
        try:
            image = open_record_image(record, max_pixels=self.max_image_pixels)
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            _logger.warning("skipped an unreadable donor image (INPUT.BAD_IMAGE 'skip'): %s", error)
            return []
        pixels = np.asarray(image)
        rles = [visible_rle(record, instance) if instance.segmentation else None for instance in record.instances]
        occupied = coco_mask.decode(coco_mask.merge([rle for rle in rles if rle is not None]))
        cutouts = []
        for instance, rle in zip(record.instances, rles, strict=True):
            if rle is None or not is_large_and_whole(record, instance, min_pixels=self.min_pixels):
                continue
            if coco_mask.area(rle) < self.min_pixels:
                continue
            cutout = cut_out(pixels, rle, instance.category, occupied)
            if _in_one_piece(cutout.mask):
                cutouts.append(cutout)
        return cutouts


def donor_indices(records: Sequence[ImageRecord], min_pixels: int = MIN_OBJECT_PIXELS) -> np.ndarray:
    """Indices of the records with an object that can be cut out, judged by the boxes: int64 [n]."""
    usable = [any(is_large_and_whole(r, i, min_pixels=min_pixels) for i in r.instances) for r in records]
    return np.flatnonzero(np.asarray(usable, dtype=bool))


def _in_one_piece(mask: np.ndarray) -> bool:
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[1:count, cv2.CC_STAT_AREA]
    return areas.max() >= _MIN_LARGEST_COMPONENT * areas.sum()
