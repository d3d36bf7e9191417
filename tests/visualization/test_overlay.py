"""Pixels, colours and labels of drawn detections."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcnet.structures import Detections
from bcnet.visualization import draw_detections
from bcnet.visualization.labels import overlap, place_labels
from bcnet.visualization.overlay import fill_regions, label_texts, map_regions
from bcnet.visualization.style import OKABE_ITO, WHITE, instance_color, readable_on, shortened, text_size


def detections(boxes, image_size=(4, 4), masks=None, **more):
    count = len(boxes)
    maps = {"occludee_mask": torch.ones(count, 2, 2) if masks is None else masks}
    return Detections(
        image_size=image_size,
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.linspace(0.9, 0.6, count) if count else torch.zeros(0),
        classes=torch.zeros(count, dtype=torch.int64),
        maps=maps,
        **more,
    )


def bare(image, found, **options):
    return draw_detections(image, found, boxes=False, labels=False, **options)


def is_color(pixel, color):
    """Within what smooth lines leave of a colour."""
    return np.abs(pixel.astype(int) - color).max() < 30


def test_regions_of_a_4x4_image():
    mask = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    ((window, region),) = map_regions(detections([[0, 0, 2, 2]], masks=mask), "occludee_mask")
    assert window == (0, 0, 2, 2)
    assert region.tolist() == [[True, False], [False, True]]


def test_fill_is_a_mix_of_image_and_colour():
    canvas = np.full((4, 4, 3), 100, dtype=np.uint8)
    found = detections([[1, 1, 3, 3]])
    fill_regions(canvas, list(map_regions(found, "occludee_mask")), [(200, 0, 100)], 0.5)
    assert canvas[1, 1].tolist() == canvas[2, 2].tolist() == [150, 50, 100]
    canvas[1:3, 1:3] = 100
    assert (canvas == 100).all()  # nothing outside the mask


def test_small_masks_lie_on_top_of_large_ones():
    canvas = np.zeros((4, 4, 3), dtype=np.uint8)
    found = detections([[1, 1, 2, 2], [0, 0, 4, 4]])
    fill_regions(canvas, list(map_regions(found, "occludee_mask")), [(250, 0, 0), (0, 250, 0)], 1.0)
    assert canvas[1, 1].tolist() == [250, 0, 0]
    assert canvas[0, 0].tolist() == [0, 250, 0]


def test_outline_has_the_instance_colour_and_the_image_is_left_alone():
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    drawn = bare(image, detections([[10, 10, 50, 50]], (60, 80)))
    assert (image == 100).all()
    assert is_color(drawn[10, 30], instance_color(0))  # upper edge of the mask
    expected = np.round(0.55 * 100 + 0.45 * np.array(instance_color(0)))
    assert drawn[30, 30].tolist() == expected.tolist()
    assert drawn[5, 5].tolist() == [100, 100, 100]


def test_box_is_drawn_without_a_mask():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    found = detections([[10, 10, 50, 50]], (60, 80))
    del found.maps["occludee_mask"]
    drawn = draw_detections(image, found, labels=False)
    assert drawn[10, 30].tolist() == drawn[49, 30].tolist() == drawn[30, 10].tolist() == list(instance_color(0))
    assert drawn[30, 30].tolist() == [0, 0, 0]


def test_colour_depends_on_the_position_alone():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    both = detections([[0, 0, 10, 10], [40, 20, 70, 50]], (60, 80))
    assert is_color(bare(image, both)[20, 55], instance_color(1))
    assert bare(image, both[:1])[0, 5].tolist() == bare(image, both)[0, 5].tolist()


def test_palette():
    assert len({instance_color(i) for i in range(21)}) == 21
    assert instance_color(21) == instance_color(0)
    # Neighbours in the list differ in brightness, so that they can be told apart without colour.
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in OKABE_ITO]
    assert min(abs(a - b) for a, b in itertools.pairwise(brightness)) > 15
    assert readable_on((240, 228, 66)) == (0, 0, 0)
    assert readable_on((20, 30, 90)) == WHITE


def test_larger_canvas():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    found = detections([[0, 0, 40, 60]], (60, 80))
    drawn = draw_detections(image, found, long_side=400, labels=False)
    assert drawn.shape == (300, 400, 3)
    assert drawn[150, 100].any() and not drawn[150, 300].any()
    assert found.image_size == (60, 80)


def test_label_is_a_plate_of_the_instance_colour():
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    found = detections([[50, 60, 250, 180]], (200, 300), class_names=("cat",))
    drawn = draw_detections(image, found)
    plate = drawn[46:58, 52:58].reshape(-1, 3)
    assert (plate == instance_color(0)).all(axis=1).any()
    assert not draw_detections(image, found, labels=False)[:58].any()


def test_label_texts():
    found = detections([[0, 0, 1, 1]] * 2, class_names=("cat",))
    assert label_texts(found) == ["cat 90%", "cat 60%"]
    assert label_texts(found, numbered=True, scores=False) == ["#1 cat", "#2 cat"]
    found.class_names = ()
    assert label_texts(found)[0] == "class 0 90%"


def test_texts_are_shortened_to_a_width():
    assert shortened("short", 12, 500) == "short"
    text = shortened("a rather long class name", 12, 80)
    assert text.endswith("…") and text_size(text, 12)[0] <= 80


def test_no_detections_leave_the_image():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert (draw_detections(image, detections([], (30, 40), torch.zeros(0, 2, 2))) == image).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3), dtype=np.uint8), r"\(4, 5\).*\(4, 4\).*rescaled"),
        (np.zeros((4, 4), dtype=np.uint8), r"uint8 \[H, W, 3\]"),
        (np.zeros((4, 4, 3), dtype=np.float32), "float32"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(image, detections([[0, 0, 2, 2]]))


corner = st.integers(-20, 220)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(corner, corner, st.integers(1, 150), st.integers(1, 150)), max_size=30),
    size=st.tuples(st.integers(1, 80), st.integers(1, 25)),
)
def test_labels_never_overlap_and_stay_inside(boxes, size):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    places = [p for p in place_labels(boxes, [size] * len(boxes), (160, 200)) if p is not None]
    for index, (x0, y0, x1, y1) in enumerate(places):
        assert (x1 - x0, y1 - y0) == size
        assert x0 >= 0 and y0 >= 0 and x1 <= 200 and y1 <= 160
        assert not any(overlap(places[index], other) for other in places[:index])


def test_label_places():
    # Above the box, at its left corner; the second one of the same box goes elsewhere.
    first, second = place_labels([(50, 50, 150, 120)] * 2, [(60, 12)] * 2, (200, 200))
    assert first == (50, 38, 110, 50)
    assert second is not None and not overlap(first, second)
    # A box at the upper edge has its label inside, a small one there below it.
    assert place_labels([(50, 0, 150, 120)], [(60, 12)], (200, 200)) == [(50, 0, 110, 12)]
    assert place_labels([(50, 0, 70, 20)], [(60, 12)], (200, 200)) == [(50, 20, 110, 32)]
    # At the right edge it is moved into the image.
    assert place_labels([(180, 50, 200, 120)], [(60, 12)], (200, 200)) == [(140, 38, 200, 50)]
    assert place_labels([(0, 0, 10, 10)], [(300, 12)], (200, 200)) == [None]
