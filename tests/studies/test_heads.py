"""A small study of heads in this process: live and frozen trunk, who trains it, resuming, results and report."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pycocotools import mask as coco_mask

from bcnet.bilayer import MapTarget
from bcnet.checkpoint import read_checkpoint
from bcnet.files import open_locked
from bcnet.maps import PUBLISHED_MAPS, required_layers
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.trainer import Trainer
from studies.heads import execute_heads_runs, load_heads_plan, write_heads_report
from studies.heads.cache import CachedRoIs, RoITargets
from studies.heads.heads import ManyHeads, build_arms, with_occluder_target
from studies.heads.runs import is_done, result_file, waiting_for_lock
from studies.scenes import scene_spec
from studies.test_set import describe_test_set, read_test_set

TINY = {
    "config": "configs/quick/bcnet_faster_rcnn.yaml",
    "trunk": "all",
    "seeds": [1],
    "views": 2,
    "rois": 4,
    "resamples": 20,
    "data": {"shapes": {"train": {"count": 4, "size": 64}, "tests": {"test": {"count": 3, "size": 64}}}},
    "arms": {
        "plain": {"MODEL": {"ROI_MASK_HEAD": {"NAME": "PlainMaskHead", "BOUNDARY": True}}},
        "front": {"MODEL": {"BILAYER": {"OCCLUDER_TARGET": "front", "AMODAL": True}}},
    },
    "compare": [["front", "plain"]],
    "settings": {
        "MODEL": {
            "DEVICE": "cpu",
            "FPN": {"OUT_CHANNELS": 8},
            "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": 4},
            "ROI_MASK_HEAD": {"CONV_DIM": 8, "NUM_CONV": 2, "POOLER_RESOLUTION": 4, "BOX_JITTER": 0.1},
        },
        "SOLVER": {
            "IMS_PER_BATCH": 2,
            "MAX_ITER": 2,
            "STEPS": [],
            "WARMUP_ITERS": 0,
            "CLIP_GRADIENTS": {"CLIP_TYPE": "norm"},
        },
        "INPUT": {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64},
        "TEST": {"EVAL_PERIOD": 1},
        "DATALOADER": {"NUM_WORKERS": 0},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


def plan_of(folder, **changes):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return load_heads_plan(path)


@pytest.fixture(scope="module")
def live(folder):
    """A plan and the folder of its finished study; the sum of the arms trains the trunk."""
    plan = plan_of(folder)
    output = str(folder / "live")
    execute_heads_runs(plan, output, plan.runs())
    return plan, output


@pytest.fixture(scope="module")
def frozen(folder, live):
    """The same with the trunk of the first study, frozen."""
    weights = str(Path(live[1], "runs/shapes/seed_1/all/model_final.pth"))
    settings = {**TINY["settings"], "MODEL": {**TINY["settings"]["MODEL"], "WEIGHTS": weights}}
    plan = plan_of(folder, trunk="none", settings=settings)
    output = str(folder / "frozen")
    execute_heads_runs(plan, output, plan.runs())
    return plan, output


def test_every_arm_leaves_a_result_with_its_curve_and_its_instances(live):
    plan, output = live
    (run,) = plan.runs()
    assert run.arms == ("plain", "front") and is_done(plan, output, run)
    test_set = json.loads(Path(output, "results/shapes/test.json").read_text())
    for arm in run.arms:
        result = json.loads(Path(result_file(output, run, arm)).read_text())
        assert (result["iteration"], result["max_iter"], result["trunk"]) == (2, 2, "all")
        assert list(result["tests"]["test"]["curve"]) == ["1", "2"]
        values = result["tests"]["test"]["values"]
        assert len(values["iou"]) == len(test_set["image"]) > 0
        assert np.mean(values["iou"]) == pytest.approx(result["tests"]["test"]["curve"]["2"]["iou"], abs=1e-3)
        assert ("amodal_iou" in values) == (arm == "front")
        if arm == "front":
            assert len(values["order_mean"]) == len(test_set["pair_image"])
    assert result["cost"]["multiply_adds_all_maps"] > 0


def test_the_report_has_the_order_that_needs_no_model(live):
    plan, output = live
    truths = read_test_set(scene_spec(output, "shapes", "test"))
    larger = [
        coco_mask.decode(truth.visible[j]).sum() > coco_mask.decode(truth.visible[i]).sum()
        for truth in truths
        for i, j in truth.pairs
    ]
    assert 0 < len(larger) and describe_test_set(truths)["pair_larger"] == larger
    assert f"in front in {100 * np.mean(larger):.1f} % of the pairs" in write_heads_report(plan, output)


def test_the_report_compares_the_arms_and_says_who_trains_the_trunk(live, frozen):
    report = write_heads_report(*live)
    assert "The trunk is trained by the sum of all arms' losses, from `random weights`" in report
    assert "### front minus plain" in report and "boundary IoU, all" in report
    assert Path(live[1], "shapes_test_curve.png").stat().st_size > 1000
    rows = json.loads(Path(live[1], "comparisons.json").read_text())
    assert {row["metric"] for row in rows} == {"iou", "boundary_iou"}  # what both arms have
    assert "it is frozen at" in write_heads_report(*frozen)


def test_a_finished_study_is_not_repeated(live, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("a finished run was started again"))
    plan, output = live
    execute_heads_runs(plan, output, plan.runs())


def test_another_plan_in_the_folder_of_a_finished_study_is_rejected(live, tmp_path):
    plan, output = live
    longer = {**plan.settings, "SOLVER": {**plan.settings["SOLVER"], "MAX_ITER": 3}}
    arms = {**plan.arms, "plain": {"MODEL": {"ROI_MASK_HEAD": {"NAME": "PlainMaskHead", "NUM_CONV": 1}}}}
    labels = tmp_path / "levels.json"
    labels.write_text(json.dumps({"000000": "high"}))
    for other, message, of_results in (
        (
            replace(plan, settings=longer),
            "seed_1/all/run.yaml belongs to another plan",
            "its max_iter is 2, the plan's 3",
        ),
        (replace(plan, trunk="plain"), "arms.json .* differs in trunk", "its trunk is 'all', the plan's 'plain'"),
        (replace(plan, arms=arms), "arms.json .* differs in arms", "plain.json is of another plan: its overrides is"),
        (replace(plan, olac=str(labels)), "test.json .* differs in level; .* remove this file", None),
    ):
        with pytest.raises(ValueError, match=message):
            execute_heads_runs(other, output, plan.runs())
        if of_results:
            with pytest.raises(ValueError, match=of_results):
                write_heads_report(other, output)


def test_a_cache_of_fewer_layers_or_of_another_trunk_is_rejected(frozen, tmp_path):
    plan, output = frozen
    study = str(tmp_path / "study")
    shutil.copytree(Path(output, "data"), Path(study, "data"))
    shutil.copy(plan.settings["MODEL"]["WEIGHTS"], weights := str(tmp_path / "trunk.pth"))
    settings = {**plan.settings, "MODEL": {**plan.settings["MODEL"], "WEIGHTS": weights}}
    plain = replace(plan, settings=settings, arms={"plain": plan.arms["plain"]}, compare=())
    execute_heads_runs(plain, study, plain.runs())
    both = replace(plain, arms=plan.arms)
    with pytest.raises(ValueError, match=r"cache.json .* differs in layers; remove the cache, .*seed_1"):
        execute_heads_runs(both, study, both.runs())
    tensors = read_checkpoint(weights)["model"]
    torch.save({"model": {name: value + ("fpn" in name) for name, value in tensors.items()}}, weights)
    another = replace(plain, arms={"again": plan.arms["plain"]})
    with pytest.raises(ValueError, match=r"cache.json .* differs in weights"):
        execute_heads_runs(another, study, another.runs())


def test_an_interrupted_run_ends_like_an_uninterrupted_one(live, tmp_path, monkeypatch):
    plan, output = live
    (run,) = plan.runs()
    shutil.copytree(Path(output, "data"), tmp_path / "data")
    evaluate = Trainer.run
    monkeypatch.setattr("bcnet.training.interruption.Interruption.stop_requested", lambda self: True)
    with pytest.raises(TrainingInterrupted):
        execute_heads_runs(plan, str(tmp_path), [run])
    monkeypatch.undo()
    assert Trainer.run is evaluate and not is_done(plan, str(tmp_path), run)
    execute_heads_runs(plan, str(tmp_path), [run])
    first, second = (read_checkpoint(f"{o}/runs/{run.name}/model_final.pth")["model"] for o in (output, tmp_path))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_an_arm_on_a_frozen_trunk_is_the_same_whatever_arms_are_beside_it(frozen, folder, tmp_path):
    plan, output = frozen
    assert [run.name for run in plan.runs()] == ["shapes/seed_1/plain", "shapes/seed_1/front"]
    alone = replace(plan, arms={"front": plan.arms["front"]}, compare=())
    shutil.copytree(Path(output, "data"), tmp_path / "data")
    execute_heads_runs(alone, str(tmp_path), alone.runs())
    name = "runs/shapes/seed_1/front/model_final.pth"
    first, second = (read_checkpoint(str(Path(o, name)))["model"] for o in (output, tmp_path))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_run_that_could_not_start_leaves_its_folder_to_a_corrected_plan(frozen, tmp_path):
    plan, output = frozen
    study = str(tmp_path / "study")
    shutil.copytree(Path(output, "data"), Path(study, "data"))
    run = plan.runs()[0]
    with pytest.raises(
        ValueError, match=r"RoIs, fewer than a batch of 1000: lower rois \(1000\) in the plan, or raise"
    ):
        execute_heads_runs(replace(plan, rois=1000), study, [run])
    execute_heads_runs(plan, study, [run])
    assert is_done(plan, study, run)


def test_cached_batches_start_anywhere_in_the_stream(frozen):
    folder = str(Path(frozen[1], "cache/shapes/seed_1"))
    keywords = {"batch_size": 4, "side": 8, "seed": 3}
    stream = iter(CachedRoIs(folder, 2, **keywords))
    batches = [next(stream)[0] for _ in range(9)]
    later = next(iter(CachedRoIs(folder, 2, **keywords, start_iteration=8)))[0]
    assert torch.equal(later["image"], batches[8]["image"]) and later["image"].shape == (4, 8, 4, 4)
    assert set(later["targets"].crops) == {"occludee", "neighbours", "front", "amodal"}
    crop = later["targets"].crops["front"]
    assert torch.equal(crop.values, batches[8]["targets"].crops["front"].values) and crop.values.shape == (4, 8, 8)
    with pytest.raises(ValueError, match="fewer than a batch of 1000"):
        CachedRoIs(folder, 2, **{**keywords, "batch_size": 1000})


def crops(count, side=8):
    return {
        name: MapTarget(torch.rand(count, side, side) > 0.5) for name in ("occludee", "neighbours", "front", "amodal")
    }


@pytest.mark.parametrize("trunk", ["all", "plain", "front", "none"])
def test_who_trains_the_trunk(folder, trunk):
    heads = ManyHeads(build_arms(plan_of(folder), ("plain", "front"), 8, seed=1), trunk)
    pooled = torch.randn(6, 8, 4, 4, requires_grad=True)
    losses = heads.losses(pooled, torch.zeros(6, dtype=torch.int64), crops(6))
    assert {name.split("/")[0] for name in losses} == {"plain", "front"}
    for arm in ("plain", "front"):
        own = sum(value for name, value in losses.items() if name.startswith(f"{arm}/"))
        inputs = [pooled, *heads.arms[arm].parameters()]
        gradient, *others = torch.autograd.grad(own, inputs, allow_unused=True, retain_graph=True)
        assert (gradient is not None) == (trunk in ("all", arm))
        assert all(other is not None for other in others)


def test_an_arms_draws_do_not_depend_on_the_arms_beside_it(folder):
    plan, targets = plan_of(folder), crops(40)
    targets["front"].values[5:] = False  # five RoIs with an occluder, and five drawn ones of the others
    pooled, classes = torch.randn(40, 8, 4, 4), torch.zeros(40, dtype=torch.int64)
    found = []
    for arms in (("plain", "front"), ("front",)):
        heads = ManyHeads(build_arms(plan, arms, 8, seed=1), "all")
        torch.manual_seed(5)
        found.append(heads.losses(pooled, classes, targets)["front/loss_occluder_mask"])
    assert torch.equal(*found)


def test_an_arm_learns_the_occluder_that_its_config_names(folder):
    arms = build_arms(plan_of(folder), ("plain", "front"), 8, seed=1)
    assert required_layers(arms["front"].maps) == ("occludee", "front", "amodal")
    assert required_layers(with_occluder_target(PUBLISHED_MAPS, "neighbours")) == ("occludee", "neighbours")
    with pytest.raises(ValueError, match="must be one of neighbours, front, got 'back'"):
        with_occluder_target(PUBLISHED_MAPS, "back")


def test_an_arm_with_a_mask_per_class_is_rejected(folder):
    per_class = {"arms": {"plain": {"MODEL": {"ROI_MASK_HEAD": {"CLS_AGNOSTIC_MASK": False}}}}, "compare": []}
    with pytest.raises(ValueError, match=r"arm 'plain': .*CLS_AGNOSTIC_MASK is False"):
        build_arms(plan_of(folder, **per_class), ("plain",), 8, seed=1)


def test_work_that_another_process_does_is_waited_for(tmp_path, monkeypatch):
    path, waited = str(tmp_path / "lock"), []
    other = open_locked(path, "w", "")
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds) or other.close())
    with waiting_for_lock(path, "makes the data"), pytest.raises(BlockingIOError):
        open_locked(path, "w", "")
    assert len(waited) == 1


def test_roi_targets_have_what_a_training_step_reads():
    targets = RoITargets(torch.zeros(3, dtype=torch.int64), crops(3))
    assert len(targets.to("cpu")) == 3 and targets.masks.nonempty("occluder").tolist() == [False] * 3
    assert targets.masks.nonempty("front").tolist() == [True] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "bilayer"}, "trunk is 'bilayer'; it must be 'none', 'all' or an arm"),
        ({"compare": [["plain", "other"]]}, "compare names 'other', not one of the arms plain, front"),
        ({"compare": [["plain"]]}, r"compare must be a list of pairs of arms, got \[\['plain'\]\]"),
        ({"compare": ["plain", "front"]}, r"compare must be a list of pairs of arms, got \['plain', 'front'\]"),
        ({"seeds": 1}, "seeds must be a list of non-negative integers, got 1"),
        ({"arms": {"a/b": {}}, "compare": []}, "'a/b' is no name of an arm"),
        ({"data": {"shapes": {"train": {"count": 1}}}}, "data 'shapes' has .*; it needs train and tests"),
        ({"seeds": [1, 2, 1]}, r"seeds must differ from each other, got \[1, 2, 1\]"),
        ({"seeds": [True]}, r"seeds must be a list of non-negative integers, got \[True\]"),
        ({"views": 0}, "views must be an integer of at least 1, got 0"),
        ({"rois": "many"}, "rois must be an integer of at least 1, got 'many'"),
        ({"arms": ["plain"]}, r"arms must be a section of keys and values, got \['plain'\]"),
        ({"arms": {"plain": "PlainMaskHead"}}, "arms.plain must be a section of keys and values, got 'PlainMaskHead'"),
        ({"data": ["shapes"]}, r"data must be a section of keys and values, got \['shapes'\]"),
        (
            {"data": {"shapes": {"train": "a.json", "tests": {}}}},
            "data.shapes.train must be a section .*, got 'a.json'",
        ),
        ({"data": {"shapes": {"train": {"count": 1}, "tests": {"val": "v"}}}}, "data.shapes.val must be .*, got 'v'"),
        ({"compare": None}, "compare must be a list of pairs of arms, got None"),
        ({"settings": 3}, "settings must be a section of keys and values, got 3"),
        ({"sedes": [1]}, r"unknown: \['sedes'\]"),
        ({"settings": {}}, "CLIP_TYPE 'full_model' would couple the arms"),
        (
            {"arms": {"plain": {"SOLVER": {"BASE_LR": 5}}}, "compare": []},
            "arm 'plain' sets SOLVER.BASE_LR, which is one",
        ),
        (
            {"arms": {"plain": {"MODEL": {"ROI_MASK_HEAD": {"ROI_SCALE": 2.0}}}}, "compare": []},
            "sets MODEL.ROI_MASK_HEAD.ROI_SCALE, which is one for all arms: set it under settings",
        ),
    ],
)
def test_what_a_plan_gets_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ROI_MASK_HEAD": {"NAME": "SideBrachMaskHead"}},
            "MODEL.ROI_MASK_HEAD.NAME is 'SideBrachMaskHead'; registered",
        ),
        ({"BILAYER": {"AMODL": True}}, "unknown config key 'MODEL.BILAYER.AMODL' in the plan's arm front"),
        ({"ROI_MASK_HEAD": {"NAME": "PlainMaskHead"}, "BILAYER": {"AMODAL": True}}, "arm 'front': .*AMODAL is True"),
    ],
)
def test_a_mistyped_arm_is_an_error_before_anything_is_written(tmp_path, changes, message):
    plan = plan_of(tmp_path)
    plan = replace(plan, arms={**plan.arms, "front": {"MODEL": changes}})
    with pytest.raises((KeyError, ValueError), match=message):
        execute_heads_runs(plan, str(tmp_path / "study"), plan.runs())
    assert not (tmp_path / "study").exists()


def test_a_frozen_trunk_needs_weights(folder, tmp_path):
    plan = plan_of(folder, trunk="none")
    with pytest.raises(ValueError, match=r"the trunk is frozen .* it would stay random"):
        execute_heads_runs(plan, str(tmp_path), plan.runs()[:1])


def test_a_pattern_in_a_comparison_stands_for_the_arms_that_it_matches(folder):
    arms = {name: {} for name in ("plain", "side_a", "side_b")}
    compare = [["side_b", "side_a"], ["*", "plain"], ["side_*", "side_a"]]
    plan = plan_of(folder, arms=arms, compare=compare)
    assert plan.compare == (("side_b", "side_a"), ("side_a", "plain"), ("side_b", "plain"))
    with pytest.raises(ValueError, match=r"compare names 'no\*', not one of the arms"):
        plan_of(folder, arms=arms, compare=[["no*", "plain"]])


@pytest.mark.parametrize("name", ["heads_shapes", "heads_coco"])
def test_the_plans_of_the_repository_are_valid(name):
    plan = load_heads_plan(f"studies/{name}.yaml")
    assert {"plain_8_convs_boundary", "bilayer"} <= plan.arms.keys()
    for arm, head in build_arms(plan, tuple(plan.arms), 64, seed=1).items():
        without = arm in ("plain_8_convs", "bilayer_no_boundary")
        assert ("occludee_boundary" in {spec.name for spec in head.maps}) != without
