"""Benchmark rows, verdicts, tables and timing."""

from __future__ import annotations

import json

import pytest

from benchmarks import BenchmarkRow, BenchmarkSettings, format_rows, markdown_rows, suite
from benchmarks.report import write_json
from benchmarks.timing import interleaved


def row(ours, theirs, **keywords):
    return BenchmarkRow("work", "peer", [ours], [theirs], "call", **keywords)


@pytest.mark.parametrize(
    ("ours", "theirs", "keywords", "ratio", "verdict"),
    [
        (1.0, 20.0, {"required": 20.0}, 20.0, "met"),
        (1.0, 19.9, {"required": 20.0}, 19.9, "not met"),
        (1.25, 1.0, {"required": 1.25, "as_cost": True}, 1.25, "met"),
        (1.26, 1.0, {"required": 1.25, "as_cost": True}, 1.26, "not met"),
        (3.0, 2.0, {"as_cost": True}, 1.5, ""),
        (3.0, 6.0, {}, 2.0, ""),
    ],
)
def test_verdicts(ours, theirs, keywords, ratio, verdict):
    measured = row(ours, theirs, **keywords)
    assert measured.ratio == pytest.approx(ratio)
    assert measured.verdict == verdict


def test_a_skipped_row_has_a_reason_and_no_ratio():
    skipped = BenchmarkRow("work", "peer", [], [], "step", required=1.25, as_cost=True, skipped="needs a GPU")
    assert skipped.ratio is None
    assert skipped.ratios == []
    assert skipped.verdict == "not measured"
    assert skipped.to_json()["skipped"] == "needs a GPU"
    assert "needs a GPU" in format_rows([skipped]) and "not measured" in format_rows([skipped])
    assert BenchmarkRow("work", "peer", [], [], "step", skipped="no").verdict == ""


def test_the_ratio_is_of_medians_and_each_repetition_has_its_own():
    measured = BenchmarkRow("work", "peer", [1.0, 2.0, 9.0], [4.0, 2.0, 9.0], "call")
    assert measured.ratio == 2.0
    assert measured.ratios == [4.0, 1.0, 1.0]


def test_tables_show_time_and_memory():
    rows = [
        row(0.5, 0.4, required=1.25, as_cost=True),
        row(3 * 2**20, 2 * 2**20, required=1.25, as_cost=True, measure="bytes"),
        row(1.0, 60.0, required=50.0),
    ]
    text = format_rows(rows)
    assert "1.25x its time" in text and "<= 1.25x its time" in text
    assert "3 MiB (3-3)" in text and "1.50x its memory" in text and "not met" in text
    assert "60.0x faster" in text and ">= 50x faster" in text
    lines = markdown_rows(rows).splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {9}


def test_json_has_the_machine_in_each_record(tmp_path):
    environment = suite.describe_environment(BenchmarkSettings(quick=True))
    assert {"hardware", "versions", "threads", "device", "precision", "config", "quick"} <= environment.keys()
    assert environment["versions"]["scikit-image"]
    write_json(tmp_path / "rows.json", [row(1.0, 2.0, name="a").to_json()], environment)
    (record,) = json.loads((tmp_path / "rows.json").read_text())
    assert record["name"] == "a" and record["ratio"] == 2.0 and record["ours_seconds"] == [1.0]
    assert record["environment"]["device"] == "cpu"


def test_ways_take_turns_and_every_other_round_goes_backwards():
    calls = []
    ticks = iter(range(100))
    seconds = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, clock=lambda: float(next(ticks))
    )
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # the first two warm up
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        interleaved({"a": calls.clear}, 0)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"device": "tpu"}, "cpu or cuda, got 'tpu'"),
        ({"precision": "int8"}, "fp32, bf16, fp16, got 'int8'"),
        ({"repeats": 0}, "at least 1, got 0"),
    ],
)
def test_settings_refuse(keywords, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkSettings(**keywords)


def test_cuda_must_be_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        BenchmarkSettings(device="cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ValueError, match="CPU time does not measure work"):
        BenchmarkSettings(device="cuda", cpu_time=True)


def test_unknown_rows_are_named():
    with pytest.raises(ValueError, match="no row 'pastes'; the rows are: targets"):
        suite.run_rows(["paste", "pastes"], BenchmarkSettings(quick=True))
