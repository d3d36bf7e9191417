"""Benchmark of training iterations (forward, backward, optimizer step) against torchvision's detectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bcnet.config import CfgNode
from bcnet.modeling import Detector
from bcnet.training.solver import build_optimizer
from benchmarks.detectors import build_mask_rcnn, build_ours, build_torchvision_fcos, equal_config
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage, crowded_image
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

BATCH = 2
PLAIN_CONFIG = "baselines/mask_rcnn_R_50_FPN_3x.yaml"
FCOS_CONFIG = "fcos/fcos_imprv_R_50_FPN.yaml"


def benchmark_training(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Faster R-CNN with the bilayer head, and for reference with the plain one, against torchvision's Mask R-CNN.

    Raises:
        RuntimeError: one of the networks trains on another number of RoIs, or a loss is not finite.
    """
    cfg = equal_config(settings, settings.config)
    plain_cfg = equal_config(settings, PLAIN_CONFIG)
    peer = build_mask_rcnn(cfg, settings.seed, settings.peer_memory_format).train()
    images = training_images(settings)
    steps = {
        "bilayer": our_step(build_ours(cfg, peer, settings.seed).train(), cfg, images, settings),
        "plain": our_step(build_ours(plain_cfg, peer, settings.seed).train(), plain_cfg, images, settings),
        "peer": peer_step(peer, images, settings),
    }
    check_region_counts(steps, settings)
    seconds = interleaved(steps, settings.repeats, clock=settings.clock)
    work = f"training iteration, {describe_batch(settings)}, {settings.instances} foreground RoIs each"

    def row(name: str, config: str, head: str, required: float | None) -> BenchmarkRow:
        return BenchmarkRow(
            f"{work}, {config}",
            "torchvision Mask R-CNN",
            seconds[head],
            seconds["peer"],
            "iteration",
            name=name,
            required=required,
            as_cost=True,
        )

    return [
        row("training", settings.config, "bilayer", 1.25),
        row("training-plain", PLAIN_CONFIG, "plain", None),
    ]


