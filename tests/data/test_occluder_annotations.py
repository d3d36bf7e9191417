from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bcnet.data import occluder_annotations
from bcnet.data.occluder_annotations import convert_annotations
from bcnet.occlusion import occluder_rles
from bcnet.ops.rle import segmentation_to_rle
from bcnet.side_file import SideFile

HEIGHT, WIDTH = 60, 80
KEY = "bg_object_segmentation"


def box_annotation(annotation_id, image_id, x, y, w, h, **more):
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "segmentation": [polygon],
        "area": w * h,
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": [x, y, w, h],
        "category_id": 1,
        "id": annotation_id,
    } | more


def scene(images=70, seed=0):
    """A COCO json with annotations not sorted by image, and keys and values that must be preserved."""
    source = random.Random(seed)
    annotations = [
        box_annotation(
            number + 1,
            source.randrange(images) * 3,
            source.uniform(0, 60),
            source.uniform(0, 40),
            source.uniform(1, 40),
            source.uniform(1, 30),
            iscrowd=int(source.random() < 0.05),
        )
        for number in range(6 * images)
    ]
    return {
        "info": {"description": "déjà vu", "big": 12345678901234567890, "float": 0.1},
        "annotations": annotations,
        "licenses": None,
        "images": [{"id": 3 * n, "height": HEIGHT, "width": WIDTH, "file_name": f"{n}.jpg"} for n in range(images)],
        "categories": [{"id": 1, "name": "thing"}],
        "extra": [1, {"a": None}],
    }


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "in.json", scene())


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def read(path):
    return json.loads(Path(path).read_text())


def expected_occluders(content):
    """Occluder masks by annotation id, directly from the rule."""
    expected = {}
    for image in content["images"]:
        annotations = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        size = (image["height"], image["width"])
        rles = [segmentation_to_rle(a["segmentation"], *size) for a in annotations]
        found = occluder_rles([a["bbox"] for a in annotations], rles, [a["iscrowd"] for a in annotations], size)
        expected |= {a["id"]: rle for a, rle in zip(annotations, found, strict=True)}
    return expected


@pytest.mark.parametrize("format", ["rle", "polygon"])
def test_every_annotation_gets_the_rules_mask_and_all_else_is_unchanged(source, tmp_path, format):
    output = str(tmp_path / "out.json")
    statistics = convert_annotations(source, output, format=format)
    before, after = read(source), read(output)
    expected = expected_occluders(before)
    assert list(after) == list(before)
    assert any(expected.values())
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert list(new) == [*old, KEY]
        occluder = new.pop(KEY)
        assert new == old
        if expected[old["id"]] is None:
            assert occluder == []
        else:
            assert isinstance(occluder, dict if format == "rle" else list)
            assert segmentation_to_rle(occluder, HEIGHT, WIDTH) == expected[old["id"]]
    for key in ("info", "licenses", "images", "categories", "extra"):
        assert after[key] == before[key]
    assert statistics.images == 70
    assert statistics.annotations == 420
    assert statistics.crowds == sum(a["iscrowd"] for a in before["annotations"])
    assert statistics.instances == 420 - statistics.crowds
    assert statistics.occluded == sum(rle is not None for rle in expected.values())
    assert sorted(os.listdir(tmp_path)) == ["in.json", "out.json"]


def test_the_same_bytes_with_any_number_of_workers(source, tmp_path):
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    first = convert_annotations(source, str(alone), workers=1)
    second = convert_annotations(source, str(together), workers=2)
    assert alone.read_bytes() == together.read_bytes()
    assert first == second


def test_a_converted_file_converts_to_itself(source, tmp_path):
    once, twice = tmp_path / "once.json", tmp_path / "twice.json"
    convert_annotations(source, str(once))
    convert_annotations(str(once), str(twice))
    assert once.read_bytes() == twice.read_bytes()


def interrupt_after(monkeypatch, images):
    """Ctrl-C in the middle of the work."""
    process = occluder_annotations._process_image
    calls = []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) > images:
            raise KeyboardInterrupt
        return process(*args, **options)

    monkeypatch.setattr(occluder_annotations, "_process_image", interrupted)


