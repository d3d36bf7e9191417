"""Cut-outs: whole objects cut from images by their masks, scaled, feathered and pasted elsewhere.

Shared by copy-paste augmentation (`bcnet.data.composition`) and synthetic scenes (`bcnet.data.synthetic`).

Letters: H x W image, h x w window of an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.ops.rle import RLE, decode_window, segmentation_to_rle

MAX_MAGNIFICATION = 1.25  # at larger factors a cut-out looks blurred next to the others
_BORDER = 2  # an instance whose box is this close to the image border (pixels) counts as truncated
_CONTACT_DISTANCE = 3  # objects up to this far apart touch (pixels): annotated outlines leave gaps
_MAX_HIDDEN = 0.02  # maximum hidden fraction of an object, if annotated


@dataclass(frozen=True)
class Cutout:
    """An object at the size of its source image.

    Attributes:
        category: 0..K-1.
        mask: uint8 [h, w], 0 or 1, tight around the object.
        colours: uint8 [h, w, 3] RGB.
        contact: uint8 [h, w], 1 where the object's contour touched another object in its source image and may be that
            object's contour, 0 elsewhere.
    """

    category: int
    mask: np.ndarray
    colours: np.ndarray
    contact: np.ndarray

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.mask.nbytes + self.colours.nbytes + self.contact.nbytes

    def scaled(self, scale: float, *, mirrored: bool, feather: float) -> ScaledCutout:
        """The object resized by a factor, optionally mirrored, with a feathered edge.

        Args:
            scale: factor of both sides.
            mirrored: flip horizontally.
            feather: standard deviation in pixels of the edge's blur; 0 leaves it sharp.
        """
        height, width = self.mask.shape
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        coverage = _resized(self.mask * np.uint8(255), size, mirrored)
        contact = _resized(self.contact * np.uint8(255), size, mirrored) > 0
        if feather > 0:
            # Zero padding: the feathered edge must also fade at the window's border.
            coverage = cv2.GaussianBlur(coverage, (0, 0), feather, borderType=cv2.BORDER_CONSTANT)
        contour = contour_of((coverage >= 128).astype(np.uint8))
        return ScaledCutout(self, mirrored, coverage, contour, contour & contact)


@dataclass(frozen=True)
class ScaledCutout:
    """A cut-out at the size at which it is pasted.

    Attributes:
        source: the cut-out.
        mirrored: whether it is flipped horizontally.
        coverage: uint8 [h, w], 255 inside the object. The object's binary mask is ``coverage >= 128``.
        contour: bool [h, w], the outermost pixels of the mask.
        contact: bool [h, w], those of them that touched another object in the source image.
    """

    source: Cutout
    mirrored: bool
    coverage: np.ndarray
    contour: np.ndarray
    contact: np.ndarray

    def colours(self) -> np.ndarray:
        """uint8 [h, w, 3] RGB. Resized when asked for, as half of the cut-outs find no place."""
        height, width = self.coverage.shape
        return _resized(self.source.colours, (width, height), self.mirrored)


def _resized(pixels: np.ndarray, size: tuple[int, int], mirrored: bool) -> np.ndarray:
    """Pixels [h, w] or [h, w, 3] resized to (width, height), flipped horizontally if `mirrored`."""
    smaller = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:, ::-1]) if mirrored else resized


def contour_of(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask, uint8 [h, w] of 0 and 1: bool [h, w]."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return (mask > cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]).astype(bool)


def cut_out(image: np.ndarray, mask: RLE, category: int, occupied: np.ndarray | None = None) -> Cutout:
    """Cuts an object out of its image.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: compressed RLE [H, W], not empty.
        category: 0..K-1.
        occupied: uint8 [H, W], 1 in the visible masks of all objects; None to leave `contact` empty.
    """
    x, y, width, height = (int(v) for v in coco_mask.toBbox(mask))
    window = np.s_[y : y + height, x : x + width]
    # The margin lets objects beside the window be seen.
    top, left = max(y - _CONTACT_DISTANCE, 0), max(x - _CONTACT_DISTANCE, 0)
    bottom, right = (min(v + _CONTACT_DISTANCE, n) for v, n in zip((y + height, x + width), mask["size"], strict=True))
    around = np.ascontiguousarray(decode_window(mask, left, top, right, bottom))
    inner = np.s_[y - top : y - top + height, x - left : x - left + width]
    own = around[inner].copy()
    contact = np.zeros_like(own)
    if occupied is not None:
        others = occupied[top:bottom, left:right] * (1 - around)
        near = cv2.dilate(others, np.ones((2 * _CONTACT_DISTANCE + 1,) * 2, np.uint8))
        contact = near[inner] * contour_of(own)
    return Cutout(category, own, image[window].copy(), contact)


def is_large_and_whole(
    record: ImageRecord, instance: InstanceRecord, *, min_pixels: int, whole_only: bool = True
) -> bool:
    """Whether an object can be cut out, judged by its box and kind of segmentation, without decoding its mask.

    Args:
        record: the image of the object.
        instance: the object. Crowds and objects without a visible mask cannot be cut out.
        min_pixels: minimum area of the box.
        whole_only: exclude incomplete objects: truncated by the image border, of several polygons (COCO's annotation of
            objects split by an occluder), or partly hidden according to their amodal annotation.
    """
    if instance.iscrowd or not instance.segmentation:
        return False
    x, y, width, height = instance.bbox
    if width * height < min_pixels:
        return False
    if not whole_only:
        return True
    if isinstance(instance.segmentation, list) and len(instance.segmentation) > 1:
        return False
    if instance.hidden_fraction is not None and instance.hidden_fraction > _MAX_HIDDEN:
        return False
    return (
        x >= _BORDER and y >= _BORDER and x + width <= record.width - _BORDER and y + height <= record.height - _BORDER
    )


def mask_area(record: ImageRecord, instance: InstanceRecord) -> int:
    """Number of pixels of an object's visible mask."""
    return int(coco_mask.area(segmentation_to_rle(instance.segmentation, record.height, record.width)))


