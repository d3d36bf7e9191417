"""Mask heads that are candidates for the default: maps, arithmetic, gradients, and what each layer sees."""

import pytest
import torch

from bcnet.bilayer import BilayerMaskHead, SideBranchMaskHead
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates import (
    CandidateHead,
    DeepSideBranchHalfHead,
    DeepSideBranchHead,
    DeepVisibleBranchGraphHead,
    DeepVisibleHead,
    GatedHead,
    NinthHead,
    NinthPooledHalfHead,
    NinthPooledHead,
    NinthPooledResidualHalfHead,
    NinthPooledResidualHead,
    NinthSharedHead,
    OccludeeFirstHead,
    OneStackHead,
    OneStackNeighboursHead,
    PooledSideBranchHead,
    PooledVisibleHead,
    SideBranchDetachedHead,
    SideBranchHalfHead,
    SideBranchHead,
    SideBranchQuarterHead,
    SplitLateHead,
    TenthHead,
    VisibleStackHead,
)
from studies.cost import mask_head_cost

HEADS = (
    OneStackHead,
    SplitLateHead,
    DeepVisibleHead,
    DeepVisibleBranchGraphHead,
    OccludeeFirstHead,
    GatedHead,
    SideBranchHead,
)
MAPS = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)


def features_of(head: CandidateHead, x: torch.Tensor) -> dict:
    with torch.no_grad():
        return head.eval().features(x)


@pytest.mark.parametrize("head", HEADS)
def test_a_candidate_has_the_maps_of_the_bilayer_head_at_no_more_arithmetic(head):
    assert MASK_HEAD_REGISTRY.get(head.__name__) is head
    module, published = head(64, maps=MAPS), BilayerMaskHead(64, maps=MAPS)
    assert [spec.name for spec in module.maps] == [spec.name for spec in published.maps]
    ours, theirs = mask_head_cost(module, 64, 14), mask_head_cost(published, 64, 14)
    for maps in ("masks_only", "all_maps"):
        assert 0.6 < ours[f"multiply_adds_{maps}"] / theirs[f"multiply_adds_{maps}"] <= 1.0


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("count", [0, 3])
def test_every_parameter_learns_and_an_empty_batch_passes(head, count):
    module = head(8, maps=MAPS).train()
    logits = module(torch.randn(count, 8, 14, 14))
    assert {name: tuple(values.shape) for name, values in logits.items()} == dict.fromkeys(
        (spec.name for spec in MAPS), (count, 1, 28, 28)
    )
    sum(values.sum() for values in logits.values()).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert list(module(torch.randn(1, 8, 14, 14), ["occludee_mask"])) == ["occludee_mask"]


def test_one_stack_decodes_all_maps_from_the_same_features():
    features = features_of(OneStackHead(8), torch.randn(1, 8, 14, 14))
    assert features["occluder"] is features["occludee"]


def test_the_occludee_comes_first():
    head, x = OccludeeFirstHead(8), torch.randn(1, 8, 14, 14)
    before = features_of(head, x)
    with torch.no_grad():
        head.occluder_layer.convs[-1].bias += 1.0
        assert torch.equal(features_of(head, x)["occludee"], before["occludee"])
        head.occludee_layer.convs[-1].bias += 1.0
    assert not torch.equal(features_of(head, x)["occluder"], before["occluder"])


def test_the_gate_starts_at_one_half_and_can_close():
    head, x = GatedHead(8), torch.randn(1, 8, 14, 14)
    found = features_of(head, x)
    with torch.no_grad():
        assert torch.equal(found["occludee"], head.occludee_layer(x + 0.5 * found["occluder"]))
        head.gate.bias.fill_(-1e4)
        assert torch.equal(head.features(x)["occludee"], head.occludee_layer(x))


