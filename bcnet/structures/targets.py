"""Ground truth of one image, as the model is trained on it.

Letters: G instances, L=2 layers (0 occludee, 1 occluder), H x W image, h x w window, N RoIs, M mask side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

OCCLUDEE, OCCLUDER = 0, 1


@dataclass
class InstanceMasks:
    """Occludee and occluder masks of G instances, kept as windows rather than full images.

    Both masks of an instance share a window that holds all of their pixels plus a margin of one pixel,
    which is what bilinear sampling at the mask's edge reads. At the image's edge the margin repeats the
    edge pixel, as RoIAlign on the full image would. Windows are zero-padded to the largest of the image.

    Attributes:
        bitmaps: uint8 [G, 2, h, w], 0 or 1; layer 0 is the occludee, layer 1 the occluder.
        origins: int64 [G, 2], image coordinates (x, y) of each window's first pixel; -1 is possible
            because of the margin.
    """

    bitmaps: Tensor
    origins: Tensor

    def __post_init__(self) -> None:
        if self.bitmaps.ndim != 4 or self.bitmaps.shape[1] != 2 or self.bitmaps.dtype != torch.uint8:
            raise ValueError(
                f"bitmaps must be uint8 [G, 2, h, w], got {self.bitmaps.dtype} {tuple(self.bitmaps.shape)}"
            )
        if self.origins.shape != (len(self.bitmaps), 2):
            raise ValueError(
                f"origins must be [{len(self.bitmaps)}, 2] like the bitmaps, got {tuple(self.origins.shape)}"
            )

    @classmethod
    def from_full(cls, occludee: Tensor, occluder: Tensor) -> InstanceMasks:
        """From full-image masks, bool or uint8 [G, H, W] each.

        Raises:
            ValueError: the two do not have the same three-dimensional shape.
        """
        if occludee.ndim != 3 or occludee.shape != occluder.shape:
            raise ValueError(
                f"occludee and occluder masks must be [G, H, W] alike, got {tuple(occludee.shape)} "
                f"and {tuple(occluder.shape)}"
            )
        both = torch.stack([occludee, occluder], dim=1).to(torch.uint8)
        crops, origins = [], []
        for layers in both:
            crop, origin = _window(layers)
            crops.append(crop)
            origins.append(origin)
        return cls.from_windows(crops, origins, device=both.device)

    @classmethod
    def from_windows(cls, crops: list[Tensor], origins: list[tuple[int, int]], device=None) -> InstanceMasks:
        """From windows, uint8 [2, h_i, w_i] each, that already carry their margin."""
        if not crops:
            return cls(
                torch.zeros(0, 2, 1, 1, dtype=torch.uint8, device=device),
                torch.zeros(0, 2, dtype=torch.int64, device=device),
            )
        height = max(c.shape[1] for c in crops)
        width = max(c.shape[2] for c in crops)
        bitmaps = torch.zeros(len(crops), 2, height, width, dtype=torch.uint8, device=device)
        for bitmap, crop in zip(bitmaps, crops, strict=True):
            bitmap[:, : crop.shape[1], : crop.shape[2]] = crop
        return cls(bitmaps, torch.tensor(origins, dtype=torch.int64, device=device))

    def to_full(self, height: int, width: int) -> Tensor:
        """The masks in the full image: uint8 [G, 2, H, W]."""
        full = torch.zeros(len(self), 2, height, width, dtype=torch.uint8, device=self.bitmaps.device)
        h, w = self.bitmaps.shape[-2:]
        for image, bitmap, (x, y) in zip(full, self.bitmaps, self.origins.tolist(), strict=True):
            x0, y0 = max(x, 0), max(y, 0)
            x1, y1 = min(x + w, width), min(y + h, height)
            image[:, y0:y1, x0:x1] = bitmap[:, y0 - y : y1 - y, x0 - x : x1 - x]
        return full

    def __len__(self) -> int:
        return len(self.bitmaps)

    def __getitem__(self, index) -> InstanceMasks:
        return InstanceMasks(self.bitmaps[index], self.origins[index])

    def to(self, device, non_blocking: bool = False) -> InstanceMasks:
        return InstanceMasks(
            self.bitmaps.to(device, non_blocking=non_blocking), self.origins.to(device, non_blocking=non_blocking)
        )

    def pin_memory(self) -> InstanceMasks:
        return InstanceMasks(self.bitmaps.pin_memory(), self.origins.pin_memory())


def _window(layers: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The window of one instance's full-image masks (uint8 [2, H, W]) and its origin (x, y)."""
    union = layers.amax(dim=0)
    rows = union.amax(dim=1).nonzero()
    if len(rows) == 0:
        return layers.new_zeros(2, 1, 1), (0, 0)
    columns = union.amax(dim=0).nonzero()
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    return cut_window(layers, x0, y0, x1, y1)


def cut_window(layers: Tensor, x0: int, y0: int, x1: int, y1: int) -> tuple[Tensor, tuple[int, int]]:
    """Cuts pixels [y0, y1) x [x0, x1) of [2, H, W] masks with the margin of one that `InstanceMasks` asks for."""
    height, width = layers.shape[-2:]
    rows = torch.arange(y0 - 1, y1 + 1, device=layers.device).clamp(0, height - 1)
    columns = torch.arange(x0 - 1, x1 + 1, device=layers.device).clamp(0, width - 1)
    return layers[:, rows][:, :, columns], (x0 - 1, y0 - 1)


@dataclass
class Targets:
    """Ground truth of one image in the coordinates of the network's input (before padding).

    Attributes:
        boxes: float32 [G, 4], xyxy in absolute pixels.
        classes: int64 [G], 0..K-1.
        masks: the two layers' masks of the G instances.
    """

    boxes: Tensor
    classes: Tensor
    masks: InstanceMasks
    image_id: int | str | None = field(default=None)

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
