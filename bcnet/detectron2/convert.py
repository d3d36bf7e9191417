"""Conversion between detectron2's `Instances` and `Detections`.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Instances, ROIMasks
from torch import Tensor

from bcnet.detectron2.postprocessing import ImageBoxes
from bcnet.maps import BUILT_IN_MAPS, OCCLUDEE_MASK, MapSpec
from bcnet.structures import Detections


def kept_maps(instances: Instances) -> dict[str, Tensor]:
    """The maps in the RoI frame that `BilayerMaskHead` keeps with the boxes, float32 [D, M, M] by map name."""
    return getattr(instances.pred_boxes, "maps", {})


def instances_to_detections(
    instances: Instances,
    *,
    class_names: Sequence[str] = (),
    specs: Sequence[MapSpec] = BUILT_IN_MAPS,
    resampled_side: int | None = None,
) -> Detections:
    """The result object of an image's `Instances`, for layer pictures, occlusion relations, files and metrics.

    Of a model with `BilayerMaskHead`, before or after post-processing, the maps are the head's own probabilities: the
    result is that of the engine's model. Instances that were rebuilt from a trace's tensors, or joined with other
    boxes, have these maps before post-processing alone; `Detections.rescaled` then does what it does.
    `bcnet.occlusion.with_relations` adds the relations where the instances have the occluder's maps
    (MODEL.BILAYER.OUTPUT_LAYERS). Detections are sorted by descending score.

    Args:
        instances: with ``pred_boxes``, ``scores`` and ``pred_classes``.
        class_names: names of the classes 0..K-1.
        specs: records of the maps that the head may have.
        resampled_side: M of maps of which only the pixels [D, H, W] in the image are left, as of another mask head:
            they are resampled to their boxes, which moves edges by up to half a map pixel. None: this is an error.

    Raises:
        ValueError: maps in the image without those that they were pasted from, and no `resampled_side`.
    """
    order = torch.argsort(instances.scores, descending=True, stable=True)
    maps = {spec.name: values for spec in specs if (values := _roi_map(instances, spec, resampled_side)) is not None}
    height, width = instances.image_size
    return Detections(
        image_size=(int(height), int(width)),
        boxes=instances.pred_boxes.tensor[order],
        scores=instances.scores[order],
        classes=instances.pred_classes[order],
        maps={name: values[order] for name, values in maps.items()},
        class_names=tuple(class_names),
        specs=tuple(specs),
    )


def _roi_map(instances: Instances, spec: MapSpec, resampled_side: int | None) -> Tensor | None:
    """A map in the RoI frame, float [D, M, M]; None if the instances lack it."""
    kept = kept_maps(instances)
    if spec.name in kept:
        return kept[spec.name]
    if not instances.has(spec.detectron2_field):
        return None
    value = instances.get(spec.detectron2_field)
    if isinstance(value, ROIMasks):
        return value.tensor
    if spec.name == OCCLUDEE_MASK.name and isinstance(value, Tensor) and value.ndim == 4:
        return value[:, 0]  # detectron2's masks before post-processing
    return _resampled(instances, spec.detectron2_field, resampled_side)


def _resampled(instances: Instances, field: str, side: int | None) -> Tensor:
    if side is None:
        raise ValueError(
            f"these instances have {field} in the image and not the maps that they were pasted from, which pred_boxes "
            "of a model with BilayerMaskHead keep, but not those of another head, of instances rebuilt from a trace, "
            "or joined with such: convert them before detector_postprocess (Detections.rescaled follows), or give "
            "resampled_side, such as 112, to resample the masks to their boxes"
        )
    masks = BitMasks(instances.get(field)).crop_and_resize(instances.pred_boxes.tensor, side)
    return masks.to(torch.float32)


def detections_to_instances(detections: Detections) -> Instances:
    """The `Instances` that detectron2's models return for an image; `Detections.to_detectron2` calls it.

    Returns:
        Instances: ``pred_boxes``, ``scores``, ``pred_classes``, and of the maps that are present ``pred_masks``,
        ``pred_boundaries``, ``pred_occluder_masks``, ``pred_occluder_boundaries`` and ``pred_amodal_masks``, bool
        [D, H, W]. The boxes keep the maps themselves (`ImageBoxes`).
    """
    # Maps of scaled RoIs do not span the boxes.
    maps = detections.maps if detections.roi_scale == 1 else {}
    instances = Instances(
        detections.image_size,
        pred_boxes=ImageBoxes(detections.boxes, maps),
        scores=detections.scores,
        pred_classes=detections.classes,
    )
    for spec in detections.present:
        instances.set(spec.detectron2_field, detections.pasted(spec.name))
    return instances
