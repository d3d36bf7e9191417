"""Prediction on image files into one COCO json, resumable after an interruption."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask as maskUtils
from tqdm import tqdm

import bcnet
from bcnet.data import image_array
from bcnet.failures import Failures
from bcnet.files import atomic_write
from bcnet.maps import BOUNDARY
from bcnet.prediction.predictor import Predictor
from bcnet.side_file import SideFile
from bcnet.structures import Detections

logger = logging.getLogger(__name__)

READ_AHEAD = 4  # batches that are read together, so that images of one size can be batched


@dataclass
class PredictionSummary:
    """Summary of a prediction run.

    Attributes:
        images: number of images that were predicted.
        instances: number of detections.
        failures: for each image that failed, by its name, the reason.
    """

    images: int = 0
    instances: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.instances} instances in {self.images} images"
        return f"{text}, {len(self.failures)} images failed" if self.failures else text


def predict_files(
    model: Predictor,
    files: Sequence[str],
    output: str | os.PathLike,
    *,
    pictures: str | os.PathLike | None = None,
    with_occluder: bool = False,
    score_threshold: float | None = 0.5,
    mask_threshold: float = 0.5,
    max_detections: int | None = None,
    batch_size: int = 4,
    resume: bool = False,
    progress: bool = True,
) -> PredictionSummary:
    """Writes a model's detections in image files as one COCO json, which annotation tools and pycocotools read.

    Its annotations have ``score`` beside COCO's keys and, with the occluder layer, ``number``, ``occluded_by`` and
    ``depth`` (`Detections.to_coco`) and ``occluder_segmentation``. The categories are the model's classes, with the
    ids 1..K. An image that cannot be read, or fails in another way, is logged by name and left out.

    The results are kept in ``<output>.partial`` as they come. An interruption or an error still writes the json, of the
    images so far, and leaves that file for `resume`; at the end it is removed.

    Args:
        model: as `bcnet.load` gives it.
        files: paths of image files, or URLs.
        output: the json file; its folder is made when missing.
        pictures: folder for a picture of each image (`bcnet.visualization.Gallery`).
        with_occluder, score_threshold, mask_threshold, max_detections, batch_size: as `Predictor.predict` takes them.
        resume: continue after the images of ``<output>.partial``, which failed ones are among; by default start again.
        progress: show a progress bar.

    Raises:
        ValueError: a threshold out of range; the results to resume are of other files or options.
        BlockingIOError: another process writes the same output.
        OSError: the output cannot be written.
    """
    options = {
        "with_occluder": with_occluder,
        "score_threshold": score_threshold,
        "mask_threshold": mask_threshold,
        "max_detections": max_detections,
    }

    def predict(images: list[np.ndarray]) -> list[Detections]:
        return model.predict(
            images,
            "RGB",
            with_occluder=with_occluder,
            score_threshold=score_threshold,
            mask_threshold=mask_threshold,
            max_detections=max_detections,
            batch_size=batch_size,
        )

    predict([])  # rejects thresholds out of range before anything is written
    output = os.fspath(output)
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    description = {"predictions": 1, "files": zlib.crc32("\n".join(files).encode()), **options}
    draw = None if pictures is None else _drawer(files, pictures)
    categories = [
        {"id": label + 1, "name": model.class_names[label] if model.class_names else f"class {label}"}
        for label in range(model.num_classes)
    ]
    with contextlib.closing(_partial_results(f"{output}.partial", description, resume)) as side:
        bar = tqdm(total=len(files), initial=side.count, desc="Predicting", unit="img", disable=not progress)
        try:
            with bar:
                for first in range(side.count, len(files), READ_AHEAD * batch_size):
                    chunk = files[first : first + READ_AHEAD * batch_size]
                    results = _results(chunk, predict, model.max_image_pixels, draw, model.num_classes)
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


def _drawer(files: Sequence[str], folder: str | os.PathLike) -> Callable[[str, np.ndarray, Detections], None]:
    # Imported here: the fonts and colours of pictures take a second.
    from bcnet.visualization.gallery import Gallery, output_names

    gallery = Gallery(folder, heat_maps=False)
    names = dict(zip(files, output_names(files), strict=True))
    return lambda file, pixels, detections: gallery.add(names[file], pixels, detections)


def _results(
    files: Sequence[str],
    predict: Callable[[list[np.ndarray]], list[Detections]],
    max_pixels: int,
    draw: Callable[[str, np.ndarray, Detections], None] | None,
    num_classes: int,
) -> list[dict]:
    """For each file its size and annotations, or why it failed, or both if only the picture did."""
    failures = Failures()
    pixels: dict[str, np.ndarray] = {}
    detections: dict[str, Detections] = {}
    for file in files:
        with failures.survived(file):
            pixels[file] = image_array(file, max_pixels=max_pixels)
    try:
        detections = dict(zip(pixels, predict(list(pixels.values())), strict=True))
    except Exception as error:  # because of one of them, or all need too much memory
        logger.info("%d images fail together, and are tried one by one: %s", len(pixels), error)
        for file, image in pixels.items():
            with failures.survived(file):
                (detections[file],) = predict([image])
    if draw is not None:
        for file, drawn in detections.items():
            with failures.survived(file):
                draw(file, pixels[file], drawn)
    results: list[dict] = []
    for file in files:
        results.append({"file_name": file})
        if file in detections:
            height, width = pixels[file].shape[:2]
            annotations = _annotations(detections[file], num_classes)
            results[-1] |= {"height": height, "width": width, "annotations": annotations}
        if file in failures:
            results[-1]["failure"] = failures[file]
    return results


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
    with atomic_write(path) as file:
        file.write(f'{{"info": {json.dumps({"description": f"predicted by bcnet {bcnet.__version__}"})}')
        file.write(f', "categories": {json.dumps(categories)}, "images": [')
        for result in side.results():
            if "failure" in result:
                summary.failures[result["file_name"]] = result["failure"]
            if "annotations" in result:
                summary.images += 1
                image = {"id": summary.images, **{key: result[key] for key in ("file_name", "height", "width")}}
                file.write(f"{',' if summary.images > 1 else ''}\n{json.dumps(image)}")
        file.write('], "annotations": [')
        per_image = (result["annotations"] for result in side.results() if "annotations" in result)
        for image_id, annotations in enumerate(per_image, start=1):
            for annotation in annotations:
                summary.instances += 1
                annotation |= {"id": summary.instances, "image_id": image_id}
                file.write(f"{',' if summary.instances > 1 else ''}\n{json.dumps(annotation)}")
        file.write("]}\n")
    return summary
