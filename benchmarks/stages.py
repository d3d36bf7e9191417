"""Profile of inference and training iterations by stage, for bcnet and torchvision."""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn
from torch.utils.benchmark import timer
from torchvision.models.detection import roi_heads as torchvision_roi_heads

from bcnet.data import DatasetMapper, ImageRecord, InstanceRecord
from bcnet.evaluation.report import markdown_table
from bcnet.modeling import Detector
from benchmarks.detectors import build_mask_rcnn, build_ours, equal_config
from benchmarks.inference import inference_models, our_inference
from benchmarks.occluders import coco_like_scenes
from benchmarks.report import format_amount, text_table
from benchmarks.settings import BenchmarkSettings
from benchmarks.training import BATCH, TrainingStep, describe_batch, our_step, peer_step, training_images

DATA, PREPARE, BACKBONE, FPN, DETECTOR = "data (mapper)", "normalise and pad", "backbone", "FPN", "RPN and box branch"
ROI_ALIGN, MASK_HEAD, PASTE, ENCODE = "RoIAlign", "mask head", "paste", "encode as RLE"
TARGETS, BACKWARD, OPTIMIZER, REST = "mask targets and losses", "backward", "optimizer", "everything else"
INFERENCE_STAGES = (DATA, PREPARE, BACKBONE, FPN, DETECTOR, ROI_ALIGN, MASK_HEAD, PASTE, ENCODE, REST)
TRAINING_STAGES = (DATA, PREPARE, BACKBONE, FPN, DETECTOR, ROI_ALIGN, MASK_HEAD, TARGETS, BACKWARD, OPTIMIZER, REST)


@dataclass
class StageTable:
    """Seconds of the stages of a task.

    Attributes:
        name: name of the table in the json.
        work: the task and its input.
        ours, theirs: seconds of each repetition by stage; stages that an implementation lacks are absent.
    """

    name: str
    work: str
    ours: dict[str, list[float]]
    theirs: dict[str, list[float]]

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "work": self.work,
            "ours": _shares(self.ours),
            "peer": _shares(self.theirs),
        }

    def format(self, *, markdown: bool = False) -> str:
        """A table of medians with the range over the repetitions, and their shares of the sum of medians."""
        cells: list[tuple[str, ...]] = [("stage", "ours: median (range)", "share", "peer: median (range)", "share")]
        for stage in self.ours:
            line = [stage]
            for side in (self.ours, self.theirs):
                has_stage = stage in side
                line += (
                    [format_amount(side[stage]), f"{_shares(side)[stage]['share']:.1%}"] if has_stage else ["-", "-"]
                )
            cells.append(tuple(line))
        return f"{self.work}\n{(markdown_table if markdown else text_table)(cells)}"


def stage_tables(settings: BenchmarkSettings) -> list[StageTable]:
    """Stages of an inference and of a training iteration of Faster R-CNN with the bilayer head.

    "paste" is into full images. "encode" is `Detections.mask_rles` on our side, which starts from the masks of the RoI
    frame and needs no paste before it.
    """
    return [inference_stages(settings), training_stages(settings)]


def inference_stages(settings: BenchmarkSettings) -> StageTable:
    ours, _, peer, image = inference_models(settings)
    cfg = equal_config(settings, settings.config)
    run_ours = our_inference(ours, image, settings, pasted=False)
    peer_images = [(image / 255).to(settings.device)]
    height, width = settings.image_size

    with mapped_records(1) as records:
        mapper = DatasetMapper.from_config(cfg, training=False)

        def our_run(watch: Stopwatch) -> None:
            with watch.stage(DATA):
                for record in records:
                    mapper(record)
            detections = run_ours()
            with watch.stage(PASTE):
                _ = detections.masks
            with watch.stage(ENCODE):
                detections.mask_rles()

        def peer_run(watch: Stopwatch) -> None:
            with torch.no_grad(), settings.autocast():
                (detections,) = peer(peer_images)
            with watch.stage(PASTE):
                masks = (detections["masks"][:, 0] > 0.5).cpu().numpy().astype(np.uint8)
            with watch.stage(ENCODE):
                for mask in masks:
                    coco_mask.encode(np.asfortranarray(mask))

        work = f"inference, {height} x {width}, {settings.precision}, {settings.detections} detections"
        return _table(
            "stages-inference",
            work,
            INFERENCE_STAGES,
            (our_run, functools.partial(_watch_ours, ours)),
            (peer_run, functools.partial(_watch_peer, peer)),
            settings,
        )


