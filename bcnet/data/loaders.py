"""Training and test data loaders: records, mapper and sampling combined with torch's DataLoader."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bcnet.data.catalog import load_dataset
from bcnet.data.classes import listed, match_classes, training_classes
from bcnet.data.composition import build_composition
from bcnet.data.images import UnreadableImageError
from bcnet.data.mapper import DatasetMapper
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.data.sampling import TrainBatches, augmentation_rng, contiguous_shard
from bcnet.data.serialized_list import SerializedList
from bcnet.data.source_masks import FRONT, missing_masks
from bcnet.distributed import rank, shared_seed, world_size
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER
from bcnet.words import counted

_logger = logging.getLogger(__name__)

TrainingSet = tuple[list[ImageRecord], DatasetInfo]

# Number of files, spread over a data set, whose existence is checked up front: checking all would take minutes on a
# network drive, and a wrong folder, suffix or separator shows in any of them.
_FILES_CHECKED = 200

# Key of a sample under which a worker reports unreadable files to the main process.
_UNREADABLE = "unreadable_images"
# Key of an error that the main process raises: if the worker raised it, torch would add the worker's traceback to the
# message, and all that the user needs is the name of the file.
_ERROR = "error"


class _TrainDataset(Dataset):
    """Samples by (index, position in the stream)."""

    def __init__(
        self, records: SerializedList, groups: np.ndarray, mapper: DatasetMapper, seed: int, skip_unreadable: bool
    ) -> None:
        self.records = records
        self.groups = groups
        self.mapper = mapper
        self.seed = seed
        self.skip_unreadable = skip_unreadable

    def __getitem__(self, item: tuple[int, int]) -> dict:
        index, position = item
        unreadable: list[str] = []
        for candidate in self._candidates(index):
            try:
                # A new generator, so that a replacement does not depend on the draws made before the failure.
                sample = self.mapper(self.records[candidate], augmentation_rng(self.seed, position))
            except UnreadableImageError as error:
                if not self.skip_unreadable:
                    return {_ERROR: error}
                unreadable.append(str(error))
                continue
            sample[_UNREADABLE] = unreadable
            return sample
        message = f"none of {len(unreadable)} images could be read; the first: {unreadable[0]}"
        return {_ERROR: UnreadableImageError(message)}

    def _candidates(self, index: int) -> Iterator[int]:
        """The image, then the other images of its group, starting after it and wrapping around."""
        yield index
        members = np.flatnonzero(self.groups == self.groups[index])
        yield from np.roll(members, -int(np.searchsorted(members, index)) - 1)[:-1].tolist()


class _TestDataset(Dataset):
    """Samples by index; an unreadable one holds only the error message."""

    def __init__(self, records: SerializedList, mapper: DatasetMapper, skip_unreadable: bool) -> None:
        self.records = records
        self.mapper = mapper
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        try:
            return {**self.mapper(self.records[index]), _UNREADABLE: []}
        except UnreadableImageError as error:
            return {_UNREADABLE: [str(error)]} if self.skip_unreadable else {_ERROR: error}


class _Loader:
    """Base of both loaders: unpacks batches and counts unreadable images."""

    def __init__(self, loader: DataLoader, info: DatasetInfo) -> None:
        self._loader = loader
        self.info = info
        self.unreadable_images: Counter[str] = Counter()

    def _next(self, batches: Iterator) -> list[dict]:
        try:
            batch = next(batches)
        except Exception as error:
            # This process' traceback frames would put torch's iterator into a reference cycle, and collecting such an
            # iterator waits 5 seconds for each worker. (The worker's own traceback is part of the message.)
            if self._loader.num_workers == 0:
                raise
            raise error.with_traceback(None)  # noqa: B904, the error is the same one
        for sample in batch:
            if _ERROR in sample:
                # Popped, so that this frame does not hold the error, whose traceback holds this frame (see above).
                raise sample.pop(_ERROR)
            for message in sample.pop(_UNREADABLE):
                if message not in self.unreadable_images:
                    _logger.warning("skipped by INPUT.BAD_IMAGE: %s", message)
                self.unreadable_images[message] += 1
        return [sample for sample in batch if "image" in sample]


class TrainLoader(_Loader):
    """An infinite iterator of list[dict], one process' share of one accumulation step each.

    Attributes:
        info: the classes (and the files of the first training set).
        seed: the seed in use; config.SEED unless that is negative.
        unreadable_images: number of times that each unreadable image was replaced so far, by message.
    """

    def __init__(self, loader: DataLoader, info: DatasetInfo, seed: int) -> None:
        super().__init__(loader, info)
        self.seed = seed
        self._batches: Iterator | None = None

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> list[dict]:
        if self._batches is None:
            self._batches = iter(self._loader)
        return self._next(self._batches)


class TestLoader(_Loader):
    """An iterable of list[dict] over one process' share of the images, in order; `len` counts batches.

    Attributes:
        info: the data set's classes and files.
        unreadable_images: the images skipped so far, by message.
    """

    __test__ = False  # not a test class, in spite of its name

    def __iter__(self) -> Iterator[list[dict]]:
        batches = iter(self._loader)
        for _ in range(len(self)):
            samples = self._next(batches)
            if samples:
                yield samples

    def __len__(self) -> int:
        return len(self._loader)


def read_training_sets(cfg) -> list[TrainingSet]:
    """The images and classes of each data set of DATASETS.TRAIN.

    Raises:
        KeyError, FileNotFoundError, ValueError: of `load_dataset`; there is no training set.
    """
    names = [cfg.DATASETS.TRAIN] if isinstance(cfg.DATASETS.TRAIN, str) else list(cfg.DATASETS.TRAIN)
    if not names:
        raise ValueError("DATASETS.TRAIN is empty; name a data set, or 'coco:annotations.json:image_folder'")
    return [load_dataset(name) for name in names]


def build_train_loader(
    cfg,
    start_iteration: int = 0,
    *,
    class_names: Sequence[str] = (),
    layers: Sequence[str] = (OCCLUDEE, OCCLUDER),
    training_sets: Sequence[TrainingSet] | None = None,
) -> TrainLoader:
    """The infinite stream of training batches.

    The stream depends only on the data, SOLVER.IMS_PER_BATCH and the seed: any number of workers and of processes, and
    resuming at any iteration, give the same images with the same augmentation. A negative SEED is replaced by a random
    one, the same on every process, which is logged and available as `TrainLoader.seed`.

    Args:
        cfg: reads DATASETS.TRAIN, DATALOADER, INPUT, SEED, SOLVER.IMS_PER_BATCH, SOLVER.ACCUMULATE_STEPS,
            MODEL.MASK_ON, MODEL.BILAYER.OCCLUDER_TARGET, MODEL.ROI_HEADS.NUM_CLASSES and MODEL.DEVICE.
        start_iteration: the first iteration to yield; one iteration is ACCUMULATE_STEPS items.
        class_names: class names of the weights that training starts from; the data's classes are reordered to match
            (`training_classes`).
        layers: mask layers that the model is trained on (`MaskBranch.target_layers`).
        training_sets: what `read_training_sets` gave, which is modified; None reads them.

    Returns:
        TrainLoader: each item is a list of IMS_PER_BATCH / (processes x ACCUMULATE_STEPS) samples of the
        mapper ("image", "targets", "image_id", "file_name", "height", "width").

    Raises:
        KeyError, FileNotFoundError, ValueError: from `load_dataset`.
        FileNotFoundError: image files are missing (200 of them are checked).
        ValueError: no training set, or no image left; a training set with a class that the first one lacks; more
            classes than MODEL.ROI_HEADS.NUM_CLASSES; an annotation without the segmentation that training needs; a
            batch size not divisible among the processes; no object to cut out for INPUT.COMPOSITION.
    """
    loaded = read_training_sets(cfg) if training_sets is None else training_sets
    records, info = _joined_training_sets(cfg, loaded, class_names, layers)
    _check_image_files(cfg, records, "DATASETS.TRAIN")
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        groups = np.array([0 if record.width > record.height else 1 for record in records])
    else:
        groups = np.zeros(len(records), dtype=np.int64)
    seed = shared_seed(cfg.SEED)
    if cfg.SEED < 0:
        _logger.info("SEED is %d: the data order and augmentation use the random seed %d", cfg.SEED, seed)
    batches = TrainBatches(
        groups,
        cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        start_iteration=start_iteration,
        rank=rank(),
        world_size=world_size(),
        accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS,
    )
    stored = SerializedList(records)
    composition = build_composition(cfg, records, info.class_names, stored)
    dataset = _TrainDataset(
        stored,
        groups,
        DatasetMapper.from_config(cfg, training=True, layers=layers, composition=composition),
        seed,
        skip_unreadable=cfg.INPUT.BAD_IMAGE == "skip",
    )
    return TrainLoader(_data_loader(cfg, dataset, batches), info, seed)


def build_test_loader(cfg, dataset: str | tuple[Sequence[ImageRecord], DatasetInfo], batch_size: int = 1) -> TestLoader:
    """This process' share of a data set's images, in order, without targets.

    Shares are contiguous and differ by at most one image. With INPUT.BAD_IMAGE "skip" an unreadable image is skipped,
    logged and counted; it then has no detections.

    Args:
        cfg: reads INPUT, DATALOADER.NUM_WORKERS and MODEL.DEVICE.
        dataset: a name of the catalog, ``coco:annotations.json:image_folder``, or the result of `load_dataset`.
        batch_size: images per batch; the last one may be smaller.

    Raises:
        KeyError, FileNotFoundError, ValueError: from `load_dataset`.
        FileNotFoundError: image files are missing (200 of them are checked).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    records, info = load_dataset(dataset) if isinstance(dataset, str) else dataset
    _check_image_files(cfg, records, f"data set {info.name!r}")
    # Drop what the test mapper does not read, to save memory in the workers.
    records = [replace(record, instances=[], in_front=None) for record in records]
    shard = contiguous_shard(len(records), rank(), world_size())
    batches = [list(shard[start : start + batch_size]) for start in range(0, len(shard), batch_size)]
    images = _TestDataset(
        SerializedList(records),
        DatasetMapper.from_config(cfg, training=False),
        skip_unreadable=cfg.INPUT.BAD_IMAGE == "skip",
    )
    return TestLoader(_data_loader(cfg, images, batches), info)


