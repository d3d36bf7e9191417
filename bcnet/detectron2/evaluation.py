"""Evaluator for detectron2: every metric of `bcnet.evaluation`, amodal masks and depth order included.

Letters: D detections, H x W image, K classes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from pycocotools import mask as coco_mask
from torch import nn

from bcnet.data import DatasetInfo
from bcnet.detectron2.convert import instances_to_detections, kept_maps
from bcnet.detectron2.datasets import IS_BCNET_DATASET, dict_to_record
from bcnet.detectron2.keys import require_bcnet_keys
from bcnet.detectron2.mask_head import HostMaskHead
from bcnet.evaluation import CocoEvaluator, GroundTruth, flat_metrics, ground_truth_of, read_olac_labels
from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDEE_MASK, OCCLUDER_MASK, RESULT_MAPS
from bcnet.modeling.thresholds import max_detections_of
from bcnet.occlusion import with_relations
from bcnet.ops.rle import rle_to_json
from bcnet.structures import Detections

logger = logging.getLogger(__name__)


class BCNetEvaluator(DatasetEvaluator):
    """All metrics of `bcnet.evaluation.evaluate_results` as a detectron2 evaluator, for any trainer.

    Models with `BilayerMaskHead` get the figures of bcnet's own evaluation, also of amodal models. Occlusion order
    needs the occluder's maps: MODEL.BILAYER.OUTPUT_LAYERS, or `all_maps`. Models with other heads, or boxes alone, get
    the metrics that their outputs allow; of these heads ``pred_amodal_masks``, bool [D, H, W], are read too. Written
    are ``coco_instances_results.json`` and ``metrics.json``, or for a data set without annotations the files that
    COCO's server takes.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike | None = None,
        *,
        mask_target: str = "visible",
        max_detections: int = 100,
        score_threshold: float = 0.5,
        metrics: Sequence[str] = (),
        olac_labels: str | os.PathLike | None = None,
    ) -> None:
        """
        Args:
            dataset_name: of detectron2's catalog, however it was registered.
            output_dir: folder for the files; None writes none.
            mask_target: what the model's masks are: "visible", or "amodal" (INPUT.MASK_TARGET).
            max_detections: highest scoring detections per image and class that count.
            score_threshold, metrics: see `CocoEvaluator`.
            olac_labels: file of COCO-OLAC's occlusion levels.

        Raises:
            FileNotFoundError, KeyError, ValueError: the data set cannot be read, not every annotation has the amodal
                mask that `mask_target` "amodal" requires, or a metric is unknown.
        """
        self._truth = catalog_ground_truth(dataset_name, mask_target)
        self._evaluator = CocoEvaluator(
            self._truth,
            output_dir,
            max_detections=max_detections,
            score_threshold=score_threshold,
            metrics=metrics,
            olac_labels=None if olac_labels is None else read_olac_labels(olac_labels),
        )
        self._has_warned = False

    @classmethod
    def from_config(cls, cfg, dataset_name: str, output_dir: str | os.PathLike | None = None) -> BCNetEvaluator:
        """Reads INPUT.MASK_TARGET, TEST.DETECTIONS_PER_IMAGE, TEST.METRICS and TEST.OLAC_LABELS.

        Args:
            output_dir: None is ``OUTPUT_DIR/inference``.
        """
        require_bcnet_keys(cfg)
        return cls(
            dataset_name,
            output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"),
            mask_target=cfg.INPUT.MASK_TARGET,
            max_detections=max_detections_of(cfg) or 100,
            metrics=cfg.TEST.METRICS,
            olac_labels=cfg.TEST.OLAC_LABELS or None,
        )

    @property
    def uses_relations(self) -> bool:
        """Whether the data set's depth order is known, so that occlusion relations are measured."""
        return self._truth.has_order

    def reset(self) -> None:
        self._evaluator.reset()
        self._has_warned = False

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Adds a batch.

        Args:
            inputs: dicts with "image_id".
            outputs: dicts with "instances", post-processed to the size of the image.

        Raises:
            ValueError: an image that the data set does not have, or that was added before; instances of another size
                than the image's; a class that the data set does not have.
        """
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            instances = instances[torch.argsort(instances.scores, descending=True, stable=True)]
            self._check_classes(instances, image["image_id"])
            self._warn_of_missing_layers(instances)
            results = self._results(instances, image["image_id"])
            has_masks = instances.has(OCCLUDEE_MASK.detectron2_field)
            self._evaluator.update_results(image["image_id"], instances.image_size, results, has_masks=has_masks)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gathers the results of all processes and computes the metrics.

        Returns:
            dict: numbers by task and metric in detectron2's form: ``["segm"]["AP"]``, ``["amodal"]["AP50"]``,
            ``["occlusion"]["levels/heavy/AP"]``. Empty without annotations, where no image was processed, and on every
            process but the main one.
        """
        metrics = self._evaluator.compute()
        return {
            name: {key: float(value) for key, value in flat_metrics(values).items()}
            for name, values in metrics.items()
            if isinstance(values, dict)
        }

    def _results(self, instances: Instances, image_id: int | str) -> list[dict]:
        category_ids = self._truth.category_ids
        if OCCLUDEE_MASK.name in kept_maps(instances):
            detections = with_relations(instances_to_detections(instances))
            return detections.to_coco(image_id, category_ids, names=RESULT_MAPS)
        boxes = Detections(
            instances.image_size, instances.pred_boxes.tensor, instances.scores, instances.pred_classes
        ).to_coco(image_id, category_ids)
        if not instances.has(OCCLUDEE_MASK.detectron2_field):
            return boxes
        # Another mask head, with masks in the image, or merged ones of test-time augmentation.
        for key, spec in (("segmentation", OCCLUDEE_MASK), ("amodal_segmentation", OCCLUDEE_AMODAL)):
            if instances.has(spec.detectron2_field):
                masks = torch.as_tensor(instances.get(spec.detectron2_field)).to(torch.uint8).numpy()
                for result, mask in zip(boxes, masks, strict=True):
                    result[key] = rle_to_json(coco_mask.encode(mask.copy(order="F")))
        return boxes

    def _warn_of_missing_layers(self, instances: Instances) -> None:
        if self.uses_relations and not self._has_warned and OCCLUDER_MASK.name not in kept_maps(instances):
            self._has_warned = True
            logger.warning(
                "The depth order of %s is known, but the model's instances have no occluder maps: there is no metric "
                "of the occlusion order. MODEL.BILAYER.OUTPUT_LAYERS True adds them.",
                self._truth.source,
            )

    def _check_classes(self, instances: Instances, image_id: int | str) -> None:
        count = len(self._truth.category_ids)
        if len(instances) and int(instances.pred_classes.max()) >= count:
            raise ValueError(
                f"image {image_id!r} has a detection of class {int(instances.pred_classes.max())}, but "
                f"{self._truth.source} has {count} classes: the model was trained on others"
            )


