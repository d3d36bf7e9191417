"""Benchmark of the data path of training: an annotated image file to the tensors of a training step, in one process."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable

import cv2
import numpy as np

from bcnet.config import load_config
from bcnet.data import DatasetMapper, load_dataset
from bcnet.data.composition import build_composition
from bcnet.data.sampling import augmentation_rng
from bcnet.files import write_json
from bcnet.maps import PUBLISHED_MAPS, required_layers
from benchmarks.occluders import coco_like_scenes
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved


def benchmark_mapper(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times our mapper with and without composition, and detectron2's, on the same images at 800 x 1333.

    detectron2's default mapper leaves polygons to the loss; ours also derives and rasterises the masks of both layers.
    OpenCV has one thread, as in a data loader's worker. Cut-outs are not cached: a few images, read again and again,
    would be found in the cache, as those of a large data set are not.
    The images are those of ``settings.annotations``, in ``settings.images``, or else random ones of 480 x 640 pixels.

    Raises:
        ValueError: from the annotations.
    """
    with tempfile.TemporaryDirectory() as folder:
        annotations, images = settings.annotations, settings.images
        if annotations is None or images is None:
            annotations, images = _write_random_images(folder, 3 if settings.quick else 24, settings.seed), folder
        threads = cv2.getNumThreads()
        cv2.setNumThreads(0)
        try:
            return _rows(settings, annotations, images)
        finally:
            cv2.setNumThreads(threads)


def _rows(settings: BenchmarkSettings, annotations: str, images: str) -> list[BenchmarkRow]:
    side = 64 if settings.quick else 800
    maximum = 3 if settings.quick else 24 if settings.max_images is None else settings.max_images
    records, info = load_dataset(f"coco:{annotations}:{images}")
    records = [record for record in records if any(not instance.iscrowd for instance in record.instances)]

    options = ["INPUT.MIN_SIZE_TRAIN", (side,), "SEED", settings.seed, "INPUT.COMPOSITION.CACHE_MB", 0]
    base = load_config(settings.config, options)

    def ours(probability: float) -> Callable[[], None]:
        cfg = base.with_values(
            {"INPUT.COMPOSITION.ENABLED": probability > 0, "INPUT.COMPOSITION.PROBABILITY": probability or 1.0}
        )
        layers = required_layers(PUBLISHED_MAPS)
        composition = build_composition(cfg, records, info.class_names, records)
        mapper = DatasetMapper.from_config(cfg, training=True, layers=layers, composition=composition)
        calls = itertools.count()  # each with other objects to paste, as in training

        def run() -> None:
            first = next(calls) * maximum
            for index, record in enumerate(records[:maximum], start=first):
                mapper(record, augmentation_rng(settings.seed, index))

        return run

    variants = {"composed half": ours(0.5), "composed": ours(1.0), "plain": ours(0.0)}
    peer = _detectron2_mapper(annotations, images, side, {record.image_id for record in records[:maximum]})
    if peer is not None:
        variants["peer"] = peer
    seconds = {
        name: [value / min(maximum, len(records)) for value in values]
        for name, values in interleaved(variants, settings.repeats, clock=settings.clock).items()
    }
    work = f"mapper, images to {side} x {side * 1333 // 800} at most, per worker"
    rows = [
        BenchmarkRow(
            f"{work}, objects pasted into {share}",
            "the same without composition",
            seconds[name],
            seconds["plain"],
            "image",
            name=row,
            required=limit,
            as_cost=True,
        )
        for share, name, row, limit in (
            ("half of the images", "composed half", "mapper-composition-half", 1.3),
            ("all images", "composed", "mapper-composition", None),
        )
    ]
    without = "" if peer is not None else "detectron2 is not installed"
    ours_alone = [] if without else seconds["plain"]
    return [
        BenchmarkRow(
            work,
            "detectron2's",
            ours_alone,
            seconds.get("peer", []),
            "image",
            name="mapper",
            as_cost=True,
            skipped=without,
        ),
        *rows,
    ]


def _detectron2_mapper(annotations: str, images: str, side: int, ids: set) -> Callable[[], None] | None:
    """detectron2's default mapper on the images of these ids; None without detectron2."""
    try:
        from detectron2.config import get_cfg  # pyright: ignore[reportMissingImports]
        from detectron2.data import DatasetMapper as PeerMapper  # pyright: ignore[reportMissingImports]
        from detectron2.data.datasets import load_coco_json  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (side,)
    mapper = PeerMapper(cfg, is_train=True)
    entries = [entry for entry in load_coco_json(annotations, images) if entry["image_id"] in ids]

    def run() -> None:
        for entry in entries:
            mapper(entry)

    return run


def _write_random_images(folder: str, count: int, seed: int) -> str:
    """Writes JPEG files with the texture of photos, and their COCO json, whose path is returned."""
    rng = np.random.default_rng(seed)
    images, entries = [], []
    for number, (boxes, segmentations, (height, width)) in enumerate(coco_like_scenes(count, seed=seed), start=1):
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(picture, rng.integers(0, 24, picture.shape, dtype=np.uint8))
        cv2.imwrite(os.path.join(folder, f"{number}.jpg"), picture)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        for box, segmentation in zip(boxes, segmentations, strict=True):
            entry = {"id": len(entries) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": list(box)}
            entries.append({**entry, "area": box[2] * box[3], "segmentation": segmentation})
    path = os.path.join(folder, "annotations.json")
    write_json(path, {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "shape"}]})
    return path
