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
        iscrowd: a region of many objects, or one to ignore: neither trained on nor an occluder, and neither a
            false negative nor a false positive in evaluation.
        segmentation: the visible mask; None if the file has none (a crowd then covers its box).
        occluder: the file's occluder mask (`bg_object_segmentation`). None: to be derived by the occluder rule.
            An empty list: the file states that there is no occluder.
        amodal: mask of the whole object including hidden parts, in data sets that have it.
        amodal_bbox: box of the amodal mask, xywh like `bbox`; None: same as `bbox`.
        annotation_id: the id in the file.
        area: the file's area in pixels, which selects small, medium or large in evaluation; None: area of the mask.
        hidden_fraction: the hidden fraction of the object as annotated in the file, 0..1.
        occluded: the annotator's flag that part of the object is hidden; None if the file has none.
        track_id: the object's id in its video; None outside of videos.
        occlusion: OVIS' level of occlusion, "no_occlusion", "slight_occlusion" or "severe_occlusion"; None without one.
        uncovered: the visible mask before objects were pasted over it (`bcnet.data.composition`), an RLE; None: same as
            `segmentation`.
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
    occluded: bool | None = None
    track_id: int | str | None = None
    occlusion: str | None = None
    uncovered: RLE | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image with its objects.

    Attributes:
        file_name: path of the image file.
        image_id: the id in the annotation file.
        height, width: pixels, after the EXIF orientation has been applied.
        instances: the objects, in the file's order.
        in_front: pairs (i, j) of positions in `instances`, crowds excluded: j lies in front of i. None: the depth order
            is unknown. Both (i, j) and (j, i): each occludes a part of the other.
        annotation_file: path of the file the record was read from, for messages.
        pasted: of each instance at the end of the list that was pasted into the image (`bcnet.data.composition`): True
            if it lies in front of all instances before it, False if it lies behind them. Its amodal mask is known.
        unordered: positions of objects whose order relative to all others is unknown, although ``in_front`` is given.
        video_id: the id of the video that the image is a frame of; None outside of videos.
        frame_index: its place in the video, from 0.
        unordered_pairs: pairs (i, j), i < j, of objects whose order relative to each other is unknown, although
            ``in_front`` is given.
    """

    file_name: str
    image_id: int | str
    height: int
    width: int
    instances: list[InstanceRecord] = field(default_factory=list)
    in_front: list[tuple[int, int]] | None = None
    annotation_file: str = ""
    pasted: tuple[bool, ...] = ()
    unordered: tuple[int, ...] = ()
    unordered_pairs: tuple[tuple[int, int], ...] = ()
    video_id: int | str | None = None
    frame_index: int | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of a data set: name, classes and files.

    Attributes:
        name: the name or spec it was loaded by.
        class_names: names of the classes 0..K-1.
        category_ids: category id in the file of each class 0..K-1.
        annotation_file: path of the annotation file.
        image_root: folder of the images.
        annotated_occlusions: whether `ImageRecord.in_front` lists annotated occlusions; otherwise it is a depth order,
            in which only overlapping objects occlude each other.
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