def catalog_ground_truth(name: str, mask_target: str = "visible") -> GroundTruth:
    """Ground truth of a data set of detectron2's catalog, of class numbers as its dataset dicts have them.

    Raises:
        KeyError: the catalog has no such data set.
        FileNotFoundError, ValueError: see `ground_truth_of`; or its metadata name no classes.
    """
    dicts = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get(IS_BCNET_DATASET, False):
        return ground_truth_of(name, mask_target)
    numbers = metadata.get("thing_dataset_id_to_contiguous_id", None)
    class_names = [str(class_name) for class_name in metadata.get("thing_classes", ())]
    if metadata.get("json_file", None) and numbers:
        truth = GroundTruth.from_file(metadata.json_file, sorted(numbers, key=numbers.__getitem__), class_names)
    elif not class_names:
        raise ValueError(
            f"data set {name!r} of detectron2's catalog has no thing_classes: "
            f"MetadataCatalog.get({name!r}).set(thing_classes=[...]) names its classes"
        )
    else:
        truth = GroundTruth.from_records(
            [dict_to_record({"annotations": [], **dataset_dict}) for dataset_dict in dicts],
            DatasetInfo(name, tuple(class_names), tuple(range(len(class_names))), name, ""),
        )
    return truth.amodal() if mask_target == "amodal" and truth.annotations else truth


@contextlib.contextmanager
def all_maps(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Context in which every mask head of bcnet in a model returns all maps (`output_layers`)."""
    heads = [module for module in model.modules() if isinstance(module, HostMaskHead)]
    before = [head.output_layers for head in heads]
    for head in heads:
        head.output_layers = enabled or head.output_layers  # pyright: ignore[reportArgumentType]  # a bool
    try:
        yield
    finally:
        for head, value in zip(heads, before, strict=True):
            head.output_layers = value
