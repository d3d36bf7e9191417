"""COCO evaluation, AP by occlusion level, boundary AP, results files."""

from bcnet.evaluation.average_precision import average_precision, subset_average_precision
from bcnet.evaluation.coco import CocoEvaluator
from bcnet.evaluation.files import evaluate_files
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.occlusion import OCCLUSION_LEVELS, hidden_shares, occlusion_average_precision
from bcnet.evaluation.operating_point import operating_point
from bcnet.evaluation.report import format_average_precision, format_report, write_json

__all__ = [
    "OCCLUSION_LEVELS",
    "CocoEvaluator",
    "GroundTruth",
    "average_precision",
    "evaluate_files",
    "format_average_precision",
    "format_report",
    "hidden_shares",
    "occlusion_average_precision",
    "operating_point",
    "subset_average_precision",
    "write_json",
]
