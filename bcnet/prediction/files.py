"""Prediction on image and video files into one COCO json, resumable after an interruption."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pycocotools.mask as maskUtils
from tqdm import tqdm

import bcnet
from bcnet.data import image_array
from bcnet.data.videos import is_video, is_webcam
from bcnet.failures import Failures
from bcnet.files import atomic_write
from bcnet.maps import BOUNDARY
from bcnet.side_file import SideFile
from bcnet.words import class_name, counted

if TYPE_CHECKING:
    from bcnet.export.runtime import ExportedPredictor
    from bcnet.prediction.predictor import Predictor
    from bcnet.prediction.video_files import VideoResult
    from bcnet.structures import Detections

logger = logging.getLogger(__name__)

READ_AHEAD = 4  # batches that are read together, so that images of one size can be batched


@dataclass
class PredictionSummary:
    """Summary of a prediction run.

    Attributes:
        images: number of images that were predicted, frames of videos among them.
        instances: number of detections.
        videos: number of videos that were predicted.
        failures: for each file that failed, by its name, the reason.
    """

    images: int = 0
    instances: int = 0
    videos: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{counted(self.instances, 'instance')} in {counted(self.images, 'image')}"
        text += f" ({counted(self.videos, 'video')} among them)" if self.videos else ""
        return f"{text}, {counted(len(self.failures), 'image')} failed" if self.failures else text


def predict_files(
    model: Predictor | ExportedPredictor,
    files: Sequence[str],
    output: str | os.PathLike,
    *,
    pictures: str | os.PathLike | None = None,
    with_occluder: bool = False,
    score_threshold: float | None = 0.5,
    mask_threshold: float = 0.5,
    max_detections: int | None = None,
    batch_size: int = 4,
    tile: int | None = None,
    overlap: float = 0.2,
    resume: bool = False,
    progress: bool = True,
) -> PredictionSummary:
    """Writes a model's detections in images and videos as one COCO json, which annotation tools and pycocotools read.

    Its annotations have ``score`` beside COCO's keys and, with the occluder layer, ``number``, ``occluded_by`` and
    ``depth`` (`Detections.to_coco`) and ``occluder_segmentation``. The categories are the model's classes, with the
    ids 1..K. A file that cannot be read, or fails in another way, is logged by name and left out.

    The frames of a video or animation are images of the name ``FILE#INDEX`` with ``video_id`` and ``frame_index``, both
    as in the entry ``videos``; their annotations have the ``track_id`` of the instance in its video, and the image of a
    frame has ``hidden_tracks``, those that others cover in it (`bcnet.structures.export.hidden_tracks_to_coco`). In
    videos the score threshold is that of an instance's first detection: lower ones, down to
    `bcnet.tracking.CONTINUING_SCORE`, are kept where they go on with a track.

    The results are kept in ``<output>.partial`` as they come. An interruption or an error still writes the json, of the
    images so far, and leaves that file for `resume`; at the end it is removed.

    Args:
        model: as `bcnet.load` gives it, or an exported one, which predicts without torch.
        files: paths of image and video files, or URLs of images.
        output: the json file; its folder is made when missing.
        pictures: folder for a picture of each image and a drawn mp4 of each video: the detections, or with
            `with_occluder` sheets with both layers (`bcnet.visualization.Gallery`).
        with_occluder, score_threshold, mask_threshold, max_detections, batch_size: as `Predictor.predict` takes them.
        tile, overlap: predict on tiles, as `Predictor.predict_tiled` does; None predicts each image as a whole.
        resume: continue after the images of ``<output>.partial``, which failed ones are among; by default start again.
        progress: show a progress bar.

    Raises:
        ValueError: a threshold out of range; the results to resume are of other files or options; a webcam.
        BlockingIOError: another process writes the same output.
        OSError: the output cannot be written.
    """
    options = {
        "with_occluder": with_occluder,
        "score_threshold": score_threshold,
        "mask_threshold": mask_threshold,
        "max_detections": max_detections,
    }
    tiles = {} if tile is None else {"tile": tile, "overlap": overlap}

    def predict(images: list[np.ndarray], score_threshold: float | None = score_threshold) -> list[Detections]:
        wanted = {**options, "score_threshold": score_threshold, "batch_size": batch_size}
        if tiles:
            return [model.predict_tiled(image, "RGB", **tiles, **wanted) for image in images]
        return model.predict(images, "RGB", **wanted)

    def predict_path(file: str) -> Detections:
        return model.predict_tiled(file, **tiles, **options, batch_size=batch_size)

    for file in files:
        if is_webcam(file):
            raise ValueError(f"{file!r} has no end, and its results no file to belong to; bcnet draw draws webcams")
    # Rejects thresholds out of range, and models that take boxes, before anything is read or written.
    model.predict([], "RGB", **options, batch_size=batch_size)
    if tiles:
        from bcnet.prediction.tiles import tile_windows  # needs torch, which exported models do not

        tile_windows((1, 1), **tiles)
    output = os.fspath(output)
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    description = {"predictions": 2, "files": zlib.crc32("\n".join(files).encode()), **options, **tiles}
    pictures_of = None if pictures is None else _Pictures(files, pictures, layers=with_occluder)

    def predict_video(file: str, drawn: str | None) -> VideoResult:
        # Imported here: tracking needs torch, which exported models do not.
        from bcnet.prediction import video_files
        from bcnet.tracking import CONTINUING_SCORE

        lowest = None if score_threshold is None else min(score_threshold, CONTINUING_SCORE)
        return video_files.predict_video(
            functools.partial(predict, score_threshold=lowest),
            functools.partial(_annotations, num_classes=model.num_classes),
            file,
            drawn=drawn,
            score_threshold=score_threshold or 0.0,
            layers=with_occluder,
            batch_size=batch_size,
            progress=progress,
        )

    one_by_one = _Files(
        predict, predict_video, model.max_image_pixels, model.num_classes, pictures_of, predict_path if tiles else None
    )
    categories = [{"id": label + 1, "name": class_name(label, model.class_names)} for label in range(model.num_classes)]
    with contextlib.closing(_partial_results(f"{output}.partial", description, resume)) as side:
        bar = tqdm(total=len(files), initial=side.count, desc="Predicting", unit="img", disable=not progress)
        try:
            with bar:
                for first in range(side.count, len(files), READ_AHEAD * batch_size):
                    chunk = files[first : first + READ_AHEAD * batch_size]
                    results = one_by_one.results(chunk)
                    side.append([json.dumps(result) for result in results])
                    bar.update(len(chunk))
        except BaseException:
            if side.count:
                _write_coco(output, side, categories)
            raise
        summary = _write_coco(output, side, categories)
        side.remove()
    return summary


def _partial_results(path: str, description: dict, resume: bool) -> SideFile:
    """The file of results that come one by one: those of a run that was interrupted, or none."""
    try:
        side = SideFile(path, description, restart=not resume)
    except ValueError as error:
        raise ValueError(f"{path} holds results of other images or options, which cannot be resumed") from error
    if not resume:
        side.clear()
    return side


class _Pictures:
    """Draws the results of files, each under a name of its own."""

    def __init__(self, files: Sequence[str], folder: str | os.PathLike, *, layers: bool) -> None:
        # Imported here: the fonts and colours of pictures take a second.
        from bcnet.visualization.gallery import Gallery, output_names

        self.gallery = Gallery(folder, layers=layers, heat_maps=False)
        self.names = dict(zip(files, output_names(files), strict=True))

    def add(self, file: str, pixels: np.ndarray, detections: Detections) -> None:
        self.gallery.add(self.names[file], pixels, detections)

    def video_path(self, file: str) -> str:
        return self.gallery.video_path(self.names[file])


@dataclass
class _Files:
    """Predicts files: images together, videos one by one."""

    predict: Callable[[list[np.ndarray]], list[Detections]]
    predict_video: Callable[..., VideoResult]
    max_pixels: int
    num_classes: int
    pictures: _Pictures | None
    predict_path: Callable[[str], Detections] | None = None

    def results(self, files: Sequence[str]) -> list[dict]:
        """For each file its size and annotations, or why it failed, or both if only the picture did."""
        failures = Failures()
        videos = {file: self._video(file, failures) for file in files if is_video(file)}
        images = self._images([file for file in files if file not in videos], failures)
        results: list[dict] = []
        for file in files:
            results.append({"file_name": file, **(videos.get(file) or images.get(file) or {})})
            if file in failures:
                results[-1]["failure"] = failures[file]
        return results

    def _video(self, file: str, failures: Failures) -> dict:
        result: dict = {}
        with failures.survived(file):
            drawn = None if self.pictures is None else self.pictures.video_path(file)
            result = dict(vars(self.predict_video(file, drawn)))
        return result

    def _images(self, files: Sequence[str], failures: Failures) -> dict[str, dict]:
        if self.predict_path is not None:
            return self._tiled(files, self.predict_path, failures)
        pixels: dict[str, np.ndarray] = {}
        detections: dict[str, Detections] = {}
        for file in files:
            with failures.survived(file):
                pixels[file] = image_array(file, max_pixels=self.max_pixels)
        try:
            detections = dict(zip(pixels, self.predict(list(pixels.values())), strict=True))
        except Exception as error:  # because of one of them, or all need too much memory
            logger.info("%d images fail together, and are tried one by one: %s", len(pixels), error)
            for file, image in pixels.items():
                with failures.survived(file):
                    (detections[file],) = self.predict([image])
        return {
            file: self._result(file, found, functools.partial(pixels.__getitem__, file), failures)
            for file, found in detections.items()
        }

    def _tiled(
        self, files: Sequence[str], predict_path: Callable[[str], Detections], failures: Failures
    ) -> dict[str, dict]:
        """Images one by one: the whole image is read for its picture alone."""
        results = {}
        for file in files:
            with failures.survived(file):
                found = predict_path(file)
                read = functools.partial(image_array, file, max_pixels=self.max_pixels)
                results[file] = self._result(file, found, read, failures)
        return results

    def _result(self, file: str, found: Detections, pixels: Callable[[], np.ndarray], failures: Failures) -> dict:
        if self.pictures is not None:
            with failures.survived(file):
                self.pictures.add(file, pixels(), found)
        height, width = found.image_size
        return {"height": height, "width": width, "annotations": _annotations(found, self.num_classes)}


def _annotations(detections: Detections, num_classes: int) -> list[dict]:
    """COCO annotations; their ids and the image's are not known yet."""
    names = [spec.name for spec in detections.present if spec.kind != BOUNDARY]
    annotations = detections.to_coco(0, range(1, num_classes + 1), names=names)
    for annotation in annotations:
        _, _, width, height = annotation["bbox"]
        mask = annotation.get("segmentation")
        annotation["area"] = float(maskUtils.area(mask)) if mask is not None else width * height
        annotation["iscrowd"] = 0
    return annotations


