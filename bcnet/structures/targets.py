"""Training targets of one image: ground-truth boxes, classes and instance masks.

Letters: G instances.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bcnet.structures.instance_masks import InstanceMasks


@dataclass
class Targets:
    """Ground truth of one image in the coordinates of the network's input (before padding).

    Attributes:
        boxes: float32 [G, 4], xyxy in absolute pixels.
        classes: int64 [G], 0..K-1.
        masks: masks of the G instances, by layer.
        image_id: the data set's id of the image.
    """

    boxes: Tensor
    classes: Tensor
    masks: InstanceMasks
    image_id: int | str | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must be [G, 4], got {tuple(self.boxes.shape)}")
        if not len(self.boxes) == len(self.classes) == len(self.masks):
            raise ValueError(
                f"boxes, classes and masks must be of one length, got {len(self.boxes)}, "
                f"{len(self.classes)} and {len(self.masks)}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index) -> Targets:
        return Targets(self.boxes[index], self.classes[index], self.masks[index], self.image_id)

    def to(self, device, non_blocking: bool = False) -> Targets:
        return Targets(
            self.boxes.to(device, non_blocking=non_blocking),
            self.classes.to(device, non_blocking=non_blocking),
            self.masks.to(device, non_blocking),
            self.image_id,
        )

    def pin_memory(self) -> Targets:
        return Targets(self.boxes.pin_memory(), self.classes.pin_memory(), self.masks.pin_memory(), self.image_id)
