"""Targets, mask head and losses never make the host wait for the device.

torch's fake tensors have a device and no values: whatever asks for a value (``item``, ``nonzero``, a bool of a tensor,
an index by a bool tensor) raises. So the forward pass is checked on machines without a GPU too.
"""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from bcnet.bilayer import BilayerMaskHead, PlainMaskHead, SideBranchMaskHead
from bcnet.fcos import FCOSHead, assign_targets, fcos_losses, level_points
from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.modeling.pooler import RoIPooler
from bcnet.structures import InstanceMasks, Targets

fake_gpu = pytest.mark.skipif(
    torch.__version__ < (2, 5) and not torch.cuda.is_available(), reason="torch 2.4 has no fake GPU without a driver"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STRIDES = (4, 8, 16, 32)


def mask_losses_of(head_class, mask_classes):
    """The losses of a mask branch on CUDA, two images of 64 pixels with three instances each."""
    heads = {
        "bilayer": BilayerMaskHead,
        "side branch": SideBranchMaskHead,
        "plain": lambda c, **k: PlainMaskHead(c, c, **k),
    }
    with torch.device("cuda"):
        head = heads[head_class](32, num_mask_classes=mask_classes)
        branch = MaskBranch(RoIPooler(14, STRIDES), head, negative_ratio=1.0).train()
        features = [torch.rand(2, 32, 64 // s, 64 // s, requires_grad=True) for s in STRIDES]
        boxes = torch.tensor([4.0, 4, 30, 40]).repeat(5, 1) if torch.cuda.is_available() else torch.rand(5, 4)
        rois = [MaskRoIs(boxes, torch.zeros(5, dtype=torch.int64)) for _ in range(2)]
        windows = np.array([[0, 0, 20, 20], [0, 0, 20, 20], [5, 5, 40, 10]])
        masks = InstanceMasks(("occludee", "occluder"), torch.ones(2400, dtype=torch.uint8), windows)
        targets = [Targets(torch.rand(3, 4), torch.zeros(3, dtype=torch.int64), masks) for _ in range(2)]
    return lambda: branch.losses(features, rois, targets)


def fcos_losses_of():
    """The losses of FCOS on CUDA, two images of 64 pixels with three instances each."""
    with torch.device("cuda"):
        head = FCOSHead(32, 4, num_levels=len(STRIDES), num_conv=1, norm_groups=8, prior_prob=0.01)
        features = [torch.rand(2, 32, 64 // s, 64 // s, requires_grad=True) for s in STRIDES]
        points = [level_points(64 // s, 64 // s, s) for s in STRIDES]
        boxes = [torch.rand(3, 4) * 64 for _ in range(2)]
        classes = [torch.zeros(3, dtype=torch.int64) for _ in range(2)]

    def losses():
        options = {"center_sampling_radius": 1.5, "sizes_of_interest": (16, 32, 48)}
        assigned = assign_targets(points, STRIDES, boxes, classes, num_classes=4, **options)
        return fcos_losses(head(features), assigned, focal_alpha=0.25, focal_gamma=2.0, box_weight=1.25)

    return losses


WORK = {
    "bilayer": lambda: mask_losses_of("bilayer", 1),
    "bilayer, class-specific": lambda: mask_losses_of("bilayer", 4),
    "side branch": lambda: mask_losses_of("side branch", 1),
    "plain": lambda: mask_losses_of("plain", 4),
    "FCOS": fcos_losses_of,
}


@fake_gpu
@pytest.mark.parametrize("name", WORK)
def test_losses_ask_for_no_value(name):
    with FakeTensorMode():
        losses = WORK[name]()()
    assert {loss.device.type for loss in losses.values()} == {"cuda"}
    assert all(loss.shape == () for loss in losses.values())


@fake_gpu
@pytest.mark.parametrize("ask", [torch.nonzero, torch.Tensor.item, bool, lambda x: x[x > 0]])
def test_the_check_can_fail(ask):
    with FakeTensorMode(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        ask(torch.ones(1, device="cuda"))


@needs_gpu
@pytest.mark.parametrize("name", WORK)
def test_no_synchronisation_on_a_gpu(name):
    work = WORK[name]()
    sum(work().values()).backward()  # the first call loads kernels and takes memory
    torch.cuda.synchronize()
    with errors_where_the_host_waits():
        sum(work().values()).backward()


@needs_gpu
def test_the_check_on_a_gpu_can_fail():
    values = torch.ones(3, device="cuda")
    with errors_where_the_host_waits(), pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        values.sum().item()


@contextlib.contextmanager
def errors_where_the_host_waits():
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
