"""Report of a study of heads: means of the arms, paired comparisons with intervals, and curves over iterations."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bcnet.evaluation.report import markdown_table
from bcnet.files import read_json, write_json, write_text
from bcnet.visualization.style import OKABE_ITO
from studies.ground_truth_boxes import ESTIMATES, METRICS
from studies.heads.comparison import PairedDifference, paired_difference
from studies.heads.plan import ALL, NONE, HeadsPlan
from studies.heads.runs import read_results, test_set_file
from studies.test_set import instance_splits, pair_splits

Results = Mapping[tuple[str, int, str], dict]
TITLES = {
    "iou": "IoU",
    "boundary_iou": "boundary IoU",
    "amodal_iou": "amodal IoU",
    "hidden_iou": "IoU of hidden parts",
    "occluder_iou": "occluder IoU",
    "order_occluder": "right order, occluder layer",
    "order_hidden_part": "right order, hidden parts",
    "order_mean": "right order, mean of both",
}


def write_heads_report(plan: HeadsPlan, output: str) -> str:
    """Writes ``report.md``, ``comparisons.json`` and the curves of the finished arms to the study's folder.

    Returns:
        str: the report.

    Raises:
        ValueError: no arm is finished.
    """
    results = read_results(plan, output)
    if not results:
        raise ValueError(f"no arm of the study in {output} is finished, there is nothing to report")
    parts, comparisons = [_head(plan, results)], []
    for data, values in plan.data.items():
        if not any(key[0] == data for key in results):
            continue
        for test in values["tests"]:
            description = read_json(test_set_file(output, data, test))
            figure = f"{data}_{test}_curve.png"
            _plot_curves(plan, results, data, test, os.path.join(output, figure))
            images, instances = len(description["file_name"]), len(description["image"])
            parts += [
                f"## {data}, test set {test}: {images} images, {instances} instances, "
                f"{len(description['pair_image'])} pairs of known order",
                *_order_without_model(description),
                _means(plan, results, data, test),
                f"![Mean IoU and boundary IoU over iterations]({figure})",
            ]
            for first, second in plan.compare:
                rows = _comparison(plan, results, data, test, description, first, second)
                comparisons += rows
                if rows:
                    parts.append(_comparison_table(first, second, rows))
    write_json(os.path.join(output, "comparisons.json"), comparisons)
    text = "\n\n".join(parts) + "\n"
    write_text(text, os.path.join(output, "report.md"))
    return text


def _head(plan: HeadsPlan, results: Results) -> str:
    any_result = next(iter(results.values()))
    run = any_result["run"]
    trained = {
        NONE: f"nobody: it is frozen at `{any_result['weights']}`, and its features are cached ({plan.views} augmented "
        f"passes, float16, {plan.rois} RoIs per iteration)",
        ALL: f"the sum of all arms' losses, from `{any_result['weights'] or 'random weights'}`",
    }.get(plan.trunk, f"the arm `{plan.trunk}` alone, from `{any_result['weights'] or 'random weights'}`")
    commits = sorted({(r["run"]["git"] or {}).get("commit", "unknown")[:7] for r in results.values()})
    iterations = sorted({result["max_iter"] for result in results.values()})
    hours = sum(result["seconds"] / result["arms_together"] for result in results.values()) / 3600
    return (
        "# Mask heads on one trunk\n\n"
        f"**The trunk is trained by {trained}.** All arms see the same RoIs in the same iterations and start from "
        "the same seed; each arm's loss trains its own head. Masks are predicted in ground-truth boxes. Differences "
        "are paired by instance; the interval is 95 % of a bootstrap over images, which says nothing of other seeds, "
        "and that over seeds 95 % of a t distribution.\n\n"
        f"{len(results)} of {len(plan.data) * len(plan.seeds) * len(plan.arms)} arms are finished; iterations: "
        f"{', '.join(map(str, iterations))}; {hours:.2f} hours in all. {run['hardware']['platform']}, "
        f"{run['hardware']['cpu_cores']} cores, GPUs: {', '.join(run['hardware']['gpus']) or 'none'}. "
        f"Commits: {', '.join(commits)}."
    )


def _means(plan: HeadsPlan, results: Results, data: str, test: str) -> str:
    """One row per arm: arithmetic and the means of all metrics, over seeds, with their standard deviation."""
    rows, columns = [], [*METRICS, *ESTIMATES]
    for arm in plan.arms:
        found = [results[data, seed, arm] for seed in plan.seeds if (data, seed, arm) in results]
        if not found:
            continue
        curves = [result["tests"][test]["curve"][str(result["max_iter"])] for result in found]
        cost = found[0]["cost"]
        macs = [f"{cost[f'multiply_adds_{maps}'] / 1e6:.1f}" for maps in ("masks_only", "all_maps")]
        cells = [_mean([curve[name] for curve in curves if name in curve]) for name in columns]
        rows.append([arm, str(len(found)), *macs, *cells])
    headers = ["arm", "seeds", "MACs per RoI, mask (M)", "all maps (M)", *(TITLES[name] for name in columns)]
    used = [i for i in range(len(headers)) if i < 4 or any(row[i] != "-" for row in rows)]
    return "Percent, mean and standard deviation over seeds. MACs: multiply-adds of the head.\n\n" + markdown_table(
        [[line[i] for i in used] for line in (headers, *rows)]
    )


def _order_without_model(description: Mapping) -> list[str]:
    larger = description.get("pair_larger")  # older descriptions lack it
    if not larger:
        return []
    return [
        f"Without a model: the larger visible mask is the one in front in {100 * np.mean(larger):.1f} % of the pairs."
    ]


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


def _comparison(
    plan: HeadsPlan, results: Results, data: str, test: str, description: Mapping, first: str, second: str
) -> list[dict]:
    """Every metric and split of one pair of arms, ready for JSON; the first pair member is of this data."""
    (data_a, arm_a), (data_b, arm_b) = (_resolved(reference, data) for reference in (first, second))
    if data_a != data or (data_b != data and plan.data[data_b]["tests"].get(test) != plan.data[data]["tests"][test]):
        return []
    seeds = [s for s in plan.seeds if (data_a, s, arm_a) in results and (data_b, s, arm_b) in results]
    rows = []
    for names, key, splits in (
        (METRICS, "image", instance_splits(description)),
        (ESTIMATES, "pair_image", pair_splits(description)),
    ):
        images = np.array(description[key], dtype=int)
        for name in names:
            columns = [
                [_column(results[d, seed, arm], test, name, len(images)) for seed in seeds]
                for d, arm in ((data_a, arm_a), (data_b, arm_b))
            ]
            for split, members in splits.items() if seeds else ():
                found = paired_difference(*columns, images, members, resamples=plan.resamples)
                if found is not None:
                    where = {"data": data, "test": test, "first": first, "second": second}
                    judged = {"seed_margin": found.seed_margin, "verdict": found.verdict}
                    rows.append({**where, "metric": name, "split": split, **vars(found), **judged})
    return rows


def _resolved(reference: str, data: str) -> tuple[str, str]:
    own, _, arm = reference.rpartition("/")
    return own or data, arm


def _column(result: Mapping, test: str, name: str, length: int) -> np.ndarray:
    values = result["tests"][test]["values"].get(name)
    if values is None:
        return np.full(length, math.nan)
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _comparison_table(first: str, second: str, rows: list[dict]) -> str:
    lines = [["", "instances or pairs", "images", "difference", "95 % interval", "by seed", "over seeds", "verdict"]]
    for row in rows:
        found = PairedDifference(**{key: row[key] for key in PairedDifference.__dataclass_fields__})
        lines.append(
            [
                f"{TITLES[row['metric']]}, {row['split']}",
                str(found.instances),
                str(found.images),
                f"{found.mean:+.2f}",
                "-" if math.isnan(found.low) else f"{found.low:+.2f} to {found.high:+.2f}",
                ", ".join(f"{value:+.2f}" for value in found.by_seed),
                "-" if math.isnan(found.seed_margin) else f"± {found.seed_margin:.2f}",
                row["verdict"],
            ]
        )
    return f"### {first} minus {second}\n\n{markdown_table(lines)}"


def _plot_curves(plan: HeadsPlan, results: Results, data: str, test: str, path: str) -> None:
    """IoU and boundary IoU of every arm over iterations, the mean over seeds."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for ax, metric in zip(figure.subplots(1, 2), METRICS[:2], strict=True):
        for index, arm in enumerate(plan.arms):
            curves = [results[data, s, arm]["tests"][test]["curve"] for s in plan.seeds if (data, s, arm) in results]
            if not curves:
                continue
            steps = sorted(set.intersection(*(set(curve) for curve in curves)), key=int)
            means = [np.mean([curve[step][metric] for curve in curves]) for step in steps]
            color = tuple(channel / 255 for channel in OKABE_ITO[index % len(OKABE_ITO)])
            style = ("-", "--", ":")[index // len(OKABE_ITO) % 3]
            ax.plot([int(step) for step in steps], means, style, marker=".", color=color, label=arm)
        ax.set_xlabel("iterations")
        ax.set_ylabel(f"{TITLES[metric]}, %")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{data}, {test}")
    figure.savefig(path, dpi=110)
