"""``bash benchmarks/gpu_day.sh``: limits of its steps, what a failure leaves, and its report."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_day
from benchmarks.gpu_day import Step
from studies.occlusion import load_plan

ROOT = Path(__file__).parents[2]
ROW = {
    "name": "inference",
    "work": "inference",
    "peer": "torchvision Mask R-CNN",
    "ours_seconds": [0.02, 0.03, 0.04],
    "peer_seconds": [0.06, 0.06, 0.06],
    "ours_median": 0.03,
    "peer_median": 0.06,
    "verdict": "met",
    "environment": {"precision": "bf16"},
}
SKIPPED = {**ROW, "name": "memory", "verdict": "not measured", "skipped": "needs --device cuda"}


def python(name, code, seconds=30.0, rows=""):
    return Step(name, seconds, ("-c", code), rows)


def is_running(process):
    """Whether a process runs; one that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_step_that_fails_or_takes_too_long_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day, "GRACE_SECONDS", 0.2)
    rows = tmp_path / "rows.json"
    child = "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    child += "print(p.pid, flush=True); time.sleep(60)"
    chosen = [
        python("broken", "print('some'); raise SystemExit('no such | file')"),
        python("endless", child, seconds=1.0),
        python("rows", f"open({str(rows)!r}, 'w').write({json.dumps([ROW, SKIPPED])!r})", rows=str(rows)),
    ]
    broken, endless, last = gpu_day.run_steps(chosen, str(tmp_path))
    assert (broken.status, broken.exit_status, broken.last_line) == ("failed", 1, "no such | file")
    assert (endless.status, last.status) == ("out of time", "ok")
    assert 1 <= endless.seconds < 10
    time.sleep(0.1)
    assert not is_running(int(endless.last_line))  # the children of a step end with it
    content = json.loads((tmp_path / "gpu_day.json").read_text())
    assert [step["status"] for step in content["steps"]] == ["failed", "out of time", "ok"]
    assert content["rows"] == [ROW, SKIPPED] and "torch" in content["environment"]["versions"]
    page = (tmp_path / "gpu_day.md").read_text()
    assert "dry run" not in page
    assert r"no such \| file" in page
    assert "| inference (bf16) | 30 ms (20-40) | 60 ms (60-60) | 0.50 | met | torchvision Mask R-CNN |" in page
    assert "| inference (bf16) | - | - | needs --device cuda | not measured | torchvision Mask R-CNN |" in page


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])  # in the foreground, in the background
def test_interrupted_steps_may_write_what_they_have(tmp_path, inherited):
    before = signal.signal(signal.SIGINT, inherited)
    code = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('checkpoint written')"
    try:
        (outcome,) = gpu_day.run_steps([python("study", code, seconds=2.0)], str(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.status, outcome.last_line) == ("out of time", "checkpoint written")


@pytest.mark.parametrize("dry_run", [False, True])
def test_all_steps_end_within_the_time(dry_run):
    chosen = gpu_day.steps("/out", dry_run)
    assert sum(step.seconds + gpu_day.GRACE_SECONDS for step in chosen) <= gpu_day.TOTAL_SECONDS
    devices = {word for step in chosen for word in step.command if word in ("cpu", "cuda")}
    assert devices == ({"cpu"} if dry_run else {"cuda"})


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_study_of_a_day_is_a_valid_plan(dry_run):
    (study,) = (step.command for step in gpu_day.steps("/out", dry_run) if step.name == "study")
    values = study[study.index("seeds") :]
    plan = load_plan(str(ROOT / study[study.index("--plan") + 1]), values)
    chosen = [study[i + 1] for i, word in enumerate(study) if word == "--only"]
    started_from = ["shapes/faster_rcnn/start/seed_1"]
    assert [run.name for run in plan.chosen(chosen)] == started_from + chosen


def test_the_page_of_a_dry_run_says_so(tmp_path):
    quick = Step("rows", 30.0, ("-c", "print('done')", "--quick"))
    gpu_day.run_steps([quick], str(tmp_path))
    assert "A dry run: small images and networks" in (tmp_path / "gpu_day.md").read_text()


def test_tests_of_the_day_exist():
    (tests,) = (step.command for step in gpu_day.steps("/out") if step.name == "tests")
    assert all((ROOT / word).exists() for word in tests if word.startswith("tests/"))


def test_one_step_by_the_script(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(gpu_day, "run_steps", lambda chosen, output: ran.extend((*chosen, output)) or [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = ["day", "--relative-to", str(tmp_path)]
    assert gpu_day.main([*given, "--dry-run", "--only", "rows_fp32"]) == 0
    step, output = ran
    assert step.name == "rows_fp32" and output == os.path.join(tmp_path, "day")
    for words, message in ((["--only", "x", "--dry-run"], "there is no step x"), ([], "torch sees no GPU here")):
        with pytest.raises(SystemExit):
            gpu_day.main([*given, *words])
        assert message in capsys.readouterr().err
    script = (ROOT / "benchmarks/gpu_day.sh").read_text()
    assert re.search(r'exec python -m benchmarks\.gpu_day --relative-to "\$caller" "\$@"\n$', script)
