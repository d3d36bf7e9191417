"""Training of the mask head alone, on a frozen detectron2 detector (MODEL.FREEZE_DETECTOR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_detector(model: nn.Module) -> nn.Module:
    """Freezes every parameter except the mask head's, in place.

    BatchNorm outside of the mask head keeps its statistics in training, and the losses of the frozen parts, which have
    no gradient, are left out of what the model returns.

    Args:
        model: with a mask head: a module named ``mask_head``, as in detectron2's RoI heads and `BCNetFCOS`.

    Returns:
        nn.Module: the same model.

    Raises:
        ValueError: it has no mask head.
    """
    heads = _mask_heads(model)
    if not heads:
        raise ValueError("there is nothing to train: MODEL.FREEZE_DETECTOR is True and the model has no mask head")
    model.requires_grad_(False)
    for head in heads:
        head.requires_grad_(True)
    model.register_forward_pre_hook(_keep_statistics)
    model.register_forward_hook(_leave_out_frozen_losses)
    return model


def _mask_heads(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.rpartition(".")[2] == "mask_head"]


def _keep_statistics(model: nn.Module, _inputs: Sequence) -> None:
    trained = {module for head in _mask_heads(model) for module in head.modules()}
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module not in trained:
            module.eval()


def _leave_out_frozen_losses(model: nn.Module, _inputs: Sequence, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    if not (model.training and torch.is_grad_enabled()):
        return losses
    return {name: loss for name, loss in losses.items() if loss.requires_grad}
