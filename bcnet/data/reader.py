"""CocoReader: reads and validates COCO-like annotations image by image, with the same rules for every caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bcnet.data.checks import MaskBoxCheck
from bcnet.data.coco_json import (
    Mask,
    annotation_label,
    every_polygon_dropped,
    extents_box,
    image_label,
    is_finite,
    is_id,
    is_number_id,
    mask_box,
    missing,
    normal_id,
    read_box,
    read_categories,
    read_flag,
    read_id,
    read_image,
    read_level,
    read_mask,
    read_number,
    read_occluded,
    short,
)
from bcnet.data.findings import AnnotationError, Findings, Tally
from bcnet.data.order import Pairs, annotated_order
from bcnet.data.plain_annotations import plain_instances
from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.lazy_json import LazyList

_BATCH = 64  # images whose annotations are looked at together

# A share of crowds among the annotations above this is noted in the warning; COCO has 1.2 %.
_MANY_CROWDS = 0.1

BRUSH_MASKS_HINT = (
    "every RLE is a crowd, and nothing else is: CVAT's COCO export marks brush masks so; "
    "'bcnet data convert --crowds-as-objects' makes objects of them"
)

# Keys of formats whose ``segmentation`` is the amodal mask, and the reader of both masks.
_VISIBLE_KEYS = {"inmodal_seg": "kins", "i_segm": "kins", "visible_mask": "d2sa"}

# Converts an annotation of a related format to COCO's; returns None to drop it, after adding a finding.
Translate = Callable[[dict, ImageRecord, Findings], "dict | None"]
# Derives the pairs from the file's annotations of the record's instances; None if the order is unknown.
Order = Callable[[ImageRecord, Sequence[dict], Findings], "Pairs | None"]


@dataclass(frozen=True)
class AnnotationFormat:
    """How a format differs from COCO's.

    Attributes:
        translate: converts an annotation to COCO's format; None if it already has COCO's keys.
        order: function for the depth order of an image.
        has_area: whether annotations have an ``area`` of the visible mask; otherwise it is computed from the mask.
        has_box: whether annotations have a ``bbox``; otherwise it is computed from the mask, and that is not noted.
        has_stuff: whether the format includes stuff regions, which are read as crowds: many crowds are then not noted.
    """

    translate: Translate | None = None
    order: Order = annotated_order
    has_area: bool = True
    has_box: bool = True
    has_stuff: bool = False


COCO = AnnotationFormat()


class ReadImage(NamedTuple):
    """A record with the positions of its image and annotations in the file.

    Attributes:
        record: the image with its usable annotations.
        position: position of the image in the json's images.
        annotations: position in the json's annotations of each of the record's instances.
    """

    record: ImageRecord
    position: int
    annotations: list[int]


class CocoReader:
    """Reads the content of a COCO json, or of a similar format, image by image in the file's order.

    Iterating (once) yields a `ReadImage` for each usable image. Faults are added to `findings`: the caller rejects the
    file (`Findings.raise_if_faulty`) or skips the entries. The rules are those of `bcnet.data.coco`.

    Attributes:
        info: the data set's description.
        findings: malformed and unusual entries read so far.
        counts: number of "annotations" and "crowds" read so far.
        used_classes: the classes 0..K-1 of these annotations.
    """

    def __init__(
        self,
        content: dict,
        annotation_file: str,
        image_root: str | None,
        *,
        name: str = "",
        format: AnnotationFormat = COCO,
        findings: Findings | None = None,
        masks_required: bool = False,
    ) -> None:
        """
        Args:
            content: dict with lists of images, categories and annotations (the last may be absent).
            annotation_file: its path, for messages.
            image_root: folder that image file names are relative to; None if no image will be opened: images then need
                no file name.
            name: name of the data set; default: the file's path.
            format: how the annotations differ from COCO's.
            findings: findings so far.
            masks_required: an object without a segmentation is a fault.

        Raises:
            ValueError: malformed categories, or annotations that are not a list.
        """
        annotations = content.get("annotations")
        if not isinstance(annotations, (list, LazyList, type(None))):
            raise ValueError(f"{annotation_file}: annotations must be a list, got {short(annotations)}")
        self.findings = Findings(annotation_file) if findings is None else findings
        self.info, self._class_of = read_categories(
            content["categories"], annotation_file, image_root or "", name, self.findings
        )
        self.counts: Counter[str] = Counter()
        self.used_classes: set[int] = set()
        self._images: list = content["images"]
        self._annotations: Sequence = annotations or []
        self._image_root = image_root
        self._format = format
        self._masks_required = masks_required
        self._check = MaskBoxCheck(self.findings)
        self._crowds = Tally()
        self._kinds: set[tuple[bool, bool]] = set()  # (is a crowd, has an RLE) of the annotations

    def __iter__(self) -> Iterator[ReadImage]:
        images = self._read_images()
        groups = self._positions_by_image(images)
        usable = {image_id: (place, record) for image_id, (place, record) in images.items() if record is not None}
        del images
        ids = list(usable)
        for start in range(0, len(ids), _BATCH):
            # Popped, so that records are freed when the caller drops them.
            batch = [(*usable.pop(image_id), groups.pop(image_id)) for image_id in ids[start : start + _BATCH]]
            yield from self._read_batch(batch)
        self._finish()

    def _read_batch(self, batch: list[tuple[int, ImageRecord, list[int]]]) -> Iterator[ReadImage]:
        """Reads images with their positions and those of their annotations: plain annotations in bulk."""
        annotations = [self._annotations[candidate] for _, _, candidates in batch for candidate in candidates]
        plain: list[InstanceRecord | None] = [None] * len(annotations)
        if self._format.translate is None:
            records = [record for _, record, candidates in batch for _ in candidates]
            plain, largest, smallest_side = plain_instances(annotations, records, self._class_of)
            self._check.add_agreeing(sum(instance is not None for instance in plain), largest, smallest_side)
        first = 0
        for position, record, candidates in batch:
            own = slice(first, first + len(candidates))
            yield self._read_image(position, record, candidates, annotations[own], plain[own])
            first = own.stop

    def _read_images(self) -> dict[int | str, tuple[int, ImageRecord | None]]:
        """Position and record by image id; the record is None for an unusable image."""
        images: dict[int | str, tuple[int, ImageRecord | None]] = {}
        for position, entry in enumerate(self._images):
            named = isinstance(entry, dict) and is_id(entry.get("id"))
            label = f"image {short(entry['id'])}" if named else f"image at position {position}"
            if named and isinstance(entry.get("file_name"), str):
                label += f", {short(entry['file_name'])}"
            record = None
            try:
                record = read_image(entry, self.info.annotation_file, self._image_root)
                if record.image_id in images:
                    first = self._images[images[record.image_id][0]].get("file_name")
                    raise AnnotationError(f"its id is used twice, by {short(first)} too", "duplicate image ids")
            except AnnotationError as error:
                self.findings.fault(label, error, of_annotation=False)
                record = None
            if named:
                images[normal_id(entry["id"])] = position, record
        return images

    def _positions_by_image(self, images: dict) -> dict[int | str, list[int]]:
        """Positions of the annotations of each usable image; other annotations are added to the findings."""
        groups: dict[int | str, list[int]] = {image_id: [] for image_id in images}
        seen: set[int | str] = set()
        for position, annotation in enumerate(self._annotations):
            fault = missing(annotation, ("id", "image_id"))
            named = fault is None
            if named and not (is_id(annotation["id"]) and is_id(annotation["image_id"])):
                fault = f"its ids must be integers or strings, its image_id is {short(annotation['image_id'])}"
            elif named and normal_id(annotation["id"]) in seen:
                fault = "its id is used twice"
            if fault is not None:
                label = annotation_label(annotation) if named else f"annotation at position {position}"
                self.findings.fault(label, AnnotationError(fault, "annotations without valid, unique ids"))
                continue
            seen.add(normal_id(annotation["id"]))
            image_id = annotation["image_id"]
            if image_id not in groups and (listed := _id_of_other_type(image_id)) in groups:
                error = f"image_id is {short(image_id)}, the image's id is {listed!r}: strings and numbers differ"
                self.findings.fault(annotation_label(annotation), AnnotationError(error, "image_id of another type"))
            elif image_id not in groups:
                what = "annotations of images that are not listed, dropped"
                self.findings.drop(what, annotation_label(annotation), f"image_id is {short(image_id)}")
            elif images[image_id][1] is None:
                self.findings.drop("annotations of images that cannot be used, dropped", annotation_label(annotation))
            else:
                groups[image_id].append(position)
        return groups

    def _read_image(
        self,
        position: int,
        record: ImageRecord,
        candidates: list[int],
        annotations: list[dict],
        plain: list[InstanceRecord | None],
    ) -> ReadImage:
        kept, kept_annotations = [], []
        for candidate, annotation, instance in zip(candidates, annotations, plain, strict=True):
            try:
                if instance is None:
                    instance = self._read_annotation(annotation, record)
            except ValueError as error:
                self.findings.fault(annotation_label(annotation), error)
                continue
            if instance is not None:
                self._count(instance, annotation)
                record.instances.append(instance)
                kept.append(candidate)
                kept_annotations.append(annotation)
        try:
            pairs = self._format.order(record, kept_annotations, self.findings)
            record.in_front = None if pairs is None else [pair for pair in pairs if _of_objects(pair, record)]
        except ValueError as error:
            self.findings.fault(f"{image_label(record)}, {record.file_name!r}", error, of_annotation=False)
        return ReadImage(record, position, kept)

    def _read_annotation(self, annotation: dict, record: ImageRecord) -> InstanceRecord | None:
        """Reads an annotation by all rules; None if its format drops it."""
        label, translate = annotation_label(annotation), self._format.translate
        if translate is None:
            self._note_visible_mask(label, annotation)
            return self._read_instance(label, annotation, record)
        translated = translate(annotation, record, self.findings)
        return None if translated is None else self._read_instance(label, translated, record)

    def _note_visible_mask(self, label: str, annotation: dict) -> None:
        """Notes a visible mask of an amodal format: COCO's reader takes the amodal mask for the visible one."""
        if key := next((key for key in _VISIBLE_KEYS if key in annotation), None):
            what = (
                f"annotations with a visible mask in {key!r}, which is not read: 'segmentation' counts as the "
                f"visible mask; '{_VISIBLE_KEYS[key]}:annotations.json:images' reads both"
            )
            self.findings.note(what, label)

    def _read_instance(self, label: str, annotation: dict, record: ImageRecord) -> InstanceRecord:
        category_id = annotation.get("category_id")
        if category_id is None:
            raise AnnotationError("it has no category_id", "annotations without a category_id")
        if not is_number_id(category_id) or category_id not in self._class_of:
            what = "category_id not in the file's categories"
            raise AnnotationError(f"category_id {short(category_id)} is not in the file's categories", what)
        read_number("depth", annotation.get("depth"))
        instance = InstanceRecord(
            bbox=[],
            category=self._class_of[normal_id(category_id)],
            iscrowd=self._read_crowd(label, annotation),
            annotation_id=normal_id(annotation["id"]),
            hidden_fraction=read_number("hidden_fraction", annotation.get("hidden_fraction"), 0, 1),
            occluded=read_occluded(annotation.get("attributes")),
            track_id=read_id("track_id", annotation.get("track_id")),
            occlusion=read_level(annotation.get("occlusion")),
            area=self._read_area(label, annotation),
        )
        mask = self._read_visible(label, annotation, record, instance.iscrowd)
        instance.segmentation = None if mask is None else mask.segmentation
        instance.bbox = self._read_bbox(label, annotation, record, mask)
        if not instance.iscrowd:
            self._read_object(label, annotation, record, instance)
            if mask is not None:
                self._check.compare(label, "segmentation", mask, instance.bbox, record)
        return instance

    def _count(self, instance: InstanceRecord, annotation: dict) -> None:
        self._kinds.add((instance.iscrowd, isinstance(instance.segmentation, dict)))
        self.counts["annotations"] += 1
        if instance.iscrowd:
            self.counts["crowds"] += 1
            self._crowds.add(annotation_label(annotation), "", 1)
        self.used_classes.add(instance.category)

    def _read_crowd(self, label: str, annotation: dict) -> bool:
        iscrowd, ignore = (read_flag(key, annotation.get(key)) for key in ("iscrowd", "ignore"))
        if ignore:
            self.findings.note("annotations with 'ignore', kept as crowds", label)
        return iscrowd or ignore

    def _read_area(self, label: str, annotation: dict) -> float | None:
        area = annotation.get("area")
        if is_finite(area) and area >= 0:
            return float(area)
        if self._format.has_area:
            what = "areas missing or not a number, computed from the mask"
            self.findings.note(what, label, f"area is {short(area)}")
        return None

    def _read_visible(self, label: str, annotation: dict, record: ImageRecord, iscrowd: bool) -> Mask | None:
        """The visible mask; for a crowd, None if it is absent or malformed."""
        segmentation = annotation.get("segmentation")
        if iscrowd:
            try:
                mask = read_mask("segmentation", segmentation, record, self.findings, label) if segmentation else None
                reason = "no segmentation"
            except ValueError as error:
                mask, reason = None, str(error)
            if mask is None:
                self.findings.note("crowds without a usable mask, replaced by their boxes", label, reason)
            return mask
        mask = self._read_mask(label, "segmentation", segmentation, record)
        if mask is None and not annotation.get("amodal_segmentation"):
            if self._masks_required:
                raise AnnotationError(f"segmentation is missing or empty: {short(segmentation)}", "no segmentation")
            self.findings.note("objects without a segmentation, used only for boxes", label)
        return mask

    def _read_mask(self, label: str, key: str, segmentation: Any, record: ImageRecord) -> Mask | None:
        if segmentation is None or segmentation in ([], {}, ""):
            return None
        mask = read_mask(key, segmentation, record, self.findings, label)
        if mask is None:
            raise every_polygon_dropped(key, segmentation)
        return mask

    def _read_bbox(self, label: str, annotation: dict, record: ImageRecord, mask: Mask | None) -> list[float]:
        box = annotation.get("bbox")
        if box is None or box == []:
            if mask is None:
                raise AnnotationError("it has neither a bbox nor a mask", "annotations without a bbox")
            if self._format.has_box:
                self.findings.note("missing boxes, computed from the mask", label)
                box = mask_box(mask.segmentation, record)
            else:
                box = extents_box(mask, record)
        return read_box("bbox", box, record, self.findings, label)

    def _read_object(self, label: str, annotation: dict, record: ImageRecord, instance: InstanceRecord) -> None:
        """Reads what crowds lack: the amodal mask and box, and the file's occluder mask."""
        if annotation.get("amodal_bbox") is not None:
            instance.amodal_bbox = read_box("amodal_bbox", annotation["amodal_bbox"], record, self.findings, label)
        amodal = self._read_mask(label, "amodal_segmentation", annotation.get("amodal_segmentation"), record)
        if amodal is not None:
            instance.amodal = amodal.segmentation
            if instance.amodal_bbox is not None:
                self._check.compare(label, "amodal_segmentation", amodal, instance.amodal_bbox, record)
        occluder = annotation.get("bg_object_segmentation")
        if occluder is not None:
            # The published converter writes contours of one or two points, which the published reader drops silently.
            mask = read_mask("bg_object_segmentation", occluder or [], record, self.findings, label)
            instance.occluder = [] if mask is None else mask.segmentation

    def _finish(self) -> None:
        self._check.finish()
        annotations = self.counts["annotations"]
        if self._crowds.count > _MANY_CROWDS * annotations and not self._format.has_stuff:
            what = f"crowds (iscrowd or ignore) among {annotations} annotations, not trained on"
            self.findings.noted[what] = self._crowds
            if self._kinds <= {(True, True), (False, False)}:
                self.findings.hints.append(BRUSH_MASKS_HINT)


def _id_of_other_type(image_id: int | float | str) -> int | str | None:
    """An id converted from string to number or from number to string; None if a string is not a number."""
    if not isinstance(image_id, str):
        return str(int(image_id))
    return int(image_id) if image_id.isdecimal() and len(image_id) < 20 else None


def _of_objects(pair: tuple[int, int], record: ImageRecord) -> bool:
    return not any(record.instances[i].iscrowd for i in pair)
