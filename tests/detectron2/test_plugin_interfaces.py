"""What detectron2's own mapper, config, checkpointer and tools accept, the plugin accepts."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import copy
import json
import logging
import pathlib
import runpy
import subprocess
import sys

import detectron2
import numpy as np
import torch
from coco_scene import HEIGHT, WIDTH, rectangle, write_coco
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, defaults, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.modeling import build_model as build_detectron2_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, FCOS, both_hosts, engine_cfg, inputs, plugin_cfg
from test_plugin_training import arguments

import bcnet
from bcnet.checkpoint import write_weights
from bcnet.detectron2 import BCNetCheckpointer, BCNetDatasetMapper, add_bcnet_config, freeze_detector
from bcnet.detectron2.scripts import register_named_datasets
from bcnet.detectron2.train import main, setup
from bcnet.modeling import build_model

TOOLS = pathlib.Path(detectron2.__file__).parents[1] / "tools"
PLAIN = ("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
MASK_LOSSES = {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}


# -- Mapper ------------------------------------------------------------------------------------------------------------


def sample(tmp_path, *annotations):
    write_coco(tmp_path, images=1)
    return {
        "file_name": str(tmp_path / "images" / "1.png"),
        "image_id": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [
            {"bbox": [5, 5, 35, 35], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, **a} for a in annotations
        ],
    }


def mappers(mask_format, *augmentations, **changes):
    keywords = {"augmentations": list(augmentations), "image_format": "BGR", "use_instance_mask": True, **changes}
    return [m(True, instance_mask_format=mask_format, **keywords) for m in (DatasetMapper, BCNetDatasetMapper)]


SQUARE = rectangle(5, 5, 30, 30)


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": np.array([5.0, 5, 35, 35])},
        {"bbox": (5, 5, 35, 35)},
        {"bbox": [5, 5, 30, 30], "bbox_mode": BoxMode.XYWH_ABS},
        {"bbox": [20.0, 20, 30, 30, 0], "bbox_mode": BoxMode.XYWHA_ABS},
        {"segmentation": [np.array(SQUARE[0])]},
        {"segmentation": [np.array(SQUARE[0], dtype=np.float32).tolist(), SQUARE[0]]},
        {"iscrowd": 0, "keypoints": [1, 2, 2], "attributes": {"pose": "any"}},
        {"id": "text", "area": None},
    ],
    ids=["array box", "tuple box", "xywh", "rotated", "array polygon", "two polygons", "other keys", "null area"],
)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_every_type_of_box_and_segmentation(tmp_path, annotation, mask_format):
    theirs, ours = mappers(mask_format)
    data = sample(tmp_path, {"segmentation": SQUARE, **annotation})
    expected, found = theirs(data)["instances"], ours(data)["instances"]
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor) and len(found) == 1
    assert torch.equal(found.gt_classes, expected.gt_classes)
    boxes = expected.gt_boxes.tensor
    assert torch.equal(found.gt_masks.crop_and_resize(boxes, 28), expected.gt_masks.crop_and_resize(boxes, 28))
    assert found.gt_occluder_masks.tensor.shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_empty_segmentations_are_dropped_and_keep_their_place_in_the_order(tmp_path, mask_format):
    theirs, ours = mappers(mask_format)
    data = sample(
        tmp_path,
        {"segmentation": []},
        {"segmentation": SQUARE},
        {"segmentation": rectangle(20, 5, 30, 30), "bbox": [20, 5, 50, 35]},
    )
    data["in_front"] = [(1, 2)]
    found = ours(data)["instances"]
    assert len(theirs(data)["instances"]) == len(found) == 2
    assert found.gt_occluder_masks.tensor.flatten(1).any(dim=1).tolist() == [True, False]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_crops_of_images_without_annotations(tmp_path, mask_format):
    _, ours = mappers(mask_format, T.RandomCrop("absolute", (20, 30)), recompute_boxes=True)
    found = ours(sample(tmp_path))
    assert len(found["instances"]) == 0 and found["image"].shape == (3, 20, 30)
    if mask_format == "polygon":
        return  # detectron2 crops polygons with shapely
    nothing_left = sample(tmp_path, {"segmentation": rectangle(70, 50, 3, 3), "bbox": [70, 50, 73, 53]})

    class Corner(T.Augmentation):
        def get_transform(self, image):
            return T.CropTransform(0, 0, 30, 20)

    _, ours = mappers(mask_format, Corner(), recompute_boxes=True)
    assert len(ours(nothing_left)["instances"]) == 0


# -- Config ------------------------------------------------------------------------------------------------------------


def test_a_second_call_keeps_what_was_set():
    cfg = get_cfg()
    add_bcnet_config(cfg)
    cfg.MODEL.BILAYER.GCN = False
    cfg.INPUT.MASK_TARGET = "amodal"
    before = cfg.dump()
    add_bcnet_config(cfg)
    assert cfg.dump() == before


def test_keys_of_another_project_are_merged_or_refused():
    cfg = get_cfg()
    cfg.MODEL.FCOS = CfgNode({"FPN_STRIDES": [8, 16], "PRIOR_PROB": 0.02, "IN_FEATURES": ("p3",)})
    add_bcnet_config(cfg)
    assert cfg.MODEL.FCOS.PRIOR_PROB == 0.02 and cfg.MODEL.FCOS.FPN_STRIDES == [8, 16]
    assert cfg.MODEL.FCOS.IN_FEATURES == ("p3",) and cfg.MODEL.FCOS.NUM_CONVS == 4
    cfg = get_cfg()
    cfg.MODEL.BILAYER = True
    with pytest.raises(ValueError, match=r"the config has MODEL.BILAYER already, of another project: True"):
        add_bcnet_config(cfg)
    cfg = get_cfg()
    cfg.MODEL.FCOS = CfgNode({"PRIOR_PROB": "none"})
    with pytest.raises(ValueError, match=r"MODEL.FCOS.PRIOR_PROB already, .*'none'; bcnet has a number of this name"):
        add_bcnet_config(cfg)


# -- Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_weights_of_the_engine_in_detectron2s_checkpointer_are_an_error(tmp_path, config_file):
    path = str(tmp_path / "engine.pth")
    write_weights(build_model(engine_cfg(config_file)).state_dict(), path)
    plugin = build_detectron2_model(plugin_cfg(config_file))
    with pytest.raises(ValueError, match=r"names of bcnet's own models .* bcnet weights convert --input FILE"):
        DetectionCheckpointer(plugin).load(path)
    BCNetCheckpointer(plugin).load(path)


def test_published_weights_in_detectron2s_checkpointer_are_an_error(tmp_path):
    path = str(tmp_path / "published.pth")
    torch.save({"model": {"mask_head.boundary_fcn1.weight": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=r"names of the published BCNet code \(mask_head.boundary_fcn1.weight\)"):
        DetectionCheckpointer(build_detectron2_model(plugin_cfg(FCOS))).load(path)


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, BCNetCheckpointer])
def test_a_plain_mask_rcnn_initialises_the_head_in_every_trainer(tmp_path, checkpointer, caplog):
    per_class = ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", False)
    plain = build_detectron2_model(plugin_cfg(FASTER_RCNN, *PLAIN, *per_class))
    path = str(tmp_path / "plain.pth")
    torch.save({"model": plain.state_dict()}, path)
    for opts in (per_class, ()):
        model = build_detectron2_model(plugin_cfg(FASTER_RCNN, *opts))
        untouched = copy.deepcopy(model.roi_heads.mask_head.occluder_layer.state_dict())
        with caplog.at_level(logging.WARNING):
            checkpointer(model).load(path)
        head, theirs = model.roi_heads.mask_head, plain.roi_heads.mask_head
        assert torch.equal(head.occludee_layer.convs[2].weight, theirs.mask_fcn3.weight)
        assert torch.equal(head.occludee_mask.deconv.weight, theirs.deconv.weight)
        assert all(torch.equal(head.occluder_layer.state_dict()[k], v) for k, v in untouched.items())
        fits = head.occludee_mask.predictor.weight.shape == theirs.predictor.weight.shape
        assert fits == bool(opts)
        assert not fits or torch.equal(head.occludee_mask.predictor.weight, theirs.predictor.weight)
        assert ("predictor.weight of shape (6, 32, 1, 1) does not fit the mask head" in caplog.text) != fits
    # The head's own weights are loaded as ever.
    again = build_detectron2_model(plugin_cfg(FASTER_RCNN))
    assert again.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_a_frozen_detector_trains_its_mask_head_alone(tmp_path, config_file):
    _, plugin = both_hosts(config_file, "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    path = str(tmp_path / "model.pth")
    torch.save({"model": plugin.state_dict()}, path)
    frozen = ("MODEL.FREEZE_DETECTOR", True, "MODEL.WEIGHTS", path, "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    main(arguments(tmp_path, config_file, *frozen))
    after = torch.load(tmp_path / "output" / "model_final.pth", weights_only=False)["model"]
    changed = {key for key, value in plugin.state_dict().items() if not torch.equal(after[key], value)}
    assert changed and all("mask_head." in key for key in changed)
    line = json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[0])
    assert {key for key in line if key.startswith("loss_")} == MASK_LOSSES
    with pytest.raises(ValueError, match=r"MODEL.FREEZE_DETECTOR is True and MODEL.WEIGHTS is empty"):
        setup(arguments(tmp_path, config_file, "MODEL.FREEZE_DETECTOR", True))


def test_a_detector_without_masks_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"there is nothing to train: .* the model has no mask head"):
        freeze_detector(build_detectron2_model(plugin_cfg(FASTER_RCNN, "MODEL.MASK_ON", False)))
    model = freeze_detector(build_detectron2_model(plugin_cfg(FASTER_RCNN))).train()
    with EventStorage(), torch.no_grad():
        assert model(inputs(objects=2)).keys() >= MASK_LOSSES | {"loss_cls"}  # a validation loss has all of them


# -- Tools -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the plugin's trainer: its folder."""
    folder = tmp_path_factory.mktemp("trained")
    main(arguments(folder, FASTER_RCNN, "SOLVER.MAX_ITER", 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0))
    return folder / "output"


