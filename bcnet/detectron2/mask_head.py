"""bcnet's mask heads for detectron2's RoI heads: bilayer, with a side branch, and plain with a boundary decoder.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, D detections of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY, BaseMaskRCNNHead
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from bcnet import bilayer
from bcnet.bilayer import MapTarget, map_targets, select_class
from bcnet.data.source_masks import OCCLUDER_TARGETS
from bcnet.detectron2.checkpoint import adopt_weights
from bcnet.detectron2.keys import check_head_keys
from bcnet.detectron2.postprocessing import ImageBoxes, ImageMaps
from bcnet.detectron2.shapes import shape_value
from bcnet.detectron2.targets import roi_targets
from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDEE_MASK, PUBLISHED_MAPS, MapSpec, required_layers
from bcnet.modeling.mask_heads import bilayer_keywords, plain_keywords

_VISUALIZED_ROIS = 8


class HostMaskHead(bilayer.MaskHead):
    """detectron2's interface of a mask head, before a `bcnet.bilayer.MaskHead` in the order of base classes.

    In training it reads ``proposal_boxes``, ``gt_classes`` and the masks that the head's maps learn from; in inference
    it gives ``pred_masks`` and the other maps.
    """

    output_layers: bool

    def _set_up(
        self,
        input_shape: ShapeSpec,
        *,
        num_mask_classes: int,
        output_layers: bool,
        vis_period: int,
        requires_frozen_detector: bool,
        negative_ratio: float = 1.0,
        occluder_target: str = "neighbours",
    ) -> None:
        self.channels = shape_value(input_shape, "channels")
        self.num_mask_classes = num_mask_classes
        self.requires_frozen_detector = requires_frozen_detector
        self.negative_ratio = negative_ratio
        self.occluder_target = occluder_target
        self.output_layers = output_layers
        self.vis_period = vis_period
        self.register_load_state_dict_pre_hook(adopt_weights)

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> dict[str, Tensor] | Sequence[Instances]:
        """
        Args:
            x: float [N, C, S, S], the pooled features of all images' RoIs.
            instances: per image, the foreground proposals in training, the detections in inference.

        Returns:
            In training the losses by name. In inference the instances with ``pred_masks`` float32 [D, 1, M, M],
            probabilities, and the other maps (`MapSpec.detectron2_field`) as `ImageMaps` [D, M, M], which the
            post-processing pastes into the image: all of them with `output_layers`, otherwise the amodal masks alone,
            where the head has them. ``pred_boxes`` become `ImageBoxes`, which keep the probabilities.

        Raises:
            ValueError: the features have other channels than `input_shape`; on a CPU, a class for which there is no
                mask; in training, the instances lack the masks that a map learns from, or the detector is not frozen.
        """
        if not torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            self._check_inputs(x, instances)
        if not self.training:
            return self._predict(x, instances)
        logits = select_class(super().forward(x), torch.cat([i.gt_classes for i in instances]))
        side = next(iter(logits.values())).shape[-1]
        layers = roi_targets(
            instances,
            required_layers(self.maps),
            side=side,
            device=x.device,
            derive_occluders=self.occluder_target == "neighbours",
        )
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            _visualize(logits, map_targets(self.maps, layers))
        return self.losses(logits, layers, negative_ratio=self.negative_ratio)

    def _check_inputs(self, x: Tensor, instances: Sequence[Instances]) -> None:
        if x.shape[1] != self.channels:
            raise ValueError(
                f"the mask head was built for {self.channels} channels (input_shape) and gets features of "
                f"{x.shape[1]}: give ShapeSpec(channels={x.shape[1]}, ...)"
            )
        if self.training and self.requires_frozen_detector and x.requires_grad:
            raise ValueError(
                "MODEL.FREEZE_DETECTOR is True and the detector is not frozen: call "
                "bcnet.detectron2.freeze_detector(model) in your trainer's build_model, as BCNetTrainer does"
            )
        if self.num_mask_classes > 1 and x.device.type == "cpu":  # on a GPU the check would wait for it
            field = "gt_classes" if self.training else "pred_classes"
            highest = max((int(i.get(field).max()) for i in instances if len(i)), default=0)
            if highest >= self.num_mask_classes:
                raise ValueError(
                    f"the mask head has masks of {self.num_mask_classes} classes (num_mask_classes) and gets an "
                    f"object of class {highest}: it must be 1, or the number of classes of the RoI heads"
                )

    def layers(self, x: Tensor) -> Tensor:
        """Only the occludee's mask logits, [N, K, M, M]; required by `BaseMaskRCNNHead`."""
        return super().forward(x, [OCCLUDEE_MASK.name])[OCCLUDEE_MASK.name]

    def _predicted_maps(self) -> list[MapSpec]:
        return [spec for spec in self.maps if self.output_layers or not spec.on_request]

    def _predict(self, x: Tensor, instances: Sequence[Instances]) -> Sequence[Instances]:
        specs = self._predicted_maps()
        logits = super().forward(x, [spec.name for spec in specs])
        logits = select_class(logits, torch.cat([i.pred_classes for i in instances]))
        # Not `len`: while a model is traced the number of detections is a tensor.
        counts = [i.pred_classes.shape[0] for i in instances]
        for spec in specs:
            maps = logits[spec.name].float().sigmoid().split(counts)
            for image, values in zip(instances, maps, strict=True):
                is_mask = spec.name == OCCLUDEE_MASK.name
                image.set(spec.detectron2_field, values[:, None] if is_mask else ImageMaps(values))
                if image.has("pred_boxes"):
                    before = getattr(image.pred_boxes, "maps", {})
                    image.pred_boxes = ImageBoxes(image.pred_boxes.tensor, {**before, spec.name: values})
        return instances


