"""Cached RoIs of a frozen trunk: pooled features in float16 and packed targets, one file for each augmented pass.

Letters: N RoIs, C channels, S pooled side, M mask side.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from bcnet.bilayer import MapTarget
from bcnet.checkpoint import write_weights
from bcnet.data import DatasetMapper, ImageRecord
from bcnet.data.composition import build_composition
from bcnet.data.sampling import augmentation_rng
from bcnet.modeling import Detector
from bcnet.modeling.precision import autocast, autocast_dtype
from studies.heads.heads import ManyHeads, ManyHeadsBranch

logger = logging.getLogger("bcnet.studies.heads")


@dataclass
class RoITargets:
    """The targets of N RoIs, with what a training step reads of `bcnet.structures.Targets`.

    Attributes:
        classes: int64 [N].
        crops: by mask layer, bool [N, M, M].
    """

    classes: Tensor
    crops: Mapping[str, MapTarget]

    @property
    def masks(self) -> RoITargets:
        return self

    def nonempty(self, name: str) -> Tensor:
        """Which RoIs have a pixel in a layer: bool [N]; all False where there is no such layer."""
        if name not in self.crops:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.crops[name].values.flatten(1).any(dim=1)

    def __len__(self) -> int:
        return len(self.classes)

    def to(self, device, non_blocking: bool = False) -> RoITargets:
        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        crops = {name: MapTarget(*map(moved, crop)) for name, crop in self.crops.items()}  # pyright: ignore
        return RoITargets(self.classes.to(device, non_blocking=non_blocking), crops)


class CachedHeads(nn.Module):
    """Heads on cached features: `forward` takes these as images, as a training step gives them."""

    def __init__(self, heads: ManyHeads, negative_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.negative_ratio = negative_ratio

    def forward(self, images: Sequence[Tensor], targets: Sequence[RoITargets]) -> dict[str, Tensor]:
        """The losses of one batch: its features [N, C, S, S] and its targets, in lists of one."""
        (pooled,), (target,) = images, targets
        return self.heads.losses(pooled.float(), target.classes, target.crops, negative_ratio=self.negative_ratio)


def write_views(
    folder: str, cfg, trunk: Detector, records: Sequence[ImageRecord], class_names: Sequence[str], views: int
) -> None:
    """Writes the RoIs of augmented passes over the training images, ``view_<number>.safetensors``, unless they exist.

    A view depends on the data, the trunk, the seed and its number alone, so an interrupted cache is continued.

    Args:
        cfg: reads INPUT, SEED, MODEL.BILAYER and SOLVER.AMP.
        trunk: with a `ManyHeadsBranch`, whose heads say which layers are needed, in eval mode.
        records: the training images; those without an object are left out.
    """
    branch = trunk.mask_branch
    if not isinstance(branch, ManyHeadsBranch):
        raise TypeError(f"the trunk needs a ManyHeadsBranch, got {type(branch).__name__}")
    composition = build_composition(cfg, records, class_names, records)
    mapper = DatasetMapper.from_config(cfg, training=True, layers=branch.target_layers, composition=composition)
    records = [record for record in records if any(not instance.iscrowd for instance in record.instances)]
    for view in range(views):
        path = view_file(folder, view)
        if os.path.exists(path):
            continue
        torch.manual_seed(cfg.SEED * 10_000 + view)  # of the boxes' jitter and of the choice of RoIs
        batches = []
        for index, record in enumerate(records):
            sample = mapper(record, augmentation_rng(cfg.SEED, view * len(records) + index))
            targets = [sample["targets"].to(trunk.device)]
            with torch.no_grad(), autocast(trunk.device, autocast_dtype(cfg)):
                features, sizes = trunk.features([sample["image"]])
                _, rois = trunk.detection_losses(features, sizes, targets)
                rois = branch.jittered(rois, sizes)
                levels = [features[name] for name in trunk.mask_features]
                batches.append(_packed(*branch.samples(levels, rois, targets)))
        write_weights({key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}, path)
        logger.info("Cached %d RoIs of view %d of %d", sum(len(b["classes"]) for b in batches), view + 1, views)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of the weights of a module, by which a cache knows its trunk."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def view_file(folder: str, view: int) -> str:
    return os.path.join(folder, f"view_{view:03d}.safetensors")


def _packed(pooled: Tensor, classes: Tensor, crops: Mapping[str, MapTarget]) -> dict[str, Tensor]:
    tensors = {"features": pooled.half().cpu().contiguous(), "classes": classes.cpu()}
    for name, crop in crops.items():
        known = torch.ones_like(crop.values) if crop.known is None else crop.known
        for part, bits in (("values", crop.values), ("known", known)):
            packed = np.packbits(bits.cpu().numpy().reshape(len(bits), -1), axis=1)
            tensors[f"{name}.{part}"] = torch.from_numpy(packed)
    return tensors


class CachedRoIs:
    """The endless stream of batches of cached RoIs, in a new random order in every epoch.

    Yields lists of one sample, with "image", float16 features [N, C, S, S], and "targets", `RoITargets`.
    """

    def __init__(self, folder: str, views: int, *, batch_size: int, side: int, seed: int, start_iteration: int = 0):
        """
        Args:
            folder: of `write_views`, all of whose files are read into memory by the page as needed.
            batch_size: N.
            side: M.
            seed: of the order.
            start_iteration: the first iteration to yield.

        Raises:
            ValueError: the cache has fewer RoIs than a batch.
        """
        self.views = [_read(view_file(folder, view)) for view in range(views)]
        counts = [len(view["classes"]) for view in self.views]
        self.rows = torch.tensor([(v, row) for v, count in enumerate(counts) for row in range(count)])
        if len(self.rows) < batch_size:
            raise ValueError(
                f"the cache in {folder} has {len(self.rows)} RoIs, fewer than a batch of {batch_size}: lower rois "
                f"({batch_size}) in the plan, or raise views ({views})"
            )
        self.batch_size, self.side, self.seed, self.start_iteration = batch_size, side, seed, start_iteration

    def __iter__(self) -> Iterator[list[dict]]:
        per_epoch = len(self.rows) // self.batch_size
        iteration = self.start_iteration
        while True:
            epoch, first = divmod(iteration, per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
            for batch in range(first, per_epoch):
                rows = self.rows[order[batch * self.batch_size : (batch + 1) * self.batch_size]]
                yield [{**self._sample(rows), "image_id": iteration, "file_name": f"cached RoIs {iteration}"}]
                iteration += 1

    def _sample(self, rows: Tensor) -> dict:
        def gathered(key: str) -> Tensor:
            return torch.stack([self.views[view][key][row] for view, row in rows.tolist()])

        def mask(key: str) -> Tensor:
            bits = np.unpackbits(gathered(key).numpy(), axis=1, count=self.side**2)
            return torch.from_numpy(bits.reshape(-1, self.side, self.side).astype(bool))

        layers = [key.removesuffix(".values") for key in self.views[0] if key.endswith(".values")]
        crops = {name: MapTarget(mask(f"{name}.values"), mask(f"{name}.known")) for name in layers}
        return {"image": gathered("features"), "targets": RoITargets(gathered("classes"), crops)}


def _read(path: str) -> dict[str, Tensor]:
    """The tensors of a file, mapped into memory."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
