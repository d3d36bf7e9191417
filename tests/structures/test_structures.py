import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_layers import two_layers
from pycocotools import mask as coco_mask

from bcnet.ops.paste import paste_maps, paste_masks
from bcnet.ops.rle import encode_window
from bcnet.structures import Detections, InstanceMasks, Targets


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_window_rle_equals_the_rle_of_the_full_image(data):
    height, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    x0, y0 = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    mask = np.array(bits).reshape(h, w)
    full = np.zeros((height, width), dtype=np.uint8, order="F")
    full[y0 : y0 + h, x0 : x0 + w] = mask
    assert encode_window(mask, x0, y0, (height, width)) == coco_mask.encode(full)


def test_masks_return_from_their_windows():
    torch.manual_seed(0)
    full = torch.zeros(2, 3, 11, 13, dtype=torch.bool)
    full[0, 0, 2:5, 3:9] = True
    full[1, 0, 4:8, 1:4] = True
    full[0, 1] = True  # touches every edge; instance 2 stays empty
    masks = two_layers(full[0], full[1])
    assert torch.equal(masks.to_full(11, 13), full.transpose(0, 1).to(torch.uint8))
    assert masks.windows.tolist() == [[0, 1, 10, 8], [-1, -1, 15, 13], [0, 0, 1, 1]]
    assert torch.equal(masks[torch.tensor([1])].to_full(11, 13)[0, 0], torch.ones(11, 13, dtype=torch.uint8))


@pytest.mark.parametrize(("occludee", "occluder"), [((2, 4, 4), (1, 4, 4)), ((4, 4), (4, 4)), ((2, 4, 4), (2, 4, 5))])
def test_masks_of_different_shapes_are_refused(occludee, occluder):
    with pytest.raises(ValueError, match="one shape"):
        two_layers(torch.zeros(occludee), torch.zeros(occluder))


def test_targets_of_unequal_length_are_refused():
    masks = InstanceMasks.without_pixels(0, ("occludee", "occluder"))
    with pytest.raises(ValueError, match="1, 1 and 0"):
        Targets(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), masks)


def detections(**kwargs):
    options = {
        "image_size": (6, 8),
        "boxes": torch.tensor([[1.0, 1.0, 5.0, 5.0], [4.0, 0.0, 8.0, 6.0]]),
        "scores": torch.tensor([0.9, 0.6]),
        "classes": torch.tensor([2, 0]),
        "maps": {"occludee_mask": torch.stack([torch.eye(4), torch.ones(4, 4)])},
    }
    return Detections(**(options | kwargs))


def test_a_map_of_the_boxs_own_size_is_pasted_pixel_by_pixel():
    pasted = paste_maps(
        torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 2, 5, 6]]), (6, 8)
    )
    expected = torch.zeros(6, 8)
    expected[2:6, 1:5] = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(pasted[0], expected, rtol=0, atol=1e-6)