def _write_coco(path: str, side: SideFile, categories: list[dict]) -> PredictionSummary:
    """Puts the json together, one entry at a time, so that memory stays flat."""
    summary = PredictionSummary()
    videos: list[dict] = []
    with atomic_write(path) as file:
        file.write(f'{{"info": {json.dumps({"description": f"predicted by bcnet {bcnet.__version__}"})}')
        file.write(f', "categories": {json.dumps(categories)}, "images": [')
        for result in side.results():
            if "failure" in result:
                summary.failures[result["file_name"]] = result["failure"]
            if "frames" in result:
                videos.append(_video_entry(result, len(videos) + 1))
            for image, _ in _images_of(result, len(videos)):
                summary.images += 1
                file.write(f"{',' if summary.images > 1 else ''}\n{json.dumps({'id': summary.images, **image})}")
        summary.videos = len(videos)
        file.write("], " + (f'"videos": {json.dumps(videos)}, ' if videos else "") + '"annotations": [')
        per_image = (annotations for result in side.results() for _, annotations in _images_of(result, 0))
        for image_id, annotations in enumerate(per_image, start=1):
            for annotation in annotations:
                summary.instances += 1
                annotation |= {"id": summary.instances, "image_id": image_id}
                file.write(f"{',' if summary.instances > 1 else ''}\n{json.dumps(annotation)}")
        file.write("]}\n")
    return summary


def _images_of(result: dict, video_id: int) -> Iterator[tuple[dict, list[dict]]]:
    """The image of a file's result, or the frames of a video, each with its annotations; nothing of a failed file."""
    size = {key: result[key] for key in ("height", "width") if key in result}
    if "annotations" in result:
        yield {"file_name": result["file_name"], **size}, result["annotations"]
    for index, frame in enumerate(result.get("frames", ())):
        name = f"{result['file_name']}#{index}"
        image = {"file_name": name, **size, "video_id": video_id, "frame_index": index}
        hidden = result["hidden"][index]
        yield image | ({"hidden_tracks": hidden} if hidden else {}), frame


def _video_entry(result: dict, video_id: int) -> dict:
    known = {key: result[key] for key in ("file_name", "height", "width")}
    return {"id": video_id, **known, "frame_rate": result["rate"], "frames": len(result["frames"])}
