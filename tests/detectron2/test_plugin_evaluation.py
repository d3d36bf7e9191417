"""bcnet's metrics as a detectron2 evaluator, and `Instances` as `Detections`."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import json
import logging
import pathlib
import shutil

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import hooks
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, Instances
from plugin_samples import FASTER_RCNN, SIZES, both_hosts, images, inputs, plugin_cfg
from scene_detections import detections_of, write_scenes

from bcnet.data import load_dataset
from bcnet.detectron2 import (
    BCNetEvaluator,
    all_maps,
    detections_to_instances,
    instances_to_detections,
    register_datasets,
)
from bcnet.detectron2.datasets import record_to_dict
from bcnet.detectron2.train import BCNetTrainer
from bcnet.evaluation import CocoEvaluator, flat_metrics, ground_truth_of
from bcnet.occlusion import with_relations
from bcnet.visualization import draw_layers


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    spec = write_scenes(tmp_path_factory.mktemp("scenes"))
    register_datasets([spec])
    return spec


def engine_metrics(spec, detections, mask_target="visible"):
    evaluator = CocoEvaluator(ground_truth_of(spec, mask_target))
    for image_id, found in detections.items():
        evaluator.update(image_id, with_relations(found))
    return evaluator.compute()


def plugin_metrics(name, detections, output_dir=None, change=lambda instances: instances, **keywords):
    evaluator = BCNetEvaluator(name, output_dir, **keywords)
    evaluator.reset()
    for image_id, found in detections.items():
        evaluator.process([{"image_id": image_id}], [{"instances": change(found.to_detectron2())}])
    return evaluator.evaluate()


def assert_equal_metrics(found, expected):
    expected = {name: values for name, values in expected.items() if isinstance(values, dict)}
    assert found.keys() == expected.keys()
    for task, values in expected.items():
        flat = flat_metrics(values)
        assert found[task].keys() == flat.keys()
        for key, value in flat.items():
            np.testing.assert_allclose(found[task][key], value, rtol=0, atol=1e-6, err_msg=f"{task} {key}")


@pytest.mark.parametrize("mask_target", ["visible", "amodal"])
def test_every_metric_of_the_engine_on_the_same_detections(scenes, tmp_path, mask_target):
    detections = detections_of(scenes, mask_target)
    expected = engine_metrics(scenes, detections, mask_target)
    found = plugin_metrics(scenes, detections, tmp_path, mask_target=mask_target)
    assert found.keys() >= {"bbox", "segm", "boundary", "amodal", "hidden_part", "occlusion", "order"}
    assert 10 < found["segm"]["AP"] < 100 and found["order"]["accuracy"] > 0
    assert_equal_metrics(found, expected)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["segm"]["AP"] == expected["segm"]["AP"] and written["mask_target"] == mask_target


def test_amodal_masks_are_not_scored_against_visible_ones(scenes):
    detections = detections_of(scenes, "amodal")
    right = plugin_metrics(scenes, detections, mask_target="amodal")
    wrong = plugin_metrics(scenes, detections, mask_target="visible")
    assert right["segm"]["AP"] > wrong["segm"]["AP"] + 1
    cfg = plugin_cfg(FASTER_RCNN, "INPUT.MASK_TARGET", "amodal", "DATASETS.TEST", (scenes,))
    assert BCNetTrainer.build_evaluator(cfg, scenes)._truth.mask_target == "amodal"


@pytest.mark.parametrize("registered", ["detectron2", "dicts"])
def test_data_sets_that_were_registered_in_other_ways(scenes, registered):
    _, annotations, root = scenes.split(":")
    name = f"scenes_by_{registered}"
    if name not in DatasetCatalog.list():
        records, info = load_dataset(scenes)
        if registered == "detectron2":
            register_coco_instances(name, {}, annotations, root)
        else:
            DatasetCatalog.register(name, lambda: [record_to_dict(record) for record in records])
            MetadataCatalog.get(name).set(thing_classes=list(info.class_names))
    detections = detections_of(scenes)
    found = plugin_metrics(name, detections)
    assert_equal_metrics(found, engine_metrics(scenes, detections))


def test_numbers_go_through_detectron2s_own_hooks(scenes, caplog):
    found = plugin_metrics(scenes, detections_of(scenes))
    assert all(isinstance(value, float) for value in flatten_results_dict(found).values())
    print_csv_format(found)
    hooks.EvalHook(0, lambda: found)  # which accepts nested dicts of float alone
    together = DatasetEvaluators([BCNetEvaluator(scenes, metrics=["bbox"])])
    together.reset()
    assert together.evaluate() == {} and "No image of" in caplog.text  # as COCOEvaluator
    image_id, detections = next(iter(detections_of(scenes).items()))
    together.process([{"image_id": image_id}], [{"instances": detections.to_detectron2()}])
    assert together.evaluate()["bbox"]["AP"] > 0


@pytest.mark.parametrize("masks", [True, False])
def test_another_head_and_boxes_alone(scenes, masks):
    detections = detections_of(scenes)

    def plain(instances):
        fields = ["pred_boxes", "scores", "pred_classes", *(["pred_masks"] if masks else [])]
        found = Instances(instances.image_size, **{field: instances.get(field) for field in fields})
        found.pred_boxes = Boxes(instances.pred_boxes.tensor)
        return found

    found = plugin_metrics(scenes, detections, change=plain)
    expected = plugin_metrics(scenes, detections)
    assert found["bbox"] == expected["bbox"] and ("segm" in found) == masks and "order" not in found
    if masks:
        assert found["segm"] == expected["segm"] and found["boundary"] == expected["boundary"]
        theirs = COCOEvaluator(scenes, tasks=("bbox", "segm"), distributed=False, use_fast_impl=False)
        theirs.reset()
        for image_id, image in detections.items():
            theirs.process([{"image_id": image_id}], [{"instances": plain(image.to_detectron2())}])
        for task, values in theirs.evaluate().items():
            for key, value in values.items():
                np.testing.assert_allclose(found[task][key], value, rtol=0, atol=1e-6, err_msg=f"{task} {key}")


def test_amodal_masks_of_another_head_are_read(scenes):
    detections = detections_of(scenes)

    def plain(instances, *further):
        fields = ("pred_boxes", "scores", "pred_classes", "pred_masks", *further)
        found = Instances(instances.image_size, **{field: instances.get(field) for field in fields})
        found.pred_boxes = Boxes(instances.pred_boxes.tensor)
        return found

    found = plugin_metrics(scenes, detections, change=lambda instances: plain(instances, "pred_amodal_masks"))
    expected = plugin_metrics(scenes, detections)
    for task in ("segm", "amodal", "hidden_part"):
        assert found[task] == expected[task]
    visible = plugin_metrics(scenes, detections, change=plain)  # stand for the amodal ones, which are not there
    assert visible["amodal"]["AP"] < found["amodal"]["AP"]


def test_without_occluder_maps_the_order_is_missed_with_a_warning(scenes, caplog):
    def masks_alone(instances):
        del instances.pred_boxes.maps["occluder_mask"]
        instances.remove("pred_occluder_masks")
        return instances

    with caplog.at_level(logging.WARNING):
        found = plugin_metrics(scenes, detections_of(scenes), change=masks_alone)
    assert "order" not in found
    assert "MODEL.BILAYER.OUTPUT_LAYERS True" in caplog.text


def test_faults_are_named(scenes, tmp_path):
    evaluator = BCNetEvaluator(scenes)
    image_id, found = next(iter(detections_of(scenes).items()))
    instances = found.to_detectron2()
    with pytest.raises(ValueError, match=r"image 'nothing' is not listed"):
        evaluator.process([{"image_id": "nothing"}], [{"instances": instances}])
    instances.pred_classes = instances.pred_classes + 100
    with pytest.raises(ValueError, match=r"detection of class 10\d, but .*val.json has \d+ classes"):
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    records, _ = load_dataset(scenes)
    DatasetCatalog.register("scenes_without_classes", lambda: [record_to_dict(record) for record in records])
    with pytest.raises(
        ValueError, match=r"'scenes_without_classes' of detectron2's catalog has no thing_classes: Meta"
    ):
        BCNetEvaluator("scenes_without_classes")
    MetadataCatalog.get("scenes_without_classes").set(thing_classes=["only"])
    with pytest.raises(
        ValueError, match=r"data set 'scenes_without_classes': annotation .* but the data set has 1 class"
    ):
        BCNetEvaluator("scenes_without_classes")
    with pytest.raises(ValueError, match=r"detection of class \d+, but category_ids has 0 ids"):
        found.to_coco(image_id, [])
    with pytest.raises(ValueError, match=r"metric"):
        BCNetEvaluator(scenes, metrics=["AP51"])
    _, annotations, root = scenes.split(":")
    content = json.loads(pathlib.Path(annotations).read_text())
    del content["annotations"][0]["amodal_segmentation"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    spec = f"coco:{tmp_path / 'val.json'}:{root}"
    register_datasets([spec])
    with pytest.raises(ValueError, match=r"not every annotation has an amodal_segmentation"):
        BCNetEvaluator(spec, mask_target="amodal")


def test_the_trainer_measures_the_order_as_the_engine_does(scenes, tmp_path):
    """Without OUTPUT_LAYERS in the config; afterwards the head is as before."""
    opts = ("MODEL.ROI_HEADS.NUM_CLASSES", len(load_dataset(scenes)[1].class_names), "DATALOADER.NUM_WORKERS", 0)
    opts += ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "DATASETS.TEST", (scenes,), "OUTPUT_DIR", str(tmp_path))
    _, plugin = both_hosts(FASTER_RCNN, *opts)
    metrics = BCNetTrainer.test(plugin_cfg(FASTER_RCNN, *opts, "INPUT.MIN_SIZE_TEST", 96), plugin)
    assert "order" in metrics and not plugin.roi_heads.mask_head.output_layers
    assert (tmp_path / "inference" / "metrics.json").is_file()


def test_instances_of_a_model_are_the_engines_detections():
    engine, plugin = both_hosts(FASTER_RCNN, "MODEL.BILAYER.OUTPUT_LAYERS", True)
    names = [f"class {i}" for i in range(engine.num_classes)]
    with torch.no_grad():
        outputs = plugin(inputs())
        raw = plugin.inference(inputs(), do_postprocess=False)
    expected = engine.inference(images(), with_occluder=True)
    for size, theirs, output, unprocessed in zip(SIZES, expected, outputs, raw, strict=True):
        found = instances_to_detections(output["instances"].to("cpu"), class_names=names)
        theirs = theirs.rescaled(size)
        assert list(found.maps) == list(theirs.maps) and found.class_names == tuple(names)
        for name, values in theirs.maps.items():
            torch.testing.assert_close(found.maps[name], values, rtol=0, atol=1e-4)
            assert torch.equal(found.pasted(name), theirs.pasted(name))
        mine, ours = with_relations(found), with_relations(theirs)
        torch.testing.assert_close(mine.occluded_by, ours.occluded_by, rtol=0, atol=1e-3)
        assert mine.occlusion.order.depth.tolist() == ours.occlusion.order.depth.tolist()
        assert len(instances_to_detections(unprocessed)) == len(unprocessed)
        assert instances_to_detections(detections_to_instances(found)).maps.keys() == found.maps.keys()
        # Pictures and files.
        picture = draw_layers(np.zeros((*size, 3), dtype=np.uint8), mine)
        assert picture.ndim == 3 and picture.std() > 0
        results = mine.to_coco(1, list(range(engine.num_classes)), names=found.maps)
        assert len(results) == len(found) and results[0].keys() >= {"occluder_segmentation", "depth", "occluded_by"}


def test_masks_of_another_head_are_resampled_on_request():
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, 10:40, 20:50] = True
    mask[0, 10:20, 20:30] = False
    fields = {"pred_boxes": Boxes(torch.tensor([[20.0, 10, 50, 40]])), "scores": torch.tensor([0.5])}
    instances = Instances((60, 80), **fields, pred_classes=torch.tensor([2]), pred_masks=mask)
    with pytest.raises(ValueError, match=r"give resampled_side, such as 112"):
        instances_to_detections(instances)
    assert torch.equal(instances_to_detections(instances, resampled_side=112).masks, mask)
    instances.remove("pred_masks")
    assert not instances_to_detections(instances).maps


def test_all_maps_in_a_context():
    _, plugin = both_hosts(FASTER_RCNN)
    with torch.no_grad(), all_maps(plugin):
        (first, _) = plugin(inputs())
    assert first["instances"].pred_occluder_masks.shape[1:] == SIZES[0]
    with torch.no_grad():
        (first, _) = plugin(inputs())
    assert not first["instances"].has("pred_occluder_masks")


@pytest.fixture(autouse=True)
def no_files_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    shutil.rmtree(tmp_path / "output", ignore_errors=True)