def test_bcnet_reads_the_config_and_weights_of_a_run(trained, tmp_path):
    predictor = bcnet.load(trained / "config.yaml", trained / "model_final.pth")
    image = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    found = predictor.predict(image, with_occluder=True)
    plugin = build_detectron2_model(plugin_cfg_of(trained / "config.yaml")).eval()
    DetectionCheckpointer(plugin).load(str(trained / "model_final.pth"))
    own = dict(predictor.model.named_parameters())["mask_branch.head.occluder_mask.deconv.weight"]
    assert torch.equal(own.cpu(), plugin.roi_heads.mask_head.occluder_mask.deconv.weight)
    assert len(found) > 0 and found.occluder_mask is not None
    evaluate = [*("-m", "bcnet", "evaluate", "--config-file", str(trained / "config.yaml"))]
    evaluate += ["--weights", str(trained / "model_final.pth"), "OUTPUT_DIR", str(tmp_path)]
    subprocess.run([sys.executable, *evaluate], check=True, capture_output=True)
    assert list(tmp_path.rglob("metrics.json"))


def plugin_cfg_of(path):
    cfg = get_cfg()
    add_bcnet_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


@pytest.fixture
def run_script(monkeypatch):
    """Runs a script as ``python -m bcnet.detectron2`` does, in this process, and restores detectron2's defaults."""
    monkeypatch.setattr(defaults, "_C", defaults._C.clone())

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bcnet.detectron2", *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
        return runpy.run_module("bcnet.detectron2", run_name="__main__", alter_sys=True)

    return run


