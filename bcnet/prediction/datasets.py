"""Inference on data sets and evaluation of the test sets (DATASETS.TEST)."""

from __future__ import annotations

import logging
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bcnet.data import build_test_loader, load_dataset
from bcnet.data.classes import detected_classes
from bcnet.data.loaders import TestLoader
from bcnet.distributed import is_main_process
from bcnet.evaluation import METRIC_REGISTRY, CocoEvaluator, GroundTruth, ground_truth_of, read_olac_labels
from bcnet.evaluation.report import format_table
from bcnet.files import write_json
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.modeling.thresholds import max_detections_of
from bcnet.occlusion import with_relations
from bcnet.prediction.ground_truth_boxes import masks_in_ground_truth_boxes
from bcnet.prediction.model import InferenceModel
from bcnet.prediction.tta import with_test_time_augmentation
from bcnet.progress import Progress
from bcnet.structures import Detections

logger = logging.getLogger(__name__)


def run_inference(
    model: InferenceModel,
    loader: Iterable[list[dict]],
    *,
    amp_dtype: torch.dtype | None = None,
    with_occluder: bool = False,
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
            sizes = [(record["height"], record["width"]) for record in batch]
            images = [record["image"] for record in batch]
            per_image = model.inference(images, with_occluder=with_occluder, output_sizes=sizes)
        for record, detections in zip(batch, per_image, strict=True):
            detections = detections.to("cpu").rescaled((record["height"], record["width"]))
            yield record["image_id"], with_relations(detections)


@dataclass
class EvaluationSet:
    """A data set of ``DATASETS.TEST``, read.

    Attributes:
        loader: this process' share of the images.
        truth: what detections are compared with.
        classes: int64 [K], the data set's class of each class of the model; -1 where it has none.
    """

    loader: TestLoader
    truth: GroundTruth
    classes: Tensor

    def with_its_classes(self, detections: Detections) -> Detections:
        """Detections of the model with the data set's classes; those of classes that it lacks are left out."""
        detections = detections[self.classes[detections.classes] >= 0]
        return replace(detections, classes=self.classes[detections.classes])


def read_evaluation_sets(cfg, model: InferenceModel, class_names: Sequence[str] = ()) -> dict[str, EvaluationSet]:
    """Reads every data set of ``DATASETS.TEST``, so that a fault in one shows before anything else is done.

    Args:
        cfg: the config the model was built from.
        model: the detector.
        class_names: of the model's classes, to match them with those of each data set by name; by default
            ``model.class_names``. Where there are none, classes are matched by position.

    Raises:
        KeyError, FileNotFoundError, ValueError: a data set cannot be read, its classes cannot be matched
            (`detected_classes`), not every object has an amodal mask where ``INPUT.MASK_TARGET`` is "amodal",
            ``TEST.METRICS`` has an unknown name, or ``TEST.OLAC_LABELS`` cannot be read.
    """
    METRIC_REGISTRY.chosen(cfg.TEST.METRICS)
    _olac_labels(cfg)
    class_names = class_names or getattr(model, "class_names", ())
    cfg, model = with_test_time_augmentation(cfg, model)
    sets = {}
    for name in cfg.DATASETS.TEST:
        dataset = load_dataset(name)
        classes = detected_classes(class_names, model.num_classes, dataset[1].class_names, name)
        truth = ground_truth_of(dataset, cfg.INPUT.MASK_TARGET)
        sets[name] = EvaluationSet(build_test_loader(cfg, dataset), truth, torch.tensor(classes))
    return sets


def evaluate(
    cfg,
    model: InferenceModel,
    output_dir: str | None = None,
    *,
    class_names: Sequence[str] = (),
    evaluation_sets: Mapping[str, EvaluationSet] | None = None,
) -> dict[str, dict]:
    """Evaluates on every data set of ``DATASETS.TEST``. All processes call it, each with its share of the images.

    As soon as a data set is done, its ``inference/<data set>/coco_instances_results.json`` and ``metrics.json`` are
    written and tables logged; for one without annotations (test-dev) the files that COCO's server takes. With
    TEST.AUG.ENABLED the detections are those of several views of each image, see `AugmentedDetector`. Masks are
    compared with the kind that the model is trained on, ``INPUT.MASK_TARGET``. Where the depth order is known, the
    results have occlusion relations. Computes in the precision of the training, SOLVER.AMP.

    A model without a detector (`BoxPrompted`) is given the ground-truth boxes; its metrics are the mean IoU of masks,
    ``segm_in_boxes`` (`masks_in_ground_truth_boxes`).

    Args:
        cfg: the config the model was built from.
        model: the detector.
        output_dir: the folder to write to; None takes ``cfg.OUTPUT_DIR``.
        class_names: as `read_evaluation_sets` takes them.
        evaluation_sets: what `read_evaluation_sets` gave for this config and model, or one like it; None reads them.

    Returns:
        dict: for each data set what `bcnet.evaluation.evaluate_results` gives, on the main process; elsewhere
        without metrics.

    Raises:
        KeyError, FileNotFoundError, ValueError: as `read_evaluation_sets`.
    """
    if evaluation_sets is None:
        evaluation_sets = read_evaluation_sets(cfg, model, class_names)
    cfg, model = with_test_time_augmentation(cfg, model)
    metrics, labels = {}, _olac_labels(cfg)
    for name, evaluation_set in evaluation_sets.items():
        if not getattr(model, "detects", True):
            metrics[name] = _evaluate_in_boxes(cfg, model, name, output_dir or cfg.OUTPUT_DIR)
            continue
        loader, truth = evaluation_set.loader, evaluation_set.truth
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "inference", folder_name(name))
        # Without a limit of the detector's, COCO's own.
        limit = max_detections_of(cfg) or 100
        evaluator = CocoEvaluator(truth, folder, max_detections=limit, metrics=cfg.TEST.METRICS, olac_labels=labels)
        results = run_inference(model, loader, amp_dtype=autocast_dtype(cfg), with_occluder=truth.has_order)
        with Progress(len(loader), f"Evaluating {name}", "images") as progress:
            for image_id, detections in results:
                evaluator.update(image_id, evaluation_set.with_its_classes(detections))
                progress.update()
        logger.info("Computing the metrics of %s", name)
        metrics[name] = evaluator.compute()
    return metrics


def _evaluate_in_boxes(cfg, model: InferenceModel, name: str, output_dir: str) -> dict[str, dict]:
    """Mask IoU in ground-truth boxes, of a model that takes boxes."""
    metrics = {"segm_in_boxes": masks_in_ground_truth_boxes(cfg, model, name)}
    if is_main_process():
        path = os.path.join(output_dir, "inference", folder_name(name), "metrics.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json(path, metrics)
        levels = metrics["segm_in_boxes"]
        columns = list(levels["all"])
        rows = [(level, *(values.get(column, math.nan) for column in columns)) for level, values in levels.items()]
        logger.info("Masks in the ground-truth boxes of %s\n%s", name, format_table(["objects", *columns], rows))
    return metrics


def _olac_labels(cfg) -> dict[str, str] | None:
    return read_olac_labels(cfg.TEST.OLAC_LABELS) if cfg.TEST.OLAC_LABELS else None


def folder_name(dataset: str) -> str:
    """A data set's name or spec as the name of a folder; long ones are cut, with a checksum of the whole."""
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_")
    return name if len(name) <= 100 else f"{zlib.crc32(dataset.encode()):08x}_{name[-80:].lstrip('_')}"
