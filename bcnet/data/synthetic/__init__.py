"""Synthetic scenes with heavy occlusion and exact ground truth: procedural, or composed of cut-outs.

`generate_dataset` writes them as a COCO data set that any COCO reader can load.
"""

from bcnet.data.synthetic.composition import Scene, SceneObject
from bcnet.data.synthetic.config import SceneConfig
from bcnet.data.synthetic.cutouts import CutoutLibrary, render_cutout_scene
from bcnet.data.synthetic.dataset import generate_dataset, scene_annotations
from bcnet.data.synthetic.scene import render_scene
from bcnet.data.synthetic.shapes import CLASS_NAMES
from bcnet.data.synthetic.statistics import OcclusionStatistics, occlusion_statistics

__all__ = [
    "CLASS_NAMES",
    "CutoutLibrary",
    "OcclusionStatistics",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "generate_dataset",
    "occlusion_statistics",
    "render_cutout_scene",
    "render_scene",
    "scene_annotations",
]
