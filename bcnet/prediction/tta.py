"""Test-time augmentation: detections merged over resized and mirrored views of an image (cfg.TEST.AUG).

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from bcnet.config import CfgNode
from bcnet.data.transforms import Transform, resized_size
from bcnet.modeling import Detector, Thresholds
from bcnet.prediction.model import InferenceModel
from bcnet.structures import Detections


class AugmentedDetector(nn.Module):
    """A detector whose detections are those of several views of each image, merged.

    The boxes of all views are put into the image and merged by the detector's NMS; then the mask branch
    predicts the merged boxes in every view, and the maps of both layers are averaged in the RoI frame. This is what
    detectron2's `GeneralizedRCNNWithTTA` does, except that the views are made from the original image, not from one
    that was already resized.

    It takes a detector's place in inference; images are given at their own size.
    """

    # Views are padded one image at a time: any images may be given together.
    size_divisibility = 1

    def __init__(
        self, model: Detector, *, min_sizes: Sequence[int], max_size: int, flip: bool = True, batch_size: int = 2
    ) -> None:
        """
        Args:
            model: the detector.
            min_sizes: short sides of the views in pixels; 0 leaves the image at its size.
            max_size: bound of the views' long sides.
            flip: every view also mirrored, left to right.
            batch_size: views of one padded size that go through the model together.

        Raises:
            ValueError: no sizes.
        """
        super().__init__()
        if not min_sizes:
            raise ValueError("TEST.AUG.MIN_SIZES is empty; give at least one short side in pixels")
        self.model = model
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.flip = flip
        self.batch_size = batch_size

    @classmethod
    def from_config(cls, cfg, model: Detector) -> AugmentedDetector:
        """Reads ``cfg.TEST.AUG``."""
        augmentation = cfg.TEST.AUG
        return cls(model, min_sizes=augmentation.MIN_SIZES, max_size=augmentation.MAX_SIZE, flip=augmentation.FLIP)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def detects(self) -> bool:
        return self.model.detects

    def forward(self, images: Sequence[Tensor]) -> list[Detections]:
        return self.inference(images)

    @torch.no_grad()
    def inference(
        self,
        images: Sequence[Tensor],
        *,
        with_occluder: bool = False,
        thresholds: Thresholds | None = None,
        output_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Detections]:
        """`Detector.inference`, with the images at their own size.

        Args:
            images: per image uint8 or float [3, H, W], 0..255, in the model's channel order.
            with_occluder: average the occluder's maps and the boundaries too, not the masks alone.
            thresholds: hold for each view, and for what is merged.
            output_sizes: (H, W) of the images, which are not resized.
        """
        detections = []
        for image in images:
            pixels = image.cpu().permute(1, 2, 0).numpy()
            transforms = self.transforms(*pixels.shape[:2])
            views = [_view(pixels, transform) for transform in transforms]
            merged = self._merged_boxes(views, transforms, thresholds or Thresholds())
            if output_sizes is not None:
                merged = merged.rescaled(merged.image_size)  # without empty boxes
            if self.model.mask_branch is not None:
                merged = self._with_maps(views, transforms, merged, with_occluder)
            detections.append(merged)
        return detections

    @torch.no_grad()
    def inference_masks(
        self, images: Sequence[Tensor], detections: Sequence[Detections], *, with_occluder: bool = False
    ) -> list[Detections]:
        """`Detector.inference_masks`, with the images and detections at the images' own size."""
        results = []
        for image, given in zip(images, detections, strict=True):
            pixels = image.cpu().permute(1, 2, 0).numpy()
            transforms = self.transforms(*pixels.shape[:2])
            views = [_view(pixels, transform) for transform in transforms]
            results.append(self._with_maps(views, transforms, given, with_occluder))
        return results

    def _merged_boxes(
        self, views: Sequence[Tensor], transforms: Sequence[Transform], thresholds: Thresholds
    ) -> Detections:
        boxes_of_views = []
        for part in self._batches(transforms):
            detected = self.model.inference_boxes(views[part], thresholds=thresholds)
            for transform, detections in zip(transforms[part], detected, strict=True):
                boxes = _transformed(detections.boxes, transform, inverse=True)
                boxes_of_views.append(replace(detections, image_size=transform.input_size, boxes=boxes))
        return merge_detections(
            boxes_of_views,
            nms_threshold=self.model.nms_threshold if thresholds.nms is None else thresholds.nms,
            max_detections=thresholds.max_detections or self.model.max_detections,
        )

    def _with_maps(
        self, views: Sequence[Tensor], transforms: Sequence[Transform], merged: Detections, with_occluder: bool
    ) -> Detections:
        totals: dict[str, Tensor] = {}
        for part in self._batches(transforms):
            given = [
                replace(merged, image_size=t.output_size, boxes=_transformed(merged.boxes, t)) for t in transforms[part]
            ]
            seen = self.model.inference_masks(views[part], given, with_occluder=with_occluder)
            for transform, detections in zip(transforms[part], seen, strict=True):
                for name, maps in detections.maps.items():
                    maps = maps.flip(2) if transform.flip == "horizontal" else maps
                    totals[name] = totals[name] + maps if name in totals else maps
        averages = {name: total / len(transforms) for name, total in totals.items()}
        return replace(merged, maps=averages, specs=seen[0].specs, roi_scale=seen[0].roi_scale)

    def transforms(self, height: int, width: int) -> list[Transform]:
        """The views of an image of height x width. Sizes that come out equal are one view."""
        sizes = dict.fromkeys(resized_size(height, width, side, self.max_size) for side in self.min_sizes)
        flips = ("none", "horizontal") if self.flip else ("none",)
        return [Transform((height, width), size, flip) for size in sizes for flip in flips]

    def _batches(self, transforms: Sequence[Transform]) -> Iterator[slice]:
        """Views of one size each, so that each gets what it would get alone."""
        start = 0
        for end in range(1, len(transforms) + 1):
            size = transforms[start].output_size
            if end - start == self.batch_size or end == len(transforms) or transforms[end].output_size != size:
                yield slice(start, end)
                start = end


