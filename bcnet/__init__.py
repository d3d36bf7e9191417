"""Occlusion-aware instance segmentation with overlapping bilayers (BCNet) on Faster R-CNN and FCOS.

    model = bcnet.load("model_final.pth")           # weights that bcnet trained, or a config and weights
    found = model("photo.jpg", with_occluder=True, score_threshold=0.5)
    found                                           # in a notebook: the picture
    found.summary(), found.plot(), found.save("found.jpg"), found.to_json(), found.to_dataframe()
    found.boxes, found.masks, found.polygons, found.occluder_masks, found.occlusion.order.depth

The package's parts: `bcnet.prediction`, `bcnet.structures` (results), `bcnet.visualization`, `bcnet.training`,
`bcnet.evaluation`, `bcnet.data`, `bcnet.config`, `bcnet.modeling`, `bcnet.bilayer` (the method). On the command line:
``bcnet --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.config import load_config
    from bcnet.data import load_dataset
    from bcnet.prediction import Predictor, load
    from bcnet.structures import Detections
    from bcnet.visualization import draw_detections, draw_heat_maps, draw_layers

__version__ = "0.1.0"
# Imported at first use: reading a config or the version should not take the time to import torch.
_MODULES = {
    "Detections": "structures",
    "Predictor": "prediction",
    "draw_detections": "visualization",
    "draw_heat_maps": "visualization",
    "draw_layers": "visualization",
    "load": "prediction",
    "load_config": "config",
    "load_dataset": "data",
}
__all__ = [
    "Detections",
    "Predictor",
    "__version__",
    "draw_detections",
    "draw_heat_maps",
    "draw_layers",
    "load",
    "load_config",
    "load_dataset",
]

__getattr__ = lazy_attributes(__name__, _MODULES)


def __dir__() -> list[str]:
    # Without the names that this module is made with.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
