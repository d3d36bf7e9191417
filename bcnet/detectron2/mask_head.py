"""The bilayer mask head for detectron2's RoI heads.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, D detections of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY, BaseMaskRCNNHead
from detectron2.structures import Instances, ROIMasks
from detectron2.utils.events import get_event_storage
from torch import Tensor

from bcnet import bilayer
from bcnet.bilayer import MaskLogits, MaskLossWeights, MaskTargets, mask_losses, mask_targets
from bcnet.detectron2.occluders import occluder_masks_of_rois
from bcnet.detectron2.postprocessing import LAYER_FIELDS, paste_layers_with_masks
from bcnet.modeling.mask_heads import bilayer_keywords, build_mask_loss

_VISUALIZED_ROIS = 8


@ROI_MASK_HEAD_REGISTRY.register()
class BilayerMaskHead(bilayer.BilayerMaskHead, BaseMaskRCNNHead):
    """`bcnet.bilayer.BilayerMaskHead` with detectron2's interface of a mask head.

    A drop-in for ``MODEL.ROI_MASK_HEAD.NAME``, with the parameter names of the stand-alone engine. In training
    it reads ``proposal_boxes``, ``gt_classes``, ``gt_masks`` and ``gt_occluder_masks`` of the foreground
    proposals; without the last it derives them, see `occluder_masks_of_rois`.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_mask_classes: int = 1,
        num_conv: int = 4,
        use_gcn: bool = True,
        use_boundary: bool = True,
        freeze_gcn_norm: bool = False,
        loss_weights: MaskLossWeights | None = None,
        occluder_negative_ratio: float = 1.0,
        output_layers: bool = False,
        vis_period: int = 0,
    ) -> None:
        """
        Args:
            input_shape: of the pooled features; its channels are C.
            num_mask_classes, num_conv, use_gcn, use_boundary, freeze_gcn_norm: of the engine's head.
            loss_weights, occluder_negative_ratio: of `mask_losses`.
            output_layers: whether inference gives the occluder's maps and the boundaries too.
            vis_period: iterations between two drawings of masks in the event storage; 0 draws none.
        """
        super().__init__(
            input_shape.channels,
            num_conv=num_conv,
            num_mask_classes=num_mask_classes,
            use_gcn=use_gcn,
            use_boundary=use_boundary,
            freeze_gcn_norm=freeze_gcn_norm,
        )
        self.loss_weights = loss_weights or MaskLossWeights()
        self.occluder_negative_ratio = occluder_negative_ratio
        self.output_layers = output_layers
        self.vis_period = vis_period
        if output_layers:
            paste_layers_with_masks()

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        """
        Raises:
            ValueError: ROI_MASK_HEAD.CONV_DIM is not the features' channels, or ROI_MASK_HEAD.NORM is set.
        """
        if cfg.MODEL.ROI_MASK_HEAD.NORM:
            raise ValueError(
                f"the bilayer head has no norm but the graph convolution's: MODEL.ROI_MASK_HEAD.NORM must be '', got "
                f"{cfg.MODEL.ROI_MASK_HEAD.NORM!r}"
            )
        return {
            "input_shape": input_shape,
            "output_layers": cfg.MODEL.BILAYER.OUTPUT_LAYERS,
            "vis_period": cfg.VIS_PERIOD,
            **bilayer_keywords(cfg, input_shape.channels),
            **build_mask_loss(cfg),
        }

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> dict[str, Tensor] | Sequence[Instances]:
        """
        Args:
            x: float [N, C, S, S], the pooled features of all images' RoIs.
            instances: per image, the foreground proposals in training, the detections in inference.

        Returns:
            In training the losses by name (`mask_losses`). In inference the instances with ``pred_masks``
            float32 [D, 1, M, M], probabilities, and with `output_layers` the fields of `LAYER_FIELDS` as
            ROIMasks [D, M, M]; detectron2's post-processing pastes them into the image.
        """
        if not self.training:
            return self._predict(x, instances)
        logits = super().forward(x).of_class(torch.cat([i.gt_classes for i in instances]))
        targets = roi_targets(instances, side=logits.occludee_mask.shape[-1], device=x.device)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            _visualize(logits, targets)
        return mask_losses(
            logits, targets, weights=self.loss_weights, occluder_negative_ratio=self.occluder_negative_ratio
        )

    def layers(self, x: Tensor) -> Tensor:
        """The occludee's mask logits alone, [N, K, M, M], as `BaseMaskRCNNHead` asks for."""
        return super().forward(x, masks_only=True).occludee_mask

    def _predict(self, x: Tensor, instances: Sequence[Instances]) -> Sequence[Instances]:
        logits = super().forward(x, masks_only=not self.output_layers)
        logits = logits.of_class(torch.cat([i.pred_classes for i in instances])).float()
        counts = [len(i) for i in instances]
        for name, values in logits._asdict().items():
            if values is None:
                continue
            for image, maps in zip(instances, values.sigmoid().split(counts), strict=True):
                if name == "occludee_mask":
                    image.pred_masks = maps[:, None]
                else:
                    image.set(LAYER_FIELDS[name], ROIMasks(maps))
        return instances


@torch.no_grad()
def roi_targets(instances: Sequence[Instances], *, side: int, device: torch.device) -> MaskTargets:
    """The targets of foreground proposals, bool [N, M, M] each.

    Masks are cropped by their own class: BitMasks with aligned RoIAlign as the stand-alone engine does,
    PolygonMasks by rasterising the polygons in the box.

    Args:
        instances: per image, see `BilayerMaskHead`.
        side: M.
    """
    layers = [torch.zeros(2, 0, side, side, dtype=torch.bool, device=device)]
    for rois in instances:
        if len(rois) == 0:  # an image without ground truth has no masks to crop
            continue
        occluders = rois.gt_occluder_masks if rois.has("gt_occluder_masks") else occluder_masks_of_rois(rois)
        boxes = rois.proposal_boxes.tensor
        layers.append(torch.stack([_crop(masks, boxes, side).to(device) for masks in (rois.gt_masks, occluders)]))
    return mask_targets(torch.cat(layers, dim=1))


def _crop(masks, boxes: Tensor, side: int) -> Tensor:
    cropped = masks.crop_and_resize(boxes, side)
    return cropped if cropped.dtype == torch.bool else cropped > 0.5


def _visualize(logits: MaskLogits, targets: MaskTargets) -> None:
    storage = get_event_storage()
    columns = [
        maps[:_VISUALIZED_ROIS].float()
        for maps in (
            logits.occludee_mask.detach().sigmoid(),
            targets.occludee_mask,
            logits.occluder_mask.detach().sigmoid(),
            targets.occluder_mask,
        )
    ]
    for index, drawing in enumerate(torch.cat(columns, dim=2)):
        storage.put_image(f"Occludee and occluder, prediction and target each ({index})", drawing.expand(3, -1, -1))