def test_pasting_equals_sampling_at_pixel_centres():
    torch.manual_seed(0)
    maps, boxes = torch.rand(3, 7, 7), torch.tensor([[0.3, 1.2, 17.9, 9.1], [-4.0, 2.5, 6.5, 30.0], [3, 3, 3.4, 3.2]])
    pasted = paste_maps(maps, boxes, (12, 20))
    for y in range(12):
        for x in range(20):
            for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
                inside = int(x0 // 1) <= x < -(-x1 // 1) and int(y0 // 1) <= y < -(-y1 // 1)
                u, v = (x + 0.5 - x0) / (x1 - x0) * 7 - 0.5, (y + 0.5 - y0) / (y1 - y0) * 7 - 0.5
                value = 0.0
                for cx in (int(u // 1), int(u // 1) + 1):
                    for cy in (int(v // 1), int(v // 1) + 1):
                        if 0 <= cx < 7 and 0 <= cy < 7:
                            value += max(1 - abs(u - cx), 0) * max(1 - abs(v - cy), 0) * maps[i, cy, cx].item()
                assert pasted[i, y, x].item() == pytest.approx(value if inside else 0.0, abs=1e-5)


@pytest.mark.parametrize("box", [[5.0, 5, 5, 9], [30.0, 30, 40, 40], [-9.0, -9, -1, -1], [3.0, 4, 2, 5]])
def test_boxes_without_pixels_in_the_image_paste_to_nothing(box):
    assert not paste_masks(torch.ones(1, 4, 4), torch.tensor([box]), (10, 10)).any()


def test_masks_and_their_rles_agree():
    found = detections()
    decoded = np.stack([coco_mask.decode(rle) for rle in found.mask_rles()]).astype(bool)
    assert np.array_equal(decoded, found.masks.numpy())
    assert found.masks[1].sum() == 24
    expected = torch.zeros(6, 8, dtype=torch.bool)
    expected[1:5, 1:5] = torch.eye(4, dtype=torch.bool)
    assert torch.equal(found.masks[0], expected)


def test_coco_results_carry_the_data_sets_ids():
    first, second = detections().to_coco(image_id=42, category_ids=[7, 8, 90])
    assert (first["image_id"], first["category_id"], second["category_id"]) == (42, 90, 7)
    assert first["bbox"] == [1.0, 1.0, 4.0, 4.0]
    assert isinstance(first["segmentation"]["counts"], str)
    assert coco_mask.area({"size": [6, 8], "counts": second["segmentation"]["counts"].encode()}) == 24


def test_rescaling_scales_clips_and_drops():
    found = detections(boxes=torch.tensor([[-2.0, 1, 4, 3], [8.0, 0, 9, 6]])).rescaled((12, 8))
    assert found.image_size == (12, 8)
    assert found.boxes.tolist() == [[0, 2, 4, 6]]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.occludee_mask.shape == (1, 4, 4)


def test_subsets_keep_every_field():
    found = detections().with_maps(occluder_mask=torch.zeros(2, 4, 4))
    assert len(found[found.scores > 0.7]) == 1
    assert found[1].classes.tolist() == [0]
    assert found[-1].occluder_mask.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(3)}, r"scores must be \[2\]"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes must be \[D, 4\], got \(2, 5\)"),
        ({"maps": {"occludee_mask": torch.zeros(2, 4, 5)}}, r"\[2, M, M\].*\(2, 4, 5\)"),
        ({"maps": {"occluder_mask": torch.zeros(1, 4, 4)}}, "occluder_mask"),
        ({"class_names": ("a",)}, "class 2 has no name"),
    ],
)
def test_malformed_detections_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        detections(**change)


def test_an_absent_map_is_an_error_that_names_what_there_is():
    with pytest.raises(ValueError, match="have no occluder_mask; present are: occludee_mask"):
        _ = detections().occluder_masks


def test_an_absent_map_that_was_asked_for_is_one_of_another_head():
    with pytest.raises(
        ValueError, match=r"have no occluder_boundary; .*, occluder_mask; not every mask head predicts it"
    ):
        _ = detections().with_maps(occluder_mask=torch.ones(2, 4, 4)).occluder_boundaries
    with pytest.raises(ValueError, match=r"have no occluder_boundary; .*; predict with with_occluder=True"):
        _ = detections().occluder_boundaries


def test_an_image_wide_instance_does_not_pad_the_others():
    full = torch.zeros(101, 800, 1333, dtype=torch.uint8)
    full[0] = 1
    for index in range(1, 101):
        full[index, index : index + 80, index : index + 120] = 1
    masks = two_layers(full, full)
    image_wide, others = 802 * 1335, 100 * 82 * 122  # with their margins
    assert masks.pixels.numel() == 2 * (image_wide + others)
    assert masks.pixels.numel() < 20 * 2**20


def test_groups_hold_each_window_once_and_pad_it_to_less_than_four_times_its_area():
    generator = torch.Generator().manual_seed(0)
    full = torch.zeros(12, 90, 90, dtype=torch.uint8)
    for index in range(12):
        h, w = torch.randint(1, 80, (2,), generator=generator).tolist()
        full[index, 5 : 5 + h, 3 : 3 + w] = 1
    masks = InstanceMasks.from_full({"occludee": full})
    groups = list(masks.padded_groups())
    assert sum(map(len, groups)) == 12
    for index, (_, _, group, position) in enumerate(masks.places.tolist()):
        padded, window = groups[group][position], masks.window(index)
        assert torch.equal(padded[:, : window.shape[1], : window.shape[2]], window)
        assert padded.sum() == window.sum()
        assert padded.numel() < 4 * window.numel()


def test_detections_are_a_sequence():
    found = detections()
    assert [d.scores.item() for d in found] == pytest.approx([0.9, 0.6])
    assert list(found) == [found[0], found[1]]
    assert found[0] == found[0] and found[0] != found[1]
    assert found[np.int64(1)] == found[-1] == found[1:] == found[[1]] == found[np.array([False, True])]
    assert len(found[[]]) == 0 and found[:1][torch.tensor([True])] == found[0] and len(found[:1][[False]]) == 0
    assert found[[1, 0]].classes.tolist() == [0, 2]
    for index in (2, 99, -3):
        with pytest.raises(IndexError, match=f"detection {index} is out of range: there are 2"):
            found[index]
    assert found != "something else"
    assert found.with_maps(occluder_mask=torch.zeros(2, 4, 4)) != found


def test_coco_results_are_plain_json_whatever_the_ids_are_made_of():
    results = detections().to_coco(np.int64(42), np.array([7, 8, 90]))
    assert json.loads(json.dumps(results))[0]["category_id"] == 90
    assert type(results[0]["image_id"]) is int


def test_further_maps_are_written_under_their_own_keys():
    found = detections().with_maps(occluder_mask=torch.ones(2, 4, 4), occluder_boundary=torch.zeros(2, 4, 4))
    (first, _) = found.to_coco(1, [1, 2, 3], names=("occludee_mask", "occluder_mask"))
    assert [key for key in first if "segm" in key or "boundary" in key] == ["segmentation", "occluder_segmentation"]
    assert coco_mask.area({**first["occluder_segmentation"]}) == 16


def test_a_map_without_a_record_is_refused():
    with pytest.raises(ValueError, match="map 'depth' has no record in specs; specs has occludee_mask, "):
        detections(maps={"depth": torch.zeros(2, 4, 4)})
