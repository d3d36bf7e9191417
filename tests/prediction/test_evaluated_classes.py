"""A model is evaluated on test sets with other category ids: its classes are matched by name."""

import json
import math

import numpy as np
import pytest
import torch
from small_models import small_config, write_small_data_set

from bcnet import files
from bcnet.prediction import evaluate
from bcnet.prediction.datasets import folder_name, read_evaluation_sets
from bcnet.structures import Detections

IMAGES = 4
CLASSES = ("cup", "plate", "fork")


class PerfectDetector(torch.nn.Module):
    """Detects the objects of `write_small_data_set`, whose images come in their order, as classes 0..2 of `CLASSES`."""

    device = torch.device("cpu")
    mask_branch = None

    def __init__(self, num_classes=3, fails_at=None):
        super().__init__()
        self.num_classes = num_classes
        self.fails_at = fails_at
        self.calls = 0

    def inference(self, images, *, with_occluder=False, output_sizes=None):
        assert len(images) == 1
        if self.calls == self.fails_at:
            raise RuntimeError("out of memory")
        index = self.calls % IMAGES
        self.calls += 1
        corners = torch.tensor([[4.0, 4.0], [14.0 + index, 12.0]])
        boxes = torch.cat([corners, corners + torch.tensor([28.0, 24.0])], dim=1)
        classes = torch.tensor([index % 3, (index + 1) % 3])
        return [Detections((48, 64), boxes, torch.tensor([0.9, 0.8]), classes)]


@pytest.fixture
def data_set(tmp_path):
    return write_small_data_set(tmp_path / "data", images=IMAGES)


def variant(tmp_path, data_set, name, names_by_id):
    """The data set under other category ids: objects keep their names; those of absent classes are left out."""
    content = json.loads((tmp_path / "data" / "annotations.json").read_text())
    old_names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name.strip().lower(): category_id for category_id, name in names_by_id.items()}
    content["categories"] = [{"id": category_id, "name": name} for category_id, name in names_by_id.items()]
    content["annotations"] = [
        {**annotation, "category_id": ids[old_names[annotation["category_id"]]]}
        for annotation in content["annotations"]
        if old_names[annotation["category_id"]] in ids
    ]
    (tmp_path / "data" / f"{name}.json").write_text(json.dumps(content))
    return data_set.replace("annotations.json", f"{name}.json")


def config(tmp_path, *test_sets, num_classes=3):
    return small_config(OUTPUT_DIR=str(tmp_path), DATASETS__TEST=test_sets, MODEL__ROI_HEADS__NUM_CLASSES=num_classes)


@pytest.mark.parametrize(
    "names_by_id",
    [
        {7: "cup", 8: "plate", 9: "fork"},
        {1: "plate", 2: "fork", 3: "cup"},
        {1: "Fork", 5: "CUP", 90: " plate "},
        {4: "plate", 6: "cup"},
        {2: "fork"},
    ],
)
def test_order_and_subsets_of_classes_do_not_change_the_figures(tmp_path, data_set, names_by_id):
    name = variant(tmp_path, data_set, "variant", names_by_id)
    metrics = evaluate(config(tmp_path, name), PerfectDetector(), class_names=CLASSES)[name]
    by_class = {key: value for key, value in metrics["bbox"].items() if key.startswith("AP-")}
    assert by_class == pytest.approx({f"AP-{name}": 100.0 for name in names_by_id.values()})
    total = metrics["operating_point"]["total"]
    assert (total["false_positives"], total["false_negatives"]) == (0, 0)
    results = tmp_path / "inference" / folder_name(name) / "coco_instances_results.json"
    assert {result["category_id"] for result in json.loads(results.read_text())} == names_by_id.keys()


def test_the_models_own_names_are_the_default(tmp_path, data_set):
    model = PerfectDetector()
    model.class_names = CLASSES
    name = variant(tmp_path, data_set, "variant", {1: "plate", 2: "fork", 3: "cup"})
    assert evaluate(config(tmp_path, name), model)[name]["bbox"]["AP"] == pytest.approx(100)


def test_without_names_classes_are_matched_by_position(tmp_path, data_set, caplog):
    assert evaluate(config(tmp_path, data_set), PerfectDetector())[data_set]["bbox"]["AP"] == pytest.approx(100)
    assert not any(record.levelname == "WARNING" for record in caplog.records)
    rotated = variant(tmp_path, data_set, "rotated", {1: "plate", 2: "fork", 3: "cup"})
    assert evaluate(config(tmp_path, rotated), PerfectDetector())[rotated]["bbox"]["AP"] == 0


