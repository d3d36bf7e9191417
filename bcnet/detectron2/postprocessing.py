"""Post-processing for detectron2: pastes occluder masks and boundaries from the RoI frame into the image.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

import functools

from detectron2.modeling.meta_arch import rcnn
from detectron2.structures import Instances, ROIMasks

from bcnet.maps import OCCLUDEE_MASK
from bcnet.ops.paste import paste_masks


def paste_layers(instances: Instances) -> Instances:
    """Pastes maps that are still in the RoI frame into the image of ``pred_boxes``.

    Args:
        instances: fields that are ROIMasks [D, M, M] (probabilities) become bool [D, H, W] at 1/2; ``pred_masks``,
            which detectron2 pastes itself, and other fields stay as they are.

    Returns:
        Instances: the same object.
    """
    for field, value in instances.get_fields().items():
        if field != OCCLUDEE_MASK.detectron2_field and isinstance(value, ROIMasks):
            instances.set(field, paste_masks(value.tensor, instances.pred_boxes.tensor, instances.image_size))
    return instances


def paste_layers_with_masks() -> None:
    """Makes `GeneralizedRCNN` paste the layers where it pastes ``pred_masks``.

    detectron2 pastes by field name and offers no hook after it, so `detector_postprocess` is wrapped in the module of
    `GeneralizedRCNN`. Called by the first head with `output_layers`; Instances without layers are unchanged.
    """
    original = rcnn.detector_postprocess
    if getattr(original, "pastes_layers", False):
        return

    @functools.wraps(original)
    def detector_postprocess(results: Instances, *args, **kwargs) -> Instances:
        return paste_layers(original(results, *args, **kwargs))

    detector_postprocess.__dict__["pastes_layers"] = True
    rcnn.detector_postprocess = detector_postprocess
