"""Association of boxes from frame to frame."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bcnet.tracking.byte_track import BoxTracker


def update(tracker, boxes, scores=None, classes=None):
    count = len(boxes)
    scores = np.full(count, 0.9) if scores is None else np.array(scores)
    classes = np.zeros(count, int) if classes is None else np.array(classes)
    return tracker.update(np.array(boxes, dtype=float).reshape(-1, 4), scores, classes)


def test_a_track_has_one_tracklet_from_its_first_frame_on():
    tracker = BoxTracker(frame_rate=30, new_track_score=0.5, patience=1)
    left, right = update(tracker, [[0, 0, 20, 20], [40, 0, 60, 20]])
    assert left is not right and tracker.tracklets == [left, right]
    assert update(tracker, [[42, 2, 62, 22], [3, 0, 23, 20]]) == [right, left]
    assert update(tracker, []) == []
    assert update(tracker, [[90, 90, 99, 99], [5, 0, 25, 20]])[1] is left
    assert len(tracker.tracklets) == 3


def test_low_scores_only_go_on_with_a_track():
    tracker = BoxTracker(frame_rate=30, new_track_score=0.5, patience=1)
    sure, unsure = update(tracker, [[0, 0, 20, 20], [40, 0, 60, 20]], [0.9, 0.2])
    assert unsure is None
    assert update(tracker, [[0, 0, 20, 20]], [0.2]) == [sure]


def test_classes_are_not_mixed():
    tracker = BoxTracker(frame_rate=30, new_track_score=0.5, patience=1)
    first, second = update(tracker, [[0, 0, 20, 20], [1, 0, 21, 20]], classes=[0, 3])
    assert update(tracker, [[0, 0, 20, 20], [1, 0, 21, 20]], classes=[3, 0]) == [second, first]


def test_a_track_ends_after_the_patience_or_at_once():
    tracker = BoxTracker(frame_rate=10, new_track_score=0.5, patience=0.3)
    first, second = update(tracker, [[0, 0, 20, 20], [40, 0, 60, 20]])
    update(tracker, [[0, 0, 20, 20], [40, 0, 60, 20]])
    tracker.end(second)
    tracker.end(second)
    for _ in range(3):
        update(tracker, [])
        assert tracker.tracklets == [first]
    update(tracker, [])
    assert tracker.tracklets == []


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ImportError, match=r"pip install 'bcnet\[video\]'"):
        BoxTracker(frame_rate=30, new_track_score=0.5, patience=1)
