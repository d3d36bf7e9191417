"""Occluder conversion (`process.sh`, ``bcnet data annotate``): adds occluder masks to the annotations of a COCO json.

The results of the worker processes are appended, image by image, to a side file next to the output, from which the
output is assembled at the end. The order is always that of the input, so the output is byte-identical for any number
of workers and interruptions.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import numpy as np
from tqdm import tqdm

from bcnet.data.coco import mask_reader
from bcnet.data.occlusion_statistics import OcclusionStatistics
from bcnet.data.reader import CocoReader, ReadImage
from bcnet.data.source_masks import depth_order, visible_rle
from bcnet.files import atomic_write, parse_json
from bcnet.occlusion.rule import IOU_THRESHOLD, MIN_PIXELS, occluder_rles
from bcnet.occlusion.shares import covered_share, occluder_share
from bcnet.ops.outline import rle_to_polygons
from bcnet.ops.rle import rle_to_json
from bcnet.side_file import SideFile

FORMATS = ("rle", "polygon")
KEY = "bg_object_segmentation"
IMAGES_PER_TASK = 32


def convert_annotations(
    input_file: str,
    output_file: str,
    *,
    format: str = "rle",
    workers: int = 1,
    overwrite: bool = False,
    iou_threshold: float = IOU_THRESHOLD,
    min_pixels: int = MIN_PIXELS,
    progress: bool = False,
) -> OcclusionStatistics:
    """Copies a COCO json with ``bg_object_segmentation`` set for every annotation.

    Its value is the occluder mask by the rule of `occluder_rles`, or an empty list if there is none (also for crowds,
    and for annotations that training would reject, which are not occluders either: see `bcnet.data.coco`). If all
    objects of an image have a ``depth``, only those in front count. All other content is copied unchanged. The masks
    equal those that training with visible masks derives from the input itself (`bcnet.data`).

    - "rle": ``{"size": [H, W], "counts": string}``, exact. The published code cannot read it.
    - "polygon": a list of polygons, as the published code reads it; they rasterise to the same mask.

    If interrupted, it leaves ``<output>.partial``; the same call resumes from it and writes the same bytes.

    Args:
        input_file, output_file: paths of the jsons.
        workers: number of worker processes; 1 or less runs in this process. Workers import the main module, so a script
            that uses them needs the guard ``if __name__ == "__main__"``.
        overwrite: replace an existing output, and discard partial results of another input or other options.
        iou_threshold, min_pixels: parameters of `occluder_rles`.
        progress: show a progress bar, if stderr is a terminal.

    Raises:
        FileExistsError: the output exists and `overwrite` is not set.
        ValueError: an unknown format; output and input are the same file; the input is not a COCO json; the side file
            holds partial results of another input or of other options.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    check_output(input_file, output_file, overwrite)
    with open(input_file, "rb") as file:
        text = file.read()
    content = parse_json(text, input_file, lazy_lists=("annotations",))
    reader = mask_reader(content, input_file, masks_required=True)
    options = {"format": format, "iou_threshold": iou_threshold, "min_pixels": min_pixels}
    description = {"side_file": 2, "input_sha256": hashlib.sha256(text).hexdigest(), **options}
    del text
    side = SideFile(output_file + ".partial", description, restart=overwrite)
    try:
        tasks = _tasks(reader, side.count, options)
        with tqdm(
            total=len(content["images"]),
            initial=side.count,
            unit="image",
            disable=None if progress else True,
            desc="occluders",
        ) as bar:
            for lines in _map_in_order(tasks, workers):
                side.append(lines)
                bar.update(len(lines))
        statistics, occluders = _gather(side)
        statistics.images = len(content["images"])
        statistics.annotations = len(content["annotations"])
        statistics.add_findings(reader.findings)
        _write(content, occluders, output_file)
        side.remove()
    finally:
        side.close()
    return statistics


def check_output(input_file: str, output_file: str, overwrite: bool) -> None:
    """Raises if writing the output would lose the input, or an existing file without `overwrite`."""
    for path in (output_file, output_file + ".partial"):
        if os.path.exists(path) and os.path.exists(input_file) and os.path.samefile(input_file, path):
            raise ValueError(f"the output {output_file} would overwrite the input {input_file}")
    if os.path.exists(output_file) and not overwrite:
        raise FileExistsError(f"{output_file} exists; pass --overwrite to replace it")


