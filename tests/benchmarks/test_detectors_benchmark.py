"""Benchmark rows that run networks: comparable settings of both detectors, and errors if they differ."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import fcos_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from benchmarks import BenchmarkSettings, inference, lite, memory, training
from benchmarks.detectors import build_mask_rcnn, build_ours, build_torchvision_fcos, equal_config

QUICK = BenchmarkSettings(quick=True, repeats=1)


def shapes(model):
    return {key: value.shape for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}


def test_the_peers_are_torchvisions_own_models():
    settings = BenchmarkSettings()
    with torch.device("meta"):  # no memory and no random numbers for models that do not run
        mask_rcnn = build_mask_rcnn(equal_config(settings, settings.config, "MODEL.DEVICE", "meta"))
        fcos = build_torchvision_fcos(equal_config(settings, training.FCOS_CONFIG, "MODEL.DEVICE", "meta"))
        own_mask_rcnn = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
        own_fcos = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
        own_backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
        )
    assert shapes(mask_rcnn) == shapes(own_mask_rcnn)
    for part in ("rpn", "roi_heads", "transform"):
        assert str(getattr(mask_rcnn, part)) == str(getattr(own_mask_rcnn, part))
    assert shapes(fcos) == shapes(own_fcos)
    assert str(fcos.head) == str(own_fcos.head)
    assert str(mask_rcnn.backbone) == str(own_backbone)
    trained, own_trained = (
        [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        for backbone in (mask_rcnn.backbone, own_backbone)
    )
    assert trained == own_trained


def test_both_sides_have_the_same_weights_and_freeze_the_same():
    cfg = equal_config(QUICK, training.PLAIN_CONFIG)
    peer = build_mask_rcnn(cfg, seed=1)
    ours = build_ours(cfg, peer, seed=1)
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)]
    with torch.no_grad():
        features, _ = ours.features(images)
        expected = peer.backbone(peer.transform([image / 255 for image in images])[0].tensors)
    for name, value in zip(features.values(), expected.values(), strict=True):
        assert torch.allclose(name, value, atol=1e-4 * float(value.std()))
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, peer)]
    # The peer has outputs more: masks and boxes of the background.
    assert 0 < counts[1] - counts[0] < 1000


def test_the_row_of_the_mask_branch_alone():
    (row,) = training.benchmark_mask_branch_training(QUICK)
    assert (row.name, row.peer, row.required) == ("training-mask-branch", "training of the whole model", None)
    assert len(row.ours) == len(row.theirs) == 1


def test_the_row_of_the_lite_model(monkeypatch):
    pytest.importorskip("timm", reason="needs timm: pip install 'bcnet[backbones]'")
    (row,) = lite.benchmark_lite(QUICK)
    assert (row.name, row.required, row.skipped) == ("lite", None, "") and len(row.ours) == 1
    assert "given boxes, 64 x 160" in row.work
    assert lite._LiteSettings().image_size == (640, 640)
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    (skipped,) = lite.benchmark_lite(BenchmarkSettings())
    assert skipped.skipped == "needs timm" and "640 x 640" in skipped.work


def test_training_rows_and_wrong_counts(monkeypatch):
    bilayer, plain = training.benchmark_training(QUICK)
    assert (bilayer.name, bilayer.required, bilayer.as_cost) == ("training", 1.25, True)
    assert (plain.name, plain.required) == ("training-plain", None)
    assert bilayer.theirs == plain.theirs
    assert len(bilayer.ours) == 1
    cfg = equal_config(QUICK, QUICK.config)
    images = training.training_images(QUICK)
    step = training.peer_step(build_mask_rcnn(cfg).train(), images, QUICK)
    assert step.region_counts() == [4 * 4, 4]
    few = BenchmarkSettings(quick=True)
    monkeypatch.setattr(BenchmarkSettings, "instances", 3)
    with pytest.raises(RuntimeError, match=r"must train on 24 and 6 RoIs, got \[16, 4\]"):
        training.check_region_counts({"peer": step}, few)


def test_a_step_leaves_the_weights_and_refuses_losses_that_are_not_finite():
    cfg = equal_config(QUICK, training.FCOS_CONFIG, "MODEL.MASK_ON", False)
    peer = build_torchvision_fcos(cfg).train()
    images = training.training_images(QUICK)
    step = training.our_step(build_ours(cfg, peer).train(), cfg, images, QUICK)
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    step()
    assert all(torch.equal(value, before[key]) for key, value in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    next(step.model.head.parameters()).data.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"loss_cls.* of FCOS with random weights"):
        step.region_counts()


def test_fcos_rows():
    (trained,) = training.benchmark_fcos_training(QUICK)
    (inferred,) = inference.benchmark_fcos_inference(QUICK)
    assert (trained.name, inferred.name) == ("fcos-training", "fcos-inference")
    assert trained.ratio > 0 and inferred.ratio > 0


def test_inference_rows_and_wrong_counts(monkeypatch):
    masks, pasted, plain = inference.benchmark_inference(QUICK)
    assert [row.name for row in (masks, pasted, plain)] == ["inference", "inference-pasted", "inference-plain"]
    assert [row.required for row in (masks, pasted, plain)] == [1.25, 1.25, None]
    assert masks.theirs == plain.theirs and masks.theirs != pasted.theirs
    with pytest.raises(RuntimeError, match=r"must return 5 detections, got \{'a': 4, 'b': 5\}"):
        inference.check_detection_counts({"a": lambda: [0] * 4, "b": lambda: {"boxes": [0] * 5}}, QUICK)


def test_the_peer_pastes_only_where_asked():
    cfg = equal_config(QUICK, QUICK.config)
    peer = build_mask_rcnn(cfg).eval()
    image = inference.random_image(QUICK)
    peer.roi_heads.score_thresh = 0.0
    small = inference.peer_inference(peer, image, QUICK, pasted=False)()
    large = inference.peer_inference(peer, image, QUICK, pasted=True)()
    assert small["masks"].shape == (5, 1, 28, 28)
    assert large["masks"].shape == (5, 1, *QUICK.image_size)


@pytest.mark.parametrize("benchmark", [memory.benchmark_memory, inference.benchmark_fast_inference])
def test_rows_that_need_a_gpu(benchmark):
    for row in benchmark(QUICK):
        assert row.skipped == "needs --device cuda"
        assert row.verdict == ("not measured" if row.required else "")


def test_memory_of_each_network_is_measured_in_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = BenchmarkSettings(quick=True, repeats=2, device="cuda")
    measured = []
    peaks = {settings.config: 3.0, training.PLAIN_CONFIG: 2.0, memory.PEER: 4.0}
    monkeypatch.setattr(memory, "_peak", lambda _settings, network, _images: measured.append(network) or peaks[network])
    plain, peer = memory.benchmark_memory(settings)
    assert measured == [*peaks, *peaks]
    assert (plain.name, plain.ours, plain.theirs, plain.verdict) == ("memory", [3.0, 3.0], [2.0, 2.0], "not met")
    assert (peer.name, peer.theirs, peer.ratio, peer.required) == ("memory-torchvision", [4.0, 4.0], 0.75, None)


def test_memory_is_measured_in_a_step_of_the_peer_too():
    step = memory.training_step_of(QUICK, memory.PEER, training.training_images(QUICK))
    training.check_region_counts({"peer": step}, QUICK)
    assert type(step.model).__module__.startswith("torchvision")
