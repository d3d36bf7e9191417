"""Detections of image files, written as a COCO json and as pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask as maskUtils
from PIL import Image
from tqdm import tqdm

import bcnet
from bcnet.data import UnreadableImageError, image_array
from bcnet.files import write_json
from bcnet.prediction.predictor import Predictor
from bcnet.structures import Detections

logger = logging.getLogger(__name__)

PICTURE_SIDES = (800, 1200)  # bounds of a panel's longer side, pixels
READ_AHEAD = 4  # batches that are read together, so that images of one size find each other


@dataclass
class PredictionSummary:
    """What came of the images.

    Attributes:
        images: images in which the model has looked for instances.
        instances: what it found.
        failures: for each image that could not be read, why, with its name.
    """

    images: int = 0
    instances: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.instances} instances in {self.images} images"
        return f"{text}, {len(self.failures)} images could not be read" if self.failures else text


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
    progress: bool = True,
) -> PredictionSummary:
    """Writes what a model finds in image files as one COCO json, which annotation tools and pycocotools read.

    Its annotations have ``score`` beside COCO's keys and, with the occluder layer, ``number``, ``occluded_by`` and
    ``depth`` (`Detections.to_coco`) and ``occluder_segmentation``. The categories are the model's classes, with the
    ids 1..K. An image that cannot be read is logged by name and left out.

    Args:
        model: as `bcnet.load` gives it.
        files: paths of image files, or addresses.
        output: the json file; its folder is made when missing.
        pictures: folder for a picture of each image (`bcnet.visualization.draw_layers`).
        with_occluder, score_threshold, mask_threshold, max_detections, batch_size: as `Predictor.predict` takes them.
        progress: show a progress bar.

    Raises:
        ValueError: a threshold out of range.
        OSError: the output cannot be written.
    """
    summary = PredictionSummary()
    images: list[dict] = []
    annotations: list[dict] = []
    bar = tqdm(total=len(files), desc="Predicting", unit="img", disable=not progress)
    with bar:
        for chunk in _chunks(_readable(files, summary, bar), READ_AHEAD * batch_size):
            found = model.predict(
                [pixels for _, pixels in chunk],
                "RGB",
                with_occluder=with_occluder,
                score_threshold=score_threshold,
                mask_threshold=mask_threshold,
                max_detections=max_detections,
                batch_size=batch_size,
            )
            for (file, pixels), detections in zip(chunk, found, strict=True):
                height, width = pixels.shape[:2]
                images.append({"id": len(images) + 1, "file_name": file, "height": height, "width": width})
                annotations += _annotations(detections, len(images), len(annotations), model.num_classes)
                if pictures is not None:
                    _draw(pixels, detections, pictures, images[-1])
                bar.update()
    summary.images, summary.instances = len(images), len(annotations)
    content = {
        "info": {"description": f"found by bcnet {bcnet.__version__}"},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": label + 1, "name": model.class_names[label] if model.class_names else f"class {label}"}
            for label in range(model.num_classes)
        ],
    }
    write_json(output, content, indent=None)
    return summary


def _readable(files: Iterable[str], summary: PredictionSummary, bar: tqdm) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        try:
            yield file, image_array(file, wanted="RGB")
        except UnreadableImageError as error:
            summary.failures.append(str(error))
            logger.warning("%s", error)
            bar.update()


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _annotations(detections: Detections, image_id: int, before: int, num_classes: int) -> list[dict]:
    """COCO annotations, with ids that follow those of the `before` annotations that there are."""
    annotations = detections.to_coco(image_id, range(1, num_classes + 1))
    if detections.occluder_mask is not None:
        for annotation, rle in zip(annotations, detections.mask_rles("occluder_mask"), strict=True):
            annotation["occluder_segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
    for number, annotation in enumerate(annotations, start=before + 1):
        _, _, width, height = annotation["bbox"]
        mask = annotation.get("segmentation")
        area = float(maskUtils.area(mask)) if mask is not None else width * height
        annotation |= {"id": number, "area": area, "iscrowd": 0}
    return annotations


def _draw(pixels: np.ndarray, detections: Detections, folder: str | os.PathLike, image: dict) -> None:
    # Imported here: the fonts and colours of pictures take a second.
    from bcnet.visualization import draw_layers

    low, high = PICTURE_SIDES
    side = min(max(max(pixels.shape[:2]), low), high)
    picture = draw_layers(np.ascontiguousarray(pixels), detections, long_side=side, numbered=True)
    stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
    os.makedirs(folder, exist_ok=True)
    Image.fromarray(picture).save(os.path.join(folder, f"{image['id']:06d}_{stem}.jpg"), quality=92)
