"""Data set mapper: converts a record to the model's input, an image tensor and training targets.

Letters: G instances, H x W original image, h x w transformed image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bcnet.data.augmentation import Augmentation, required_rng
from bcnet.data.composition import Composition
from bcnet.data.images import MAX_IMAGE_PIXELS, channel_order, open_record_image
from bcnet.data.masks import instance_masks
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import source_masks, target_boxes
from bcnet.data.transforms import Transform
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.structures import InstanceMasks, Targets

_MIN_BOX_SIDE = 1e-5  # pixels, of detectron2's filter_empty_instances


class DatasetMapper:
    """Maps an `ImageRecord` to the model's input.

    Objects are pasted, and all mask layers derived (or taken from the record), in the original image, before the
    transform; boxes and layers of an instance then get the same transform. If the augmentation crops, boxes are
    recomputed from the occludee masks, as detectron2's mapper does with INPUT.CROP.

    Args:
        augmentation: augmentation of the image.
        image_format: "BGR" or "RGB".
        training: whether to create targets.
        with_masks: False creates targets with empty masks, for box-only detectors; annotations then need no
            segmentation.
        mask_target: target of the occludee layer: "visible", or "amodal" for data sets with amodal masks.
        layers: names of the mask layers to create, see `source_masks`; the occludee comes first.
        occluder_target: "neighbours" or "front", see `source_masks`.
        composition: pastes objects into training images; None disables it.
        max_image_pixels: images with more pixels are rejected as unreadable; 0 is no limit.
    """

    def __init__(
        self,
        *,
        augmentation: Augmentation,
        image_format: str = "BGR",
        training: bool = True,
        with_masks: bool = True,
        mask_target: str = "visible",
        layers: Sequence[str] = (OCCLUDEE, OCCLUDER),
        occluder_target: str = "neighbours",
        composition: Composition | None = None,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        self.augmentation = augmentation
        self.channels = channel_order(image_format)
        self.training = training
        self.with_masks = with_masks
        if mask_target not in ("visible", "amodal"):
            raise ValueError(f"mask_target must be 'visible' or 'amodal', got {mask_target!r}")
        self.mask_target = mask_target
        self.layers = tuple(layers)
        self.occluder_target = occluder_target
        self.composition = composition
        self.max_image_pixels = max_image_pixels

    @classmethod
    def from_config(
        cls,
        cfg,
        training: bool,
        *,
        layers: Sequence[str] = (OCCLUDEE, OCCLUDER),
        composition: Composition | None = None,
    ) -> DatasetMapper:
        """From INPUT, MODEL.MASK_ON and MODEL.BILAYER.OCCLUDER_TARGET; see `build_composition` for the composition."""
        return cls(
            augmentation=Augmentation.from_config(cfg, training),
            image_format=cfg.INPUT.FORMAT,
            training=training,
            with_masks=cfg.MODEL.MASK_ON,
            mask_target=cfg.INPUT.MASK_TARGET,
            layers=layers,
            occluder_target=cfg.MODEL.BILAYER.OCCLUDER_TARGET,
            composition=composition,
            max_image_pixels=cfg.INPUT.MAX_IMAGE_PIXELS,
        )

    def __call__(self, record: ImageRecord, rng: np.random.Generator | None = None) -> dict:
        """Reads and transforms one image.

        Args:
            record: the image.
            rng: draws the augmentation; may be None if nothing is random.

        Returns:
            dict: "image" uint8 tensor [3, h, w] in the format's channel order, "image_id", "file_name",
            "height" and "width" of the original image; in training also "targets" (`Targets`).

        Raises:
            UnreadableImageError: as in `open_image`.
            ValueError: the image's size differs from the record's, or an annotation's segmentation is absent or
                malformed; names the file, the annotation and the value. Or a random generator is required but None.
        """
        image = open_record_image(record, max_pixels=self.max_image_pixels)
        if self.composition is not None:
            image, record = self.composition(image, record, required_rng(rng, "a composition"))
        transform = self.augmentation.draw(record.height, record.width, rng)
        if self.augmentation.color_jitter is not None:
            image = self.augmentation.color_jitter.apply(np.asarray(image), required_rng(rng, "the colour jitter"))
        pixels = transform.apply_image(image)
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(pixels[:, :, self.channels].transpose(2, 0, 1))),
            "image_id": record.image_id,
            "file_name": record.file_name,
            "height": record.height,
            "width": record.width,
        }
        if self.training:
            sample["targets"] = self.targets(record, transform)
        return sample

    def targets(self, record: ImageRecord, transform: Transform) -> Targets:
        """The targets of a record in the transformed image's coordinates.

        Crowds are excluded, and so are instances whose box or mask is empty after the transform, as in detectron2's
        `filter_empty_instances`. Boxes are the annotations' boxes, transformed and clipped; they are recomputed from
        the masks only if the augmentation crops.

        Raises:
            ValueError: see `__call__`.
        """
        if self.with_masks:
            source = source_masks(record, self.mask_target, self.layers, self.occluder_target)
            positions, source_boxes = source.positions, source.boxes
        else:
            positions, source_boxes = target_boxes(record, self.mask_target)
        boxes = torch.as_tensor(transform.apply_boxes(_corners(source_boxes)), dtype=torch.float32)
        recompute_boxes = self.with_masks and self.augmentation.cuts_objects
        kept = ((boxes[:, 2:] - boxes[:, :2]) > _MIN_BOX_SIDE).all(dim=1).tolist()
        if self.with_masks:
            candidates = [i for i, keep in enumerate(kept) if keep or recompute_boxes]
            rows, columns = transform.source_pixels()
            layers = {name: [rles[i] for i in candidates] for name, rles in source.layers.items()}
            masks, nonempty = instance_masks(layers, rows, columns)
            chosen = [i for i, keep in zip(candidates, nonempty, strict=True) if keep]
        else:
            chosen = [i for i, keep in enumerate(kept) if keep]
            masks = InstanceMasks.without_pixels(len(chosen))
        classes = torch.tensor([record.instances[positions[i]].category for i in chosen], dtype=torch.int64)
        boxes = masks.boxes(self.layers[0]) if recompute_boxes else boxes[chosen]
        return Targets(boxes, classes, masks, record.image_id)


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """xywh boxes to xyxy, computed in float32 as in detectron2's `BoxMode.convert`: float64 [G, 4]."""
    corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners.astype(np.float64)
