"""Metrics of one's own: registered in a module outside the package, shown wherever metrics are shown."""

import importlib
import json
import sys
import types

import pytest
from results_samples import ground_truth, results, write

from bcnet.cli import main
from bcnet.evaluation import (
    METRIC_REGISTRY,
    CocoEvaluator,
    GroundTruth,
    MetricInputs,
    evaluate_results,
    flat_metrics,
    format_report,
    uniform_results,
)

BUILT_IN = [
    "bbox",
    "segm",
    "boundary",
    "amodal",
    "occlusion",
    "overlap",
    "olac",
    "recall",
    "hidden_part",
    "miou",
    "order",
]

PLUGIN = """
from bcnet.evaluation import METRIC_REGISTRY

@METRIC_REGISTRY.register(requires=("boxes",))
def box_area(inputs):
    areas = [result["bbox"][2] * result["bbox"][3] for result in inputs.results]
    return {"mean": sum(areas) / len(areas), "extremes": {"largest": max(areas)}}

@METRIC_REGISTRY.register(requires=("amodal_masks",), report=lambda values: "never")
def needs_amodal(inputs):
    raise AssertionError("there are no amodal masks")

@METRIC_REGISTRY.register(report=lambda values: f"Limit: {values['limit']} detections")
def limit(inputs):
    return {"limit": inputs.max_detections}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module outside the package that registers three metrics."""
    (tmp_path / "my_metrics.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METRIC_REGISTRY, "_obj_map", dict(METRIC_REGISTRY._obj_map))
    yield "my_metrics"
    sys.modules.pop("my_metrics", None)


@pytest.fixture
def plugin(module):
    return importlib.import_module(module)


def test_the_built_in_metrics():
    assert [metric.name for metric in METRIC_REGISTRY.chosen()] == [*BUILT_IN, "operating_point"]


def test_a_metric_of_ones_own_is_in_json_report_and_flat_metrics(module, tmp_path, capsys):
    annotations, path = write(tmp_path, results())
    output = tmp_path / "metrics.json"
    command = ["evaluate", "--annotations", str(annotations), "--results", str(path), "--output", str(output)]
    main([*command, "--import", module])
    metrics = json.loads(output.read_text())
    assert metrics["box_area"] == {"mean": (400 + 450 + 360) / 3, "extremes": {"largest": 450}}
    assert metrics["limit"] == {"limit": 100}
    assert "needs_amodal" not in metrics and "amodal" not in metrics
    printed = capsys.readouterr().out
    assert "box_area\n" in printed and "extremes/largest     450" in printed and "Limit: 100 detections" in printed
    flat = flat_metrics(metrics)
    assert flat["box_area/extremes/largest"] == 450 and flat["box_area/mean"] == (400 + 450 + 360) / 3


def test_metrics_are_chosen_by_name(plugin, tmp_path, caplog):
    truth = GroundTruth.from_dict(ground_truth())
    uniform = uniform_results(results(), truth)
    metrics = evaluate_results(truth, uniform, metrics=["limit", "bbox", "needs_amodal"])
    assert [name for name in metrics if name in METRIC_REGISTRY] == ["bbox", "limit"]  # in their own order
    assert "'needs_amodal' is skipped: there are no amodal_masks" in caplog.text
    assert format_report(metrics).endswith("Limit: 100 detections")
    with pytest.raises(ValueError, match=r"TEST\.METRICS is 'box_aera'; registered are .*'box_area', .*--import"):
        evaluate_results(truth, uniform, metrics=["box_aera"])
    with pytest.raises(ValueError, match=r"TEST\.METRICS is 'box_aera'"):  # before the inference
        CocoEvaluator(truth, metrics=["box_aera"])


def test_registrations_that_make_no_sense(plugin):
    with pytest.raises(ValueError, match="'shadow' requires 'shadows'; it must be one of boxes, masks, amodal_masks"):

        @METRIC_REGISTRY.register(requires=("shadows",))
        def shadow(inputs):
            return {}

    for name in ("segm", "box_area", "images"):  # built in, registered, a count
        function = types.FunctionType((lambda inputs: {}).__code__, {}, name)
        with pytest.raises(ValueError, match=f"the metric name '{name}' is taken"):
            METRIC_REGISTRY.register(function)

    @METRIC_REGISTRY.register
    def number(inputs):
        return 3

    truth = GroundTruth.from_dict(ground_truth())
    with pytest.raises(ValueError, match="the metric 'number' must return a dict, got 3"):
        evaluate_results(truth, uniform_results(results(), truth), metrics=["number"])


def test_what_is_available():
    truth = GroundTruth.from_dict(ground_truth())
    assert MetricInputs(truth, uniform_results(results(), truth)).available == {"boxes", "masks"}
    assert MetricInputs(truth, uniform_results(results(None), truth)).available == {"boxes"}
    assert MetricInputs(truth, uniform_results(results(), truth), with_masks=False).available == {"boxes"}
    content = ground_truth()
    for depth, annotation in enumerate(content["annotations"]):
        annotation |= {"depth": depth, "amodal_segmentation": annotation["segmentation"]}
    related = [
        {**entry, "number": k, "depth": k, "occluded_by": []}
        for k, entry in enumerate(uniform_results(results(), truth))
    ]
    whole = GroundTruth.from_dict(content)
    everything = {"boxes", "masks", "amodal_masks", "depth_order", "relations"}
    assert MetricInputs(whole, related).available == everything
    assert MetricInputs(whole, related, olac_labels={}).available == everything | {"olac_labels"}
    assert BUILT_IN == [name for name in evaluate_results(whole, related, olac_labels={}) if name in BUILT_IN]