@pytest.mark.parametrize("cut", [0, 1, 100], ids=["whole lines", "a byte short", "within a line"])
def test_an_interrupted_run_resumes_and_writes_the_same_bytes(source, tmp_path, monkeypatch, cut):
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    expected = convert_annotations(source, str(whole))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            convert_annotations(source, str(resumed))
    side = tmp_path / "resumed.json.partial"
    assert not resumed.exists()
    done = side.read_bytes()
    assert done.count(b"\n") == 1 + occluder_annotations.IMAGES_PER_TASK
    side.write_bytes(done[: len(done) - cut])
    with monkeypatch.context() as patch:
        interrupt_after(patch, 40)  # enough for the remaining images, not for all
        assert convert_annotations(source, str(resumed)) == expected
    assert resumed.read_bytes() == whole.read_bytes()
    assert not side.exists()


def test_partial_results_of_another_input_or_options_are_rejected_or_discarded(source, tmp_path, monkeypatch):
    output = str(tmp_path / "out.json")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            convert_annotations(source, output)
    other = write(tmp_path / "other.json", scene(seed=1))
    for arguments in ((other, "rle"), (source, "polygon")):
        with pytest.raises(ValueError, match=r"out\.json\.partial holds partial results of another input"):
            convert_annotations(arguments[0], output, format=arguments[1])
    convert_annotations(other, output, overwrite=True)
    clean = tmp_path / "clean.json"
    convert_annotations(other, str(clean))
    assert Path(output).read_bytes() == clean.read_bytes()


