import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_layers import two_layers
from skimage.morphology import dilation, erosion
from torchvision.ops import roi_align

from bcnet.bilayer import MapTarget, crop_layers, join_crops, map_targets, mask_boundary
from bcnet.bilayer import targets as targets_module
from bcnet.maps import OCCLUDEE_BOUNDARY, PUBLISHED_MAPS
from bcnet.structures import InstanceMasks

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)


def test_boundary_is_two_pixels_wide():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:6, 2:6] = True
    expected = """
        ........
        ..####..
        .######.
        .##..##.
        .##..##.
        .######.
        ..####..
        ........"""
    rows = ["".join("#" if v else "." for v in row) for row in mask_boundary(mask)[0].tolist()]
    assert rows == expected.split()


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_crops_have_no_boundary(value):
    mask = torch.full((2, 3, 28, 28), value)
    assert not mask_boundary(mask).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_boundary_is_dilation_unequal_erosion(seed, density):
    mask = np.random.default_rng(seed).random((7, 9)) < density
    expected = dilation(mask, CROSS) != erosion(mask, CROSS)
    assert np.array_equal(mask_boundary(torch.from_numpy(mask)[None])[0].numpy(), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_crops_of_windows_equal_roialign_on_full_images(seed):
    rng = np.random.default_rng(seed)
    height, width, count, rois = 37, 53, 4, 9
    full = np.zeros((2, count, height, width), dtype=bool)
    for layer in full:
        for mask in layer:
            x0, y0 = rng.integers(0, width - 2), rng.integers(0, height - 2)
            x1, y1 = rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)
            mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.8
    full = torch.from_numpy(full)
    masks = two_layers(full[0], full[1])
    corner = torch.from_numpy(rng.random((rois, 2)) * [width, height]).float()
    other = torch.from_numpy(rng.random((rois, 2)) * [width, height]).float()
    boxes = torch.cat([torch.minimum(corner, other), torch.maximum(corner, other)], dim=1)
    boxes[0] = torch.tensor([0, 0, width, height])
    instances = torch.from_numpy(rng.integers(0, count, rois))

    cropped = list(crop_layers(masks, boxes, instances, 7).values())
    indexed = torch.cat([torch.arange(rois)[:, None].float(), boxes], dim=1)
    for layer in range(2):
        expected = roi_align(full[layer][instances].float()[:, None], indexed, 7, 1.0, 0, aligned=True)[:, 0]
        differs = cropped[layer].values != (expected >= 0.5)
        # Shifting a box by the window's origin rounds: only exact halves may fall on the other side.
        assert (expected[differs] - 0.5).abs().max() < 1e-5 if differs.any() else True


def test_crops_of_rectangles_are_known_to_the_pixel():
    occludee = torch.zeros(1, 20, 30, dtype=torch.bool)
    occludee[0, 5:15, 10:20] = True
    occluder = torch.zeros_like(occludee)
    occluder[0, 5:15, 15:20] = True
    masks = two_layers(occludee, occluder)
    boxes = torch.tensor([[10.0, 5.0, 20.0, 15.0], [0.0, 0.0, 9.0, 20.0]])
    layers = crop_layers(masks, boxes, torch.zeros(2, dtype=torch.int64), 28)
    targets = {name: target.values for name, target in map_targets(PUBLISHED_MAPS, layers).items()}
    corners = torch.zeros(28, 28, dtype=torch.bool)
    corners[::27, ::27] = True  # there bilinear samples see more background than mask
    assert torch.equal(targets["occludee_mask"][0], ~corners) and not targets["occludee_mask"][1].any()
    assert torch.equal(targets["occluder_mask"][0, 3], torch.arange(28) >= 14)
    assert not targets["occluder_mask"][1].any()
    assert torch.equal(targets["occluder_boundary"][0, 3], (torch.arange(28) == 13) | (torch.arange(28) == 14))


def disc_with_whole_pixel_boxes():
    ys, xs = torch.meshgrid(torch.arange(90), torch.arange(90), indexing="ij")
    disc = ((ys - 45) ** 2 + (xs - 44) ** 2 < 38**2)[None]
    generator = torch.Generator().manual_seed(0)
    low = torch.randint(0, 40, (60, 2), generator=generator)
    boxes = torch.cat([low, low + torch.randint(5, 50, (60, 2), generator=generator)], dim=1).float()
    rois = torch.cat([torch.zeros(60, 1), boxes], dim=1).double()
    exact = roi_align(torch.stack([disc, ~disc], dim=1).double(), rois, 28, 1.0, 0, aligned=True)
    return two_layers(disc, ~disc), boxes, exact


@pytest.mark.parametrize("expression", ["_crop_by_matrices", "_crop_by_roi_align"])
def test_averages_of_one_half_belong_to_the_mask_in_both_expressions_of_the_crop(expression):
    # The second is what GPUs compute, here on the CPU: float32 sums whose rounding falls on either side of one half.
    masks, boxes, exact = disc_with_whole_pixel_boxes()
    averages, half = getattr(targets_module, expression)(masks, boxes, torch.zeros(60, dtype=torch.int64), 28)
    assert (exact - 0.5).abs().le(1e-9).sum() > 20  # there are such averages
    assert torch.equal(averages >= half, exact >= 0.5 - 1e-9)


