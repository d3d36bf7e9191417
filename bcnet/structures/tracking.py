"""Tracking of instances from frame to frame of a video, by the overlap of their boxes.

Letters: D detections, T tracks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torchvision.ops import box_iou

from bcnet.structures.detections import Detections


class InstanceTracker:
    """Numbers that stay with an instance from frame to frame (`Detections.track_ids`).

    A detection takes the number of the track of its class with which its box has the largest IoU, best pairs first;
    without one of at least `iou_threshold` it starts a new track. Nothing is predicted, and an instance that leaves for
    longer than `patience` frames comes back with another number.
    """

    def __init__(self, iou_threshold: float = 0.3, patience: int = 15) -> None:
        self.iou_threshold = iou_threshold
        self.patience = patience
        self._boxes = torch.zeros(0, 4)
        self._classes = torch.zeros(0, dtype=torch.int64)
        self._numbers: list[int] = []
        self._missed: list[int] = []
        self._next = 0

    def update(self, detections: Detections) -> Detections:
        """The detections of the next frame, with their tracks, counted from 0."""
        boxes, classes = detections.boxes.cpu().float(), detections.classes.cpu()
        overlaps = box_iou(boxes, self._boxes) * (classes[:, None] == self._classes)  # [D, T]
        assigned: dict[int, int] = {}  # number by position
        free = set(range(len(self._numbers)))
        for flat in overlaps.flatten().argsort(descending=True, stable=True).tolist():
            index, track = divmod(flat, len(self._numbers))
            if overlaps[index, track] < self.iou_threshold:
                break
            if index not in assigned and track in free:
                assigned[index] = self._numbers[track]
                free.discard(track)
        for index in range(len(boxes)):
            if index not in assigned:
                assigned[index], self._next = self._next, self._next + 1
        numbers = [assigned[index] for index in range(len(boxes))]
        kept = [track for track in sorted(free) if self._missed[track] < self.patience]
        self._missed = [0] * len(boxes) + [self._missed[track] + 1 for track in kept]
        self._numbers = numbers + [self._numbers[track] for track in kept]
        self._boxes = torch.cat([boxes, self._boxes[kept]])
        self._classes = torch.cat([classes, self._classes[kept]])
        track_ids = torch.tensor(numbers, dtype=torch.int64, device=detections.boxes.device)
        return replace(detections, track_ids=track_ids)
