import pytest
import torch
import torch.nn.functional as F

from bcnet.bilayer import BilayerMaskHead, MapTarget, PlainMaskHead, mask_boundary, select_class
from bcnet.bilayer.layer import GraphConvolution, MaskLayer
from bcnet.maps import PUBLISHED_MAPS, MapSpec, required_layers


def reference_bilayer(head: BilayerMaskHead, x: torch.Tensor) -> dict:
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
    return {
        "occludee_mask": decode(head.occludee_mask, occludee),
        "occludee_boundary": decode(head.occludee_boundary, occludee),
        "occluder_mask": decode(head.occluder_mask, occluder),
        "occluder_boundary": decode(head.occluder_boundary, occluder),
    }


@pytest.fixture
def head():
    torch.manual_seed(0)
    return BilayerMaskHead(16, num_mask_classes=3).eval()


def test_the_head_computes_what_the_paper_writes(head):
    x = torch.randn(4, 16, 14, 14)
    with torch.no_grad():
        ours, expected = head(x), reference_bilayer(head, x)
    assert list(ours) == list(expected) == [spec.name for spec in head.maps]
    for name, logits in ours.items():
        assert logits.shape == (4, 3, 28, 28)
        torch.testing.assert_close(logits, expected[name], rtol=1e-4, atol=1e-6)


def test_only_the_maps_that_are_asked_for_are_decoded(head):
    x = torch.randn(2, 16, 14, 14)
    calls = []
    for name, module in head.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        mask_alone = head(x, ["occludee_mask"])
        assert calls == ["occluder_layer", "occludee_layer", "occludee_mask"]
        torch.testing.assert_close(mask_alone["occludee_mask"], head(x)["occludee_mask"], rtol=0, atol=0)
    assert list(mask_alone) == ["occludee_mask"]


def test_the_occludee_sees_the_occluder_layer(head):
    x = torch.randn(1, 16, 14, 14)
    with torch.no_grad():
        before = head(x)["occludee_mask"]
        head.occluder_layer.convs[3].bias += 1.0
        assert not torch.allclose(before, head(x)["occludee_mask"])


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_with_statistics_untouched_and_every_parameter_in_the_graph(training):
    head = BilayerMaskHead(8).train(training)
    buffers = {name: value.clone() for name, value in head.named_buffers()}
    logits = head(torch.zeros(0, 8, 14, 14))
    assert [tuple(x.shape) for x in logits.values()] == [(0, 1, 28, 28)] * 4
    sum(x.sum() for x in logits.values()).backward()
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
    logits = {"a": torch.arange(2 * 3 * 4).view(2, 3, 2, 2), "b": torch.arange(24, 48).view(2, 3, 2, 2)}
    chosen = select_class(logits, torch.tensor([2, 0]))
    assert chosen["a"].flatten().tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert chosen["b"][1].flatten().tolist() == [36, 37, 38, 39]
    agnostic = select_class({"a": torch.zeros(2, 1, 2, 2)}, torch.tensor([7, 5]))
    assert agnostic["a"].shape == (2, 2, 2)


def test_ablated_heads_leave_out_what_they_are_told():
    head = BilayerMaskHead(8, use_gcn=False, use_boundary=False)
    assert not any("gcn" in name or "boundary" in name for name, _ in head.named_parameters())
    assert list(head(torch.randn(1, 8, 14, 14))) == ["occludee_mask", "occluder_mask"]


def test_the_plain_head_is_convolutions_and_one_decoder():
    head = PlainMaskHead(8, 16, num_conv=8, num_mask_classes=2)
    assert len(head.layer.convs) == 8 and head.layer.gcn is None
    logits = head(torch.randn(3, 8, 14, 14))
    assert {name: tuple(values.shape) for name, values in logits.items()} == {"occludee_mask": (3, 2, 28, 28)}
    assert head(torch.zeros(0, 8, 14, 14))["occludee_mask"].shape == (0, 2, 28, 28)


def test_a_graph_convolution_needs_two_convolutions_before_it():
    with pytest.raises(ValueError, match="num_conv=1"):
        MaskLayer(8, 8, num_conv=1)


