from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_layers import two_layers
from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.data.masks import instance_masks
from bcnet.data.transforms import FLIPS, Transform
from bcnet.ops.rle import decode_window


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask))


@st.composite
def image_masks(draw):
    """A uint8 [H, W] mask: empty, full, a rectangle or noise inside one, often touching the image border."""
    height, width = draw(st.shared(st.tuples(st.integers(1, 40), st.integers(1, 40)), key="size"))
    mask = np.zeros((height, width), dtype=np.uint8)
    ys = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    xs = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    if draw(st.booleans()):
        ys[draw(st.integers(0, 1))] = draw(st.sampled_from([0, height]))
        xs[draw(st.integers(0, 1))] = draw(st.sampled_from([0, width]))
    region = mask[min(ys) : max(ys), min(xs) : max(xs)]
    density = draw(st.sampled_from([0.05, 0.5, 1.0]))
    region[:] = np.random.default_rng(draw(st.integers(0, 999))).random(region.shape) < density
    return mask


@settings(max_examples=150, deadline=None)
@given(image_masks(), st.data())
def test_decode_window_is_the_cut_of_the_decoded_mask(mask, data):
    height, width = mask.shape
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    np.testing.assert_array_equal(decode_window(encode(mask), x0, y0, x1, y1), mask[y0:y1, x0:x1])


def transformed(mask, transform):
    """detectron2's transform of a bitmap: PIL's nearest resize of the full mask, then the flip."""
    height, width = transform.output_size
    mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return {"none": mask, "horizontal": mask[:, ::-1], "vertical": mask[::-1]}[transform.flip].copy()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(image_masks(), st.none() | image_masks()), min_size=1, max_size=4),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(FLIPS),
)
def test_windows_are_those_of_the_full_transformed_masks(pairs, output_size, flip):
    size = pairs[0][0].shape
    transform = Transform(size, output_size, flip)
    masks, kept = instance_masks(
        {
            "occludee": [encode(occludee) for occludee, _ in pairs],
            "occluder": [None if occluder is None else encode(occluder) for _, occluder in pairs],
        },
        *transform.source_pixels(),
    )
    zero = np.zeros(size, dtype=np.uint8)
    occludees = torch.from_numpy(np.stack([transformed(occludee, transform) for occludee, _ in pairs]))
    occluders = torch.from_numpy(
        np.stack([transformed(zero if occluder is None else occluder, transform) for _, occluder in pairs])
    )
    nonempty = occludees.bool().flatten(1).any(dim=1)
    assert kept == nonempty.tolist()
    expected = two_layers(occludees[nonempty], occluders[nonempty])
    assert np.array_equal(masks.windows, expected.windows)
    assert torch.equal(masks.pixels, expected.pixels)


def test_no_instances():
    rows, columns = Transform((4, 4), (8, 8)).source_pixels()
    masks, kept = instance_masks({"occludee": [], "occluder": []}, rows, columns)
    assert (len(masks), kept) == (0, [])
