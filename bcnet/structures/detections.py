"""The result of inference for one image.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from bcnet.ops.paste import paste_masks, paste_windows
from bcnet.ops.rle import encode_window
from bcnet.structures.occlusion_graph import OcclusionGraph

REPORTED_CONFIDENCE = 0.05  # of who lies on top, in files
MAP_NAMES = ("occludee_mask", "occludee_boundary", "occluder_mask", "occluder_boundary")


@dataclass
class Detections:
    """Detections of one image, sorted by falling score.

    The maps of both layers are kept in the RoI frame, M x M probabilities that span each box; `masks` and
    its three siblings paste them into the image when they are asked for.

    Attributes:
        image_size: (H, W) of the image whose pixels the boxes are in.
        boxes: float32 [D, 4], xyxy in absolute pixels.
        scores: float32 [D], 0..1.
        classes: int64 [D], 0..K-1.
        occludee_mask: float32 [D, M, M] or None (a detector without masks).
        occludee_boundary, occluder_mask, occluder_boundary: float32 [D, M, M], or None where the head has
            no such branch or inference was asked for masks only.
        occluded_by: float32 [D, D] or None: at [i, j] how sure it is that j lies on top of i, 0..1
            (`bcnet.occlusion.with_relations` fills it); see `occlusion`.
        class_names: names of the K classes; empty where they are not known.
        mask_threshold: probability from which on a pixel belongs to a mask or boundary, 0..1; for whatever is
            pasted or encoded.
    """

    image_size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    occludee_mask: Tensor | None = None
    occludee_boundary: Tensor | None = None
    occluder_mask: Tensor | None = None
    occluder_boundary: Tensor | None = None
    occluded_by: Tensor | None = None
    class_names: Sequence[str] = field(default=(), repr=False)
    mask_threshold: float = 0.5

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be [D, 4], got {tuple(self.boxes.shape)}")
        for name in ("scores", "classes"):
            value = getattr(self, name)
            if value.shape != (count,):
                raise ValueError(f"{name} must be [{count}] like the boxes, got {tuple(value.shape)}")
        for name, value in self.maps().items():
            if value.ndim != 3 or len(value) != count or value.shape[1] != value.shape[2]:
                raise ValueError(f"{name} must be [{count}, M, M] like the boxes, got {tuple(value.shape)}")
        if self.occluded_by is not None and self.occluded_by.shape != (count, count):
            raise ValueError(f"occluded_by must be [{count}, {count}], got {tuple(self.occluded_by.shape)}")
        if not 0 <= self.mask_threshold <= 1:
            raise ValueError(f"the mask threshold must lie in 0..1, got {self.mask_threshold}")
        if self.class_names and count and int(self.classes.max()) >= len(self.class_names):
            raise ValueError(f"class {int(self.classes.max())} has no name: {len(self.class_names)} names were given")

    def maps(self) -> dict[str, Tensor]:
        """The RoI-frame maps that are present, by name."""
        return {name: getattr(self, name) for name in MAP_NAMES if getattr(self, name) is not None}

    @property
    def occlusion(self) -> OcclusionGraph:
        """Who hides whom: edges between positions of the detections, and the order of depth.

        Raises:
            ValueError: the detections carry no relations.
        """
        if self.occluded_by is None:
            raise ValueError(
                "these detections carry no relations; predict with with_occluder=True, or call "
                "bcnet.occlusion.with_relations"
            )
        return OcclusionGraph(self.occluded_by.cpu().numpy())

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
        """Occluder masks in the image, what lies on top inside each box: bool [D, H, W]."""
        return self.pasted("occluder_mask")

    @property
    def occluder_boundaries(self) -> Tensor:
        """Occluder boundaries in the image: bool [D, H, W]."""
        return self.pasted("occluder_boundary")

    def pasted(self, name: str) -> Tensor:
        """A map in the image, by the name that `maps` gives it: bool [D, H, W].

        Raises:
            ValueError: the map is absent.
        """
        return paste_masks(self._present(name), self.boxes, self.image_size, self.mask_threshold)

    def mask_rles(self, name: str = "occludee_mask") -> list[dict]:
        """One map per detection, pasted at `mask_threshold` and encoded from its box alone, as compressed RLE.

        Raises:
            ValueError: the map is absent.
        """
        maps = self._present(name)
        return [
            encode_window((values >= self.mask_threshold).cpu().numpy(), window.x0, window.y0, self.image_size)
            for window, values in paste_windows(maps.cpu(), self.boxes.cpu(), self.image_size)
        ]

    def _present(self, name: str) -> Tensor:
        maps = getattr(self, name)
        if maps is None:
            raise ValueError(f"these detections carry no {name}; present are: {', '.join(self.maps()) or 'none'}")
        return maps

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index) -> Detections:
        """A subset: a bool or int64 tensor, or a slice (one detection is ``detections[i : i + 1]``)."""
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        subset = replace(self, occluded_by=None)._map_tensors(lambda value: value[index])
        if self.occluded_by is not None:
            subset.occluded_by = self.occluded_by[index][:, index]
        return subset

    def to(self, device) -> Detections:
        return self._map_tensors(lambda value: value.to(device))

    def _map_tensors(self, function) -> Detections:
        changed = {
            f.name: function(getattr(self, f.name)) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)

    def rescaled(self, image_size: tuple[int, int]) -> Detections:
        """The detections in an image of another size: boxes scaled and clipped, empty ones dropped."""
        height, width = image_size
        scale_y, scale_x = height / self.image_size[0], width / self.image_size[1]
        boxes = self.boxes * self.boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        limits = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(self, image_size=(height, width), boxes=boxes)[kept]

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """COCO results: one dict per detection with the data set's own ids, boxes as xywh, masks as RLE text.

        Detections with relations have three keys more, which COCO's tools pass over: ``number``, the position in
        the image, ``occluded_by``, a list of [number of the occluder, confidence] by falling confidence from 0.05 on
        (`OcclusionGraph` has edges from 0.3 on), and ``depth``, the place in the order of depth, 0 nearest.

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's category id of each class 0..K-1.
        """
        rles = self.mask_rles() if self.occludee_mask is not None else [None] * len(self)
        related = self._coco_relations() if self.occluded_by is not None else [{}] * len(self)
        results = []
        for box, score, label, rle, relations in zip(
            self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), rles, related, strict=True
        ):
            x0, y0, x1, y1 = box
            result = {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            if rle is not None:
                result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            results.append(result | relations)
        return results

    def to_detectron2(self):
        """detectron2's `Instances`, as its models return them.

        Returns:
            detectron2.structures.Instances: ``pred_boxes``, ``scores``, ``pred_classes``, and of the maps that are
            present ``pred_masks``, ``pred_boundaries``, ``pred_occluder_masks`` and ``pred_occluder_boundaries``,
            bool [D, H, W].

        Raises:
            ImportError: detectron2 is not installed.
        """
        from bcnet.detectron2.convert import detections_to_instances

        return detections_to_instances(self)

    def to_supervision(self):
        """supervision's `Detections`, for its annotators, trackers and filters.

        Returns:
            supervision.Detections: ``xyxy`` float32 [D, 4], ``confidence`` [D], ``class_id`` [D] and, where there are
            masks, ``mask`` bool [D, H, W]. In ``data``: "class_name" where names are known, and of the maps that are
            present "boundary", "occluder_mask" and "occluder_boundary", bool [D, H, W].

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
