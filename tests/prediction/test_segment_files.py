"""`bcnet segment`: COCO results files of any detector in, the same entries with masks out."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from small_models import finding_detector, small_config, write_small_data_set

from bcnet.checkpoint import write_checkpoint
from bcnet.cli import main as bcnet_command
from bcnet.evaluation import evaluate_files
from bcnet.modeling import build_model
from bcnet.prediction.files import predict_files
from bcnet.prediction.predictor import Predictor
from bcnet.prediction.segment_files import segment_file

NAMES = ("cup", "plate", "fork")


@pytest.fixture
def data(tmp_path):
    """A data set, and the boxes of its annotations as results."""
    write_small_data_set(tmp_path, images=3)
    content = json.loads((tmp_path / "annotations.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    results = [{key: a[key] for key in keys} | {"score": 0.25 * (a["id"] % 4)} for a in content["annotations"]]
    write(tmp_path / "boxes.json", results)
    return tmp_path


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def model():
    cfg, detector = finding_detector()
    return Predictor.from_config(cfg, detector, NAMES).eval()


def run(model, data, boxes="boxes.json", **options):
    options = {"annotations": data / "annotations.json", "progress": False, **options}
    return segment_file(model, data / boxes, data / "images", data / "out.json", **options)


def test_every_entry_keeps_what_it_has_and_gets_masks(model, data):
    summary = run(model, data)
    assert (summary.images, summary.instances, dict(summary.failures)) == (3, 6, {})
    boxes, out = read(data / "boxes.json"), read(data / "out.json")
    for entry, result in zip(boxes, out, strict=True):
        assert entry.items() <= result.items()
        assert {"segmentation", "occluder_segmentation", "number", "occluded_by", "depth"} <= result.keys()
        assert result["segmentation"]["size"] == [48, 64]
    assert not (data / "out.json.partial").exists()
    metrics = evaluate_files(str(data / "annotations.json"), str(data / "out.json"))
    assert metrics["bbox"]["AP"] == pytest.approx(100) and "segm" in metrics
    run(model, data, with_occluder=False)
    assert all("segmentation" in entry and "depth" not in entry for entry in read(data / "out.json"))


@pytest.mark.parametrize("empty", [{}, {"score": None, "category_id": None}])
def test_boxes_without_scores_or_categories_can_be_evaluated(model, data, empty):
    """Their scores are 1.0, as of `Predictor.segment`; categories are compared only if they are there."""
    boxes = read(data / "boxes.json")
    write(data / "no_score.json", [{key: a[key] for key in ("image_id", "category_id", "bbox")} for a in boxes])
    run(model, data, "no_score.json")
    by_class = evaluate_files(str(data / "annotations.json"), str(data / "out.json"), metrics=["bbox", "segm"])
    assert {entry["score"] for entry in read(data / "out.json")} == {1.0}
    write(data / "plain.json", [{"image_id": a["image_id"], "bbox": a["bbox"], **empty} for a in boxes])
    run(model, data, "plain.json")
    out = read(data / "out.json")
    assert all(entry["score"] == 1.0 and "category_id" not in entry for entry in out)
    files = (str(data / "annotations.json"), str(data / "out.json"))
    with pytest.raises(
        ValueError, match=r"result 0: it has no category_id \(class_agnostic, --class-agnostic compares"
    ):
        evaluate_files(*files)
    metrics = evaluate_files(*files, metrics=["bbox", "segm"], class_agnostic=True)
    assert metrics["bbox"]["AP"] == by_class["bbox"]["AP"] == pytest.approx(100) and "segm" in metrics
    content = read(data / "annotations.json") | {"annotations": out}
    write(data / "with_lists.json", content)  # an object with annotations, and categories that no result has
    again = evaluate_files(files[0], data / "with_lists.json", metrics=["bbox", "segm"], class_agnostic=True)
    assert again == metrics


def test_some_boxes_without_a_score_are_pointed_out(model, data, caplog):
    boxes = read(data / "boxes.json")
    boxes[2].pop("score")
    write(data / "boxes.json", boxes)
    caplog.set_level(logging.INFO, logger="bcnet")
    run(model, data)
    assert read(data / "out.json")[2]["score"] == 1.0
    assert "1 boxes without a score among boxes with one, taken as 1.0 (result 2)" in caplog.text


def test_no_box_is_no_failure(data, capsys):
    weights = str(data / "model.pth")
    cfg = small_config("BoxPrompted")
    write_checkpoint({"model": build_model(cfg).state_dict(), "config": cfg.dump(), "class_names": []}, weights)
    write(data / "boxes.json", [])
    arguments = ["--boxes", data / "boxes.json", "--images", data / "images", "--output", data / "o.json"]
    bcnet_command(["segment", "--weights", weights, *map(str, arguments)])
    assert read(data / "o.json") == [] and capsys.readouterr().out.startswith("no instance in no image")


def test_a_file_of_bcnet_predict_gets_its_own_masks_again(model, data):
    files = [str(data / "images" / f"{index}.png") for index in range(3)]
    predict_files(model, files, data / "found.json", with_occluder=True, score_threshold=0.0, progress=False)
    found = read(data / "found.json")
    run(model, data, "found.json", annotations=None)
    out = read(data / "out.json")
    assert out.keys() == found.keys() and out["images"] == found["images"]
    assert len(out["annotations"]) == len(found["annotations"]) > 0
    for entry, expected in zip(out["annotations"], found["annotations"], strict=True):
        assert (entry["id"], entry["category_id"], entry["depth"]) == (
            expected["id"],
            expected["category_id"],
            expected["depth"],
        )
        # The boxes went through xywh.
        assert abs(entry["area"] - expected["area"]) <= 0.01 * expected["area"] + 2


def test_images_are_found_by_the_number_in_their_name(model, data):
    for index, name in ((0, "000000000001.png"), (1, "COCO_val2014_000000000002.png"), (2, "3.png")):
        (data / "images" / f"{index}.png").rename(data / "images" / name)
    assert run(model, data, annotations=None).images == 3
    (data / "images" / "copy").mkdir()
    (data / "images" / "copy" / "3.png").write_bytes((data / "images" / "3.png").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images with boxes have no file .*by file name.* image 3$"):
        run(model, data, annotations=None)
    names = {1: "000000000001.png", 2: "COCO_val2014_000000000002", 3: "000000000001"}
    renamed = [{**entry, "image_id": names[entry["image_id"]]} for entry in read(data / "boxes.json")]
    write(data / "named.json", renamed)
    assert run(model, data, "named.json", annotations=None).images == 3


def test_what_is_left_out_is_said(model, data, caplog):
    caplog.set_level(logging.INFO, logger="bcnet")
    boxes = read(data / "boxes.json")
    boxes[0]["bbox"] = [5, 5, 0, 10]
    boxes[3]["bbox"] = [500, 5, 10, 10]
    write(data / "boxes.json", boxes)
    assert run(model, data, score_threshold=0.3).instances == 3
    assert "1 boxes of zero width or height, left out (result 0)" not in caplog.text  # its score is too low
    assert "3 of 6 boxes have a score below 0.3, left out" in caplog.text
    assert run(model, data).instances == 4
    assert "1 boxes of zero width or height, left out (result 0" in caplog.text
    assert "1.png: 1 box outside its 64 x 48 pixels, left out: [500, 5, 10, 10]" in caplog.text


def test_an_unreadable_image_fails_alone(model, data):
    (data / "images" / "1.png").write_bytes(b"no image")
    summary = run(model, data)
    assert (summary.images, summary.instances) == (2, 4) and list(summary.failures) == [str(data / "images" / "1.png")]


def test_an_interrupted_run_is_continued(model, data, monkeypatch):
    calls = []
    original = Predictor.segment

    def segment(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **keywords)

    run(model, data)
    expected = (data / "out.json").read_text()
    (data / "out.json").unlink()
    monkeypatch.setattr(Predictor, "segment", segment)
    with pytest.raises(KeyboardInterrupt):
        run(model, data)
    assert (data / "out.json.partial").exists() and not (data / "out.json").exists()
    assert run(model, data, resume=True).images == 3 and len(calls) == 4
    assert (data / "out.json").read_text() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"result 1: bbox must be four finite numbers \[x, y, width, height\], got \[1, 2, 3\]"),
        ({"bbox": None}, "result 1: it has no bbox"),
        ({"image_id": 77}, "1 of 4 images with boxes have no file in .*annotations.json, the first is image 77"),
        ({"category_id": 5}, r"category ids \[5\] are not among \[7, 8, 9\]"),
        ({"score": "high"}, "result 1: score must be a finite number, got 'high'"),
    ],
)
def test_faults_of_the_file_come_before_anything_is_computed(model, data, change, message):
    boxes = read(data / "boxes.json")
    boxes[1] |= change
    write(data / "boxes.json", boxes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(model, data)
    assert not (data / "out.json.partial").exists()


def test_masks_by_class_take_the_classes_of_that_name(data):
    cfg, detector = finding_detector(MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=False)
    results = []
    for names, order in ((NAMES, [0, 1, 2]), (("fork", "cup", "plate"), [2, 0, 1])):
        model = Predictor.from_config(cfg, detector, names).eval()
        run(model, data)
        results.append(read(data / "out.json"))
        if order[0]:  # the decoders in the other order, too
            for decoder in (detector.mask_branch.head.occludee_mask, detector.mask_branch.head.occluder_mask):
                decoder.predictor.weight.data = decoder.predictor.weight.data[order]
            run(model, data)
            results.append(read(data / "out.json"))
    assert results[0] != results[1] and results[0] == results[2]
    with pytest.raises(ValueError, match="by class: categories with names are needed"):
        run(Predictor.from_config(cfg, detector), data)


def test_the_command(data, capsys):
    cfg = small_config("BoxPrompted")
    torch.manual_seed(0)
    weights = str(data / "model.pth")
    write_checkpoint(
        {"model": build_model(cfg).state_dict(), "config": cfg.dump(), "class_names": list(NAMES)}, weights
    )
    arguments = [
        "--boxes",
        data / "boxes.json",
        "--images",
        data / "images",
        "--annotations",
        data / "annotations.json",
    ]
    arguments += ["--output", data / "o.json", "--pictures", data / "pictures", "--masks-only"]
    bcnet_command(["segment", "--weights", weights, *map(str, arguments)])
    shown = capsys.readouterr()
    assert shown.out == f"6 instances in 3 images, in {data / 'o.json'} and {data / 'pictures'}/\n"
    assert len(read(data / "o.json")) == 6 and len(list((data / "pictures").glob("*_detections.jpg"))) == 3
    with pytest.raises(SystemExit):
        bcnet_command(
            ["predict", "--weights", weights, "--input", str(data / "images"), "--output", str(data / "p.json")]
        )
    assert "error: this model has no detector" in capsys.readouterr().err and not (data / "p.json").exists()
