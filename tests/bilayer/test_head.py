import pytest
import torch
import torch.nn.functional as F

from bcnet.bilayer import BilayerMaskHead, MaskLogits, PlainMaskHead
from bcnet.bilayer.layer import GraphConvolution, MaskLayer


def reference_bilayer(head: BilayerMaskHead, x: torch.Tensor) -> MaskLogits:
    """The head written out with explicit softmax attention, as the paper's section 3.2 describes it."""

    def gcn(g, f):
        n, c, h, w = f.shape
        q = F.conv2d(f, g.query.weight).view(n, c, -1).transpose(1, 2)
        k = F.conv2d(f, g.key.weight).view(n, c, -1)
        v = F.conv2d(f, g.value.weight).view(n, c, -1).transpose(1, 2)
        related = (torch.softmax(q @ k / c**0.5, dim=-1) @ v).transpose(1, 2).reshape(n, c, h, w)
        return f + g.norm(F.conv2d(related, g.output.weight))

    def layer(module, f):
        for i, conv in enumerate(module.convs):
            f = F.relu(F.conv2d(f, conv.weight, conv.bias, padding=1))
            if i == 1:
                f = gcn(module.gcn, f)
        return f

    def decode(decoder, f):
        f = F.relu(F.conv_transpose2d(f, decoder.deconv.weight, decoder.deconv.bias, stride=2))
        return F.conv2d(f, decoder.predictor.weight, decoder.predictor.bias)

    occluder = layer(head.occluder_layer, x)
    occludee = layer(head.occludee_layer, x + occluder)
    return MaskLogits(
        decode(head.occludee_mask, occludee),
        decode(head.occludee_boundary, occludee),
        decode(head.occluder_mask, occluder),
        decode(head.occluder_boundary, occluder),
    )


@pytest.fixture
def head():
    torch.manual_seed(0)
    return BilayerMaskHead(16, num_mask_classes=3).eval()


def test_the_head_computes_what_the_paper_writes(head):
    x = torch.randn(4, 16, 14, 14)
    with torch.no_grad():
        for ours, expected in zip(head(x), reference_bilayer(head, x), strict=True):
            assert ours.shape == (4, 3, 28, 28)
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_masks_only_decodes_the_same_mask_and_nothing_else(head):
    x = torch.randn(2, 16, 14, 14)
    with torch.no_grad():
        masks_only = head(x, masks_only=True)
        torch.testing.assert_close(masks_only.occludee_mask, head(x).occludee_mask, rtol=0, atol=0)
    assert masks_only[1:] == (None, None, None)


def test_the_occludee_sees_the_occluder_layer(head):
    x = torch.randn(1, 16, 14, 14)
    with torch.no_grad():
        before = head(x).occludee_mask
        head.occluder_layer.convs[3].bias += 1.0
        assert not torch.allclose(before, head(x).occludee_mask)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_with_statistics_untouched_and_every_parameter_in_the_graph(training):
    head = BilayerMaskHead(8).train(training)
    buffers = {name: value.clone() for name, value in head.named_buffers()}
    logits = head(torch.zeros(0, 8, 14, 14))
    assert [tuple(x.shape) for x in logits] == [(0, 1, 28, 28)] * 4
    sum(x.sum() for x in logits).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    for name, value in head.named_buffers():
        assert torch.equal(value, buffers[name]), name


# Attention of torch 2.4 computes fp16 affinities in fp16 on the CPU (not on a GPU).
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16] if torch.__version__ >= (2, 5) else [torch.bfloat16])
def test_large_affinities_stay_finite_under_autocast(dtype):
    torch.manual_seed(0)
    gcn = GraphConvolution(16).eval()
    with torch.no_grad():
        gcn.query.weight *= 30
        gcn.key.weight *= 30
    x = torch.randn(2, 16, 14, 14) * 8
    with torch.no_grad():
        q, k = gcn.query(x).flatten(2), gcn.key(x).flatten(2)
        assert (q.transpose(1, 2) @ k / 4).abs().max() > 1e5  # beyond fp16's 65504
        with torch.autocast("cpu", dtype=dtype):
            out = gcn(x)
    assert torch.isfinite(out).all()


def test_a_frozen_norm_keeps_its_statistics_in_training():
    frozen, live = GraphConvolution(8, freeze_norm=True).train(), GraphConvolution(8).train()
    x = torch.randn(3, 8, 14, 14)
    frozen(x), live(x)
    assert torch.equal(frozen.norm.running_mean, torch.zeros(8))
    assert not torch.equal(live.norm.running_mean, torch.zeros(8))
    assert live.norm.eps == 1e-4


def test_initialisation_is_msra_for_convolutions_and_a_narrow_normal_for_predictors():
    torch.manual_seed(0)
    head = BilayerMaskHead(64)
    conv, deconv = head.occluder_layer.convs[0], head.occludee_mask.deconv
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert deconv.weight.std().item() == pytest.approx((2 / (64 * 4)) ** 0.5, rel=0.03)
    assert head.occluder_boundary.predictor.weight.std().item() == pytest.approx(0.001, rel=0.3)
    assert all(not p.any() for name, p in head.named_parameters() if name.endswith("bias"))


def test_class_specific_maps_are_those_of_each_rois_class():
    logits = MaskLogits(torch.arange(2 * 3 * 4).view(2, 3, 2, 2), None, torch.arange(24, 48).view(2, 3, 2, 2))
    chosen = logits.of_class(torch.tensor([2, 0]))
    assert chosen.occludee_mask.flatten().tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert chosen.occluder_mask[1].flatten().tolist() == [36, 37, 38, 39]
    assert chosen.occludee_boundary is None
    agnostic = MaskLogits(torch.zeros(2, 1, 2, 2)).of_class(torch.tensor([7, 5]))
    assert agnostic.occludee_mask.shape == (2, 2, 2)


def test_ablated_heads_leave_out_what_they_are_told():
    head = BilayerMaskHead(8, use_gcn=False, use_boundary=False)
    assert not any("gcn" in name or "boundary" in name for name, _ in head.named_parameters())
    logits = head(torch.randn(1, 8, 14, 14))
    assert logits.occludee_boundary is None and logits.occluder_boundary is None


def test_the_plain_head_is_convolutions_and_one_decoder():
    head = PlainMaskHead(8, 16, num_conv=8, num_mask_classes=2)
    assert len(head.layer.convs) == 8 and head.layer.gcn is None
    logits = head(torch.randn(3, 8, 14, 14))
    assert logits.occludee_mask.shape == (3, 2, 28, 28)
    assert logits[1:] == (None, None, None)
    assert head(torch.zeros(0, 8, 14, 14)).occludee_mask.shape == (0, 2, 28, 28)


def test_a_graph_convolution_needs_two_convolutions_before_it():
    with pytest.raises(ValueError, match="num_conv=1"):
        MaskLayer(8, 8, num_conv=1)
