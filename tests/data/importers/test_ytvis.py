"""YouTube-VIS and OVIS: read, written, and through COCO's json and back."""

from __future__ import annotations

import json

import pytest

from bcnet.data import load_dataset
from bcnet.data.conversion import convert_dataset, split_records

SQUARE = [[2, 2, 9, 2, 9, 8, 2, 8]]


def ovis(**changes):
    """Two videos; a cup that is hidden in the second of three frames, and a plate in the other video."""
    return {
        "videos": [
            {"id": 7, "width": 40, "height": 30, "length": 3, "file_names": ["a/0.jpg", "a/1.jpg", "a/2.jpg"]},
            {"id": 3, "width": 20, "height": 10, "length": 1, "file_names": ["b/0.jpg"]},
        ],
        "categories": [{"id": 5, "name": "cup"}, {"id": 9, "name": "plate"}],
        "annotations": [
            {
                "id": 11,
                "video_id": 7,
                "category_id": 5,
                "iscrowd": 0,
                "segmentations": [SQUARE, None, {"size": [30, 40], "counts": [62, 10, 20, 10, 1098]}],
                "bboxes": [[2, 2, 7, 6], None, [2, 2, 2, 10]],
                "areas": [42, None, 20],
                "occlusion": ["slight_occlusion", None, "no_occlusion"],
            },
            {"id": 12, "video_id": 3, "category_id": 9, "segmentations": [SQUARE]},
        ],
    } | changes


@pytest.fixture
def spec(write):
    def spec_of(content):
        folder = write("ovis.json", content)
        (folder / "images").mkdir(exist_ok=True)
        return f"ovis:{folder}/ovis.json:{folder}/images"

    return spec_of


def test_each_frame_is_an_image_and_ids_are_kept(spec, tmp_path):
    records, info = load_dataset(spec(ovis()))
    assert info.class_names == ("cup", "plate") and info.category_ids == (5, 9)
    assert [(r.image_id, r.video_id, r.frame_index, r.height, r.width) for r in records] == [
        (1, 7, 0, 30, 40),
        (2, 7, 1, 30, 40),
        (3, 7, 2, 30, 40),
        (4, 3, 0, 10, 20),
    ]
    assert records[2].file_name == str(tmp_path / "images" / "a/2.jpg")
    first, hidden, last, plate = (record.instances for record in records)
    assert hidden == []
    assert [(i.track_id, i.occlusion, i.area) for i in first + last] == [
        (11, "slight_occlusion", 42.0),
        (11, "no_occlusion", 20.0),
    ]
    assert (plate[0].track_id, plate[0].occlusion, plate[0].category) == (12, None, 1)
    assert list(plate[0].bbox) == [2, 2, 7, 6]  # computed


@pytest.mark.parametrize("between", [False, True])
def test_what_is_written_reads_the_same_also_after_coco(spec, tmp_path, between):
    source = spec(ovis())
    format, paths = "ovis", source.split(":")[1:]
    if between:
        result = convert_dataset("ovis", paths, str(tmp_path / "coco.json"))
        assert not result.lost
        format, paths = "coco", [str(tmp_path / "coco.json"), str(tmp_path / "images")]
    result = convert_dataset(format, paths, str(tmp_path / "again.json"), target_format="ytvis")
    assert (result.outputs, result.lost) == ({"": str(tmp_path / "again.json")}, {})
    content = json.loads((tmp_path / "again.json").read_text())
    assert content["videos"] == ovis()["videos"]
    assert [(a["id"], a["video_id"], a["category_id"], a["length"]) for a in content["annotations"]] == [
        (11, 7, 5, 3),
        (12, 3, 9, 1),
    ]
    assert content["annotations"][0]["occlusion"] == ["slight_occlusion", None, "no_occlusion"]
    assert "occlusion" not in content["annotations"][1]
    first, _ = load_dataset(source)
    again, _ = load_dataset(f"ytvis:{tmp_path}/again.json:{tmp_path}/images")
    for one, other in zip(first, again, strict=True):
        keys = ("file_name", "height", "width", "video_id", "frame_index")
        assert [getattr(one, key) for key in keys] == [getattr(other, key) for key in keys]
        for a, b in zip(one.instances, other.instances, strict=True):
            assert (a.track_id, a.occlusion, list(a.bbox), a.area or 42) == (b.track_id, b.occlusion, b.bbox, b.area)


