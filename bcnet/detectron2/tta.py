"""Test-time augmentation (TTA) with detectron2 for both detectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNNWithTTA
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bcnet.detectron2.fcos import BCNetFCOS


def with_test_time_augmentation(cfg, model: nn.Module) -> nn.Module:
    """The model evaluated under ``TEST.AUG``: boxes merged over scales and flips, masks averaged."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return (BCNetFCOSWithTTA if isinstance(inner, BCNetFCOS) else GeneralizedRCNNWithTTA)(cfg, model)


class BCNetFCOSWithTTA(GeneralizedRCNNWithTTA):
    """`GeneralizedRCNNWithTTA` for `BCNetFCOS`, which has the same `inference` and no RoI heads to turn off.

    Boxes are merged with FCOS's own NMS threshold.
    """

    model: BCNetFCOS

    def __init__(self, cfg, model: nn.Module, tta_mapper=None, batch_size: int = 3) -> None:
        """
        Args:
            model: a `BCNetFCOS`, or one inside `DistributedDataParallel`.
            Others: see `GeneralizedRCNNWithTTA`.

        Raises:
            TypeError: another model.
        """
        # Not the parent's, which accepts GeneralizedRCNN only.
        nn.Module.__init__(self)
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if not isinstance(inner, BCNetFCOS):
            raise TypeError(f"BCNetFCOSWithTTA takes a BCNetFCOS, got a {type(inner).__name__}")
        self.model = inner
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = cfg.MODEL.FCOS.NMS_THRESH_TEST
        self.cfg.freeze()
        self.tta_mapper = tta_mapper or DatasetMapperTTA(cfg)  # pyright: ignore[reportCallIssue]  # @configurable takes cfg
        self.batch_size = batch_size

    @contextlib.contextmanager
    def _turn_off_roi_heads(self, attrs: Sequence[str]) -> Iterator[None]:
        mask_on = self.model.mask_on
        self.model.mask_on = mask_on and "mask_on" not in attrs
        try:
            yield
        finally:
            self.model.mask_on = mask_on
