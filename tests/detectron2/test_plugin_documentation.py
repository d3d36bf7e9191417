"""The examples of docs/detectron2.md run as printed, on small models and images, one after the other."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import copy
import pathlib
import re
import shlex
import shutil

import cv2
import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
from plugin_samples import CONFIGS
from small_models import write_small_data_set

import bcnet
from bcnet.cli import main as bcnet_command
from bcnet.detectron2 import BCNetDatasetMapper, BCNetEvaluator, BilayerMaskHead
from bcnet.structures import Detections

PAGE = (pathlib.Path(CONFIGS).parent / "docs" / "detectron2.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
SHELL = next(
    text for text in re.findall(r"```bash\n(bcnet .*?)```", PAGE, flags=re.DOTALL) if "--host detectron2" in text
)
SMALL_IMAGES = [
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TRAIN", "96"),
    *("TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.MAX_SIZE", "96", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"),
    *("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0"),
]
SMALL_MODEL = [
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.STRIDE_IN_1X1", "False"),
    *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
    *(
        "MODEL.WEIGHTS",
        "weights.pth",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "0.0",
        "TEST.DETECTIONS_PER_IMAGE",
        "5",
        "SOLVER.BASE_LR",
        "1e-5",
    ),
]


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """What the Python examples leave behind, run with detectron2's configs made small."""
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("documentation")
    monkeypatch.chdir(folder)
    write_small_data_set(folder / "my")
    for split in ("train", "val"):
        shutil.copy("my/annotations.json", f"my/{split}.json")
    cv2.imwrite("photo.jpg", np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8))
    original = model_zoo.get_config

    def small_config(name):
        cfg = original(name)
        if name.endswith(".yaml"):
            cfg.merge_from_list([*SMALL_IMAGES, *SMALL_MODEL])
            torch.save({"model": DefaultTrainer.build_model(cfg).state_dict()}, "weights.pth")
        return cfg

    monkeypatch.setattr(model_zoo, "get_config", small_config)
    monkeypatch.setattr("detectron2.model_zoo.model_zoo.get_config", small_config)
    names = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"example {number} of docs/detectron2.md", "exec"), names)
    yield names
    monkeypatch.undo()


def test_there_are_examples():
    assert len(EXAMPLES) == 7 and "trainer.resume_or_load(resume=False)" in EXAMPLES[0]


def test_the_first_example_trains_from_the_weights_and_evaluates(scope):
    cfg = scope["cfg"]
    assert cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads" and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    start = torch.load("weights.pth")["model"]
    end = torch.load("output/cascade/model_final.pth", weights_only=False)["model"]
    # The frozen stem, and what two iterations change a little.
    assert torch.equal(end["backbone.bottom_up.stem.conv1.weight"], start["backbone.bottom_up.stem.conv1.weight"])
    torch.testing.assert_close(
        end["backbone.fpn_lateral2.weight"], start["backbone.fpn_lateral2.weight"], rtol=0, atol=0.1
    )
    # The plain head of the weights, which initialises the occludee; its masks per class do not fit.
    torch.testing.assert_close(
        end["roi_heads.mask_head.occludee_layer.convs.0.weight"],
        start["roi_heads.mask_head.mask_fcn1.weight"],
        rtol=0,
        atol=0.1,
    )
    assert end["roi_heads.mask_head.occludee_mask.predictor.weight"].shape[0] == 1
    assert pathlib.Path("output/cascade/inference/metrics.json").is_file()
    assert "BilayerMaskHead" in pathlib.Path("output/cascade/config.yaml").read_text()


def test_the_trainer_of_ones_own_evaluates_too(scope):
    evaluator = scope["MyTrainer"].build_evaluator(scope["cfg"], scope["cfg"].DATASETS.TEST[0])
    assert type(evaluator) is BCNetEvaluator


def test_pictures_and_files(scope):
    assert type(scope["detections"]) is Detections and len(scope["detections"]) == len(scope["results"]) == 5
    assert scope["results"][0].keys() >= {"segmentation", "occluded_by", "depth"}
    assert cv2.imread("layers.png").shape[0] > 48


def test_the_lazy_config_trains_and_evaluates(scope):
    lazy = copy.deepcopy(scope["lazy"])
    assert lazy.dataloader.train.mapper.amodal_masks
    assert instantiate(lazy.model.roi_heads.mask_head).maps[-1].name == "occludee_amodal"
    # The data has no amodal masks: without the amodal example.
    del lazy.dataloader.train.mapper.amodal_masks, lazy.model.roi_heads.mask_head.amodal
    lazy.model.backbone.bottom_up.freeze_at = 2
    lazy.dataloader.train.total_batch_size, lazy.dataloader.train.num_workers = 2, 0
    lazy.dataloader.train.mapper.augmentations[0].short_edge_length = (64,)
    batch = next(iter(instantiate(lazy.dataloader.train)))
    assert all(sample["instances"].has("gt_occluder_masks") for sample in batch)
    model = instantiate(lazy.model).train()
    assert type(model.roi_heads.mask_head) is BilayerMaskHead and model.input_format == "BGR"
    mapper = instantiate(lazy.dataloader.train.mapper)
    assert type(mapper) is BCNetDatasetMapper and mapper.image_format == model.input_format
    with EventStorage():
        assert model(batch)["loss_occluder_mask"] > 0
    assert type(instantiate(lazy.dataloader.evaluator)) is BCNetEvaluator


def test_the_validation_loss_is_logged(scope):
    hook = scope["ValidationLoss"](scope["batches"], period=1)
    hook.trainer = scope["trainer"]
    with EventStorage() as storage:
        hook.trainer.storage = storage
        hook.trainer.iter = 0
        hook.after_step()
        assert storage.latest()["validation_loss"][0] > 0


def test_the_trace_gives_instances(scope):
    assert {"pred_masks", "pred_occluder_masks"} <= set(scope["instances"].get_fields())


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = write_small_data_set(tmp_path / "my")
    data = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.TRAIN", f"('{spec}',)", "DATASETS.TEST", f"('{spec}',)"]
    for line in SHELL.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        assert words[0] == "bcnet"
        words = [word.replace("configs/", f"{CONFIGS}/") for word in words[1:]]
        bcnet_command([*words, *SMALL_IMAGES, *data])
    assert pathlib.Path("output/plugin/model_final.pth").is_file()
    assert bcnet.load("output/plugin/config.yaml", "output/plugin/model_final.pth").num_classes == 3
