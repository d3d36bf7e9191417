"""Which images make up which batch: pure arithmetic on indices, so that it can be resumed and sharded.

Letters: B images of one iteration over all processes, P processes, A accumulation steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

# Purposes of random numbers: streams of one seed that must not coincide.
_SHUFFLE, _AUGMENT = 0, 1


def augmentation_rng(seed: int, position: int) -> np.random.Generator:
    """The random numbers of one sample, from its place in the stream of samples alone."""
    return np.random.default_rng((seed, _AUGMENT, position))


def joint_batches(groups: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """The endless stream of batches over all processes: int64 [B] indices of the images.

    Images are shuffled anew in every epoch; every image comes once in it. A batch holds images of one group:
    it is complete when so many of that group have come, and what is left of an epoch begins the next one's
    batches. This is detectron2's `AspectRatioGroupedDataset` on indices in place of images.

    Args:
        groups: int [images], the group of each image.
        batch_size: B.
        seed: of the shuffles, not negative.
    """
    groups = np.asarray(groups)
    left = {int(group): np.zeros(0, dtype=np.int64) for group in np.unique(groups)}
    if not left:
        raise ValueError("there are no images to make batches of")
    for epoch in itertools.count():
        order = np.random.default_rng((seed, _SHUFFLE, epoch)).permutation(len(groups))
        batches, completed_at = [], []
        for group in left:
            places = np.flatnonzero(groups[order] == group)
            stream = np.concatenate([left[group], order[places]])
            places = np.concatenate([np.zeros(len(left[group]), dtype=np.int64), places])
            whole = len(stream) // batch_size * batch_size
            batches.append(stream[:whole].reshape(-1, batch_size))
            completed_at.append(places[:whole][batch_size - 1 :: batch_size])
            left[group] = stream[whole:]
        yield from np.concatenate(batches)[np.argsort(np.concatenate(completed_at), kind="stable")]


class TrainBatches:
    """One process' batches, from an iteration on, without end: a batch sampler of torch's DataLoader.

    The joint batch of an iteration is cut into A x P equal parts; in accumulation step a, process p takes part
    a * P + p. So the P processes together see what one process sees, in the same order, and how the iteration
    is cut does not change the images or their augmentation.

    Yields lists of (index of the image, position of the sample in the joint stream).

    Args:
        groups: int [images], the group of each image; batches hold images of one group.
        batch_size: B, over all processes and accumulation steps.
        seed: of the shuffles, not negative.
        start_iteration: the first iteration to yield.
        rank, world_size: this process and P.
        accumulate_steps: A; so many batches are yielded per iteration.

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
    """This process' contiguous share of `size` images; shares differ by one image at most."""
    smaller, longer = divmod(size, world_size)
    begin = rank * smaller + min(rank, longer)
    return range(begin, begin + smaller + (rank < longer))
