"""State and pictures of the demo: one prediction of an image, and views of it under any thresholds.

Letters: D detections, H x W image, h x w picture.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from bcnet.data import UnreadableImageError
from bcnet.data.image_source import rgb_image
from bcnet.data.synthetic import SceneConfig, render_scene
from bcnet.export import ExportedPredictor
from bcnet.structures import Detections, SourceImage
from bcnet.visualization import draw_heat_maps
from bcnet.visualization.layers import layer_panels
from bcnet.visualization.order_graph import order_graph_svg
from bcnet.visualization.overlay import picture_size
from bcnet.visualization.sheet import Panel, sheet

if TYPE_CHECKING:
    from bcnet.prediction import Predictor

logger = logging.getLogger(__name__)

PICTURE_SIDE = 900  # longer side of pictures, pixels
LOWEST_SCORE = 0.05  # of what is predicted once; a threshold can only be higher
MEBIBYTE = 2**20


class Shown(NamedTuple):
    """A picture of the page, or a sentence in its place.

    Attributes:
        picture: uint8 [h, w, 3] RGB, or None.
        sentence: why there is no picture; empty if there is one.
    """

    picture: np.ndarray | None
    sentence: str = ""


@dataclass(frozen=True)
class Analysis:
    """What a model found in an image, all of it: predicted once, then looked at under any thresholds.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        name: of the image's file, without folders.
        detections: of at least `LOWEST_SCORE`, with all maps and relations, by descending score.
    """

    image: np.ndarray
    name: str
    detections: Detections

    def view(self, score_threshold: float, mask_threshold: float = 0.5) -> View:
        """What `Predictor.predict` would give with these thresholds, without predicting again.

        Raises:
            ValueError: a threshold outside 0..1.
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"the score threshold must lie in 0..1, got {score_threshold}")
        kept = self.detections[self.detections.scores >= score_threshold]
        return View(self, replace(kept, mask_threshold=mask_threshold))


@dataclass(frozen=True)
class View:
    """An analysis under thresholds, and what the page shows of it.

    Attributes:
        analysis: the prediction.
        detections: the first ones of its detections, so that positions mean the same in every view.
    """

    analysis: Analysis
    detections: Detections

    @functools.cached_property
    def _panels(self) -> dict[str, Panel]:
        return layer_panels(self.analysis.image, self.detections, long_side=PICTURE_SIDE, numbered=True)

    @property
    def picture(self) -> np.ndarray:
        """The image with visible parts filled, hidden parts hatched, boxes and labels: uint8 [h, w, 3] RGB."""
        return cast(np.ndarray, self._panels["detections"].picture)

    def panel(self, name: str) -> Shown:
        """A panel of `bcnet.visualization.layers.layer_panels` with its title and legend; a sentence without one."""
        panel = self._panels.get(name)
        if panel is None:
            return Shown(None, f"This model has no {name} layer.")
        if panel.picture is None:
            return Shown(None, f"{panel.title}: {panel.explanation}")
        return Shown(sheet([panel], columns=1))

    def heat_maps(self, position: int | None) -> Shown:
        """Heat maps of one detection: every map of its RoI."""
        if position is None or position >= len(self.detections):
            return Shown(None, "Click an object in the picture to see its heat maps.")
        (picture,) = draw_heat_maps(self.analysis.image, self.detections, cell=180, positions=[position])
        return Shown(picture)

    def order_graph(self, selected: int | None = None) -> str:
        """The depth order as an SVG graph."""
        return order_graph_svg(self.detections, selected=selected)

    def summary(self) -> str:
        """The detections in words."""
        return self.detections.summary()

    def to_json(self) -> str:
        """`Detections.to_json`, with the name of the image's file."""
        return self.detections.to_json(indent=1) + "\n"

    def position_at(self, x: float, y: float) -> int | None:
        """The detection at a pixel of `picture`, or None.

        Of the visible masks there the smallest one counts, which is drawn on top; without one the smallest hidden part,
        then the smallest box.
        """
        image_height, image_width = self.detections.image_size
        height, width = picture_size((image_height, image_width), PICTURE_SIDE)
        column = min(max(int(x * image_width / width), 0), image_width - 1)
        row = min(max(int(y * image_height / height), 0), image_height - 1)
        found = self.detections
        layers = [found.masks] if found.occludee_mask is not None else []
        layers += [found.hidden_masks] if found.has_hidden_parts else []
        for masks in layers:
            if (hit := masks[:, row, column]).any():
                areas = masks.sum(dim=(1, 2)).float()
                return int(areas.where(hit, areas.new_tensor(float("inf"))).argmin())
        x0, y0, x1, y1 = found.boxes.unbind(dim=1)
        hit = (x0 <= column + 0.5) & (column + 0.5 < x1) & (y0 <= row + 0.5) & (row + 0.5 < y1)
        areas = ((x1 - x0) * (y1 - y0)).where(hit, x0.new_tensor(float("inf")))
        return int(areas.argmin()) if hit.any() else None


