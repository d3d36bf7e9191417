"""Two processes give the loss and the gradients of one process on the joint batch.

BatchNorm of the GCN is frozen or synchronized, and nothing is drawn at random: every anchor, proposal and RoI is taken.
"""

from __future__ import annotations

import pytest
import torch
from mask_layers import two_layers
from small_models import DETECTORS, small_config
from torch.nn.parallel import DistributedDataParallel

from bcnet.distributed import mean_over_processes, rank, world_size
from bcnet.modeling import build_model
from bcnet.structures import Targets
from bcnet.training import launch

OBJECTS = (5, 0, 1, 2)  # of the four images: two processes get unequal numbers


def random_targets(count: int, generator: torch.Generator) -> Targets:
    corners = torch.rand(count, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 10 + torch.rand(count, 2, generator=generator) * 20], dim=1)
    masks = torch.zeros(2, count, 64, 64, dtype=torch.uint8)
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        masks[0, index, y0:y1, x0:x1] = 1
        if index % 2 == 0:
            masks[1, index, y0 : (y0 + y1) // 2, x0:x1] = 1
    classes = torch.randint(0, 3, (count,), generator=generator)
    return Targets(boxes, classes, two_layers(masks[0], masks[1]))


def losses_and_gradients(folder, detector: str, norm: dict) -> None:
    torch.manual_seed(0)
    cfg = small_config(
        detector,
        **norm,
        MODEL__BILAYER__OCCLUDER_NEGATIVE_RATIO=-1.0,
        MODEL__RPN__BATCH_SIZE_PER_IMAGE=1100,
        MODEL__RPN__POSITIVE_FRACTION=1.0,
        MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE=64,
        MODEL__ROI_HEADS__POSITIVE_FRACTION=1.0,
    )
    model = build_model(cfg).train()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in OBJECTS]
    targets = [random_targets(count, generator) for count in OBJECTS]
    share = len(images) // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    network = DistributedDataParallel(model) if world_size() > 1 else model
    losses = network(images[mine], targets[mine])
    sum(losses.values()).backward()
    content = {
        "losses": {name: mean_over_processes(value) for name, value in losses.items()},
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.requires_grad},
        "statistics": {name: value.float() for name, value in model.named_buffers() if "gcn.norm" in name},
    }
    if rank() == 0:
        torch.save(content, folder / f"{world_size()}.pth")


FROZEN = {"MODEL__BILAYER__FREEZE_GCN_NORM": True}
SYNCHRONIZED = {"MODEL__BILAYER__GCN_NORM": "SyncBN"}


@pytest.mark.parametrize(
    ("detector", "norm"), [*((detector, FROZEN) for detector in DETECTORS), (DETECTORS[0], SYNCHRONIZED)]
)
def test_two_processes_equal_one(tmp_path, detector, norm):
    for processes in (1, 2):
        launch(losses_and_gradients, (tmp_path, detector, norm), num_processes=processes)
    one, two = (torch.load(tmp_path / f"{processes}.pth", weights_only=True) for processes in (1, 2))
    assert one["losses"].keys() == two["losses"].keys()
    for name, value in one["losses"].items():
        assert value > 0, name
        assert two["losses"][name].item() == pytest.approx(value.item(), abs=1e-5, rel=1e-5), name
    assert all(gradient is not None for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        difference = (two["gradients"][name] - gradient).abs()
        assert difference.max() < 1e-5, name
        # By the order of float32 sums, which depends on the batch and the CPU; a wrong weight of a process is of the
        # order of the gradient, whose smallest norm is 5e-4.
        assert difference.norm() <= 1e-3 * gradient.norm() + 1e-5, name
    for name, value in one["statistics"].items():
        assert torch.allclose(two["statistics"][name], value, rtol=1e-5, atol=1e-6), name
