from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from bcnet.data.sampling import TrainBatches, augmentation_rng, contiguous_shard, joint_batches

GROUPS = np.array([0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0])


def grouped_by_hand(groups, batch_size, seed, count):
    """detectron2's aspect-ratio bucketing of the shuffled stream."""
    buckets, batches, epoch = {0: [], 1: []}, [], 0
    while len(batches) < count:
        for index in np.random.default_rng((seed, 0, epoch)).permutation(len(groups)).tolist():
            bucket = buckets[groups[index]]
            bucket.append(index)
            if len(bucket) == batch_size:
                batches.append(bucket[:])
                bucket.clear()
        epoch += 1
    return batches[:count]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_batches_are_those_of_the_bucket_algorithm(batch_size):
    ours = [batch.tolist() for batch in islice(joint_batches(GROUPS, batch_size, seed=4), 60)]
    assert ours == grouped_by_hand(GROUPS, batch_size, 4, 60)
    assert all(len(set(GROUPS[batch])) == 1 for batch in ours)


def test_every_image_occurs_once_per_epoch():
    one_group = np.zeros(11, dtype=int)
    stream = np.concatenate(list(islice(joint_batches(one_group, 4, seed=0), 33)))
    epochs = stream[: 11 * 12].reshape(12, 11)
    assert (np.sort(epochs, axis=1) == np.arange(11)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 12


def test_seed_decides_the_order():
    first, again, other = (
        np.concatenate(list(islice(joint_batches(GROUPS, 2, seed), 20))).tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        next(joint_batches(np.zeros(0), 2, 0))


def train_batches(count, **changes):
    return list(islice(TrainBatches(GROUPS, 12, **{"seed": 7, **changes}), count))


def test_positions_count_the_samples_of_the_joint_stream():
    batches = train_batches(5)
    assert [position for batch in batches for _, position in batch] == list(range(60))


@pytest.mark.parametrize("start", [1, 4, 9])
def test_resumed_is_uninterrupted(start):
    assert train_batches(3, start_iteration=start) == train_batches(start + 3)[start:]
    assert (
        train_batches(6, start_iteration=start, accumulate_steps=2)
        == train_batches(2 * start + 6, accumulate_steps=2)[2 * start :]
    )


@pytest.mark.parametrize("world_size, steps", [(2, 1), (3, 2), (1, 4), (12, 1)])
def test_processes_and_steps_together_see_the_joint_batch(world_size, steps):
    whole = train_batches(6)
    shares = [
        train_batches(6 * steps, rank=r, world_size=world_size, accumulate_steps=steps) for r in range(world_size)
    ]
    for iteration, batch in enumerate(whole):
        parts = [shares[r][iteration * steps + step] for step in range(steps) for r in range(world_size)]
        assert [sample for part in parts for sample in part] == batch


def test_indivisible_batch():
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(12\) must be divisible by the number of processes \(5\)"):
        TrainBatches(GROUPS, 12, seed=0, world_size=5)


def test_augmentation_depends_on_seed_and_position_alone():
    draws = {(seed, position): augmentation_rng(seed, position).random() for seed in (0, 1) for position in range(50)}
    assert len(set(draws.values())) == 100
    assert augmentation_rng(1, 49).random() == draws[1, 49]


@pytest.mark.parametrize("size, world_size", [(0, 1), (7, 1), (7, 3), (6, 3), (2, 4)])
def test_contiguous_shards_cover_all(size, world_size):
    shards = [contiguous_shard(size, rank, world_size) for rank in range(world_size)]
    assert [i for shard in shards for i in shard] == list(range(size))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