class LayeredMaskHead(HostMaskHead):
    """Base of the heads with an occluder and an occludee, before the head of `bcnet.bilayer` in the order of bases.

    A drop-in for ``MODEL.ROI_MASK_HEAD.NAME``, with the same parameter names as in bcnet's own detectors. In training
    it reads ``proposal_boxes``, ``gt_classes``, ``gt_masks`` and ``gt_occluder_masks`` of the foreground
    proposals; without the last, occluders are derived, see `occluder_masks_of_rois`. With MODEL.BILAYER.AMODAL it reads
    ``gt_amodal_masks`` too, and inference gives ``pred_amodal_masks``.
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
        maps: Sequence[MapSpec] = PUBLISHED_MAPS,
        amodal: bool = False,
        loss_weights: Mapping[str, float] | None = None,
        negative_ratio: float = 1.0,
        occluder_target: str = "neighbours",
        output_layers: bool = False,
        vis_period: int = 0,
        requires_frozen_detector: bool = False,
    ) -> None:
        """
        Args:
            input_shape: of the pooled features; its channels are C.
            num_mask_classes, num_conv, use_gcn, use_boundary, gcn_norm, freeze_gcn_norm, maps, loss_weights: see
                `bcnet.bilayer.BilayerMaskHead`.
            amodal: adds the map of the amodal mask (MODEL.BILAYER.AMODAL). A lazy config holds no `maps`.
            negative_ratio: see `bcnet.bilayer.balanced_rois`.
            occluder_target: "neighbours" or "front", what the mapper's occluder masks are. Only "neighbours" can be
                derived here, where the batch has none.
            output_layers: whether inference gives all maps, not only those that are not `MapSpec.on_request`.
            vis_period: iterations between two drawings of masks in the event storage; 0 draws none.
            requires_frozen_detector: MODEL.FREEZE_DETECTOR, which a head cannot see to: features with a gradient are
                an error in training, see `freeze_detector`.

        Raises:
            ValueError: another `occluder_target`, or a negative loss weight.
        """
        if occluder_target not in OCCLUDER_TARGETS:
            raise ValueError(f"occluder_target must be one of {', '.join(OCCLUDER_TARGETS)}, got {occluder_target!r}")
        of_the_head: dict[str, Any] = {
            "num_conv": num_conv,
            "num_mask_classes": num_mask_classes,
            "use_gcn": use_gcn,
            "use_boundary": use_boundary,
            "gcn_norm": gcn_norm,
            "freeze_gcn_norm": freeze_gcn_norm,
            "maps": (*maps, OCCLUDEE_AMODAL) if amodal else maps,
            "loss_weights": loss_weights,
        }
        channels = shape_value(input_shape, "channels")
        super().__init__(channels, **of_the_head)  # pyright: ignore[reportArgumentType]  # of the next base
        self._set_up(
            input_shape,
            num_mask_classes=num_mask_classes,
            negative_ratio=negative_ratio,
            occluder_target=occluder_target,
            output_layers=output_layers,
            vis_period=vis_period,
            requires_frozen_detector=requires_frozen_detector,
        )

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        """
        Raises:
            ValueError: bcnet's keys are not in the config, or one has a wrong value; the features are not
                pooled; ROI_MASK_HEAD.CONV_DIM is not the features' channels, ROI_MASK_HEAD.NORM is set, or
                ROI_MASK_HEAD.ROI_SCALE is not 1: detectron2's RoI heads pool the boxes as they are.
        """
        return {
            **_host_keywords(cfg, input_shape),
            **bilayer_keywords(cfg, shape_value(input_shape, "channels")),
            "negative_ratio": cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO,
            "occluder_target": cfg.MODEL.BILAYER.OCCLUDER_TARGET,
        }


@ROI_MASK_HEAD_REGISTRY.register()
class BilayerMaskHead(LayeredMaskHead, bilayer.BilayerMaskHead, BaseMaskRCNNHead):
    """`bcnet.bilayer.BilayerMaskHead` with detectron2's interface of a mask head."""