def benchmark_mask_branch_training(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """The mask branch alone on a frozen Faster R-CNN (MODEL.FREEZE_DETECTOR), against training the whole model.

    Raises:
        RuntimeError: one of them trains on another number of RoIs, or its losses are not finite.
    """
    cfg = equal_config(settings, settings.config)
    frozen_cfg = equal_config(settings, settings.config, "MODEL.FREEZE_DETECTOR", True)
    peer = build_mask_rcnn(cfg, settings.seed, settings.peer_memory_format).train()
    images = training_images(settings)
    steps = {
        name: our_step(build_ours(config, peer, settings.seed).train(), config, images, settings)
        for name, config in (("branch", frozen_cfg), ("whole", cfg))
    }
    check_region_counts(steps, settings)
    seconds = interleaved(steps, settings.repeats, clock=settings.clock)
    return [
        BenchmarkRow(
            f"training iteration of the mask branch, {describe_batch(settings)}, {settings.instances} foreground RoIs "
            f"each, {settings.config}",
            "training of the whole model",
            seconds["branch"],
            seconds["whole"],
            "iteration",
            name="training-mask-branch",
            as_cost=True,
        )
    ]


def benchmark_fcos_training(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """FCOS without masks, against torchvision's FCOS, which has no masks.

    Raises:
        RuntimeError: a loss is not finite.
    """
    cfg = equal_config(settings, FCOS_CONFIG, "MODEL.MASK_ON", False)
    peer = build_torchvision_fcos(cfg, settings.seed, settings.peer_memory_format).train()
    images = training_images(settings)
    steps = {
        "ours": our_step(build_ours(cfg, peer, settings.seed).train(), cfg, images, settings),
        "peer": peer_step(peer, images, settings, with_masks=False),
    }
    seconds = interleaved(steps, settings.repeats, clock=settings.clock)
    return [
        BenchmarkRow(
            f"training iteration, {describe_batch(settings)}, FCOS, boxes",
            "torchvision FCOS",
            seconds["ours"],
            seconds["peer"],
            "iteration",
            name="fcos-training",
            as_cost=True,
        )
    ]


def training_images(settings: BenchmarkSettings) -> list[CrowdedImage]:
    """The images of the training batch."""
    return [
        crowded_image(settings.instances, settings.image_size, seed=settings.seed + index) for index in range(BATCH)
    ]


def describe_batch(settings: BenchmarkSettings) -> str:
    height, width = settings.image_size
    return f"{BATCH} images of {height} x {width}, {settings.precision}"


class TrainingStep:
    """A training iteration of a network on a fixed batch with fixed weights (learning rate zero)."""

    def __init__(
        self,
        model: nn.Module,
        losses: Callable[[], Mapping[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        settings: BenchmarkSettings,
        *,
        heads: tuple[nn.Module, ...] = (),
    ) -> None:
        """
        Args:
            losses: function that runs the network and returns the losses.
            heads: heads of the box and the mask branch, whose numbers of RoIs are counted.
        """
        self.model = model
        self.losses = losses
        self.optimizer = optimizer
        self.settings = settings
        self.heads = heads
        self.scaler = torch.amp.GradScaler(settings.device, enabled=settings.precision == "fp16")
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    def __call__(self) -> None:
        total = self.forward()
        self.backward(total)
        self.update()

    def forward(self) -> Tensor:
        with self.settings.autocast():
            return functools.reduce(torch.add, self.losses().values())

    def backward(self, total: Tensor) -> None:
        self.scaler.scale(total).backward()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def region_counts(self) -> list[int]:
        """Number of RoIs of each head in one forward pass.

        Raises:
            RuntimeError: a loss is not finite.
        """
        counts: list[int] = []
        handles = [
            head.register_forward_pre_hook(lambda _module, args: counts.append(len(args[0]))) for head in self.heads
        ]
        with self.settings.autocast():
            losses = self.losses()
        for handle in handles:
            handle.remove()
        unusable = [name for name, loss in losses.items() if not torch.isfinite(loss)]
        if unusable:
            raise RuntimeError(
                f"{', '.join(unusable)} of {type(self.model).__name__} with random weights is not finite"
            )
        return counts


def our_step(model: Detector, cfg: CfgNode, images: list[CrowdedImage], settings: BenchmarkSettings) -> TrainingStep:
    """Training step of our detector, with the optimizer of its config."""
    pixels = [image.image.to(settings.device) for image in images]
    targets = [image.targets().to(settings.device) for image in images]
    names = ("box_branch.head", "mask_branch.head") if model.mask_branch is not None else ()
    heads = tuple(model.get_submodule(name) for name in names)
    return TrainingStep(model, lambda: model(pixels, targets), build_optimizer(cfg, model), settings, heads=heads)


def peer_step(
    model: nn.Module, images: list[CrowdedImage], settings: BenchmarkSettings, *, with_masks: bool = True
) -> TrainingStep:
    """Training step of torchvision's detector on float images in 0..1, with the optimizer of its reference scripts."""
    pixels = [(image.image / 255).to(settings.device) for image in images]
    targets = [
        {name: value.to(settings.device) for name, value in image.peer_targets(with_masks=with_masks).items()}
        for image in images
    ]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02, momentum=0.9, weight_decay=1e-4)
    names = ("roi_heads.box_head", "roi_heads.mask_head") if with_masks else ()
    heads = tuple(model.get_submodule(name) for name in names)
    return TrainingStep(model, lambda: model(pixels, targets), optimizer, settings, heads=heads)


def check_region_counts(steps: Mapping[str, TrainingStep], settings: BenchmarkSettings) -> None:
    """
    Raises:
        RuntimeError: the RoIs per image are not 4 x (box branch) and 1 x (mask branch) `settings.instances`.
    """
    foreground = BATCH * settings.instances
    for name, step in steps.items():
        counts = step.region_counts()
        if counts != [4 * foreground, foreground]:
            raise RuntimeError(
                f"{name}: the box and mask branches must train on {4 * foreground} and {foreground} RoIs, got {counts}"
            )
