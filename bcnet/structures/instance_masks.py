"""Instance masks stored as tight windows with named layers (occludee, occluder, amodal), for ground truth.

Letters: G instances, L layers, P pixels of all windows, H x W image, h x w window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class InstanceMasks:
    """Masks of G instances, each a window of the image with L layers.

    A window holds all pixels of its instance's layers plus a margin of one pixel, for bilinear sampling at the masks'
    edge. At the image's edge the margin repeats the edge pixel, as RoIAlign on the full image would.
    The windows are concatenated in one tensor: a large instance does not pad the others.

    A layer may have a companion, `unknown_layer` of its name, whose pixels the losses ignore.

    Attributes:
        layers: the L names, such as ("occludee", "occluder").
        pixels: uint8 [P], 0 or 1: the windows [L, h, w] of the instances in order.
        windows: int64 array [G, 4], image coordinates (x, y) of each window's first pixel (-1 is possible because of
            the margin), width and height. Not a tensor: shapes must be known without host-device synchronisation.
        places: int64 [G, 4] on the device of the pixels: x, y, and the instance's group and position in it
            (`padded_groups`). Derived from the windows.
    """

    layers: tuple[str, ...]
    pixels: Tensor
    windows: np.ndarray
    places: Tensor = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or self.windows.shape[1] != 4:
            raise ValueError(f"windows must be [G, 4], got {tuple(self.windows.shape)}")
        areas = len(self.layers) * self.windows[:, 2:].prod(axis=1)
        if self.pixels.dtype != torch.uint8 or self.pixels.shape != (int(areas.sum()),):
            raise ValueError(
                f"pixels must be uint8 [{int(areas.sum())}] like the windows, got {self.pixels.dtype} "
                f"{tuple(self.pixels.shape)}"
            )
        self._ends = areas.cumsum().tolist()
        if self.places is None:
            self.places = self._places()

    @classmethod
    def from_full(cls, layers: Mapping[str, Tensor]) -> InstanceMasks:
        """From full-image masks by layer name, bool or uint8 [G, H, W] each.

        Raises:
            ValueError: the layers do not have the same three-dimensional shape.
        """
        shapes = {name: tuple(masks.shape) for name, masks in layers.items()}
        if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 3:
            raise ValueError(f"the layers must have one shape [G, H, W], got {shapes}")
        stacked = torch.stack(list(layers.values()), dim=1).to(torch.uint8)
        crops = [_tight_window(masks) for masks in stacked]
        return cls.from_windows(tuple(layers), [c for c, _ in crops], [o for _, o in crops], device=stacked.device)

    @classmethod
    def from_windows(
        cls, layers: Sequence[str], crops: Sequence[Tensor], origins: Sequence[tuple[int, int]], device=None
    ) -> InstanceMasks:
        """From windows, uint8 [L, h_i, w_i] each, that already include their margin, and their origins (x, y)."""
        windows = [[x, y, crop.shape[2], crop.shape[1]] for crop, (x, y) in zip(crops, origins, strict=True)]
        pixels = torch.cat([torch.zeros(0, dtype=torch.uint8, device=device), *(c.flatten() for c in crops)])
        return cls(tuple(layers), pixels, np.array(windows, dtype=np.int64).reshape(-1, 4))

    @classmethod
    def without_pixels(cls, count: int, layers: Sequence[str] = ()) -> InstanceMasks:
        """Empty masks of `count` instances, for detectors without masks."""
        return cls(tuple(layers), torch.zeros(0, dtype=torch.uint8), np.zeros((count, 4), dtype=np.int64))

    def window(self, index: int) -> Tensor:
        """The window of an instance: uint8 [L, h, w], a view."""
        width, height = self.windows[index, 2:].tolist()
        end = self._ends[index]
        return self.pixels[end - len(self.layers) * height * width : end].view(len(self.layers), height, width)

    def to_full(self, height: int, width: int) -> Tensor:
        """The layers in the full image: uint8 [G, L, H, W]."""
        full = torch.zeros(len(self), len(self.layers), height, width, dtype=torch.uint8, device=self.pixels.device)
        for index, (x, y, w, h) in enumerate(self.windows.tolist()):
            x0, y0 = max(x, 0), max(y, 0)
            x1, y1 = min(x + w, width), min(y + h, height)
            full[index, :, y0:y1, x0:x1] = self.window(index)[:, y0 - y : y1 - y, x0 - x : x1 - x]
        return full

    def nonempty(self, name: str) -> Tensor:
        """Which instances have a pixel in a layer: bool [G]; all False where there is no such layer."""
        flags = torch.zeros(len(self), dtype=torch.bool, device=self.pixels.device)
        if name in self.layers:
            position = self.layers.index(name)
            for index in range(len(self)):
                flags[index] = self.window(index)[position].any()
        return flags

    def boxes(self, name: str) -> Tensor:
        """Boxes around the pixels of a layer: float32 [G, 4], xyxy in absolute pixels; zeros for an empty mask."""
        boxes = torch.zeros(len(self), 4, device=self.pixels.device)
        position = self.layers.index(name)
        for index, (x, y, width, height) in enumerate(self.windows.tolist()):
            # The window's margin lies outside the image or repeats its edge.
            inner = self.window(index)[position, 1 : height - 1, 1 : width - 1]
            rows, columns = inner.any(dim=1).nonzero()[:, 0], inner.any(dim=0).nonzero()[:, 0]
            if len(rows):
                boxes[index] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                boxes[index] += torch.tensor([x, y, x, y], device=boxes.device) + 1
        return boxes

    def padded_groups(self) -> Iterator[Tensor]:
        """Windows of similar size, zero-padded to one size: uint8 [g, L, h, w] each.

        Groups are formed by the powers of two above the windows' sides, so a window is padded to less than four times
        its area. `places` has the group and position of each instance.
        """
        for members in self._groups():
            width, height = self.windows[members, 2:].max(axis=0).tolist()
            padded = self.pixels.new_zeros(len(members), len(self.layers), height, width)
            for target, index in zip(padded, members, strict=True):
                window = self.window(index)
                target[:, : window.shape[1], : window.shape[2]] = window
            yield padded

    def _groups(self) -> list[list[int]]:
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (width, height) in enumerate(self.windows[:, 2:].tolist()):
            groups.setdefault((width.bit_length(), height.bit_length()), []).append(index)
        return list(groups.values())

    def _places(self) -> Tensor:
        places = self.windows.copy()
        for group, members in enumerate(self._groups()):
            places[members, 2] = group
            places[members, 3] = np.arange(len(members))
        return torch.from_numpy(places).to(self.pixels.device)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index) -> InstanceMasks:
        """The masks of some instances: a bool or int64 tensor, a list or a slice."""
        index = index.cpu().numpy() if isinstance(index, Tensor) else index
        chosen = np.arange(len(self))[index].tolist()
        crops = [self.window(i) for i in chosen]
        origins = [tuple(self.windows[i, :2].tolist()) for i in chosen]
        return InstanceMasks.from_windows(self.layers, crops, origins, device=self.pixels.device)

    def to(self, device, non_blocking: bool = False) -> InstanceMasks:
        return InstanceMasks(
            self.layers,
            self.pixels.to(device, non_blocking=non_blocking),
            self.windows,
            self.places.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> InstanceMasks:
        return InstanceMasks(self.layers, self.pixels.pin_memory(), self.windows, self.places.pin_memory())


def _tight_window(layers: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The window of one instance's full-image layers (uint8 [L, H, W]) and its origin (x, y)."""
    union = layers.amax(dim=0)
    rows = union.amax(dim=1).nonzero()
    if len(rows) == 0:
        return layers.new_zeros(len(layers), 1, 1), (0, 0)
    columns = union.amax(dim=0).nonzero()
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    height, width = layers.shape[-2:]
    with_margin_rows = torch.arange(y0 - 1, y1 + 1, device=layers.device).clamp(0, height - 1)
    with_margin_columns = torch.arange(x0 - 1, x1 + 1, device=layers.device).clamp(0, width - 1)
    return layers[:, with_margin_rows][:, :, with_margin_columns], (x0 - 1, y0 - 1)