def test_a_killed_run_resumes(tmp_path):
    source = write(tmp_path / "in.json", scene(images=800))
    output, whole = tmp_path / "out.json", tmp_path / "whole.json"
    side = tmp_path / "out.json.partial"
    code = f"""
import sys
from bcnet.data.occluder_annotations import convert_annotations
if __name__ == "__main__":
    convert_annotations({source!r}, {str(output)!r}, workers=2)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    while process.poll() is None and not (side.exists() and side.stat().st_size > 1_000):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not output.exists()
    convert_annotations(source, str(output))
    convert_annotations(source, str(whole))
    assert output.read_bytes() == whole.read_bytes()


def test_nothing_is_overwritten_by_default(source, tmp_path):
    before = Path(source).read_bytes()
    link = tmp_path / "link.json"
    link.symlink_to(source)
    for output in (source, str(link)):
        with pytest.raises(ValueError, match="would overwrite the input"):
            convert_annotations(source, output, overwrite=True)
    output = tmp_path / "out.json"
    output.write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.json exists"):
        convert_annotations(source, str(output))
    assert output.read_text() == "precious"
    convert_annotations(source, str(output), overwrite=True)
    assert read(output)["images"]
    assert Path(source).read_bytes() == before


def test_two_runs_into_one_output_are_rejected(source, tmp_path):
    output = str(tmp_path / "out.json")
    side = SideFile(output + ".partial", {})
    with pytest.raises(BlockingIOError, match="in use by another conversion"):
        convert_annotations(source, output)
    side.close()


FULL = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"segmentation": None}, "no segmentation", "annotation 2: segmentation is missing or empty: None"),
        ({"segmentation": []}, "no segmentation", r"missing or empty: \[\]"),
        ({"segmentation": [[1, 2, 3, 4]]}, "every polygon has fewer than 3 points", r"\[\[1, 2, 3, 4\]\]"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "every polygon has an odd number of coordinates", r"\[1, 2, 3, 4, 5\]"),
        ({"segmentation": [[5] * 5 + ["a"]]}, "segmentation: polygon not a flat list", "'a'"),
        ({"segmentation": [["a"] * 6]}, "segmentation neither polygons nor RLE", "'a'"),
        ({"segmentation": [[60, 45, 79, 45, 79, 59]]}, "segmentation outside its box", r"x 60\.\.79 and y 45\.\.59"),
        ({"iscrowd": "yes"}, "iscrowd neither 0 nor 1", "'yes'"),
        ({"category_id": 7}, "category_id not in the file's categories", "category_id 7"),
        ({"segmentation": FULL | {"size": [WIDTH, HEIGHT]}}, "RLE of another size", r"\[80, 60\]"),
        ({"segmentation": FULL | {"counts": [5]}}, "RLE whose runs do not fill", r"\[5\]"),
        ({"segmentation": FULL | {"counts": "o"}}, "RLE with unreadable counts", "'o'"),
        ({"bbox": None, "segmentation": None}, "no segmentation", "None"),
        ({"bbox": [1, 2, 3]}, "bbox not four", r"\[1, 2, 3\]"),
        ({"bbox": [1, 2, float("nan"), 3]}, "bbox not four", "nan"),
        ({"bbox": [1, 2, 10**400, 3]}, "bbox not four", "1, 2, 1000"),
        ({"bbox": [1, 2, -3, 3]}, "negative size", "-3"),
        ({"bbox": [80, 2, 3, 3]}, "outside the image", r"\[80, 2, 3, 3\] lies outside its image 0 of 80 x 60"),
        ({"image_id": 9}, "annotations of images that are not listed", "image_id is 9"),
        ({"image_id": [1]}, "annotations without valid, unique ids", r"image_id is \[1\]"),
        ({"id": 1}, "annotations without valid, unique ids", "its id is used twice"),
        ({"image_id": 1}, "annotations of images that cannot be used", "annotation 2"),
    ],
)
def test_malformed_annotations_are_skipped_and_counted(tmp_path, change, reason, message):
    neighbours = [box_annotation(number, 0, 5 * number, 5, 30, 30) for number in (1, 3)]
    broken = box_annotation(2, 0, 10, 5, 30, 30) | change
    images = [{"id": 0, "height": HEIGHT, "width": WIDTH}, {"id": 1, "height": 0, "width": WIDTH}]
    content = {"images": images, "annotations": [neighbours[0], broken, neighbours[1]]}
    source = write(tmp_path / "in.json", content | {"categories": [{"id": 1, "name": "thing"}]})
    without = write(tmp_path / "without.json", {"images": images, "annotations": neighbours})
    statistics = convert_annotations(source, str(tmp_path / "out.json"))
    convert_annotations(without, str(tmp_path / "without_out.json"))
    first, middle, last = read(tmp_path / "out.json")["annotations"]
    assert middle.pop(KEY) == []
    assert repr(middle) == repr(broken)
    assert [first, last] == read(tmp_path / "without_out.json")["annotations"]
    assert (statistics.annotations, statistics.instances, statistics.skipped.total()) == (3, 2, 1)
    (found,) = statistics.skipped
    assert reason in found
    assert pytest.approx(1) == statistics.skipped[found]
    assert re.search(message, statistics.examples[found])
    assert statistics.noted["images without a valid height and width"] == 1
    assert found in statistics.format()


def test_unusual_but_usable_annotations_are_noted(tmp_path):
    annotations = [
        box_annotation(1, 0, 5, 5, 30, 30),
        box_annotation(2, 0, 10, 10, 30, 0),
        box_annotation(3, 0, 12, 10, 30, 30, segmentation=[[20, 20, 20, 20, 20, 20]]),
        box_annotation(4, 0, 14, 10, 30, 30, segmentation=[[20, 20, 40, 20, 40, 40], [1, 1, 2, 2]]),
        box_annotation(5, 0, 14, 10, 30, 30, ignore=1),
    ]
    annotations[1]["segmentation"] = [[10, 10, 40, 10, 40, 10]]
    images = [{"id": 0, "height": float(HEIGHT), "width": WIDTH}]
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    statistics = convert_annotations(source, str(tmp_path / "out.json"))
    assert (statistics.instances, statistics.crowds, statistics.skipped.total()) == (4, 1, 0)
    assert dict(statistics.noted) == {
        "boxes of zero width or height, not trained on": 1,
        "masks (segmentation) that cover no pixel centre, not trained on": 2,
        "polygons of segmentation with fewer than 3 points, dropped": 1,
        "annotations with 'ignore', kept as crowds": 1,
        "crowds (iscrowd or ignore) among 5 annotations, not trained on": 1,
        "masks that disagree with their boxes (IoU of the mask's extents and the box below 0.5)": 1,
    }
    occluders = [annotation[KEY] for annotation in read(tmp_path / "out.json")["annotations"]]
    triangle = segmentation_to_rle([[20, 20, 40, 20, 40, 40]], HEIGHT, WIDTH)
    assert segmentation_to_rle(occluders[0], HEIGHT, WIDTH) == coco_mask.merge(
        [triangle, segmentation_to_rle(annotations[0]["segmentation"], HEIGHT, WIDTH)], intersect=True
    )
    assert occluders[1] == occluders[4] == []
    assert occluders[2] != [] and occluders[3] != []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"in\.json is not valid JSON"),
        ("[]", "no list of images"),
        ('{"images": [], "annotations": []}', "the list of images is empty"),
        ('{"images": [{"id": 1}]}', "no list of annotations"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, text, message):
    source = tmp_path / "in.json"
    source.write_text(text)
    with pytest.raises(ValueError, match=message):
        convert_annotations(str(source), str(tmp_path / "out.json"))
    assert os.listdir(tmp_path) == ["in.json"]


def test_images_that_cannot_be_used_are_counted(tmp_path):
    sized = {"height": HEIGHT, "width": WIDTH, "file_name": "a.jpg"}
    images = [{"id": 1, **sized}, {"id": 1, **sized}, 5, sized, {"id": 2, **sized}]
    annotations = [box_annotation(1, 1, 0, 0, 9, 9), box_annotation(2, 2, 0, 0, 9, 9), 7]
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    statistics = convert_annotations(source, str(tmp_path / "out.json"))
    assert (statistics.images, statistics.annotations, statistics.instances) == (5, 3, 1)
    assert statistics.skipped == {
        "annotations of images that cannot be used, dropped": 1,
        "annotations without valid, unique ids": 1,
    }
    assert statistics.noted == {"duplicate image ids": 1, "images without an id, a size or a file name": 2}
    assert "image 1, 'a.jpg': its id is used twice, by 'a.jpg' too" in statistics.format()
    assert [a if a == 7 else a[KEY] for a in read(tmp_path / "out.json")["annotations"]] == [[], [], 7]


def test_unknown_formats(source, tmp_path):
    with pytest.raises(ValueError, match="rle, polygon, got 'png'"):
        convert_annotations(source, str(tmp_path / "png.json"), format="png")


def test_the_shares_of_two_squares(tmp_path):
    annotations = [box_annotation(1, 0, 0, 0, 20, 20), box_annotation(2, 0, 10, 0, 20, 20)]
    content = {"images": [{"id": 0, "height": HEIGHT, "width": WIDTH}], "annotations": annotations}
    statistics = convert_annotations(write(tmp_path / "in.json", content), str(tmp_path / "out.json"))
    assert statistics.occluded == 2
    assert statistics.covered_share == 2 * 0.5
    assert np.isclose(statistics.occluder_share, 2 * 200 / 600)


def test_a_known_depth_counts_only_what_is_nearer(tmp_path):
    annotations = [box_annotation(1, 0, 0, 0, 20, 20, depth=0), box_annotation(2, 0, 10, 0, 20, 20, depth=3.5)]
    images = [{"id": 0, "height": HEIGHT, "width": WIDTH}]
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    convert_annotations(source, str(tmp_path / "out.json"))
    near, far = (annotation[KEY] for annotation in read(tmp_path / "out.json")["annotations"])
    assert near == []
    assert coco_mask.area(segmentation_to_rle(far, HEIGHT, WIDTH)) == 200

    del annotations[0]["depth"]
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    statistics = convert_annotations(source, str(tmp_path / "unknown.json"))
    assert all(annotation[KEY] for annotation in read(tmp_path / "unknown.json")["annotations"])
    assert list(statistics.noted.values()) == [1]

    annotations[0]["depth"] = "near"
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    statistics = convert_annotations(source, str(tmp_path / "bad.json"))
    assert dict(statistics.skipped) == {"depth not a finite number": 1}


def test_a_fully_hidden_object_has_an_occluder_and_occludes_nothing(tmp_path):
    annotations = [box_annotation(1, 0, 0, 0, 20, 20), box_annotation(2, 0, 10, 0, 20, 20)]
    annotations[1]["amodal_segmentation"] = annotations[1].pop("segmentation")
    images = [{"id": 0, "height": HEIGHT, "width": WIDTH}]
    source = write(tmp_path / "in.json", {"images": images, "annotations": annotations})
    convert_annotations(source, str(tmp_path / "out.json"))
    seen, hidden = (annotation[KEY] for annotation in read(tmp_path / "out.json")["annotations"])
    assert seen == []
    assert coco_mask.area(segmentation_to_rle(hidden, HEIGHT, WIDTH)) == 200
