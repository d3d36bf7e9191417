"""Visualization: detections, mask layers, occlusion relations, videos and training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.visualization.gallery import Gallery, draw_predictions, draw_training_data
    from bcnet.visualization.heat_maps import draw_heat_maps
    from bcnet.visualization.layers import draw_layers
    from bcnet.visualization.overlay import draw_detections
    from bcnet.visualization.training_data import detections_from_targets
    from bcnet.visualization.video import draw_video

# The report of a data check needs no torch, which everything below does.
_MODULES = {
    "Gallery": "gallery",
    "detections_from_targets": "training_data",
    "draw_detections": "overlay",
    "draw_heat_maps": "heat_maps",
    "draw_layers": "layers",
    "draw_predictions": "gallery",
    "draw_training_data": "gallery",
    "draw_video": "video",
}
__all__ = [
    "Gallery",
    "detections_from_targets",
    "draw_detections",
    "draw_heat_maps",
    "draw_layers",
    "draw_predictions",
    "draw_training_data",
    "draw_video",
]

__getattr__ = lazy_attributes(__name__, _MODULES)
