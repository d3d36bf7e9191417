"""Occlusion relations between detections: confidences from the layers, occlusion graph, depth order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcnet.occlusion import hidden_part_confidence, occluder_confidence, with_relations
from bcnet.ops.paste import paste_windows
from bcnet.structures import Detections, OcclusionGraph

SIDE = 28


def in_box(region, box, value=1.0):
    """A map [M, M] of a box: `value` in a region x0, y0, x1, y1 of the image, 0 elsewhere."""
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    xs, ys = (box[a] + centres * (box[a + 2] - box[a]) for a in (0, 1))
    inside = (xs >= region[0]) & (xs < region[2]), (ys >= region[1]) & (ys < region[3])
    return (inside[1][:, None] & inside[0]).float() * value


def scene(boxes, visible, occluders, size=(100, 120)):
    """Detections whose mask is a rectangle each, and whose occluder map is a rectangle with a probability, or none."""
    return Detections(
        image_size=size,
        boxes=torch.tensor(boxes, dtype=torch.float32),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        classes=torch.zeros(len(boxes), dtype=torch.int64),
        maps={
            "occludee_mask": torch.stack([in_box(region, box) for region, box in zip(visible, boxes, strict=True)]),
            "occluder_mask": torch.stack(
                [
                    torch.zeros(SIDE, SIDE) if region is None else in_box(region[:4], box, region[4])
                    for region, box in zip(occluders, boxes, strict=True)
                ]
            ),
        },
    )


# The post stands in front of the bench and hides its middle; the kite overlaps no other object.
BENCH, POST, KITE = [10, 50, 94, 78], [38, 22, 66, 78], [100, 0, 120, 20]
BOXES = [BENCH, POST, KITE]


def bench_behind_post(probability=0.8):
    return scene(BOXES, [[10, 50, 38, 78], POST, KITE], [[38, 50, 66, 78, probability], None, None])


def test_the_confidence_is_the_mean_probability_over_the_occluders_pixels():
    confidence = occluder_confidence(bench_behind_post(0.8))
    expected = torch.zeros(3, 3)
    expected[0, 1] = 0.8
    torch.testing.assert_close(confidence, expected, atol=0.02, rtol=0)


def test_it_equals_a_sum_over_the_images_pixels():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(8, 1, 4, 4), SIDE, mode="bicubic", align_corners=False)[:, 0]
    maps = smooth.clamp(0, 1).split(4)
    low = torch.rand(4, 2) * 150
    boxes = torch.cat([low, low + 100 + 100 * torch.rand(4, 2)], dim=1)
    found = Detections(
        (300, 400),
        boxes,
        torch.ones(4),
        torch.zeros(4, dtype=torch.int64),
        dict(zip(("occludee_mask", "occluder_mask"), maps, strict=True)),
    )
    images = []
    for name in ("occludee_mask", "occluder_mask"):
        images.append(torch.zeros(4, 300, 400))
        for image, (window, values) in zip(
            images[-1], paste_windows(getattr(found, name), boxes, (300, 400)), strict=True
        ):
            image[window.y0 : window.y1, window.x0 : window.x1] = values
    masks, occluders = images
    expected = torch.zeros(4, 4)
    for i, (x0, y0, x1, y1) in enumerate(boxes.round().int().tolist()):
        for j in range(4):
            visible = (masks[j] * (1 - occluders[j]))[y0:y1, x0:x1]
            if i != j and visible.any():
                expected[i, j] = (occluders[i][y0:y1, x0:x1] * visible).sum() / visible.sum()
    torch.testing.assert_close(occluder_confidence(found), expected, atol=0.02, rtol=0)


def test_hidden_parts_of_an_amodal_mask_are_no_evidence():
    # Both masks are amodal. The bench's occluder layer shows the post; nothing occludes the post.
    found = scene(BOXES, [BENCH, POST, KITE], [[38, 50, 66, 78, 1.0], None, None])
    confidence = occluder_confidence(found)
    assert confidence[0, 1] > 0.95
    assert confidence[1, 0] == 0
    # An occluder of both the bench and a third object below it is no evidence about those two.
    third = [12, 40, 92, 76]
    found = scene([BENCH, POST, third], [BENCH, POST, third], [[38, 50, 66, 78, 1.0], None, [38, 40, 66, 76, 1.0]])
    confidence = occluder_confidence(found)
    assert confidence[0, 2] < 0.05
    assert confidence[2, 0] < 0.05


def test_too_few_pixels_are_no_evidence():
    found = scene([[0, 0, 40, 40], [36, 36, 80, 80]], [[0, 0, 40, 40], [36, 36, 80, 80]], [[36, 36, 40, 40, 1.0], None])
    assert occluder_confidence(found)[0, 1] == 0  # 16 pixels
    assert occluder_confidence(found, min_pixels=15)[0, 1] > 0.5


def test_boxes_outside_the_image_and_no_detections():
    found = scene([[-50, -50, -10, -10], [-60, -40, 30, 30]], [[0, 0, 1, 1]] * 2, [None, None])
    assert not occluder_confidence(found).any()
    empty = with_relations(bench_behind_post()[:0])
    assert empty.occluded_by.shape == (0, 0)
    assert empty.occlusion.edges == []
    assert len(empty.occlusion.order.depth) == 0


def test_many_pairs_are_worked_through_in_parts(monkeypatch):
    found = bench_behind_post()
    found = found[torch.tensor([0, 1, 0, 1, 2, 0])]
    whole = occluder_confidence(found)
    monkeypatch.setattr("bcnet.occlusion.relations.PAIRS_AT_ONCE", 2)
    assert torch.equal(occluder_confidence(found), whole)


def test_relations_need_both_layers():
    found = bench_behind_post()
    del found.maps["occluder_mask"]
    with pytest.raises(
        ValueError, match="relations need the occluder_mask of the detections, which have: occludee_mask"
    ):
        occluder_confidence(found)
    assert with_relations(found) is found
    with pytest.raises(ValueError, match="have no relations; predict with with_occluder=True"):
        _ = found.occlusion


def test_detections_carry_their_relations():
    found = with_relations(bench_behind_post())
    assert [edge[:2] for edge in found.occlusion.edges] == [(0, 1)]
    assert found.occlusion.order.depth.tolist() == [1, 0, 0]
    without_kite = found[torch.tensor([1, 0])]
    assert [edge[:2] for edge in without_kite.occlusion.edges] == [(1, 0)]
    assert torch.equal(found[found.scores > 0.6].occluded_by, found.occluded_by[:2, :2])
    assert found.rescaled((50, 60)).occlusion.edges == found.occlusion.edges
    results = found.to_coco(7, [1])
    assert [result["number"] for result in results] == [0, 1, 2]
    assert results[0]["occluded_by"] == [[1, pytest.approx(0.8, abs=0.02)]]
    assert [result["depth"] for result in results] == [1, 0, 0]
    weak = with_relations(bench_behind_post(0.2))
    assert weak.occlusion.edges == []
    assert weak.to_coco(7, [1])[0]["occluded_by"] == [[1, pytest.approx(0.2, abs=0.02)]]
    assert "occluded_by" not in bench_behind_post().to_coco(7, [1])[0]
    with pytest.raises(ValueError, match=r"occluded_by must be \[3, 3\], got \(2, 2\)"):
        Detections(**{**vars(found), "occluded_by": torch.zeros(2, 2)})


def graph(count, *edges):
    confidence = np.zeros((count, count))
    for occludee, occluder, value in edges:
        confidence[occludee, occluder] = value
    return OcclusionGraph(confidence)


def test_the_depth_counts_the_longest_chain_of_occluders():
    found = graph(5, (0, 1, 0.9), (1, 2, 0.6), (0, 2, 0.55), (3, 2, 0.8)).order
    assert found.depth.tolist() == [2, 1, 0, 1, 0]
    assert len(found.kept) == 4
    assert found.contradicted == []


def test_a_cycle_is_cut_at_its_least_sure_pair():
    found = graph(3, (0, 1, 0.9), (1, 2, 0.8), (2, 0, 0.7)).order
    assert [edge[:2] for edge in found.kept] == [(0, 1), (1, 2)]
    assert [edge[:2] for edge in found.contradicted] == [(2, 0)]
    assert found.depth.tolist() == [2, 1, 0]


def test_of_edges_both_ways_the_surer_one_is_taken():
    found = graph(2, (0, 1, 0.9), (1, 0, 0.6)).order
    assert found.depth.tolist() == [1, 0]
    assert [edge[:2] for edge in found.contradicted] == [(1, 0)]
    undecided = graph(2, (0, 1, 0.9), (1, 0, 0.9))
    assert len(undecided.edges) == 2
    assert undecided.order.depth.tolist() == [0, 0]
    assert undecided.order.kept == []


def test_a_sure_edge_both_ways_yields_to_a_sure_direction():
    # 0 and 1 hide each other at 0.95 and 0.9; the edges 1 below 2 and 2 below 0 exceed the margin of 0.05.
    found = graph(3, (0, 1, 0.95), (1, 0, 0.9), (1, 2, 0.7), (2, 0, 0.6)).order
    assert found.depth.tolist() == [0, 2, 1]


def test_the_threshold_decides_what_is_an_edge():
    assert graph(2, (0, 1, 0.3)).edges == [(0, 1, 0.3)]
    assert graph(2, (0, 1, 0.29)).edges == []
    assert OcclusionGraph(graph(2, (0, 1, 0.3)).confidence, threshold=0.5).edges == []
    with pytest.raises(ValueError, match=r"confidence must be \[D, D\], got \(2, 3\)"):
        OcclusionGraph(np.zeros((2, 3)))


@st.composite
def confidences(draw):
    count = draw(st.integers(1, 9))
    values = draw(st.lists(st.floats(0, 1, width=32), min_size=count * count, max_size=count * count))
    confidence = np.array(values).reshape(count, count)
    np.fill_diagonal(confidence, 0)
    return confidence


@settings(max_examples=150, deadline=None)
@given(confidences())
def test_every_edge_is_kept_or_contradicted_and_the_order_agrees_with_the_kept(confidence):
    found = OcclusionGraph(confidence)
    order = found.order
    assert sorted([*order.kept, *order.contradicted]) == sorted(found.edges)
    for edge in order.kept:
        assert order.depth[edge.occludee] > order.depth[edge.occluder]
    for depth, i in zip(order.depth, range(len(confidence)), strict=True):
        assert depth == 1 + max((order.depth[e.occluder] for e in order.kept if e.occludee == i), default=-1)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 10), st.randoms(use_true_random=False))
def test_a_true_order_is_found_again_whatever_the_positions(count, random):
    # Every pair has an edge in the correct direction, each with a different confidence.
    order = list(range(count))
    random.shuffle(order)
    values = [0.5 + 0.4 * n / count**2 for n in range(count**2)]
    random.shuffle(values)
    confidence = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            confidence[order[i], order[j]] = values.pop()
    assert [order.index(i) for i in range(count)] == OcclusionGraph(confidence).order.depth.tolist()
    permutation = np.array(random.sample(range(count), count))
    moved = OcclusionGraph(confidence[np.ix_(permutation, permutation)]).order.depth
    assert moved.tolist() == OcclusionGraph(confidence).order.depth[permutation].tolist()


def hidden_part(boxes, visible, amodal, **options):
    """`hidden_part_confidence` of rectangles: visible parts, and the whole with a probability."""
    masks = torch.stack([sum(in_box(part, box) for part in parts) for parts, box in zip(visible, boxes, strict=True)])
    whole = torch.stack([in_box(part[:4], box, part[4]) for part, box in zip(amodal, boxes, strict=True)])
    whole = torch.maximum(masks, whole)
    return hidden_part_confidence(masks, whole, torch.tensor(boxes, dtype=torch.float32), (100, 120), **options)


BENCH_SIDES = [[10, 50, 38, 78], [66, 50, 94, 78]]


def confidence_of(hidden_share):
    return hidden_share / (hidden_share + 0.05)


def test_the_hidden_part_names_its_occluder():
    # The hidden part of the bench, a third of it, is where the post is visible; nothing else is occluded.
    for probability in (1.0, 0.4):
        confidence = hidden_part(BOXES, [BENCH_SIDES, [POST], [KITE]], [[*BENCH, probability], [*POST, 1], [*KITE, 1]])
        expected = torch.zeros(3, 3)
        expected[0, 1] = confidence_of(28 * probability / (56 + 28 * probability))
        torch.testing.assert_close(confidence, expected, atol=0.01, rtol=0)


def test_without_a_hidden_part_there_is_no_occluder():
    confidence = hidden_part(BOXES, [[BENCH], [POST], [KITE]], [[*BENCH, 1], [*POST, 1], [*KITE, 1]])
    assert not confidence.any()


def test_each_occluder_counts_by_what_it_hides():
    left, right = [24, 20, 52, 80], [52, 20, 80, 80]
    seen = [[[10, 50, 24, 78], [80, 50, 94, 78]], [left], [right]]
    for around in (left, [24, 20, 80, 80]):  # a larger box with the same visible pixels
        confidence = hidden_part([BENCH, around, right], seen, [[*BENCH, 1], [*left, 1], [*right, 1]])
        assert confidence[0, 1:].tolist() == pytest.approx([confidence_of(28 / 84)] * 2, abs=0.02)
        assert not confidence[1:].any()
    narrow = [70, 20, 80, 80]
    seen = [[[10, 50, 24, 78], [52, 50, 70, 78], [80, 50, 94, 78]], [left], [narrow]]
    confidence = hidden_part([BENCH, left, narrow], seen, [[*BENCH, 1], [*left, 1], [*narrow, 1]])
    assert confidence[0, 1:].tolist() == pytest.approx([confidence_of(28 / 84), confidence_of(10 / 84)], abs=0.04)


def test_of_objects_that_cover_each_other_the_larger_hidden_part_decides():
    a, b = [10, 10, 60, 60], [40, 10, 90, 60]
    # In the intersection, a is visible in the upper part, b below it.
    for limit, expected in ((35, 0.2), (50, 0.08)):
        seen = [[[10, 10, 40, 60], [40, 10, 60, limit]], [[60, 10, 90, 60], [40, limit, 60, 60]]]
        confidence = hidden_part([a, b], seen, [[*a, 1], [*b, 1]])
        assert confidence[0, 1].item() == pytest.approx(confidence_of(expected), abs=0.03)
        assert confidence[1, 0].item() == pytest.approx(confidence_of(0.4 - expected), abs=0.03)


def test_the_size_in_pixels_does_not_matter():
    boxes, whole = [[0, 0, 28, 28], [14, 0, 42, 28]], [[0, 0, 28, 28, 1], [14, 0, 42, 28, 1]]
    seen = [[[0, 0, 14, 28]], [[14, 0, 42, 28]]]
    small = hidden_part(boxes, seen, whole)
    assert small[0, 1].item() == pytest.approx(confidence_of(0.5), abs=0.01)
    double = [[[2 * value for value in part] for part in parts] for parts in seen]
    large = hidden_part(
        [[2 * value for value in box] for box in boxes],
        double,
        [[*(2 * value for value in box[:4]), 1] for box in whole],
    )
    torch.testing.assert_close(large, small, atol=0.01, rtol=0)


def test_hidden_part_needs_maps_of_one_shape():
    with pytest.raises(ValueError, match=r"must have the same shape, got \(2, 28, 28\) and \(2, 14, 14\)"):
        hidden_part_confidence(torch.zeros(2, 28, 28), torch.zeros(2, 14, 14), torch.zeros(2, 4), (9, 9))
    empty = torch.zeros(0, 28, 28)
    assert hidden_part_confidence(empty, empty, torch.zeros(0, 4), (9, 9)).shape == (0, 0)