def training_stages(settings: BenchmarkSettings) -> StageTable:
    cfg = equal_config(settings, settings.config)
    peer = build_mask_rcnn(cfg, settings.seed, settings.peer_memory_format).train()
    model = build_ours(cfg, peer, settings.seed).train()
    images = training_images(settings)
    our_iteration, peer_iteration = our_step(model, cfg, images, settings), peer_step(peer, images, settings)

    with mapped_records(BATCH) as records:
        mapper = DatasetMapper.from_config(cfg, training=True)
        random = np.random.default_rng(settings.seed)

        def our_run(watch: Stopwatch) -> None:
            with watch.stage(DATA):
                for record in records:
                    mapper(record, random)
            our_iteration()

        def watch_step(step: TrainingStep, watch_model: Callable, watch: Stopwatch) -> None:
            watch_model(watch)
            watch.method(step, "backward", BACKWARD)
            watch.method(step, "update", OPTIMIZER)

        return _table(
            "stages-training",
            f"training iteration, {describe_batch(settings)}, {settings.instances} foreground RoIs each",
            TRAINING_STAGES,
            (our_run, functools.partial(watch_step, our_iteration, functools.partial(_watch_ours, model))),
            (
                lambda _watch: peer_iteration(),
                functools.partial(watch_step, peer_iteration, functools.partial(_watch_peer, peer)),
            ),
            settings,
        )


class Stopwatch(contextlib.ExitStack):
    """Measures the exclusive time of (nested) stages. On exit, patched methods are restored.

    torch's timer synchronises with the accelerator at both ends of a stage, so kernels of two stages never overlap, and
    the sum is slightly larger than the time without stages.
    """

    def __init__(self, clock: Callable[[], float] = timer) -> None:
        super().__init__()
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Context whose time is attributed to a stage."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def method(self, owner: object, attribute: str, stage: str) -> None:
        """Patches a function or method of an object (or module) to attribute its time to a stage, until exit."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*args, **keywords):
            with self.stage(stage):
                return original(*args, **keywords)

        self.enter_context(mock.patch.object(owner, attribute, watched))

    def _charge(self) -> None:
        now = self.clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def mapped_records(count: int, size: tuple[int, int] = (480, 640)) -> Iterator[list[ImageRecord]]:
    """Records of JPEG files of COCO's usual image size, annotated with `coco_like_scenes`."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for index, (boxes, segmentations, _) in enumerate(coco_like_scenes(count, size)):
            path = os.path.join(folder, f"{index}.jpg")
            coarse = Image.fromarray(random.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8))
            coarse.resize((size[1], size[0]), Image.Resampling.BILINEAR).save(
                path
            )  # with pure noise, JPEG decoding would dominate
            instances = [
                InstanceRecord(bbox=box, category=0, segmentation=segmentation)
                for box, segmentation in zip(boxes, segmentations, strict=True)
            ]
            records.append(ImageRecord(path, index, *size, instances))
        yield records


def _watch_ours(model: Detector, watch: Stopwatch) -> None:
    watch.method(model, "features", PREPARE)
    watch.method(model.backbone, "forward", BACKBONE)
    watch.method(model.get_submodule("backbone.fpn"), "forward", FPN)
    for name in ("detect", "detection_losses"):
        watch.method(model, name, DETECTOR)
    for pooler in ("box_branch.pooler", "mask_branch.pooler"):
        watch.method(model.get_submodule(pooler), "forward", ROI_ALIGN)
    watch.method(model.get_submodule("mask_branch.head"), "forward", MASK_HEAD)
    watch.method(model.get_submodule("mask_branch"), "losses", TARGETS)


def _watch_peer(model: nn.Module, watch: Stopwatch) -> None:
    for name, stage in (
        ("transform", PREPARE),
        ("backbone", BACKBONE),
        ("backbone.fpn", FPN),
        ("rpn", DETECTOR),
        ("roi_heads", DETECTOR),
        ("roi_heads.box_roi_pool", ROI_ALIGN),
        ("roi_heads.mask_roi_pool", ROI_ALIGN),
        ("roi_heads.mask_head", MASK_HEAD),
        ("roi_heads.mask_predictor", MASK_HEAD),
    ):
        watch.method(model.get_submodule(name), "forward", stage)
    watch.method(torchvision_roi_heads, "maskrcnn_loss", TARGETS)
    watch.method(model.get_submodule("transform"), "postprocess", PASTE)


def _table(
    name: str, work: str, stages: Sequence[str], ours: tuple, theirs: tuple, settings: BenchmarkSettings
) -> StageTable:
    """Runs both sides, (function of a stopwatch, patching function) each, interleaved, after an untimed run."""
    seconds: list[dict[str, list[float]]] = [defaultdict(list), defaultdict(list)]
    for repeat in range(settings.repeats + 1):
        for side, (run, watch_parts) in zip(seconds, (ours, theirs), strict=True):
            with Stopwatch(settings.clock) as watch:
                watch_parts(watch)
                with watch.stage(REST):
                    run(watch)
            if repeat > 0:
                for stage in stages:
                    if stage in watch.seconds:
                        side[stage].append(watch.seconds[stage])
    return StageTable(name, work, *map(dict, seconds))


def _shares(side: dict[str, list[float]]) -> dict[str, dict]:
    medians = {stage: statistics.median(values) for stage, values in side.items()}
    total = sum(medians.values())
    return {
        stage: {"seconds": values, "median": medians[stage], "share": medians[stage] / total}
        for stage, values in side.items()
    }
