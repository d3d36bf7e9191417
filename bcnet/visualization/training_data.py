"""Conversion of training targets to detections, to draw them with the same functions.

Letters: G instances, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bcnet.bilayer.targets import crop_layers, map_targets
from bcnet.maps import (
    AMODAL,
    MASK,
    OCCLUDEE_AMODAL,
    PUBLISHED_MAPS,
    UNKNOWN,
    MapSpec,
    required_layers,
    unknown_layer,
)
from bcnet.ops.boxes import scaled_boxes
from bcnet.structures import Detections, Targets

_AMODAL_TARGET = MapSpec(
    name="amodal_target", short_name="amodal_target", layer=AMODAL, target=AMODAL, loss_name="", title="mask"
)


def target_maps(layers: Sequence[str]) -> tuple[MapSpec, ...]:
    """Records of the maps to show of targets with these mask layers: the published ones, and the amodal mask.

    An amodal mask that is unknown in part has a panel of its own, which shows the unknown pixels.
    """
    amodal = _AMODAL_TARGET if unknown_layer(AMODAL) in layers else OCCLUDEE_AMODAL
    return tuple(spec for spec in (*PUBLISHED_MAPS, amodal) if set(required_layers([spec])) <= set(layers))


def detections_from_targets(
    targets: Targets,
    image_size: tuple[int, int],
    class_names: Sequence[str] = (),
    side: int = 28,
    *,
    specs: Sequence[MapSpec] | None = None,
    roi_scale: float = 1.0,
) -> Detections:
    """The targets in the form of the detections of a perfect model.

    The maps are the mask head's training targets for RoIs that are exactly the boxes, scaled as the head scales them:
    both layers' masks, cropped, and their boundaries (dilation != erosion with the 3x3 cross). Where pixels of a mask's
    target are unknown, a map of kind "unknown" of its layer is 1 there.

    Args:
        targets: of one image.
        image_size: (H, W) of the image that the targets are for.
        class_names: names of the classes 0..K-1.
        side: M; 28 is the mask head's resolution, a larger one shows the masks in more detail.
        specs: the maps whose targets are shown; None shows `target_maps` of the targets' mask layers.
        roi_scale: MODEL.ROI_MASK_HEAD.ROI_SCALE.

    Returns:
        Detections: in the targets' order, every score 1.
    """
    targets = targets.to("cpu")
    if specs is None:
        specs = target_maps(targets.masks.layers)
    count = len(targets)
    layers = crop_layers(targets.masks, scaled_boxes(targets.boxes, roi_scale), torch.arange(count), side)
    targets_by_map = map_targets(specs, layers)
    maps = {name: target.values.float() for name, target in targets_by_map.items()}
    specs = list(specs)
    for spec in list(specs):
        known = targets_by_map[spec.name].known
        if spec.kind != MASK or known is None:
            continue
        name = f"{spec.name}_unknown"
        maps[name] = (~known).float()
        specs.append(replace(spec, name=name, short_name=f"{spec.short_name}_unknown", kind=UNKNOWN, title=UNKNOWN))
    return Detections(
        image_size=(image_size[0], image_size[1]),
        boxes=targets.boxes,
        scores=torch.ones(count),
        classes=targets.classes,
        class_names=tuple(class_names),
        maps=maps,
        specs=tuple(specs),
        roi_scale=roi_scale,
    )