def _joined_training_sets(
    cfg, loaded: Sequence[TrainingSet], class_names: Sequence[str], layers: Sequence[str]
) -> TrainingSet:
    names = [info.name for _, info in loaded]
    records = [record for part, _ in loaded for record in part]
    info = _to_common_classes(cfg, loaded, class_names)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        total = len(records)
        records = [record for record in records if any(not instance.iscrowd for instance in record.instances)]
        if len(records) == total:
            _logger.info("%s to train on", counted(total, "image"))
        else:
            _logger.info("%d of %d images have objects to train on; the others are left out", len(records), total)
    if not records:
        raise ValueError(f"no image with an object to train on in DATASETS.TRAIN {tuple(names)}")
    if cfg.MODEL.MASK_ON or cfg.INPUT.COMPOSITION.ENABLED:  # objects are cut out by their masks
        for name, (part, _) in zip(names, loaded, strict=True):
            _check_masks(cfg, name, part, layers)
    return records, info


def _check_masks(cfg, name: str, records: Sequence[ImageRecord], layers: Sequence[str]) -> None:
    """Raises ValueError if annotations of a training set lack a mask that training needs."""
    target = cfg.INPUT.MASK_TARGET
    if cfg.INPUT.COMPOSITION.ENABLED:  # creates amodal targets for annotations without them
        layers = [layer for layer in layers if layer != AMODAL]
    if faults := [fault for record in records for fault in missing_masks(record, target, layers)]:
        hints = ["INPUT.COMPOSITION.ENABLED True makes amodal masks out of visible ones"] if AMODAL in layers else []
        if not cfg.MODEL.MASK_ON:
            hints.append("INPUT.COMPOSITION.ENABLED True cuts objects out by their masks; without it boxes suffice")
        raise ValueError(
            f"training set {name!r}: {len(faults)} annotations cannot be trained on (INPUT.MASK_TARGET {target!r}, "
            f"MODEL.BILAYER.AMODAL {cfg.MODEL.BILAYER.AMODAL}):\n  " + "\n  ".join([*faults[:5], *hints])
        )
    known_order = cfg.INPUT.COMPOSITION.ENABLED or any(record.in_front is not None for record in records)
    if OCCLUDER in layers and cfg.MODEL.BILAYER.OCCLUDER_TARGET == FRONT and not known_order:
        _logger.warning(
            "MODEL.BILAYER.OCCLUDER_TARGET is 'front', and training set %r has no depth order: its occluders are not "
            "known, and none is learned from it. INPUT.COMPOSITION.ENABLED True makes some.",
            name,
        )


