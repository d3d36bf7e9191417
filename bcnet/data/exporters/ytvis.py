"""Writer of YouTube-VIS' json, with OVIS' levels of occlusion where the records have them.

Letters: T frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bcnet.data.exporters.coco import annotation_area, numbers, plain_segmentation
from bcnet.data.exporters.losses import count_losses
from bcnet.data.exporters.names import image_names
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.files import write_json
from bcnet.ops.rle import rle_to_json, segmentation_to_rle


def write_ytvis(records: Sequence[ImageRecord], info: DatasetInfo, output: str) -> dict[str, int]:
    """Writes a data set as a json of videos; reading it gives the same tracks.

    Ids of videos and tracks are kept if they are whole numbers and unique in the data set; else they are 1, 2, ... An
    image of no video is a video of one frame, and an instance of no track one that is seen once. Masks are compressed
    RLEs.

    Returns:
        What the format cannot hold, counted.

    Raises:
        ValueError: the frames of a video are of different sizes, or a track has two instances in a frame; names them.
    """
    lost: Counter[str] = Counter()
    names = dict(zip(map(id, records), image_names(records, info.image_root), strict=True))
    videos = _videos(records)
    content: dict = {"info": {"description": info.name}, "videos": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": category_id, "name": name} for category_id, name in zip(info.category_ids, info.class_names, strict=True)
    ]
    tracks = [_tracks(frames) for frames in videos]
    keys = [key for of_video in tracks for key in of_video]
    track_ids = iter(numbers([key if isinstance(key, int) else None for key in keys]))
    video_ids = numbers([frames[0].video_id for frames in videos])
    for video_id, frames, of_video in zip(video_ids, videos, tracks, strict=True):
        size = {"height": frames[0].height, "width": frames[0].width, "length": len(frames)}
        files = [names[id(frame)] for frame in frames]
        content["videos"].append({"id": video_id, **size, "file_names": files})
        for frame in frames:
            count_losses(frame, lost)
        for instances in of_video.values():
            entry = _annotation(instances, frames, info, lost)
            content["annotations"].append({"id": next(track_ids), "video_id": video_id, **entry, **size})
    write_json(output, content, indent=None)
    return {what: count for what, count in lost.items() if count}


def _videos(records: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """The frames of each video, in order."""
    videos: dict[object, list[ImageRecord]] = {}
    for position, record in enumerate(records):
        key = ("image", position) if record.video_id is None else record.video_id
        videos.setdefault(key, []).append(record)
    for frames in videos.values():
        frames.sort(key=lambda frame: frame.frame_index or 0)
        first = frames[0]
        for frame in frames:
            if (frame.height, frame.width) != (first.height, first.width):
                raise ValueError(
                    f"the frames of video {first.video_id!r} are of different sizes: {first.file_name} of "
                    f"{first.width} x {first.height} pixels, {frame.file_name} of {frame.width} x {frame.height}"
                )
    return list(videos.values())


def _tracks(frames: Sequence[ImageRecord]) -> dict[object, dict[int, InstanceRecord]]:
    """The instances of each track of a video, by frame; those of no track under keys of their own."""
    tracks: dict[object, dict[int, InstanceRecord]] = {}
    for index, frame in enumerate(frames):
        for position, instance in enumerate(frame.instances):
            key = ("instance", index, position) if instance.track_id is None else instance.track_id
            of_track = tracks.setdefault(key, {})
            if index in of_track:
                raise ValueError(
                    f"track {instance.track_id!r} has two instances in the image {frame.file_name}: "
                    f"{of_track[index].annotation_id!r} and {instance.annotation_id!r}"
                )
            of_track[index] = instance
    return tracks


def _annotation(
    instances: dict[int, InstanceRecord], frames: Sequence[ImageRecord], info: DatasetInfo, lost: Counter[str]
) -> dict:
    """The keys of a track, without its ids and sizes."""
    classes = Counter(instance.category for instance in instances.values())
    label, count = classes.most_common(1)[0]
    lost["instances of another class than most of their track"] += len(instances) - count
    lists: dict[str, list] = {key: [None] * len(frames) for key in ("segmentations", "bboxes", "areas", "occlusion")}
    for index, instance in instances.items():
        frame = frames[index]
        if not instance.segmentation:
            lost["objects without a mask, left out"] += 1
            continue
        segmentation = plain_segmentation(instance.segmentation)
        rle = segmentation_to_rle(segmentation, frame.height, frame.width)
        lists["segmentations"][index] = dict(rle_to_json(rle))
        lists["bboxes"][index] = [float(value) for value in instance.bbox]
        lists["areas"][index] = annotation_area(frame, instance)
        lists["occlusion"][index] = instance.occlusion
    if not any(lists["occlusion"]):
        del lists["occlusion"]
    iscrowd = int(any(instance.iscrowd for instance in instances.values()))
    return {"category_id": info.category_ids[label], "iscrowd": iscrowd, **lists}
