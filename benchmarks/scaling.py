"""Scaling benchmarks: run time as a function of the number of detections, instances, pixels and images."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bcnet.bilayer import BilayerMaskHead, crop_layers, map_targets
from bcnet.data import load_dataset
from bcnet.data.occluder_annotations import convert_annotations
from bcnet.evaluation.report import markdown_table
from bcnet.fcos import assign_targets, level_points
from bcnet.files import write_json
from bcnet.maps import PUBLISHED_MAPS
from bcnet.occlusion import occluder_rles
from benchmarks.detectors import build_mask_rcnn, build_ours, equal_config
from benchmarks.evaluation import NUM_CLASSES
from benchmarks.occluders import coco_like_scenes
from benchmarks.paste import random_detections
from benchmarks.report import text_table
from benchmarks.scene import crowded_image
from benchmarks.settings import BenchmarkSettings

MIN_SECONDS = 1.0  # a point is repeated for this total time, at most `settings.repeats` times
REGIONS = 128  # sampled RoIs per image for the mask targets
INSTANCES_PER_IMAGE = 4  # maximum, for reading and conversion
STRIDES = (8, 16, 32, 64, 128)


@dataclass
class Curve:
    """Run time of a task as a function of the amount of its input.

    Attributes:
        work: the timed task.
        amounts: x, ascending.
        seconds: y, the minimum over the repetitions.
    """

    work: str
    amounts: list[int]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """The slope of a line fitted to the upper half of the points in the log-log plot: 1 is linear.

        The lower half is excluded because it is dominated by the fixed cost of a call.
        """
        first = (len(self.amounts) - 1) // 2
        slope, _ = np.polyfit(np.log(self.amounts[first:]), np.log(self.seconds[first:]), 1)
        return float(slope)

    def to_json(self) -> dict:
        return {
            "work": self.work,
            "amounts": self.amounts,
            "seconds": self.seconds,
            "exponent_of_the_upper_half": self.exponent,
        }


@dataclass
class Growth:
    """Curves that share an axis.

    Attributes:
        name: base name of its files.
        amount: label of the x axis.
        curves: at least one.
    """

    name: str
    amount: str
    curves: list[Curve]

    def format(self, *, markdown: bool = False) -> str:
        """A table with one row per amount."""
        header = [self.amount, *(f"{curve.work} [s]" for curve in self.curves)]
        lines = [header]
        for index, amount in enumerate(self.curves[0].amounts):
            lines.append([str(amount), *(f"{curve.seconds[index]:.4g}" for curve in self.curves)])
        lines.append(["exponent", *(f"{curve.exponent:.2f}" for curve in self.curves)])
        return (markdown_table if markdown else text_table)(lines)


def measure_growth(settings: BenchmarkSettings) -> Iterator[Growth]:
    """Runs all scaling benchmarks, one after the other."""
    yield growth_with_detections(settings)
    yield growth_with_instances(settings)
    yield growth_with_pixels(settings)
    yield growth_with_images(settings)


def growth_with_detections(settings: BenchmarkSettings) -> Growth:
    """The bilayer head for masks only, and pasting and encoding, for one image."""
    amounts = [2, 4, 8] if settings.quick else [10, 30, 100, 300, 1000]
    channels, size = (16, (120, 160)) if settings.quick else (256, (1080, 1920))
    torch.manual_seed(settings.seed)
    head = BilayerMaskHead(channels).to(settings.device).eval()
    features = torch.randn(amounts[-1], channels, 14, 14, device=settings.device)
    detections = random_detections(amounts[-1], size, seed=settings.seed).to(settings.device)

    @torch.no_grad()
    def run_head(count: int) -> None:
        with settings.autocast():
            head(features[:count], ["occludee_mask"])

    return Growth(
        "detections",
        "detections",
        [
            _curve("mask head, masks only", amounts, run_head, settings),
            _curve(
                f"paste and encode, {size[0]} x {size[1]}",
                amounts,
                lambda count: detections[:count].mask_rles(),
                settings,
            ),
        ],
    )


def growth_with_instances(settings: BenchmarkSettings) -> Growth:
    """Training targets of the instances of an image: occluder masks, RoI mask targets, assignment of FCOS locations."""
    amounts = [1, 3, 6] if settings.quick else [1, 3, 10, 30, 100, 300]
    size = settings.image_size
    image = crowded_image(amounts[-1], size, seed=settings.seed)
    boxes = np.concatenate([image.boxes[:, :2], image.boxes[:, 2:] - image.boxes[:, :2]], axis=1)
    rles = image.rles
    by_amount = {count: image.targets()[:count].to(settings.device) for count in amounts}
    points = [
        level_points(-(-size[0] // stride), -(-size[1] // stride), stride, device=settings.device) for stride in STRIDES
    ]

    def run_targets(count: int) -> None:
        targets = by_amount[count]
        instances = torch.arange(REGIONS, device=settings.device) % count
        masks = targets.masks
        map_targets(PUBLISHED_MAPS, crop_layers(masks, targets.boxes[instances], instances, 28))

    def run_assignment(count: int) -> None:
        targets = by_amount[count]
        assign_targets(
            points,
            STRIDES,
            [targets.boxes],
            [targets.classes],
            num_classes=NUM_CLASSES,
            center_sampling_radius=1.5,
            sizes_of_interest=(64, 128, 256, 512),
        )

    return Growth(
        "instances",
        "instances per image",
        [
            _curve("occluder rule", amounts, lambda n: occluder_rles(boxes[:n], rles[:n], [False] * n, size), settings),
            _curve(f"targets of {REGIONS} RoIs", amounts, run_targets, settings),
            _curve("FCOS assignment", amounts, run_assignment, settings),
        ],
    )


def growth_with_pixels(settings: BenchmarkSettings) -> Growth:
    """Inference of the whole detector, and of its backbone, on square images with sides of 400 to 2000 pixels."""
    sides = [32, 64, 96] if settings.quick else [400, 640, 960, 1400, 2000]
    cfg = equal_config(settings, settings.config)
    model = build_ours(cfg, build_mask_rcnn(cfg, settings.seed), settings.seed).eval()
    generator = torch.Generator().manual_seed(settings.seed)
    images = {
        side**2: [torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator).to(settings.device)]
        for side in sides
    }

    @torch.no_grad()
    def run_backbone(pixels: int) -> None:
        with settings.autocast():
            model.features(images[pixels])

    def run_detector(pixels: int) -> None:
        with settings.autocast():
            model.inference(images[pixels])

    return Growth(
        "pixels",
        "pixels of the image",
        [
            _curve("backbone and FPN", list(images), run_backbone, settings),
            _curve("whole detector", list(images), run_detector, settings),
        ],
    )


def growth_with_images(settings: BenchmarkSettings) -> Growth:
    """Reading a COCO json into records, and converting it (one worker), once each."""
    amounts = [5, 10, 20] if settings.quick else [1000, 3000, 10_000, 30_000, 100_000]
    reading, converting = [], []
    with tempfile.TemporaryDirectory() as folder:
        for count in amounts:
            path, output = os.path.join(folder, "annotations.json"), os.path.join(folder, "occluders.json")
            write_random_json(path, count, settings.seed)
            start = settings.clock()
            load_dataset(f"coco:{path}:{folder}")
            reading.append(settings.clock() - start)
            start = settings.clock()
            convert_annotations(path, output, workers=1)
            converting.append(settings.clock() - start)
            os.remove(output)
    return Growth(
        "images",
        f"images of up to {INSTANCES_PER_IMAGE} instances",
        [Curve("read a COCO json", amounts, reading), Curve("derive and write its occluders", amounts, converting)],
    )


def write_random_json(path: str, count: int, seed: int = 0) -> None:
    """Writes a COCO json of `count` images (500 distinct, repeated) with up to `INSTANCES_PER_IMAGE` shapes each."""
    scenes = coco_like_scenes(min(count, 500), seed=seed)
    texts = []
    for boxes, segmentations, _ in scenes:
        pairs = list(zip(boxes, segmentations, strict=True))[:INSTANCES_PER_IMAGE]
        texts.append([(json.dumps(box), box[2] * box[3], json.dumps(polygons)) for box, polygons in pairs])
    height, width = scenes[0][2]
    number = 0
    # Written in chunks: as Python objects, 100,000 images would take gigabytes.
    with open(path, "w", encoding="ascii") as file:
        images = (
            f'{{"id": {i}, "height": {height}, "width": {width}, "file_name": "{i}.jpg"}}' for i in range(1, count + 1)
        )
        file.write(
            '{"categories": [{"id": 1, "name": "shape"}], "images": [' + ",".join(images) + '], "annotations": ['
        )
        for image_id in range(1, count + 1):
            for box, area, polygons in texts[image_id % len(texts)]:
                number += 1
                file.write("," if number > 1 else "")
                file.write(
                    f'{{"id": {number}, "image_id": {image_id}, "category_id": 1, "iscrowd": 0, "bbox": {box}, '
                    f'"area": {area}, "segmentation": {polygons}}}'
                )
        file.write("]}")


def plot_growth(growth: Growth, path: str | os.PathLike) -> None:
    """Log-log plot with a line of linear growth through each curve's last point, and exponents in the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in growth.curves:
        (line,) = axes.plot(curve.amounts, curve.seconds, "o-", label=f"{curve.work}: exponent {curve.exponent:.2f}")
        linear = [curve.seconds[-1] * amount / curve.amounts[-1] for amount in curve.amounts]
        axes.plot(curve.amounts, linear, ":", color=line.get_color(), linewidth=1)
    axes.plot([], [], "k:", linewidth=1, label="linear")
    axes.set(xscale="log", yscale="log", xlabel=growth.amount, ylabel="seconds")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def write_growth(growth: Growth, folder: str | os.PathLike, environment: dict) -> None:
    """Writes ``<name>.png`` and ``<name>.json`` to a folder, which is created if missing."""
    os.makedirs(folder, exist_ok=True)
    plot_growth(growth, os.path.join(folder, f"{growth.name}.png"))
    content = {
        "amount": growth.amount,
        "curves": [curve.to_json() for curve in growth.curves],
        "environment": environment,
    }
    write_json(os.path.join(folder, f"{growth.name}.json"), content)


def _curve(work: str, amounts: Sequence[int], run: Callable[[int], object], settings: BenchmarkSettings) -> Curve:
    seconds = []
    run(amounts[0])
    for amount in amounts:
        fastest, spent, repeats = math.inf, 0.0, 0
        while repeats < settings.repeats and (repeats == 0 or spent < MIN_SECONDS):
            start = settings.clock()
            run(amount)
            elapsed = settings.clock() - start
            fastest, spent, repeats = min(fastest, elapsed), spent + elapsed, repeats + 1
        seconds.append(fastest)
    return Curve(work, list(amounts), seconds)
