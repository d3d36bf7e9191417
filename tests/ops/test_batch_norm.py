"""BatchNorm that only training changes; SyncBN of several processes is BatchNorm of one on the joint batch."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn.precise_bn import update_bn_stats
from torch import nn
from torch.optim.swa_utils import update_bn

from bcnet.distributed import rank, world_size
from bcnet.ops.batch_norm import BatchNorm2d, SyncBatchNorm2d
from bcnet.training import launch

SIZES = {"unequal": (3, 1), "one empty": (4, 0), "all empty": (0, 0)}


def samples(count: int) -> torch.Tensor:
    return torch.randn(count, 5, 4, 3, generator=torch.Generator().manual_seed(0)) * 3 + 100


def run_layer(folder, sizes) -> None:
    """Output, gradient of the input and running statistics of this process' share."""
    norm = SyncBatchNorm2d(5, eps=1e-4)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 6.0))
    x = samples(sum(sizes)).split(sizes)[rank()].clone().requires_grad_()
    y = norm(x)
    (y * y.detach().roll(1, dims=1)).sum().backward()
    torch.save({"y": y.detach(), "grad": x.grad, "state": norm.state_dict()}, folder / f"{rank()}.pth")


@pytest.mark.parametrize("name", SIZES)
def test_two_processes_equal_one(tmp_path, name):
    sizes = SIZES[name]
    launch(run_layer, (tmp_path, sizes), num_processes=2)
    parts = [torch.load(tmp_path / f"{index}.pth", weights_only=True) for index in range(2)]
    expected = nn.BatchNorm2d(5, eps=1e-4)
    with torch.no_grad():
        expected.weight.copy_(torch.arange(1.0, 6.0))
    x = samples(sum(sizes)).requires_grad_()
    if len(x):
        y = expected(x)
        (y * y.detach().roll(1, dims=1)).sum().backward()
        assert torch.allclose(torch.cat([part["y"] for part in parts]), y, rtol=1e-4, atol=1e-5)
        assert torch.allclose(torch.cat([part["grad"] for part in parts]), x.grad, rtol=1e-3, atol=1e-5)
    for part in parts:
        assert [len(part["y"]) for part in parts] == list(sizes)
        for key, value in expected.state_dict().items():
            assert torch.allclose(part["state"][key], value, rtol=1e-5), key


def test_one_process_is_batch_norm():
    torch.manual_seed(0)
    norm, plain = SyncBatchNorm2d(5), nn.BatchNorm2d(5)
    x = samples(4)
    assert world_size() == 1 and not norm.is_synchronized
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    assert norm.state_dict().keys() == plain.state_dict().keys()


def trained(layer):
    """A layer with statistics of its own."""
    with torch.no_grad():
        layer.running_mean.fill_(3.0)
        layer.running_var.fill_(7.0)
    return layer


@pytest.mark.parametrize("layer_class", [BatchNorm2d, SyncBatchNorm2d])
def test_without_gradients_the_statistics_stay(layer_class):
    layer, plain, x = trained(layer_class(5)), trained(nn.BatchNorm2d(5)), samples(4)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer(x)
    assert not torch.equal(layer.running_mean, before["running_mean"]) and layer.num_batches_tracked == 1


@pytest.mark.parametrize("collect", ["precise", "swa"])
def test_who_collects_statistics_without_gradients_gets_them(collect):
    def collected(layer):
        model = nn.Sequential(trained(layer))
        if collect == "precise":
            update_bn_stats(model, [samples(4), 2 * samples(4)], num_iters=2)
        else:
            update_bn([samples(4), 2 * samples(4)], model)
        return layer.state_dict()

    found, expected = collected(BatchNorm2d(5)), collected(nn.BatchNorm2d(5))
    assert expected["running_mean"].mean() > 100
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
