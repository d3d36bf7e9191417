"""Reader of YouTube-VIS and OVIS: one json of videos, with a mask for each object and frame.

========================================  ==============================================================================
what                                      what is read
========================================  ==============================================================================
``videos``                                each frame is an image, of the video's id and its own place in it
``annotations``                           an instance in each frame that has a segmentation; its ``track_id`` is the id
                                          of the annotation
``bboxes``, ``areas``                     those of the file; absent ones are computed from the mask
``occlusion`` (OVIS)                      the level of each frame, as it is: ``no_occlusion``, ``slight_occlusion``,
                                          ``severe_occlusion``
no list of annotations, as of the parts   images without objects
for evaluation servers
a list of another length than the video,  error
a video without an id, a size or frames
annotation of a video that is not listed  dropped, counted
========================================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import check_coco_json, is_id, is_number_id, missing, normal_id, short
from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.importers.content import DERIVED_BOXES
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

_BY_FRAME = {"segmentations": "segmentation", "bboxes": "bbox", "areas": "area", "occlusion": "occlusion"}


def load_ytvis(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads YouTube-VIS and OVIS.

    Args:
        annotation_file: path of the json.
        image_root: folder that the names of the frames start at (``JPEGImages``).
        name: name of the data set; default: the file's path.

    Returns:
        The frames as images, video after video in the file's order, with the ids 1, 2, ...; `ImageRecord.video_id`,
        `ImageRecord.frame_index` and `InstanceRecord.track_id` are set.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the ids and values of the first faults.
    """
    content = read_json(annotation_file)
    check_coco_json(content, annotation_file, ("videos", "categories"))
    annotations = content.get("annotations")
    if not isinstance(annotations, (list, type(None))):
        raise ValueError(f"{annotation_file}: annotations must be a list, got {short(annotations)}")
    findings = Findings(annotation_file)
    frames: dict[int | str, list[dict]] = {}  # images by video
    images: list[dict] = []
    for position, video in enumerate(content["videos"]):
        has_id = isinstance(video, dict) and is_id(video.get("id"))
        label = f"video {short(video['id'])}" if has_id else f"video at position {position}"
        try:
            _check_video(video, frames)
        except AnnotationError as error:
            findings.fault(label, error, of_annotation=False)
            continue
        size = {"height": video["height"], "width": video["width"]}
        video_id = normal_id(video["id"])
        frames[video_id] = [
            {"id": len(images) + index + 1, "file_name": file, **size, "video_id": video_id, "frame_index": index}
            for index, file in enumerate(video["file_names"])
        ]
        images += frames[video_id]
    findings.raise_if_faulty()
    by_frame = [
        entry
        for position, annotation in enumerate(annotations or [])
        for entry in _entries(annotation, position, frames, findings)
    ]
    coco = {"images": images, "categories": content["categories"], "annotations": by_frame}
    return read_annotations(coco, annotation_file, image_root, name, format=DERIVED_BOXES, findings=findings)


def _check_video(video: Any, known: dict) -> None:
    fault = missing(video, ("id", "height", "width", "file_names"))
    if fault is not None:
        raise AnnotationError(fault, "videos without an id, a size or file names")
    names = video["file_names"]
    if not is_id(video["id"]) or normal_id(video["id"]) in known:
        raise AnnotationError(f"its id {short(video['id'])} is no integer or string of its own", "malformed video ids")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AnnotationError(f"file_names must be a list of names, got {short(names)}", "malformed file names")
    if video.get("length") not in (None, len(names)):
        raise AnnotationError(
            f"its length is {short(video['length'])}, but it has {len(names)} file_names", "videos of another length"
        )


def _entries(annotation: Any, position: int, frames: dict, findings: Findings) -> Iterator[dict]:
    """The COCO annotation of each frame in which the object is to be seen."""
    label = f"annotation at position {position}"
    try:
        fault = missing(annotation, ("id", "video_id", "category_id", "segmentations"))
        if fault is not None:
            raise AnnotationError(fault, "annotations without ids or segmentations")
        label = f"annotation {short(annotation['id'])}"
        if not is_number_id(annotation["id"]) or not is_id(annotation["video_id"]):
            raise AnnotationError("its ids must be integers, of the video also a string", "malformed ids")
        images = frames.get(normal_id(annotation["video_id"]))
        if images is None:
            what = "annotations of videos that are not listed, dropped"
            findings.drop(what, label, f"video_id is {short(annotation['video_id'])}")
            return
        lists = {one: annotation[key] for key, one in _BY_FRAME.items() if annotation.get(key) is not None}
        for key, one in _BY_FRAME.items():
            values = lists.get(one, images)
            if not isinstance(values, list) or len(values) != len(images):
                count = f"{len(values)} entries" if isinstance(values, list) else short(values)
                raise AnnotationError(
                    f"{key} must be a list with an entry for each of the {len(images)} frames, got {count}",
                    f"{key} of another length than the video",
                )
    except AnnotationError as error:
        findings.fault(label, error)
        return
    track = normal_id(annotation["id"])
    shared = {"category_id": annotation["category_id"], "iscrowd": annotation.get("iscrowd"), "track_id": track}
    for index, image in enumerate(images):
        entry = {key: values[index] for key, values in lists.items() if values[index] is not None}
        if entry.get("segmentation"):
            yield {"id": f"{track} frame {index}", "image_id": image["id"], **shared, **entry}
