"""Execution of a small study in this process: results, report, failed, repeated and resumed runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pycocotools import mask as coco_mask
from small_models import small_config, write_small_data_set

from bcnet.data import load_dataset
from bcnet.data.source_masks import source_masks
from bcnet.evaluation import OCCLUSION_LEVELS
from bcnet.files import open_locked
from bcnet.prediction.ground_truth_boxes import ground_truth_boxes, masks_in_ground_truth_boxes
from bcnet.structures import Detections
from studies.occlusion import execute_runs, load_plan, runs, write_report
from studies.occlusion.figures import plot_differences
from studies.occlusion.plan import START, StudyPlan, run_folder
from studies.occlusion.scenes import make_scenes
from studies.scenes import scene_spec

SPLITS = {"train": {"count": 4, "size": 64}, "test": {"count": 3, "size": 64}}
SETTINGS = {
    "MODEL": {
        "FPN": {"OUT_CHANNELS": 16},
        "ROI_BOX_HEAD": {"FC_DIM": 16},
        "ROI_MASK_HEAD": {"CONV_DIM": 16},
        "RPN": {"PRE_NMS_TOPK_TRAIN": 20, "PRE_NMS_TOPK_TEST": 20},
    },
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 1, "STEPS": [], "CHECKPOINTS_KEPT": 1},
    "INPUT": {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64},
    "DATALOADER": {"NUM_WORKERS": 0},
    "TEST": {"DETECTIONS_PER_IMAGE": 3},
    "VIS_PERIOD": 0,
}
PLAN = StudyPlan(
    seeds=(1,),
    data={"shapes": SPLITS},
    detectors={"faster_rcnn": "configs/quick/bcnet_faster_rcnn.yaml"},
    arms={"plain": {"MODEL": {"ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead"}}}, "bilayer": {}},
    baseline="plain",
    candidate="bilayer",
    start={},
    settings=SETTINGS,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with the plan's scenes."""
    output = str(tmp_path_factory.mktemp("study"))
    assert make_scenes(PLAN, output, workers=1) == {"shapes": 6}
    return output