def test_one_more_map_is_one_more_record():
    amodal = MapSpec(name="occludee_amodal", short_name="amodal_mask", layer="occludee", target="amodal", loss_name="l")
    torch.manual_seed(0)
    head = BilayerMaskHead(8, maps=(*PUBLISHED_MAPS, amodal)).eval()
    torch.manual_seed(0)
    published = BilayerMaskHead(8).eval()
    added = head.state_dict().keys() - published.state_dict().keys()
    assert {key.split(".")[0] for key in added} == {"occludee_amodal"}
    x = torch.randn(2, 8, 14, 14)
    with torch.no_grad():
        with_amodal, without = head(x), published(x)
    assert list(with_amodal) == [*without, "occludee_amodal"]
    assert all(torch.equal(with_amodal[name], values) for name, values in without.items())
    assert required_layers(head.maps) == ("occludee", "occluder", "amodal")


def test_a_plain_head_with_a_boundary_decodes_both_maps_from_the_same_features():
    torch.manual_seed(0)
    head = PlainMaskHead(8, 16, num_conv=2, num_mask_classes=3, use_boundary=True).eval()
    plain = PlainMaskHead(8, 16, num_conv=2, num_mask_classes=3).eval()
    plain.load_state_dict({key: value for key, value in head.state_dict().items() if not key.startswith("boundary.")})
    x = torch.randn(5, 8, 14, 14)
    with torch.no_grad():
        maps = head(x)
        assert torch.equal(maps["occludee_mask"], plain(x)["occludee_mask"])
        assert torch.equal(maps["occludee_boundary"], head.boundary(head.layer(x)))
        assert list(head(x, ["occludee_mask"])) == ["occludee_mask"]
    assert list(maps) == [spec.name for spec in head.maps] == ["occludee_mask", "occludee_boundary"]
    assert required_layers(head.maps) == ("occludee",)


def test_a_plain_head_with_a_boundary_has_the_losses_of_the_occludee():
    head = PlainMaskHead(8, 8, use_boundary=True, loss_weights={"occludee_boundary": 2.0})
    values = torch.zeros(3, 28, 28, dtype=torch.bool)
    values[:, 5:20, 5:20] = True
    logits = {spec.name: torch.randn(3, 28, 28) for spec in head.maps}
    losses = head.losses(logits, {"occludee": MapTarget(values)})
    boundary = F.binary_cross_entropy_with_logits(logits["occludee_boundary"], mask_boundary(values).float())
    assert list(losses) == ["loss_mask", "loss_mask_boundary"]
    torch.testing.assert_close(losses["loss_mask_boundary"], 2 * boundary)


def test_a_head_that_forgets_a_map_is_named():
    class Forgetful(PlainMaskHead):
        def forward(self, x, names=None):
            return {"occludee_mask": super().forward(x)["occludee_mask"]}

    head = Forgetful(4, 4, use_boundary=True)
    logits = select_class(head(torch.zeros(1, 4, 7, 7)), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"Forgetful declares .* returned no logits of occludee_boundary"):
        head.losses(logits, {"occludee": MapTarget(torch.zeros(1, 14, 14, dtype=torch.bool))})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"loss_weights": {"ocluder_mask": 1.0}},
            "loss_weights names the map 'ocluder_mask'; there are occludee_mask, ",
        ),
        ({"loss_weights": {"occluder_mask": float("nan")}}, "is nan; it must be a number of at least 0"),
        ({"gcn_norm": "GN"}, "norm of the graph convolution must be one of BN, SyncBN, got 'GN'"),
        ({"num_mask_classes": 0}, r"masks of at least 1 class \(num_mask_classes\), got 0"),
    ],
)
def test_wrong_keywords_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        BilayerMaskHead(8, **keywords)


def test_a_weight_of_a_built_in_map_that_a_head_lacks_has_no_effect():
    """A config has one for each of them."""
    assert [spec.name for spec in PlainMaskHead(4, 4, loss_weights={"occluder_mask": 2.0}).maps] == ["occludee_mask"]
