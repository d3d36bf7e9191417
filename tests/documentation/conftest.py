from __future__ import annotations

import json
import os
import shutil

import cv2
import pytest
import torch
from example_commands import ROOT
from PIL import Image, ImageOps
from small_models import write_small_data_set

from bcnet.checkpoint import write_checkpoint
from bcnet.config import load_config
from bcnet.data.formats import READER_REGISTRY
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.data.synthetic.shapes import CLASS_NAMES
from bcnet.evaluation import METRIC_REGISTRY
from bcnet.modeling import BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY, build_model
from bcnet.training.reproducibility import describe_run


@pytest.fixture(autouse=True)
def registries_restored(monkeypatch):
    """What an example registers in this process is gone after its test."""
    for registry in (BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY, METRIC_REGISTRY, READER_REGISTRY):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A checkout with what the examples of the pages take as given: scenes, a model, own data, photos."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("configs", "tools", "all.sh", "process.sh", "visualize.sh"):
        (folder / name).symlink_to(ROOT / name)
    for split in ("train", "val"):
        generate_dataset(folder / "datasets/synthetic", 4, SceneConfig.preset("easy"), seed=1, split=split)
    write_small_data_set(folder / "my")
    _split(folder / "my/annotations.json")
    with Image.open(folder / "datasets/synthetic/images/val/000000.png") as photo:
        for name in ("photo.jpg", "photos/1.jpg", "more/2.jpg"):
            (folder / name).parent.mkdir(exist_ok=True)
            photo.save(folder / name)
        photo.save(folder / "animation.gif", save_all=True, append_images=[ImageOps.mirror(photo)])
    _write_video(folder / "photo.jpg", folder / "walk.mp4")
    _write_results(folder / "datasets/synthetic/annotations/val.json", folder)
    _write_model(folder / "output/quick/model_final.pth")
    os.link(folder / "output/quick/model_final.pth", folder / "model_final.pth")
    return folder


def _split(annotation_file) -> None:
    """Its first three images as train.json, the others as val.json."""
    content = json.loads(annotation_file.read_text())
    for split, images in (("train", content["images"][:3]), ("val", content["images"][3:])):
        ids = {image["id"] for image in images}
        annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
        part = {**content, "images": images, "annotations": annotations}
        annotation_file.with_name(f"{split}.json").write_text(json.dumps(part))


def _write_video(photo, path) -> None:
    frame = cv2.imread(str(photo))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(2):
        writer.write(frame)
    writer.release()


def _write_results(annotation_file, folder) -> None:
    """A COCO file, and perfect results for it."""
    shutil.copy(annotation_file, folder / "val.json")
    annotations = json.loads(annotation_file.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [{key: annotation[key] for key in keys} | {"score": 0.9} for annotation in annotations]
    (folder / "coco_instances_results.json").write_text(json.dumps(results))


def _write_model(path) -> None:
    """The untrained model of the quick config as training would leave it; untrained, it finds something everywhere."""
    cfg = load_config("quick/bcnet_faster_rcnn.yaml", ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    content = {"model": build_model(cfg).state_dict(), "config": cfg.dump(), "class_names": list(CLASS_NAMES)}
    path.parent.mkdir(parents=True)
    write_checkpoint({**content, "iteration": 1}, str(path))
    (path.parent / "runs.jsonl").write_text(json.dumps(describe_run(seed=1)) + "\n")


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """A copy of the prepared folder for one page, and the working directory."""
    shutil.copytree(prepared, tmp_path / "checkout", symlinks=True)
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"
