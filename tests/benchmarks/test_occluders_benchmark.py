from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import BenchmarkRow, format_rows
from benchmarks import occluders as benchmark
from benchmarks.occluders import benchmark_occluders, by_full_images, by_rle, coco_like_scenes


def test_random_scenes_are_those_of_their_seed_and_inside_the_image():
    scenes = coco_like_scenes(10, seed=3)
    assert scenes == coco_like_scenes(10, seed=3)
    assert scenes != coco_like_scenes(10, seed=4)
    boxes = np.concatenate([boxes for boxes, _, _ in scenes])
    assert boxes.min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max(axis=0).tolist() <= [640, 480]
    assert any(mask is not None for scene in scenes for mask in by_full_images(*scene))


def test_rows_of_random_scenes_and_of_a_file(tmp_path, monkeypatch):
    scenes = coco_like_scenes(2, (60, 80))
    monkeypatch.setattr(benchmark, "coco_like_scenes", lambda seed: scenes)
    (row,) = benchmark_occluders(repeats=2)
    assert len(row.ours) == len(row.theirs) == 2
    assert min([*row.ours, *row.theirs]) > 0

    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for image_id, (boxes, segmentations, (height, width)) in enumerate(scenes):
        content["images"].append({"id": image_id, "height": height, "width": width, "file_name": "a.jpg"})
        for box, segmentation in zip(boxes, segmentations, strict=True):
            content["annotations"].append({"image_id": image_id, "bbox": box, "segmentation": segmentation})
    content["annotations"].append({"image_id": 0, "bbox": [0, 0, 5, 5], "iscrowd": 1})
    for number, annotation in enumerate(content["annotations"]):
        annotation |= {"id": number, "category_id": 1}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    assert benchmark.read_scenes(str(path)) == scenes
    (row,) = benchmark_occluders(str(path), repeats=1, max_images=1)
    assert "1 images" in row.work and f"{len(scenes[0][0])} instances" in row.work
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(ValueError, match="no instances"):
        benchmark_occluders(str(path))


def test_disagreement_stops_the_benchmark(monkeypatch):
    monkeypatch.setattr(benchmark, "by_rle", lambda *scene: by_rle(*scene)[::-1])
    with pytest.raises(RuntimeError, match="disagree"):
        benchmark_occluders(repeats=1)


def test_the_table_shows_medians_ranges_and_ratio():
    row = BenchmarkRow("masks", "arrays", [2e-5, 1e-5, 4e-5], [0.004, 0.002, 0.003], "instance")
    assert row.ratio == 150
    assert row.to_json()["ours_median"] == 2e-5
    text = format_rows([row])
    assert "20 us (10-40)" in text and "3 ms (2-4)" in text and "150.0x" in text
