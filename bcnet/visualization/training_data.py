"""Training targets as detections, so that they are drawn like those.

Letters: G instances, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bcnet.bilayer.targets import crop_layers, map_targets
from bcnet.maps import PUBLISHED_MAPS, MapSpec
from bcnet.structures import Detections, Targets


def detections_from_targets(
    targets: Targets,
    image_size: tuple[int, int],
    class_names: Sequence[str] = (),
    side: int = 28,
    *,
    specs: Sequence[MapSpec] = PUBLISHED_MAPS,
) -> Detections:
    """The targets as if they were a perfect model's detections, so that they are drawn like those.

    The maps are the mask head's training targets for RoIs that are exactly the boxes: both layers' masks,
    cropped, and their boundaries (dilation != erosion with the 3x3 cross).

    Args:
        targets: of one image.
        image_size: (H, W) of the image that the targets are for.
        class_names: names of the classes 0..K-1.
        side: M; 28 is what the head learns, a larger one shows the masks in more detail.
        specs: the maps whose targets are shown.

    Returns:
        Detections: in the targets' order, every score 1.
    """
    targets = targets.to("cpu")
    count = len(targets)
    layers = crop_layers(targets.masks, targets.boxes, torch.arange(count), side)
    maps = {name: target.values.float() for name, target in map_targets(specs, layers).items()}
    return Detections(
        image_size=(image_size[0], image_size[1]),
        boxes=targets.boxes,
        scores=torch.ones(count),
        classes=targets.classes,
        class_names=tuple(class_names),
        maps=maps,
        specs=tuple(specs),
    )
