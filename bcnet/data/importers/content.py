"""COCO content built from an annotation tool's files, so that every format is read by the rules of the COCO reader.

A reader of a tool's format translates: it names images, classes and masks. What is a fault, what is odd and what is
repaired is decided in one place (`bcnet.data.coco`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import annotation_label, read_image, short
from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.images import image_size
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import DatasetInfo, ImageRecord

DERIVED_BOXES = AnnotationFormat(has_area=False, has_box=False)


class ContentBuilder:
    """Collects the images, annotations and classes of a data set as COCO content.

    Images get the ids 1, 2, ... in the order in which they are added; annotations are known by a text that says where
    in the files they are, such as "a.json shape 3". Classes are those of the files, or else the names that occur, in
    alphabetical order.

    Attributes:
        findings: what is wrong or odd in the files.
        image_root: folder that file names of images start at.
    """

    def __init__(self, source: str, image_root: str, classes: Sequence[str] | Mapping[int, str] | None = None) -> None:
        """
        Args:
            source: file or folder that is read, for messages.
            image_root: folder that file names of images start at.
            classes: the names of all classes in order, whose ids are then 1..K, or names by id; None takes those that
                occur.
        """
        self.source = source
        self.image_root = image_root
        self.findings = Findings(source)
        self._classes = classes
        self._images: list[dict] = []
        self._annotations: list[dict] = []

    def add_image(self, file_name: str, height: Any = None, width: Any = None) -> ImageRecord:
        """Adds an image; returns its record, without instances.

        Args:
            file_name: path, absolute or from the image root.
            height, width: in pixels as the files say; None takes them from the image's header.

        Raises:
            UnreadableImageError: the size is not given, and the image file is missing or unreadable.
            AnnotationError: a malformed size.
        """
        if height is None or width is None:
            height, width = image_size(os.path.join(self.image_root, file_name))
        image = {"id": len(self._images) + 1, "file_name": file_name, "height": height, "width": width}
        record = read_image(image, self.source, self.image_root)
        self._images.append(image)
        return record

    def add(self, label: str, image: ImageRecord, category: object, segmentation: Any = None, **more: Any) -> None:
        """Adds an annotation.

        Args:
            label: where it is, unique in the data set.
            image: as `add_image` gave it.
            category: name of its class, or its id; an unknown one is a fault.
            segmentation: COCO's, in absolute pixels; None where there is a box alone.
            more: further keys of the COCO reader: ``bbox``, ``depth``, ``ignore``, ``attributes``, ...

        Raises:
            AnnotationError: the name of the class is empty.
        """
        if isinstance(category, str) and not category.strip():
            raise AnnotationError("the name of its class is empty", "empty class names")
        annotation = {"id": label, "image_id": image.image_id, "category": category, "segmentation": segmentation}
        self._annotations.append(annotation | {key: value for key, value in more.items() if value is not None})

    def fault(self, label: str, error: ValueError) -> None:
        """Adds an annotation that cannot be used."""
        self.findings.fault(annotation_label({"id": label}), error)

    def file_fault(self, label: str, error: ValueError) -> None:
        """Adds a file, or an image with all its annotations, that cannot be used."""
        self.findings.fault(label, error, of_annotation=False)

    def read(self, name: str, *, format: AnnotationFormat = DERIVED_BOXES) -> tuple[list[ImageRecord], DatasetInfo]:
        """The records, by the rules of the COCO reader.

        Args:
            name: of the data set; the source by default.
            format: how the annotations differ from COCO's.

        Raises:
            ValueError: malformed content, or nothing at all; names the source, and the first faults.
        """
        if not self._images:
            self.findings.raise_if_faulty()
            raise ValueError(f"{self.source} has no images{self._left_out()}")
        names = self._class_names()
        if not names:
            self.findings.raise_if_faulty()
            raise ValueError(f"{self.source} has no annotations, and nothing names classes{self._left_out()}")
        ids = {class_name: class_id for class_id, class_name in names.items()}
        content = {
            "images": self._images,
            "categories": [{"id": class_id, "name": class_name} for class_id, class_name in names.items()],
            "annotations": list(self._annotations_by_id(ids)),
        }
        return read_annotations(content, self.source, self.image_root, name, format=format, findings=self.findings)

    def _left_out(self) -> str:
        """What was dropped, counted, as the end of a message."""
        counts = ", ".join(f"{tally.count} {what}" for what, tally in self.findings.dropped.items())
        return f" ({counts})" if counts else ""

    def _class_names(self) -> dict[int, str]:
        """Names by id."""
        if isinstance(self._classes, Mapping):
            return dict(self._classes)
        names = self._classes
        if names is None:
            occurring = (annotation["category"] for annotation in self._annotations)
            names = sorted({category for category in occurring if isinstance(category, str)})
        return dict(enumerate(names, start=1))

    def _annotations_by_id(self, ids: dict[str, int]) -> Iterator[dict]:
        for annotation in self._annotations:
            category = annotation.pop("category")
            if isinstance(category, int):
                yield annotation | {"category_id": category}
                continue
            if isinstance(category, str) and category in ids:
                yield annotation | {"category_id": ids[category]}
                continue
            near = difflib.get_close_matches(str(category), ids, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else f"; they are {short(list(ids))}"
            message = f"its class {short(category)} is not one of the {len(ids)} classes{hint}"
            self.fault(annotation["id"], AnnotationError(message, "unknown classes"))


def relative_name(path: str, root: str) -> str:
    """A path from the root, with slashes: how messages and json files name it."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def files_below(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files of these suffixes (lower case) in a folder and its subfolders, by name; hidden ones left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(parent, name) for name in names if name.lower().endswith(suffixes) and name[0] != "."]
    return sorted(found)
