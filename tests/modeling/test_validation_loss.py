"""A validation loss, in training mode without gradients, changes nothing and waits for no other process."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from small_models import DETECTORS, small_config, write_small_data_set

from bcnet.data import DatasetMapper, load_dataset
from bcnet.distributed import rank
from bcnet.modeling import build_model
from bcnet.training import launch


def batch(cfg, spec):
    samples = [DatasetMapper.from_config(cfg, training=True)(r, ZEROS) for r in load_dataset(spec)[0][:2]]
    return [sample["image"] for sample in samples], [sample["targets"] for sample in samples]


class ZEROS:
    random = staticmethod(lambda: 1.0)  # no flip


@pytest.mark.parametrize("gcn_norm", ["BN", "SyncBN"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_the_model_stays_as_it_is(tmp_path, detector, gcn_norm):
    cfg = small_config(detector, MODEL__BILAYER__GCN_NORM=gcn_norm)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    images, targets = batch(cfg, write_small_data_set(tmp_path))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        validation = model(images, targets)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    torch.manual_seed(1)
    training = model(images, targets)
    assert validation.keys() == training.keys()
    for name, loss in training.items():
        torch.testing.assert_close(validation[name], loss.detach())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert any("gcn.norm.running_mean" in key for key in changed)


def loss_of_one_process(spec, detector, result) -> None:
    cfg = small_config(detector, MODEL__BILAYER__GCN_NORM="SyncBN")
    torch.manual_seed(0)
    model = build_model(cfg).train()
    if rank() == 0:
        torch.manual_seed(1)
        with torch.no_grad():
            torch.save(model(*batch(cfg, spec)), result)
    dist.barrier()


@pytest.mark.parametrize("detector", DETECTORS)
def test_one_process_of_two_alone(tmp_path, detector):
    spec, result = write_small_data_set(tmp_path), tmp_path / "losses.pth"
    launch(loss_of_one_process, (spec, detector, result), num_processes=2)
    cfg = small_config(detector, MODEL__BILAYER__GCN_NORM="SyncBN")
    torch.manual_seed(0)
    model = build_model(cfg).train()
    torch.manual_seed(1)
    with torch.no_grad():
        expected = model(*batch(cfg, spec))
    found = torch.load(result, weights_only=True)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-4, atol=1e-6)
