"""Inference on data sets, and their evaluation."""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from bcnet.data import DatasetInfo, build_test_loader
from bcnet.data.loaders import TestLoader
from bcnet.evaluation import CocoEvaluator, GroundTruth, ground_truth_of
from bcnet.modeling.precision import autocast, autocast_dtype
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


@dataclass
class EvaluationSet:
    """A data set of ``DATASETS.TEST``, read.

    Attributes:
        loader: this process' share of the images.
        truth: what detections are compared with.
    """

    loader: TestLoader
    truth: GroundTruth


def read_evaluation_sets(cfg, model: nn.Module) -> dict[str, EvaluationSet]:
    """Reads every data set of ``DATASETS.TEST``, so that a fault in one shows before anything else is done.

    Args:
        cfg: the config the model was built from.
        model: the detector.

    Raises:
        KeyError, FileNotFoundError, ValueError: a data set cannot be read, has more classes than the model, or not
            every object has an amodal mask where ``INPUT.MASK_TARGET`` is "amodal".
    """
    cfg, model = with_test_time_augmentation(cfg, model)
    sets = {}
    for name in cfg.DATASETS.TEST:
        loader = build_test_loader(cfg, name)
        _check_classes(loader.info, model)
        sets[name] = EvaluationSet(loader, ground_truth_of(name, cfg.INPUT.MASK_TARGET))
    return sets


def evaluate(
    cfg,
    model: nn.Module,
    output_dir: str | None = None,
    *,
    evaluation_sets: Mapping[str, EvaluationSet] | None = None,
) -> dict[str, dict]:
    """Evaluates on every data set of ``DATASETS.TEST``. All processes call it, each with its share of the images.

    For each data set it writes ``inference/<data set>/coco_instances_results.json`` and ``metrics.json`` and
    logs tables; for one without annotations (test-dev) the files that COCO's server takes. With TEST.AUG.ENABLED the
    detections are those of several views of each image, see `AugmentedDetector`. Masks are compared
    with what the model learns, ``INPUT.MASK_TARGET``. Where the depth order is known, the results have
    occlusion relations. Computes in the precision of the training, SOLVER.AMP.

    Args:
        cfg: the config the model was built from.
        model: the detector.
        output_dir: the folder to write to; None takes ``cfg.OUTPUT_DIR``.
        evaluation_sets: what `read_evaluation_sets` gave for this config and model, or one like it; None reads them.

    Returns:
        dict: for each data set what `bcnet.evaluation.evaluate_results` gives, on the main process; elsewhere
        without metrics.

    Raises:
        KeyError, FileNotFoundError, ValueError: as `read_evaluation_sets`.
    """
    if evaluation_sets is None:
        evaluation_sets = read_evaluation_sets(cfg, model)
    cfg, model = with_test_time_augmentation(cfg, model)
    metrics = {}
    for name, evaluation_set in evaluation_sets.items():
        loader, truth = evaluation_set.loader, evaluation_set.truth
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "inference", folder_name(name))
        evaluator = CocoEvaluator(truth, folder, max_detections=cfg.TEST.DETECTIONS_PER_IMAGE)
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
