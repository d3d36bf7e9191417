"""Metric registry (METRIC_REGISTRY): requirements, inputs and return values of metrics, chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, overload

from bcnet.evaluation.average_precision import average_precision
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.matching import match_instances
from bcnet.evaluation.order import has_relations
from bcnet.registry import Registry

# Keys of the dict of `evaluate_results` beside the metrics.
COUNTS = ("mask_target", "images", "annotations", "results", "max_detections", "results_cut")


@dataclass(frozen=True)
class MetricInputs:
    """Inputs of a metric.

    Attributes:
        ground_truth: with annotations.
        results: COCO result dicts of its images and categories, in the form of `uniform_results`.
        score_threshold: lowest score of the detections that are counted or matched.
        max_detections: highest scoring detections per image and class that count.
        split_lists: the published lists of occluded and separated objects, see `split_recall`.
        with_masks: False for a detector of boxes alone, which shows in the results only if there are any.
    """

    ground_truth: GroundTruth
    results: Sequence[dict]
    score_threshold: float = 0.5
    max_detections: int = 100
    split_lists: Mapping[str, GroundTruth] | None = None
    with_masks: bool = True

    @cached_property
    def available(self) -> frozenset[str]:
        """Which of `REQUIREMENTS` ground truth and results meet."""
        return frozenset(name for name, is_met in REQUIREMENTS.items() if is_met(self))

    @cached_property
    def matches(self) -> dict[int, dict]:
        """The result that is matched to each detected instance, by annotation number (`match_instances`)."""
        return match_instances(
            self.ground_truth, self.results, self.score_threshold, max_detections=self.max_detections
        )

    @cached_property
    def mask_average_precision(self) -> dict[str, float]:
        """`average_precision` of the masks."""
        return average_precision(self.ground_truth, self.results, "segm", self.max_detections)


def _has_masks(inputs: MetricInputs) -> bool:
    in_results = inputs.with_masks and all("segmentation" in result for result in inputs.results)
    return in_results and inputs.ground_truth.all_have("segmentation")


REQUIREMENTS: dict[str, Callable[[MetricInputs], bool]] = {
    "boxes": lambda inputs: all("bbox" in result for result in inputs.results),
    "masks": _has_masks,
    "amodal_masks": lambda inputs: inputs.ground_truth.all_have("amodal_segmentation"),
    "depth_order": lambda inputs: inputs.ground_truth.has_order,
    "relations": lambda inputs: has_relations(inputs.results),
}
"""What a metric may require: ``boxes`` of the results; ``masks`` of results and annotations; ``amodal_masks`` and
``depth_order`` of the annotations; ``relations`` of the results (occlusion relations)."""


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: its key in the metrics.
        compute: from the inputs to a dict of numbers, texts and further dicts.
        requires: names of `REQUIREMENTS`; where one is not met, the metric is skipped.
        report: the printed form of what `compute` returns; None lists its numbers.
    """

    name: str
    compute: Callable[[MetricInputs], dict]
    requires: tuple[str, ...] = ()
    report: Callable[[Mapping], str] | None = None


MetricFunction = TypeVar("MetricFunction", bound=Callable[[MetricInputs], dict])


class MetricRegistry(Registry):
    """Registry of `Metric` records by the names of their functions."""

    @overload
    def register(
        self,
        obj: MetricFunction,
        *,
        name: str | None = None,
        requires: Sequence[str] = (),
        report: Callable[[Mapping], str] | None = None,
    ) -> MetricFunction: ...

    @overload
    def register(
        self,
        obj: None = None,
        *,
        name: str | None = None,
        requires: Sequence[str] = (),
        report: Callable[[Mapping], str] | None = None,
    ) -> Callable[[MetricFunction], MetricFunction]: ...

    def register(
        self,
        obj: MetricFunction | None = None,
        *,
        name: str | None = None,
        requires: Sequence[str] = (),
        report: Callable[[Mapping], str] | None = None,
    ) -> MetricFunction | Callable[[MetricFunction], MetricFunction]:
        """Registers a function from `MetricInputs` to a dict; a decorator, with or without arguments.

        Args:
            obj: the function.
            name: of the metric; the function's by default.
            requires, report: of `Metric`.

        Raises:
            ValueError: an unknown requirement, or a name that is taken.
        """
        if obj is None:
            return lambda function: self.register(function, name=name, requires=requires, report=report)
        name = name or obj.__name__
        unknown = [requirement for requirement in requires if requirement not in REQUIREMENTS]
        if unknown:
            raise ValueError(f"metric {name!r} requires {unknown[0]!r}; it must be one of {', '.join(REQUIREMENTS)}")
        if name in self or name in COUNTS:
            raise ValueError(f"the metric name {name!r} is taken; taken are {', '.join([*COUNTS, *self.names()])}")
        super().register(Metric(name, obj, tuple(requires), report), name=name)
        return obj

    def chosen(self, names: Sequence[str] = ()) -> list[Metric]:
        """The metrics of these names, or all for none, in the order of registration.

        Raises:
            ValueError: an unknown name; lists the registered ones.
        """
        for name in names:
            self.get(name)
        return [metric for name, metric in self if not names or name in names]


METRIC_REGISTRY = MetricRegistry("METRIC", key="TEST.METRICS", kind="metric")
