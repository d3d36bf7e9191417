"""GroundTruth: annotations of a data set in the uniform form that the metrics take."""

from __future__ import annotations

import functools
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pycocotools import mask as coco_mask

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import check_coco_json
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.evaluation.ground_truth_annotations import IGNORED_AREA, numbered_annotations
from bcnet.files import read_json
from bcnet.ops.rle import RLE, segmentation_to_rle
from bcnet.words import OBJECT

logger = logging.getLogger(__name__)


@dataclass
class GroundTruth:
    """Ground truth of a data set in the form of the COCO evaluators.

    Images are numbered from 1 in the order of their ids, annotations in the order of the records: the evaluators need
    integer image ids, and take an annotation id of 0 for "not matched".

    Attributes:
        source: the file, for messages.
        images: COCO's image entries by the data set's own id.
        annotations: COCO's annotations, with the number of the image as ``image_id``, their own as ``id`` and the
            data set's id as ``annotation_id``; ``segmentation`` and ``amodal_segmentation`` are compressed RLEs;
            ``unordered`` is True for an object of unknown order. Empty for a test set.
        category_ids: the data set's category id of each class 0..K-1.
        class_names: the K names.
        in_front: known depth orders: pairs of annotation numbers (i, j), j in front of i, by the image's number.
        image_ids: the data set's image ids; the image of number n is entry n - 1.
        image_numbers: the numbers by the data set's ids.
        mask_target: what ``segmentation``, ``bbox`` and ``area`` are of: "visible", or "amodal" (`amodal`).
        annotated_occlusions: as of `DatasetInfo`.
        class_agnostic: True if every object is of one class, whatever its category was (`without_classes`).
    """

    source: str
    images: dict[int | str, dict]
    annotations: list[dict]
    category_ids: list[int]
    class_names: list[str]
    in_front: dict[int, list[tuple[int, int]]] = field(default_factory=dict, repr=False)
    mask_target: str = "visible"
    annotated_occlusions: bool = False
    class_agnostic: bool = False
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
                detectron2 orders them. Annotations of other categories are left out, with a warning.

        Raises:
            FileNotFoundError: no such file.
            ValueError: malformed content, as of `bcnet.data.coco.load_coco`; but images need no file name.
        """
        return cls.from_dict(read_json(annotation_file), str(annotation_file), category_ids, class_names)

    @classmethod
    def from_dict(
        cls,
        content: dict,
        source: str = "annotations",
        category_ids: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> GroundTruth:
        """As `from_file`, of the parsed json, which is not changed."""
        check_coco_json(content, source)
        truth = cls.from_records(*read_annotations(content, source, None))
        return truth if category_ids is None else truth._with_classes(category_ids, class_names)

    @classmethod
    def from_records(cls, records: Sequence[ImageRecord], info: DatasetInfo) -> GroundTruth:
        """Of a data set as `bcnet.data.load_dataset` gives it, of any format.

        Raises:
            ValueError: a malformed segmentation (which no reader gives); names the file and the annotation.
        """
        images = {
            record.image_id: {
                "id": record.image_id,
                "file_name": os.path.basename(record.file_name),
                "height": record.height,
                "width": record.width,
            }
            for record in records
        }
        truth = cls(info.annotation_file, images, [], list(info.category_ids), list(info.class_names))
        truth.annotated_occlusions = info.annotated_occlusions
        truth.annotations, truth.in_front = numbered_annotations(records, info, truth.image_numbers)
        objects = [annotation for annotation in truth.annotations if not annotation["iscrowd"]]
        without = [annotation for annotation in objects if "segmentation" not in annotation]
        if 0 < len(without) < len(objects):
            logger.warning(
                "%s: %d of %d objects have no segmentation (the first is annotation %r): boxes alone are compared",
                truth.source,
                len(without),
                len(objects),
                without[0]["annotation_id"],
            )
        return truth

    def _with_classes(self, category_ids: Sequence[int], class_names: Sequence[str] | None) -> GroundTruth:
        """The same with other classes 0..K-1."""
        known = set(category_ids)
        kept = [annotation for annotation in self.annotations if annotation["category_id"] in known]
        if len(kept) < len(self.annotations):
            logger.warning(
                "%s: %d of %d annotations are of other categories than the requested ones; they are left out",
                self.source,
                len(self.annotations) - len(kept),
                len(self.annotations),
            )
        numbers = {annotation["id"] for annotation in kept}
        in_front = {
            image: [pair for pair in pairs if numbers.issuperset(pair)] for image, pairs in self.in_front.items()
        }
        names = [str(name) for name in class_names or category_ids]
        return replace(self, annotations=kept, category_ids=list(category_ids), class_names=names, in_front=in_front)

    def amodal(self) -> GroundTruth:
        """The same with whole objects, hidden part included: ``amodal_segmentation``, its box and its area.

        A crowd stays as it is. The visible masks are kept, as ``visible_segmentation``.

        Raises:
            ValueError: an annotation has no amodal segmentation.
        """
        if not self.all_have("amodal_segmentation"):
            raise ValueError(
                f"{self.source}: not every annotation has an amodal_segmentation; the mask target 'amodal' requires it"
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

    def without_classes(self) -> GroundTruth:
        """The same with one class, "object", to compare results without categories with."""
        annotations = [{**annotation, "category_id": 1} for annotation in self.annotations]
        return replace(self, annotations=annotations, category_ids=[1], class_names=[OBJECT], class_agnostic=True)

    def instances(self) -> list[dict]:
        """The annotations that count in evaluation: without crowds and completely occluded objects."""
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
        """True if the depth order is known for some image."""
        return bool(self.in_front)

    def order_of(self, number: int) -> list[tuple[int, int]] | None:
        """Pairs of annotation numbers (i, j), j in front of i, of an image; None where its order is not known."""
        return self.in_front.get(number)

    def all_have(self, key: str) -> bool:
        """True if every annotation, crowds aside, has a value for a key, and there is one."""
        annotations = [annotation for annotation in self.annotations if not annotation["iscrowd"]]
        return bool(annotations) and all(annotation.get(key) not in (None, [], "") for annotation in annotations)

    def rle(self, segmentation: list | dict, image_id: int | str) -> RLE:
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
        return image["height"], image["width"]


def visible_mask(annotation: dict) -> RLE:
    """The visible mask of an annotation of a `GroundTruth`, whatever its ``mask_target``."""
    return annotation.get("visible_segmentation") or annotation["segmentation"]
