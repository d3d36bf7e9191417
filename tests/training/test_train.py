from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from small_models import DETECTORS, small_config, write_small_data_set

import bcnet
from bcnet.evaluation import ground_truth_of
from bcnet.prediction import datasets, run_inference
from bcnet.prediction.datasets import folder_name
from bcnet.structures import Detections
from bcnet.training import TrainingInterrupted, evaluate_only, train
from bcnet.training.step import TrainingStep


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    return write_small_data_set(tmp_path_factory.mktemp("data") / "small")


def config(tmp_path, data_set, detector="GeneralizedRCNN", **overrides):
    return small_config(
        detector,
        OUTPUT_DIR=str(tmp_path),
        DATASETS__TRAIN=(data_set,),
        **{"DATASETS__TEST": (data_set,), **overrides},
    )


def weights_of(path) -> dict:
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.parametrize("detector", DETECTORS)
def test_train_interrupt_resume_evaluate_predict(tmp_path, data_set, detector, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    metrics = train(config(whole, data_set, detector))
    assert {f"{data_set}/{task}/AP" for task in ("bbox", "segm")} <= set(metrics)
    results = whole / "inference" / folder_name(data_set) / "coco_instances_results.json"
    assert isinstance(json.loads(results.read_text()), list)

    update = TrainingStep._update
    steps = []

    def interrupted_update(self):
        update(self)
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(TrainingInterrupted):
        patched.setattr(TrainingStep, "_update", interrupted_update)
        train(config(parts, data_set, detector))
    assert not (parts / "model_final.pth").exists()
    train(config(parts, data_set, detector), resume=True)
    left, right = weights_of(whole / "model_final.pth"), weights_of(parts / "model_final.pth")
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[key]) for key, value in left.items())

    again = evaluate_only(config(whole, data_set, detector, MODEL__WEIGHTS=str(whole / "model_final.pth")))
    assert again[data_set]["segm"]["AP"] == metrics[f"{data_set}/segm/AP"]
    model = bcnet.load(whole / "config.yaml", str(whole / "model_final.pth"))
    assert model.class_names == ("cup", "plate", "fork")
    assert isinstance(model.predict(np.zeros((48, 64, 3), np.uint8)), Detections)


def test_test_sets_are_read_once_for_all_evaluations(tmp_path, data_set, monkeypatch):
    read = []
    monkeypatch.setattr(datasets, "ground_truth_of", lambda *args: read.append(args) or ground_truth_of(*args))
    train(config(tmp_path, data_set, SOLVER__MAX_ITER=2, TEST__EVAL_PERIOD=1))
    assert len(read) == 1
    records = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [record["iteration"] for record in records if f"{data_set}/bbox/AP" in record] == [0, 1]


def test_evaluations_of_one_reading_are_equal(tmp_path, data_set):
    cfg, model = config(tmp_path, data_set), Finder([4 / 64, 4 / 48, 32 / 64, 28 / 48])
    evaluation_sets = datasets.read_evaluation_sets(cfg, model)
    first, second = (datasets.evaluate(cfg, model, evaluation_sets=evaluation_sets)[data_set]["bbox"] for _ in range(2))
    assert first["AP"] > 10
    assert {k: v for k, v in first.items() if v == v} == {k: v for k, v in second.items() if v == v}


def test_what_a_run_leaves_for_reproduction(tmp_path, data_set):
    train(config(tmp_path, data_set, SEED=-1, SOLVER__MAX_ITER=1, DATASETS__TEST=()))
    (run,) = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert run["seed"] >= 0 and run["processes"] == 1
    assert run["versions"]["torch"] == str(torch.__version__)
    assert {"command", "git", "hardware"} <= set(run)
    content = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    assert content["seed"] == run["seed"]
    assert f"SEED: {run['seed']}" in (tmp_path / "config.yaml").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert f"seed: {run['seed']}" in log and "MAX_ITER: 1" in log and "loss_occluder_mask" in log

    train(config(tmp_path, data_set, SEED=-1, SOLVER__MAX_ITER=2, DATASETS__TEST=()), resume=True)
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert runs[1]["seed"] == run["seed"]
    log = (tmp_path / "log.txt").read_text()
    assert "SOLVER.MAX_ITER: 1 -> 2" in log and "SEED: " not in log.split("differs from the checkpoint's")[1][:80]


