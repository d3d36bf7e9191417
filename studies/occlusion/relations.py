"""Occlusion order accuracy of each estimate of the relations: occluder layer, hidden parts, and their mean."""

from __future__ import annotations

from dataclasses import replace

from bcnet.evaluation import CocoEvaluator
from bcnet.modeling import Detector
from bcnet.modeling.precision import autocast_dtype
from bcnet.occlusion.relations import relation_confidences
from bcnet.prediction.datasets import read_evaluation_sets, run_inference


def order_by_estimate(cfg, model: Detector) -> dict[str, dict]:
    """The metric "order" of a model with an occluder layer on its test set, by name of the estimate.

    Args:
        cfg: the config that the model was built from, with one test set of known depth order.
        model: the model, in eval mode. Without a detection, as after a few iterations, no estimate has the metric.
    """
    ((_, evaluation_set),) = read_evaluation_sets(cfg, model).items()
    evaluators: dict[str, CocoEvaluator] = {}
    inference = run_inference(model, evaluation_set.loader, amp_dtype=autocast_dtype(cfg), with_occluder=True)
    for image_id, detections in inference:
        for name, confidence in relation_confidences(detections).items():
            if name not in evaluators:
                evaluators[name] = CocoEvaluator(evaluation_set.truth, metrics=("order",))
            estimated = replace(detections, occluded_by=confidence)
            evaluators[name].update(image_id, evaluation_set.with_its_classes(estimated))
    computed = {name: evaluator.compute() for name, evaluator in evaluators.items()}
    return {name: metrics["order"] for name, metrics in computed.items() if "order" in metrics}
