"""Detections of an exported model in numpy: the result object and its files without torch.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bcnet.export.arrays import hidden_part_confidence, occluder_confidence, paste_windows
from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDEE_MASK, OCCLUDER_MASK, MapSpec, absent_map
from bcnet.ops.rle import RLE, encode_window
from bcnet.structures.occlusion_graph import OcclusionGraph
from bcnet.structures.output import DetectionsOutput
from bcnet.structures.source_image import SourceImage
from bcnet.words import class_name

if TYPE_CHECKING:
    from bcnet.structures import Detections


@dataclass(eq=False, repr=False)
class ArrayDetections(DetectionsOutput):
    """`bcnet.structures.Detections` with numpy arrays in place of tensors.

    Fields, `masks` and the like, the depth order and the writers (`to_coco`, `to_json`, `summary`) are those of
    `Detections`; `to_torch` gives one, for everything else, such as pictures.
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    occluded_by: np.ndarray | None = None
    class_names: Sequence[str] = ()
    mask_threshold: float = 0.5
    specs: tuple[MapSpec, ...] = ()
    roi_scale: float = 1.0
    source: SourceImage | None = None
    track_ids: None = None
    hidden_tracks: tuple[()] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> ArrayDetections:
        """A subset, by a slice or an array of bool or integers."""
        if isinstance(index, (int, np.integer)):
            index = [range(len(self))[index]]
        relations = None if self.occluded_by is None else self.occluded_by[index][:, index]
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            classes=self.classes[index],
            maps={name: values[index] for name, values in self.maps.items()},
            occluded_by=relations,
        )

    @property
    def names(self) -> list[str]:
        """The class name of each detection; "class 0" and so on where names are not known."""
        return [class_name(k, self.class_names) for k in self.classes.tolist()]

    @property
    def map_boxes(self) -> np.ndarray:
        """The RoIs that the maps span: float32 [D, 4], xyxy, not clipped to the image."""
        if self.roi_scale == 1:
            return self.boxes
        margin = (self.boxes[:, 2:] - self.boxes[:, :2]) * np.float32((self.roi_scale - 1) / 2)
        return np.concatenate([self.boxes[:, :2] - margin, self.boxes[:, 2:] + margin], axis=1)

    @property
    def present(self) -> tuple[MapSpec, ...]:
        """Records of the maps that the detections have."""
        return tuple(spec for spec in self.specs if spec.name in self.maps)

    @property
    def occludee_mask(self) -> np.ndarray | None:
        """Probabilities of the instances' masks in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get(OCCLUDEE_MASK.name)

    @property
    def has_hidden_parts(self) -> bool:
        """Whether both visible and amodal masks are here."""
        return OCCLUDEE_AMODAL.name in self.maps and self.occludee_mask is not None

    @property
    def occluded_fraction(self) -> np.ndarray:
        """Hidden share of each instance: float32 [D], 0..1."""
        amodal = self.maps[OCCLUDEE_AMODAL.name] >= self.mask_threshold
        hidden = amodal & (self.maps[OCCLUDEE_MASK.name] < self.mask_threshold)
        counts = np.maximum(amodal.sum(axis=(1, 2)), 1).astype(np.float32)
        return hidden.sum(axis=(1, 2)).astype(np.float32) / counts

    @property
    def masks(self) -> np.ndarray:
        """The instances' masks in the image: bool [D, H, W]."""
        return self.pasted(OCCLUDEE_MASK.name)

    @property
    def occluder_masks(self) -> np.ndarray:
        """Occluder masks in the image: bool [D, H, W]."""
        return self.pasted(OCCLUDER_MASK.name)

    def pasted(self, name: str) -> np.ndarray:
        """A map in the image, by its name: bool [D, H, W].

        Raises:
            ValueError: the map is absent.
        """
        masks = np.zeros((len(self), *self.image_size), bool)
        for mask, ((x0, y0, x1, y1), values) in zip(masks, self._windows(name), strict=True):
            mask[y0:y1, x0:x1] = values >= self.mask_threshold
        return masks

    def mask_rles(self, name: str = OCCLUDEE_MASK.name) -> list[RLE]:
        """One map per detection, pasted at `mask_threshold` and encoded from its RoI only, as compressed RLE.

        Raises:
            ValueError: the map is absent.
        """
        return [
            encode_window(values >= self.mask_threshold, x0, y0, self.image_size)
            for (x0, y0, _, _), values in self._windows(name)
        ]

    def _windows(self, name: str):
        if name not in self.maps:
            raise absent_map(name, self.maps)
        return paste_windows(self.maps[name], self.map_boxes, self.image_size)

    @property
    def occlusion(self) -> OcclusionGraph:
        """Occlusion relations and the depth order.

        Raises:
            ValueError: the detections have no relations.
        """
        if self.occluded_by is None:
            raise ValueError("these detections have no relations; predict with with_occluder=True")
        return OcclusionGraph(self.occluded_by)

    def with_relations(self) -> ArrayDetections:
        """As `bcnet.occlusion.with_relations`: with amodal masks the mean of both estimates."""
        visible, occluder, amodal = map(self.maps.get, (OCCLUDEE_MASK.name, OCCLUDER_MASK.name, OCCLUDEE_AMODAL.name))
        if occluder is None or visible is None:
            return self
        confidence = occluder_confidence(visible, occluder, self.map_boxes, self.image_size)
        if amodal is not None:
            hidden = hidden_part_confidence(visible, amodal, self.map_boxes, self.image_size)
            confidence = (confidence + hidden) / 2
        return replace(self, occluded_by=confidence)

    def rescaled(self, image_size: tuple[int, int]) -> ArrayDetections:
        """A copy for an image of another size: boxes are scaled and clipped, and empty ones dropped."""
        height, width = image_size
        scale_y, scale_x = height / self.image_size[0], width / self.image_size[1]
        boxes = self.boxes * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        boxes = np.minimum(np.maximum(boxes, 0), np.array([width, height, width, height], np.float32))
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(self, image_size=(height, width), boxes=boxes)[kept]

    def to_torch(self) -> Detections:
        """The same as `bcnet.structures.Detections`.

        Raises:
            ImportError: torch is not installed.
        """
        import torch

        from bcnet.structures import Detections

        relations = None if self.occluded_by is None else torch.from_numpy(self.occluded_by)
        return Detections(
            self.image_size,
            torch.from_numpy(self.boxes),
            torch.from_numpy(self.scores),
            torch.from_numpy(self.classes),
            maps={name: torch.from_numpy(values) for name, values in self.maps.items()},
            occluded_by=relations,
            class_names=self.class_names,
            mask_threshold=self.mask_threshold,
            specs=self.specs,
            roi_scale=self.roi_scale,
            source=self.source,
        )
