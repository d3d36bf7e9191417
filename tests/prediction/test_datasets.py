"""`evaluate` on data sets of each kind: what it compares with, what it writes."""

import json

import pytest
from small_models import small_config, write_small_data_set

from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.modeling import build_model
from bcnet.prediction import evaluate
from bcnet.prediction.datasets import folder_name


def scenes(folder):
    config = SceneConfig.preset("easy", image_size=64)
    annotations = generate_dataset(folder, 3, config, seed=1, split="val")
    return f"coco:{annotations}:{folder / 'images'}"


def evaluated(tmp_path, dataset, **overrides):
    """Metrics and folder of an untrained model, which finds something everywhere."""
    cfg = small_config(DATASETS__TEST=(dataset,), OUTPUT_DIR=str(tmp_path / "out"), **overrides)
    metrics = evaluate(cfg, build_model(cfg).eval())
    return metrics[dataset], tmp_path / "out" / "inference" / folder_name(dataset)


@pytest.mark.parametrize("target", ["visible", "amodal"])
def test_masks_are_compared_with_what_the_model_learns(tmp_path, target):
    dataset = scenes(tmp_path / "scenes")
    metrics, folder = evaluated(tmp_path, dataset, INPUT__MASK_TARGET=target, MODEL__ROI_HEADS__NUM_CLASSES=6)
    assert metrics["mask_target"] == target
    for task in ("bbox", "segm", "boundary", "occlusion", "overlap", "recall", "amodal", "hidden_part", "order"):
        assert task in metrics
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved.keys() == metrics.keys()
    # The order of depth is known here, so the results say who hides whom.
    results = json.loads((folder / "coco_instances_results.json").read_text())
    assert all({"number", "occluded_by", "depth"} <= result.keys() for result in results)
    assert metrics["order"]["pairs"] > 0


def test_without_an_order_nobody_pays_for_relations(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "bcnet.prediction.datasets.with_relations", lambda found: asked.append(found.occluder_mask) or found
    )
    metrics, folder = evaluated(tmp_path, write_small_data_set(tmp_path / "data", images=2))
    assert asked == [None, None]  # the occluder layer's decoders were not run
    assert "order" not in metrics
    results = json.loads((folder / "coco_instances_results.json").read_text())
    assert results and "occluded_by" not in results[0]


def test_amodal_masks_that_the_data_set_lacks_are_asked_for(tmp_path):
    dataset = write_small_data_set(tmp_path / "data", images=1)
    with pytest.raises(
        ValueError, match=r"annotations\.json: not every annotation has an amodal_segmentation.*'amodal'"
    ):
        evaluated(tmp_path, dataset, INPUT__MASK_TARGET="amodal")


def test_a_set_without_annotations_gives_files_for_the_server(tmp_path):
    dataset = write_small_data_set(tmp_path / "data", images=2)
    path = tmp_path / "data" / "image_info_test-dev2017.json"
    content = json.loads((tmp_path / "data" / "annotations.json").read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    metrics, folder = evaluated(tmp_path, dataset.replace("annotations.json", path.name), INPUT__MASK_TARGET="amodal")
    assert metrics == {}
    for task in ("bbox", "segm"):
        assert (folder / "submission" / task / "detections_test-dev2017_bcnet_results.zip").is_file()
