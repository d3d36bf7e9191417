"""Reader of COCO's json: instances files, image-info files, and files converted by the occluder tool.

One reader serves training, evaluation, the occluder conversion, COCO-OCC and statistics (`bcnet.data.reader`), so all
of them see the same objects, crowds, ids and sizes. Training and evaluation reject a file with faults ("error" in the
table); conversion and COCO-OCC skip such annotations and count them.

Category ids are mapped to classes 0..K-1 in ascending order, as in detectron2. Images are sorted by id (numbers before
strings), annotations keep the file's order. Besides COCO's own keys, annotations may have ``bg_object_segmentation``
(the occluder mask), ``amodal_segmentation`` and ``amodal_bbox`` (the whole object), ``depth`` (the depth order in its
image, smaller is nearer) or ``in_front`` (ids of the annotations in front of it), ``hidden_fraction`` (hidden fraction
of the object, 0..1), ``ignore``, and ``occluded`` in ``attributes``, as CVAT writes it. Of frames of videos, images may
have ``video_id`` and ``frame_index``, annotations ``track_id`` and ``occlusion`` (OVIS' level). Handling of malformed
and unusual content:

=============================================  ===========================================================
content                                        handling
=============================================  ===========================================================
UTF-8, UTF-16 or UTF-32, with or without a     read
byte order mark
the file is not JSON, or has no images or      error (conversion needs no categories)
categories; annotations not a list
**images**
image without id or size; height or width      error
below 1, or not an integer
image without file name                        error if the image is to be opened (training)
two images with one id                         error
float ids and sizes (``1.0``, ``480.0``)       read as integers
ids of mixed types                             read; strings and numbers differ: ``"1"`` and ``1`` are two ids
image without annotations, or crowds only      kept; the training loader drops it if
                                               ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` is set
**categories**
category without an integer id or without a    error
name; two categories with one id
two categories with one name                   kept as two classes, counted
category without any annotation                kept as a class, named in the log; dropped by the format
                                               ``coco_used`` (``coco_used:annotations.json:images``)
category_id not in the file's categories       error
**annotations**
annotation without id, image_id or             error
category_id; two annotations with one id
image_id ``"7"`` where image ``7`` is listed,  error: otherwise all objects would be dropped
or vice versa
annotation of an image that is not listed      dropped, counted (common in subsets of COCO)
iscrowd or ignore as 0, 1, false or true, as   read; absent or null is 0, as in COCO's API
number, bool or string
iscrowd or ignore with another value           error
annotation with ``ignore``                     treated as a crowd (pycocotools' evaluation does not read
                                               ``ignore``), counted
crowds                                         neither trained on nor occluders, ignored in evaluation;
                                               more than a tenth of the annotations: counted in a warning
area null, string, NaN, negative or missing    computed from the mask (or else the box), counted
bbox null, empty or missing                    computed from the mask, counted; error without a mask
bbox or amodal_bbox not four finite numbers    error
(string, NaN), or of negative size; depth not
a number; hidden_fraction not in 0..1
bbox or amodal_bbox entirely outside the       error
image
bbox of zero width or height                   kept, counted; the mapper makes no target of it
                                               (COCO's train2017 has two)
bbox partly outside the image                  kept; counted if it extends by more than a pixel; the mapper
                                               clips it (as detectron2 does)
depth on only some objects of an image         the depth order is treated as unknown, counted
in_front on only some objects of an image      the order of the other objects is unknown
in_front, unordered_with not a list of ids     error
one of them with an id that the image lacks    that id is dropped, counted
video_id or track_id neither an integer nor    error
a string, frame_index not an integer from 0
on, occlusion not a string
attributes.occluded not 0, 1, false or true    error; other attributes are not read
**masks**
segmentation that is neither polygons nor      error
RLE; polygon not a flat list of finite
numbers; RLE of another size than the image,
unreadable, or not filling the image
some polygons have fewer than 3 points         those polygons are dropped, counted (as detectron2 does)
some have an odd number of coordinates         the same, counted separately
all polygons of a mask are dropped             error (an occluder mask is then treated as empty)
no segmentation, or an empty one               kept, counted; training masks with it raises a ValueError that
                                               names the annotation (box detectors need none); evaluation
                                               then compares only boxes; conversion skips it
no segmentation but amodal_segmentation        a fully hidden object: its visible mask is empty
inmodal_seg, i_segm or visible_mask            not read, counted: in the formats that have them, segmentation is
(KINS, D2SA, UOAIS)                            the amodal mask, and ``kins`` or ``d2sa`` reads both
crowd without a mask, or with a malformed one  its box is used as its region, counted
mask that covers no pixel centre               kept, counted; the mapper makes no target of it
mask entirely outside its box                  error, with the likely cause if most such masks share one: x and y
                                               swapped, fractions or percent, box as two corners, row-major RLE
mask that disagrees with its box (IoU of the   kept, counted, with the likely cause
mask's extents and the box below 0.5)
all coordinates in 0..1                        error
all coordinates in 0..100 of larger images     noted in the warning (20 objects or more)
image file missing, unreadable, or of another  handled by the mapper (``INPUT.BAD_IMAGE``; a wrong size is
size than the annotation file says             always an error)
=============================================  ===========================================================

All errors of a file are raised as one ValueError, which lists the first ones with id and value, and the number of the
others. Counted items are logged in one warning per file, with the first ids.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from bcnet.data.coco_json import check_coco_json, is_id, normal_id, read_coco_json
from bcnet.data.findings import Findings
from bcnet.data.reader import COCO, AnnotationFormat, CocoReader
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.garbage_collection import garbage_collection_paused
from bcnet.lazy_json import LazyList
from bcnet.words import counted

_logger = logging.getLogger(__name__)


def load_coco(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a COCO json (the module docstring lists how malformed content is handled).

    Args:
        annotation_file: path of the json.
        image_root: folder that image file names are relative to.
        name: name of the data set; default: the file's path.

    Returns:
        The images in ascending order of id, with segmentations as in the json, and the data set's description.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the ids and values of the first faults.
    """
    return read_annotations(read_coco_json(annotation_file), annotation_file, image_root, name)


