"""Reader of COCO's json: instances files, image-info files, and files converted by the occluder tool.

One reader serves training, evaluation, the occluder conversion, COCO-OCC and statistics (`bcnet.data.reader`): what
trains also evaluates, with the same objects, crowds, ids and sizes. Training and evaluation refuse a file with faults,
the "errors" of the table; conversion and COCO-OCC leave such annotations out and count them.

Category ids become classes 0..K-1 in the order of rising id, as in detectron2. Images come in the order
of their ids (numbers before texts), annotations in the file's order. Keys of an annotation that are read though COCO's
own files do not have them: ``bg_object_segmentation`` (the occluder mask), ``amodal_segmentation`` and
``amodal_bbox`` (the whole object), ``depth`` (the depth order in its image, smaller is nearer), ``hidden_fraction``
(hidden share of the object, 0..1) and ``ignore``. What happens to what is not as it should be:

=============================================  ===========================================================
what                                           what is done
=============================================  ===========================================================
UTF-8, UTF-16 or UTF-32, with a byte order     read
mark or without
the file is not JSON, or has no images or      error (conversion needs no categories)
categories; annotations not a list
**images**
image without id or size; height or width      error
below 1, or not whole
image without file name                        error where the image would be opened (training)
two images of one id                           error
float ids and sizes (``1.0``, ``480.0``)       read as whole numbers
ids of mixed types                             read; a text is never a number: ``"1"`` and ``1`` are two ids
image without annotations, or crowds only      kept; the training loader drops it by
                                               ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``
**categories**
category without a whole number as id or       error
without a name; two categories of one id
two categories of one name                     kept as two classes, counted
category without any annotation                kept as a class, named in the log; dropped by the format
                                               ``coco_used`` (``coco_used:annotations.json:images``)
category_id not in the file's categories       error
**annotations**
annotation without id, image_id or             error
category_id; two annotations of one id
image_id ``"7"`` where image ``7`` is listed,  error: otherwise all objects would be dropped
or the other way about
annotation of an image that is not listed      dropped, counted (subsets of COCO are made so)
iscrowd or ignore as 0, 1, false or true, as   read; absent or null is 0, as in COCO's API
number, bool or text
iscrowd or ignore of another value             error
annotation with ``ignore``                     a crowd in every respect (pycocotools' evaluation does not
                                               look at ``ignore``), counted
crowds                                         neither trained on nor occluders, ignored in evaluation;
                                               more than a tenth of the annotations: counted in a warning
area null, text, NaN, negative or missing      that of the mask (or else the box) is taken, counted
bbox null, empty or missing                    that of the mask is taken, counted; without a mask an error
bbox or amodal_bbox not four finite numbers    error
(text, NaN), or of negative size; depth not a
number; hidden_fraction not in 0..1
bbox or amodal_bbox wholly outside the image   error
bbox of zero width or height                   kept, counted; the mapper leaves it out of the targets
                                               (COCO's train2017 has two)
bbox partly outside the image                  kept; counted where it is by more than a pixel; the mapper
                                               clips it (as detectron2 does)
depth on some objects of an image only         its order is taken as unknown; counted
**masks**
segmentation of another kind than polygons     error
or RLE; polygon not a flat list of finite
numbers; RLE of another size than the image,
unreadable, or not filling the image
some polygons have fewer than 3 points         those polygons are dropped, counted (as detectron2 does)
some have an odd number of coordinates         the same, counted as such
no polygon of a mask is left                   error (an occluder of such polygons is none)
no segmentation, or an empty one               kept, counted; training masks with it is a ValueError that names
                                               the annotation (detectors of boxes need none); evaluation
                                               then compares boxes alone; conversion leaves it out
no segmentation but amodal_segmentation        an object that is hidden altogether: its visible mask is empty
crowd without a mask, or with a malformed one  its box is taken as its region, counted
mask that covers no pixel's centre             kept, counted; it is no training target
mask wholly outside its box                    error, with the likely cause where most of such masks have it: x
                                               and y swapped, fractions or percent, box of two corners, RLE
                                               along the rows
mask that disagrees with its box (IoU of the   kept, counted, with the likely cause
mask's extents and the box below 0.5)
all coordinates in 0..1                        error
all coordinates in 0..100 of larger images     said (20 objects or more)
image file missing or unreadable, or of        the mapper's business (``INPUT.BAD_IMAGE``; another size is
another size than the file says                always an error)
=============================================  ===========================================================

All errors of one file come as one ValueError, which lists the first of them with id and value and says how many
there are. What is counted is logged in one warning per file, with the first ids.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from bcnet.data.coco_json import check_coco_json, is_id, normal_id, read_coco_json
from bcnet.data.findings import Findings
from bcnet.data.reader import COCO, AnnotationFormat, CocoReader
from bcnet.data.records import DatasetInfo, ImageRecord

_logger = logging.getLogger(__name__)


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


def load_coco_used(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """`load_coco` without the categories that no annotation has; the others are numbered anew, 0..K-1.

    Some exports have a category above all others, without annotations of its own (Roboflow's).
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


def read_annotations(
    content: dict,
    annotation_file: str,
    image_root: str | None,
    name: str = "",
    *,
    format: AnnotationFormat = COCO,
    findings: Findings | None = None,
) -> tuple[list[ImageRecord], DatasetInfo]:
    """The records of COCO content, or of a format like it, without faults.

    Args:
        content: with lists of images, categories and annotations (the last may be absent).
        annotation_file, name: as for `load_coco`.
        image_root: as for `load_coco`; None where no image will be opened, and then images need no file name.
        format: how the annotations differ from COCO's.
        findings: what was found before.

    Returns, Raises:
        As `load_coco`.
    """
    reader = CocoReader(content, annotation_file, image_root, name=name, format=format, findings=findings)
    records = sorted((image.record for image in reader), key=lambda r: (isinstance(r.image_id, str), r.image_id))
    reader.findings.raise_if_faulty()
    reader.findings.log(_logger)
    counts, info = reader.counts, reader.info
    _logger.info(
        "%d images, %d annotations, %d of them crowds, read from %s",
        len(records),
        counts["annotations"],
        counts["crowds"],
        annotation_file,
    )
    unused = [name for index, name in enumerate(info.class_names) if index not in reader.used_classes]
    if unused and reader.used_classes:
        _logger.info("%s: %d categories have no annotation: %s", annotation_file, len(unused), ", ".join(unused[:20]))
    return records, info


def mask_reader(content: dict, annotation_file: str, *, masks_required: bool = False) -> CocoReader:
    """The reader for tools that work on masks and boxes alone, and leave out what cannot be used.

    The content needs no file names of images, and no list of categories: without one, the ids that occur are the
    categories.

    Raises:
        ValueError: no list of images or of annotations.
    """
    check_coco_json(content, annotation_file, ("images",))
    if not isinstance(content.get("annotations"), list):
        raise ValueError(f"{annotation_file} is not a COCO file of instances: it has no list of annotations")
    if "categories" not in content:
        entries = (entry for entry in content["annotations"] if isinstance(entry, dict))
        ids = (entry.get("category_id") for entry in entries)
        known = sorted({normal_id(value) for value in ids if is_id(value) and not isinstance(value, str)})
        content = {**content, "categories": [{"id": value, "name": str(value)} for value in known]}
    return CocoReader(content, annotation_file, None, masks_required=masks_required)
