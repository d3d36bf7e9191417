"""GPU day (`benchmarks/gpu_day.sh`): GPU tests, benchmark rows and a short study, each with a time limit of its own.

A step that fails or runs out of its time does not stop the others. The report is written after every step.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from bcnet import files
from bcnet.evaluation.report import markdown_table
from bcnet.installation import describe_installation
from benchmarks.report import format_amount

TOTAL_SECONDS = 25 * 60
# After its limit a step is interrupted as by Ctrl-C; studies and trainings then write a checkpoint.
GRACE_SECONDS = 20.0
_STUDY = ("studies.occlusion", "--plan", "studies/full.yaml")
_STUDY_RUNS = ("shapes/faster_rcnn/plain/seed_1", "shapes/faster_rcnn/bilayer/seed_1")
_STUDY_SIZE = {
    "seeds": "[1]",
    "data.shapes.train.count": 2000,
    "data.shapes.test.count": 300,
    "start.SOLVER.MAX_ITER": 500,
    "start.SOLVER.STEPS": "[400, 470]",
    "settings.SOLVER.MAX_ITER": 500,
    "settings.SOLVER.STEPS": "[400, 470]",
    "settings.SOLVER.WARMUP_ITERS": 100,
}
_TINY_STUDY = {
    "data.shapes.train.count": 4,
    "data.shapes.test.count": 2,
    "data.shapes.train.size": 64,
    "data.shapes.test.size": 64,
    "start.SOLVER.MAX_ITER": 1,
    "start.SOLVER.STEPS": "[]",
    "settings.SOLVER.MAX_ITER": 1,
    "settings.SOLVER.STEPS": "[]",
    "settings.SOLVER.WARMUP_ITERS": 0,
    "settings.SOLVER.IMS_PER_BATCH": 2,
    "settings.SOLVER.AMP.ENABLED": False,
    "settings.MODEL.DEVICE": "cpu",
    "settings.MODEL.RESNETS.DEPTH": 18,
    "settings.MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "settings.MODEL.FPN.OUT_CHANNELS": 32,
    "settings.MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "settings.MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "settings.INPUT.MIN_SIZE_TRAIN": "[64]",
    "settings.INPUT.MAX_SIZE_TRAIN": 64,
    "settings.INPUT.MIN_SIZE_TEST": 64,
    "settings.INPUT.MAX_SIZE_TEST": 64,
    "settings.DATALOADER.NUM_WORKERS": 0,
}


@dataclass(frozen=True)
class Step:
    """A command with a time limit.

    Attributes:
        name: also of its log.
        seconds: the limit.
        command: arguments of this Python, such as ("-m", "pytest").
        rows: json file of benchmark rows that the command writes; "" if it writes none.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    rows: str = ""


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        status: "ok", "failed" or "out of time".
        last_line: of its log.
    """

    name: str
    command: str
    limit_seconds: float
    status: str
    seconds: float
    exit_status: int
    log: str
    last_line: str


def steps(output: str, dry_run: bool = False) -> list[Step]:
    """The steps in order, which together stay below `TOTAL_SECONDS`; in tiny form on the CPU with `dry_run`.

    Args:
        output: folder of what they write.
    """

    def module(name: str, *arguments: object) -> tuple[str, ...]:
        return ("-m", name, *map(str, arguments))

    def rows(name: str, seconds: float, precision: str, *names: str) -> Step:
        path = os.path.join(output, f"{name}.json")
        device = ("--device", "cpu", "--quick", "--repeats", 1) if dry_run else ("--device", "cuda", "--repeats", 5)
        command = module("benchmarks", *device, "--precision", precision, "--rows", *names, "--json", path)
        return Step(name, seconds, command, path)

    stages = ("--device", "cpu", "--quick") if dry_run else ("--device", "cuda", "--precision", "bf16")
    stages = module("benchmarks", *stages, "--stages", "--repeats", 1 if dry_run else 5)
    sizes = _STUDY_SIZE | (_TINY_STUDY if dry_run else {})
    study = (*_STUDY, "--output", os.path.join(output, "study"))
    chosen = [word for run in _STUDY_RUNS for word in ("--only", run)]
    values = [word for pair in sizes.items() for word in pair]
    tests = ("tests/device", "tests/modeling/test_no_waiting.py", "-n0", "-rs", "-p", "no:cacheprovider")
    return [
        Step("tests", 240, module("pytest", *tests)),
        rows("rows_fp32", 210, "fp32", "inference", "training", "memory", "fcos-inference", "fcos-training"),
        rows("rows_bf16", 180, "bf16", "inference", "training", "memory", "targets", "paste"),
        rows("rows_compiled", 180, "bf16", "inference-compiled"),
        Step("stages_bf16", 90, stages),
        Step("study", 370, module(*study, *chosen, *values)),
        Step("study_report", 90, module(*study, "--report-only", *values)),
    ]


def run_step(step: Step, output: str) -> Outcome:
    """Runs a step with its processes in a group of their own, which is ended at the limit; its output goes to a log."""
    command = [sys.executable, *step.command]
    log = os.path.join(output, f"{step.name}.txt")
    started = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_accept_interrupts
        )
        try:
            process.wait(step.seconds)
            status = "failed" if process.returncode else "ok"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            _end(process)
    seconds = time.monotonic() - started
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    last = lines[-1][:200] if lines else ""
    return Outcome(step.name, shlex.join(command), step.seconds, status, seconds, process.returncode, log, last)


def _accept_interrupts() -> None:
    # A shell starts background jobs (`bash benchmarks/gpu_day.sh OUT &`) with SIGINT ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_steps(chosen: Sequence[Step], output: str) -> list[Outcome]:
    """Runs steps one after the other, and writes ``gpu_day.json`` and ``gpu_day.md`` after each."""
    os.makedirs(output, exist_ok=True)
    environment = describe_installation()
    outcomes: list[Outcome] = []
    for step in chosen:
        print(f"== {step.name}, at most {step.seconds:g} s", flush=True)
        outcomes.append(run_step(step, output))
        print(f"   {outcomes[-1].status} after {outcomes[-1].seconds:.0f} s: {outcomes[-1].last_line}", flush=True)
        rows = _rows(chosen[: len(outcomes)])
        content = {"environment": environment, "steps": [asdict(outcome) for outcome in outcomes], "rows": rows}
        files.write_json(os.path.join(output, "gpu_day.json"), content)
        files.write_text(report(outcomes, rows, environment), os.path.join(output, "gpu_day.md"))
    return outcomes


def report(outcomes: Sequence[Outcome], rows: Sequence[dict], environment: dict) -> str:
    """The steps and the benchmark rows as Markdown tables."""
    gpus = ", ".join(environment["hardware"]["gpus"]) or "no GPU"
    steps_table = [
        ("step", "status", "seconds", "limit", "last line of the log"),
        *(
            (o.name, o.status, f"{o.seconds:.0f}", f"{o.limit_seconds:g}", o.last_line.replace("|", "\\|"))
            for o in outcomes
        ),
    ]
    rows_table = [
        ("work", "ours: median (range)", "peer: median (range)", "ours / peer", "verdict", "peer"),
        *map(_row_cells, rows),
    ]
    setting = f"{gpus}, torch {environment['versions']['torch']}"
    if any("--quick" in shlex.split(outcome.command) for outcome in outcomes):
        setting += "\n\nA dry run: small images and networks, figures and verdicts are meaningless."
    parts = ["# GPU day", setting, markdown_table(steps_table)]
    return "\n\n".join([*parts, markdown_table(rows_table) if rows else "no benchmark row was written"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_day.sh", description=__doc__)
    parser.add_argument("output", metavar="OUT", help="folder of logs, json and table")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU: shows that every step works")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="some of the steps")
    parser.add_argument("--relative-to", default=".", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    output = os.path.abspath(os.path.join(args.relative_to, args.output))
    known = steps(output, args.dry_run)
    names = [step.name for step in known]
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"there is no step {', '.join(sorted(unknown))}; the steps are {', '.join(names)}")
    if not args.dry_run and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --dry-run tries the steps on the CPU")
    outcomes = run_steps([step for step in known if not args.only or step.name in args.only], output)
    print(f"report: {os.path.join(output, 'gpu_day.md')}")
    return int(any(outcome.status != "ok" for outcome in outcomes))


def _end(process: subprocess.Popen) -> None:
    """Interrupts the group of a process, then kills what is left of it, children of a finished process too."""
    for number, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _rows(done: Sequence[Step]) -> list[dict]:
    """The benchmark rows that the steps wrote."""
    paths = [step.rows for step in done if step.rows and os.path.exists(step.rows)]
    return [row for path in paths for row in files.read_json(path)]


def _row_cells(row: dict) -> tuple[str, ...]:
    work = f"{row['work']} ({row['environment']['precision']})"
    if row.get("skipped"):
        return work, "-", "-", row["skipped"], row["verdict"] or "-", row["peer"]
    measure = "bytes" if "ours_bytes" in row else "seconds"
    measured = (format_amount(row[f"{side}_{measure}"], measure) for side in ("ours", "peer"))
    return work, *measured, f"{row['ours_median'] / row['peer_median']:.2f}", row["verdict"] or "-", row["peer"]


if __name__ == "__main__":
    sys.exit(main())
