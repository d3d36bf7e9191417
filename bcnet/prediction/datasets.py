"""Inference on data sets, and their evaluation."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bcnet.data import DatasetInfo, ImageRecord, build_test_loader, load_dataset
from bcnet.data.classes import detected_classes
from bcnet.evaluation import CocoEvaluator, GroundTruth, ground_truth_of
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.occlusion import with_relations
from bcnet.prediction.tta import with_test_time_augmentation
from bcnet.progress import progress_wanted
from bcnet.structures import Detections


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


def evaluate(
    cfg, model: nn.Module, output_dir: str | None = None, *, class_names: Sequence[str] = ()
) -> dict[str, dict]:
    """Evaluates on every data set of ``DATASETS.TEST``. All processes call it, each with its share of the images.

    As soon as a data set is done, its ``inference/<data set>/coco_instances_results.json`` and ``metrics.json`` are
    written and tables logged; for one without annotations (test-dev) the files that COCO's server takes. With
    TEST.AUG.ENABLED the detections are those of several views of each image, see `AugmentedDetector`. Masks are
    compared with what the model learns, ``INPUT.MASK_TARGET``. Where the depth order is known, the results say who
    occludes whom.

    Args:
        cfg: the config the model was built from.
        model: the detector.
        output_dir: the folder to write to; None takes ``cfg.OUTPUT_DIR``.
        class_names: of the model's classes, to match them with those of each data set by name; by default
            ``model.class_names``. Where there are none, classes are matched by position.

    Returns:
        dict: for each data set what `bcnet.evaluation.evaluate_results` gives, on the main process; elsewhere
        without metrics.

    Raises:
        KeyError, FileNotFoundError, ValueError: a data set cannot be read.
        ValueError: classes that cannot be matched (`detected_classes`); an unknown name in ``TEST.METRICS``; not every
            object has an amodal mask where ``INPUT.MASK_TARGET`` is "amodal".
    """
    class_names = class_names or getattr(model, "class_names", ())
    cfg, model = with_test_time_augmentation(cfg, model)
    # All data sets are read before the first image is looked at: a fault of the last one should not come after hours.
    datasets = {name: _TestSet.load(cfg, name, class_names, model.num_classes) for name in cfg.DATASETS.TEST}
    metrics = {}
    for name, dataset in datasets.items():
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "inference", folder_name(name))
        evaluator = CocoEvaluator(
            dataset.ground_truth,
            folder,
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            metrics=cfg.TEST.METRICS,
        )
        loader = build_test_loader(cfg, (dataset.records, dataset.info))
        with_occluder = dataset.ground_truth.has_order
        found = run_inference(model, loader, amp_dtype=autocast_dtype(cfg), with_occluder=with_occluder)
        progress = tqdm(total=len(loader), desc=f"Evaluating {name}", disable=not progress_wanted(), unit="img")
        with progress:
            for image_id, detections in found:
                evaluator.update(image_id, dataset.with_its_classes(detections))
                progress.update()
        metrics[name] = evaluator.compute()
    return metrics


@dataclass
class _TestSet:
    """A data set to evaluate on.

    Attributes:
        records, info: of `load_dataset`.
        ground_truth: what detections are compared with.
        classes: int64 [K], the data set's class of each class of the model; -1 where it has none.
    """

    records: list[ImageRecord]
    info: DatasetInfo
    ground_truth: GroundTruth
    classes: Tensor

    @classmethod
    def load(cls, cfg, name: str, class_names: Sequence[str], num_classes: int) -> _TestSet:
        records, info = load_dataset(name)
        classes = detected_classes(class_names, num_classes, info.class_names, name)
        truth = ground_truth_of((records, info), cfg.INPUT.MASK_TARGET)
        return cls(records, info, truth, torch.tensor(classes))

    def with_its_classes(self, detections: Detections) -> Detections:
        """Detections of the model with the data set's classes; those of classes that it lacks are left out."""
        detections = detections[self.classes[detections.classes] >= 0]
        return replace(detections, classes=self.classes[detections.classes])


def folder_name(dataset: str) -> str:
    """A data set's name or spec as the name of a folder; long ones are cut, with a checksum of the whole."""
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_")
    return name if len(name) <= 100 else f"{zlib.crc32(dataset.encode()):08x}_{name[-80:].lstrip('_')}"
