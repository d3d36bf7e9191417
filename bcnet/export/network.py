"""The module that is exported: normalisation, detector, NMS and mask head in one graph, from an image to arrays.

Letters: H x W padded image, D detections, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcnet.bilayer import select_class
from bcnet.export.detectors import fixed_detections, select_boxes
from bcnet.maps import MapSpec
from bcnet.modeling import Detector
from bcnet.ops.boxes import scaled_boxes


class ExportNetwork(nn.Module):
    """A detector as a function of tensors; of a box-prompted model the boxes are an input.

    Inputs: image, float32 [1, 3, H, W], RGB, 0..255, the image at its top left; image_size, int64 [2], its (h, w). What
    lies beyond is padding, whatever its values are. H and W are multiples of the model's `size_divisibility`. A
    box-prompted model also takes boxes, float32 [D, 4], and, if its masks are by class, classes, int64 [D].

    Outputs: boxes float32 [D, 4] (xyxy in pixels of the input), scores float32 [D] and classes int64 [D] by descending
    score, not those of a box-prompted model; and each map, float32 [D, M, M], probabilities. With `fixed` D is a
    constant, what is beyond count, int64 [1], is zeros, and the maps there have no meaning.
    """

    def __init__(
        self, model: Detector, *, image_format: str = "BGR", all_maps: bool = True, fixed: bool = False
    ) -> None:
        """
        Args:
            model: the detector; in eval mode.
            image_format: channel order that it takes, "BGR" or "RGB".
            all_maps: all that the head has, or only those that are not `MapSpec.on_request`.
            fixed: a fixed number of detections.
        """
        super().__init__()
        self.model = model
        self.channels = [0, 1, 2] if image_format == "RGB" else [2, 1, 0]
        self.fixed = fixed
        maps: Sequence[MapSpec] = () if model.mask_branch is None else model.mask_branch.head.maps
        self.specs = tuple(spec for spec in maps if all_maps or not spec.on_request)

    @property
    def takes_classes(self) -> bool:
        """Whether the class of each box is an input: of a box-prompted model with masks by class."""
        branch = self.model.mask_branch
        return not self.model.detects and branch is not None and branch.num_classes > 1

    @property
    def fixed_detections(self) -> int:
        """The number of detections with `fixed`."""
        return fixed_detections(self.model) if self.model.detects else 100

    def forward(
        self, image: Tensor, image_size: Tensor, boxes: Tensor | None = None, classes: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        features = self.model.backbone(self._normalised(image, image_size))
        if boxes is not None:
            labels = torch.zeros_like(boxes[:, 0], dtype=torch.int64) if classes is None else classes
            return tuple(self._maps(features, boxes, labels))
        found = select_boxes(self.model, features, image_size.to(torch.float32))
        if self.fixed:
            outputs = (found.boxes, found.scores, found.classes, found.valid.sum()[None])
        else:
            kept = torch.nonzero(found.valid)[:, 0]
            outputs = (found.boxes[kept], found.scores[kept], found.classes[kept])
        return (*outputs, *self._maps(features, outputs[0], outputs[2]))

    def _normalised(self, image: Tensor, image_size: Tensor) -> Tensor:
        """As `Detector.features` prepares it: zeros after normalisation where there is no image."""
        model = self.model
        height, width = image.shape[2:]
        rows = torch.arange(height, device=image.device) < image_size[0]
        columns = torch.arange(width, device=image.device) < image_size[1]
        pixels = torch.stack([image[:, channel] for channel in self.channels], dim=1)
        return torch.where(rows[:, None] & columns, (pixels - model.pixel_mean) / model.pixel_std, 0.0)

    def _maps(self, features, boxes: Tensor, classes: Tensor) -> list[Tensor]:
        branch = self.model.mask_branch
        if branch is None:
            return []
        rois = scaled_boxes(boxes, branch.roi_scale)
        pooled = branch.pooler([features[name] for name in self.model.mask_features], [rois])
        logits = select_class(branch.head(pooled, [spec.name for spec in self.specs]), classes)
        return [logits[spec.name].float().sigmoid() for spec in self.specs]