def _to_common_classes(cfg, loaded: Sequence[TrainingSet], class_names: Sequence[str]) -> DatasetInfo:
    """Renumbers the records' classes, in place, to a common order: that of the weights, or else of the first set.

    Returns:
        DatasetInfo: that of the first set with the common classes; a class that only the weights have gets category
            id -1.
    """
    first = loaded[0][1]
    _check_class_count(cfg, first)
    common, rows = training_classes(first.class_names, class_names, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    for records, info in loaded:
        positions = match_classes(info.class_names, first.class_names)
        if None in positions:
            raise ValueError(
                "training sets must have the same classes as the first one, or a subset of them: "
                f"{first.name!r} has {listed(first.class_names)}, {info.name!r} has {listed(info.class_names)}"
            )
        new_classes = [rows[position] for position in positions if position is not None]
        if new_classes != list(range(len(new_classes))):
            for record in records:
                for instance in record.instances:
                    instance.category = new_classes[instance.category]
    ids = dict(zip(rows, first.category_ids, strict=True))
    return replace(first, class_names=tuple(common), category_ids=tuple(ids.get(row, -1) for row in range(len(common))))


def _check_image_files(cfg, records: Sequence[ImageRecord], where: str) -> None:
    """Raises FileNotFoundError if image files are missing, unless INPUT.BAD_IMAGE is "skip" and some exist."""
    checked = records[:: max(1, len(records) // _FILES_CHECKED)]
    missing = [record.file_name for record in checked if not os.path.exists(record.file_name)]
    if not missing or (cfg.INPUT.BAD_IMAGE == "skip" and len(missing) < len(checked)):
        return
    with_slashes = missing[0].replace("\\", "/")
    hint = f"; {with_slashes!r} exists: file_name has Windows separators" if os.path.exists(with_slashes) else ""
    raise FileNotFoundError(
        f"{where}: {len(missing)} of {len(checked)} checked image files are missing, the first is {missing[0]!r}{hint}"
    )


def _check_class_count(cfg, info: DatasetInfo) -> None:
    configured = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if info.num_classes > configured:
        raise ValueError(
            f"data set {info.name!r} has {info.num_classes} classes ({listed(info.class_names)}), but "
            f"MODEL.ROI_HEADS.NUM_CLASSES is {configured}; set it to {info.num_classes}"
        )
    if info.num_classes < configured:
        _logger.warning(
            "data set %r has %d classes, MODEL.ROI_HEADS.NUM_CLASSES is %d: %d outputs are never trained",
            info.name,
            info.num_classes,
            configured,
            configured - info.num_classes,
        )


def _data_loader(cfg, dataset: Dataset, batches) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
        worker_init_fn=_init_worker,
        pin_memory=torch.cuda.is_available() and str(cfg.MODEL.DEVICE).startswith("cuda"),
        # The loader draws a seed for its workers, unused here; this keeps it from advancing torch's global generator.
        generator=torch.Generator(),
    )


def _init_worker(worker_id: int) -> None:
    # A signal to the process group (Ctrl-C, a job scheduler's SIGTERM) is meant for the main process, which saves its
    # work and then terminates its workers. They exit on their own if it dies.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    # One thread per worker: the workers run in parallel, and more threads would compete for the cores.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
