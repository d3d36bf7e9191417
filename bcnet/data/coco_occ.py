"""COCO-OCC: the images of a COCO json in which objects overlap.

The paper (section 4) selects the images of val2017 in which the overlap of two objects' boxes is at least 0.2,
1,005 of 5,000 images, without defining the overlap; neither the list nor a script was published. These definitions are
available, each a number 0..1 for an ordered pair of objects i, j (crowds excluded):

===============  ============================================================  ======================
name             overlap                                                       share of 300 images
===============  ============================================================  ======================
iou              IoU of the two boxes                                          45 %
same-class-iou   the same for objects of one class; 0 for others               25 %
smaller          intersection of the boxes over area of the smaller box        77 %
mask             fraction of the pixels of i's box that j's mask covers        66 %
===============  ============================================================  ======================

The shares were measured on a sample of COCO train and val 2017. The default, same-class-iou, is closest to the paper's
20 %. Only the size of the selection is comparable: the paper's list may contain other images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from bcnet.data.coco import mask_reader
from bcnet.data.coco_json import is_id
from bcnet.data.occluder_annotations import check_output
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import has_mask, visible_rle
from bcnet.files import read_json, write_json
from bcnet.occlusion.rule import crop_rle
from bcnet.ops.rle import RLE

_logger = logging.getLogger(__name__)

OVERLAPS = ("iou", "same-class-iou", "smaller", "mask")
DEFAULT_OVERLAP = "same-class-iou"
THRESHOLD = 0.2


def box_overlaps(boxes: ArrayLike, classes: Sequence, overlap: str = DEFAULT_OVERLAP) -> np.ndarray:
    """The overlap of all pairs of boxes by one of the definitions "iou", "same-class-iou" and "smaller".

    Areas are width times height, without the added pixel of the occluder rule; a box without area overlaps no other.

    Args:
        boxes: float [G, 4], COCO's xywh.
        classes: [G], values comparable by equality.

    Returns:
        float64 [G, G], 0 on the diagonal.

    Raises:
        ValueError: an unknown definition of overlap.
    """
    if overlap not in ("iou", "same-class-iou", "smaller"):
        raise ValueError(f"overlap must be one of iou, same-class-iou, smaller, got {overlap!r}")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    intersection = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(min=0).prod(axis=2)
    np.fill_diagonal(intersection, 0)
    areas = boxes[:, 2:].prod(axis=1)
    union = areas[:, None] + areas - intersection
    divisor = np.minimum(areas[:, None], areas) if overlap == "smaller" else union
    overlaps = np.divide(intersection, divisor, out=np.zeros_like(intersection), where=intersection > 0)
    if overlap == "same-class-iou":
        overlaps[np.array([[a != b for b in classes] for a in classes], dtype=bool).reshape(overlaps.shape)] = 0
    return overlaps


def mask_overlaps(boxes: Sequence[Sequence[float]], rles: Sequence[RLE], image_size: tuple[int, int]) -> np.ndarray:
    """The fraction of the pixels of box i that mask j covers: float64 [G, G], 0 on the diagonal.

    Args:
        boxes: float [G, 4], COCO's xywh; pixels of a box as in the occluder rule (`crop_rle`).
        rles: G compressed RLEs of the image's size.
        image_size: (H, W).
    """
    overlaps = np.zeros((len(rles), len(rles)))
    crops = [crop_rle(box, image_size) for box in boxes]
    touching = box_overlaps(boxes, [0] * len(rles), "iou") > 0
    for i, j in np.argwhere(touching).tolist():
        covered = coco_mask.area(coco_mask.merge([rles[j], crops[i]], intersect=True))
        overlaps[i, j] = covered / max(int(coco_mask.area(crops[i])), 1)
    return overlaps


def select_images(
    records: Iterable[ImageRecord], overlap: str = DEFAULT_OVERLAP, threshold: float = THRESHOLD
) -> list[int]:
    """Positions of the records in which the overlap of two objects (crowds excluded) is at least the threshold.

    Args:
        records: images; with overlap "mask", objects without a mask are ignored.
        overlap: one of `OVERLAPS`.

    Raises:
        ValueError: an unknown definition of overlap, or a threshold outside 0..1 (0 would select disjoint pairs).
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    return [n for n, record in enumerate(records) if _overlaps(record, overlap).max(initial=0) >= threshold]


def _overlaps(record: ImageRecord, overlap: str) -> np.ndarray:
    objects = [instance for instance in record.instances if not instance.iscrowd]
    if overlap == "mask":
        objects = [instance for instance in objects if has_mask(instance)]
        masks = [visible_rle(record, instance) for instance in objects]
        return mask_overlaps([instance.bbox for instance in objects], masks, (record.height, record.width))
    boxes = [instance.bbox for instance in objects]
    return box_overlaps(boxes, [instance.category for instance in objects], overlap)


def build_coco_occ(
    input_file: str,
    output_file: str,
    *,
    overlap: str = DEFAULT_OVERLAP,
    threshold: float = THRESHOLD,
    overwrite: bool = False,
) -> dict[str, float]:
    """Writes a COCO json of the selected images with all their annotations; all other keys are copied.

    Images and annotations that training would reject are ignored (see `bcnet.data.coco`); a warning names them.

    Returns:
        The fraction of the images that each definition of overlap selects at this threshold, by name.

    Raises:
        FileExistsError: the output exists and `overwrite` is not set.
        ValueError: as in `select_images`; or the input is not a COCO json, or is the same file as the output.
    """
    check_output(input_file, output_file, overwrite)
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}")
    content = read_json(input_file)
    reader = mask_reader(content, input_file)
    images = list(reader)
    reader.findings.log(_logger)
    selections = {name: select_images((image.record for image in images), name, threshold) for name in OVERLAPS}
    chosen = [images[number] for number in selections[overlap]]
    ids = {image.record.image_id for image in chosen}
    selected = {
        "images": [content["images"][image.position] for image in chosen],
        "annotations": [entry for entry in content["annotations"] if _image_id(entry) in ids],
    }
    write_json(output_file, content | selected, indent=None)
    return {name: len(selection) / len(content["images"]) for name, selection in selections.items()}


def _image_id(annotation: object) -> object:
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    return image_id if is_id(image_id) else None
