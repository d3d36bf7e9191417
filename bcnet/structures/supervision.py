"""Conversion of `Detections` to supervision's `Detections`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDEE_MASK

if TYPE_CHECKING:
    import supervision

    from bcnet.structures.detections import Detections


def detections_to_supervision(detections: Detections) -> supervision.Detections:
    """See `Detections.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'bcnet[supervision]'") from error
    detections = detections.to("cpu")
    classes = detections.classes.numpy()
    maps = {spec.short_name: detections.pasted(spec.name).numpy() for spec in detections.present}
    mask = maps.pop(OCCLUDEE_MASK.short_name, None)
    data: dict[str, np.ndarray | list] = {**maps}
    if mask is not None and detections.has_hidden_parts:
        data["hidden_mask"] = maps[OCCLUDEE_AMODAL.short_name] & ~mask
        data["occluded_fraction"] = detections.occluded_fraction.numpy()
    if detections.class_names:
        data["class_name"] = np.asarray(detections.class_names)[classes]
    tracks = detections.track_ids
    return supervision.Detections(
        xyxy=detections.boxes.numpy(),
        mask=mask,
        confidence=detections.scores.numpy(),
        class_id=classes,
        tracker_id=None if tracks is None else tracks.numpy(),
        data=data,
    )
