import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import dilation, erosion
from torchvision.ops import roi_align

from bcnet.bilayer import crop_layers, mask_boundary, mask_targets
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
    masks = InstanceMasks.from_full(full[0], full[1])
    corner = torch.from_numpy(rng.random((rois, 2)) * [width, height]).float()
    other = torch.from_numpy(rng.random((rois, 2)) * [width, height]).float()
    boxes = torch.cat([torch.minimum(corner, other), torch.maximum(corner, other)], dim=1)
    boxes[0] = torch.tensor([0, 0, width, height])
    instances = torch.from_numpy(rng.integers(0, count, rois))

    cropped = crop_layers(masks.bitmaps, masks.origins, boxes, instances, 7)
    indexed = torch.cat([torch.arange(rois)[:, None].float(), boxes], dim=1)
    for layer in range(2):
        expected = roi_align(full[layer][instances].float()[:, None], indexed, 7, 1.0, 0, aligned=True)[:, 0]
        differs = cropped[layer] != (expected >= 0.5)
        # Shifting a box by the window's origin rounds: only exact halves may fall on the other side.
        assert (expected[differs] - 0.5).abs().max() < 1e-5 if differs.any() else True


def test_crops_of_rectangles_are_known_to_the_pixel():
    occludee = torch.zeros(1, 20, 30, dtype=torch.bool)
    occludee[0, 5:15, 10:20] = True
    occluder = torch.zeros_like(occludee)
    occluder[0, 5:15, 15:20] = True
    masks = InstanceMasks.from_full(occludee, occluder)
    boxes = torch.tensor([[10.0, 5.0, 20.0, 15.0], [0.0, 0.0, 9.0, 20.0]])
    layers = crop_layers(masks.bitmaps, masks.origins, boxes, torch.zeros(2, dtype=torch.int64), 28)
    targets = mask_targets(layers)
    corners = torch.zeros(28, 28, dtype=torch.bool)
    corners[::27, ::27] = True  # there bilinear samples see more background than mask
    assert torch.equal(targets.occludee_mask[0], ~corners) and not targets.occludee_mask[1].any()
    assert torch.equal(targets.occluder_mask[0, 3], torch.arange(28) >= 14)
    assert not targets.occluder_mask[1].any()
    assert torch.equal(targets.occluder_boundary[0, 3], (torch.arange(28) == 13) | (torch.arange(28) == 14))


def test_averages_of_one_half_belong_to_the_mask():
    ys, xs = torch.meshgrid(torch.arange(90), torch.arange(90), indexing="ij")
    disc = ((ys - 45) ** 2 + (xs - 44) ** 2 < 38**2)[None]
    masks = InstanceMasks.from_full(disc, ~disc)
    generator = torch.Generator().manual_seed(0)
    low = torch.randint(0, 40, (60, 2), generator=generator)
    boxes = torch.cat([low, low + torch.randint(5, 50, (60, 2), generator=generator)], dim=1).float()
    cropped = crop_layers(masks.bitmaps, masks.origins, boxes, torch.zeros(60, dtype=torch.int64), 28)
    rois = torch.cat([torch.zeros(60, 1), boxes], dim=1).double()
    exact = roi_align(torch.stack([disc, ~disc], dim=1).double(), rois, 28, 1.0, 0, aligned=True).transpose(0, 1)
    assert (exact - 0.5).abs().le(1e-9).sum() > 20  # there are such averages
    assert torch.equal(cropped, exact >= 0.5 - 1e-9)


def test_no_rois_give_empty_targets():
    masks = InstanceMasks.from_windows([], [])
    layers = crop_layers(masks.bitmaps, masks.origins, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 28)
    assert [tuple(t.shape) for t in mask_targets(layers)] == [(0, 28, 28)] * 4