def test_images_without_videos_and_repeated_ids(write, tmp_path):
    """As of `bcnet predict` on two videos and an image: tracks are counted from 0 in each."""
    box = {"segmentation": SQUARE, "bbox": [2, 2, 7, 6], "area": 42, "category_id": 1}
    images = [
        {"id": 1, "file_name": "a.mp4#0", "height": 10, "width": 20, "video_id": 1, "frame_index": 0},
        {"id": 2, "file_name": "b.mp4#0", "height": 10, "width": 20, "video_id": 2, "frame_index": 0},
        {"id": 3, "file_name": "c.jpg", "height": 30, "width": 40},
    ]
    annotations = [
        {"id": 1, "image_id": 1, "track_id": 0, **box},
        {"id": 2, "image_id": 2, "track_id": 0, **box},
        {"id": 3, "image_id": 3, **box},
        {"id": 4, "image_id": 3, **box, "attributes": {"occluded": True}},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    folder = write("coco.json", content)
    result = convert_dataset("coco", [f"{folder}/coco.json", str(folder)], f"{folder}/v.json", target_format="ytvis")
    assert result.lost == {"flags 'occluded' of objects": 1}
    written = json.loads((folder / "v.json").read_text())
    assert [(v["id"], v["length"]) for v in written["videos"]] == [(1, 1), (2, 1), (3, 1)]
    assert [(a["id"], a["video_id"]) for a in written["annotations"]] == [(1, 1), (2, 2), (3, 3), (4, 3)]
    images[1] |= {"video_id": 1, "frame_index": 1, "height": 12}
    write("coco.json", content)
    with pytest.raises(ValueError, match=r"frames of video 1 are of different sizes: .*a\.mp4#0 of 20 x 10 pixels"):
        convert_dataset("coco", [f"{folder}/coco.json", str(folder)], f"{folder}/w.json", target_format="ytvis")
    annotations[1]["image_id"] = 1
    write("coco.json", content | {"images": images[:1] + images[2:]})
    with pytest.raises(ValueError, match=r"track 0 has two instances in the image .*a\.mp4#0: 1 and 2"):
        convert_dataset("coco", [f"{folder}/coco.json", str(folder)], f"{folder}/w.json", target_format="ytvis")


def test_frames_of_a_video_stay_on_one_side_of_a_split(spec):
    names = [f"{video}/{frame}.jpg" for video in range(6) for frame in range(4)]
    videos = [{"id": v, "width": 4, "height": 4, "file_names": names[4 * v : 4 * v + 4], "length": 4} for v in range(6)]
    records, _ = load_dataset(spec(ovis(videos=videos, annotations=[])))
    sides = split_records(records, 0.5, seed=0)
    train, val = ({record.video_id for record in sides[side]} for side in ("train", "val"))
    assert len(train) == len(val) == 3 and not train & val


def test_a_test_set_has_no_annotations(spec):
    content = ovis()
    del content["annotations"]
    records, _ = load_dataset(spec(content))
    assert len(records) == 4 and not any(record.instances for record in records)


def changed(index, **keys):
    annotations = ovis()["annotations"]
    annotations[index] |= keys
    return ovis(annotations=annotations)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ovis(videos=[]), "the list of videos is empty"),
        (ovis(videos=[{"id": 7, "width": 4, "height": 4}]), "video 7: it has no file_names"),
        (ovis(videos=ovis()["videos"][:1] * 2), "video 7: its id 7 is no integer or string of its own"),
        (ovis(videos=[ovis()["videos"][0] | {"length": 4}]), "its length is 4, but it has 3 file_names"),
        (changed(0, segmentations=[SQUARE]), "annotation 11: segmentations must be a list .* 3 frames, got 1 entries"),
        (changed(0, bboxes=[None] * 4), "bboxes must be a list with an entry for each of the 3 frames, got 4 entries"),
        (changed(0, category_id=6), "annotation '11 frame 0': category_id 6 is not in the file's categories"),
        (changed(0, occlusion=[3, None, None]), "annotation '11 frame 0': occlusion must be a word, got 3"),
        (changed(1, id=11), "annotation '11 frame 0'.*its id is used twice|its id is used twice"),
    ],
)
def test_faults_are_named(spec, content, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(spec(content))


def test_annotations_of_other_videos_are_dropped_and_counted(spec, caplog):
    records, _ = load_dataset(spec(changed(1, video_id=99)))
    assert not records[3].instances
    assert "1 annotations of videos that are not listed, dropped" in caplog.text
