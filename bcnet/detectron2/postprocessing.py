"""Pasting of the mask head's maps from the RoI frame into the image, as part of detectron2's post-processing.

detectron2 pastes ``pred_masks`` by name and has no hook behind it. Every copy of its `detector_postprocess` scales
``pred_boxes``, clips them to the image and keeps ``instances[boxes.nonempty()]``. `ImageBoxes` notes the image that it
is clipped to, and `ImageMaps` pastes itself when it is indexed by such boxes' `nonempty`. Nothing in detectron2 is
replaced: this works in every meta-architecture, whatever was imported first.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import Tensor

from bcnet.maps import OCCLUDEE_MASK
from bcnet.ops.paste import paste_masks

_BOXES = "_clipped_boxes"  # attribute of a mask that `ImageBoxes.nonempty` returned


class ImageBoxes(Boxes):
    """Boxes with the maps that span them, which note the image they were clipped to.

    Attributes:
        maps: float32 [D, M, M] by map name, probabilities in the RoI frame, which post-processing leaves as they are.
        image_size: (H, W) of the last `clip`; None before it.
    """

    def __init__(self, tensor: Tensor, maps: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(tensor)
        self.maps = dict(maps or {})
        self.image_size: tuple[int, int] | None = None

    def clip(self, box_size: tuple[int, int]) -> None:
        super().clip(box_size)
        self.image_size = box_size

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        keep = super().nonempty(threshold)
        if self.image_size is not None:
            setattr(keep, _BOXES, self)
        return keep

    def clone(self) -> ImageBoxes:
        return self._map_tensors(Tensor.clone)

    def to(self, device) -> ImageBoxes:
        return self._map_tensors(lambda tensor: tensor.to(device=device))

    def __getitem__(self, item) -> ImageBoxes:
        rows = slice(item, item + 1 or None) if isinstance(item, int) else item
        return self._map_tensors(lambda tensor: tensor[rows])

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> ImageBoxes:
        """Joins boxes, with the maps that all of them have; those of no detection need none."""
        maps = [getattr(boxes, "maps", {}) for boxes in boxes_list if len(boxes)]
        names = [name for name in (maps[0] if maps else ()) if all(name in other for other in maps)]
        joined = cls(Boxes.cat(list(boxes_list)).tensor, {name: torch.cat([m[name] for m in maps]) for name in names})
        sizes = {getattr(boxes, "image_size", None) for boxes in boxes_list}
        joined.image_size = sizes.pop() if len(sizes) == 1 else None
        return joined

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> ImageBoxes:
        maps = {name: function(values) for name, values in self.maps.items()}
        boxes = ImageBoxes(function(self.tensor), maps)
        boxes.image_size = self.image_size
        return boxes


class ImageMaps(ROIMasks):
    """Maps of the RoI frame, float [D, M, M], that become bool [D, H, W] in detectron2's post-processing.

    Pasted at a probability of 1/2. Indexed otherwise, and by `to`, they stay maps of the RoI frame.
    """

    def to(self, device) -> ImageMaps:
        return ImageMaps(self.tensor.to(device))

    @classmethod
    def cat(cls, maps_list: Sequence[ROIMasks]) -> ImageMaps:
        """Joins maps of the RoI frame, as `Instances.cat` needs it."""
        return cls(torch.cat([maps.tensor for maps in maps_list]))

    def __getitem__(self, item) -> ImageMaps | Tensor:
        maps = self.tensor[item]
        boxes = getattr(item, _BOXES, None)
        if boxes is not None and torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return ROIMasks(maps).to_bitmasks(boxes[item], *boxes.image_size).tensor  # for any number of detections
        if boxes is not None:
            return paste_masks(maps, boxes.tensor[item], boxes.image_size)
        return ImageMaps(maps)


def paste_layers(instances: Instances) -> Instances:
    """Pastes maps that are still in the RoI frame into the image of ``pred_boxes``, for post-processing of your own.

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
