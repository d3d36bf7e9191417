"""Export of `Detections` to COCO results, JSON, tables and polygons.

Letters: D detections, P points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pycocotools.mask as coco_mask

from bcnet.maps import OCCLUDEE_AMODAL, OCCLUDEE_MASK
from bcnet.ops.outline import rle_to_polygons
from bcnet.ops.rle import rle_to_json
from bcnet.structures.occlusion_graph import OcclusionGraph

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]

    from bcnet.structures.detections import Detections

REPORTED_CONFIDENCE = 0.05  # lowest confidence of an occlusion in files
_OUTLINES = (("polygons", OCCLUDEE_MASK.name), ("amodal_polygons", OCCLUDEE_AMODAL.name))  # in JSON


def detections_to_coco(
    detections: Detections, image_id: int | str, category_ids: Sequence[int] | None, names: Sequence[str]
) -> list[dict]:
    """See `Detections.to_coco`."""
    highest = int(detections.classes.max()) if len(detections) else -1
    if category_ids is not None and highest >= len(category_ids):
        raise ValueError(f"there is a detection of class {highest}, but category_ids has {len(category_ids)} ids")
    rles = {spec.coco_key: detections.mask_rles(spec.name) for spec in detections.present if spec.name in names}
    optional = [_relations(detections), _tracks(detections)]
    if OCCLUDEE_AMODAL.name in names:
        optional.append(_fractions(detections))
    results = []
    for index, ((x0, y0, x1, y1), score, label) in enumerate(
        zip(detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True)
    ):
        result = {
            "image_id": _plain(image_id),
            "category_id": label + 1 if category_ids is None else _plain(category_ids[label]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            **{key: rle_to_json(values[index]) for key, values in rles.items()},
        }
        for entries in optional:
            result |= entries[index]
        results.append(result)
    return results


def hidden_tracks_to_coco(detections: Detections) -> list[dict]:
    """The tracks that are hidden in a frame, as JSON values: ``track_id``, ``behind``, ``category_id`` (1..K), ``bbox``
    (xywh, where the whole instance is expected) and ``frames`` since it was last detected.
    """
    return [
        {
            "track_id": track.track_id,
            "behind": track.behind,
            "category_id": track.label + 1,
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "frames": track.frames,
        }
        for track in detections.hidden_tracks
        for x0, y0, x1, y1 in (track.box,)
    ]


def detections_to_json(detections: Detections, indent: int | None) -> str:
    """See `Detections.to_json`."""
    height, width = detections.image_size
    outlines = {key: detections_to_polygons(detections, name) for key, name in _OUTLINES if name in detections.maps}
    rows = _rows(detections)
    for index, row in enumerate(rows):
        row["box"] = [round(row.pop(key), 2) for key in ("x0", "y0", "x1", "y1")]
        row["score"] = round(row["score"], 4)
        row |= {key: [polygon.tolist() for polygon in polygons[index]] for key, polygons in outlines.items()}
    content: dict[str, Any] = {"image": detections.path, "width": width, "height": height, "detections": rows}
    if detections.hidden_tracks:
        content["hidden_tracks"] = hidden_tracks_to_coco(detections)
    return json.dumps(content, indent=indent)


def detections_to_dataframe(detections: Detections) -> pandas.DataFrame:
    """See `Detections.to_dataframe`."""
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("to_dataframe needs the package pandas: pip install pandas") from error
    # Without detections the columns are the same ones.
    return pandas.DataFrame(_rows(detections), columns=list(_columns(detections)))


def detections_to_polygons(detections: Detections, name: str = OCCLUDEE_MASK.name) -> list[list[np.ndarray]]:
    """`Detections.polygons` of a map."""
    return [
        [np.asarray(polygon, dtype=np.float32).reshape(-1, 2) for polygon in rle_to_polygons(rle)]
        for rle in detections.mask_rles(name)
    ]


def _rows(detections: Detections) -> list[dict[str, Any]]:
    """One flat record for each detection, with the same keys in each."""
    columns = _columns(detections)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _columns(detections: Detections) -> dict[str, list]:
    boxes = detections.boxes.reshape(-1, 4).T.tolist()
    columns: dict[str, list] = {
        "number": list(range(len(detections))),
        "class": detections.classes.tolist(),
        "name": detections.names,
        "score": detections.scores.tolist(),
        **dict(zip(("x0", "y0", "x1", "y1"), boxes, strict=True)),
    }
    if detections.occludee_mask is not None:
        columns["area"] = [int(coco_mask.area(rle)) for rle in detections.mask_rles()]
    for entries in (_tracks(detections), _fractions(detections), _relations(detections)):
        for key in entries.keys:
            if key not in columns:
                columns[key] = [entry[key] for entry in entries]
    return columns


class _Entries(list[dict]):
    """Further keys of each detection; `keys` are known without detections too."""

    def __init__(self, keys: Sequence[str], entries: Sequence[dict]) -> None:
        super().__init__(entries)
        self.keys = tuple(keys)


def _absent(detections: Detections) -> _Entries:
    return _Entries((), [{}] * len(detections))


def _tracks(detections: Detections) -> _Entries:
    if detections.track_ids is None:
        return _absent(detections)
    return _Entries(("track_id",), [{"track_id": number} for number in detections.track_ids.tolist()])


def _fractions(detections: Detections) -> _Entries:
    if not detections.has_hidden_parts:
        return _absent(detections)
    fractions = detections.occluded_fraction.tolist()
    return _Entries(("occluded_fraction",), [{"occluded_fraction": round(fraction, 4)} for fraction in fractions])


def _relations(detections: Detections) -> _Entries:
    if detections.occluded_by is None:
        return _absent(detections)
    graph = detections.occlusion
    occluders: list[list] = [[] for _ in range(len(detections))]
    for edge in OcclusionGraph(graph.confidence, REPORTED_CONFIDENCE).edges:
        occluders[edge.occludee].append([edge.occluder, round(edge.confidence, 4)])
    return _Entries(
        ("number", "occluded_by", "depth"),
        [
            {"number": number, "occluded_by": occluded_by, "depth": depth}
            for number, (occluded_by, depth) in enumerate(zip(occluders, graph.order.depth.tolist(), strict=True))
        ],
    )


def _plain(value):
    """Converts a numpy or torch scalar to a Python number, for JSON."""
    return value.item() if hasattr(value, "item") else value
