"""Benchmarks by stage and scaling benchmarks."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from bcnet.data import load_dataset
from benchmarks import BenchmarkSettings, scaling, stages
from benchmarks.scaling import Curve, Growth, write_growth, write_random_json

QUICK = BenchmarkSettings(quick=True, repeats=1)


def test_a_stage_is_counted_without_the_stages_inside_it():
    ticks = itertools.count()
    with stages.Stopwatch(lambda: float(next(ticks))) as watch, watch.stage("outer"):
        with watch.stage("inner"):
            pass
        with watch.stage("inner"):
            pass
    # One tick passes between any two changes of stage.
    assert watch.seconds == {"outer": 3.0, "inner": 2.0}


def test_watched_methods_are_as_before_afterwards():
    class Owner:
        def work(self, value):
            return value + 1

    owner = Owner()
    with pytest.raises(ZeroDivisionError), stages.Stopwatch() as watch:
        watch.method(owner, "work", "work")
        assert owner.work(1) == 2
        raise ZeroDivisionError
    assert watch.seconds["work"] > 0
    assert "work" not in vars(owner)


def test_stage_tables():
    inference, training = stages.stage_tables(QUICK)
    assert set(inference.ours) == set(stages.INFERENCE_STAGES)
    assert set(inference.theirs) == set(stages.INFERENCE_STAGES) - {stages.DATA}
    assert set(training.ours) == set(stages.TRAINING_STAGES)
    assert set(training.theirs) == set(stages.TRAINING_STAGES) - {stages.DATA}
    record = json.loads(json.dumps(training.to_json()))
    assert record["name"] == "stages-training"
    assert sum(stage["share"] for stage in record["ours"].values()) == pytest.approx(1)
    assert len(record["peer"]["backward"]["seconds"]) == 1
    text = inference.format()
    assert len(text.splitlines()) == 2 + len(stages.INFERENCE_STAGES)
    assert "| mask head |" in inference.format(markdown=True)


def test_the_exponent_is_that_of_the_upper_half():
    amounts = [1, 10, 100, 1000, 10_000]
    assert Curve("", amounts, [0.5, 0.5, 1.0, 100.0, 10_000.0]).exponent == pytest.approx(2)
    assert Curve("", [1, 2], [3.0, 6.0]).exponent == pytest.approx(1)


def test_growth_is_measured_and_written(tmp_path):
    names = []
    for growth in scaling.measure_growth(QUICK):
        write_growth(growth, tmp_path, {"device": "cpu"})
        assert (tmp_path / f"{growth.name}.png").read_bytes().startswith(b"\x89PNG")
        content = json.loads((tmp_path / f"{growth.name}.json").read_text())
        assert content["environment"] == {"device": "cpu"}
        for curve in content["curves"]:
            assert len(curve["amounts"]) == len(curve["seconds"]) == 3
            assert np.isfinite(curve["exponent_of_the_upper_half"])
        names.append(growth.name)
    assert names == ["detections", "instances", "pixels", "images"]


def test_a_table_of_growth():
    text = Growth("x", "things", [Curve("a", [1, 10], [1.0, 10.0]), Curve("b", [1, 10], [2.0, 200.0])]).format()
    assert text.splitlines()[0].split() == ["things", "a", "[s]", "b", "[s]"]
    assert text.splitlines()[-1].split() == ["exponent", "1.00", "2.00"]


def test_the_random_json_is_a_data_set(tmp_path):
    path = tmp_path / "random.json"
    write_random_json(str(path), 501)
    records, info = load_dataset(f"coco:{path}:{tmp_path}")
    assert len(records) == 501 and info.class_names == ("shape",)
    assert records[0].instances[0].segmentation != records[1].instances[0].segmentation
    # The 500 images start again; ids differ.
    assert records[0].instances[0].segmentation == records[500].instances[0].segmentation
    assert records[0].instances[0].annotation_id != records[500].instances[0].annotation_id
    assert max(len(record.instances) for record in records) == scaling.INSTANCES_PER_IMAGE