def load_coco_used(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """`load_coco` without unused categories; the others are renumbered 0..K-1.

    Some exports (Roboflow's) have a supercategory in the list of categories, which no annotation uses.
    """
    records, info = load_coco(annotation_file, image_root, name)
    used = sorted({instance.category for record in records for instance in record.instances})
    number = {category: index for index, category in enumerate(used)}
    for record in records:
        for instance in record.instances:
            instance.category = number[instance.category]
    return records, replace(
        info,
        class_names=tuple(info.class_names[category] for category in used),
        category_ids=tuple(info.category_ids[category] for category in used),
    )


@garbage_collection_paused()
def read_annotations(
    content: dict,
    annotation_file: str,
    image_root: str | None,
    name: str = "",
    *,
    format: AnnotationFormat = COCO,
    findings: Findings | None = None,
) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads the records of a COCO json, or of a similar format; faults are raised.

    Args:
        content: dict with lists of images, categories and annotations (the last may be absent).
        annotation_file, name: as in `load_coco`.
        image_root: as in `load_coco`; None if no image will be opened: images then need no file name.
        format: how the annotations differ from COCO's.
        findings: findings so far.

    Returns, Raises:
        As `load_coco`.
    """
    reader = CocoReader(content, annotation_file, image_root, name=name, format=format, findings=findings)
    records = sorted((image.record for image in reader), key=lambda r: (isinstance(r.image_id, str), r.image_id))
    reader.findings.raise_if_faulty()
    reader.findings.log(_logger)
    counts, info = reader.counts, reader.info
    description = content.get("info")
    if isinstance(description, dict) and description.get("annotated_occlusions") is True:
        info = replace(info, annotated_occlusions=True)
    _logger.info(
        "%s, %s, %d of them crowds, read from %s",
        counted(len(records), "image"),
        counted(counts["annotations"], "annotation"),
        counts["crowds"],
        annotation_file,
    )
    unused = [name for index, name in enumerate(info.class_names) if index not in reader.used_classes]
    if unused and reader.used_classes:
        _logger.info("%s: without annotations: %s", annotation_file, ", ".join(unused[:20]))
    return records, info


def mask_reader(content: dict, annotation_file: str, *, masks_required: bool = False) -> CocoReader:
    """The reader for tools that need only masks and boxes, and skip what cannot be used.

    The content needs neither image file names nor a list of categories: without one, the category ids of the
    annotations are used.

    Raises:
        ValueError: no list of images or of annotations.
    """
    check_coco_json(content, annotation_file, ("images",))
    if not isinstance(content.get("annotations"), (list, LazyList)):
        raise ValueError(f"{annotation_file} is not a COCO file of instances: it has no list of annotations")
    if "categories" not in content:
        entries = (entry for entry in content["annotations"] if isinstance(entry, dict))
        ids = (entry.get("category_id") for entry in entries)
        known = sorted({normal_id(value) for value in ids if is_id(value) and not isinstance(value, str)})
        content = {**content, "categories": [{"id": value, "name": str(value)} for value in known]}
    return CocoReader(content, annotation_file, None, masks_required=masks_required)