def _tasks(reader: CocoReader, start: int, options: dict) -> Iterator[tuple[list[ReadImage], dict]]:
    """The tasks of the workers: images from number `start` on; earlier ones are read only for the findings."""
    images = itertools.islice(reader, start, None)
    while batch := list(itertools.islice(images, IMAGES_PER_TASK)):
        yield batch, options


def _process(task: tuple[list[ReadImage], dict]) -> list[str]:
    """The lines of the side file for a task's images."""
    images, options = task
    return [json.dumps(_process_image(image, **options)) for image in images]


def _process_image(image: ReadImage, format: str, iou_threshold: float, min_pixels: int) -> dict:
    record = image.record
    objects = [number for number, instance in enumerate(record.instances) if not instance.iscrowd]
    masks = [visible_rle(record, record.instances[number]) for number in objects]
    occluders = occluder_rles(
        [record.instances[number].bbox for number in objects],
        masks,
        [False] * len(objects),
        (record.height, record.width),
        iou_threshold=iou_threshold,
        min_pixels=min_pixels,
        in_front=np.logical_or(*depth_order(record, objects)),
    )
    positions = [image.annotations[number] for number in objects]
    occluded = [
        (position, mask, occluder)
        for position, mask, occluder in zip(positions, masks, occluders, strict=True)
        if occluder is not None
    ]
    to_json = rle_to_json if format == "rle" else rle_to_polygons
    return {
        "occluders": [[position, to_json(occluder)] for position, _, occluder in occluded],
        "crowds": len(record.instances) - len(objects),
        "instances": len(objects),
        "occluder_share": sum(occluder_share(mask, occluder) for _, mask, occluder in occluded),
        "covered_share": sum(covered_share(mask, occluder) for _, mask, occluder in occluded),
    }


def _map_in_order(tasks: Iterator[tuple], workers: int) -> Iterator[list[str]]:
    """The results of `_process`, in order, with a bounded number of pending tasks."""
    if workers <= 1:
        yield from map(_process, tasks)
        return
    executor = concurrent.futures.ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)
    try:
        pending: deque[concurrent.futures.Future] = deque()
        for task in tasks:
            pending.append(executor.submit(_process, task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """Start method of workers: not a fork of this process, which would copy its annotations page by page."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once for all workers
    return context


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: BaseProcess) -> None:
    """Ends this process when its parent ends: a killed parent cannot end its workers."""
    parent.join()
    os._exit(1)


def _gather(side: SideFile) -> tuple[OcclusionStatistics, dict[int, str]]:
    """Totals over all images, and the occluders as JSON strings by the position of their annotation."""
    statistics = OcclusionStatistics()
    occluders: dict[int, str] = {}
    for result in side.results():
        # JSON strings take a tenth of the memory of lists of numbers.
        occluders.update((position, json.dumps(value)) for position, value in result["occluders"])
        statistics.crowds += result["crowds"]
        statistics.instances += result["instances"]
        statistics.occluded += len(result["occluders"])
        statistics.occluder_share += result["occluder_share"]
        statistics.covered_share += result["covered_share"]
    return statistics, occluders


def _write(content: dict, occluders: dict[int, str], output_file: str) -> None:
    """Writes the input's content with the occluders, in chunks, so that memory use stays constant."""
    with atomic_write(output_file) as file:
        for number, (key, value) in enumerate(content.items()):
            file.write(("{" if number == 0 else ", ") + json.dumps(key) + ": ")
            if key != "annotations":
                file.write(json.dumps(value))
                continue
            file.write("[")
            for position, annotation in enumerate(value):
                separator = ", " if position else ""
                if not isinstance(annotation, dict):  # malformed; reported by the statistics
                    file.write(separator + json.dumps(annotation))
                    continue
                occluder = json.loads(occluders.get(position, "[]"))
                file.write(separator + json.dumps(annotation | {KEY: occluder}))
            file.write("]")
        file.write("}")
