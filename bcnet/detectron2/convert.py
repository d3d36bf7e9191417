"""Conversion of `Detections` to detectron2's `Instances`."""

from __future__ import annotations

from detectron2.structures import Boxes, Instances

from bcnet.structures import Detections


def detections_to_instances(detections: Detections) -> Instances:
    """The `Instances` that detectron2's models return for an image; `Detections.to_detectron2` calls it.

    Returns:
        Instances: ``pred_boxes``, ``scores``, ``pred_classes``, and of the maps that are present ``pred_masks``,
        ``pred_boundaries``, ``pred_occluder_masks``, ``pred_occluder_boundaries`` and ``pred_amodal_masks``, bool
        [D, H, W].
    """
    instances = Instances(
        detections.image_size,
        pred_boxes=Boxes(detections.boxes),
        scores=detections.scores,
        pred_classes=detections.classes,
    )
    for spec in detections.present:
        instances.set(spec.detectron2_field, detections.pasted(spec.name))
    return instances