def analyse(model: Predictor | ExportedPredictor, image: np.ndarray, name: str = "") -> Analysis:
    """Predicts an image, with all layers.

    Args:
        model: a detector; an exported one opened for tensors, as `bcnet.load` does.
        image: uint8 [H, W, 3], RGB.
        name: of its file.
    """
    found = model(image, format="RGB", with_occluder=True, score_threshold=LOWEST_SCORE)
    logger.info("predicted %s: %s", name or "an image", found)
    return Analysis(image, name, replace(found, source=SourceImage(lambda: image, name or None)))


def read_upload(path: str, *, max_bytes: int, max_pixels: int) -> np.ndarray:
    """The pixels of an uploaded file: uint8 [H, W, 3], RGB.

    Args:
        path: the file on this machine.
        max_bytes: a larger file is refused unread.
        max_pixels: an image of more pixels is refused before it is decoded; 0 is no limit.

    Raises:
        ValueError: a file that is too large, or no image that can be read; the message is for whoever uploaded it, and
            names the file without its folders.
    """
    name, size = os.path.basename(path), os.path.getsize(path)
    if size > max_bytes:
        raise ValueError(
            f"{name} has {size / MEBIBYTE:.1f} MiB; at most {max_bytes / MEBIBYTE:.3g} MiB are accepted (--max-size)"
        )
    try:
        return rgb_image(path, "RGB", max_pixels=max_pixels)
    except UnreadableImageError as error:
        raise ValueError(str(error).replace(path, name)) from error


def example_images(count: int = 3, *, size: int = 320) -> list[np.ndarray]:
    """Rendered scenes of overlapping shapes, the same ones each time: uint8 [size, size, 3] RGB."""
    config = SceneConfig.preset("easy", image_size=size)
    return [render_scene(config, seed=0, index=index, split="demo").image for index in range(count)]


def check_model(model: Predictor | ExportedPredictor) -> None:
    """Raises ValueError for a model that cannot be shown: it finds nothing itself, or has no masks or layers."""
    if not model.detects:
        raise ValueError("the demo needs a detector; this model takes boxes, and finds none itself: see bcnet segment")
    if not (model.info.maps if isinstance(model, ExportedPredictor) else model.mask_branch):
        raise ValueError("the demo needs a model with masks; this detector has MODEL.MASK_ON False")
    model.predict([], "RGB", with_occluder=True)  # refused of an exported file that has masks alone


def read_examples(paths: Sequence[str], *, max_pixels: int) -> list[tuple[np.ndarray, str]]:
    """Example images of one's own, with their names.

    Raises:
        UnreadableImageError: one of them is no image.
    """
    return [(rgb_image(path, "RGB", max_pixels=max_pixels), os.path.basename(path)) for path in paths]
