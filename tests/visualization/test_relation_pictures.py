"""Arrows from occluder to occludee, and the panel of the order of depth."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from bcnet.ops.paste import Window
from bcnet.structures import Detections
from bcnet.visualization import draw_detections, draw_layers
from bcnet.visualization.arrows import ArrowRouter
from bcnet.visualization.layers import layer_panels
from bcnet.visualization.overlay import label_texts
from bcnet.visualization.relations import depth_colors, place_anchors
from bcnet.visualization.style import instance_color

SIZE = (100, 160)
LEFT, RIGHT = [10, 30, 50, 70], [100, 30, 140, 70]


def scene(confidence):
    return Detections(
        SIZE,
        torch.tensor([LEFT, RIGHT], dtype=torch.float32),
        torch.tensor([0.9, 0.8]),
        torch.zeros(2, dtype=torch.int64),
        {"occludee_mask": torch.ones(2, 28, 28), "occluder_mask": torch.zeros(2, 28, 28)},
        occluded_by=torch.tensor(confidence),
    )


GREY = np.full((*SIZE, 3), 120, dtype=np.uint8)
PLAIN = {"boxes": False, "labels": False, "opacity": 0.0}


def between(picture):
    """The part between the two instances."""
    return picture[:, 56:94]


def test_the_arrow_has_the_occluders_colour_and_points_at_the_occludee():
    # The right one lies on the left one.
    picture = draw_detections(GREY, scene([[0.0, 1.0], [0.0, 0.0]]), relations=True, **PLAIN)
    without = draw_detections(GREY, scene([[0.0, 1.0], [0.0, 0.0]]), **PLAIN)
    assert (between(without) == 120).all()
    is_arrow = (between(picture) == instance_color(1)).all(axis=2)
    assert is_arrow.any()
    # The head is the widest part, near the middle of the left instance at x = 30.
    heights = ((picture != without).any(axis=2)).sum(axis=0)
    assert heights[30:50].max() > heights[56:94].max() + 4
    assert heights[100:120].max() <= heights[56:94].max() + 1


def test_no_arrow_without_a_direction():
    both = scene([[0.0, 0.9], [0.9, 0.0]])
    assert (between(draw_detections(GREY, both, relations=True, **PLAIN)) == 120).all()
    none = scene([[0.0, 0.2], [0.1, 0.0]])
    assert (between(draw_detections(GREY, none, relations=True, **PLAIN)) == 120).all()


def test_an_arrow_is_fainter_where_its_direction_is_less_sure():
    def strength(backward):
        picture = draw_detections(GREY, scene([[0.0, 0.9], [backward, 0.0]]), relations=True, **PLAIN)
        return np.abs(between(picture).astype(int) - 120).sum()

    assert strength(0.0) > strength(0.6) > strength(0.8) > 0


def test_arrows_need_relations():
    found = scene([[0.0, 1.0], [0.0, 0.0]])
    found.occluded_by = None
    with pytest.raises(ValueError, match="have no relations"):
        draw_detections(GREY, found, relations=True)


def test_the_order_has_a_panel_of_its_own_where_there_are_relations():
    with_relations = scene([[0.0, 1.0], [0.0, 0.0]])
    with_order = draw_layers(GREY, with_relations)
    without = draw_layers(GREY, replace(with_relations, occluded_by=None))
    assert with_order.shape[1] > without.shape[1]
    # What lies in front is the brighter one; a corner of each mask, away from numbers and arrows.
    panel = layer_panels(GREY, with_relations)["order"].picture.astype(int).sum(axis=2)
    assert panel[34:40, 130:136].mean() > panel[34:40, 14:20].mean() + 100
    # The colours of its legend are those of the masks, up to the image below.
    legend = depth_colors(1)
    assert all((with_order == color).all(axis=2).sum() > 50 for color in legend)


def test_discs_have_the_numbers_of_the_labels_and_the_empty_layer_does_not_deny_the_arrows():
    found = scene([[0.0, 1.0], [0.0, 0.0]])
    panels = layer_panels(GREY, found)
    assert panels["occluder"].explanation == (
        "empty: no occluder mask fills 1% of a box. The depth order comes from so few pixels too"
    )
    renamed = layer_panels(GREY, replace(found, track_ids=torch.tensor([0, 41])))["order"].picture
    swapped = layer_panels(GREY, replace(found, track_ids=torch.tensor([0, 1])))["order"].picture
    assert np.array_equal(swapped, panels["order"].picture) and not np.array_equal(renamed, swapped)
    assert label_texts(replace(found, track_ids=torch.tensor([0, 41]))) == ["#1 class 0 90%", "#42 class 0 80%"]
    unrelated = scene([[0.0, 0.0], [0.0, 0.0]])
    assert layer_panels(GREY, unrelated)["occluder"].explanation == "empty: nothing covers an object"  # of targets too
    unrelated.maps["occluder_mask"][:] = 0.25
    assert layer_panels(GREY, unrelated)["occluder"].explanation == (
        "empty: nothing covers an object. No probability reaches 0.5; the highest is 0.25"
    )


def test_an_empty_image_has_an_empty_order():
    empty = scene([[0.0, 1.0], [0.0, 0.0]])[:0]
    draw_layers(GREY, empty)
    draw_detections(GREY, empty, relations=True)


def test_tracks_stand_for_colours():
    found = scene([[0.0, 0.0], [0.0, 0.0]])
    as_usual = draw_detections(GREY, found, labels=False)
    swapped = draw_detections(GREY, replace(found, track_ids=torch.tensor([1, 0])), labels=False)
    assert np.array_equal(swapped[50, 30], as_usual[50, 120])


def lengths_in_common(first, second):
    """Share of the points of a curve that lie within four pixels of another one."""
    return (np.linalg.norm(first[:, None] - second[None], axis=2).min(axis=1) < 4).mean()


def test_arrows_do_not_lie_on_each_other():
    places = [(20.0, 50.0), (140.0, 50.0), (80.0, 52.0)]
    router = ArrowRouter(SIZE, places, margin=8, width=2)
    short = router.route(0, 2)
    far = router.route(0, 1)  # straight on, it would run along the first one and through the third place
    assert np.abs(short[:, 1] - 51).max() < 2
    assert lengths_in_common(far, short) < 0.3
    assert np.linalg.norm(far - places[2], axis=1).min() > 8
    assert router.route(0, 0) is None


def test_ends_of_arrows_keep_apart_where_masks_have_room():
    mask = np.ones((60, 100), dtype=bool)
    regions = [(Window(0, 0, 100, 60), mask)] * 3
    anchors = place_anchors(regions, [[0, 0, 100, 60]] * 3, radius=8)
    distances = [np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in itertools.combinations(anchors, 2)]
    assert min(distances) >= 20
    nothing = (Window(0, 0, 100, 60), np.zeros((60, 100), dtype=bool))
    assert place_anchors([nothing], [[10, 20, 30, 40]], radius=8) == [(20.0, 30.0)]
