"""Training and inference on the GPU: mixed precision, compilation, memory formats, NCCL, agreement with the CPU.

Without a GPU the same tests run on the CPU, with gloo and without code generation, so that they cannot rot.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from mask_layers import two_layers
from small_models import DETECTORS, finding_detector, small_config
from torch.nn.parallel import DistributedDataParallel

from bcnet.modeling import build_model
from bcnet.modeling.precision import autocast
from bcnet.structures import Targets

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
tracer = pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4's tracer fails on the feature pyramid")


@pytest.fixture(autouse=True)
def full_precision():
    """float32 multiplies in float32, not in TF32."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def training_input(device=DEVICE):
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 20:56, 24:60] = True
    boxes = torch.tensor([[8.0, 8, 40, 40], [24, 20, 60, 56]])
    targets = Targets(boxes, torch.tensor([0, 1]), two_layers(masks, masks.flip(0)))
    return [image.to(device)], [targets.to(device)]


def detector_on(device, name="GeneralizedRCNN"):
    """An untrained detector that finds something, in eval mode, the same on every device."""
    _, model = finding_detector(name)
    model = model.to(device)
    return model


def assert_same_detections(found, expected, tolerance):
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.boxes.cpu(), expected.boxes.cpu(), atol=64 * tolerance, rtol=0)
    for name, values in expected.maps.items():
        torch.testing.assert_close(getattr(found, name).cpu(), values.cpu(), atol=tolerance, rtol=0)


# On the CPU the detector without P7: of maps of one pixel, oneDNN's gradient in bf16 holds memory that nobody has set.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", DETECTORS if HAS_GPU else DETECTORS[:1])
def test_a_step_in_mixed_precision(name, dtype):
    torch.manual_seed(0)
    model = build_model(small_config(name, MODEL__DEVICE=str(DEVICE))).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**8, enabled=dtype == torch.float16)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with autocast(DEVICE, dtype):
        losses = model(*training_input())
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    scaler.scale(sum(losses.values())).backward()
    scaler.unscale_(optimizer)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()] == []
    scaler.step(optimizer)
    for part in ("backbone", "mask_branch.head.occluder_layer", "mask_branch.head.occludee_layer"):
        moved = [not torch.equal(p, before[n]) for n, p in model.named_parameters() if n.startswith(part)]
        assert any(moved), part


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_inference_in_mixed_precision(dtype):
    model, (images, _) = detector_on(DEVICE), training_input()
    with autocast(DEVICE, dtype):
        (found,) = model.inference(images, with_occluder=True)
    assert len(found) > 0 and all(torch.isfinite(values).all() for values in (found.boxes, *found.maps.values()))


@pytest.mark.parametrize("name", DETECTORS)
def test_the_device_finds_what_the_cpu_finds(name):
    images, _ = training_input(torch.device("cpu"))
    (expected,) = detector_on(torch.device("cpu"), name).inference(images, with_occluder=True)
    (found,) = detector_on(DEVICE, name).inference([image.to(DEVICE) for image in images], with_occluder=True)
    assert_same_detections(found, expected, 1e-3)


def test_memory_formats_give_the_same():
    model, (images, _) = detector_on(DEVICE), training_input()
    contiguous = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    (expected,) = contiguous.inference(images, with_occluder=True)
    (found,) = model.to(memory_format=torch.channels_last).inference(images, with_occluder=True)
    assert_same_detections(found, expected, 1e-3)


@tracer
def test_compiled_inference_gives_the_same():
    model, (images, _) = detector_on(DEVICE), training_input()
    (expected,) = model.inference(images, with_occluder=True)
    torch._dynamo.reset()
    try:
        # Code for CPUs takes minutes to generate and a compiler.
        model.compile(**({} if HAS_GPU else {"backend": "eager"}))
        (found,) = model.inference(images, with_occluder=True)
    finally:
        torch._dynamo.reset()
    assert_same_detections(found, expected, 1e-3)


def test_one_process_of_a_group(tmp_path):
    """NCCL carries the gradients of DistributedDataParallel; they are those of the model alone."""
    images, targets = training_input()

    def gradients(wrap):
        torch.manual_seed(0)
        model = build_model(small_config(MODEL__DEVICE=str(DEVICE))).train()
        network = wrap(model)
        torch.manual_seed(1)
        sum(network(images, targets).values()).backward()
        return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}

    alone = gradients(lambda model: model)
    backend = "nccl" if HAS_GPU else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        total = torch.ones(1, device=DEVICE)
        dist.all_reduce(total)
        grouped = gradients(lambda model: DistributedDataParallel(model, device_ids=[0] if HAS_GPU else None))
    finally:
        dist.destroy_process_group()
    assert total.item() == 1 and grouped.keys() == alone.keys() and len(alone) > 50
    torch.testing.assert_close(grouped, alone, atol=1e-4, rtol=1e-3)
