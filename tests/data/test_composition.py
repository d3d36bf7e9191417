"""Copy-paste composition: exact target masks on an image of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.data import (
    ImageRecord,
    InstanceRecord,
)
from bcnet.data.composed_image import ComposedImage, PastedObject
from bcnet.data.source_masks import depth_order, source_masks
from bcnet.ops.rle import encode_window

LAYERS = ("occludee", "occluder", "amodal")

BEFORE = {
    "A": """
        ........
        ........
        .111....
        .111....
        .111....
        .111111.
        ........
        ........""",
    "B": """
        ........
        ........
        ....11..
        ....11..
        ........
        ........
        ........
        ........""",
}
PASTED = """
        ........
        ...11...
        ...11...
        ...11...
        ...11...
        ........
        ........
        ........"""
CROWD = """
        ........
        ........
        ......1.
        ......1.
        ........
        ........
        ........
        ........"""


def grid(text):
    return np.array([list(row) for row in text.split()])


def rle(text):
    return encode_window(grid(text) == "1", 0, 0, (8, 8))


def instance(text, **changes):
    mask = rle(text)
    return InstanceRecord(coco_mask.toBbox(mask).tolist(), 0, segmentation=mask, **changes)


def scene(in_front=None, *extra):
    instances = [instance(BEFORE["A"]), instance(BEFORE["B"]), *extra]
    return ImageRecord("8x8.png", 1, 8, 8, instances, in_front=in_front)


def at_the_corner(text):
    coverage = (grid(text) == "1") * np.uint8(255)
    return PastedObject(3, coverage, np.full((8, 8, 3), 200, np.float32), 0, 0)


def composed(record, min_visible=0.2, pasted=PASTED):
    under_composition = ComposedImage(Image.new("RGB", (8, 8)), record)
    under_composition.paste(at_the_corner(pasted))
    return under_composition.image, under_composition.record(min_visible)


def layer(masks, name, index):
    """A layer of an instance as rows of characters: 1 as "1", 0 as ".", unknown as "?"."""
    rows = np.full((8, 8), ".")
    for key, symbol in ((f"{name}_unknown", "?"), (name, "1")):
        mask = masks.layers.get(key, [None] * 9)[index]
        if mask is not None:
            rows[coco_mask.decode(mask) > 0] = symbol
    return ["".join(row) for row in rows]


def assert_layer(masks, name, index, text):
    assert layer(masks, name, index) == text.split()


def test_targets_of_an_image_of_unknown_order():
    image, record = composed(scene())
    masks = source_masks(record, layers=LAYERS, occluder_target="front")
    assert_layer(masks, "occludee", 0, "........ ........ .11..... .11..... .11..... .111111. ........ ........")
    # In front of A: the pasted object, over A, B and background alike; B's own pixels are unknown.
    assert_layer(masks, "occluder", 0, "........ ........ ...11?.. ...11?.. ...11... ........ ........ ........")
    # A continues below the pasted object where it was visible before, not over background; behind B it is unknown.
    assert_layer(masks, "amodal", 0, "........ ........ .111??.. .111??.. .111.... .111111. ........ ........")
    # B's region before was [4, 2, 2, 2]; A lies one pixel beside it, within a third of B's side for the amodal mask.
    assert_layer(masks, "occludee", 1, "........ ........ .....1.. .....1.. ........ ........ ........ ........")
    assert_layer(masks, "occluder", 1, "........ ........ ....1... ....1... ........ ........ ........ ........")
    assert_layer(masks, "amodal", 1, "........ ........ ...?11.. ...?11.. ........ ........ ........ ........")
    # The pasted object is whole and has nothing in front.
    assert_layer(masks, "occludee", 2, PASTED)
    assert_layer(masks, "occluder", 2, " ".join(["........"] * 8))
    assert_layer(masks, "amodal", 2, PASTED)
    assert record.pasted == (True,) and record.instances[2].category == 3
    assert masks.boxes == [[1, 2, 6, 4], [5, 2, 1, 2], [3, 1, 2, 4]]
    assert (np.asarray(image)[:, :, 0] == np.where(grid(PASTED) == "1", 200, 0)).all()


@pytest.mark.parametrize(
    "in_front, occluder, amodal_of_a, amodal_of_b",
    [
        # B in front of A: B's visible pixels are A's occluder, and A may continue behind them; A hides nothing of B.
        ([(0, 1)], "........ ........ ...111.. ...111.. ...11...", "........ ........ .111??.. .111??..", ". 11"),
        # A in front of B: nothing of B hides A, and A does not continue behind B.
        ([(1, 0)], "........ ........ ...11... ...11... ...11...", "........ ........ .111.... .111....", "? 11"),
    ],
)
def test_targets_of_an_image_of_known_order(in_front, occluder, amodal_of_a, amodal_of_b):
    masks = source_masks(composed(scene(in_front))[1], layers=LAYERS, occluder_target="front")
    assert layer(masks, "occluder", 0)[:5] == occluder.split()
    assert layer(masks, "amodal", 0)[:4] == amodal_of_a.split()
    beside, own = amodal_of_b.split()
    assert layer(masks, "amodal", 1)[2] == f"...{beside}{own}.."


def test_crowds_are_of_unknown_order():
    record = scene(None, instance(CROWD, iscrowd=True))
    masks = source_masks(composed(record)[1], layers=LAYERS, occluder_target="front")
    assert layer(masks, "occluder", 0)[2:4] == ["...11??."] * 2
    assert layer(masks, "amodal", 0)[2:4] == [".111???."] * 2
    # The pasted object lies in front of a crowd too, and is whole.
    _, record = composed(scene(None, instance(PASTED, iscrowd=True)), pasted=BEFORE["A"])
    masks = source_masks(record, layers=LAYERS, occluder_target="front")
    last = len(masks.positions) - 1
    assert_layer(masks, "occluder", last, " ".join(["........"] * 8))
    assert_layer(masks, "amodal", last, BEFORE["A"])


def test_amodal_masks_of_the_file_are_used():
    record = scene()
    record.instances[0].amodal = rle(BEFORE["A"].replace(".111....", ".1111...", 1))
    masks = source_masks(composed(record)[1], layers=LAYERS, occluder_target="front")
    assert layer(masks, "amodal", 0)[2] == ".1111..."
    assert masks.layers["amodal_unknown"][0] is None and masks.layers["amodal_unknown"][1] is not None


def test_without_composition_an_amodal_mask_is_known_only_outside_neighbours():
    masks = source_masks(scene(), layers=LAYERS, occluder_target="front")
    assert layer(masks, "amodal", 0)[2] == ".111??.."
    assert layer(masks, "occluder", 0)[2] == "....??.."
    assert masks.boxes == [[1, 2, 6, 4], [4, 2, 2, 2]]


def test_an_object_with_too_few_visible_pixels_is_a_crowd():
    _, record = composed(scene(), min_visible=0.6)
    assert [i.iscrowd for i in record.instances] == [False, True, False]  # half of B is covered
    masks = source_masks(record, layers=LAYERS, occluder_target="front")
    assert masks.positions == [0, 2]
    # The order of its remaining pixels is unknown, and A may continue behind all of them.
    assert layer(masks, "occluder", 0)[2] == "...11?.."
    assert layer(masks, "amodal", 0)[2] == ".111??.."


def test_later_pasted_objects_lie_in_front_of_earlier_ones():
    under_composition = ComposedImage(Image.new("RGB", (8, 8)), scene())
    for text in (PASTED, BEFORE["B"]):
        under_composition.paste(at_the_corner(text))
    masks = source_masks(under_composition.record(0.2), layers=LAYERS, occluder_target="front")
    first = len(masks.positions) - 2
    assert layer(masks, "occludee", first)[1:5] == ["...11...", "...1....", "...1....", "...11..."]
    assert layer(masks, "occluder", first)[1:5] == ["........", "....1...", "....1...", "........"]
    assert_layer(masks, "amodal", first, PASTED)
    assert_layer(masks, "occluder", first + 1, " ".join(["........"] * 8))


def test_an_object_pasted_behind_the_others():
    under_composition = ComposedImage(Image.new("RGB", (8, 8)), scene())
    under_composition.paste_behind(at_the_corner(PASTED))
    record = under_composition.record(0.2)
    masks = source_masks(record, layers=LAYERS, occluder_target="front")
    visible = "........ ...11... ........ ........ ....1... ........ ........ ........"
    assert_layer(masks, "occludee", 2, visible)
    assert (np.asarray(under_composition.image)[:, :, 0] == np.where(grid(visible) == "1", 200, 0)).all()
    # A and B lie in front of it, inside its box, and it continues below them.
    assert_layer(masks, "occluder", 2, "........ ........ ...11... ...11... ...1.... ........ ........ ........")
    assert_layer(masks, "amodal", 2, PASTED)
    assert masks.boxes[2] == [3, 1, 2, 4]
    # Nothing changes for A: B's pixels are unknown, the pasted object's are known to lie behind.
    plain = source_masks(scene(), layers=LAYERS, occluder_target="front")
    for name in LAYERS:
        for index in (0, 1):
            assert layer(masks, name, index) == layer(plain, name, index)


def test_a_shadow_darkens_what_lies_below_and_not_what_lies_on_top():
    size = (64, 64)
    mask = np.zeros(size, np.uint8)
    mask[20:40, 20:40] = 255
    box = InstanceRecord([4, 4, 30, 30], 0, segmentation=encode_window(np.ones((30, 30), bool), 4, 4, size))
    record = ImageRecord("64x64.png", 1, 64, 64, [box])
    pasted = PastedObject(1, mask, np.full((*size, 3), 200, np.float32), 0, 0)
    shadow = {"darkness": 0.5, "spread": 4, "shift": (0, 0)}
    grey = Image.new("RGB", size, (100, 100, 100))

    in_front = ComposedImage(grey, record)
    in_front.paste(pasted, shadow)
    pixels = np.asarray(in_front.image)[:, :, 0].astype(int)
    assert (pixels[20:40, 20:40] == 200).all()  # the object on top
    assert (pixels[30, 18:20] < 100).all() and (pixels[:10] == 100).all()  # beside it, and far away

    behind = ComposedImage(grey, record)
    behind.paste_behind(pasted, shadow)
    pixels = np.asarray(behind.image)[:, :, 0].astype(int)
    assert (pixels[4:34, 4:34] == 100).all()  # the object on top
    assert pixels[36, 25] < 200 and pixels[39, 39] == 200  # of the object below, beside it and far away


def test_the_depth_order_of_objects_pasted_in_front_and_behind():
    record = replace(scene(), instances=[instance(PASTED)] * 6, pasted=(True, False, False, True))
    in_front, unknown = depth_order(record, range(6))
    from_back = [4, 3, (0, 1), 2, 5]  # the order of 0 and 1 is unknown
    depth = {i: d for d, group in enumerate(from_back) for i in (group if isinstance(group, tuple) else (group,))}
    for i in range(6):
        for j in range(6):
            assert in_front[i, j] == (depth[j] > depth[i])
            assert unknown[i, j] == ({i, j} == {0, 1})


def test_neighbours_count_unless_they_are_known_to_lie_behind():
    """The published rule on 40 x 40 pixels: a pasted object occludes its neighbour and is not occluded by it."""
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:17] = True  # the box extends to column 25, over the second
    first = encode_window(mask, 0, 0, (40, 40))
    mask = np.zeros((40, 40), bool)
    mask[5:25, 17:37] = True
    second = encode_window(mask, 0, 0, (40, 40))
    boxes = [[5, 5, 20, 20], [15, 5, 22, 20]]
    instances = [InstanceRecord(box, 0, segmentation=m) for box, m in zip(boxes, (first, second), strict=True)]
    record = ImageRecord("x.png", 1, 40, 40, instances)

    def areas(masks):
        return [None if mask is None else int(coco_mask.area(mask)) for mask in masks]

    assert areas(source_masks(record).layers["occluder"]) == [8 * 20, 2 * 20]
    assert "occluder_unknown" not in source_masks(record).layers
    assert areas(source_masks(replace(record, pasted=(True,))).layers["occluder"]) == [8 * 20, None]
    front = source_masks(record, occluder_target="front").layers
    assert (areas(front["occluder"]), areas(front["occluder_unknown"])) == ([None, None], [8 * 20, 2 * 20])
    front = source_masks(replace(record, pasted=(True,)), occluder_target="front").layers
    assert (areas(front["occluder"]), areas(front["occluder_unknown"])) == ([8 * 20, None], [None, None])
    with pytest.raises(ValueError, match="occluder_target must be one of neighbours, front, got 'behind'"):
        source_masks(record, occluder_target="behind")