def test_both_layers_of_the_split_stack_see_the_shared_features():
    head, x = SplitLateHead(8), torch.randn(1, 8, 14, 14)
    before = features_of(head, x)
    with torch.no_grad():
        head.shared.convs[-1].bias += 1.0
    after = features_of(head, x)
    assert not torch.equal(before["occluder"], after["occluder"])
    assert not torch.equal(before["occludee"], after["occludee"])


def test_visible_and_amodal_mask_share_the_first_convolutions_alone():
    head, x = DeepVisibleHead(8, maps=MAPS).eval(), torch.randn(1, 8, 14, 14)

    def changed_by(layer) -> set[str]:
        with torch.no_grad():
            before = head(x)
            layer.convs[-1].bias += 1.0
            after = head(x)
        return {name for name, values in after.items() if not torch.equal(values, before[name])}

    visible, front = {"occludee_mask", "occludee_boundary"}, {"occluder_mask", "occluder_boundary", "occludee_amodal"}
    assert changed_by(head.visible) == visible
    assert changed_by(head.front) == front
    assert changed_by(head.shared) == visible | front
    with torch.no_grad():
        assert torch.equal(head(x, ["occludee_mask"])["occludee_mask"], head(x)["occludee_mask"])


def test_the_graph_convolution_of_the_branch_leaves_the_visible_masks_alone():
    head, x = DeepVisibleBranchGraphHead(8, maps=MAPS).eval(), torch.randn(1, 8, 14, 14)
    with torch.no_grad():
        before = head(x)
        head.front[0].norm.bias += 1.0
        after = head(x)
    changed = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert changed == {"occluder_mask", "occluder_boundary", "occludee_amodal"}


def test_the_neighbours_are_one_more_map_that_masks_do_without():
    ours, theirs = OneStackNeighboursHead(64, maps=MAPS), OneStackHead(64, maps=MAPS)
    added = ours.maps[-1]
    assert ours.maps[:-1] == theirs.maps and (added.name, added.target) == ("neighbours_mask", "neighbours")
    costs = [mask_head_cost(module, 64, 14) for module in (ours, theirs)]
    assert costs[0]["multiply_adds_masks_only"] == costs[1]["multiply_adds_masks_only"]
    assert costs[0]["multiply_adds_all_maps"] > costs[1]["multiply_adds_all_maps"]


@pytest.mark.parametrize(
    ("head", "scale"),
    [(SideBranchHead, 1), (SideBranchHalfHead, 0.5), (SideBranchQuarterHead, 0.25), (SideBranchDetachedHead, 0)],
)
def test_the_side_branch_reads_the_visible_stack_and_trains_a_share_of_it(head, scale):
    torch.manual_seed(0)
    module, x = head(8, maps=MAPS).eval(), torch.randn(2, 8, 14, 14)
    whole = SideBranchHead(8, maps=MAPS).eval()
    whole.load_state_dict(module.state_dict())

    def gradients(of):
        of.zero_grad(set_to_none=True)
        logits = of(x)
        sum(logits[name].sum() for name in ("occluder_mask", "occluder_boundary", "occludee_amodal")).backward()
        return logits, of.shared.convs[0].weight.grad

    logits, gradient = gradients(module)
    expected, full = gradients(whole)
    assert full.abs().sum() > 0
    assert all(parameter.grad is None for parameter in module.visible.parameters())
    for name in expected:
        torch.testing.assert_close(logits[name], expected[name])
    torch.testing.assert_close(torch.zeros_like(full) if gradient is None else gradient, scale * full)
    with torch.no_grad():
        module.visible.convs[-1].bias += 1.0
        changed = {name for name, values in module(x).items() if not torch.equal(values, logits[name])}
    assert changed == {spec.name for spec in MAPS}


