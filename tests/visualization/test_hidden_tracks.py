"""Tracks that are hidden in a frame: dashed boxes and labels."""

import numpy as np
import torch

from bcnet.structures import Detections
from bcnet.structures.hidden_track import HiddenTrack
from bcnet.visualization import draw_detections, style
from bcnet.visualization.hidden_tracks import hidden_labels

GREY = np.full((100, 200, 3), 90, np.uint8)
HIDDEN = HiddenTrack(3, 1, 0, (20.0, 20.0, 80.0, 70.0), 5)


def frame(*hidden):
    empty = torch.zeros(0)
    return Detections(
        (100, 200), empty.reshape(0, 4), empty, empty.long(), track_ids=empty.long(), hidden_tracks=hidden
    )


def test_a_dashed_box_in_the_colour_of_the_track():
    drawn = draw_detections(GREY, frame(HIDDEN), labels=False)
    color = style.instance_color(3)
    for side in (drawn[20, 20:80], drawn[69, 20:80], drawn[20:70, 20], drawn[20:70, 79]):
        colored = (side == color).all(axis=1)
        assert 0.4 < colored.mean() < 0.7 and ((side == 90).all(axis=1) | colored).all()
    assert (drawn[30:60, 30:70] == 90).all()
    larger = draw_detections(GREY, frame(HIDDEN), labels=False, long_side=400)
    assert (larger[40, 40:160] == color).all(axis=1).any() and (larger[20, :] == 90).all()
    assert (draw_detections(GREY, frame(HIDDEN), labels=False, boxes=False) == 90).all()


def test_the_label_says_what_is_in_front():
    assert hidden_labels([HIDDEN]) == ["#4 behind #2"]
    with_label, without = (draw_detections(GREY, frame(HIDDEN), labels=labels) for labels in (True, False))
    assert (with_label != without).any() and (draw_detections(GREY, frame()) == 90).all()
