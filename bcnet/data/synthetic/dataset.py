"""Writes synthetic scenes as a COCO data set: images and one json with exact visible and amodal masks."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from bcnet.data.synthetic.composition import Scene
from bcnet.data.synthetic.config import SceneConfig
from bcnet.data.synthetic.cutouts import CutoutLibrary, render_cutout_scene
from bcnet.data.synthetic.scene import render_scene
from bcnet.data.synthetic.shapes import CLASS_NAMES
from bcnet.files import atomic_write, read_json, write_json
from bcnet.ops.rle import RLE, rle_to_json

# Part of what a data set is recognised by: to be raised whenever the same parameters give other bytes.
GENERATOR_VERSION = 2
_CHUNK = 16  # scenes that a worker draws at a time
_ENCODING = {
    # Run-length matching is as tight as zlib's full search on grainy pictures, and twice as fast.
    "png": [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE],
    "jpg": [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
}

_SceneFunction = Callable[[int], Scene]


def generate_dataset(
    output_dir: str | os.PathLike,
    count: int,
    config: SceneConfig | None = None,
    seed: int = 0,
    workers: int = 0,
    split: str = "train",
    *,
    library: CutoutLibrary | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> str:
    """Writes ``count`` scenes, or finds that they are written already.

    The files are ``annotations/<split>.json`` and ``images/<split>/<index>.png``; file names in the json
    start at ``images``. The bytes depend on the arguments up to ``library`` without ``workers``, and scene i
    does not depend on ``count``. The json comes last and whole, so that an interrupted run leaves no json;
    its ``info`` holds the parameters, and a complete data set of the same parameters is used as it is.

    An annotation has COCO's keys for the visible part (``segmentation``, a compressed RLE; ``bbox``, tight
    around it; ``area``) and ``amodal_segmentation``, ``amodal_bbox``, ``amodal_area``, ``depth`` (0 nearest,
    unique in its image), ``hidden_fraction`` (1 - area / amodal_area). Amodal masks are clipped to the image.

    Args:
        output_dir: folder of all splits; made when missing.
        count: number of scenes, at least 1.
        config: what scenes look like; the default config when None.
        seed: not negative. Splits of one seed share no scene.
        workers: processes; 0 or 1 draws in this one.
        split: name of this part: letters, digits, ``_``, ``-`` and ``.``.
        library: compose cut-outs of this data set rather than procedural objects.
        overwrite: replace a data set of other parameters; never files that were not made here.
        progress: show a progress bar.

    Returns:
        str: path of the json.

    Raises:
        FileExistsError: a data set of other parameters lies there, and ``overwrite`` is False; or the json
            or the images there were not made here.
        ValueError: a count, seed or split that cannot be; what `CutoutLibrary` finds wrong with its source.
    """
    config = SceneConfig() if config is None else config
    if count < 1:
        raise ValueError(f"count is {count}; a data set has at least 1 scene")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must not be negative")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", split):
        raise ValueError(f"split is {split!r}; it must be a word of letters, digits, '_', '-' and '.'")
    image_root = os.path.join(output_dir, "images")
    annotation_file = os.path.join(output_dir, "annotations", f"{split}.json")
    info = _info(config, count, seed, split, library)
    if os.path.exists(annotation_file):
        existing = _read_json(annotation_file)
        if not isinstance(existing.get("info"), dict) or not isinstance(existing["info"].get("config"), dict):
            raise FileExistsError(f"{annotation_file} exists and was not made here; choose another folder or split")
        same = existing["info"] == info
        if same and all(os.path.isfile(os.path.join(image_root, i["file_name"])) for i in existing["images"]):
            return annotation_file
        if not same and not overwrite:
            raise FileExistsError(_difference(annotation_file, existing["info"], info))
        ours = True
    else:
        ours = False
    marker = _claim_image_folder(os.path.join(image_root, split), ours)
    if ours:
        os.remove(annotation_file)  # from here on the folder is incomplete, and no json says otherwise
    os.makedirs(os.path.dirname(annotation_file), exist_ok=True)

    if library is None:
        draw = partial(render_scene, config, seed, split=split)
    else:
        draw = partial(render_cutout_scene, library, config, seed, split=split)
    images, annotations = [], []
    job = _Job(draw, image_root, split, config)
    with tqdm(total=count, unit="scene", desc=split, disable=not progress) as bar:
        for image, objects in _run(job, count, workers):
            images.append(image)
            annotations += objects
            bar.update()
    content = {"info": info, "images": images, "annotations": annotations, "categories": _categories(library)}
    write_json(annotation_file, content, indent=None)
    os.remove(marker)
    return annotation_file


class _Job:
    """Draws and writes one scene; sent to the workers once."""

    def __init__(self, draw: _SceneFunction, image_root: str, split: str, config: SceneConfig) -> None:
        self.draw = draw
        self.image_root = image_root
        self.split = split
        self.config = config

    def __call__(self, index: int) -> tuple[dict, list[dict]]:
        scene = self.draw(index)
        extension = self.config.image_format
        file_name = f"{self.split}/{index:06d}.{extension}"
        path = os.path.join(self.image_root, file_name)
        _, encoded = cv2.imencode(f".{extension}", scene.image[..., ::-1], _ENCODING[extension])
        with atomic_write(path, "wb", sync=False) as file:
            file.write(encoded.tobytes())
        height, width = scene.image.shape[:2]
        image = {"id": index, "file_name": file_name, "height": height, "width": width}
        # Ids count from 1 (COCO's evaluation takes 0 for "no match") and depend on the scene's number alone.
        return image, scene_annotations(scene, index, first_id=index * self.config.max_objects + 1)


def scene_annotations(scene: Scene, image_id: int, first_id: int = 1) -> list[dict]:
    """The COCO annotations of a scene (JSON values), nearest object first; keys as in `generate_dataset`."""
    return [
        {
            "id": first_id + instance.depth,
            "image_id": image_id,
            "category_id": instance.category_id,
            "iscrowd": 0,
            "bbox": list(instance.bbox),
            "area": instance.visible_area,
            "segmentation": _encoded(instance.visible_mask),
            "amodal_bbox": list(instance.amodal_bbox),
            "amodal_area": instance.amodal_area,
            "amodal_segmentation": _encoded(instance.amodal_mask),
            "depth": instance.depth,
            "hidden_fraction": instance.hidden_fraction,
        }
        for instance in scene.objects
    ]


def _encoded(mask: np.ndarray) -> RLE:
    """Compressed RLE of a bool [H, W] mask, as JSON values."""
    return rle_to_json(coco_mask.encode(np.asfortranarray(mask.view(np.uint8))))


_worker_job: _Job  # of a worker process, set when it starts


def _initialise_worker(job: _Job) -> None:
    global _worker_job
    _worker_job = job
    cv2.setNumThreads(0)  # one process per core already; and OpenCV's threads do not survive a fork


def _draw_in_worker(index: int) -> tuple[dict, list[dict]]:
    return _worker_job(index)


def _run(job: _Job, count: int, workers: int) -> Iterator[tuple[dict, list[dict]]]:
    """Image and annotations of each scene, in order."""
    if workers <= 1:
        yield from map(job, range(count))
        return
    # A fork shares the cut-outs' source and needs no guard in the caller's script; other systems spawn.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with context.Pool(min(workers, count), _initialise_worker, (job,)) as pool:
        yield from pool.imap(_draw_in_worker, range(count), chunksize=_CHUNK)


def _info(config: SceneConfig, count: int, seed: int, split: str, library: CutoutLibrary | None) -> dict:
    return {
        "description": "Synthetic scenes with occlusion and exact amodal truth, made by bcnet",
        "version": GENERATOR_VERSION,
        "count": count,
        "seed": seed,
        "split": split,
        "config": config.to_dict(),
        "source": None if library is None else library.parameters(),
    }


def _categories(library: CutoutLibrary | None) -> list[dict]:
    if library is None:
        return [{"id": index + 1, "name": name} for index, name in enumerate(CLASS_NAMES)]
    names = zip(library.info.category_ids, library.info.class_names, strict=True)
    return [{"id": category_id, "name": name} for category_id, name in names]


def _read_json(path: str) -> dict:
    try:
        content = read_json(path)
    except ValueError:  # not JSON: certainly not ours
        content = None
    return content if isinstance(content, dict) else {}


def _difference(annotation_file: str, existing: dict, wanted: dict) -> str:
    old, new = ({**info, **info["config"], "config": None} for info in (existing, wanted))
    changed = [f"{key} is {old.get(key)!r}, not {value!r}" for key, value in new.items() if old.get(key) != value]
    return (
        f"{annotation_file} exists with other parameters: {'; '.join(changed)}. "
        "Choose another folder or split, or overwrite it"
    )


def _claim_image_folder(folder: str, ours: bool) -> str:
    """Makes the folder, or empties it of the images of an earlier run; never touches a stranger's images.

    Returns the path of a file that marks the folder as ours as long as there is no json to say so.
    """
    marker = os.path.join(folder, ".incomplete")
    os.makedirs(folder, exist_ok=True)
    if not ours and not os.path.exists(marker) and os.listdir(folder):
        raise FileExistsError(f"{folder} holds files that were not made here; choose another folder or split")
    with open(marker, "w", encoding="utf-8"):
        pass
    for name in os.listdir(folder):
        if re.fullmatch(r"\d{6,}\.(png|jpg)", name):
            os.remove(os.path.join(folder, name))
    return marker