needs_tools = pytest.mark.skipif(not TOOLS.is_dir(), reason="detectron2's tools lie in its checkout alone")


@needs_tools
def test_detectron2s_train_net_evaluates_and_trains(trained, run_script, caplog, tmp_path):
    evaluation = ("--eval-only", "MODEL.WEIGHTS", trained / "model_final.pth")
    run_script(TOOLS / "train_net.py", "--config-file", trained / "config.yaml", *evaluation)
    assert "copypaste: AP" in caplog.text
    more = ("MODEL.WEIGHTS", trained / "model_final.pth", "OUTPUT_DIR", tmp_path)
    run_script(TOOLS / "train_net.py", "--config-file", trained / "config.yaml", *more)
    assert (tmp_path / "model_final.pth").is_file()


@needs_tools
def test_detectron2s_export_model_traces_a_run(trained, run_script, tmp_path):
    words = ("--config-file", trained / "config.yaml", "--output", tmp_path, "--sample-image")
    image = next((trained.parent / "data" / "images").glob("*.png"))
    run_script(TOOLS / "deploy" / "export_model.py", *words, image, "MODEL.WEIGHTS", trained / "model_final.pth")
    assert (tmp_path / "model.ts").is_file()


def test_an_unknown_key_of_a_script_is_one_line(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from detectron2.config import get_cfg\nget_cfg().merge_from_list(['MODEL.BILAYER.GNC', True])\n")
    with pytest.raises(
        SystemExit, match=r"unknown config key 'MODEL.BILAYER.GNC' in the script's .*'MODEL.BILAYER.GCN'"
    ):
        run_script(script)
    script.write_text("{}['key']")
    with pytest.raises(KeyError, match=r"^'key'$"):
        run_script(script)


def test_the_wrapper_says_what_it_takes():
    run = subprocess.run([sys.executable, "-m", "bcnet.detectron2", "nope.py"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.splitlines()[-1] == "there is no script 'nope.py'"
    run = subprocess.run([sys.executable, "-m", "bcnet.detectron2"], capture_output=True, text=True)
    assert run.returncode == 1 and "usage: python -m bcnet.detectron2 SCRIPT [ARGUMENTS]" in run.stderr


def test_named_data_sets_are_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    specs = [f"coco:{tmp_path}/{name}.json:{tmp_path}" for name in "abcd"]
    (tmp_path / "plain.yaml").write_text(f"DATASETS:\n  TRAIN: (\"{specs[0]}\", 'coco_2017_occ')\n")
    lazy = f"dataloader:\n  train:\n    dataset:\n      names: !!python/tuple\n      - {specs[1]}\n"
    (tmp_path / "lazy.yaml").write_text(lazy)
    words = ["--config-file", f"{tmp_path}/plain.yaml", f"--config-file={tmp_path}/lazy.yaml"]
    register_named_datasets([*words, "DATASETS.TEST", f"('{specs[2]}',)", f"x={specs[3]}"])
    assert {*specs, "coco_2017_occ"} <= {*DatasetCatalog.list()}


LAZY = """
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from bcnet.detectron2 import BCNetEvaluator, BilayerMaskHead

_zoo = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model, optimizer, train = (
    _zoo[key] for key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)
model.roi_heads.num_classes = 3
model.roi_heads.mask_head = L(BilayerMaskHead)(input_shape=ShapeSpec(channels=256, width=14, height=14))
dataloader.train.dataset.names = dataloader.test.dataset.names = "{spec}"
dataloader.evaluator = L(BCNetEvaluator)(dataset_name="{spec}")
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.train.total_batch_size = 1
dataloader.train.mapper.augmentations[0].short_edge_length = (48,)
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.test.mapper.augmentations[0].short_edge_length = 48
train.device, train.max_iter, train.init_checkpoint, train.output_dir = "cpu", 1, "", "{folder}/lazy"
"""


@needs_tools
def test_detectron2s_lazyconfig_train_net_trains_and_reads_its_saved_config(run_script, tmp_path):
    spec = write_coco(tmp_path / "data", images=1)
    (tmp_path / "lazy.py").write_text(LAZY.format(spec=spec, folder=tmp_path))
    script = TOOLS / "lazyconfig_train_net.py"
    # A Python config names the data set in code, which the arguments do not show.
    run_script(script, "--config-file", tmp_path / "lazy.py", f"dataloader.train.dataset.names={spec}")
    saved = tmp_path / "lazy" / "config.yaml"
    assert "bcnet.detectron2.BilayerMaskHead" in saved.read_text()
    weights = f"train.init_checkpoint={tmp_path}/lazy/model_final.pth"
    run_script(script, "--config-file", saved, "--eval-only", weights)


@needs_tools
def test_the_wrapper_in_processes_that_detectron2_spawns(trained):
    script = ["-m", "bcnet.detectron2", str(TOOLS / "train_net.py"), "--config-file", str(trained / "config.yaml")]
    words = [*script, "--num-gpus", "2", "--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth")]
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Evaluation results for coco:" in run.stderr + run.stdout
