"""Benchmark of COCO evaluation: bcnet against pycocotools, on random annotations and results."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcnet.evaluation import GroundTruth, average_precision
from bcnet.ops.rle import rle_to_json, segmentation_to_rle
from benchmarks.occluders import coco_like_scenes
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
REQUIRED: dict[Literal["bbox", "segm"], float] = {"bbox": 5.0, "segm": 2.5}
NUM_CLASSES = 80
DETECTIONS_PER_IMAGE = 50  # false detections are added up to this number


def benchmark_evaluation(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times the evaluation of loaded annotations and results, and the loading of the file; checks that metrics agree.

    Loading has its own row, because a loaded file is used for both boxes and masks. pycocotools rasterises polygons
    when masks are compared, bcnet when the file is loaded.

    Raises:
        RuntimeError: a metric differs from pycocotools' by more than 1e-6.
    """
    images = settings.evaluation_images or (4 if settings.quick else 500)
    content, results = random_results(images, settings.seed)
    truth = GroundTruth.from_dict(content)
    rows = []
    for iou_type, required in REQUIRED.items():
        key = "bbox" if iou_type == "bbox" else "segmentation"
        # pycocotools takes an object's area from the box if a result has both.
        kept = [{name: result[name] for name in ("image_id", "category_id", "score", key)} for result in results]
        ours, theirs = figures(truth, kept, iou_type), pycocotools_figures(content, kept, iou_type)
        if not np.allclose(ours, theirs, rtol=0, atol=1e-6, equal_nan=True):
            raise RuntimeError(f"{iou_type} metrics {FIGURES} are {ours}, pycocotools returns {theirs}")
        seconds = interleaved(
            {
                "ours": lambda kept=kept, iou_type=iou_type: figures(truth, kept, iou_type),
                "peer": lambda kept=kept, iou_type=iou_type: pycocotools_figures(content, kept, iou_type),
            },
            settings.repeats,
            clock=settings.clock,
        )
        work = f"COCO evaluation ({iou_type}), {images} images, {len(results)} results"
        name = f"evaluation-{iou_type}"
        rows.append(
            BenchmarkRow(
                work, "pycocotools", seconds["ours"], seconds["peer"], "data set", name=name, required=required
            )
        )
    return [*rows, _loading_row(content, settings)]


def _loading_row(content: dict, settings: BenchmarkSettings) -> BenchmarkRow:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "annotations.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump(content, file)

        def load_pycocotools() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                COCO(path)

        variants = {"ours": lambda: GroundTruth.from_file(path), "peer": load_pycocotools}
        seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    work = f"load the annotations of {len(content['images'])} images"
    return BenchmarkRow(work, "pycocotools", seconds["ours"], seconds["peer"], "file", name="evaluation-load")


def figures(truth: GroundTruth, results: list[dict], iou_type: str) -> list[float]:
    """bcnet's metrics, in percent."""
    metrics = average_precision(truth, results, iou_type)
    return [metrics[name] for name in FIGURES]


def pycocotools_figures(content: dict, results: list[dict], iou_type: Literal["bbox", "segm"]) -> list[float]:
    """pycocotools' metrics, in percent; it modifies its arguments, hence the copies, which bcnet makes too."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth: Any = COCO()  # its type stubs declare only files, neither dicts nor lists
        truth.dataset = {**content, "annotations": [dict(annotation) for annotation in content["annotations"]]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value if value > -1 else float("nan") for value in evaluation.stats[: len(FIGURES)].tolist()]


def random_results(images: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """A COCO json of `coco_like_scenes`, and results: most objects, shifted, and false detections.

    Returns:
        The json's content, and COCO result dicts with ``bbox`` and ``segmentation``.
    """
    random = np.random.default_rng(seed)
    content: dict = {
        "info": {},
        "images": [],
        "annotations": [],
        "categories": [{"id": index + 1, "name": f"class {index + 1}"} for index in range(NUM_CLASSES)],
    }
    results = []
    for image_id, (boxes, segmentations, size) in enumerate(coco_like_scenes(images, seed=seed), start=1):
        content["images"].append({"id": image_id, "height": size[0], "width": size[1], "file_name": f"{image_id}.jpg"})
        # An image has few of the classes, and most results of a detector are of those.
        present = random.choice(NUM_CLASSES, size=4, replace=False) + 1
        for box, segmentation in zip(boxes, segmentations, strict=True):
            rle = segmentation_to_rle(segmentation, *size)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(random.choice(present)),
                    "bbox": box,
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": segmentation,
                }
            )
        last = len(content["annotations"])
        for number in range(DETECTIONS_PER_IMAGE):
            annotation = content["annotations"][last - len(boxes) + number % len(boxes)]
            is_found = number < len(boxes)
            results.append(_result(annotation, size, random, 0.1 if is_found else 1.0, present))
    return content, results


def _result(
    annotation: dict, size: tuple[int, int], random: np.random.Generator, spread: float, present: np.ndarray
) -> dict:
    """An object shifted by a random fraction of its sides, `spread` on average."""
    height, width = size
    polygon = np.array(annotation["segmentation"][0]).reshape(-1, 2)
    polygon = polygon + random.normal(0, spread, 2) * np.array(annotation["bbox"][2:])
    polygon = polygon.clip(0, [width, height])
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    right_class = random.random() < 0.8
    return {
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"] if right_class else int(random.choice(present)),
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "segmentation": rle_to_json(segmentation_to_rle([polygon.ravel().tolist()], height, width)),
        "score": float(random.random() * (1 if spread < 0.5 else 0.6)),
    }
