"""Detections of one image: boxes, scores, classes, mask maps and occlusion relations, and export to other formats.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bcnet.maps import BUILT_IN_MAPS, OCCLUDEE_AMODAL, MapSpec, absent_map
from bcnet.ops.boxes import scaled_boxes
from bcnet.ops.paste import paste_masks, paste_windows
from bcnet.ops.rle import RLE, encode_window
from bcnet.structures.hidden_track import HiddenTrack
from bcnet.structures.occlusion_graph import OcclusionGraph
from bcnet.structures.output import DetectionsOutput
from bcnet.structures.source_image import SourceImage
from bcnet.words import class_name


@dataclass(eq=False, repr=False)
class Detections(DetectionsOutput):
    """Detections of one image, sorted by descending score: a sequence of D detections.

    The maps of the mask head are stored in the RoI frame, M x M probabilities that span each RoI (`map_boxes`: the box,
    unless the mask branch scales it); `masks` and the like paste them into the image on access.

    ``len``, iteration, slices, integers (also negative), and arrays of bool or integers work as in numpy; a single
    detection is a `Detections` of length 1. Two are equal if all their values are equal.

    Attributes:
        image_size: (H, W) of the image whose pixels the boxes are in.
        boxes: float32 [D, 4], xyxy in absolute pixels.
        scores: float32 [D], 0..1.
        classes: int64 [D], 0..K-1.
        maps: float32 [D, M, M] by map name, probabilities: "occludee_mask", and if inference computed all maps
            "occludee_boundary", "occluder_mask", "occluder_boundary" and further maps of the head; "occludee_amodal" of
            a model trained for it (MODEL.BILAYER.AMODAL). Empty for a detector without masks.
        occluded_by: float32 [D, D] or None: at [i, j] the confidence that j occludes i, 0..1
            (`bcnet.occlusion.with_relations` fills it); see `occlusion`.
        class_names: names of the K classes; empty if unknown.
        mask_threshold: minimum probability for a pixel to count as mask or boundary, 0..1, when maps are pasted or
            encoded.
        specs: records of the maps (`bcnet.maps`), in the order in which they are drawn and written.
        roi_scale: side of the RoIs that the maps span, relative to the boxes' (MODEL.ROI_MASK_HEAD.ROI_SCALE).
        track_ids: int64 [D] or None: numbers that stay with an instance in the frames of a video.
        hidden_tracks: the tracks of the video that have no detection in this frame because others cover them.
        source: the image that was predicted, and its file; None if it is not known. Equality disregards it.
    """

    image_size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    occluded_by: Tensor | None = None
    class_names: Sequence[str] = field(default=(), repr=False)
    mask_threshold: float = 0.5
    specs: tuple[MapSpec, ...] = field(default_factory=lambda: BUILT_IN_MAPS, repr=False)
    roi_scale: float = 1.0
    track_ids: Tensor | None = None
    hidden_tracks: tuple[HiddenTrack, ...] = ()
    source: SourceImage | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be [D, 4], got {tuple(self.boxes.shape)}")
        for name in ("scores", "classes", "track_ids"):
            value = getattr(self, name)
            if value is not None and value.shape != (count,):
                raise ValueError(f"{name} must be [{count}] like the boxes, got {tuple(value.shape)}")
        self.maps = {spec.name: self.maps[spec.name] for spec in self.specs if spec.name in self.maps} | dict(self.maps)
        for name, value in self.maps.items():
            if name not in (spec.name for spec in self.specs):
                raise ValueError(
                    f"map {name!r} has no record in specs; specs has {_listed(s.name for s in self.specs)}"
                )
            if value.ndim != 3 or len(value) != count or value.shape[1] != value.shape[2]:
                raise ValueError(f"{name} must be [{count}, M, M] like the boxes, got {tuple(value.shape)}")
        if self.occluded_by is not None and self.occluded_by.shape != (count, count):
            raise ValueError(f"occluded_by must be [{count}, {count}], got {tuple(self.occluded_by.shape)}")
        if not 0 <= self.mask_threshold <= 1:
            raise ValueError(f"the mask threshold must lie in 0..1, got {self.mask_threshold}")
        if self.roi_scale <= 0:
            raise ValueError(f"the scale of the RoIs must be above 0, got {self.roi_scale}")
        if self.class_names and count and int(self.classes.max()) >= len(self.class_names):
            raise ValueError(f"class {int(self.classes.max())} has no name: {len(self.class_names)} names were given")

    @property
    def names(self) -> list[str]:
        """The class name of each detection; "class 0" and so on where names are not known."""
        return [class_name(k, self.class_names) for k in self.classes.tolist()]

    # -- Maps --------------------------------------------------------------------------------------

    @property
    def map_boxes(self) -> Tensor:
        """The RoIs that the maps span: float32 [D, 4], xyxy, not clipped to the image."""
        return scaled_boxes(self.boxes, self.roi_scale)

    @property
    def present(self) -> tuple[MapSpec, ...]:
        """Records of the maps that the detections have."""
        return tuple(spec for spec in self.specs if spec.name in self.maps)

    def find(self, layer: str, kind: str) -> MapSpec | None:
        """The record of the present map of a layer and kind; None if there is none."""
        return next((spec for spec in self.present if (spec.layer, spec.kind) == (layer, kind)), None)

    @property
    def occludee_mask(self) -> Tensor | None:
        """Probabilities of the instances' masks in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get("occludee_mask")

    @property
    def occludee_boundary(self) -> Tensor | None:
        """Probabilities of the instances' boundaries in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get("occludee_boundary")

    @property
    def occluder_mask(self) -> Tensor | None:
        """Probabilities of the occluders' masks in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get("occluder_mask")

    @property
    def occluder_boundary(self) -> Tensor | None:
        """Probabilities of the occluders' boundaries in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get("occluder_boundary")

    @property
    def amodal_mask(self) -> Tensor | None:
        """Probabilities of the whole instances, hidden parts included, in the RoI frame: float32 [D, M, M], or None."""
        return self.maps.get(OCCLUDEE_AMODAL.name)

    @property
    def masks(self) -> Tensor:
        """Occludee masks in the image, the instances' masks: bool [D, H, W]."""
        return self.pasted("occludee_mask")

    @property
    def boundaries(self) -> Tensor:
        """Occludee boundaries in the image: bool [D, H, W]."""
        return self.pasted("occludee_boundary")

    @property
    def occluder_masks(self) -> Tensor:
        """Occluder masks in the image, the occluders inside each box: bool [D, H, W]."""
        return self.pasted("occluder_mask")

    @property
    def occluder_boundaries(self) -> Tensor:
        """Occluder boundaries in the image: bool [D, H, W]."""
        return self.pasted("occluder_boundary")

    @property
    def amodal_masks(self) -> Tensor:
        """Amodal masks in the image, the instances with their hidden parts: bool [D, H, W]."""
        return self.pasted(OCCLUDEE_AMODAL.name)

    @property
    def has_hidden_parts(self) -> bool:
        """Whether both visible and amodal masks are here, which `hidden_masks` and `occluded_fraction` are made of."""
        return self.occludee_mask is not None and self.amodal_mask is not None

    @property
    def hidden_masks(self) -> Tensor:
        """Hidden parts of the instances in the image, amodal and not visible: bool [D, H, W]."""
        return self.amodal_masks & ~self.masks

    @property
    def occluded_fraction(self) -> Tensor:
        """Hidden share of each instance: float32 [D], 0..1.

        Hidden over amodal pixels of the maps in the RoI frame, at `mask_threshold`: every pixel of a RoI has the same
        size, so this is the share in the image up to the resampling of edges, and needs no pasting. 0 without amodal
        pixels.

        Raises:
            ValueError: the amodal or the visible mask is absent.
        """
        amodal = self._map(OCCLUDEE_AMODAL.name) >= self.mask_threshold
        hidden = amodal & (self._map("occludee_mask") < self.mask_threshold)
        return hidden.sum(dim=(1, 2)).float() / amodal.sum(dim=(1, 2)).clamp(min=1)

    def pasted(self, name: str) -> Tensor:
        """A map in the image, by its name: bool [D, H, W].

        Raises:
            ValueError: the map is absent.
        """
        return paste_masks(self._map(name), self.map_boxes, self.image_size, self.mask_threshold)

    def mask_rles(self, name: str = "occludee_mask") -> list[RLE]:
        """One map per detection, pasted at `mask_threshold` and encoded from its RoI only, as compressed RLE.

        Raises:
            ValueError: the map is absent.
        """
        maps = self._map(name)
        return [
            encode_window((values >= self.mask_threshold).cpu().numpy(), window.x0, window.y0, self.image_size)
            for window, values in paste_windows(maps.cpu(), self.map_boxes.cpu(), self.image_size)
        ]

    def _map(self, name: str) -> Tensor:
        if name not in self.maps:
            raise absent_map(name, self.maps)
        return self.maps[name]

    @property
    def occlusion(self) -> OcclusionGraph:
        """Occlusion relations: edges between positions of the detections, and the depth order.

        Raises:
            ValueError: the detections have no relations.
        """
        if self.occluded_by is None:
            raise ValueError(
                "these detections have no relations; predict with with_occluder=True, or call "
                "bcnet.occlusion.with_relations"
            )
        return OcclusionGraph(self.occluded_by.cpu().numpy())

    # -- Sequence interface --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detections]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index) -> Detections:
        """A subset: an integer (a `Detections` of length 1), a slice, or a list, array or tensor of bool or integers.

        Raises:
            IndexError: an integer outside -D..D-1.
        """
        if not isinstance(index, slice):
            index = self._positions(index)
        subset = replace(self, occluded_by=None)._map_tensors(lambda value: value[index])
        if self.occluded_by is not None:
            subset.occluded_by = self.occluded_by[index][:, index]
        return subset

    def _positions(self, index) -> Tensor:
        values = index if isinstance(index, Tensor) else torch.from_numpy(np.asarray(index))
        if values.ndim > 0:
            # An empty list has no dtype.
            return values.to(torch.int64) if len(values) == 0 and values.dtype != torch.bool else values
        position = values.item()
        if not isinstance(position, int):
            raise TypeError(f"a detection's index must be an integer, got {position!r}")
        if not -len(self) <= position < len(self):
            raise IndexError(f"detection {position} is out of range: there are {len(self)}")
        return torch.tensor([position % len(self)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        mine, theirs = self._tensors(), other._tensors()
        return (
            tuple(self.image_size) == tuple(other.image_size)
            and self.mask_threshold == other.mask_threshold
            and self.roi_scale == other.roi_scale
            and tuple(self.class_names) == tuple(other.class_names)
            and self.hidden_tracks == other.hidden_tracks
            and mine.keys() == theirs.keys()
            and all(torch.equal(value, theirs[name]) for name, value in mine.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def _tensors(self) -> dict[str, Tensor]:
        named = {"boxes": self.boxes, "scores": self.scores, "classes": self.classes, **self.maps}
        optional = {"occluded_by": self.occluded_by, "track_ids": self.track_ids}
        return named | {name: value for name, value in optional.items() if value is not None}

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Detections:
        return replace(
            self,
            boxes=function(self.boxes),
            scores=function(self.scores),
            classes=function(self.classes),
            maps={name: function(value) for name, value in self.maps.items()},
            occluded_by=None if self.occluded_by is None else function(self.occluded_by),
            track_ids=None if self.track_ids is None else function(self.track_ids),
        )

    # -- Modified copies ----------------------------------------------------------------------------

    def to(self, device) -> Detections:
        return self._map_tensors(lambda value: value.to(device))

    def with_maps(self, **maps: Tensor) -> Detections:
        """A copy with maps replaced or added, by map name."""
        return replace(self, maps={**self.maps, **maps})

    def rescaled(self, image_size: tuple[int, int]) -> Detections:
        """A copy for an image of another size: boxes are scaled and clipped, and empty ones dropped.

        `source` is kept only if the size is the same.
        """
        height, width = image_size
        source = self.source if (height, width) == tuple(self.image_size) else None
        scale_y, scale_x = height / self.image_size[0], width / self.image_size[1]
        boxes = self.boxes * self.boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        limits = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        hidden = tuple(track.rescaled(scale_x, scale_y) for track in self.hidden_tracks)
        return replace(self, image_size=(height, width), boxes=boxes, source=source, hidden_tracks=hidden)[kept]


def _listed(names) -> str:
    return ", ".join(names) or "none"
