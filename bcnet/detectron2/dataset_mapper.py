"""Dataset mapper for detectron2 that adds ground-truth occluder masks.

Letters: G instances, H x W original image, h x w transformed image.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, Instances
from detectron2.utils.logger import log_first_n
from pycocotools import mask as coco_mask

from bcnet.data import ImageRecord
from bcnet.data.composition import Composition
from bcnet.data.images import open_record_image
from bcnet.data.source_masks import OCCLUDER_TARGETS, SourceMasks, instance_label, missing_masks, source_masks
from bcnet.detectron2.augmentations import catalog_composition, random_generator, training_augmentations
from bcnet.detectron2.datasets import dict_to_record, files_with_ignored_order
from bcnet.detectron2.keys import require_bcnet_keys
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER
from bcnet.ops.rle import RLE


class BCNetDatasetMapper(DatasetMapper):
    """detectron2's `DatasetMapper`, adding ``gt_occluder_masks`` (BitMasks [G, h, w]) in training.

    With ``MODEL.BILAYER.AMODAL`` it also adds ``gt_amodal_masks``, for which every annotation needs an
    ``amodal_segmentation``, as in bcnet's own trainer.

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

    With ``MODEL.BILAYER.OCCLUDER_TARGET`` "front", and for amodal masks that follow from a composition,
    ``gt_occluder_unknown_masks`` and ``gt_amodal_unknown_masks`` are the pixels of which the mask is not known.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        mask_target: str = "visible",
        amodal_masks: bool = False,
        occluder_target: str = "neighbours",
        composition: Composition | None = None,
        ordered_files: Sequence[str] = (),
        **kwargs,
    ) -> None:
        """
        Args:
            mask_target: "visible" or "amodal".
            amodal_masks: whether ``gt_amodal_masks`` are added.
            occluder_target: "neighbours" or "front", see `bcnet.data.source_masks`.
            composition: pastes objects into training images before the augmentations. It needs bitmasks.
            ordered_files: annotation files with a depth order; a warning says where dataset dicts have none.
            Others: see `DatasetMapper`.

        Raises:
            ValueError: another `mask_target` or `occluder_target`; a composition of polygons or keypoints.
        """
        super().__init__(is_train, **kwargs)
        for name, value, known in (
            ("mask_target", mask_target, ("visible", "amodal")),
            ("occluder_target", occluder_target, OCCLUDER_TARGETS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, got {value!r}")
        if composition is not None and self.instance_mask_format != "bitmask":
            raise ValueError(
                "a composition cuts masks by pixels: INPUT.MASK_FORMAT must be 'bitmask', got "
                f"{self.instance_mask_format!r}"
            )
        if composition is not None and self.use_keypoint:
            raise ValueError("objects are pasted without keypoints: INPUT.COMPOSITION excludes MODEL.KEYPOINT_ON")
        self.mask_target = mask_target
        self.amodal_masks = amodal_masks
        self.occluder_target = occluder_target
        self.composition = composition
        self.ordered_files = tuple(ordered_files)

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        """
        Raises:
            ValueError: bcnet's keys are not in the config, or there is nothing to cut out for a composition.
        """
        require_bcnet_keys(cfg)
        keywords = {
            **super().from_config(cfg, is_train),
            "mask_target": cfg.INPUT.MASK_TARGET,
            "amodal_masks": cfg.MODEL.BILAYER.AMODAL,
            "occluder_target": cfg.MODEL.BILAYER.OCCLUDER_TARGET,
        }
        if is_train:
            keywords["augmentations"] = training_augmentations(cfg, keywords["augmentations"])
            keywords["recompute_boxes"] |= cfg.MODEL.MASK_ON and cfg.INPUT.SCALE_JITTER.ENABLED
            if cfg.MODEL.MASK_ON:
                keywords["composition"] = catalog_composition(cfg)
                keywords["ordered_files"] = files_with_ignored_order(cfg.DATASETS.TRAIN)
        return keywords

    def __call__(self, dataset_dict: dict) -> dict:
        """As `DatasetMapper.__call__`.

        Raises:
            ValueError: an annotation whose segmentation is malformed or absent; names the image, the annotation and the
                value. A composition of an image with semantic labels or proposals, which would not follow.
        """
        if self.composition is None or not self.is_train or not dataset_dict.get("annotations"):
            return super().__call__(dataset_dict)
        for key in ("sem_seg_file_name", "pan_seg_file_name", "proposal_boxes"):
            if key in dataset_dict:
                raise ValueError(
                    f"{dataset_dict['file_name']} has {key!r}, which does not follow the objects that are pasted: "
                    "INPUT.COMPOSITION must be off"
                )
        dataset_dict = copy.deepcopy(dataset_dict)
        record = dict_to_record(dataset_dict)
        image, record = self.composition(open_record_image(record, max_pixels=0), record, random_generator())
        augmented = T.AugInput(np.ascontiguousarray(utils.convert_PIL_to_numpy(image, self.image_format)))
        transforms = self.augmentations(augmented)
        pixels: np.ndarray = augmented.image  # pyright: ignore[reportAssignmentType]
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        annotations = dataset_dict.pop("annotations")
        dataset_dict["instances"] = self._instances(record, annotations, transforms, pixels.shape[:2])
        return dataset_dict

    def _transform_annotations(self, dataset_dict: dict, transforms: T.Transform, image_shape: tuple[int, int]) -> None:
        if not self.use_instance_mask:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        if "in_front" not in dataset_dict:
            self._warn_of_ignored_order()
        record = dict_to_record(dataset_dict)
        annotations = dataset_dict.pop("annotations")
        dataset_dict["instances"] = self._instances(record, annotations, transforms, image_shape)

    def _instances(
        self, record: ImageRecord, annotations: Sequence[dict], transforms: T.Transform, image_shape: tuple[int, int]
    ) -> Instances:
        """The ground truth of the transformed image; the record may have objects that the annotations lack."""
        layers = (OCCLUDEE, OCCLUDER, AMODAL) if self.amodal_masks else (OCCLUDEE, OCCLUDER)
        # By composition amodal masks follow from what was visible before, as far as they are known.
        if self.amodal_masks and self.composition is None and (missing := missing_masks(record, layers=layers)):
            raise ValueError(f"{missing[0]}; MODEL.BILAYER.AMODAL (amodal_masks) needs one of every annotation")
        source = source_masks(record, self.mask_target, layers, self.occluder_target)
        chosen = [
            self._transformed_annotation(annotation, transforms, image_shape)
            for annotation in self._source_annotations(record, annotations, source)
        ]
        instances = utils.annotations_to_instances(chosen, image_shape, mask_format=self.instance_mask_format)
        if chosen:
            for layer in source.layers.keys() - {OCCLUDEE}:
                instances.set(f"gt_{layer}_masks", _transformed_masks(source.layers[layer], transforms, image_shape))
            if self.recompute_boxes:
                instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)  # pyright: ignore[reportReturnType]  # return_mask is False

    def _source_annotations(self, record: ImageRecord, annotations: Sequence[dict], source: SourceMasks) -> list[dict]:
        """detectron2's annotations of the instances that are not crowds, with the target's boxes and masks."""
        chosen = []
        for position, box, occludee in zip(source.positions, source.boxes, source.layers[OCCLUDEE], strict=True):
            instance = record.instances[position]
            annotation = {
                **(annotations[position] if position < len(annotations) else {}),
                "category_id": instance.category,
                # As floats: detectron2's transforms truncate transformed integer boxes to whole pixels.
                "bbox": [float(x) for x in box],
                "bbox_mode": BoxMode.XYWH_ABS,
            }
            if self.mask_target == "amodal":
                annotation["segmentation"] = instance.amodal
            if self.instance_mask_format == "bitmask":
                annotation["segmentation"] = occludee
            elif isinstance(annotation.get("segmentation"), dict):
                raise ValueError(
                    f"{instance_label(record, instance)} has a segmentation in RLE: INPUT.MASK_FORMAT must be "
                    "'bitmask', which takes polygons too, got 'polygon'"
                )
            else:
                # A completely occluded object has no polygon, and is filtered out.
                polygons = annotation.get("segmentation")
                polygons = [] if polygons is None else polygons
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

    def _warn_of_ignored_order(self) -> None:
        if self.ordered_files:
            log_first_n(
                logging.WARNING,
                f"{', '.join(self.ordered_files)} has a depth order, which this registration ignores: every neighbour "
                "is taken as an occluder. bcnet.detectron2.register_datasets keeps it.",
                name=__name__,
            )


def _transformed_masks(rles: Sequence[RLE | None], transforms: T.Transform, image_shape: tuple[int, int]) -> BitMasks:
    masks = torch.zeros(len(rles), *image_shape, dtype=torch.bool)
    for mask, rle in zip(masks, rles, strict=True):
        if rle is not None:
            mask[:] = torch.from_numpy(_object_pixels(transforms.apply_segmentation(coco_mask.decode(rle))))
    return BitMasks(masks)


def _object_pixels(mask: np.ndarray) -> np.ndarray:
    # Padding fills masks with 255, "ignore", which BitMasks would treat as foreground.
    return np.ascontiguousarray(mask == 1)
