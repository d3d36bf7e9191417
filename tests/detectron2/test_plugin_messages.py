"""What a detectron2 user may get wrong is one clear line."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import os

import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.point_rend import add_pointrend_config
from plugin_samples import FASTER_RCNN
from test_plugin_training import arguments

from bcnet.detectron2 import BCNetCheckpointer, BCNetDatasetMapper, BCNetEvaluator, BCNetTrainer, add_bcnet_config
from bcnet.detectron2.train import main, setup


@pytest.mark.parametrize(
    "use",
    [
        build_model,
        BCNetTrainer,
        lambda cfg: BCNetDatasetMapper(cfg, is_train=True),
        lambda cfg: BCNetEvaluator.from_config(cfg, "coco_2017_val"),
    ],
    ids=["head", "trainer", "mapper", "evaluator"],
)
def test_a_forgotten_add_bcnet_config(use):
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "BilayerMaskHead"
    with pytest.raises(
        ValueError, match=r"no MODEL.BILAYER: call bcnet.detectron2.add_bcnet_config\(cfg\) after get_cfg"
    ):
        use(cfg)


def test_a_forgotten_add_bcnet_config_for_fcos():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "BCNetFCOS"
    with pytest.raises(ValueError, match=r"no MODEL.BILAYER: call"):
        build_model(cfg)


def test_a_c4_config_has_other_channels():
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    add_bcnet_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "BilayerMaskHead"
    with pytest.raises(ValueError, match=r"MODEL.ROI_MASK_HEAD.CONV_DIM must be 2048 like .* got 256"):
        build_model(cfg)


def test_a_pointrend_config_does_not_pool():
    cfg = get_cfg()
    add_pointrend_config(cfg)
    add_bcnet_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "BilayerMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""  # as PointRend's base config has it
    with pytest.raises(ValueError, match=r"takes pooled features: .*POOLER_TYPE must be 'ROIAlignV2' .* got ''"):
        build_model(cfg)


def test_weights_of_torchvision_are_converted_first():
    with pytest.raises(ValueError, match=r"bcnet weights convert --input torchvision://resnet50 --output plugin.pth"):
        BCNetCheckpointer(torch.nn.Linear(1, 1)).load("torchvision://resnet50")


def test_unknown_keys_name_the_nearest_one(tmp_path):
    with pytest.raises(KeyError, match=r"unknown config key 'MODEL.BILAYER.GNC' in overrides; .*'MODEL.BILAYER.GCN'"):
        setup(arguments(tmp_path, FASTER_RCNN, "MODEL.BILAYER.GNC", False))
    path = tmp_path / "own.yaml"
    path.write_text("INPUT:\n  MASK_TARGTE: amodal\n")
    args = arguments(tmp_path, FASTER_RCNN)
    args.config_file = str(path)
    with pytest.raises(KeyError, match=r"unknown config key 'INPUT.MASK_TARGTE' in .*own.yaml; .*'INPUT.MASK_TARGET'"):
        setup(args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_torchrun_on_a_cpu(tmp_path, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setitem(os.environ, name, str(value))
    monkeypatch.setitem(os.environ, "MASTER_ADDR", "localhost")
    monkeypatch.setitem(os.environ, "MASTER_PORT", "29400")
    with pytest.raises(ValueError, match=r"needs a GPU for each of torchrun's processes, and there is none"):
        main(arguments(tmp_path, FASTER_RCNN))