def test_both_expressions_of_the_crop_agree_on_windows_of_many_sizes():
    generator = torch.Generator().manual_seed(1)
    full = torch.zeros(2, 6, 120, 150, dtype=torch.uint8)
    for index, side in enumerate((3, 9, 30, 31, 80, 120)):
        full[:, index, :side, -side:] = (torch.rand(2, side, side, generator=generator) > 0.4).byte()
    masks = two_layers(full[0], full[1])
    assert len(list(masks.padded_groups())) == 4  # windows with a margin of two: 5, 11, (32, 33), (82, 122)
    low = torch.rand(40, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 5 + torch.rand(40, 2, generator=generator) * 80], dim=1)
    boxes = torch.minimum(boxes, torch.tensor([150.0, 120.0, 150.0, 120.0]))
    instances = torch.arange(40) % 6
    by_matrices, _ = targets_module._crop_by_matrices(masks, boxes, instances, 28)
    by_roi_align, _ = targets_module._crop_by_roi_align(masks, boxes, instances, 28)
    torch.testing.assert_close(by_roi_align, by_matrices.float(), rtol=0, atol=1e-5)


def test_no_rois_give_empty_targets():
    masks = InstanceMasks.without_pixels(0, ("occludee", "occluder"))
    for device_expression in (targets_module._crop_by_matrices, targets_module._crop_by_roi_align):
        averages, _ = device_expression(masks, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 28)
        assert averages.shape == (0, 2, 28, 28)
    layers = crop_layers(masks, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 28)
    assert [tuple(t.values.shape) for t in map_targets(PUBLISHED_MAPS, layers).values()] == [(0, 28, 28)] * 4


def masks_with_unknown_right_half(known_value):
    """One instance of 8 x 8 pixels whose occluder is known on the left only, where it has the given value."""
    occludee = torch.ones(1, 8, 8, dtype=torch.uint8)
    occluder, unknown = torch.zeros_like(occludee), torch.zeros_like(occludee)
    occluder[:, :, :4] = known_value
    unknown[:, :, 4:] = 1
    return InstanceMasks.from_full({"occludee": occludee, "occluder": occluder, "occluder_unknown": unknown})


@pytest.mark.parametrize("known_value", [0, 1])
def test_unknown_pixels_are_cropped_beside_the_mask(known_value):
    masks = masks_with_unknown_right_half(known_value)
    layers = crop_layers(masks, torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(1, dtype=torch.int64), 8)
    assert layers.keys() == {"occludee", "occluder"}
    assert layers["occludee"].known is None
    values, known = layers["occluder"]
    assert known[0].all(dim=0).tolist() == [True] * 4 + [False] * 4
    assert values[0].all(dim=0).tolist() == [bool(known_value)] * 4 + [False] * 4


def test_a_pixel_is_known_where_the_unknown_part_of_its_average_does_not_decide():
    # RoI pixels of 2 x 2 image pixels: counts of (mask, unknown) among the four.
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.uint8)[None]
    unknown = torch.tensor([[0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 0]], dtype=torch.uint8)[None]
    masks = InstanceMasks.from_full({"occludee": mask, "occludee_unknown": unknown})
    # Whole pixels: left RoI pixel 3 mask 1 unknown; middle 1 mask 2 unknown; right 0 mask 1 unknown.
    averages = {"occludee": torch.tensor([[3, 1, 0]]) / 4, "occludee_unknown": torch.tensor([[1, 2, 1]]) / 4}
    expected_known = (averages["occludee"] >= 0.5) | (averages["occludee"] + averages["occludee_unknown"] < 0.5)
    target = crop_layers(masks, torch.tensor([[0.0, 0, 6, 2]]), torch.zeros(1, dtype=torch.int64), 1)["occludee"]
    assert expected_known.tolist() == [[True, False, True]]
    # The whole as one pixel: 4 of 12 are mask, 4 unknown: 8 of 12 at most.
    assert (target.values.item(), target.known.item()) == (False, False)


def test_a_boundary_is_unknown_next_to_an_unknown_pixel():
    values = torch.zeros(1, 5, 5, dtype=torch.bool)
    known = torch.ones_like(values)
    known[0, 2, 2] = False
    target = map_targets([OCCLUDEE_BOUNDARY], {"occludee": MapTarget(values, known)})["occludee_boundary"]
    assert (~target.known[0]).nonzero().tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_crops_with_and_without_unknown_pixels_are_joined():
    values = torch.ones(1, 2, 2, dtype=torch.bool)
    joined = join_crops([{"occludee": MapTarget(values)}, {"occludee": MapTarget(values, ~values)}])["occludee"]
    assert joined.known.flatten(1).all(dim=1).tolist() == [True, False]
    assert join_crops([{"occludee": MapTarget(values)}] * 2)["occludee"].known is None


def test_a_map_of_a_layer_that_the_targets_lack_is_an_error_that_names_both():
    layers = {"occludee": MapTarget(torch.zeros(1, 2, 2, dtype=torch.bool))}
    with pytest.raises(ValueError, match="'occluder_mask' needs the mask layer 'occluder'; the targets have: occludee"):
        map_targets(PUBLISHED_MAPS, layers)
