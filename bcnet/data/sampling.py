"""Batch samplers: aspect-ratio grouped, resumable and sharded over processes, on image indices only.

Letters: B images of one iteration over all processes, P processes, A accumulation steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

# Uses of random numbers: independent streams of one seed.
_SHUFFLE, _AUGMENT = 0, 1


def augmentation_rng(seed: int, position: int) -> np.random.Generator:
    """The random generator of one sample; depends only on the seed and the sample's position in the stream."""
    return np.random.default_rng((seed, _AUGMENT, position))


def joint_batches(groups: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """The infinite stream of batches over all processes: int64 [B] indices of the images.

    Images are reshuffled in every epoch, in which each occurs once. A batch holds images of one group and is yielded
    when enough of that group were drawn; incomplete batches at the end of an epoch are continued in the next one. This
    is detectron2's `AspectRatioGroupedDataset` on indices instead of images.

    Args:
        groups: int [images], the group of each image.
        batch_size: B.
        seed: seed of the shuffles, not negative.
    """
    groups = np.asarray(groups)
    left = {int(group): np.zeros(0, dtype=np.int64) for group in np.unique(groups)}
    if not left:
        raise ValueError("there are no images to sample batches from")
    for epoch in itertools.count():
        order = np.random.default_rng((seed, _SHUFFLE, epoch)).permutation(len(groups))
        batches, completed_at = [], []
        for group in left:
            positions = np.flatnonzero(groups[order] == group)
            stream = np.concatenate([left[group], order[positions]])
            positions = np.concatenate([np.zeros(len(left[group]), dtype=np.int64), positions])
            complete = len(stream) // batch_size * batch_size
            batches.append(stream[:complete].reshape(-1, batch_size))
            completed_at.append(positions[:complete][batch_size - 1 :: batch_size])
            left[group] = stream[complete:]
        yield from np.concatenate(batches)[np.argsort(np.concatenate(completed_at), kind="stable")]


class TrainBatches:
    """Infinite batch sampler of one process for torch's DataLoader, starting at any iteration.

    The joint batch of an iteration is split into A x P equal parts; in accumulation step a, process p gets part
    a * P + p. So the P processes together get the same images in the same order as a single process, and the split
    changes neither the images nor their augmentation.

    Yields lists of (index of the image, position of the sample in the joint stream).

    Args:
        groups: int [images], the group of each image; batches hold images of one group.
        batch_size: B, over all processes and accumulation steps.
        seed: seed of the shuffles, not negative.
        start_iteration: the first iteration to yield.
        rank, world_size: index of this process, and P.
        accumulate_steps: A, the number of batches per iteration.

    Raises:
        ValueError: B is not divisible by A x P.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate_steps: int = 1,
    ) -> None:
        if batch_size % (world_size * accumulate_steps):
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH ({batch_size}) must be divisible by the number of processes ({world_size}) "
                f"times SOLVER.ACCUMULATE_STEPS ({accumulate_steps})"
            )
        self.groups = groups
        self.batch_size = batch_size
        self.seed = seed
        self.start_iteration = start_iteration
        self.rank = rank
        self.world_size = world_size
        self.accumulate_steps = accumulate_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // (self.world_size * self.accumulate_steps)
        batches = enumerate(joint_batches(self.groups, self.batch_size, self.seed))
        for iteration, batch in itertools.islice(batches, self.start_iteration, None):
            samples = [(int(index), iteration * self.batch_size + slot) for slot, index in enumerate(batch)]
            for step in range(self.accumulate_steps):
                first = (step * self.world_size + self.rank) * share
                yield samples[first : first + share]


def contiguous_shard(size: int, rank: int = 0, world_size: int = 1) -> range:
    """This process' contiguous shard of `size` images; shards differ by at most one image."""
    smaller, longer = divmod(size, world_size)
    begin = rank * smaller + min(rank, longer)
    return range(begin, begin + smaller + (rank < longer))
