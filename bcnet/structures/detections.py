"""Detections of one image: boxes, scores, classes, mask maps and occlusion relations, and export to other formats.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bcnet.maps import PUBLISHED_MAPS, MapSpec
from bcnet.ops.paste import paste_masks, paste_windows
from bcnet.ops.rle import RLE, encode_window, rle_to_json
from bcnet.structures.occlusion_graph import OcclusionGraph

REPORTED_CONFIDENCE = 0.05  # lowest confidence of an occlusion in files


@dataclass(eq=False)
class Detections:
    """Detections of one image, sorted by descending score: a sequence of D detections.

    The maps of the mask head are stored in the RoI frame, M x M probabilities that span each box; `masks` and
    the like paste them into the image on access.

    ``len``, iteration, slices, integers (also negative), and arrays of bool or integers work as in numpy; a single
    detection is a `Detections` of length 1. Two are equal if all their values are equal.

    Attributes:
        image_size: (H, W) of the image whose pixels the boxes are in.
        boxes: float32 [D, 4], xyxy in absolute pixels.
        scores: float32 [D], 0..1.
        classes: int64 [D], 0..K-1.
        maps: float32 [D, M, M] by map name, probabilities: "occludee_mask", and if inference computed all maps
            "occludee_boundary", "occluder_mask", "occluder_boundary" and further maps of the head. Empty for a
            detector without masks.
        occluded_by: float32 [D, D] or None: at [i, j] the confidence that j occludes i, 0..1
            (`bcnet.occlusion.with_relations` fills it); see `occlusion`.
        class_names: names of the K classes; empty if unknown.
        mask_threshold: minimum probability for a pixel to count as mask or boundary, 0..1, when maps are pasted or
            encoded.
        specs: records of the maps (`bcnet.maps`), in the order in which they are drawn and written.
    """

    image_size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    occluded_by: Tensor | None = None
    class_names: Sequence[str] = field(default=(), repr=False)
    mask_threshold: float = 0.5
    specs: tuple[MapSpec, ...] = field(default=PUBLISHED_MAPS, repr=False)

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be [D, 4], got {tuple(self.boxes.shape)}")
        for name in ("scores", "classes"):
            value = getattr(self, name)
            if value.shape != (count,):
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
        if self.class_names and count and int(self.classes.max()) >= len(self.class_names):
            raise ValueError(f"class {int(self.classes.max())} has no name: {len(self.class_names)} names were given")

    # -- Maps --------------------------------------------------------------------------------------

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

    def pasted(self, name: str) -> Tensor:
        """A map in the image, by its name: bool [D, H, W].

        Raises:
            ValueError: the map is absent.
        """
        return paste_masks(self._map(name), self.boxes, self.image_size, self.mask_threshold)

    def mask_rles(self, name: str = "occludee_mask") -> list[RLE]:
        """One map per detection, pasted at `mask_threshold` and encoded from its box only, as compressed RLE.

        Raises:
            ValueError: the map is absent.
        """
        maps = self._map(name)
        return [
            encode_window((values >= self.mask_threshold).cpu().numpy(), window.x0, window.y0, self.image_size)
            for window, values in paste_windows(maps.cpu(), self.boxes.cpu(), self.image_size)
        ]

    def _map(self, name: str) -> Tensor:
        if name not in self.maps:
            raise ValueError(f"these detections have no {name}; present are: {_listed(self.maps)}")
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
            and tuple(self.class_names) == tuple(other.class_names)
            and mine.keys() == theirs.keys()
            and all(torch.equal(value, theirs[name]) for name, value in mine.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def _tensors(self) -> dict[str, Tensor]:
        named = {"boxes": self.boxes, "scores": self.scores, "classes": self.classes, **self.maps}
        return named if self.occluded_by is None else {**named, "occluded_by": self.occluded_by}

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Detections:
        return replace(
            self,
            boxes=function(self.boxes),
            scores=function(self.scores),
            classes=function(self.classes),
            maps={name: function(value) for name, value in self.maps.items()},
            occluded_by=None if self.occluded_by is None else function(self.occluded_by),
        )

    # -- Modified copies ----------------------------------------------------------------------------

    def to(self, device) -> Detections:
        return self._map_tensors(lambda value: value.to(device))

    def with_maps(self, **maps: Tensor) -> Detections:
        """A copy with maps replaced or added, by map name."""
        return replace(self, maps={**self.maps, **maps})

    def rescaled(self, image_size: tuple[int, int]) -> Detections:
        """A copy for an image of another size: boxes are scaled and clipped, and empty ones dropped."""
        height, width = image_size
        scale_y, scale_x = height / self.image_size[0], width / self.image_size[1]
        boxes = self.boxes * self.boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        limits = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(self, image_size=(height, width), boxes=boxes)[kept]

    # -- Export to other formats -----------------------------------------------------------------------------

    def to_coco(
        self, image_id: int | str, category_ids: Sequence[int], *, names: Sequence[str] = ("occludee_mask",)
    ) -> list[dict]:
        """COCO results: one dict per detection with the data set's own ids, boxes as xywh, masks as RLE text.

        Detections with relations have three more keys, which COCO's tools ignore: ``number``, the position in
        the image, ``occluded_by``, a list of [number of the occluder, confidence] by descending confidence, of at
        least 0.05 (an edge of `OcclusionGraph` has at least 0.3), and ``depth``, rank in the depth order, 0 nearest.

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's category id of each class 0..K-1.
            names: the maps to write, each under its `MapSpec.coco_key`; absent ones are skipped.
        """
        rles = {spec.coco_key: self.mask_rles(spec.name) for spec in self.present if spec.name in names}
        relations = self._coco_relations() if self.occluded_by is not None else [{}] * len(self)
        results = []
        for index, ((x0, y0, x1, y1), score, label) in enumerate(
            zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), strict=True)
        ):
            results.append(
                {
                    "image_id": _plain(image_id),
                    "category_id": _plain(category_ids[label]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                    **{key: rle_to_json(values[index]) for key, values in rles.items()},
                    **relations[index],
                }
            )
        return results

    def to_detectron2(self):
        """detectron2's `Instances`, as its models return them.

        Returns:
            detectron2.structures.Instances: ``pred_boxes``, ``scores``, ``pred_classes``, and of the maps that are
            present ``pred_masks``, ``pred_boundaries``, ``pred_occluder_masks`` and ``pred_occluder_boundaries``
            (`MapSpec.detectron2_field`), bool [D, H, W].

        Raises:
            ImportError: detectron2 is not installed.
        """
        from bcnet.detectron2.convert import detections_to_instances

        return detections_to_instances(self)

    def to_supervision(self):
        """supervision's `Detections`, for its annotators, trackers and filters.

        Returns:
            supervision.Detections: ``xyxy`` float32 [D, 4], ``confidence`` [D], ``class_id`` [D] and, where there are
            masks, ``mask`` bool [D, H, W]. In ``data``: "class_name" where names are known, and of the other maps that
            are present "boundary", "occluder_mask" and "occluder_boundary" (`MapSpec.short_name`), bool [D, H, W].

        Raises:
            ImportError: supervision is not installed.
        """
        from bcnet.structures.supervision import detections_to_supervision

        return detections_to_supervision(self)

    def _coco_relations(self) -> list[dict]:
        graph = self.occlusion
        occluders: list[list] = [[] for _ in range(len(self))]
        for edge in OcclusionGraph(graph.confidence, REPORTED_CONFIDENCE).edges:
            occluders[edge.occludee].append([edge.occluder, round(edge.confidence, 4)])
        return [
            {"number": number, "occluded_by": occluded_by, "depth": depth}
            for number, (occluded_by, depth) in enumerate(zip(occluders, graph.order.depth.tolist(), strict=True))
        ]


def _plain(value):
    """Converts a numpy or torch scalar to a Python number, for JSON."""
    return value.item() if isinstance(value, (np.generic, Tensor)) else value


def _listed(names) -> str:
    return ", ".join(names) or "none"
