from __future__ import annotations

import pytest

from bcnet.occlusion.shares import covered_share, hidden_share, occluder_share
from bcnet.ops.rle import box_rle

SIZE = (20, 40)
WHOLE, LEFT, NOTHING = (box_rle(0, 0, x, 10, SIZE) for x in (20, 5, 0))
OTHER = box_rle(15, 0, 40, 10, SIZE)  # covers a quarter of the whole


@pytest.mark.parametrize(
    "amodal, visible, expected",
    [(WHOLE, LEFT, 0.75), (WHOLE, WHOLE, 0), (WHOLE, NOTHING, 1), (LEFT, WHOLE, 0), (NOTHING, WHOLE, 0)],
)
def test_hidden_share_is_the_invisible_share_of_the_amodal_mask(amodal, visible, expected):
    assert hidden_share(amodal, visible) == expected


@pytest.mark.parametrize("mask, expected", [(WHOLE, 0.25), (OTHER, 1), (LEFT, 0), (NOTHING, 0)])
def test_covered_share_is_the_share_of_the_mask_under_the_occluder(mask, expected):
    assert covered_share(mask, OTHER) == expected


@pytest.mark.parametrize("mask, occluder, expected", [(WHOLE, LEFT, 0.2), (WHOLE, None, 0), (NOTHING, NOTHING, 0)])
def test_occluder_share_is_of_the_pixels_of_both(mask, occluder, expected):
    assert occluder_share(mask, occluder) == expected
