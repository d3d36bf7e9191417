from pathlib import Path

import pytest

from bcnet.config import Level, get_cfg, load_config, packaged_configs

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if not path.name.startswith("Base"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_file_loads_and_is_frozen(path):
    cfg = load_config(str(path))
    assert cfg.is_frozen()
    assert cfg.MODEL.MASK_ON or path.stem.endswith("_boxes")  # the first step of a training


def test_the_published_schedules():
    r50 = load_config(str(CONFIGS / "fcos/fcos_imprv_R_50_FPN.yaml"))
    assert (r50.SOLVER.BASE_LR, r50.SOLVER.IMS_PER_BATCH, r50.SOLVER.MAX_ITER) == (0.01, 16, 90000)
    assert tuple(r50.SOLVER.STEPS) == (60000, 80000)
    assert (tuple(r50.INPUT.MIN_SIZE_TRAIN), r50.INPUT.MAX_SIZE_TRAIN) == ((600,), 900)
    r101 = load_config(str(CONFIGS / "fcos/fcos_imprv_R_101_FPN.yaml"))
    assert (r101.SOLVER.MAX_ITER, tuple(r101.SOLVER.STEPS)) == (180000, (140000, 170000))
    assert tuple(r101.INPUT.MIN_SIZE_TRAIN) == (640, 672, 704, 736, 768, 800)
    faster = load_config(str(CONFIGS / "faster_rcnn/bcnet_R_50_FPN_3x.yaml"))
    assert (faster.SOLVER.BASE_LR, faster.SOLVER.MAX_ITER, tuple(faster.SOLVER.STEPS)) == (
        0.02,
        270000,
        (210000, 250000),
    )


def test_baselines_differ_from_the_bilayer_configs_in_the_head_alone():
    bilayer = load_config(str(CONFIGS / "faster_rcnn/bcnet_R_50_FPN_3x.yaml"))
    plain = load_config(str(CONFIGS / "baselines/mask_rcnn_R_50_FPN_3x.yaml"))
    assert not plain.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK
    bilayer, plain = bilayer.clone(), plain.clone()
    bilayer.defrost(), plain.defrost()
    bilayer.MODEL.ROI_MASK_HEAD = plain.MODEL.ROI_MASK_HEAD
    assert bilayer == plain


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("MODEL.ROI_MASK_HED.NAME", "MODEL.ROI_MASK_HEAD.NAME"), ("SOLVER.BASE_LRR", "SOLVER.BASE_LR")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path, key, nearest):
    with pytest.raises(KeyError, match=f"{key}.*{nearest}"):
        load_config(opts=[key, "1"])
    section, rest = key.split(".", 1)
    lines = [section + ":"] + ["  " * (i + 1) + part + ":" for i, part in enumerate(rest.split("."))]
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join(lines) + " 1\n")
    with pytest.raises(KeyError, match=f"{key}.*bad.yaml.*{nearest}"):
        load_config(str(path))


def test_a_base_file_is_inherited_and_overridden(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER:\n  BASE_LR: 0.5\n  MAX_ITER: 7\n")
    (tmp_path / "child.yaml").write_text('_BASE_: "base.yaml"\nSOLVER:\n  MAX_ITER: 9\n')
    cfg = load_config(str(tmp_path / "child.yaml"), ["SOLVER.GAMMA", 0.3])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA) == (0.5, 9, 0.3)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere/x\.yaml"):
        load_config("nowhere/x.yaml")


def test_a_key_without_a_value_is_refused():
    with pytest.raises(ValueError, match="'OUTPUT_DIR' has no value"):
        load_config(opts=["SEED", 1, "OUTPUT_DIR"])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "FCOS"], "META_ARCHITECTURE is 'FCOS'.*'BCNetFCOS'"),
        (["SOLVER.IMS_PER_BATCH", 10, "SOLVER.ACCUMULATE_STEPS", 4], "10.*divisible by.*4"),
        (["INPUT.MASK_TARGET", "hidden"], "INPUT.MASK_TARGET is 'hidden'"),
        (["INPUT.MIN_SIZE_TRAIN", "()"], "MIN_SIZE_TRAIN is empty"),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64]"], "5 levels need 4"),
    ],
)
def test_values_that_no_component_accepts_are_refused(opts, message):
    with pytest.raises(ValueError, match=message):
        load_config(opts=opts)


def test_defaults_do_not_share_state():
    get_cfg().SOLVER.BASE_LR = 9.0
    assert get_cfg().SOLVER.BASE_LR == 0.001


def test_setup_installs_every_config():
    """setup.py takes configs/*.yaml and configs/*/*.yaml into the package."""
    names = packaged_configs()
    assert len(names) > 10 and all(name.count("/") <= 1 for name in names)


def test_text_as_dump_writes_it():
    cfg = load_config("fcos/fcos_imprv_R_50_FPN.yaml", ["SEED", 3])
    assert load_config(text=cfg.dump()) == cfg
    assert load_config(text="") == load_config()
    with pytest.raises(KeyError, match=r"'SEEED' in a checkpoint; nearest known key: 'SEED'"):
        load_config(text="SEEED: 1", source="a checkpoint")


def test_levels_say_where_a_value_comes_from(tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 3\nMODEL:\n  MASK_ON: True\n  FPN:\n    OUT_CHANNELS: 64\n")
    (tmp_path / "own.yaml").write_text("_BASE_: base.yaml\nMODEL:\n  MASK_ON: True\nSOLVER:\n  MAX_ITER: 7\n")
    cfg = load_config(str(tmp_path / "own.yaml"), ["SOLVER.BASE_LR", 0.5, "OUTPUT_DIR=out"])
    levels = {
        "VIS_PERIOD": Level.DEFAULT,
        "SEED": Level.BASE,
        "MODEL.FPN.OUT_CHANNELS": Level.BASE,
        "MODEL.MASK_ON": Level.FILE,
        "SOLVER.MAX_ITER": Level.FILE,
        "SOLVER.BASE_LR": Level.OVERRIDE,
        "OUTPUT_DIR": Level.OVERRIDE,
    }
    assert {key: cfg.level_of(key) for key in levels} == levels
    assert cfg.set_above(Level.FILE) == {"SOLVER.BASE_LR": 0.5, "OUTPUT_DIR": "out"}
    changed = cfg.with_values({"SEED": 4})
    assert changed.level_of("SEED") == Level.OVERRIDE and changed.is_frozen() and cfg.SEED == 3
    assert get_cfg().set_above(Level.DEFAULT) == {}
    by_hand = get_cfg()
    by_hand.MODEL.ROI_HEADS.NUM_CLASSES = 5
    assert by_hand.set_above(Level.DEFAULT) == {"MODEL.ROI_HEADS.NUM_CLASSES": 5}
    assert load_config(None, text=cfg.dump()).set_above(Level.BASE) == {}
