"""Report of a study: tables, plots and example images of the completed runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from bcnet.evaluation.report import markdown_table
from bcnet.files import write_json, write_text
from studies.occlusion.figures import plot_differences, plot_levels
from studies.occlusion.pictures import draw_grid
from studies.occlusion.plan import START, Run, StudyPlan, run_folder
from studies.occlusion.runs import read_results
from studies.occlusion.scenes import describe_scenes
from studies.occlusion.statistics import TITLES, by_seed, comparisons, difference, standard_deviation


def write_report(plan: StudyPlan, output: str) -> str:
    """Writes ``report.md``, ``results.json``, plots and image grids of the completed runs to the study's folder.

    Returns:
        str: the report.

    Raises:
        ValueError: no run is complete.
    """
    results = read_results(plan, output)
    if all(run.arm == START for run in results):
        raise ValueError(f"no run of the study in {output} is complete, there is nothing to report")
    write_json(os.path.join(output, "results.json"), {run.name: result for run, result in results.items()})
    compared = [run for run in results if run.arm != START]
    settings = [pair for pair in product(plan.data, plan.detectors) if any(_setting(run) == pair for run in compared)]
    parts = [_scenes({data for data, _ in settings}, output), _runs(plan, results)]
    for data, detector in settings:
        title = f"## {detector} on {data}"
        levels, differences, grid = (f"{data}_{detector}_{name}.png" for name in ("levels", "differences", "pictures"))
        plot_levels(plan, results, data, detector, os.path.join(output, levels))
        plot_differences(plan, results, data, detector, os.path.join(output, differences))
        seed = min(run.seed for run in compared if _setting(run) == (data, detector))
        drawn = [run for run in compared if (*_setting(run), run.seed) == (data, detector, seed)]
        finished = {run.arm: run_folder(output, run) for run in drawn}
        draw_grid(finished, os.path.join(output, grid))
        pictures = "\n\n".join(f"![{name}]({name})" for name in (levels, differences, grid))
        parts += [title, _means(plan, results, data, detector), _differences(plan, results, data, detector), pictures]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(text, os.path.join(output, "report.md"))
    return text


def _setting(run: Run) -> tuple[str, str]:
    return run.data, run.detector


def _scenes(names: Iterable[str], output: str) -> str:
    rows = [
        [f"{name}, {split}", text]
        for name, splits in describe_scenes(names, output).items()
        for split, text in splits.items()
    ]
    return "## Scenes\n\n" + markdown_table([["scenes", "occlusion"], *rows])


def _runs(plan: StudyPlan, results: Mapping[Run, Mapping]) -> str:
    done = len(results)
    rows = []
    for data, detector, arm in product(plan.data, plan.detectors, [START, *plan.arms]):
        runs = {run: result for run, result in results.items() if (*_setting(run), run.arm) == (data, detector, arm)}
        if not runs:
            continue
        seconds = [sum(result["seconds"].values()) for result in runs.values()]
        cost = next(iter(runs.values())).get("mask_head", {})
        rows.append(
            [
                data,
                detector,
                arm,
                ", ".join(str(run.seed) for run in runs),
                f"{min(seconds) / 60:.1f}-{max(seconds) / 60:.1f}",
                f"{cost['parameters'] / 1e6:.2f}" if cost else "",
                *(f"{cost[f'multiply_adds_{maps}'] / 1e6:.0f}" if cost else "" for maps in ("all_maps", "masks_only")),
            ]
        )
    run = next(iter(results.values()))["run"]
    commits = sorted({_commit(result["run"]["git"]) for result in results.values()})
    made_with = ", ".join(f"{name} {value}" for name, value in run["versions"].items() if value is not None)
    hardware = run["hardware"]
    headers = ["scenes", "detector", "arm", "seeds", "minutes", "parameters (M)", "MACs per RoI (M)", "masks only (M)"]
    return (
        f"## Runs\n\n{done} of {len(plan.runs())} runs are done. Hardware: {hardware['platform']}, "
        f"{hardware['cpu_cores']} cores, GPUs: {', '.join(hardware['gpus']) or 'none'}. {made_with}. "
        f"Commits: {', '.join(commits)}.\n\n"
        "Parameters and multiply-adds (MACs) are those of the mask head, for all its maps and for masks only; "
        "minutes are the time of a run including its evaluation, since its last interruption.\n\n"
        + markdown_table([headers, *rows])
    )


def _means(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str) -> str:
    rows = []
    for title in TITLES:
        values = [list(by_seed(results, data, detector, arm, title).values()) for arm in plan.arms]
        if any(values):
            rows.append([title, *(_mean(v) for v in values)])
    text = "Mean and standard deviation over seeds, percent:\n\n"
    return text + markdown_table([["", *plan.arms], *rows])


def _differences(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str) -> str:
    parts = []
    for arm, other in comparisons(plan):
        rows = []
        for title in TITLES:
            found = difference(results, data, detector, arm, other, title)
            if found is not None:
                each = ", ".join(f"{seed}: {value:+.2f}" for seed, value in found.by_seed.items())
                mean = f"{found.mean:+.2f}" + (f" ± {found.deviation:.2f}" if len(found.by_seed) > 1 else "")
                rows.append([title, mean, each, found.verdict])
        if rows:
            headers = ["", "mean ± deviation of the differences", "by seed", "verdict"]
            parts.append(f"{arm} minus {other}, seed by seed:\n\n{markdown_table([headers, *rows])}")
    return "\n\n".join(parts)


def _commit(git: Mapping | None) -> str:
    if git is None:
        return "unknown"
    return git["commit"][:7] + (" with changes" if git["changed"] else "")


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{sum(values) / len(values):.2f} ± {standard_deviation(values):.2f}"
