"""Special values of config keys: what detectron2 means by them, or a clear refusal."""

from __future__ import annotations

import os

import pytest

from bcnet.config import get_cfg, load_config, register_config
from bcnet.config.node import split_overrides

REFUSED = [
    # Negative counts and zeros that detectron2 fails on, or takes for something that nobody means.
    ("TEST.DETECTIONS_PER_IMAGE", 0, "it must be at least 1, or negative for no limit"),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", -1, "it must be at least 1"),
    ("MODEL.RPN.PRE_NMS_TOPK_TEST", 0, "it must be at least 1"),
    ("MODEL.RPN.POST_NMS_TOPK_TRAIN", -1, "it must be at least 1"),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", 0, "it must be at least 1"),
    ("MODEL.FCOS.TOPK_CANDIDATES_TEST", -1, "it must be at least 1"),
    ("MODEL.ROI_HEADS.NUM_CLASSES", 0, "it must be at least 1"),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 0, "it must be at least 1"),
    ("MODEL.ROI_BOX_HEAD.NUM_FC", 0, "it must be at least 1"),
    ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 0, "it must be at least 1"),
    ("SOLVER.MAX_ITER", 0, "it must be at least 1"),
    ("SOLVER.IMS_PER_BATCH", 0, "it must be at least 1"),
    ("SOLVER.LOG_PERIOD", 0, "it must be at least 1"),
    ("SOLVER.CHECKPOINT_PERIOD", -5, "it must not be negative"),
    ("SOLVER.CHECKPOINTS_KEPT", -1, "it must not be negative"),
    ("SOLVER.WARMUP_ITERS", -1, "it must not be negative"),
    ("SOLVER.BASE_LR", 0.0, "it must be above 0"),
    ("DATALOADER.NUM_WORKERS", -1, "it must not be negative"),
    ("INPUT.MIN_SIZE_TEST", -1, "it must not be negative"),
    ("INPUT.MIN_SIZE_TRAIN", "(800, -1)", "it must not be negative"),
    ("INPUT.MAX_SIZE_TEST", 0, "it must be at least 1"),
    ("MODEL.PIXEL_STD", "(1.0, 0.0, 1.0)", "it must be above 0"),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5, r"it must lie in 0\.\.1"),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 1.0, "1 excluded"),
    # Lists of another length than their meaning, or that nothing can be drawn from.
    ("INPUT.MIN_SIZE_TRAIN", "()", "is empty; give at least one short side"),
    ("TEST.AUG.MIN_SIZES", "()", "is empty; give at least one short side"),
    ("MODEL.RPN.IN_FEATURES", "[]", "is empty; give the levels with anchors"),
    ("MODEL.ROI_HEADS.IN_FEATURES", "[]", "is empty; give the levels that RoIs are pooled from"),
    ("MODEL.PIXEL_MEAN", "[103.5]", "must have 3 values"),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.5, 0.7]", "must have 1 value$"),
    ("MODEL.RPN.IOU_THRESHOLDS", "[0.7, 0.3]", "background ends below where foreground begins"),
    ("SOLVER.STEPS", "(80, 60)", "the steps must ascend"),
    ("SOLVER.STEPS", "(0, 60)", "it must be at least 1"),
    # Augmentation.
    ("INPUT.CROP.TYPE", "square", "it must be one of 'relative', 'relative_range', 'absolute', 'absolute_range'"),
    ("INPUT.CROP.SIZE", "[0.9, 1.5]", "they are shares, at most 1"),
    ("INPUT.CROP.SIZE", "[0.9, 0.0]", "it must be above 0"),
    ("INPUT.SCALE_JITTER.MIN_SCALE", 3.0, r"must not exceed INPUT\.SCALE_JITTER\.MAX_SCALE \(2\.0\)"),
    ("INPUT.SCALE_JITTER.SIZE", "(0, 64)", "it must be at least 1"),
    ("INPUT.COLOR_JITTER.CONTRAST", "(1.2, 0.8)", "the lower bound comes first"),
    ("INPUT.COMPOSITION.PROBABILITY", 1.5, r"it must lie in 0\.\.1"),
    ("INPUT.COMPOSITION.HIDDEN_SHARE", "(0.1, 0.9)", "drops an object of which more than 0.8 is hidden"),
    ("INPUT.COMPOSITION.SCALE", "(1.0,)", "it must have 2 values"),
    ("INPUT.COMPOSITION.MAX_OBJECTS", 0, "it must be at least 1"),
    ("MODEL.BILAYER.OCCLUDER_TARGET", "behind", "it must be one of 'neighbours', 'front'"),
    # Choices, and what detectron2 alone reads.
    ("VERSION", 1, "it must be one of 2"),
    ("MODEL.RESNETS.DEPTH", 20, "it must be one of 18, 34, 50, 101, 152"),
    ("MODEL.RESNETS.NORM", "GN", "it must be one of 'FrozenBN', 'BN'"),
    ("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "a ResNet-50 has 256"),
    ("MODEL.RESNETS.OUT_FEATURES", "['res4']", "MODEL.FPN.IN_FEATURES needs res2, res3, res5"),
    ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "it must be one of 'StandardROIHeads'"),
    # Values of another type.
    ("SOLVER.MAX_ITER", "many", "must be of type int, as its default 40000"),
    ("SOLVER.MAX_ITER", 10.5, "must be of type int"),
    ("MODEL.MASK_ON", 1, "must be of type bool"),
    ("SOLVER.STEPS", "(a, b)", "it must be at least 1"),
    ("INPUT.MIN_SIZE_TEST", None, "must be of type int"),
    # detectron2's keys that the engine does not have.
    ("MODEL.KEYPOINT_ON", True, "must be False .--host detectron2 has it"),
    ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "must be 'TrainingSampler'"),
    ("MODEL.RPN.CONV_DIMS", "(64, 64)", r"must be \[-1\]"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_refused_values(key, value, message):
    with pytest.raises(ValueError, match=message) as error:
        load_config(opts=[key, value])
    assert str(error.value).startswith(key)


ACCEPTED = [
    ("TEST.DETECTIONS_PER_IMAGE", -1, -1),
    ("TEST.EVAL_PERIOD", -1, -1),
    ("VIS_PERIOD", -1, -1),
    ("SEED", -7, -7),
    ("SOLVER.CHECKPOINT_PERIOD", 0, 0),
    ("INPUT.MIN_SIZE_TEST", 0, 0),
    ("INPUT.MIN_SIZE_TRAIN", "(0, 800)", (0, 800)),
    ("SOLVER.STEPS", "()", ()),
    ("SOLVER.STEPS", 60, (60,)),
    ("DATASETS.TEST", "()", ()),
    ("DATASETS.TRAIN", "coco:a.json:images", ("coco:a.json:images",)),
    ("DATASETS.TRAIN", '("coco_2017_train",)', ("coco_2017_train",)),
    ("SOLVER.BASE_LR", "1", 1.0),
    ("OUTPUT_DIR", "2024", "2024"),
    ("OUTPUT_DIR", "~/runs", os.path.expanduser("~/runs")),
    ("MODEL.WEIGHTS", "~/model.pth", os.path.expanduser("~/model.pth")),
    ("MODEL.WEIGHTS", "", ""),
]


@pytest.mark.parametrize(("key", "value", "expected"), ACCEPTED)
@pytest.mark.parametrize("one_word", [False, True])
def test_accepted_values(key, value, expected, one_word):
    found = load_config(opts=[f"{key}={value}"] if one_word else [key, value]).get_value(key)
    assert found == expected and type(found) is type(expected)


def test_words_with_an_equals_sign():
    assert split_overrides(["A.B=1", "C", "x=y", "D=a=b"]) == ["A.B", "1", "C", "x=y", "D", "a=b"]
    with pytest.raises(ValueError, match=r"'SEED' has no value in .'A=1', 'SEED'."):
        split_overrides(["A=1", "SEED"])


@pytest.mark.parametrize("words", [["A", "1", "--resume"], ["A=1", "--num-gpus", "2"], ["A=1", "--num-gpus=2"]])
def test_options_among_the_config_keys_are_named(words):
    with pytest.raises(
        ValueError, match=r"options come before the config keys: '--(resume|num-gpus|num-gpus=2)' follows 'A"
    ):
        split_overrides(words)


def test_a_file_with_strings_where_lists_are_expected(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text('DATASETS:\n  TRAIN: coco:a.json:images\n  TEST: ("a", "b")\nSOLVER:\n  BASE_LR: 1\n')
    cfg = load_config(str(file))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.SOLVER.BASE_LR) == (("coco:a.json:images",), ("a", "b"), 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "holds a list, not config keys"),
        ("A: [1\n", "not YAML of plain values"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []\n", "not YAML of plain values"),
    ],
)
def test_files_that_are_no_configs(tmp_path, text, message):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"own\.yaml.*{message}"):
        load_config(str(file))
    with pytest.raises(ValueError, match=f"a text.*{message}"):
        load_config(text=text, source="a text")


def test_suggestions_ignore_case():
    with pytest.raises(KeyError, match=r"'solver\.base_lr'.*nearest known key: 'SOLVER\.BASE_LR'"):
        load_config(opts=["solver.base_lr", 0.1])


def test_keys_of_detectron2_that_ask_for_nothing_are_dropped():
    neutral = ["MODEL.KEYPOINT_ON", False, "MODEL.RETINANET.NUM_CLASSES", 7, "SOLVER.WEIGHT_DECAY_BIAS", None]
    assert load_config(opts=[*neutral, "MODEL.RPN.CONV_DIMS", "(-1,)"]) == load_config()


def test_keys_of_another_package(monkeypatch):
    monkeypatch.setattr("bcnet.config.defaults._registered", [])
    with pytest.raises(KeyError, match="known once its module is imported: --import MODULE"):
        load_config(opts=["MODEL.MINE.WIDTH", 4])

    @register_config
    def add_my_keys(cfg):
        cfg.MODEL.MINE = type(cfg)({"WIDTH": 2})

    register_config(add_my_keys)  # as when a module is imported again
    assert get_cfg().MODEL.MINE.WIDTH == 2
    assert load_config(opts=["MODEL.MINE.WIDTH", 4]).MODEL.MINE.WIDTH == 4
