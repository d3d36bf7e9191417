"""Reader of COCO's json: instances files, image-info files, and files converted by the occluder tool.

Category ids become classes 0..K-1 in the order of rising id, as in detectron2. Images come in the order
of their ids, annotations in the file's order. Four keys of an annotation are read that COCO's own files do
not have: ``bg_object_segmentation`` (the occluder mask), ``amodal_segmentation`` and ``amodal_bbox`` (the
whole object), and ``depth`` (the order in its image, smaller is nearer). What happens to what is not as it
should be:

=============================================  ===========================================================
what                                           what is done
=============================================  ===========================================================
the file is not JSON, or has no images or      ValueError
categories
image without id, file name or size; height    ValueError
or width below 1; two images of one id
annotation without id, bbox, image_id or       ValueError (a missing iscrowd is 0, as in COCO's API)
category_id; two annotations of one id
category_id not in the file's categories       ValueError
bbox or amodal_bbox not four finite numbers,   ValueError
or of negative size; depth not a number
bbox or amodal_bbox wholly outside the image   ValueError
segmentation of another kind than polygons     ValueError
or RLE; polygon not a flat list of numbers;
RLE of another size than the image
every polygon has fewer than 3 points          ValueError (an occluder of such polygons is none)
some polygons have fewer than 3 points, or an  those polygons are dropped and counted (as detectron2 does)
odd count of numbers
annotation of an image that is not listed      dropped and counted (subsets of COCO are made so)
annotation with ``ignore``                     kept as a crowd and counted
bbox of zero width or height                   kept, counted; the mapper leaves it out of the targets
                                               (COCO's train2017 has two)
bbox partly outside the image                  kept; counted where it is by more than a pixel; the mapper
                                               clips it (as detectron2 does)
no segmentation, or an empty one               kept; training masks with it is a ValueError that names the
                                               annotation (detectors of boxes need none)
depth on some objects of an image only         its order is taken as unknown; counted
image without annotations, or crowds only      kept; the training loader drops it by
                                               ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``
RLE whose runs do not fill the image, and      ValueError of the mapper, as it takes decoding; it names
other faults of a segmentation's content       the file and the annotation too
image file missing or unreadable, or of        the mapper's business (``INPUT.BAD_IMAGE``; another size is
another size than the file says                always an error)
=============================================  ===========================================================

All ValueErrors of one file come as one, which lists the first of them with id and value and says how many
there are. What is counted is logged in one warning per file. A crowd's segmentation is not read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from bcnet.data.parsing import (
    Faults,
    check_box,
    checked_mask,
    is_finite,
    is_id,
    missing,
    read_categories,
    read_coco_json,
    read_images,
    short,
    without_short_polygons,
)
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord

_logger = logging.getLogger(__name__)

# Turns an annotation of a related format into one with the keys above; None drops it (and has counted it).
Translate = Callable[[dict, ImageRecord, Counter], "dict | None"]
# `ImageRecord.in_front` from the file's own annotations of the record's instances.
Order = Callable[[ImageRecord, Sequence[dict], Counter], "list[tuple[int, int]] | None"]


def load_coco(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a COCO json (see the module's text for what malformed content gets).

    Args:
        annotation_file: path of the json.
        image_root: folder that the images' file names start at.
        name: what to call the data set; the file's path by default.

    Returns:
        The images by rising id, with segmentations as in the json, and the data set's description.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the ids and values of the first faults.
    """
    return read_annotations(read_coco_json(annotation_file), annotation_file, image_root, name)


