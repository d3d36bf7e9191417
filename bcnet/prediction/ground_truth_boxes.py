"""Mask IoU in ground-truth boxes: compares mask heads independently of the detectors' boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_convert

from bcnet.data import DatasetMapper, ImageRecord, load_dataset
from bcnet.data.sampling import contiguous_shard
from bcnet.data.source_masks import amodal_rle, source_masks, target_boxes, visible_rle
from bcnet.distributed import gather_on_main_process, is_main_process, rank, world_size
from bcnet.evaluation.occlusion import OCCLUSION_LEVELS, in_level
from bcnet.maps import OCCLUDER
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.occlusion.shares import hidden_share, occluder_share
from bcnet.ops.rle import RLE
from bcnet.prediction.model import InferenceModel
from bcnet.structures import Detections


class GroundTruthBoxPredictor:
    """Predicts the maps of a record's objects in their annotated boxes."""

    def __init__(self, cfg, model: InferenceModel) -> None:
        """
        Args:
            cfg: the config that the model was built from.
            model: a detector with a mask branch, in eval mode.
        """
        self.model = model
        self.mapper = DatasetMapper.from_config(cfg, training=False)
        self.amp_dtype = autocast_dtype(cfg)

    def __call__(self, record: ImageRecord) -> Detections:
        """One detection per object, crowds excluded, with all maps of the head, on the CPU, in image pixels."""
        boxes, classes = ground_truth_boxes(record)
        given = Detections((record.height, record.width), boxes, torch.ones(len(boxes)), classes)
        device = self.model.device
        with autocast(device, self.amp_dtype):
            image = self.mapper(record)["image"]
            (detections,) = self.model.inference_masks([image], [given.to(device)], with_occluder=True)
        return detections.to("cpu")


def ground_truth_boxes(record: ImageRecord) -> tuple[Tensor, Tensor]:
    """Boxes (float32 [G, 4], xyxy in image pixels) and classes (int64 [G]) of a record's objects, crowds excluded."""
    positions, boxes = target_boxes(record, "visible")
    boxes = box_convert(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "xywh", "xyxy")
    return boxes, torch.tensor([record.instances[i].category for i in positions], dtype=torch.int64)


def masks_in_ground_truth_boxes(cfg, model: InferenceModel, dataset: str) -> dict:
    """IoU of the annotated masks with those that a model predicts in the annotated boxes.

    The boxes are those of the visible masks, and the detector's own detections are not used, so that heads are compared
    instance by instance. For a model with an occluder layer, occluder masks are evaluated too. Instances are split into
    levels by the hidden share of their amodal masks if all have one, else by the occluder's share of the pixels
    (`occluder_share`). Each process takes a share of the images.

    Args:
        cfg: the config that the model was built from.
        model: a detector with a mask branch, in eval mode.
        dataset: name or spec of a data set with masks.

    Returns:
        dict: by level of `OCCLUSION_LEVELS`, and "all": ``instances``, ``mean_iou`` in percent, and for a model with an
        occluder layer, over the instances with an occluder, ``occluded`` (their number), ``occluder_mean_iou`` and
        ``occluder_found``, the share of them whose predicted occluder mask is not empty (percent). Empty on
        all but the main process.
    """
    predict = GroundTruthBoxPredictor(cfg, model)
    records = load_dataset(dataset)[0]
    by_amodal = all(instance.amodal for record in records for instance in record.instances if not instance.iscrowd)
    rows = []
    for record in (records[index] for index in contiguous_shard(len(records), rank(), world_size())):
        instances = [instance for instance in record.instances if not instance.iscrowd]
        if instances:
            visible = [visible_rle(record, instance) for instance in instances]
            occluders = source_masks(record, layers=(OCCLUDER,)).layers[OCCLUDER]
            if by_amodal:
                amodal = [amodal_rle(record, instance) for instance in instances]
                hidden = list(map(hidden_share, amodal, visible))
            else:
                hidden = list(map(occluder_share, visible, occluders))
            rows += _compare(predict(record), visible, occluders, hidden)
    gathered = gather_on_main_process(np.array(rows, dtype=float).reshape(-1, 4))
    return _summary(np.concatenate(gathered)) if is_main_process() else {}


def _compare(
    detections: Detections, occludees: Sequence[RLE], occluders: Sequence[RLE | None], hidden: Sequence[float]
) -> list[tuple[float, float, float, float]]:
    """Per instance: hidden share, IoU of its mask, IoU of its occluder mask and whether that is not empty.

    The last two are NaN without an occluder or without an occluder layer.
    """
    masks = detections.mask_rles()
    has_layer = detections.occluder_mask is not None
    predicted_occluders = detections.mask_rles("occluder_mask") if has_layer else [None] * len(detections)
    rows = []
    for share, mask, truth, predicted, occluder in zip(
        hidden, masks, occludees, predicted_occluders, occluders, strict=True
    ):
        occluder_iou = is_not_empty = float("nan")
        if predicted is not None and occluder is not None:
            occluder_iou, is_not_empty = _iou(predicted, occluder), float(coco_mask.area(predicted) > 0)
        rows.append((share, _iou(mask, truth), occluder_iou, is_not_empty))
    return rows


def _iou(first: RLE, second: RLE) -> float:
    return float(np.asarray(coco_mask.iou([first], [second], [0]))[0, 0])


def _summary(rows: np.ndarray) -> dict:
    levels = {"all": (0.0, 1.0), **OCCLUSION_LEVELS}
    summary = {}
    for name, level in levels.items():
        members = rows[[in_level(share, level) for share in rows[:, 0]]]
        values = {"instances": len(members), "mean_iou": _mean(members[:, 1])}
        occluded = members[~np.isnan(members[:, 2])]
        if len(occluded):
            values["occluded"] = len(occluded)
            values["occluder_mean_iou"] = _mean(occluded[:, 2])
            values["occluder_found"] = _mean(occluded[:, 3])
        summary[name] = values
    return summary


def _mean(values: np.ndarray) -> float:
    return 100 * float(values.mean()) if len(values) else float("nan")
