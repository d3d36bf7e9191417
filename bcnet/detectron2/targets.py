"""Mask targets of detectron2's proposals: their matched ground-truth masks, cropped and resized to the RoIs.

Letters: N RoIs, M mask side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor
from torchvision.ops import roi_align

from bcnet.bilayer import MapTarget, join_crops
from bcnet.bilayer.targets import HALF_FLOAT32
from bcnet.detectron2.occluders import occluder_masks_of_rois
from bcnet.maps import OCCLUDEE, OCCLUDER, unknown_layer


@torch.no_grad()
def roi_targets(
    instances: Sequence[Instances],
    layers: Iterable[str] = (OCCLUDEE, OCCLUDER),
    *,
    side: int,
    device: torch.device,
    derive_occluders: bool = True,
) -> dict[str, MapTarget]:
    """The mask layers of foreground proposals, cropped to them: bool [N, M, M] by layer.

    Masks are cropped by their own class: BitMasks with aligned RoIAlign as in bcnet's own trainer, PolygonMasks by
    rasterising the polygons in the box. Where the batch has the unknown pixels of a layer
    (``gt_<layer>_unknown_masks``), pixels of the crop that they could change are unknown, as in `crop_layers`.

    Args:
        instances: per image, see `BilayerMaskHead`.
        layers: names of the layers; "occludee" is ``gt_masks``, another one ``gt_<layer>_masks``.
        side: M.
        derive_occluders: whether occluders are derived where the batch has none.

    Raises:
        ValueError: the instances lack the masks of a layer.
    """
    layers = tuple(layers)
    nothing = torch.zeros(0, side, side, dtype=torch.bool, device=device)
    crops = [dict.fromkeys(layers, MapTarget(nothing))]
    for rois in instances:
        if len(rois) > 0:  # an image without ground truth has no masks to crop
            crops.append({layer: _crop_layer(rois, layer, side, device, derive_occluders) for layer in layers})
    return join_crops(crops)


def _crop_layer(rois: Instances, layer: str, side: int, device: torch.device, derive_occluders: bool) -> MapTarget:
    masks, boxes = _layer_masks(rois, layer, derive_occluders), rois.proposal_boxes.tensor
    unknown = f"gt_{unknown_layer(layer)}_masks"
    if not rois.has(unknown):
        cropped = masks.crop_and_resize(boxes, side)
        return MapTarget((cropped if cropped.dtype == torch.bool else cropped > 0.5).to(device))
    average = _averages(masks, boxes, side)
    values = average >= HALF_FLOAT32
    known = values | (average + _averages(rois.get(unknown), boxes, side) < HALF_FLOAT32)
    return MapTarget(values.to(device), known.to(device))


def _averages(masks: BitMasks, boxes: Tensor, side: int) -> Tensor:
    """RoIAlign of bitmasks, of which `BitMasks.crop_and_resize` gives only what is above 1/2: float32 [N, M, M]."""
    pixels = masks.tensor[:, None].float()
    numbers = torch.arange(len(boxes), device=pixels.device, dtype=torch.float32)[:, None]
    boxes = torch.cat([numbers, boxes.to(pixels)], dim=1)
    return roi_align(pixels, boxes, side, spatial_scale=1.0, sampling_ratio=0, aligned=True)[:, 0]


def _layer_masks(rois: Instances, layer: str, derive_occluders: bool):
    field = "gt_masks" if layer == OCCLUDEE else f"gt_{layer}_masks"
    if rois.has(field):
        return rois.get(field)
    if layer == OCCLUDER and derive_occluders:
        return occluder_masks_of_rois(rois)
    fields = ", ".join(rois.get_fields())
    if layer == OCCLUDER:
        raise ValueError(
            f"MODEL.BILAYER.OCCLUDER_TARGET is 'front' and an image of the batch has no {field}: only "
            f"BCNetDatasetMapper knows what lies in front; the image has {fields}"
        )
    raise ValueError(
        f"the mask head learns {layer} masks and an image of the batch has no {field}: BCNetDatasetMapper sets it "
        f"from {layer}_segmentation (amodal_masks=True, MODEL.BILAYER.AMODAL); the image has {fields}"
    )