def blend(canvas: np.ndarray, coverage: np.ndarray, colours: np.ndarray, x: int, y: int) -> None:
    """Alpha-blends an object onto a canvas (in place), clipped to the canvas.

    Args:
        canvas: uint8 or float32 [H, W, 3].
        coverage: uint8 [h, w], 255 where the object is opaque.
        colours: [h, w, 3], dtype of the canvas.
        x, y: position of the window's first pixel in the canvas.
    """
    window, part = overlap(coverage.shape, x, y, canvas.shape)
    opacity = coverage[part] * np.float32(1 / 255)
    canvas[window] = cv2.blendLinear(colours[part], canvas[window], opacity, 1 - opacity)


def cast_shadow(
    canvas: np.ndarray, coverage: np.ndarray, x: int, y: int, *, darkness: float, spread: int, shift: tuple[int, int]
) -> None:
    """Darkens a canvas (in place) around and below an object, which is drawn afterwards.

    Args:
        canvas: float32 [H, W, 3].
        coverage: uint8 [h, w], 255 where the object is opaque.
        x, y: position of the window's first pixel in the canvas.
        darkness: maximum fraction by which the shadow darkens the canvas.
        spread: width of the shadow's soft edge in pixels.
        shift: of the shadow against the object, right and down, in pixels; up to `spread` each.
    """
    margin = 2 * spread
    # Only what lies this close to the canvas casts a shadow on it.
    near = (canvas.shape[0] + 2 * margin, canvas.shape[1] + 2 * margin)
    (rows, columns), _ = overlap(near, -x - margin, -y - margin, coverage.shape)
    coverage, x, y = coverage[rows, columns], x + columns.start, y + rows.start
    if coverage.size == 0:
        return
    padded = cv2.copyMakeBorder(coverage, margin, margin, margin, margin, cv2.BORDER_CONSTANT)  # zeros
    # Two box filters give a soft edge in time independent of its width.
    soft = cv2.blur(cv2.blur(padded, (spread, spread)), (spread, spread))
    window, part = overlap(soft.shape, x - margin + shift[0], y - margin + shift[1], canvas.shape)
    canvas[window] *= (1 - soft[part] * np.float32(darkness / 255))[..., None]


def overlap(
    shape: tuple[int, ...], x: int, y: int, image_shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a window (h, w) at (x, y) that lies in an image (H, W): slices of the image and of the window."""
    (height, width), (image_height, image_width) = shape[:2], image_shape[:2]
    x0, y0 = min(max(x, 0), image_width), min(max(y, 0), image_height)
    x1, y1 = max(min(x + width, image_width), x0), max(min(y + height, image_height), y0)
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
