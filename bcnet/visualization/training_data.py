"""Training targets as detections, so that they are drawn like those.

Letters: G instances, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bcnet.bilayer.targets import crop_layers, map_targets
from bcnet.maps import BUILT_IN_MAPS, MapSpec, required_layers
from bcnet.structures import Detections, Targets


def detections_from_targets(
    targets: Targets,
    image_size: tuple[int, int],
    class_names: Sequence[str] = (),
    side: int = 28,
    *,
    specs: Sequence[MapSpec] | None = None,
) -> Detections:
    """The targets as if they were a perfect model's detections, so that they are drawn like those.

    The maps are the mask head's training targets for RoIs that are exactly the boxes: both layers' masks,
    cropped, their boundaries (dilation != erosion with the 3x3 cross), and the amodal masks where there are any.

    Args:
        targets: of one image.
        image_size: (H, W) of the image that the targets are for.
        class_names: names of the classes 0..K-1.
        side: M; 28 is what the head learns, a larger one shows the masks in more detail.
        specs: the maps whose targets are shown; None shows the built-in ones that the masks have the layers for.

    Returns:
        Detections: in the targets' order, every score 1.
    """
    targets = targets.to("cpu")
    if specs is None:
        specs = [spec for spec in BUILT_IN_MAPS if set(required_layers([spec])) <= set(targets.masks.layers)]
    count = len(targets)
    layers = crop_layers(targets.masks, targets.boxes, torch.arange(count), side)
    maps = {name: target.values.float() for name, target in map_targets(specs, layers).items()}
    return Detections(
        image_size=tuple(image_size),
        boxes=targets.boxes,
        scores=torch.ones(count),
        classes=targets.classes,
        class_names=tuple(class_names),
        maps=maps,
        specs=tuple(specs),
    )
