"""Evaluation: COCO AP, AP and recall under occlusion, boundary AP, amodal masks, depth order, files for the server."""

from bcnet.evaluation.average_precision import average_precision, images_average_precision, subset_average_precision
from bcnet.evaluation.coco import CocoEvaluator
from bcnet.evaluation.files import evaluate_files, ground_truth_of
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.hidden_part import amodal_miou, hidden_part_iou
from bcnet.evaluation.metrics import evaluate_results
from bcnet.evaluation.occlusion import (
    OCCLUSION_LEVELS,
    hidden_shares,
    occlusion_average_precision,
    overlap_average_precision,
)
from bcnet.evaluation.olac import olac_average_precision, read_olac_labels
from bcnet.evaluation.operating_point import operating_point
from bcnet.evaluation.order import occlusion_order_accuracy
from bcnet.evaluation.registry import METRIC_REGISTRY, Metric, MetricInputs
from bcnet.evaluation.report import flat_metrics, format_average_precision, format_report
from bcnet.evaluation.results import read_results, uniform_results
from bcnet.evaluation.server_files import check_submission, write_submissions
from bcnet.evaluation.split_recall import split_annotations, split_recall

__all__ = [
    "METRIC_REGISTRY",
    "OCCLUSION_LEVELS",
    "CocoEvaluator",
    "GroundTruth",
    "Metric",
    "MetricInputs",
    "amodal_miou",
    "average_precision",
    "check_submission",
    "evaluate_files",
    "evaluate_results",
    "flat_metrics",
    "format_average_precision",
    "format_report",
    "ground_truth_of",
    "hidden_part_iou",
    "hidden_shares",
    "images_average_precision",
    "occlusion_average_precision",
    "occlusion_order_accuracy",
    "olac_average_precision",
    "operating_point",
    "overlap_average_precision",
    "read_olac_labels",
    "read_results",
    "split_annotations",
    "split_recall",
    "subset_average_precision",
    "uniform_results",
    "write_submissions",
]
