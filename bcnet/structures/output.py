"""What `Detections` give to people and other tools: words, pictures, COCO results, JSON, tables, other objects.

Letters: D detections, H x W image, P points.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bcnet import hints
from bcnet.files import atomic_write, write_text
from bcnet.hints import AttributeHints
from bcnet.maps import RESULT_MAPS
from bcnet.structures import export, words
from bcnet.structures.source_image import SourceImage

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    from PIL import Image
    from torch import Tensor

    from bcnet.structures.detections import Detections

NOTEBOOK_SIDE = 1000  # longest side of the image that a notebook shows, pixels
QUALITY = {".jpg": {"quality": 92}, ".jpeg": {"quality": 92}, ".webp": {"quality": 92}}


class DetectionsOutput(AttributeHints):
    """Base of `Detections`: its output. The fields are those of `Detections`."""

    attribute_hints = hints.DETECTIONS

    source: SourceImage | None
    image_size: tuple[int, int]
    maps: Mapping[str, Tensor] | Mapping[str, np.ndarray]

    @property
    def _detections(self) -> Detections:
        return cast("Detections", self)

    # -- The image ---------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """File or URL of the image; None if it came as an array, or is not known."""
        return self.source.path if self.source else None

    @property
    def image(self) -> np.ndarray:
        """The image that was predicted: uint8 [H, W, 3], RGB, whatever it came as. A file is read again.

        Raises:
            ValueError: the image is not known, or cannot be read any more.
        """
        if self.source is None:
            raise ValueError(
                "these detections do not know their image (they were not made by predict, or were rescaled); give it: "
                "plot(image=...)"
            )
        return self.source.read()

    # -- Words -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return words.short_representation(self._detections)

    def summary(self) -> str:
        """The detections in words: how many of which class, who is in front of whom, how much of each is hidden.

        Instances are numbered from 1, as in pictures.
        """
        return words.summary(self._detections)

    # -- Pictures ----------------------------------------------------------------------------------

    def plot(self, *, layers: bool = False, image: Any = None, format: str = "BGR", **options: Any) -> Image.Image:
        """Draws the detections into their image.

        Small images are enlarged, so that the labels are legible.

        Args:
            layers: the sheet of panels with both layers and the depth order (`bcnet.visualization.draw_layers`)
                instead of the image with masks, boxes and labels (`bcnet.visualization.draw_detections`).
            image: of any kind that `Predictor.predict` takes; None is the image that was predicted.
            format: channel order of `image` as an array or tensor, "BGR" or "RGB".
            options: of `draw_layers` or `draw_detections`, e.g. ``boxes=False``, ``labels=False``,
                ``relations=True``, ``long_side=1600``.

        Returns:
            PIL.Image.Image: RGB. ``np.asarray`` makes an array of it; notebooks show it.

        Raises:
            ValueError: the image is not known, cannot be read, or has another size.
        """
        from bcnet.visualization.plot import plot_detections

        return plot_detections(self._detections, layers=layers, image=image, format=format, **options)

    def save(self, path: str | os.PathLike, **options: Any) -> None:
        """Writes the picture that `plot` draws, or with the suffix ``.json`` what `to_json` gives.

        Args:
            path: file to write; its suffix is the format, such as ``.jpg`` or ``.png``.
            options: of `plot`.

        Raises:
            ValueError: as `plot`; a suffix that is no image format.
            OSError: the file cannot be written.
        """
        suffix = os.path.splitext(path)[1].lower()
        if suffix == ".json":
            write_text(self.to_json(indent=1) + "\n", path)
            return
        from PIL import Image

        if suffix not in Image.registered_extensions():
            raise ValueError(f"pictures are written as .jpg, .png and the like, results as .json; got {str(path)!r}")
        picture = self.plot(**options)
        with atomic_write(path, "wb", sync=False) as file:
            picture.save(file, Image.registered_extensions()[suffix], **QUALITY.get(suffix, {}))

    def show(self, **options: Any) -> None:
        """Shows the picture that `plot` draws: in a notebook below the cell, otherwise in the system's image viewer.

        Raises:
            ValueError: as `plot`.
            OSError: there is no image viewer, as on a server.
        """
        from bcnet.visualization.plot import show_picture

        show_picture(self.plot(**options))

    def _repr_jpeg_(self) -> bytes | None:
        """The picture for notebooks; None, which shows the text alone, where the image is not known."""
        try:
            picture = self.plot()
        except (ValueError, OSError):
            return None
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    # -- Other formats -----------------------------------------------------------------------------

    @property
    def polygons(self) -> list[list[np.ndarray]]:
        """The outlines of each mask: for each detection a list of polygons, float32 [P, 2] of x, y in pixels.

        A polygon for each connected part, all of them; a hole is joined to its outline by a line that runs there and
        back. They rasterise to the mask again (`bcnet.ops.outline`). An instance of no pixels has no polygon.

        Raises:
            ValueError: there are no masks.
        """
        return export.detections_to_polygons(self._detections)

    def to_json(self, indent: int | None = None) -> str:
        """The detections as JSON text: the image's path and size, and for each detection its number, class, name,
        score, box (xyxy) and polygons; with relations ``occluded_by`` and ``depth`` as in `to_coco`, with amodal
        masks ``occluded_fraction`` and ``amodal_polygons``, the outlines of the whole object. Of a frame with hidden
        tracks also ``hidden_tracks`` (`bcnet.structures.export.hidden_tracks_to_coco`).
        """
        return export.detections_to_json(self._detections, indent)

    def to_dataframe(self) -> pandas.DataFrame:
        """A table with a row for each detection: number, class, name, score, x0, y0, x1, y1, the area of the mask
        in pixels; with relations ``occluded_by`` and ``depth`` as in `to_coco`, with amodal masks
        ``occluded_fraction``. Without detections it has the same columns.

        Raises:
            ImportError: pandas is not installed.
        """
        return export.detections_to_dataframe(self._detections)

    def to_coco(
        self,
        image_id: int | str = 1,
        category_ids: Sequence[int] | None = None,
        *,
        names: Sequence[str] = RESULT_MAPS,
    ) -> list[dict]:
        """COCO results: one dict per detection with the data set's own ids, boxes as xywh, masks as RLE text.

        Detections with relations have three more keys, which COCO's tools ignore: ``number``, the position in
        the image, ``occluded_by``, a list of [number of the occluder, confidence] by descending confidence, of at
        least 0.05 (an edge of `OcclusionGraph` has at least 0.3), and ``depth``, rank in the depth order, 0 nearest.
        ``occluded_fraction`` (`Detections.occluded_fraction`) is written beside amodal and visible masks, and
        ``track_id`` where instances are tracked.

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's category id of each class 0..K-1; None takes 1..K, as ``bcnet predict`` does.
            names: the maps to write, each under its `MapSpec.coco_key`, by default ``segmentation`` and
                ``amodal_segmentation``; absent ones are skipped.

        Raises:
            ValueError: a class without an id.
        """
        return export.detections_to_coco(self._detections, image_id, category_ids, names)

    def to_detectron2(self):
        """detectron2's `Instances`, as its models return them.

        Returns:
            detectron2.structures.Instances: ``pred_boxes``, ``scores``, ``pred_classes``, and of the maps that are
            present ``pred_masks``, ``pred_boundaries``, ``pred_occluder_masks``, ``pred_occluder_boundaries`` and
            ``pred_amodal_masks`` (`MapSpec.detectron2_field`), bool [D, H, W].

        Raises:
            ImportError: detectron2 is not installed.
        """
        from bcnet.detectron2.convert import detections_to_instances

        return detections_to_instances(self._detections)

    def to_supervision(self):
        """supervision's `Detections`, for its annotators, trackers and filters.

        Returns:
            supervision.Detections: ``xyxy`` float32 [D, 4], ``confidence`` [D], ``class_id`` [D] and, where there are
            masks, ``mask`` bool [D, H, W]; ``tracker_id`` where instances are tracked. In ``data``: "class_name"
            where names are known, and of the other maps that are present "boundary", "occluder_mask",
            "occluder_boundary" and "amodal_mask" (`MapSpec.short_name`), bool [D, H, W]; with visible and amodal masks
            "hidden_mask", bool [D, H, W], and "occluded_fraction", float32 [D].

        Raises:
            ImportError: supervision is not installed.
        """
        from bcnet.structures.supervision import detections_to_supervision

        return detections_to_supervision(self._detections)
