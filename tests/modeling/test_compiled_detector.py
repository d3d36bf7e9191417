"""MODEL.COMPILE: the networks are captured whole, and nothing changes but the time they take."""

import pytest
import torch
from mask_layers import two_layers
from small_models import DETECTORS, finding_detector, small_config

from bcnet.modeling import build_model
from bcnet.structures import Targets

tracer = pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4's tracer fails on the feature pyramid")


@tracer
@pytest.mark.parametrize("detector", DETECTORS)
def test_networks_are_captured_whole_and_give_the_same(detector):
    _, model = finding_detector(detector)
    images = [torch.randint(0, 256, (3, side, 64), dtype=torch.uint8) for side in (64, 96)]
    names = list(model.state_dict())
    eager = [model.inference([image], with_occluder=True)[0] for image in images]
    # The eager backend runs the captured graphs without generating code, which would take minutes.
    model.compile(backend="eager", fullgraph=True)
    torch._dynamo.reset()
    try:
        compiled = [model.inference([image], with_occluder=True)[0] for image in images]
    finally:
        torch._dynamo.reset()
    assert list(model.state_dict()) == names
    for before, after in zip(eager, compiled, strict=True):
        assert len(before) > 0
        torch.testing.assert_close(after.boxes, before.boxes)
        for name, values in before.maps.items():
            torch.testing.assert_close(getattr(after, name), values)


@tracer
@pytest.mark.parametrize("detector", DETECTORS)
def test_training_gives_the_same_losses_and_gradients(detector):
    cfg = small_config(detector)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 20:56, 24:60] = True
    boxes = torch.tensor([[8.0, 8, 40, 40], [24, 20, 60, 56]])
    targets = [Targets(boxes, torch.tensor([0, 1]), two_layers(masks, masks.flip(0)))]
    outcomes = []
    for options in (None, {"backend": "eager", "fullgraph": True}):
        torch.manual_seed(0)
        model = build_model(cfg).train()
        if options:
            torch._dynamo.reset()
            model.compile(**options)
        torch.manual_seed(1)
        losses = model([image], targets)
        sum(losses.values()).backward()
        outcomes.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    torch._dynamo.reset()
    (losses, gradients), (compiled_losses, compiled_gradients) = outcomes
    torch.testing.assert_close(compiled_losses, losses)
    torch.testing.assert_close(compiled_gradients, gradients)


def test_the_config_asks_for_it(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    assert build_model(small_config()) and not compiled
    model = build_model(small_config(MODEL__COMPILE=True))
    assert [network for network, _ in compiled] == model.networks()
    assert all(options == {"dynamic": True} for _, options in compiled)
