"""The occluder's maps and the boundaries, from the RoI frame into the image.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

import functools

from detectron2.modeling.meta_arch import rcnn
from detectron2.structures import Instances, ROIMasks

from bcnet.ops.paste import paste_masks

# Field of Instances for each map beside pred_masks, by the map's name in `MaskLogits`.
LAYER_FIELDS = {
    "occludee_boundary": "pred_boundaries",
    "occluder_mask": "pred_occluder_masks",
    "occluder_boundary": "pred_occluder_boundaries",
}


def paste_layers(instances: Instances) -> Instances:
    """Pastes the layers' maps that are still in the RoI frame into the image that ``pred_boxes`` lie in.

    Args:
        instances: the fields of `LAYER_FIELDS` that are ROIMasks [D, M, M] (probabilities) become bool
            [D, H, W] at 1/2; other fields, and absent ones, stay as they are.

    Returns:
        Instances: the same object.
    """
    for field in LAYER_FIELDS.values():
        if instances.has(field) and isinstance(instances.get(field), ROIMasks):
            maps = instances.get(field).tensor
            instances.set(field, paste_masks(maps, instances.pred_boxes.tensor, instances.image_size))
    return instances


def paste_layers_with_masks() -> None:
    """Makes `GeneralizedRCNN` paste the layers where it pastes ``pred_masks``.

    detectron2 pastes by the field's name and has no hook behind it, so its `detector_postprocess` is wrapped
    in the module of `GeneralizedRCNN`. Called by the first head that is asked for the layers; Instances
    without them are not touched.
    """
    original = rcnn.detector_postprocess
    if getattr(original, "pastes_layers", False):
        return

    @functools.wraps(original)
    def detector_postprocess(results: Instances, *args, **kwargs) -> Instances:
        return paste_layers(original(results, *args, **kwargs))

    detector_postprocess.pastes_layers = True
    rcnn.detector_postprocess = detector_postprocess
