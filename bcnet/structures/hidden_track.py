"""A tracked instance of a video that is hidden behind another one."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class HiddenTrack:
    """A track without a detection in a frame, because another instance covers it (`bcnet.tracking.InstanceTracker`).

    Attributes:
        track_id: its number.
        behind: the number of the track in front of it.
        label: its class, 0..K-1.
        box: xyxy in absolute pixels, where the whole instance is expected: its last whole box, moved on.
        frames: number of frames since it was last detected, at least 1.
    """

    track_id: int
    behind: int
    label: int
    box: tuple[float, float, float, float]
    frames: int

    def rescaled(self, scale_x: float, scale_y: float) -> HiddenTrack:
        """A copy for an image of another size."""
        x0, y0, x1, y1 = self.box
        return replace(self, box=(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y))
