"""The bilayer mask head for detectron2's RoI heads.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, D detections of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY, BaseMaskRCNNHead
from detectron2.structures import Instances, ROIMasks
from detectron2.utils.events import get_event_storage
from torch import Tensor

from bcnet import bilayer
from bcnet.bilayer import MapTarget, map_targets, select_class
from bcnet.detectron2.occluders import occluder_masks_of_rois
from bcnet.detectron2.postprocessing import paste_layers_with_masks
from bcnet.detectron2.shapes import shape_value
from bcnet.maps import OCCLUDEE, OCCLUDEE_MASK, OCCLUDER
from bcnet.modeling.mask_heads import bilayer_keywords

_VISUALIZED_ROIS = 8


@ROI_MASK_HEAD_REGISTRY.register()
class BilayerMaskHead(bilayer.BilayerMaskHead, BaseMaskRCNNHead):
    """`bcnet.bilayer.BilayerMaskHead` with detectron2's interface of a mask head.

    A drop-in for ``MODEL.ROI_MASK_HEAD.NAME``, with the same parameter names as in bcnet's own detectors. In training
    it reads ``proposal_boxes``, ``gt_classes``, ``gt_masks`` and ``gt_occluder_masks`` of the foreground
    proposals; without the last, occluders are derived, see `occluder_masks_of_rois`.
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
        gcn_norm: str = "BN",
        freeze_gcn_norm: bool = False,
        loss_weights: Mapping[str, float] | None = None,
        negative_ratio: float = 1.0,
        output_layers: bool = False,
        vis_period: int = 0,
    ) -> None:
        """
        Args:
            input_shape: of the pooled features; its channels are C.
            num_mask_classes, num_conv, use_gcn, use_boundary, gcn_norm, freeze_gcn_norm, loss_weights: see
                `bcnet.bilayer.BilayerMaskHead`.
            negative_ratio: see `bcnet.bilayer.balanced_rois`.
            output_layers: whether inference returns all maps, not only the masks.
            vis_period: iterations between two drawings of masks in the event storage; 0 draws none.
        """
        super().__init__(
            shape_value(input_shape, "channels"),
            num_conv=num_conv,
            num_mask_classes=num_mask_classes,
            use_gcn=use_gcn,
            use_boundary=use_boundary,
            gcn_norm=gcn_norm,
            freeze_gcn_norm=freeze_gcn_norm,
            loss_weights=loss_weights,
        )
        self.negative_ratio = negative_ratio
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
            **bilayer_keywords(cfg, shape_value(input_shape, "channels")),
            "negative_ratio": cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO,
        }

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> dict[str, Tensor] | Sequence[Instances]:
        """
        Args:
            x: float [N, C, S, S], the pooled features of all images' RoIs.
            instances: per image, the foreground proposals in training, the detections in inference.

        Returns:
            In training the losses by name. In inference the instances with ``pred_masks`` float32 [D, 1, M, M],
            probabilities, and with `output_layers` the other maps (`MapSpec.detectron2_field`) as ROIMasks
            [D, M, M]; detectron2's post-processing pastes them into the image.
        """
        if not self.training:
            return self._predict(x, instances)
        logits = select_class(super().forward(x), torch.cat([i.gt_classes for i in instances]))
        layers = roi_targets(instances, side=next(iter(logits.values())).shape[-1], device=x.device)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            _visualize(logits, map_targets(self.maps, layers))
        return self.losses(logits, layers, negative_ratio=self.negative_ratio)

    def layers(self, x: Tensor) -> Tensor:
        """Only the occludee's mask logits, [N, K, M, M]; required by `BaseMaskRCNNHead`."""
        return super().forward(x, [OCCLUDEE_MASK.name])[OCCLUDEE_MASK.name]

    def _predict(self, x: Tensor, instances: Sequence[Instances]) -> Sequence[Instances]:
        specs = [spec for spec in self.maps if self.output_layers or not spec.on_request]
        logits = super().forward(x, [spec.name for spec in specs])
        logits = select_class(logits, torch.cat([i.pred_classes for i in instances]))
        counts = [len(i) for i in instances]
        for spec in specs:
            maps = logits[spec.name].float().sigmoid().split(counts)
            for image, values in zip(instances, maps, strict=True):
                image.set(
                    spec.detectron2_field, values[:, None] if spec.name == OCCLUDEE_MASK.name else ROIMasks(values)
                )
        return instances


@torch.no_grad()
def roi_targets(instances: Sequence[Instances], *, side: int, device: torch.device) -> dict[str, MapTarget]:
    """The mask layers of foreground proposals, cropped to them: bool [N, M, M] by layer.

    Masks are cropped by their own class: BitMasks with aligned RoIAlign as in bcnet's own trainer, PolygonMasks by
    rasterising the polygons in the box.

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
    occludee, occluder = torch.cat(layers, dim=1)
    return {OCCLUDEE: MapTarget(occludee), OCCLUDER: MapTarget(occluder)}


def _crop(masks, boxes: Tensor, side: int) -> Tensor:
    cropped = masks.crop_and_resize(boxes, side)
    return cropped if cropped.dtype == torch.bool else cropped > 0.5


def _visualize(logits: Mapping[str, Tensor], targets: Mapping[str, MapTarget]) -> None:
    """Writes predictions and targets of some RoIs, side by side, to the event storage, one picture per map and RoI."""
    storage = get_event_storage()
    for name, values in logits.items():
        predicted = values[:_VISUALIZED_ROIS].detach().float().sigmoid()
        both = torch.cat([predicted, targets[name].values[:_VISUALIZED_ROIS].float()], dim=2)
        for index, drawing in enumerate(both):
            storage.put_image(f"{name}, prediction and target ({index})", drawing.expand(3, -1, -1))