def test_the_deep_side_branch_has_no_occluder_boundary_and_no_more_arithmetic():
    module, published = DeepSideBranchHead(64, maps=MAPS), BilayerMaskHead(64, maps=MAPS)
    names = {spec.name for spec in module.maps}
    assert names == {spec.name for spec in published.maps} - {"occluder_boundary"}
    assert len(module.front.convs) == 2 and module.graph.query.out_channels == 32
    ours, theirs = mask_head_cost(module, 64, 14), mask_head_cost(published, 64, 14)
    assert ours["multiply_adds_all_maps"] <= theirs["multiply_adds_all_maps"]
    logits = module.train()(torch.randn(2, 64, 14, 14))
    sum(values.sum() for values in logits.values()).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert (DeepSideBranchHead.gradient_scale, DeepSideBranchHalfHead.gradient_scale) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("head", "convs"),
    [
        (PooledSideBranchHead, (4, 4, 2)),
        (PooledVisibleHead, (4, 4, 2)),
        (NinthHead, (4, 5, 1)),
        (NinthSharedHead, (5, 4, 1)),
        (TenthHead, (5, 5, 0)),
        (NinthPooledHead, (4, 5, 1)),
        (NinthPooledHalfHead, (4, 5, 1)),
        (NinthPooledResidualHead, (4, 5, 1)),
        (NinthPooledResidualHalfHead, (4, 5, 1)),
    ],
)
def test_convolutions_move_between_the_layers_at_the_same_arithmetic(head, convs):
    module = head(64, maps=MAPS).train()
    assert tuple(len(layer.convs) for layer in (module.shared, module.visible, module.front)) == convs
    chosen = mask_head_cost(SideBranchMaskHead(64, maps=MAPS), 64, 14)
    assert mask_head_cost(module, 64, 14)["multiply_adds_all_maps"] == chosen["multiply_adds_all_maps"]
    logits = module(torch.randn(2, 64, 14, 14))
    sum(values.sum() for values in logits.values()).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_chosen_head_is_the_last_candidate_with_half_of_the_gradient():
    torch.manual_seed(0)
    candidate, chosen = NinthPooledHalfHead(8, maps=MAPS).eval(), SideBranchMaskHead(8, maps=MAPS).eval()
    names = {"shared": "shared_layer", "visible": "visible_layer", "graph": "branch_gcn", "front": "branch_layer"}
    state = {}
    for key, value in candidate.state_dict().items():
        part, _, rest = key.partition(".")
        state[rest if part == "decoders" else f"{names[part]}.{rest}"] = value
    chosen.load_state_dict(state)
    x = torch.randn(2, 8, 14, 14)
    for module in (candidate, chosen):
        sum(values.sum() for values in module(x).values()).backward()
    with torch.no_grad():
        ours, expected = chosen(x), candidate(x)
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        chosen.shared_layer.convs[0].weight.grad, candidate.shared.convs[0].weight.grad, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("plain", "residual"),
    [(NinthPooledHead, NinthPooledResidualHead), (NinthPooledHalfHead, NinthPooledResidualHalfHead)],
)
def test_the_residual_adds_what_the_branch_convolutions_read(plain, residual):
    module = residual(8, maps=MAPS).eval()
    for conv in module.front.convs:
        torch.nn.init.zeros_(conv.weight)
    other = plain(8, maps=MAPS).eval()
    other.load_state_dict(module.state_dict())
    x = torch.randn(1, 8, 14, 14)
    with torch.no_grad():
        assert other(x)["occluder_mask"].std() < 1e-6 < module(x)["occluder_mask"].std()


def test_the_visible_stack_is_the_side_branch_heads_without_its_branch():
    torch.manual_seed(0)
    whole, stack = SideBranchMaskHead(8, maps=MAPS).eval(), VisibleStackHead(8, maps=MAPS).eval()
    stack.shared.load_state_dict(whole.shared_layer.state_dict())
    stack.visible.load_state_dict(whole.visible_layer.state_dict())
    for name, decoder in stack.decoders.items():
        decoder.load_state_dict(whole.get_submodule(name).state_dict())
    x = torch.randn(2, 8, 14, 14)
    with torch.no_grad():
        expected, logits = whole(x), stack(x)
    assert set(logits) == {"occludee_mask", "occludee_boundary"}
    for name, values in logits.items():
        assert torch.equal(values, expected[name])