def with_test_time_augmentation(cfg, model: InferenceModel) -> tuple[CfgNode, InferenceModel]:
    """The config and the model to test with: under TEST.AUG, images at their own size and the detector inside `model`.

    Raises:
        ValueError: TEST.AUG is enabled and there is no detector in the model.
    """
    if not cfg.TEST.AUG.ENABLED:
        return cfg, model
    detector = next((module for module in model.modules() if isinstance(module, Detector)), None)
    if detector is None:
        raise ValueError(f"TEST.AUG.ENABLED is True; {type(model).__name__} holds no Detector that could be augmented")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.freeze()
    return cfg, AugmentedDetector.from_config(cfg, detector)


def merge_detections(views: Sequence[Detections], *, nms_threshold: float, max_detections: int | None) -> Detections:
    """One image's boxes from several views: per class, of overlapping ones the one with the highest score.

    Args:
        views: in the coordinates of the image; maps are ignored.
        nms_threshold: IoU above which two boxes of a class are the same object.
        max_detections: maximum number of detections that are kept, the highest scoring ones; None is no limit.
    """
    size = views[0].image_size
    boxes = clip_boxes_to_image(torch.cat([view.boxes for view in views]), size)
    scores, classes = torch.cat([view.scores for view in views]), torch.cat([view.classes for view in views])
    kept = batched_nms(boxes, scores, classes, nms_threshold)[:max_detections]
    return Detections(size, boxes[kept], scores[kept], classes[kept])


def _view(pixels: np.ndarray, transform: Transform) -> Tensor:
    view = transform.apply_image(pixels)
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))


def _transformed(boxes: Tensor, transform: Transform, *, inverse: bool = False) -> Tensor:
    """Boxes of the image in a view, or (inverse) of a view in the image; not clipped."""
    (height, width), (view_height, view_width) = transform.input_size, transform.output_size
    scale_x, scale_y = view_width / width, view_height / height
    scale = boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
    if not inverse:
        boxes = boxes * scale
    if transform.flip == "horizontal":
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        boxes = torch.stack([view_width - x1, y0, view_width - x0, y1], dim=1)
    return boxes / scale if inverse else boxes