@ROI_MASK_HEAD_REGISTRY.register()
class SideBranchMaskHead(LayeredMaskHead, bilayer.SideBranchMaskHead, BaseMaskRCNNHead):
    """`bcnet.bilayer.SideBranchMaskHead` with detectron2's interface of a mask head."""


@ROI_MASK_HEAD_REGISTRY.register()
class PlainMaskHead(HostMaskHead, bilayer.PlainMaskHead, BaseMaskRCNNHead):
    """`bcnet.bilayer.PlainMaskHead`: detectron2's MaskRCNNConvUpsampleHead, and with a boundary decoder if asked.

    MODEL.ROI_MASK_HEAD.BOUNDARY adds the decoder and its loss; ``pred_boundaries`` come with `output_layers`. Weights
    of detectron2's Mask R-CNN fit.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        channels: int = 256,
        num_mask_classes: int = 1,
        num_conv: int = 4,
        use_boundary: bool = False,
        loss_weights: Mapping[str, float] | None = None,
        output_layers: bool = False,
        vis_period: int = 0,
        requires_frozen_detector: bool = False,
    ) -> None:
        """
        Args:
            channels, num_mask_classes, num_conv, use_boundary, loss_weights: see `bcnet.bilayer.PlainMaskHead`.
            input_shape, output_layers, vis_period, requires_frozen_detector: see `LayeredMaskHead`.
        """
        super().__init__(
            shape_value(input_shape, "channels"),
            channels,
            num_conv=num_conv,
            num_mask_classes=num_mask_classes,
            use_boundary=use_boundary,
            loss_weights=loss_weights,
        )
        self._set_up(
            input_shape,
            num_mask_classes=num_mask_classes,
            output_layers=output_layers,
            vis_period=vis_period,
            requires_frozen_detector=requires_frozen_detector,
        )

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        """
        Raises:
            ValueError: as of `LayeredMaskHead.from_config`, and of `bcnet.modeling.mask_heads.plain_keywords`.
        """
        return {**_host_keywords(cfg, input_shape), **plain_keywords(cfg, shape_value(input_shape, "channels"))}


def _host_keywords(cfg, input_shape: ShapeSpec) -> dict:
    """The keywords that both heads take from detectron2's config, after a check of what neither supports."""
    check_head_keys(cfg)
    if not isinstance(input_shape, ShapeSpec):
        raise ValueError(
            "the mask head takes pooled features: MODEL.ROI_MASK_HEAD.POOLER_TYPE must be 'ROIAlignV2' or "
            f"another pooler, got {cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE!r} (as PointRend's configs have it)"
        )
    if cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE != 1:
        raise ValueError(
            "detectron2's RoI heads pool the boxes as they are: MODEL.ROI_MASK_HEAD.ROI_SCALE must be 1.0 in the "
            f"plugin, got {cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE}"
        )
    if cfg.MODEL.ROI_MASK_HEAD.NORM:
        raise ValueError(
            f"{cfg.MODEL.ROI_MASK_HEAD.NAME} has no norm of its convolutions: MODEL.ROI_MASK_HEAD.NORM must be '', got "
            f"{cfg.MODEL.ROI_MASK_HEAD.NORM!r}"
        )
    return {
        "input_shape": input_shape,
        "output_layers": cfg.MODEL.BILAYER.OUTPUT_LAYERS,
        "vis_period": cfg.VIS_PERIOD,
        "requires_frozen_detector": cfg.MODEL.FREEZE_DETECTOR,
    }


def _visualize(logits: Mapping[str, Tensor], targets: Mapping[str, MapTarget]) -> None:
    """Writes predictions and targets of some RoIs, side by side, to the event storage, one picture per map and RoI."""
    storage = get_event_storage()
    for name, values in logits.items():
        predicted = values[:_VISUALIZED_ROIS].detach().float().sigmoid()
        both = torch.cat([predicted, targets[name].values[:_VISUALIZED_ROIS].float()], dim=2)
        for index, drawing in enumerate(both):
            storage.put_image(f"{name}, prediction and target ({index})", drawing.expand(3, -1, -1))
