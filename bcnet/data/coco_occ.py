"""COCO-OCC: the images of a COCO json in which objects overlap.

The paper (section 4) takes the images of val2017 in which the overlap of two objects' boxes is at least 0.2,
1,005 of 5,000 images, and defines the overlap no further; neither the list nor a script was published. These
readings are offered, each a number 0..1 for an ordered pair of objects i, j (crowds aside):

===============  ============================================================  ======================
reading          overlap                                                       share of 300 images
===============  ============================================================  ======================
iou              IoU of the two boxes                                          45 %
same-class-iou   the same, of objects of one class; 0 for others               25 %
smaller          intersection of the boxes over the smaller box                77 %
mask             share of the pixels of i's box that j's mask covers           66 %
===============  ============================================================  ======================

The shares are of a sample of COCO train and val 2017. The default, same-class-iou, is the reading nearest
to the paper's 20 %. It agrees with it, no more: the paper's own list may be another one of like size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.coco import mask_reader
from bcnet.data.coco_json import is_id
from bcnet.data.occluder_annotations import check_output
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import visible_rle
from bcnet.files import read_json, write_json
from bcnet.occlusion.rule import crop_rle

_logger = logging.getLogger(__name__)

OVERLAPS = ("iou", "same-class-iou", "smaller", "mask")
DEFAULT_OVERLAP = "same-class-iou"
THRESHOLD = 0.2


def box_overlaps(boxes: np.ndarray, classes: Sequence, overlap: str = DEFAULT_OVERLAP) -> np.ndarray:
    """The overlap of all pairs of boxes by one of the readings "iou", "same-class-iou" and "smaller".

    Areas are areas, width times height (no pixel is added, unlike in the occluder rule); a pair of boxes of
    which one has no area does not overlap.

    Args:
        boxes: float [G, 4], COCO's xywh.
        classes: [G], anything that compares.

    Returns:
        float64 [G, G], 0 on the diagonal.

    Raises:
        ValueError: an unknown reading.
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


def mask_overlaps(boxes: np.ndarray, rles: Sequence[dict], image_size: tuple[int, int]) -> np.ndarray:
    """The share of the pixels of box i that mask j covers: float64 [G, G], 0 on the diagonal.

    Args:
        boxes: float [G, 4], COCO's xywh; their pixels are those of the occluder rule's crop.
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
    """Positions of the records in which the overlap of two objects, crowds aside, is at least the threshold.

    Args:
        records: images; for the reading "mask", objects without a mask do not count.
        overlap: one of `OVERLAPS`.

    Raises:
        ValueError: an unknown reading, or a threshold outside 0..1 (0 would select pairs that do not touch).
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    return [n for n, record in enumerate(records) if _overlaps(record, overlap).max(initial=0) >= threshold]


def _overlaps(record: ImageRecord, overlap: str) -> np.ndarray:
    objects = [instance for instance in record.instances if not instance.iscrowd]
    if overlap == "mask":
        objects = [instance for instance in objects if instance.segmentation or instance.amodal]
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
    """Writes the selected images with all their annotations; every other part of the json is kept.

    Images and annotations that training would refuse do not count (see `bcnet.data.coco`); a warning names them.

    Returns:
        The share of the images that each reading selects, by name, at the same threshold.

    Raises:
        FileExistsError: the output exists and `overwrite` is not set.
        ValueError: as `select_images`; or the input is not a COCO json, or it is the output.
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
