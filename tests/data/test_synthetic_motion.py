"""Rendered clips: exact truth of objects that move across each other."""

import numpy as np
import pytest

from bcnet.data.synthetic import SceneConfig
from bcnet.data.synthetic.motion import clip_truth, render_clip

CONFIG = SceneConfig.preset("easy", image_size=96, min_objects=4, max_objects=5, object_size=(0.15, 0.65))


def test_the_truth_of_each_frame_is_exact():
    hidden = moved = 0
    boxes: dict[int, set] = {}
    for scene in render_clip(CONFIG, 1, 4, 12):
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        occupied = np.zeros((96, 96), bool)
        for instance in scene.objects:  # nearest first
            assert np.array_equal(instance.visible_mask, instance.amodal_mask & ~occupied)
            assert instance.visible_area == instance.visible_mask.sum()
            assert instance.amodal_area == instance.amodal_mask.sum() > 0
            hidden += instance.hidden_fraction > 0.5
            occupied |= instance.amodal_mask
            boxes.setdefault(instance.depth, set()).add(instance.amodal_bbox)
        assert [o.depth for o in scene.objects] == sorted({o.depth for o in scene.objects})
    moved = sum(len(places) > 4 for places in boxes.values())
    assert hidden and moved >= 2


def test_a_clip_depends_on_its_seed_and_index_alone():
    first, again, other = (list(render_clip(CONFIG, 1, index, 3)) for index in (0, 0, 1))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)
    truth = list(clip_truth(CONFIG, 1, 0, 3))
    for scene, objects in zip(first, truth, strict=True):
        assert [o.bbox for o in scene.objects] == [o.bbox for o in objects]


def test_a_clip_has_a_frame():
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        next(render_clip(CONFIG, 1, 0, 0))