@pytest.fixture(scope="module")
def study(scenes):
    """The folder of a completed study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_run_process", lambda children, folder, *_: (runs.execute_run(folder), (0.0, 0))[1])
        assert execute_runs(PLAN, scenes, {"shapes": 6}) == []
    return scenes


def test_every_run_leaves_its_config_log_weights_and_result(study):
    for run in PLAN.runs():
        files = set(os.listdir(run_folder(study, run)))
        assert {"run.yaml", "result.json", "log.txt", "model_final.pth", "runs.jsonl"} <= files
    results = runs.read_results(PLAN, study)
    assert list(results) == PLAN.runs()
    start, plain, bilayer = results.values()
    assert "true_boxes" not in start and "metrics" in start
    assert plain["true_boxes"]["all"]["instances"] == bilayer["true_boxes"]["all"]["instances"] > 0
    assert "occluder_mean_iou" not in plain["true_boxes"]["all"]
    assert 0 <= bilayer["true_boxes"]["all"]["occluder_mean_iou"] <= 100
    for result, learned in ((plain, set()), (bilayer, {"occluder_iou", "order_occluder"})):
        maps = result["maps_in_true_boxes"]
        assert maps["iou"] == pytest.approx(result["true_boxes"]["all"]["mean_iou"], abs=1e-6)
        assert set(maps) - learned == {"iou", "boundary_iou"}
    assert bilayer["mask_head"]["multiply_adds_all_maps"] > bilayer["mask_head"]["multiply_adds_masks_only"]
    # Four 3 x 3 convolutions, a 2 x 2 deconvolution and a predictor of 16 channels, on 14 x 14 cells.
    assert plain["mask_head"]["multiply_adds_all_maps"] == 196 * (4 * 9 * 16**2 + 4 * 16**2 + 4 * 16)


def test_arms_start_from_the_same_detector(study):
    start, *arms = PLAN.runs()
    for run in arms:
        log = Path(run_folder(study, run), "log.txt").read_text()
        assert os.path.join(run_folder(study, start), "model_final.pth") in log


def test_report_has_every_table_and_picture(study):
    report = write_report(PLAN, study)
    assert Path(study, "report.md").read_text() == report
    for text in (
        "3 of 3 runs are done",
        "bilayer minus plain, seed by seed",
        "IoU in ground-truth boxes, heavy",
        "## Scenes",
    ):
        assert text in report
    for name in ("levels", "differences", "pictures"):
        assert os.path.getsize(os.path.join(study, f"shapes_faster_rcnn_{name}.png")) > 1000
    assert set(json.loads(Path(study, "results.json").read_text())) == {run.name for run in PLAN.runs()}


def test_finished_runs_are_not_repeated(study, monkeypatch):
    monkeypatch.setattr(runs, "_run_process", lambda *_: pytest.fail("a finished run was started again"))
    assert execute_runs(PLAN, study, {"shapes": 6}) == []


def test_another_plan_in_the_same_folder_is_rejected(study):
    other = StudyPlan(**{**vars(PLAN), "settings": {**SETTINGS, "SEED": 5, "VIS_PERIOD": 7}})
    with pytest.raises(ValueError, match=r"start/seed_1/run\.yaml belongs to another plan"):
        execute_runs(other, study, {"shapes": 6})


def test_a_value_that_a_head_does_not_support_is_an_error_before_the_first_run(tmp_path):
    settings = {**SETTINGS, "MODEL": {**SETTINGS["MODEL"], "BILAYER": {"AMODAL": True}}}
    plan = StudyPlan(**{**vars(PLAN), "settings": settings})
    with pytest.raises(ValueError, match=r"shapes/faster_rcnn/plain/seed_1: .*AMODAL is True; the plain head"):
        execute_runs(plan, str(tmp_path), {"shapes": 6})
    assert not os.listdir(tmp_path)


def test_a_failure_stops_only_dependent_runs(tmp_path, monkeypatch):
    started = []

    def fail(children, folder, *_):
        started.append(folder)
        return 0.0, 1

    monkeypatch.setattr(runs, "_run_process", fail)
    assert execute_runs(PLAN, str(tmp_path), {"shapes": 6}) == PLAN.runs()
    assert started == [run_folder(str(tmp_path), PLAN.runs()[0])]


def test_runs_are_selected_by_name_with_their_initial_runs(tmp_path, monkeypatch):
    started = []

    def succeed(children, folder, *_):
        started.append(os.path.relpath(folder, tmp_path / "runs"))
        Path(folder, runs.RESULT_FILE).touch()
        return 0.0, 0

    monkeypatch.setattr(runs, "_run_process", succeed)
    chosen = PLAN.chosen(["*/bilayer/*"])
    assert execute_runs(PLAN, str(tmp_path), {"shapes": 6}, runs=chosen) == []
    assert started == [f"shapes/faster_rcnn/{arm}/seed_1" for arm in (START, "bilayer")]
    with pytest.raises(ValueError, match="no run matches nothing; there are: shapes/faster_rcnn/start/seed_1, "):
        PLAN.chosen(["nothing"])


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [("2,3", 2, ["2", "3", "2"]), (None, 2, ["0", "1", "0"]), (None, 0, [None, None, None])],
)
def test_runs_are_distributed_over_the_visible_gpus(tmp_path, monkeypatch, visible, count, expected):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    seen = []

    class Child:
        def __init__(self, command, env, **_):
            seen.append((env.get("CUDA_VISIBLE_DEVICES"), env["OMP_NUM_THREADS"], command[-2:]))

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Child)
    children = set()
    for slot in range(3):
        assert runs._run_process(children, str(tmp_path), slot, 5, ["my_heads"])[1] == 0
    assert seen == [(gpu, "5", [str(tmp_path), "my_heads"]) for gpu in expected] and not children


def test_an_interrupted_study_stops_its_runs():
    with pytest.raises(KeyboardInterrupt), runs._stopping_children() as children:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        children.add(child)
        raise KeyboardInterrupt
    assert child.wait(30) == -signal.SIGTERM


def test_a_run_knows_the_components_of_the_modules_that_its_plan_imports(tmp_path, monkeypatch):
    (tmp_path / "my_study_head.py").write_text(
        "from bcnet.modeling import MASK_HEAD_REGISTRY\n"
        "from bcnet.modeling.mask_heads import PlainMaskHead\n"
        "@MASK_HEAD_REGISTRY.register()\n"
        "class MyStudyHead(PlainMaskHead): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    content = yaml.safe_load(Path("studies/reduced.yaml").read_text())
    content |= {"imports": ["my_study_head"], "arms": {"mine": {"MODEL": {"ROI_MASK_HEAD": {"NAME": "MyStudyHead"}}}}}
    content |= {"baseline": "mine", "candidate": "mine", "start": None}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan(tmp_path / "plan.yaml")
    seen = []
    monkeypatch.setattr(runs, "_run_process", lambda children, folder, slot, threads, imports: seen.append(imports))
    run = plan.chosen(["shapes/fcos/mine/seed_1"])
    with pytest.raises(TypeError):  # the run above returns nothing
        execute_runs(plan, str(tmp_path / "study"), {"shapes": 6}, runs=run, imports=["another"])
    assert seen == [["my_study_head", "another"]]


def test_a_run_is_locked_against_a_second_process(study):
    folder = run_folder(study, PLAN.runs()[0])
    with (
        open_locked(os.path.join(folder, runs.LOCK_FILE), "w", ""),
        pytest.raises(BlockingIOError, match=r"another process is executing the run in .*seed_1"),
    ):
        runs.execute_run(folder)


def test_a_config_without_a_newer_key_belongs_to_the_same_plan(study, monkeypatch):
    monkeypatch.setattr(runs, "_run_process", lambda *_: pytest.fail("a finished run was started again"))
    path = Path(run_folder(study, PLAN.runs()[0]), runs.CONFIG_FILE)
    text = path.read_text()
    path.write_text(text.replace("  COMPILE: false\n", ""))
    try:
        assert "COMPILE" in text and "COMPILE" not in path.read_text()
        assert execute_runs(PLAN, study, {"shapes": 6}) == []
    finally:
        path.write_text(text)


def test_a_report_needs_an_arm_but_not_the_first_seed(study, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    plan = StudyPlan(**{**vars(PLAN), "seeds": (0, 1), "detectors": {**PLAN.detectors, "fcos": "x"}})
    assert "3 of 12 runs are done" in write_report(plan, str(tmp_path / "study"))
    for arm in PLAN.arms:
        shutil.rmtree(tmp_path / "study/runs/shapes/faster_rcnn" / arm)
    with pytest.raises(ValueError, match="is complete, there is nothing to report"):
        write_report(PLAN, str(tmp_path / "study"))


def test_a_figure_of_differences_of_one_arm_alone_has_no_legend(tmp_path):
    plot_differences(PLAN, {}, "shapes", "faster_rcnn", str(tmp_path / "differences.png"))  # warnings are errors
    assert (tmp_path / "differences.png").stat().st_size > 1000


def test_a_report_without_runs_is_rejected(scenes, tmp_path):
    with pytest.raises(ValueError, match=r"no run of the study in .* is complete"):
        write_report(PLAN, str(tmp_path))


class _Oracle:
    """A model whose masks fill the box, and whose occluder layer is empty."""

    device = torch.device("cpu")

    def inference_masks(self, images, detections, *, with_occluder):
        (given,) = detections
        ones = torch.ones(len(given), 28, 28)
        return [
            Detections(
                given.image_size,
                given.boxes,
                given.scores,
                given.classes,
                {"occludee_mask": ones, "occluder_mask": 0 * ones},
            )
        ]


def test_iou_in_ground_truth_boxes_of_a_known_model(scenes):
    cfg = PLAN.config(PLAN.runs()[1], scenes, num_classes=6)
    dataset = scene_spec(scenes, "shapes", "test")
    summary = masks_in_ground_truth_boxes(cfg, _Oracle(), dataset)
    shares, occluded = [], 0
    for record in load_dataset(dataset)[0]:
        truth = source_masks(record)
        occluded += sum(rle is not None for rle in truth.layers["occluder"])
        boxes, _ = ground_truth_boxes(record)
        for instance, box in zip(record.instances, boxes.tolist(), strict=True):
            assert box == [*instance.bbox[:2], instance.bbox[0] + instance.bbox[2], instance.bbox[1] + instance.bbox[3]]
            area = instance.bbox[2] * instance.bbox[3]
            shares.append(100 * float(coco_mask.area(instance.segmentation)) / area)
    assert summary["all"]["instances"] == len(shares) == sum(summary[level]["instances"] for level in OCCLUSION_LEVELS)
    assert summary["all"]["mean_iou"] == pytest.approx(sum(shares) / len(shares))
    assert summary["all"]["occluded"] == occluded > 0
    assert summary["all"]["occluder_mean_iou"] == summary["all"]["occluder_found"] == 0


def instances_by_level(tmp_path, dataset) -> dict:
    summary = masks_in_ground_truth_boxes(small_config(OUTPUT_DIR=str(tmp_path)), _Oracle(), dataset)
    assert summary["all"]["mean_iou"] == 100  # the objects fill their boxes
    return {level: summary[level]["instances"] for level in OCCLUSION_LEVELS}


def test_iou_in_ground_truth_boxes_of_polygons_without_amodal_masks(tmp_path):
    dataset = write_small_data_set(tmp_path / "data", images=5)
    # Of 28 x 24 pixels each, the other object covers (18 - i) x 16 of both boxes in image i: 30 % down to 25 %.
    assert instances_by_level(tmp_path, dataset) == {"none": 0, "light": 2, "medium": 8, "heavy": 0}


def test_iou_in_ground_truth_boxes_of_amodal_polygons(tmp_path):
    dataset = write_small_data_set(tmp_path / "data", images=2)
    path = tmp_path / "data" / "annotations.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["amodal_segmentation"] = annotation["segmentation"]
    content["annotations"][0]["amodal_segmentation"] = [[4, 4, 44, 4, 44, 28, 4, 28]]  # 28 of 40 columns are visible
    path.write_text(json.dumps(content))
    assert instances_by_level(tmp_path, dataset) == {"none": 3, "light": 0, "medium": 1, "heavy": 0}