def test_a_class_that_the_model_lacks_is_named_and_never_detected(tmp_path, data_set, caplog):
    name = variant(tmp_path, data_set, "variant", {1: "plate", 2: "fork", 3: "cup"})
    metrics = evaluate(config(tmp_path, name), PerfectDetector(), class_names=("cup", "plate", "knife"))[name]
    assert "(fork): [plate, fork, cup] and [cup, plate, knife]" in caplog.text
    assert metrics["bbox"]["AP-plate"] == metrics["bbox"]["AP-cup"] == pytest.approx(100)
    assert metrics["bbox"]["AP-fork"] == 0 and not math.isnan(metrics["bbox"]["AP"])


def test_each_annotation_file_is_read_once(tmp_path, data_set, monkeypatch):
    read = []
    parse = files.parse_json
    monkeypatch.setattr(files, "parse_json", lambda content, path: read.append(str(path)) or parse(content, path))
    other = variant(tmp_path, data_set, "other", {1: "plate", 2: "fork", 3: "cup"})
    cfg, model = config(tmp_path, data_set, other), PerfectDetector()
    sets = read_evaluation_sets(cfg, model, CLASSES)
    first = evaluate(cfg, model, evaluation_sets=sets)
    np.testing.assert_equal(evaluate(cfg, model, evaluation_sets=sets), first)
    assert [first[name]["bbox"]["AP"] for name in (data_set, other)] == [pytest.approx(100)] * 2
    assert read == [str(tmp_path / "data" / name) for name in ("annotations.json", "other.json")]


def test_metrics_are_chosen_by_the_config(tmp_path, data_set):
    def evaluated(*names):
        cfg = small_config(OUTPUT_DIR=str(tmp_path), DATASETS__TEST=(data_set,), TEST__METRICS=names)
        return evaluate(cfg, model, class_names=CLASSES)[data_set]

    model = PerfectDetector()
    assert set(evaluated()) - set(evaluated("operating_point")) == {"bbox"}
    with pytest.raises(ValueError, match=r"TEST\.METRICS is 'map'; registered are 'amodal', 'bbox', 'boundary'"):
        evaluated("map")
    assert model.calls == 2 * IMAGES


def test_occlusion_levels_are_named_by_the_config(tmp_path, data_set):
    labels = tmp_path / "labels.json"
    cfg = small_config(OUTPUT_DIR=str(tmp_path), DATASETS__TEST=(data_set,), TEST__OLAC_LABELS=str(labels))
    model = PerfectDetector()
    labels.write_text('{"1": "dense"}')
    with pytest.raises(ValueError, match=r"labels\.json: the level of '1' is 'dense'"):
        evaluate(cfg, model, class_names=CLASSES)
    assert model.calls == 0  # before the inference
    labels.write_text("{}")
    olac = evaluate(cfg, model, class_names=CLASSES)[data_set]["olac"]
    assert (olac["iou_type"], olac["unlabelled"]) == ("bbox", IMAGES)


def test_faults_of_the_last_test_set_come_before_the_first_inference(tmp_path, data_set):
    model = PerfectDetector()
    strange = variant(tmp_path, data_set, "strange", {1: "dog", 2: "horse"})
    with pytest.raises(ValueError, match=r"no class of data set .*strange.*: \[dog, horse\] and \[cup, plate, fork\]"):
        evaluate(config(tmp_path, data_set, strange), model, class_names=CLASSES)
    with pytest.raises(FileNotFoundError, match="absent"):
        evaluate(config(tmp_path, data_set, data_set.replace("annotations", "absent")), model)
    assert model.calls == 0


def test_metrics_of_a_finished_test_set_outlive_the_failure_of_the_next(tmp_path, data_set):
    other = variant(tmp_path, data_set, "other", {1: "plate", 2: "fork", 3: "cup"})
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(config(tmp_path, data_set, other), PerfectDetector(fails_at=IMAGES + 1), class_names=CLASSES)
    folder = tmp_path / "inference" / folder_name(data_set)
    assert json.loads((folder / "metrics.json").read_text())["bbox"]["AP"] == pytest.approx(100)
    assert len(json.loads((folder / "coco_instances_results.json").read_text())) == 2 * IMAGES
