"""Inference over a data set, and its evaluation."""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from tqdm import tqdm

from bcnet.data import DatasetInfo, build_test_loader
from bcnet.evaluation import CocoEvaluator, ground_truth_of
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.modeling.thresholds import max_detections_of
from bcnet.occlusion import with_relations
from bcnet.prediction.tta import with_test_time_augmentation
from bcnet.progress import progress_wanted
from bcnet.structures import Detections

logger = logging.getLogger(__name__)


def run_inference(
    model: nn.Module, loader: Iterable[list[dict]], *, amp_dtype: torch.dtype | None = None, with_occluder: bool = False
) -> Iterator[tuple[int | str, Detections]]:
    """Detections image by image, while the loader runs; nothing is kept.

    Args:
        model: a detector, in any mode.
        loader: batches of dicts with "image" (uint8 or float [3, h, w], 0..255), "image_id", and "height" and
            "width" of the original image.
        amp_dtype: precision of autocast; None computes in float32.
        with_occluder: fill the occluder's maps, the boundaries and `Detections.occlusion` too.

    Yields:
        The image's id, and its detections on the CPU in pixels of the original image.
    """
    for batch in loader:
        with autocast(model.device, amp_dtype):
            found = model.inference([record["image"] for record in batch], with_occluder=with_occluder)
        for record, detections in zip(batch, found, strict=True):
            detections = detections.to("cpu").rescaled((record["height"], record["width"]))
            yield record["image_id"], with_relations(detections)


def evaluate(cfg, model: nn.Module, output_dir: str | None = None) -> dict[str, dict]:
    """All metrics of every data set of ``DATASETS.TEST``. All processes call it, each with its share of the images.

    For each data set it writes ``inference/<data set>/coco_instances_results.json`` and ``metrics.json`` and
    logs tables; for one without annotations (test-dev) the files that COCO's server takes. With TEST.AUG.ENABLED the
    detections are those of several views of each image, see `AugmentedDetector`. Masks are compared
    with what the model learns, ``INPUT.MASK_TARGET``. Where the order of depth is known, the results say who
    occludes whom.

    Args:
        cfg: the config the model was built from.
        model: the detector.
        output_dir: the folder to write to; None takes ``cfg.OUTPUT_DIR``.

    Returns:
        dict: for each data set what `bcnet.evaluation.evaluate_results` gives, on the main process; elsewhere
        without metrics.

    Raises:
        ValueError: a data set has more classes than the model; not every object has an amodal mask where
            ``INPUT.MASK_TARGET`` is "amodal".
    """
    cfg, model = with_test_time_augmentation(cfg, model)
    metrics = {}
    for name in cfg.DATASETS.TEST:
        loader = build_test_loader(cfg, name)
        _check_classes(loader.info, model)
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "inference", folder_name(name))
        truth = ground_truth_of(name, cfg.INPUT.MASK_TARGET)
        # Without a limit of the detector's, COCO's own.
        evaluator = CocoEvaluator(truth, folder, max_detections=max_detections_of(cfg) or 100)
        found = run_inference(model, loader, amp_dtype=autocast_dtype(cfg), with_occluder=truth.has_order)
        progress = tqdm(total=len(loader), desc=f"Evaluating {name}", disable=not progress_wanted(), unit="img")
        with progress:
            for image_id, detections in found:
                # A model may have more classes than the data set; what it says of those cannot be compared.
                evaluator.update(image_id, detections[detections.classes < loader.info.num_classes])
                progress.update()
        metrics[name] = evaluator.compute()
    return metrics


def _check_classes(info: DatasetInfo, model: nn.Module) -> None:
    if info.num_classes > model.num_classes:
        raise ValueError(
            f"data set {info.name!r} has {info.num_classes} classes, the model was built for {model.num_classes}; "
            f"set MODEL.ROI_HEADS.NUM_CLASSES"
        )
    if info.num_classes < model.num_classes:
        logger.warning(
            "Data set %r has %d classes, the model %d: detections of the others are left out",
            info.name,
            info.num_classes,
            model.num_classes,
        )


def folder_name(dataset: str) -> str:
    """A data set's name or spec as the name of a folder; long ones are cut, with a checksum of the whole."""
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_")
    return name if len(name) <= 100 else f"{zlib.crc32(dataset.encode()):08x}_{name[-80:].lstrip('_')}"
