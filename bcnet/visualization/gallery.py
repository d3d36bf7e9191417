"""Gallery: pictures of detections in images and videos, and of training data, written into a folder.

Letters: H x W image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
from tqdm import tqdm

from bcnet.data import DatasetInfo, DatasetMapper, ImageRecord, image_array, load_dataset
from bcnet.data.image_source import is_url
from bcnet.data.images import MAX_IMAGE_PIXELS
from bcnet.data.videos import is_video
from bcnet.failures import Failures
from bcnet.files import atomic_write
from bcnet.structures import Detections
from bcnet.visualization.heat_maps import draw_heat_maps
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections
from bcnet.visualization.plot import picture_side
from bcnet.visualization.training_data import detections_from_targets
from bcnet.visualization.video import draw_video
from bcnet.words import counted

PANEL_SIDES = (800, 1200)  # bounds of a panel's longer side, pixels
ANNOTATION_SIDE = 224  # of the masks in the panels of `draw_training_data`
MAP_SIDE = 28  # of its heat maps, the mask head's
MAX_NAME_BYTES = 200  # of a picture's name without suffix; file systems allow 255 with it
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # characters that some file system forbids


@dataclass
class Gallery:
    """The folder that pictures are written to, and what was drawn.

    Attributes:
        folder: made when missing.
        layers: sheets with both layers and the depth order; otherwise the image with its detections alone.
        heat_maps: whether sheets of heat maps are written too.
        pictures: the files that were written.
        drawn: number of images and videos behind them.
        frames: number of frames of the videos among them.
        failures: of each image or video that could not be drawn, why.
    """

    folder: str | os.PathLike
    layers: bool = True
    heat_maps: bool = True
    pictures: list[str] = field(default_factory=list)
    drawn: int = 0
    frames: int = 0
    failures: Failures = field(default_factory=Failures)

    def add(
        self,
        name: str,
        image: np.ndarray,
        detections: Detections,
        *,
        explained: Detections | None = None,
        scores: bool = True,
    ) -> None:
        """Writes ``NAME_layers.jpg`` (`draw_layers`) and ``NAME_maps.png`` (`draw_heat_maps`) of an image.

        Without `layers` the first is ``NAME_detections.jpg`` (`draw_detections`), never the name of the image itself.
        Many detections give more sheets, ``NAME_maps_2.png`` and so on; none give no sheet.

        Args:
            name: of the pictures (`output_names`).
            image: uint8 [H, W, 3] RGB.
            detections: of the image, with the maps of both layers.
            explained: whose heat maps are drawn; by default the detections'.
            scores: whether labels end with the score.

        Raises:
            OSError: a picture cannot be written.
        """
        image = np.ascontiguousarray(image)
        if self.layers:
            picture = draw_layers(image, detections, long_side=_panel_side(image), numbered=True, scores=scores)
        else:
            picture = draw_detections(image, detections, long_side=picture_side(image.shape[:2]), scores=scores)
        self._write(f"{name}{self.suffix}.jpg", picture)
        explained = detections if explained is None else explained
        sheets = draw_heat_maps(image, explained, scores=scores) if self.heat_maps else []
        for number, sheet in enumerate(sheets, start=1):
            self._write(f"{name}_maps.png" if number == 1 else f"{name}_maps_{number}.png", sheet)
        self.drawn += 1

    def add_video(self, name: str, predict: Callable[[np.ndarray], Detections], source: str, **options) -> None:
        """Writes ``NAME_layers.mp4`` or ``NAME_detections.mp4``; the options are those of `draw_video`.

        Raises:
            UnreadableVideoError, OSError: as `draw_video`.
        """
        path = self.video_path(name)
        self.frames += draw_video(predict, source, path, layers=self.layers, **options)
        self.pictures.append(path)
        self.drawn += 1

    def video_path(self, name: str) -> str:
        """File of the drawn video of a name (`output_names`)."""
        return os.path.join(self.folder, f"{name}{self.suffix}.mp4")

    @property
    def suffix(self) -> str:
        """Of the names of pictures and videos."""
        return "_layers" if self.layers else "_detections"

    def summary(self) -> str:
        text = f"{counted(self.drawn, 'image')} drawn, {counted(len(self.pictures), 'picture')} written"
        text += f", {counted(self.frames, 'frame')} of video" if self.frames else ""
        return f"{text}, {counted(len(self.failures), 'image')} failed" if self.failures else text

    def _write(self, name: str, picture: np.ndarray) -> None:
        path = os.path.join(self.folder, name)
        suffix = os.path.splitext(name)[1]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
        encoded = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1]
        # Not cv2.imwrite, which only returns False where the disk is full or the folder cannot be written to.
        with atomic_write(path, "wb", sync=False) as file:
            file.write(encoded.tobytes())
        self.pictures.append(path)


def draw_predictions(
    predict: Callable[[np.ndarray], Detections],
    files: Sequence[str],
    output_dir: str | os.PathLike,
    *,
    score_threshold: float = 0.5,
    max_images: int | None = None,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    progress: bool = True,
) -> Gallery:
    """Writes pictures of each image (`Gallery.add`), and ``NAME_layers.mp4`` of each video (`draw_video`).

    An image or video that cannot be read, or fails in another way, is logged by name and counted; the others go on.

    Args:
        predict: from uint8 [H, W, 3] RGB to the image's detections with the maps of both layers.
        files: image files and URLs, video files, animated images, cameras (`bcnet.data.inputs.find_images`).
        output_dir: made when missing.
        score_threshold: lowest score that is drawn.
        max_images: maximum number of images, and of frames of each video; None draws all.
        max_image_pixels: a larger image is unreadable; 0 is no limit.
        progress: show a progress bar.

    Raises:
        OSError: a picture cannot be written.
    """
    gallery = Gallery(output_dir)
    files = files[:max_images]
    names = output_names(files)
    for file, name in zip(tqdm(files, desc="Drawing", unit="img", disable=not progress), names, strict=True):
        with gallery.failures.survived(file):
            if is_video(file):
                limits = {"score_threshold": score_threshold, "max_frames": max_images, "progress": progress}
                gallery.add_video(name, predict, file, **limits)
                continue
            image = image_array(file, max_pixels=max_image_pixels)
            detections = predict(image)
            gallery.add(name, image, detections[detections.scores >= score_threshold])
    return gallery


def draw_training_data(
    mapper: DatasetMapper,
    dataset: str | tuple[Sequence[ImageRecord], DatasetInfo],
    output_dir: str | os.PathLike,
    *,
    max_images: int | None = None,
    seed: int = 0,
    roi_scale: float = 1.0,
    progress: bool = True,
) -> Gallery:
    """Writes pictures as `draw_predictions` does of what the mapper makes of a data set for training.

    The heat maps are the 28x28 targets of the mask head; the panels show the same masks in more
    detail. Pixels whose target is unknown, which have no loss, are hatched in grey. Images without instances are
    skipped. An image that cannot be read, or whose annotations cannot be used, is logged by name and counted.

    Args:
        mapper: in training mode.
        dataset: name or spec, or what `load_dataset` gave.
        output_dir: made when missing.
        max_images: maximum number of images; None draws all.
        seed: of the augmentation.
        roi_scale: MODEL.ROI_MASK_HEAD.ROI_SCALE, the part of the image that the mask head sees of each object.
        progress: show a progress bar.

    Raises:
        OSError: a picture cannot be written.
    """
    records, info = load_dataset(dataset) if isinstance(dataset, str) else dataset
    records = [record for record in records if any(not instance.iscrowd for instance in record.instances)]
    records = records[:max_images]
    gallery = Gallery(output_dir)
    names = output_names(record.file_name for record in records)
    generator = np.random.default_rng(seed)
    for record, name in zip(tqdm(records, desc="Drawing", unit="img", disable=not progress), names, strict=True):
        with gallery.failures.survived(record.file_name):
            sample = mapper(record, generator)
            image = sample["image"].numpy()[mapper.channels].transpose(1, 2, 0)
            panels, maps = (
                detections_from_targets(sample["targets"], image.shape[:2], info.class_names, side, roi_scale=roi_scale)
                for side in (ANNOTATION_SIDE, MAP_SIDE)
            )
            gallery.add(name, image, panels, explained=maps, scores=False)
    return gallery


def output_names(sources: Iterable[str]) -> list[str]:
    """Names of the pictures of each file, URL or camera: its own without folder and suffix, and no two alike.

    Of a URL only the path counts. Names that differ in their suffix alone keep it: ``x.jpg``, ``x.png``. Files of one
    name in several folders get a number: ``x``, ``x_2``.
    """
    sources = list(sources)
    stems = [_stem(source) for source in sources]
    suffixes: dict[str, set[str]] = {}
    for source, stem in zip(sources, stems, strict=True):
        suffixes.setdefault(stem.casefold(), set()).add(_suffix(source).casefold())
    names: list[str] = []
    taken: set[str] = set()
    for source, own in zip(sources, stems, strict=True):
        stem = name = own + (_suffix(source) if len(suffixes[own.casefold()]) > 1 else "")
        number = 2
        while name.casefold() in taken:  # some file systems do not tell cases apart
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _suffix(source: str) -> str:
    return os.path.splitext(_path(source))[1]


def _path(source: str) -> str:
    return unquote(urlsplit(source).path) if is_url(source) else source


def _stem(source: str) -> str:
    stem = os.path.splitext(os.path.basename(_path(source)))[0]
    stem = stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return _NOT_IN_NAMES.sub("_", stem) or "image"


def _panel_side(image: np.ndarray) -> int:
    low, high = PANEL_SIDES
    return min(max(max(image.shape[:2]), low), high)
