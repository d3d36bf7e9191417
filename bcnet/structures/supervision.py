"""From the package's result object to supervision's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import supervision

    from bcnet.structures.detections import Detections

# Key of `data` for each map beside the mask.
DATA_KEYS = {
    "occludee_boundary": "boundary",
    "occluder_mask": "occluder_mask",
    "occluder_boundary": "occluder_boundary",
}


def detections_to_supervision(detections: Detections) -> supervision.Detections:
    """See `Detections.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'bcnet[supervision]'") from error
    detections = detections.to("cpu")
    classes = detections.classes.numpy()
    pasted = {name: detections.pasted(name).numpy() for name in detections.maps()}
    data = {key: pasted[name] for name, key in DATA_KEYS.items() if name in pasted}
    if detections.class_names:
        data["class_name"] = np.asarray(detections.class_names)[classes]
    return supervision.Detections(
        xyxy=detections.boxes.numpy(),
        mask=pasted.get("occludee_mask"),
        confidence=detections.scores.numpy(),
        class_id=classes,
        data=data,
    )
