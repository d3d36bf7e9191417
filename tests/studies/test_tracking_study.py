"""The study of identity switches: simulated detections, and what is measured."""

import numpy as np
import pytest

from bcnet.data.synthetic.motion import clip_truth
from bcnet.tracking import InstanceTracker
from studies.tracking.__main__ import detected_clip, scene_config, tracked
from studies.tracking.measures import summary
from studies.tracking.simulation import Noise, is_visible, simulated

EXACT = Noise(box=0, missed=0, false_alarms=0, wrong_order=0, unseen_order=0)


def test_simulated_detections_without_noise_are_the_truth():
    config = scene_config()
    objects = list(clip_truth(config, 1, 3, 40))[20]
    visible = [o for o in objects if is_visible(o, EXACT)]
    detections = simulated(objects, config.image_size, "amodal", EXACT, np.random.default_rng(0))
    xywh = detections.boxes.clone()
    xywh[:, 2:] -= xywh[:, :2]
    assert xywh.tolist() == [list(map(float, o.bbox)) for o in visible]
    assert detections.classes.tolist() == [o.category_id - 1 for o in visible]
    covers = detections.occluded_by > 0
    for i, below in enumerate(visible):
        for j, above in enumerate(visible):
            shared = (below.amodal_mask & above.visible_mask).sum()
            assert covers[i, j] == (j < i and shared >= 20)
    boxes = InstanceTracker().update(detections)
    assert boxes.track_ids.tolist() == list(range(len(visible)))


def test_perfect_detections_of_a_clip_are_counted():
    frames = detected_clip(1, 3, 30, None)["order"]
    figures = summary(tracked(frames, 4.0))
    alone = summary(tracked(frames, 0.0))
    assert figures["objects"] == alone["objects"] > 3
    assert (alone["reports"], alone["reported"]) == (0, 0)
    assert figures["reported"] <= figures["hidden frames"]
    assert figures["identity switches"] <= alone["identity switches"]
    assert figures["IDF1"] == pytest.approx(alone["IDF1"], abs=30)
