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

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.files import write_json
from bcnet.occlusion.annotations import (
    box_fault,
    image_size,
    is_crowd,
    positions_by_image,
    read_coco_json,
    read_instances,
)
from bcnet.occlusion.convert import check_output
from bcnet.occlusion.rule import crop_rle

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


def select_images(content: dict, overlap: str = DEFAULT_OVERLAP, threshold: float = THRESHOLD) -> list[int]:
    """Positions of the images in which the overlap of two objects is at least the threshold.

    Annotations that are crowds, or malformed (bbox; for "mask" the segmentation too), do not count as objects.

    Args:
        content: of a COCO json (`read_coco_json`).
        overlap: one of `OVERLAPS`.

    Raises:
        ValueError: an unknown reading, or a threshold outside 0..1 (0 would select pairs that do not touch).
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    groups, _ = positions_by_image(content)
    selected = []
    for number, (image, positions) in enumerate(zip(content["images"], groups, strict=True)):
        size = image_size(image)
        if size is None:
            continue
        annotations = [(position, content["annotations"][position]) for position in positions]
        if overlap == "mask":
            instances = read_instances(image, annotations)
            overlaps = mask_overlaps(instances.boxes, instances.rles, size)
        else:
            objects = [
                annotation
                for _, annotation in annotations
                if not is_crowd(annotation) and box_fault(annotation.get("bbox"), *size) is None
            ]
            boxes = [annotation["bbox"] for annotation in objects]
            overlaps = box_overlaps(boxes, [annotation.get("category_id") for annotation in objects], overlap)
        if overlaps.max(initial=0) >= threshold:
            selected.append(number)
    return selected


def build_coco_occ(
    input_file: str,
    output_file: str,
    *,
    overlap: str = DEFAULT_OVERLAP,
    threshold: float = THRESHOLD,
    overwrite: bool = False,
) -> dict[str, float]:
    """Writes the selected images with all their annotations; every other part of the json is kept.

    Returns:
        The share of the images that each reading selects, by name, at the same threshold.

    Raises:
        FileExistsError: the output exists and `overwrite` is not set.
        ValueError: as `read_coco_json` and `select_images`; or the output is the input.
    """
    check_output(input_file, output_file, overwrite)
    content, _ = read_coco_json(input_file)
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}")
    selections = {name: select_images(content, name, threshold) for name in OVERLAPS}
    groups, _ = positions_by_image(content)
    positions = sorted(position for number in selections[overlap] for position in groups[number])
    selected = {
        "images": [content["images"][number] for number in selections[overlap]],
        "annotations": [content["annotations"][position] for position in positions],
    }
    write_json(output_file, content | selected, indent=None)
    return {name: len(selection) / max(len(content["images"]), 1) for name, selection in selections.items()}
