"""Ground truth of a COCO annotation file, made uniform for evaluation."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pycocotools import mask as coco_mask

from bcnet.ops.rle import box_rle, segmentation_to_rle

if TYPE_CHECKING:
    from bcnet.data import DatasetInfo, ImageRecord

logger = logging.getLogger(__name__)

# Object sizes in the evaluators end at 1e10 pixels; an instance beyond every range is ignored.
IGNORED_AREA = 1e11


@dataclass
class GroundTruth:
    """A COCO annotation file, made uniform for evaluation.

    Images and annotations are numbered from 1 in the order of their ids: the evaluators need integer image
    ids, take an annotation id of 0 for "not matched", and lose annotations that share an id.

    Attributes:
        source: the file, for messages.
        images: the json's image entries by the data set's own id.
        annotations: annotations with ``image_id`` replaced by the image's number, ``id`` by their own,
            ``segmentation`` as compressed RLE, and ``iscrowd``, ``bbox`` and ``area`` filled in where the json
            lacks them. Empty for a test set.
        category_ids: the data set's category id of each class 0..K-1.
        class_names: the K names.
        in_front: known orders of depth: pairs of annotation numbers (i, j), j in front of i, by the image's
            number. See `order_of`.
        image_ids: the data set's image ids; the image of number n is entry n - 1.
        image_numbers: the numbers by the data set's ids.
        mask_target: what ``segmentation``, ``bbox`` and ``area`` are of: "visible", or "amodal" (`amodal`).
    """

    source: str
    images: dict[int | str, dict]
    annotations: list[dict]
    category_ids: list[int]
    class_names: list[str]
    in_front: dict[int, list[tuple[int, int]]] = field(default_factory=dict, repr=False)
    mask_target: str = "visible"
    image_ids: list[int | str] = field(init=False, repr=False)
    image_numbers: dict[int | str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.image_ids = sorted(self.images, key=lambda value: (isinstance(value, str), value))
        self.image_numbers = {image_id: number for number, image_id in enumerate(self.image_ids, start=1)}

    @classmethod
    def from_file(
        cls,
        annotation_file: str | os.PathLike,
        category_ids: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> GroundTruth:
        """Reads a COCO annotation file; one without annotations (test-dev) has images and categories alone.

        Args:
            category_ids, class_names: the classes 0..K-1; by default the json's categories by rising id, as
                detectron2 orders them.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is not a COCO json, or an annotation has a malformed segmentation or none where
                others have one. Names the file and the annotation.
        """
        with open(annotation_file, encoding="utf-8") as file:
            try:
                content = json.load(file)
            except json.JSONDecodeError as error:
                raise ValueError(f"{annotation_file} is not JSON: {error}") from error
        return cls.from_dict(content, str(annotation_file), category_ids, class_names)

    @classmethod
    def from_dict(
        cls,
        content: dict,
        source: str = "annotations",
        category_ids: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> GroundTruth:
        """As `from_file`, of the parsed json. Its dicts are copied, not changed."""
        if not isinstance(content, dict) or "images" not in content or "categories" not in content:
            keys = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{source} is not a COCO annotation file: it needs images and categories, got {keys}")
        categories = sorted(content["categories"], key=lambda category: category["id"])
        if category_ids is None:
            category_ids = [category["id"] for category in categories]
            class_names = [category["name"] for category in categories]
        truth = cls(
            source,
            {image["id"]: image for image in content["images"]},
            [],
            list(category_ids),
            [str(name) for name in class_names or category_ids],
        )
        known = set(truth.category_ids)
        annotations = content.get("annotations") or []
        kept = [a for a in annotations if a["category_id"] in known and a["image_id"] in truth.images]
        if len(kept) < len(annotations):
            logger.warning(
                "%s: %d of %d annotations are of images or categories that are not listed; they are left out",
                source,
                len(annotations) - len(kept),
                len(annotations),
            )
        kept.sort(key=lambda annotation: annotation["id"])
        truth.annotations = [truth._uniform(annotation, number) for number, annotation in enumerate(kept, start=1)]
        truth._check_masks(kept)
        return truth

    @classmethod
    def from_records(cls, records: Sequence[ImageRecord], info: DatasetInfo) -> GroundTruth:
        """Of a data set as `bcnet.data.load_dataset` gives it, for files that are not in COCO's format.

        The order of depth is the records'.

        The area that decides between small, medium and large is that of the mask; COCO's own files say it
        themselves, with small differences, so for them `from_file` gives the official figures.

        Raises:
            ValueError: as `from_file`.
        """
        content: dict = {"images": [], "annotations": []}
        content["categories"] = [
            {"id": category_id, "name": name}
            for category_id, name in zip(info.category_ids, info.class_names, strict=True)
        ]
        in_front = {}
        for record in records:
            image = {"id": record.image_id, "height": record.height, "width": record.width}
            content["images"].append({**image, "file_name": os.path.basename(record.file_name)})
            if record.in_front is not None:
                first = len(content["annotations"]) + 1
                in_front[record.image_id] = [(first + i, first + j) for i, j in record.in_front]
            for instance in record.instances:
                annotation = {
                    "id": len(content["annotations"]) + 1,
                    "image_id": record.image_id,
                    "category_id": info.category_ids[instance.category],
                    "bbox": list(instance.bbox),
                    "iscrowd": int(instance.iscrowd),
                    "segmentation": instance.segmentation,
                    "amodal_segmentation": instance.amodal,
                    "amodal_bbox": instance.amodal_bbox,
                }
                content["annotations"].append({key: value for key, value in annotation.items() if value is not None})
        truth = cls.from_dict(content, info.annotation_file, info.category_ids, info.class_names)
        # The ids above count from 1 in this order, so they are the annotations' numbers too.
        truth.in_front = {truth.image_numbers[image_id]: pairs for image_id, pairs in in_front.items()}
        return truth

    def amodal(self) -> GroundTruth:
        """The same with whole objects, hidden part included: ``amodal_segmentation``, its box and its area.

        A crowd stays as it is. The visible masks are kept, as ``visible_segmentation``.

        Raises:
            ValueError: an annotation has no amodal segmentation.
        """
        if not self.all_have("amodal_segmentation"):
            raise ValueError(
                f"{self.source}: not every annotation has an amodal_segmentation; the mask target 'amodal' asks for it"
            )
        changed = []
        for annotation in self.annotations:
            if not annotation["iscrowd"]:
                rle = self.rle(annotation["amodal_segmentation"], self.image_id(annotation))
                annotation = {
                    **annotation,
                    "segmentation": rle,
                    "visible_segmentation": annotation["segmentation"],
                    "bbox": annotation.get("amodal_bbox") or coco_mask.toBbox(rle).tolist(),
                    "area": float(coco_mask.area(rle)),
                }
            changed.append(annotation)
        return replace(self, annotations=changed, mask_target="amodal")

    def _uniform(self, annotation: dict, number: int) -> dict:
        image_id = annotation["image_id"]
        uniform = {
            **annotation,
            "id": number,
            "image_id": self.image_numbers[image_id],
            "iscrowd": int(annotation.get("iscrowd", 0)),
        }
        uniform.pop("ignore", None)  # pycocotools overwrites it with iscrowd; here it never gets that far
        rle = None
        try:
            if annotation.get("segmentation"):
                rle = uniform["segmentation"] = self.rle(_usable(annotation["segmentation"]), image_id)
            elif annotation.get("amodal_segmentation"):
                # Hidden altogether: nobody is asked to find it, unless its amodal mask is what is looked for.
                rle = uniform["segmentation"] = box_rle(0, 0, 0, 0, self.image_size(image_id))
                uniform["area"] = IGNORED_AREA
        except ValueError as error:
            raise ValueError(f"annotation {annotation['id']}: {error}") from error
        if "bbox" not in annotation:
            if rle is None:
                raise ValueError(f"{self.source}: annotation {annotation['id']} has neither bbox nor segmentation")
            uniform["bbox"] = coco_mask.toBbox(rle).tolist()
        if "area" not in uniform:
            uniform["area"] = uniform["bbox"][2] * uniform["bbox"][3] if rle is None else float(coco_mask.area(rle))
        return uniform

    def _check_masks(self, annotations: Sequence[dict]) -> None:
        pairs = zip(annotations, self.annotations, strict=True)
        without = [annotation for annotation, uniform in pairs if not uniform.get("segmentation")]
        if 0 < len(without) < len(annotations):
            raise ValueError(
                f"{self.source}: annotation {without[0]['id']} of image {without[0]['image_id']!r} has no "
                f"segmentation, but {len(annotations) - len(without)} of {len(annotations)} annotations have one"
            )

    def instances(self) -> list[dict]:
        """The annotations that a detector is asked to find: no crowds, and nothing that is wholly hidden."""
        return [a for a in self.annotations if not a["iscrowd"] and a["area"] < IGNORED_AREA]

    @functools.cached_property
    def by_image(self) -> dict[int, list[dict]]:
        """The annotations by their image's number; images without any are absent."""
        groups = defaultdict(list)
        for annotation in self.annotations:
            groups[annotation["image_id"]].append(annotation)
        return dict(groups)

    @property
    def has_order(self) -> bool:
        """True if the order of depth is known for some image."""
        return bool(self.in_front) or any("depth" in annotation for annotation in self.annotations)

    def order_of(self, number: int) -> list[tuple[int, int]] | None:
        """Pairs of annotation numbers (i, j), j in front of i, of an image; None where its order is not known.

        It is `in_front`, or follows from ``depth`` (smaller is nearer), which then every instance must have.
        """
        if number in self.in_front:
            return self.in_front[number]
        depths = [(a["id"], a.get("depth")) for a in self.by_image.get(number, ()) if not a["iscrowd"]]
        if not depths or any(depth is None for _, depth in depths):
            return None
        return [(i, j) for i, below in depths for j, above in depths if above < below]

    def all_have(self, key: str) -> bool:
        """True if every annotation, crowds aside, has a value for a key, and there is one."""
        annotations = [annotation for annotation in self.annotations if not annotation["iscrowd"]]
        return bool(annotations) and all(annotation.get(key) not in (None, [], "") for annotation in annotations)

    def rle(self, segmentation: list | dict, image_id: int | str) -> dict:
        """A segmentation of the json as compressed RLE at the size of its image.

        Raises:
            ValueError: the segmentation is malformed; names the file and the image.
        """
        try:
            return segmentation_to_rle(segmentation, *self.image_size(image_id))
        except ValueError as error:
            raise ValueError(f"{self.source}: image {image_id!r}: {error}") from error

    def image_id(self, annotation: dict) -> int | str:
        """The data set's id of the image of an annotation."""
        return self.image_ids[annotation["image_id"] - 1]

    def image_size(self, image_id: int | str) -> tuple[int, int]:
        """(height, width) as the json says."""
        image = self.images[image_id]
        if "height" not in image or "width" not in image:
            raise ValueError(f"{self.source}: image {image_id!r} has no height and width")
        return image["height"], image["width"]


def visible_mask(annotation: dict) -> dict:
    """The visible mask of an annotation of a `GroundTruth`, whichever mask it asks for."""
    return annotation.get("visible_segmentation") or annotation["segmentation"]


def _usable(segmentation: list | dict) -> list | dict:
    """Without polygons of fewer than 3 points or an odd count of numbers, if others are left (as the reader does)."""
    if not isinstance(segmentation, list):
        return segmentation
    kept = [polygon for polygon in segmentation if not isinstance(polygon, list) or _is_polygon(polygon)]
    return kept or segmentation


def _is_polygon(polygon: list) -> bool:
    return len(polygon) >= 6 and len(polygon) % 2 == 0
