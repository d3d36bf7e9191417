"""Plots of a study: AP by occlusion level and paired differences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bcnet.evaluation import OCCLUSION_LEVELS
from bcnet.visualization.style import OKABE_ITO
from studies.occlusion.plan import Run, StudyPlan
from studies.occlusion.statistics import by_seed, difference

_PANELS = {"mask AP": "mask AP, {}", "mask IoU in ground-truth boxes": "IoU in ground-truth boxes, {}"}
GROUP = 0.8  # total width of the bars at one level; levels are one apart
_COLORS = [tuple(channel / 255 for channel in color) for color in OKABE_ITO]


def plot_levels(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str, path: str) -> None:
    """Bar plot of every arm by occlusion level: means over seeds, with a dot for every seed."""
    with _panels(f"{detector} on {data}: by hidden share of the object", "{}, %", path) as panels:
        for ax, template in panels:
            for index, arm, level, place in _bar_positions(plan.arms):
                values = list(by_seed(results, data, detector, arm, template.format(level)).values())
                if not values:
                    continue
                color, name = _COLORS[index % len(_COLORS)], _legend_label(arm, level)
                ax.bar(place, np.mean(values), 0.92 * GROUP / len(plan.arms), color=color, label=name)
                ax.plot([place] * len(values), values, "o", color="#222222", markersize=3)


def plot_differences(plan: StudyPlan, results: Mapping[Run, Mapping], data: str, detector: str, path: str) -> None:
    """Plot of every arm minus the baseline by occlusion level: a dot for every seed, a bar at the mean."""
    title = f"{detector} on {data}: differences of one seed (dots) and their mean (bars)"
    others = [arm for arm in plan.arms if arm != plan.baseline]
    with _panels(title, "difference of {}, points", path) as panels:
        for ax, template in panels:
            for index, arm, level, place in _bar_positions(others):
                found = difference(results, data, detector, arm, plan.baseline, template.format(level))
                if found is None:
                    continue
                color, name = _COLORS[(1 + index) % len(_COLORS)], _legend_label(f"{arm} - {plan.baseline}", level)
                values = list(found.by_seed.values())
                ax.plot([place] * len(values), values, "o", color=color, markersize=5, label=name)
                ax.plot(place, found.mean, "_", color=color, markersize=18, markeredgewidth=2.5)
            ax.axhline(0, color="#222222", linewidth=0.8)


@contextlib.contextmanager
def _panels(title: str, label: str, path: str) -> Iterator[Iterator[tuple[Axes, str]]]:
    """Yields axes by occlusion level, each with the title template of its metrics; saves the figure at the end."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    yield zip(axes, _PANELS.values(), strict=True)
    for ax, what in zip(axes, _PANELS, strict=True):
        ax.set_xticks(range(len(OCCLUSION_LEVELS)), _level_names())
        ax.set_ylabel(label.format(what))
        ax.spines[["top", "right"]].set_visible(False)
    if axes[0].get_legend_handles_labels()[0]:  # with one arm there is nothing to compare
        axes[0].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _bar_positions(arms: Iterable[str]) -> Iterator[tuple[int, str, str, float]]:
    """For every arm and level: the arm's index and name, the level, and the position on the x axis."""
    arms = list(arms)
    for index, arm in enumerate(arms):
        for position, level in enumerate(OCCLUSION_LEVELS):
            yield index, arm, level, position + (index - (len(arms) - 1) / 2) * GROUP / len(arms)


def _legend_label(name: str, level: str) -> str | None:
    """The name at the first level, otherwise None, so that it appears once in the legend."""
    return name if level == next(iter(OCCLUSION_LEVELS)) else None


def _level_names() -> list[str]:
    return [f"{name}\n{100 * low:g}-{100 * high:g} %" for name, (low, high) in OCCLUSION_LEVELS.items()]
