"""Dataset mapper for detectron2 that adds ground-truth occluder masks.

Letters: G instances, H x W original image, h x w transformed image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode
from pycocotools import mask as coco_mask

from bcnet.data.source_masks import SourceMasks, source_masks
from bcnet.detectron2.datasets import dict_to_record
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.ops.rle import RLE


class BCNetDatasetMapper(DatasetMapper):
    """detectron2's `DatasetMapper`, adding ``gt_occluder_masks`` (BitMasks [G, h, w]) in training.

    The occluders are derived from the annotations in the original image, before any augmentation
    (`bcnet.data.source_masks`), and then transformed like any other mask. Plain dataset dicts are sufficient.
    Optional keys of an annotation besides detectron2's: ``bg_object_segmentation``, its occluder mask (an empty
    list: none), and ``amodal_segmentation`` and ``amodal_bbox`` (xywh). A dataset dict's ``in_front``, pairs
    (i, j) of positions in ``annotations``, states that j is in front of i; then only such j occlude i.

    With ``INPUT.MASK_FORMAT`` "bitmask", polygons are rasterised in the original image and transformed as
    masks, as in bcnet's own trainer, so that both train on the same pixels. With "polygon", the
    instances' masks stay polygons, as in detectron2.

    With ``INPUT.MASK_TARGET`` "amodal", an instance's mask and box are the amodal ones; neighbours occlude by
    their visible masks.
    """

    @configurable
    def __init__(self, is_train: bool, *, mask_target: str = "visible", **kwargs) -> None:
        """
        Args:
            mask_target: "visible" or "amodal".
            Others: see `DatasetMapper`.

        Raises:
            ValueError: another `mask_target`.
        """
        super().__init__(is_train, **kwargs)
        if mask_target not in ("visible", "amodal"):
            raise ValueError(f"mask_target must be 'visible' or 'amodal', got {mask_target!r}")
        self.mask_target = mask_target

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        return {**super().from_config(cfg, is_train), "mask_target": cfg.INPUT.MASK_TARGET}

    def _transform_annotations(self, dataset_dict: dict, transforms: T.Transform, image_shape: tuple[int, int]) -> None:
        """
        Raises:
            ValueError: an annotation whose segmentation is absent or malformed; names the image, the annotation
                and the value.
        """
        if not self.use_instance_mask:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        source = source_masks(dict_to_record(dataset_dict), self.mask_target)
        annotations = [
            self._transformed_annotation(annotation, transforms, image_shape)
            for annotation in self._source_annotations(dataset_dict.pop("annotations"), source)
        ]
        instances = utils.annotations_to_instances(annotations, image_shape, mask_format=self.instance_mask_format)
        if annotations:
            instances.gt_occluder_masks = _transformed_masks(source.layers[OCCLUDER], transforms, image_shape)
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _source_annotations(self, annotations: Sequence[dict], source: SourceMasks) -> list[dict]:
        """detectron2's annotations of the instances that are not crowds, with the target's boxes and masks."""
        chosen = []
        for position, box, occludee in zip(source.positions, source.boxes, source.layers[OCCLUDEE], strict=True):
            # As floats: detectron2's transforms truncate transformed integer boxes to whole pixels.
            annotation = {**annotations[position], "bbox": [float(x) for x in box], "bbox_mode": BoxMode.XYWH_ABS}
            if self.mask_target == "amodal":
                annotation["segmentation"] = annotation["amodal_segmentation"]
            if self.instance_mask_format == "bitmask":
                annotation["segmentation"] = occludee
            elif not isinstance(annotation.get("segmentation"), dict):
                # A completely occluded object has no polygon, and is filtered out.
                polygons = annotation.get("segmentation") or []
                annotation["segmentation"] = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
            if not self.use_keypoint:
                annotation.pop("keypoints", None)
            chosen.append(annotation)
        return chosen

    def _transformed_annotation(self, annotation: dict, transforms: T.Transform, image_shape: tuple[int, int]) -> dict:
        annotation = utils.transform_instance_annotations(
            annotation, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
        )
        if isinstance(annotation["segmentation"], np.ndarray):
            annotation["segmentation"] = _object_pixels(annotation["segmentation"])
        return annotation


def _transformed_masks(rles: Sequence[RLE | None], transforms: T.Transform, image_shape: tuple[int, int]) -> BitMasks:
    masks = torch.zeros(len(rles), *image_shape, dtype=torch.bool)
    for mask, rle in zip(masks, rles, strict=True):
        if rle is not None:
            mask[:] = torch.from_numpy(_object_pixels(transforms.apply_segmentation(coco_mask.decode(rle))))
    return BitMasks(masks)


def _object_pixels(mask: np.ndarray) -> np.ndarray:
    # Padding fills masks with 255, "ignore", which BitMasks would treat as foreground.
    return np.ascontiguousarray(mask == 1)
