"""Pictures of many images and videos: what a model finds, and what it is trained on."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from tqdm import tqdm

from bcnet.data import DatasetMapper, UnreadableImageError, dataset_names, load_dataset, read_image
from bcnet.structures import Detections
from bcnet.visualization.layers import draw_heat_maps, draw_layers
from bcnet.visualization.training_data import detections_from_targets
from bcnet.visualization.video import VIDEO_SUFFIXES, UnreadableVideoError, draw_video, is_video, is_webcam, video_stem

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PANEL_SIDES = (800, 1200)  # bounds of a panel's longer side, pixels
ANNOTATION_SIDE = 224  # of the masks in the panels of `draw_training_data`


@dataclass
class Gallery:
    """What was drawn.

    Attributes:
        pictures: the files that were written.
        drawn: number of images and videos behind them.
        frames: number of frames of the videos among them.
        failures: for each image or video that could not be drawn, why, with its name.
    """

    pictures: list[str] = field(default_factory=list)
    drawn: int = 0
    frames: int = 0
    failures: list[str] = field(default_factory=list)

    def summary(self) -> str:
        text = f"{self.drawn} images drawn, {len(self.pictures)} pictures written"
        text += f", {self.frames} frames of video" if self.frames else ""
        return f"{text}, {len(self.failures)} images failed" if self.failures else text


def find_images(inputs: Iterable[str], *, videos: bool = False) -> list[str]:
    """The image files behind names as given on a command line, in order and each once.

    Args:
        inputs: files, folders (searched with all their subfolders, by file suffix), glob patterns, and names or
            specs of data sets.
        videos: find video files in folders too, and let "webcam" and "webcam:N", the N-th camera, stand for themselves.

    Raises:
        FileNotFoundError: an input is none of these, or a pattern or folder without images; names it.
        KeyError, ValueError: as `bcnet.data.load_dataset`.
    """
    found: dict[str, None] = {}
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    for name in inputs:
        if os.path.isdir(name):
            images = sorted(
                os.path.join(folder, file)
                for folder, _, files in os.walk(name)
                for file in files
                if file.lower().endswith(suffixes)
            )
        elif os.path.exists(name) or (videos and is_webcam(name)):
            images = [name]
        else:
            images = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
            if not images and (name in dataset_names() or ":" in name):
                images = [record.file_name for record in load_dataset(name)[0]]
        if not images:
            raise FileNotFoundError(
                f"no images behind the input {name!r}: it is no file, no folder or pattern with images, and no data "
                "set (config keys with new values go last, after another option)"
            )
        found.update(dict.fromkeys(images))
    return list(found)


def draw_predictions(
    predict: Callable[[np.ndarray], Detections],
    files: Sequence[str],
    output_dir: str | os.PathLike,
    *,
    score_threshold: float = 0.5,
    max_images: int | None = None,
    progress: bool = True,
) -> Gallery:
    """Writes for each image ``NAME_layers.jpg`` (`draw_layers`) and ``NAME_maps.png`` (`draw_heat_maps`), and for each
    video ``NAME_layers.mp4`` (`draw_video`).

    An image that cannot be read is logged by name and counted; the others go on. Many detections give more
    sheets, ``NAME_maps_2.png`` and so on; none give no sheet.

    Args:
        predict: from uint8 [H, W, 3] RGB to the image's detections with the maps of both layers.
        files: image files, video files, cameras (`find_images`).
        output_dir: made when missing.
        score_threshold: lowest score that is drawn.
        max_images: draw the first so many, and so many frames of each video; None draws all.
        progress: show a progress bar.
    """
    gallery = Gallery()
    names = _output_names(files[:max_images])
    for file, name in tqdm(names.items(), desc="Drawing", unit="img", disable=not progress):
        try:
            if is_video(file):
                path = os.path.join(output_dir, f"{name}_layers.mp4")
                limits = {"score_threshold": score_threshold, "max_frames": max_images, "progress": progress}
                gallery.frames += draw_video(predict, file, path, **limits)
                gallery.pictures.append(path)
                gallery.drawn += 1
                continue
            image = read_image(file, "RGB")
        except (UnreadableImageError, UnreadableVideoError) as error:
            _report(gallery, str(error))
            continue
        detections = predict(image)
        detections = detections[detections.scores >= score_threshold]
        panels = draw_layers(image, detections, long_side=_panel_side(image), numbered=True)
        _write(gallery, os.path.join(output_dir, name), panels, draw_heat_maps(image, detections))
    return gallery


def draw_training_data(
    mapper: DatasetMapper,
    dataset: str,
    output_dir: str | os.PathLike,
    *,
    max_images: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Gallery:
    """Writes pictures as `draw_predictions` does of what the mapper makes of a data set for training.

    The heat maps are the 28x28 targets that the mask head learns; the panels show the same masks in more
    detail. Images without instances have nothing to show and are passed over. An image that cannot be read,
    or whose annotations cannot be used, is logged by name and counted.

    Args:
        mapper: in training mode.
        dataset: name or spec.
        output_dir: made when missing.
        max_images: draw the first so many; None draws all.
        seed: of the augmentation.
        progress: show a progress bar.
    """
    records, info = load_dataset(dataset)
    records = [record for record in records if any(not instance.iscrowd for instance in record.instances)]
    records = records[:max_images]
    gallery = Gallery()
    names = list(_output_names([f"{index} {record.file_name}" for index, record in enumerate(records)]).values())
    generator = np.random.default_rng(seed)
    for record, name in zip(tqdm(records, desc="Drawing", unit="img", disable=not progress), names, strict=True):
        try:
            sample = mapper(record, generator)
        except ValueError as error:  # of the annotations; UnreadableImageError is one too
            _report(gallery, f"{record.file_name}: {error}")
            continue
        image = sample["image"].numpy()[mapper.channels].transpose(1, 2, 0)
        image = np.ascontiguousarray(image)
        size = image.shape[:2]
        detailed = detections_from_targets(sample["targets"], size, info.class_names, ANNOTATION_SIDE)
        learned = detections_from_targets(sample["targets"], size, info.class_names)
        panels = draw_layers(image, detailed, long_side=_panel_side(image), numbered=True, scores=False)
        _write(gallery, os.path.join(output_dir, name), panels, draw_heat_maps(image, learned, scores=False))
    return gallery


def _panel_side(image: np.ndarray) -> int:
    low, high = PANEL_SIDES
    return min(max(max(image.shape[:2]), low), high)


def _output_names(files: Iterable[str]) -> dict[str, str]:
    """A name for the pictures of each file: its own without suffix, and a number where files share it."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for file in files:
        stem = name = video_stem(file)
        number = 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        names[file] = name
    return names


def _report(gallery: Gallery, message: str) -> None:
    gallery.failures.append(message)
    tqdm.write(message)


def _write(gallery: Gallery, path: str, panels: np.ndarray, sheets: Sequence[np.ndarray]) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    pictures = {f"{path}_layers.jpg": panels}
    for number, sheet in enumerate(sheets, start=1):
        pictures[f"{path}_maps.png" if number == 1 else f"{path}_maps_{number}.png"] = sheet
    for file, picture in pictures.items():
        suffix = os.path.splitext(file)[1]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
        encoded = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1]
        # Not cv2.imwrite, which only returns False where the disk is full or the folder cannot be written to.
        with open(file, "wb") as target:
            target.write(encoded)
        gallery.pictures.append(file)
    gallery.drawn += 1