def read_annotations(
    content: dict,
    annotation_file: str,
    image_root: str,
    name: str = "",
    *,
    translate: Translate | None = None,
    order: Order | None = None,
    counts: Counter | None = None,
) -> tuple[list[ImageRecord], DatasetInfo]:
    """The records of COCO content, or of a format like it.

    Args:
        content: with lists of images, categories and annotations (the last may be absent).
        annotation_file, image_root, name: as for `load_coco`.
        translate: makes an annotation one of COCO's, for formats with other keys.
        order: says who lies in front of whom; by default the ``depth`` of the annotations does.
        counts: what was counted before.

    Returns, Raises:
        As `load_coco`.
    """
    faults = Faults(annotation_file)
    counts = Counter() if counts is None else counts
    info, class_of = read_categories(content["categories"], annotation_file, image_root, name)
    records = read_images(content["images"], annotation_file, image_root, faults)
    annotations = content.get("annotations") or []
    if not isinstance(annotations, list):
        raise ValueError(f"{annotation_file}: annotations must be a list, got {short(annotations)}")
    sources: dict[int | str, list[dict]] = {image_id: [] for image_id in records}
    seen: set = set()
    for position, annotation in enumerate(annotations):
        label = f"annotation at position {position}"
        fault = missing(annotation, ("id", "image_id"))
        if fault is None:
            label = f"annotation {short(annotation['id'])}"
            if not is_id(annotation["id"]) or not is_id(annotation["image_id"]):
                fault = f"its ids must be whole numbers or texts, its image_id is {short(annotation['image_id'])}"
            elif annotation["id"] in seen:
                fault = "its id is used twice"
            else:
                seen.add(annotation["id"])
        if fault is None:
            record = records.get(annotation["image_id"])
            if record is None:
                counts["annotations of images that are not listed, dropped"] += 1
                continue
            try:
                translated = translate(annotation, record, counts) if translate else annotation
                if translated is not None:
                    record.instances.append(_read_instance(translated, record, class_of, counts))
                    sources[record.image_id].append(annotation)
            except ValueError as error:
                fault = str(error)
        if fault is not None:
            faults.add(label, fault)
    order = order or _depth_order
    for image_id, record in records.items():
        try:
            record.in_front = order(record, sources[image_id], counts)
        except ValueError as error:
            faults.add(f"image {image_id!r}, {record.file_name!r}", str(error))
    faults.raise_if_any()
    if counts:
        summary = "; ".join(f"{count} {what}" for what, count in counts.items())
        _logger.warning("%s: %s", annotation_file, summary)
    ordered = [records[i] for i in sorted(records, key=lambda i: (isinstance(i, str), i))]
    _logger.info("%d images, %d annotations read from %s", len(ordered), len(seen), annotation_file)
    return ordered, info


def _read_instance(annotation: dict, record: ImageRecord, class_of: dict, counts: Counter) -> InstanceRecord:
    fault = missing(annotation, ("bbox", "category_id"))
    if fault is not None:
        raise ValueError(fault)
    if not is_id(annotation["category_id"]) or annotation["category_id"] not in class_of:
        raise ValueError(f"category_id {short(annotation['category_id'])} is not in the file's categories")
    check_box("bbox", annotation["bbox"], record, counts)
    depth = annotation.get("depth")
    if depth is not None and not is_finite(depth):
        raise ValueError(f"depth must be a finite number, got {short(depth)}")
    if annotation.get("ignore"):
        counts["annotations with 'ignore', kept as crowds"] += 1
    iscrowd = bool(annotation.get("iscrowd")) or bool(annotation.get("ignore"))
    instance = InstanceRecord(
        bbox=annotation["bbox"],
        category=class_of[annotation["category_id"]],
        iscrowd=iscrowd,
        segmentation=annotation.get("segmentation") or None,
        occluder=annotation.get("bg_object_segmentation"),
        amodal=annotation.get("amodal_segmentation") or None,
        amodal_bbox=annotation.get("amodal_bbox"),
        annotation_id=annotation["id"],
    )
    if iscrowd:
        return instance
    if instance.amodal_bbox is not None:
        check_box("amodal_bbox", instance.amodal_bbox, record, counts)
    if instance.segmentation is not None:
        instance.segmentation = checked_mask("segmentation", instance.segmentation, record, counts)
    if instance.amodal is not None:
        instance.amodal = checked_mask("amodal_segmentation", instance.amodal, record, counts)
    if instance.occluder:
        # The published converter writes contours of one or two points; its own reader drops them silently.
        instance.occluder = without_short_polygons("bg_object_segmentation", instance.occluder, record, counts)
    return instance


def _depth_order(record: ImageRecord, annotations: Sequence[dict], counts: Counter) -> list[tuple[int, int]] | None:
    depths = [annotation.get("depth") for annotation in annotations]
    return pairs_in_front(record, depths, counts, "a depth")


def pairs_in_front(
    record: ImageRecord, depths: Sequence[float | None], counts: Counter, what: str
) -> list[tuple[int, int]] | None:
    """`ImageRecord.in_front` of one depth per instance (smaller is nearer), crowds aside.

    None where no object has one, and, counted, where not all objects have one.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    known = [i for i in objects if depths[i] is not None]
    if len(known) < len(objects):
        if known:
            counts[f"images in which some objects only have {what}, taken as of unknown order"] += 1
        return None
    return [(i, j) for i in known for j in known if depths[j] < depths[i]] if known else None
