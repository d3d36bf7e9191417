"""Plots of a study."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bcnet.evaluation import OCCLUSION_LEVELS
from bcnet.study.plan import Run, StudyPlan
from bcnet.study.statistics import by_seed, difference
from bcnet.visualization.style import OKABE_ITO

_PANELS = {"mask AP": "mask AP, {}", "mask IoU in true boxes": "IoU in true boxes, {}"}
_COLORS = [tuple(channel / 255 for channel in color) for color in OKABE_ITO]


def plot_levels(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str, path: str) -> None:
    """Bars of every arm by level of occlusion: means over seeds, a dot for every seed."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    width = 0.8 / len(plan.arms)
    for ax, (label, template) in zip(axes, _PANELS.items(), strict=True):
        for index, arm in enumerate(plan.arms):
            for position, level in enumerate(OCCLUSION_LEVELS):
                values = list(by_seed(results, data, detector, arm, template.format(level)).values())
                if not values:
                    continue
                place = position + (index - (len(plan.arms) - 1) / 2) * width
                name = arm if position == 0 else None
                ax.bar(place, np.mean(values), width * 0.92, color=_COLORS[index % len(_COLORS)], label=name)
                ax.plot([place] * len(values), values, "o", color="#222222", markersize=3)
        ax.set_xticks(range(len(OCCLUSION_LEVELS)), _level_names())
        ax.set_ylabel(f"{label}, %")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{detector} on {data}: by hidden share of the object")
    figure.savefig(path, dpi=110)


def plot_differences(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str, path: str) -> None:
    """Every arm minus the baseline by level of occlusion: a dot for every seed, a bar at the mean."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    others = [arm for arm in plan.arms if arm != plan.baseline]
    for ax, (label, template) in zip(axes, _PANELS.items(), strict=True):
        for index, arm in enumerate(others):
            color = _COLORS[(1 + index) % len(_COLORS)]
            for position, level in enumerate(OCCLUSION_LEVELS):
                found = difference(results, data, detector, arm, plan.baseline, template.format(level))
                if found is None:
                    continue
                place = position + (index - (len(others) - 1) / 2) * 0.8 / len(others)
                name = f"{arm} - {plan.baseline}" if position == 0 else None
                values = list(found.by_seed.values())
                ax.plot([place] * len(values), values, "o", color=color, markersize=5, label=name)
                ax.plot(place, found.mean, "_", color=color, markersize=18, markeredgewidth=2.5)
        ax.axhline(0, color="#222222", linewidth=0.8)
        ax.set_xticks(range(len(OCCLUSION_LEVELS)), _level_names())
        ax.set_ylabel(f"difference of {label}, points")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{detector} on {data}: differences of one seed (dots) and their mean (bars)")
    figure.savefig(path, dpi=110)


def _level_names() -> list[str]:
    return [f"{name}\n{100 * low:g}-{100 * high:g} %" for name, (low, high) in OCCLUSION_LEVELS.items()]
