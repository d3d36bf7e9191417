"""Records of images, instances and data sets: the common output of all annotation readers.

Letters: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bcnet.ops.rle import RLE


@dataclass(slots=True)
class InstanceRecord:
    """One annotated object.

    A segmentation is a COCO json value: a list of polygons (flat x, y lists in pixels), or an RLE dict,
    compressed or not.

    Attributes:
        bbox: [x, y, width, height] in absolute pixels, as in the json.
        category: 0..K-1.
        iscrowd: a region of many objects, or one to be ignored: neither trained on nor an occluder, and neither a
            false negative nor a false positive in evaluation.
        segmentation: the visible mask; None where the file has none (a crowd then covers its box).
        occluder: the file's own occluder mask (`bg_object_segmentation`). None: it is to be derived.
            An empty list: the file says that there is none.
        amodal: the whole object's mask, hidden parts included, in data sets that have it.
        amodal_bbox: box of the amodal mask, like `bbox`; None takes `bbox`.
        annotation_id: the file's id.
        area: the file's own area in pixels, which decides between small, medium and large in evaluation; None
            takes that of the mask.
        hidden_fraction: the file's own hidden share of the object, 0..1.
        uncovered: the mask that was visible before objects were pasted over it (`bcnet.data.composition`), an RLE; None
            takes `segmentation`.
    """

    bbox: Sequence[float]
    category: int
    iscrowd: bool = False
    segmentation: list | dict | None = None
    occluder: list | dict | None = None
    amodal: list | dict | None = None
    amodal_bbox: Sequence[float] | None = None
    annotation_id: int | str | None = None
    area: float | None = None
    hidden_fraction: float | None = None
    uncovered: RLE | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image with its objects.

    Attributes:
        file_name: path of the image file.
        image_id: the file's id.
        height, width: pixels, after the EXIF orientation has been applied.
        instances: the objects, in the file's order.
        in_front: pairs (i, j) of positions in `instances`, crowds aside: j lies in front of i. None: the depth order
            is not known. Both (i, j) and (j, i): each occludes a part of the other.
        annotation_file: where the record comes from, for messages.
        pasted: so many instances at the end of the list were pasted into the image (`bcnet.data.composition`): each is
            whole and lies in front of all instances before it.
        unordered: positions of objects whose order with every other one is not known, though ``in_front`` is given.
    """

    file_name: str
    image_id: int | str
    height: int
    width: int
    instances: list[InstanceRecord] = field(default_factory=list)
    in_front: list[tuple[int, int]] | None = None
    annotation_file: str = ""
    pasted: int = 0
    unordered: tuple[int, ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of a data set: name, classes and files.

    Attributes:
        name: the name or spec it was loaded by.
        class_names: names of the classes 0..K-1.
        category_ids: the file's category id of each class 0..K-1.
        annotation_file: path of the annotation file.
        image_root: folder of the images.
        annotated_occlusions: `ImageRecord.in_front` has the annotated occlusions themselves; otherwise a depth order,
            in which only objects that overlap occlude each other.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    annotation_file: str
    image_root: str
    annotated_occlusions: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
