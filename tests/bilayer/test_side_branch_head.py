"""The head with a side branch: its wiring written out, who trains what, and what is computed."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bcnet.bilayer import BilayerMaskHead, PlainMaskHead, SideBranchMaskHead
from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDER_MASK, PUBLISHED_MAPS
from studies.cost import mask_head_cost

MAPS = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)
VISIBLE, BRANCH = {"occludee_mask", "occludee_boundary"}, {"occluder_mask", "occludee_amodal"}


@pytest.fixture
def head():
    torch.manual_seed(0)
    return SideBranchMaskHead(16, maps=MAPS, num_mask_classes=3).eval()


def written_out(head: SideBranchMaskHead, x: torch.Tensor) -> dict:
    def stack(layer, f):
        for conv in layer.convs:
            f = F.relu(conv(f))
        return f

    shared = stack(head.shared_layer, x)
    f = shared + x
    visible, g = stack(head.visible_layer, f), head.branch_gcn
    q, k, v = (p(f).flatten(2) for p in (g.query, g.key, g.value))
    related = (torch.softmax(q.transpose(1, 2) @ k / 8**0.5, dim=-1) @ v.transpose(1, 2)).transpose(1, 2)
    branch = stack(head.branch_layer, f + g.norm(g.output(related.reshape(q.shape[0], 8, 14, 14))) + visible)
    features = {"occludee_mask": visible, "occludee_boundary": visible}
    features |= {"occluder_mask": branch, "occludee_amodal": branch}
    return {name: getattr(head, name)(f) for name, f in features.items()}


def test_the_head_computes_what_its_description_says(head):
    x = torch.randn(4, 16, 14, 14)
    with torch.no_grad():
        ours, expected = head(x), written_out(head, x)
    assert list(ours) == [spec.name for spec in head.maps] and ours.keys() == expected.keys() == VISIBLE | BRANCH
    for name, logits in ours.items():
        assert logits.shape == (4, 3, 28, 28)
        torch.testing.assert_close(logits, expected[name], rtol=1e-4, atol=1e-6)


def test_of_its_nine_convolutions_the_last_five_read_the_pooled_features_too(head):
    """A plain head of five convolutions, given what the visible layer is given, has the same masks."""
    plain = PlainMaskHead(16, 16, num_conv=5, num_mask_classes=3, use_boundary=True)
    plain.layer.load_state_dict(head.visible_layer.state_dict())
    plain.mask.load_state_dict(head.occludee_mask.state_dict())
    plain.boundary.load_state_dict(head.occludee_boundary.state_dict())
    assert len(head.shared_layer.convs) == 4
    x = torch.randn(2, 16, 14, 14)
    with torch.no_grad():
        expected = plain(head.shared_layer(x) + x)
        for name, logits in head(x, VISIBLE).items():
            torch.testing.assert_close(logits, expected[name], rtol=0, atol=0)


def test_the_branch_is_computed_only_for_its_maps(head):
    calls = []
    for name, module in head.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    x = torch.randn(1, 16, 14, 14)
    with torch.no_grad():
        head(x, ["occludee_mask"])
        assert calls == ["shared_layer", "visible_layer", "occludee_mask"]
        calls.clear()
        assert list(head(x, ["occludee_amodal"])) == ["occludee_amodal"]
    assert calls == ["shared_layer", "visible_layer", "branch_gcn", "branch_layer", "occludee_amodal"]


def test_the_branch_trains_the_shared_layer_by_half_and_nothing_of_the_visible_one(head, monkeypatch):
    x = torch.randn(2, 16, 14, 14)

    def gradients() -> tuple:
        head.zero_grad(set_to_none=True)
        sum(logits.sum() for logits in head(x, BRANCH).values()).backward()
        return head.visible_layer.convs[0].weight.grad, head.shared_layer.convs[0].weight.grad

    of_visible, half = gradients()
    monkeypatch.setattr("bcnet.bilayer.side_branch_head.BRANCH_GRADIENT", 1.0)
    _, whole = gradients()
    assert of_visible is None and whole.any()
    torch.testing.assert_close(half, 0.5 * whole)


@pytest.mark.parametrize("count", [0, 3])
def test_every_parameter_is_in_the_graph_of_the_losses(count):
    head = SideBranchMaskHead(8, maps=MAPS).train()
    logits = head(torch.randn(count, 8, 14, 14))
    assert [tuple(values.shape) for values in logits.values()] == [(count, 1, 28, 28)] * 4
    sum(values.sum() for values in logits.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_arithmetic_is_no_more_than_the_bilayer_heads():
    ours, theirs = (mask_head_cost(of(64, maps=MAPS), 64, 14) for of in (SideBranchMaskHead, BilayerMaskHead))
    assert ours["multiply_adds_all_maps"] <= theirs["multiply_adds_all_maps"]
    assert ours["multiply_adds_masks_only"] < theirs["multiply_adds_masks_only"]
    plain = mask_head_cost(PlainMaskHead(64, 64, num_conv=9, use_boundary=True), 64, 14)
    assert ours["multiply_adds_masks_only"] == plain["multiply_adds_masks_only"]


def test_ablated_heads_leave_out_what_they_are_told():
    head = SideBranchMaskHead(8, use_gcn=False, use_boundary=False)
    assert not any("gcn" in name or "boundary" in name for name, _ in head.named_parameters())
    assert list(head(torch.randn(1, 8, 14, 14))) == ["occludee_mask", "occluder_mask"]


def test_layers_without_convolutions_are_an_error():
    """detectron2's default of MODEL.ROI_MASK_HEAD.NUM_CONV is 0."""
    with pytest.raises(ValueError, match="in its shared layer and one more in its visible layer: at least 1, got 0"):
        SideBranchMaskHead(8, num_conv=0)


def test_a_further_map_belongs_to_the_branch_if_its_layer_is_the_occluder():
    further = replace(OCCLUDER_MASK, name="occluder_depth", short_name="depth", loss_name="loss_depth")
    head = SideBranchMaskHead(8, maps=(*PUBLISHED_MAPS, further)).eval()
    x = torch.randn(1, 8, 14, 14)
    with torch.no_grad():
        before = head(x)
        head.branch_layer.convs[-1].bias += 1.0
        after = head(x)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "occluder_mask",
        "occluder_depth",
    }
