"""Base class of the detectors: normalisation, padding, backbone features, and masks of the detections.

Letters: B images, H x W padded image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.modeling.modes import evaluating
from bcnet.modeling.registry import Backbone
from bcnet.modeling.thresholds import Thresholds
from bcnet.structures import Detections, Targets


def require_detector(model: nn.Module) -> Detector:
    """The model itself, checked to be a detector.

    Raises:
        TypeError: another module.
    """
    if not isinstance(model, Detector):
        raise TypeError(f"a bcnet.modeling.Detector is required, got a {type(model).__name__}")
    return model


class Detector(nn.Module):
    """Base of the detectors. A subclass implements box inference (`detect`) and training (`detection_losses`)."""

    pixel_mean: Tensor
    pixel_std: Tensor
    detects = True  # False: takes boxes, and finds none itself

    def __init__(
        self,
        *,
        backbone: Backbone,
        mask_branch: MaskBranch | None,
        mask_features: Sequence[str],
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: an `nn.Module`.
            mask_branch: None detects boxes only.
            mask_features: names of the pyramid levels of the mask branch, fine to coarse.
            num_classes: K.
            pixel_mean, pixel_std: per channel, 0..255, in the channel order of the images.

        Raises:
            TypeError: a backbone that is not an `nn.Module`.
        """
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"a backbone must be an nn.Module, got a {type(backbone).__name__}")
        self.backbone = backbone
        self.mask_branch = mask_branch
        self.num_classes = num_classes
        self.mask_features = list(mask_features)
        self.detector_is_frozen = False
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def size_divisibility(self) -> int:
        """Input heights and widths are padded to multiples of this many pixels."""
        return self.backbone.size_divisibility

    @property
    def nms_threshold(self) -> float:
        """IoU above which one of two detections of a class is suppressed."""
        raise NotImplementedError

    @property
    def max_detections(self) -> int | None:
        """Maximum number of detections per image; None is no limit."""
        raise NotImplementedError

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Targets] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """
        Args:
            images: per image uint8 or float [3, h, w], 0..255, in the channel order of `pixel_mean`.
            targets: in training, per image.

        Returns:
            In training the losses by name, scalars; in inference what `inference` returns.

        Raises:
            ValueError: training without targets, or with targets of another number of images.
        """
        if not self.training:
            return self.inference(images)
        if targets is None or len(targets) != len(images):
            raise ValueError(
                f"training takes one Targets per image, got {None if targets is None else len(targets)} "
                f"for {len(images)} images"
            )
        targets = [t.to(self.device, non_blocking=True) for t in targets]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detector_is_frozen):
            features, image_sizes = self.features(images)
            losses, rois = self.detection_losses(features, image_sizes, targets)
            if self.mask_branch is not None:
                rois = self.mask_branch.jittered(rois, image_sizes)
        if self.detector_is_frozen:
            losses = {}  # a frozen detector has no trainable parameters; its losses come with the RoIs
        if self.mask_branch is not None:
            losses.update(self.mask_branch.losses(self._pooled(features), rois, targets))
        return losses

    def networks(self) -> list[nn.Module]:
        """Submodules without data-dependent shapes; safe for torch.compile."""
        return [self.backbone] if self.mask_branch is None else [self.backbone, self.mask_branch.head]

    def compile(self, **options) -> None:
        """Compiles the `networks` in place, by torch.compile with dynamic shapes; parameters and their names stay.

        Args:
            options: of torch.compile.
        """
        for network in self.networks():
            network.compile(**{"dynamic": True, **options})

    def freeze_detector(self) -> None:
        """Freezes every parameter except the mask branch's.

        Raises:
            ValueError: the detector has no mask branch.
        """
        if self.mask_branch is None:
            raise ValueError("there is nothing to train: MODEL.FREEZE_DETECTOR is True and MODEL.MASK_ON False")
        self.detector_is_frozen = True
        self.requires_grad_(False)
        self.mask_branch.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As `nn.Module.train`; the BatchNorm statistics of a frozen detector stay fixed."""
        super().train(mode)
        if self.detector_is_frozen:
            self.backbone.eval()
        return self

    @torch.no_grad()
    def inference(
        self,
        images: Sequence[Tensor],
        *,
        with_occluder: bool = False,
        thresholds: Thresholds | None = None,
        output_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Detections]:
        """Detections of each image in its own coordinates, whatever mode the module and its submodules are in.

        Smaller images of a batch are padded to the largest, which slightly affects detections at the image's edge.
        For images of one padded size (`size_divisibility`), batched and single results are equal.

        Args:
            images: as `forward` takes them.
            with_occluder: compute the occluder's maps and the boundaries too, not only the masks.
            thresholds: None uses those of the model.
            output_sizes: (H, W) of each image before it was resized to the network's input: detections are given in its
                pixels, and masks are those of its boxes, bit for bit what `inference_masks` gives for them.
        """
        with evaluating(self):
            features, image_sizes = self.features(images)
            detections = self.detect(features, image_sizes, thresholds)
            if output_sizes is not None:
                detections = [d.rescaled(size) for d, size in zip(detections, output_sizes, strict=True)]
            if self.mask_branch is not None:
                detections = self.mask_branch.predict(self._pooled(features), detections, image_sizes, with_occluder)
        return detections

    @torch.no_grad()
    def inference_boxes(self, images: Sequence[Tensor], *, thresholds: Thresholds | None = None) -> list[Detections]:
        """`inference` without the mask branch."""
        with evaluating(self):
            return self.detect(*self.features(images), thresholds)

    @torch.no_grad()
    def inference_masks(
        self, images: Sequence[Tensor], detections: Sequence[Detections], *, with_occluder: bool = False
    ) -> list[Detections]:
        """The mask branch's maps for given detections, one `Detections` per image.

        Args:
            images: as `forward` takes them.
            detections: on the model's device, in pixels of their `image_size`, which may be another than the image's:
                that of the image before it was resized.
            with_occluder: as for `inference`.

        Raises:
            ValueError: the detector has no mask branch.
        """
        if self.mask_branch is None:
            raise ValueError("this detector was built without masks (MODEL.MASK_ON is False)")
        with evaluating(self):
            features, image_sizes = self.features(images)
            return self.mask_branch.predict(self._pooled(features), detections, image_sizes, with_occluder)

    def features(self, images: Sequence[Tensor]) -> tuple[Mapping[str, Tensor], list[tuple[int, int]]]:
        """Normalises, pads (bottom and right, with zeros) and batches images, and runs the backbone."""
        image_sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        divisor = self.size_divisibility
        height = -(-max(h for h, _ in image_sizes) // divisor) * divisor
        width = -(-max(w for _, w in image_sizes) // divisor) * divisor
        batch = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for padded, image, (h, w) in zip(batch, images, image_sizes, strict=True):
            image = image.to(self.device, non_blocking=True)
            padded[:, :h, :w] = (image - self.pixel_mean) / self.pixel_std
        return self.backbone(batch), image_sizes

    def _pooled(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        return [features[name] for name in self.mask_features]

    def detection_losses(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], list[MaskRoIs]]:
        """The detector's losses, and per image the training RoIs of the mask branch."""
        raise NotImplementedError

    def detect(
        self,
        features: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[Detections]:
        """Boxes, scores and classes of each image."""
        raise NotImplementedError
