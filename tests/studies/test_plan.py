"""Study plans: runs, configs of runs, validation and overrides."""

import glob
import os

import pytest
import yaml

from studies.occlusion.plan import START, Run, load_plan
from studies.scenes import scene_spec

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REDUCED = os.path.join(ROOT, "studies", "reduced.yaml")


def plan_file(folder, **changes):
    with open(REDUCED, encoding="utf-8") as file:
        content = {**yaml.safe_load(file), **changes}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
    return path


PLANS = [path for path in glob.glob(os.path.join(ROOT, "studies", "*.yaml")) if "/heads_" not in path]


@pytest.mark.parametrize("path", PLANS)
def test_every_run_of_the_plans_has_a_config(path, tmp_path):
    plan = load_plan(path)
    runs = plan.runs()
    assert len(runs) == len(plan.data) * len(plan.detectors) * len(plan.seeds) * (
        len(plan.arms) + (plan.start is not None)
    )
    for run in runs[: len(runs) // len(plan.seeds)]:
        cfg = plan.config(run, str(tmp_path), num_classes=5)
        assert cfg.SEED == run.seed and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5
        assert cfg.MODEL.MASK_ON == (run.arm != START)
        assert cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK
        assert cfg.DATASETS.TEST == (scene_spec(str(tmp_path), run.data, "test"),)


def test_arms_differ_only_in_the_mask_head(tmp_path):
    plan = load_plan(REDUCED)
    configs = {arm: plan.config(Run("shapes", "fcos", arm, 2), str(tmp_path), num_classes=6) for arm in plan.arms}
    assert configs["plain"].MODEL.ROI_MASK_HEAD.NUM_CONV == 4
    assert configs["plain_8_convs"].MODEL.ROI_MASK_HEAD.NUM_CONV == 8
    assert configs["bilayer"].MODEL.ROI_MASK_HEAD.NAME == "BilayerMaskHead"
    dumps = set()
    for cfg in configs.values():
        cfg = cfg.clone()
        cfg.defrost()
        assert cfg.MODEL.WEIGHTS == str(tmp_path / "runs/shapes/fcos/start/seed_2/model_final.pth")
        cfg.OUTPUT_DIR = ""
        cfg.MODEL.ROI_MASK_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = "", 0
        cfg.MODEL.BILAYER = cfg.MODEL.BILAYER.__class__()
        dumps.add(cfg.dump())
    assert len(dumps) == 1


def test_runs_are_ordered_by_seed_and_initial_runs_come_first():
    names = [(run.seed, run.arm == START) for run in load_plan(REDUCED).runs()]
    assert names == sorted(names, key=lambda name: (name[0], not name[1]))


def test_values_are_overridden_by_key(tmp_path):
    plan = load_plan(REDUCED, ["settings.SOLVER.MAX_ITER", "7", "seeds", "[4]", "data.shapes.train.count", "9"])
    assert plan.seeds == (4,) and plan.data["shapes"]["train"]["count"] == 9
    assert plan.config(plan.runs()[2], str(tmp_path), num_classes=6).SOLVER.MAX_ITER == 7


def test_without_a_start_the_arms_do_not_depend_on_another_run(tmp_path):
    plan = load_plan(plan_file(tmp_path, start=None))
    assert START not in {run.arm for run in plan.runs()}
    assert plan.config(plan.runs()[0], str(tmp_path), num_classes=6).MODEL.WEIGHTS == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, -2]}, r"seeds must be a list of non-negative integers, got \[1, -2\]"),
        ({"seeds": [1, 1]}, r"seeds must differ from each other, got \[1, 1\]"),
        ({"arms": "plain"}, "arms must be a section of keys and values, got 'plain'"),
        ({"data": {"shapes": 3}}, "data.shapes must be a section of keys and values, got 3"),
        ({"seeds": []}, r"seeds must be a list of non-negative integers, got \[\]"),
        ({"seeds": 1}, "seeds must be a list of non-negative integers, got 1"),
        ({"baseline": "plane"}, "baseline 'plane' is not one of the arms plain, "),
        ({"candidate": "x"}, "candidate 'x' is not one of the arms"),
        ({"arms": {"start": {}, "plain": {}, "bilayer": {}}}, "'start' is reserved for the detector without masks"),
        ({"data": {"a": {"train": {"count": 1}}}}, r"data 'a' needs the splits train and test, got \['train'\]"),
        ({"data": {"a": {"train": {"count": 1, "cuont": 2}, "test": {"count": 1}}}}, "data a.train has .*'cuont'"),
        ({"data": {"a": {"train": {"count": 1, "images": "x"}, "test": {"count": 1}}}}, "annotations and images"),
        ({"detectors": None}, r"missing: \['detectors'\]"),
        ({"sedes": [1]}, r"unknown: \['sedes'\]"),
    ],
)
def test_errors_of_a_plan_name_the_value(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_plan(plan_file(tmp_path, **changes))


@pytest.mark.parametrize("text", ["- a", "a: [", "7"])
def test_files_that_are_not_plans_are_rejected(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"plan\.yaml (is not YAML|must hold the keys of a plan)"):
        load_plan(path)


def test_invalid_overrides_are_rejected():
    with pytest.raises(ValueError, match=r"override 'baseline': '\*/seed_1' is not YAML"):
        load_plan(REDUCED, ["baseline", "*/seed_1"])
    with pytest.raises(ValueError, match=r"KEY VALUE pairs, got 1 words"):
        load_plan(REDUCED, ["seeds"])
    with pytest.raises(ValueError, match="options go before the KEY VALUE pairs: --report-only"):
        load_plan(REDUCED, ["seeds", "[1]", "--report-only"])
    with pytest.raises(ValueError, match=r"'seeds' is not a section, it is \[1, 2, 3\]"):
        load_plan(REDUCED, ["seeds.first", "1"])
    with pytest.raises(ValueError, match=r"'arms.plian.MODEL.MASK_ON': arms has no 'plian'; there are plain, "):
        load_plan(REDUCED, ["arms.plian.MODEL.MASK_ON", "true"])
