"""Writer of COCO's json, with the keys that the COCO reader adds: amodal masks, order, hidden fraction, tracks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.exporters.names import image_names
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.files import write_json
from bcnet.ops.rle import rle_to_json, segmentation_to_rle


def write_coco(records: Sequence[ImageRecord], info: DatasetInfo, output: str) -> dict[str, int]:
    """Writes a data set as a COCO json; reading it gives the same records.

    Ids that are texts are replaced by 1, 2, ...; file names start at ``info.image_root``. The order of the objects of
    an image is written as ``depth`` where a depth can say it, and else as ``in_front``.

    Returns:
        An empty dict: nothing is lost.
    """
    write_json(output, coco_content(records, info), indent=None)
    return {}


def coco_content(records: Sequence[ImageRecord], info: DatasetInfo) -> dict:
    """The content of the json; arguments as of `write_coco`."""
    image_ids = numbers([record.image_id for record in records])
    instances = [instance.annotation_id for record in records for instance in record.instances]
    annotation_ids = iter(numbers(instances))
    names = image_names(records, info.image_root)
    content: dict = {"info": {"description": info.name}, "images": [], "annotations": [], "categories": []}
    if info.annotated_occlusions:
        content["info"]["annotated_occlusions"] = True
    content["categories"] = [
        {"id": category_id, "name": name} for category_id, name in zip(info.category_ids, info.class_names, strict=True)
    ]
    for record, image_id, name in zip(records, image_ids, names, strict=True):
        image = {"id": image_id, "file_name": name, "height": record.height, "width": record.width}
        content["images"].append(image | _present(video_id=record.video_id, frame_index=record.frame_index))
        ids = [next(annotation_ids) for _ in record.instances]
        content["annotations"] += _annotations(record, info, image_id, ids)
    return content


def numbers(ids: Sequence[int | str | None]) -> list[int]:
    """The ids, if all are different whole numbers; else 1, 2, ..."""
    kept = [value for value in ids if isinstance(value, int)]
    return kept if len(set(kept)) == len(ids) else list(range(1, len(ids) + 1))


def _annotations(record: ImageRecord, info: DatasetInfo, image_id: int, ids: list[int]) -> Iterator[dict]:
    order = order_keys(record, ids)
    for number, instance, keys in zip(ids, record.instances, order, strict=True):
        annotation = {
            "id": number,
            "image_id": image_id,
            "category_id": info.category_ids[instance.category],
            "bbox": [float(value) for value in instance.bbox],
            "area": annotation_area(record, instance),
            "iscrowd": int(instance.iscrowd),
            "segmentation": plain_segmentation(instance.segmentation) if instance.segmentation else [],
        }
        optional = {
            "bg_object_segmentation": plain_segmentation(instance.occluder) if instance.occluder is not None else None,
            "amodal_segmentation": plain_segmentation(instance.amodal) if instance.amodal else None,
            "amodal_bbox": None if instance.amodal_bbox is None else [float(value) for value in instance.amodal_bbox],
            "hidden_fraction": instance.hidden_fraction,
            "attributes": None if instance.occluded is None else {"occluded": instance.occluded},
            "track_id": instance.track_id,
            "occlusion": instance.occlusion,
        }
        yield annotation | _present(**optional) | keys


def _present(**values) -> dict:
    return {key: value for key, value in values.items() if value is not None}


def plain_segmentation(segmentation: list | dict) -> list | dict:
    """A segmentation without bytes."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], (bytes, str)):
        return dict(rle_to_json({"size": segmentation["size"], "counts": segmentation["counts"]}))
    return segmentation


def annotation_area(record: ImageRecord, instance: InstanceRecord) -> float:
    """The area of the file, or of the mask."""
    if instance.area is not None:
        return instance.area
    if instance.segmentation:
        return float(coco_mask.area(segmentation_to_rle(instance.segmentation, record.height, record.width)))
    return 0.0 if instance.amodal else float(instance.bbox[2] * instance.bbox[3])


def order_keys(record: ImageRecord, ids: Sequence[int]) -> list[dict]:
    """For each instance what says its place in the order: ``depth`` or ``in_front``, ``unordered_with``, or nothing."""
    if record.in_front is None:
        return [{} for _ in ids]
    undecided: list[list[int]] = [[] for _ in ids]
    for first, second in record.unordered_pairs:
        undecided[first].append(ids[second])
    known = _known_order(record, ids)
    return [
        keys | ({"unordered_with": others} if others else {}) for keys, others in zip(known, undecided, strict=True)
    ]


def is_depth_order(record: ImageRecord) -> bool:
    """Whether a depth for each object says the known order of a record, and no object is of unknown order."""
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    depths = front_counts(record)
    return not record.unordered and set(record.in_front or ()) == {
        (i, j) for i in objects for j in objects if depths[j] < depths[i]
    }


def _known_order(record: ImageRecord, ids: Sequence[int]) -> list[dict]:
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    depths = front_counts(record)
    if is_depth_order(record):
        return [
            {} if instance.iscrowd else {"depth": int(d)} for instance, d in zip(record.instances, depths, strict=True)
        ]
    in_front: list[list[int]] = [[] for _ in ids]
    for behind, front in record.in_front or ():
        in_front[behind].append(ids[front])
    is_known = [i in objects and i not in record.unordered for i in range(len(ids))]
    return [{"in_front": fronts} if known else {} for fronts, known in zip(in_front, is_known, strict=True)]


def front_counts(record: ImageRecord) -> np.ndarray:
    """How many objects lie in front of each instance: int64 [G]. Of a depth order, it is a depth."""
    counts = np.zeros(len(record.instances), dtype=np.int64)
    for behind, _ in set(record.in_front or ()):
        counts[behind] += 1
    return counts
