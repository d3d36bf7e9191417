"""Registers bcnet's data sets in detectron2's catalogs, and converts records to and from its dataset dicts."""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Iterable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from bcnet.data import ImageRecord, InstanceRecord, dataset_files, load_dataset
from bcnet.data.source_masks import instance_label
from bcnet.ops.rle import box_rle, segmentation_to_rle

IS_BCNET_DATASET = "is_bcnet_dataset"  # metadata: registered by `register_datasets`, so that readers of bcnet know it

# Annotation keys that detectron2 lacks, by the field of `InstanceRecord`.
_EXTRA_KEYS = {
    "occluder": "bg_object_segmentation",
    "amodal": "amodal_segmentation",
    "amodal_bbox": "amodal_bbox",
    "annotation_id": "id",
    "area": "area",
    "hidden_fraction": "hidden_fraction",
}


def register_datasets(names: Iterable[str]) -> None:
    """Registers names and specs of bcnet's catalog in detectron2's, unless it has them already.

    Afterwards ``DATASETS.TRAIN`` and ``TEST`` accept ``"coco:annotations.json:images"``, the package's names and
    what `bcnet.data.register_dataset` added. Names that detectron2 has itself (``coco_2017_train``) are unchanged.
    Annotations are read lazily.

    Raises:
        KeyError: a name in neither catalog.
        ValueError: a malformed spec.
    """
    for name in names:
        if name in DatasetCatalog.list():
            continue
        files = dataset_files(name)
        DatasetCatalog.register(name, functools.partial(_load, name))
        metadata = MetadataCatalog.get(name).set(evaluator_type="coco", image_root=files.image_root)
        metadata.set(**{IS_BCNET_DATASET: True})
        if files.format == "coco" and not os.path.isdir(files.annotation_file):
            # Ground truth of COCOEvaluator; for other formats it converts the dataset dicts.
            metadata.set(json_file=files.annotation_file)


def _load(name: str) -> list[dict]:
    records, info = load_dataset(name)
    MetadataCatalog.get(name).set(
        thing_classes=list(info.class_names),
        thing_dataset_id_to_contiguous_id={id: index for index, id in enumerate(info.category_ids)},
    )
    return [record_to_dict(record) for record in records]


def record_to_dict(record: ImageRecord) -> dict:
    """A record as detectron2's standard dataset dict, with the additional keys of `BCNetDatasetMapper` that it has."""
    dataset_dict = {
        "file_name": record.file_name,
        "image_id": record.image_id,
        "height": record.height,
        "width": record.width,
        "annotation_file": record.annotation_file,
        "annotations": [_annotation(record, instance) for instance in record.instances],
    }
    if record.in_front is not None:
        dataset_dict["in_front"] = record.in_front
    if record.unordered:
        dataset_dict["unordered"] = record.unordered
    if record.unordered_pairs:
        dataset_dict["unordered_pairs"] = record.unordered_pairs
    return dataset_dict


def _annotation(record: ImageRecord, instance: InstanceRecord) -> dict:
    annotation = {
        "bbox": instance.bbox,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": instance.category,
        "iscrowd": int(instance.iscrowd),
    }
    if isinstance(instance.segmentation, dict):
        # detectron2's mapper decodes compressed RLE alone.
        annotation["segmentation"] = segmentation_to_rle(instance.segmentation, record.height, record.width)
    elif instance.segmentation is not None:
        annotation["segmentation"] = instance.segmentation
    for field, key in _EXTRA_KEYS.items():
        if getattr(instance, field) is not None:
            annotation[key] = getattr(instance, field)
    return annotation


def dict_to_record(dataset_dict: dict) -> ImageRecord:
    """detectron2's standard dataset dict as a record; boxes of every `BoxMode` become xywh.

    Raises:
        ValueError: a segmentation that is neither polygons nor an RLE; a pair of ``in_front``, or a position of
            ``unordered``, without an annotation. The message names the image.
    """
    _check_positions(dataset_dict)
    record = ImageRecord(
        file_name=dataset_dict.get("file_name", ""),
        image_id=dataset_dict.get("image_id", ""),
        height=dataset_dict["height"],
        width=dataset_dict["width"],
        instances=[
            _instance(position, annotation, (dataset_dict["height"], dataset_dict["width"]))
            for position, annotation in enumerate(dataset_dict["annotations"])
        ],
        in_front=dataset_dict.get("in_front"),
        annotation_file=dataset_dict.get("annotation_file", ""),
        unordered=tuple(dataset_dict.get("unordered", ())),
        unordered_pairs=tuple(map(tuple, dataset_dict.get("unordered_pairs", ()))),
    )
    for instance in record.instances:
        if not isinstance(instance.segmentation, (list, tuple, dict, type(None))):
            raise ValueError(
                f"{instance_label(record, instance)} has a segmentation of type "
                f"{type(instance.segmentation).__name__}; detectron2 takes polygons (a list of lists or "
                "arrays) or an RLE (a dict)"
            )
    return record


def _check_positions(dataset_dict: dict) -> None:
    count = len(dataset_dict["annotations"])
    pairs = dataset_dict.get("in_front") or ()
    for entry in (*pairs, *((position,) for position in dataset_dict.get("unordered", ()))):
        if not all(0 <= position < count for position in entry):
            key = "in_front" if entry in pairs else "unordered"
            raise ValueError(
                f"{dataset_dict.get('file_name', '')} (image {dataset_dict.get('image_id', '')!r}): {key} has "
                f"{entry if key == 'in_front' else entry[0]}, but there are {count} annotations, counted from 0"
            )


def _instance(position: int, annotation: dict, image_size: tuple[int, int]) -> InstanceRecord:
    extra = {field: annotation.get(key) for field, key in _EXTRA_KEYS.items()}
    if extra["annotation_id"] is None:
        extra["annotation_id"] = f"at position {position}"
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and not segmentation:
        segmentation = dict(box_rle(0, 0, 0, 0, image_size))  # a mask without pixels, which detectron2 drops
    return InstanceRecord(
        bbox=_xywh(annotation["bbox"], annotation["bbox_mode"]),
        category=annotation["category_id"],
        iscrowd=bool(annotation.get("iscrowd", 0)),
        segmentation=segmentation,
        **extra,
    )


def _xywh(box: Sequence[float], mode: BoxMode) -> Sequence[float]:
    if mode == BoxMode.XYWH_ABS:
        return box
    corners = BoxMode.convert([float(x) for x in box], mode, BoxMode.XYXY_ABS)  # the only target for rotated boxes
    return BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)  # pyright: ignore[reportReturnType]


def files_with_ignored_order(names: Iterable[str]) -> list[str]:
    """The annotation files with a depth order among data sets whose registration is not bcnet's and may ignore it.

    detectron2's `register_coco_instances` reads no ``depth``. The files are searched for the key, not parsed.
    """
    files = []
    for name in names:
        metadata = MetadataCatalog.get(name)
        path = metadata.get("json_file", None)
        if path and not metadata.get(IS_BCNET_DATASET, False) and os.path.isfile(path) and _mentions(path, b'"depth"'):
            files.append(path)
    return files


def _mentions(path: str, text: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0