def test_same_seed_same_weights(tmp_path, data_set):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(config(tmp_path / name, data_set, SEED=seed, SOLVER__MAX_ITER=1, DATASETS__TEST=()))
    first, second, other = (weights_of(tmp_path / name / "model_final.pth") for name in "abc")
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_an_earlier_run_in_the_folder_is_mentioned(tmp_path, data_set):
    cfg = config(tmp_path, data_set, SOLVER__MAX_ITER=1, DATASETS__TEST=())
    train(cfg)
    train(cfg)
    assert "holds the checkpoints of an earlier run" in (tmp_path / "log.txt").read_text()
    train(config(tmp_path / "new", data_set, SOLVER__MAX_ITER=1, DATASETS__TEST=()), resume=True)
    assert "There is no checkpoint in" in (tmp_path / "new" / "log.txt").read_text()


def test_starts_from_weights_that_fit_in_part(tmp_path, data_set):
    train(config(tmp_path / "a", data_set, SOLVER__MAX_ITER=1, DATASETS__TEST=()))
    weights = str(tmp_path / "a" / "model_final.pth")
    options = {"MODEL__WEIGHTS": weights, "MODEL__ROI_HEADS__NUM_CLASSES": 4, "SOLVER__MAX_ITER": 1}
    train(config(tmp_path / "b", data_set, **options))
    log = (tmp_path / "b" / "log.txt").read_text()
    assert "cls_score" in log and "4 reshaped" in log
    assert "detections of the others are left out" in log


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "MODEL.WEIGHTS is empty"),
        ({"DATASETS__TEST": ()}, "DATASETS.TEST is empty"),
        ({"MODEL__WEIGHTS": "absent.pth"}, "absent.pth"),
    ],
)
def test_nothing_to_evaluate(tmp_path, data_set, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate_only(config(tmp_path, data_set, **overrides))


def test_nothing_to_resume_for_evaluation(tmp_path, data_set):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        evaluate_only(config(tmp_path, data_set), resume=True)


class Finder(torch.nn.Module):
    """Detects in every image one box of class 0; by default its right half."""

    device = torch.device("cpu")
    num_classes = 3

    def __init__(self, box=(0.5, 0.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.box = torch.tensor([box])  # in widths and heights

    def inference(self, images, with_occluder=False, output_sizes=None):
        found = []
        for image in images:
            h, w = image.shape[1:]
            box = self.box * torch.tensor([w, h, w, h])
            found.append(Detections((h, w), box, torch.ones(1), torch.zeros(1, dtype=torch.int64)))
        return found


def test_inference_streams_and_rescales():
    taken = []

    def loader():
        for index in range(2):
            taken.append(index)
            yield [
                {"image": torch.zeros(3, 20, 40), "image_id": 2 * index + k, "height": 10, "width": 80}
                for k in range(2)
            ]

    stream = run_inference(Finder(), loader())
    image_id, detections = next(stream)
    assert taken == [0]
    assert image_id == 0
    assert detections.image_size == (10, 80)
    assert detections.boxes.tolist() == [[40.0, 0.0, 80.0, 10.0]]
    assert [image_id for image_id, _ in stream] == [1, 2, 3]


def test_folder_names():
    long = folder_name("coco:" + "/folder" * 40 + "/a.json:images")
    assert len(long) < 120 and long.endswith("folder_a.json_images")
    assert long != folder_name("coco:/other" + "/folder" * 40 + "/a.json:images")
    assert folder_name("coco_2017_val") == "coco_2017_val"
    assert folder_name("coco:data/a.json:data/images") == "coco_data_a.json_data_images"
