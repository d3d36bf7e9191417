"""Score, NMS and top-k limits of inference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Limits of one call of inference; None uses the model's own limit.

    Attributes:
        score: minimum score (inclusive), 0..1. The models' own limits are Faster R-CNN's
            MODEL.ROI_HEADS.SCORE_THRESH_TEST on the score, and FCOS' MODEL.FCOS.SCORE_THRESH_TEST on the class
            probability alone; the score of FCOS is the root of probability times centerness. A limit given here
            applies to the score for both.
        nms: of two detections of one class whose boxes overlap by more than this IoU, 0..1, the one with the higher
            score stays.
        max_detections: maximum number of detections per image.

    Raises:
        ValueError: a value outside its range.
    """

    score: float | None = None
    nms: float | None = None
    max_detections: int | None = None

    def __post_init__(self) -> None:
        for name in ("score", "nms"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"the {name} threshold must lie in 0..1, got {value}")
        if self.max_detections is not None and self.max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {self.max_detections}")


def max_detections_of(cfg) -> int | None:
    """Maximum number of detections per image, ``TEST.DETECTIONS_PER_IMAGE``; None for a negative one: no limit."""
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return limit if limit >= 0 else None
