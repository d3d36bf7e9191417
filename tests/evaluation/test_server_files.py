"""Files for COCO's server: names, content, and the checks that they must pass."""

import json
import zipfile

import pytest
import torch
from pycocotools import mask as coco_mask

from bcnet.evaluation import CocoEvaluator, GroundTruth, check_submission, write_submissions
from bcnet.structures import Detections

SIZE = (40, 30)  # height, width
NAME = "detections_test-dev2017_bcnet_results"


def test_set(tmp_path):
    """Image info as COCO publishes it: images and categories, no annotations."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (3, 5)],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    }
    path = tmp_path / "image_info_test-dev2017.json"
    path.write_text(json.dumps(content))
    return path


test_set.__test__ = False


def result(image_id=3, score=0.5, **changes):
    rle = coco_mask.frPyObjects([[2, 2, 20, 2, 20, 20, 2, 20]], *SIZE)[0]
    segmentation = {"size": list(SIZE), "counts": rle["counts"].decode()}
    box = [2.0, 2.0, 18.0, 18.0]
    return {
        "image_id": image_id,
        "category_id": 90,
        "bbox": box,
        "score": score,
        "segmentation": segmentation,
        **changes,
    }


def detections(count):
    return Detections(
        SIZE,
        torch.tensor([[2.0, 2, 20, 20]]).repeat(count, 1),
        torch.linspace(0.9, 0.1, count),
        torch.ones(count, dtype=torch.int64),
        {"occludee_mask": torch.ones(count, 28, 28)},
    )


def test_the_evaluator_writes_what_the_server_takes(tmp_path, caplog):
    caplog.set_level("INFO")
    evaluator = CocoEvaluator(test_set(tmp_path), tmp_path / "out")
    evaluator.update(3, detections(120))
    evaluator.update(5, detections(2))
    assert evaluator.compute() == {}
    folder = tmp_path / "out" / "submission"
    for task, key in (("bbox", "bbox"), ("segm", "segmentation")):
        assert sorted(p.name for p in (folder / task).iterdir()) == [f"{NAME}.json", f"{NAME}.zip"]
        with zipfile.ZipFile(folder / task / f"{NAME}.zip") as archive:
            assert archive.namelist() == [f"{NAME}.json"]
            written = json.loads(archive.read(f"{NAME}.json"))
        assert written == json.loads((folder / task / f"{NAME}.json").read_text())
        assert all(entry.keys() == {"image_id", "category_id", "score", key} for entry in written)
        scores = [entry["score"] for entry in written if entry["image_id"] == 3]
        assert len(scores) == 100
        assert min(scores) > 0.2  # the 20 lowest of 120 are left out
        assert len(written) == 102
        assert str(folder / task / f"{NAME}.zip") in caplog.text
    assert caplog.text.count("passed the server's checks") == 2


def test_no_files_for_the_server_while_images_are_missing(tmp_path, caplog):
    evaluator = CocoEvaluator(test_set(tmp_path), tmp_path / "out")
    evaluator.update(3, detections(1))
    evaluator.compute()
    assert not (tmp_path / "out/submission").exists()
    assert "of 1 images there are no results" in caplog.text


def test_boxes_alone(tmp_path):
    boxes = [{k: v for k, v in result().items() if k != "segmentation"}]
    written = write_submissions(GroundTruth.from_file(test_set(tmp_path)), boxes, tmp_path / "out", "my-method")
    assert list(written) == ["bbox"]
    assert written["bbox"].endswith("detections_test-dev2017_my-method_results.zip")


def test_no_results_at_all(tmp_path):
    truth = GroundTruth.from_file(test_set(tmp_path))
    written = write_submissions(truth, [], tmp_path / "out")
    assert check_submission(written["bbox"], truth, "bbox") == 0


def test_a_name_that_the_server_does_not_take(tmp_path):
    truth = GroundTruth.from_file(test_set(tmp_path))
    with pytest.raises(ValueError, match="algorithm's name is 'my_method'"):
        write_submissions(truth, [result()], tmp_path / "out", "my_method")


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("bbox", {"image_id": 4}, "line 3: image_id 4 is not listed"),
        ("bbox", {"category_id": 0}, r"line 3: category_id 0 is not one of \[1, 90\]"),
        ("bbox", {"score": float("nan")}, "line 3: score must be a finite number, got nan"),
        ("bbox", {"bbox": [1, 2, 3]}, r"line 3: bbox must be four finite numbers .*\[1, 2, 3\]"),
        ("bbox", {"bbox": [1, 2, 3, float("inf")]}, "line 3: bbox must be four finite numbers .*inf"),
        ("segm", {"segmentation": {"size": [30, 40], "counts": "1"}}, r"line 3: .*\[30, 40\].*\[40, 30\]"),
        (
            "segm",
            {"segmentation": {"size": [40, 30], "counts": "xyz"}},
            "line 3: these are not the counts|line 3: the RLE's runs",
        ),
        ("segm", {"segmentation": {"size": [40, 30], "counts": ""}}, "line 3: the RLE's runs must sum to"),
    ],
)
def test_what_the_server_would_refuse_is_named_and_leaves_no_zip(tmp_path, task, change, message):
    truth = GroundTruth.from_file(test_set(tmp_path))
    with pytest.raises(ValueError, match=message):
        write_submissions(truth, [result(), result() | change], tmp_path / "out")
    assert not (tmp_path / "out" / task / f"{NAME}.zip").exists()


def zipped(tmp_path, text, member=f"{NAME}.json"):
    path = tmp_path / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, text)
    return path


def test_checks_of_files_made_elsewhere(tmp_path):
    truth = GroundTruth.from_file(test_set(tmp_path))
    entry = json.dumps(result())
    assert check_submission(zipped(tmp_path, f"[\n{entry}\n]\n"), truth, "segm") == 1
    with pytest.raises(ValueError, match=r"must hold detections_.*json and nothing else, it holds \['folder/"):
        check_submission(zipped(tmp_path, "[]", f"folder/{NAME}.json"), truth, "segm")
    with pytest.raises(ValueError, match="is cut off"):
        check_submission(zipped(tmp_path, f"[\n{entry},\n"), truth, "segm")
    with pytest.raises(ValueError, match="line 2 is not one result"):
        check_submission(zipped(tmp_path, '[\n{"image_id": 3\n]'), truth, "segm")
    with pytest.raises(ValueError, match="line 2: it has no score"):
        check_submission(zipped(tmp_path, '[\n{"image_id": 3, "category_id": 1}\n]'), truth, "segm")
    crowded = ",\n".join([entry] * 101)
    with pytest.raises(ValueError, match=r"1 images have more than 100 results.*image 3 has 101"):
        check_submission(zipped(tmp_path, f"[\n{crowded}\n]"), truth, "segm")
