"""Visualization: detections, mask layers, occlusion relations, videos and training data."""

from bcnet.visualization.gallery import Gallery, draw_predictions, draw_training_data
from bcnet.visualization.heat_maps import draw_heat_maps
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections
from bcnet.visualization.training_data import detections_from_targets
from bcnet.visualization.video import draw_video

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
