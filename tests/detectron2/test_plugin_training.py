"""Training and evaluation with detectron2's trainer."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import copy
import json
import os
import pickle
import sys

import torch
from coco_scene import write_coco
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model as build_detectron2_model
from plugin_samples import CONFIGS, FASTER_RCNN, FCOS, SMALL, both_hosts, engine_cfg, plugin_cfg

from bcnet.checkpoint import load_weights, write_checkpoint, write_weights
from bcnet.detectron2.checkpoint import BCNetCheckpointer
from bcnet.detectron2.train import BCNetTrainer, main, setup
from bcnet.modeling import build_model


def arguments(folder, config_file, *opts, options=()):
    spec = write_coco(folder / "data", images=4)
    return default_argument_parser().parse_args(
        [
            *("--config-file", os.path.join(CONFIGS, config_file), *options),
            *map(str, SMALL),
            *("MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.TRAIN", f"('{spec}',)", "DATASETS.TEST", f"('{spec}',)"),
            *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
            *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0", "SOLVER.MAX_ITER", "2"),
            *("SOLVER.LOG_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "1", "OUTPUT_DIR", str(folder / "output")),
            *map(str, opts),
        ]
    )


def logged(folder):
    with open(folder / "output" / "metrics.json") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_train_resume_and_evaluate(tmp_path, config_file):
    main(arguments(tmp_path, config_file, "SOLVER.CHECKPOINTS_KEPT", 1))
    output = tmp_path / "output"
    first = [line for line in logged(tmp_path) if "total_loss" in line]
    assert [line["iteration"] for line in first] == [0, 1]
    masks = {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}
    assert first[0].keys() > masks | {"loss_cls", "loss_box_reg"}
    assert 0.5 < first[0]["loss_mask"] < 0.8 and first[0]["loss_occluder_mask"] > 0.1
    # One periodic checkpoint is kept, and the final model.
    assert sorted(path.name for path in output.glob("*.pth")) == ["model_0000001.pth", "model_final.pth"]

    main(arguments(tmp_path, config_file, "SOLVER.MAX_ITER", 3, options=["--resume"]))
    assert [line["iteration"] for line in logged(tmp_path) if "total_loss" in line] == [0, 1, 2]

    threshold = "MODEL.FCOS.SCORE_THRESH_TEST" if config_file == FCOS else "MODEL.ROI_HEADS.SCORE_THRESH_TEST"
    final = ("MODEL.WEIGHTS", output / "model_final.pth", threshold, 0.0)
    augmented = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(48,)")
    metrics = main(arguments(tmp_path, config_file, *final, *augmented, options=["--eval-only"]))
    tasks = {"bbox", "segm", "boundary"}
    assert metrics.keys() >= tasks | {"bbox_TTA", "segm_TTA", "boundary_TTA", "occlusion", "operating_point"}
    assert all(0 <= metrics[task]["AP"] <= 100 for task in tasks)
    results = json.loads((output / "inference" / "coco_instances_results.json").read_text())
    assert {r["category_id"] for r in results} <= {3, 7, 40} and "segmentation" in results[0]


def test_a_model_of_the_engine_is_evaluated_and_trained_on(tmp_path):
    torch.manual_seed(1)
    cfg = engine_cfg(FCOS, "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    engine = build_model(cfg)
    path = str(tmp_path / "engine.pth")
    # As the engine's checkpoints: more than the model, which is not taken over.
    write_checkpoint({"model": engine.state_dict(), "iteration": 7, "optimizer": {}}, path)
    assert setup(arguments(tmp_path, FCOS)).MODEL.DEVICE == "cpu"
    trainer = BCNetTrainer(setup(arguments(tmp_path, FCOS, "MODEL.WEIGHTS", path)))
    trainer.resume_or_load(resume=False)
    back = build_model(cfg)
    saved = str(tmp_path / "plugin.pth")
    torch.save({"model": trainer.model.state_dict()}, saved)
    load_weights(back, saved)
    for name, tensor in engine.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_checkpointer_loads_models_of_both_hosts(tmp_path, config_file, suffix):
    engine, plugin = both_hosts(config_file)
    expected = copy.deepcopy(plugin.state_dict())
    for state in (engine.state_dict(), expected):
        path = str(tmp_path / f"model.{suffix}")
        write_weights(state, path)
        other = build_detectron2_model(plugin_cfg(config_file))
        BCNetCheckpointer(other).load(path)
        for name, tensor in expected.items():
            assert torch.equal(other.state_dict()[name], tensor), name


def test_a_plain_mask_rcnn_initialises_the_occludee(tmp_path):
    plain = build_detectron2_model(plugin_cfg(FASTER_RCNN, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"))
    path = str(tmp_path / "zoo.pkl")
    with open(path, "wb") as file:  # as the zoo's files are
        pickle.dump({"model": {k: v.numpy() for k, v in plain.state_dict().items()}, "__author__": "zoo"}, file)
    bilayer = build_detectron2_model(plugin_cfg(FASTER_RCNN))
    untouched = copy.deepcopy(bilayer.roi_heads.mask_head.occluder_layer.state_dict())
    BCNetCheckpointer(bilayer).load(path)
    head, before = bilayer.roi_heads.mask_head, plain.roi_heads.mask_head
    assert torch.equal(head.occludee_layer.convs[3].weight, before.mask_fcn4.weight)
    assert torch.equal(head.occludee_mask.deconv.weight, before.deconv.weight)
    assert torch.equal(head.occludee_mask.predictor.bias, before.predictor.bias)
    assert torch.equal(bilayer.backbone.fpn_lateral2.weight, plain.backbone.fpn_lateral2.weight)
    assert all(torch.equal(head.occluder_layer.state_dict()[key], tensor) for key, tensor in untouched.items())
    again = build_detectron2_model(plugin_cfg(FASTER_RCNN, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"))
    BCNetCheckpointer(again).load(path)
    assert torch.equal(again.roi_heads.mask_head.mask_fcn1.weight, before.mask_fcn1.weight)


def test_what_the_engine_does_not_know_stays_in_a_plain_file(tmp_path):
    """The box heads of a cascade, and another backbone."""
    plain = build_detectron2_model(plugin_cfg(FASTER_RCNN, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"))
    others = {"roi_heads.box_head.0.fc1.weight": torch.ones(2), "backbone.net.pos_embed": torch.zeros(3)}
    path = str(tmp_path / "cascade.safetensors")
    write_weights({**plain.state_dict(), **others}, path)
    loaded = BCNetCheckpointer(build_detectron2_model(plugin_cfg(FASTER_RCNN)))._load_file(path)["model"]
    assert all(torch.equal(loaded[key], value) for key, value in others.items())


def test_other_files_are_the_parents_business(tmp_path):
    module = torch.nn.Linear(2, 3)
    path = str(tmp_path / "linear.pth")
    torch.save({"model": module.state_dict()}, path)
    for checkpointer in (DetectionCheckpointer, BCNetCheckpointer):
        other = torch.nn.Linear(2, 3)
        checkpointer(other).load(path)
        assert torch.equal(other.weight, module.weight)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("SOLVER.ACCUMULATE_STEPS", 2), r"SOLVER.ACCUMULATE_STEPS is 2, which detectron2's trainer does not support"),
        (("SOLVER.EMA.ENABLED", True), r"SOLVER.EMA.ENABLED is True"),
        (("INPUT.BAD_IMAGE", "skip"), r"INPUT.BAD_IMAGE is 'skip'"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", 2), r"has 3 classes, but MODEL.ROI_HEADS.NUM_CLASSES is 2; set it to 3"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, opts, message):
    with pytest.raises(ValueError, match=message):
        main(arguments(tmp_path, FCOS, *opts))


def test_more_processes_than_gpus_are_refused(tmp_path):
    count = torch.cuda.device_count() + 2
    with pytest.raises(ValueError, match=rf"--num-gpus {count}: this machine has {count - 2}"):
        main(arguments(tmp_path, FCOS, options=["--num-gpus", str(count)]))


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip_type", ["value", "norm", "full_model"])
def test_optimizers_and_clipping_are_the_configs(optimizer, clip_type):
    opts = ("SOLVER.OPTIMIZER", optimizer, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
    cfg = plugin_cfg(FCOS, *opts, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5, "SOLVER.WEIGHT_DECAY_NORM", 0.125)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    built = BCNetTrainer.build_optimizer(cfg, model)
    assert type(built).__name__ == optimizer
    assert {group["weight_decay"] for group in built.param_groups} == {0.01, 0.125}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    built.step()
    norms = [parameter.grad.norm().item() for parameter in model.parameters()]
    if clip_type == "value":
        assert all((parameter.grad == 0.5).all() for parameter in model.parameters())
    elif clip_type == "norm":
        assert norms == pytest.approx([0.5] * 4, rel=1e-4)
    else:
        assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_is_detectron2s_trainer_in_the_configs_type(tmp_path, monkeypatch, dtype, expected):
    cfg = setup(arguments(tmp_path, FCOS, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype))
    if not torch.cuda.is_available():  # where it cannot train
        monkeypatch.setattr("bcnet.detectron2.train._without_amp_on_cpu", lambda cfg: cfg)
    trainer = BCNetTrainer(cfg)
    assert type(trainer._trainer).__name__ == "AMPTrainer" and trainer._trainer.precision == expected
    assert trainer._trainer.grad_scaler.is_enabled() == (dtype == "fp16" and torch.cuda.is_available())


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_half_precision_forward_and_backward(config_file):
    from detectron2.utils.events import EventStorage
    from plugin_samples import inputs

    torch.manual_seed(0)
    model = build_detectron2_model(plugin_cfg(config_file)).train()
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(inputs(objects=3))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_the_command_line_of_the_engine_dispatches_here(tmp_path, monkeypatch):
    from bcnet.cli import train as command_line

    seen = []
    monkeypatch.setattr("bcnet.detectron2.train.main", seen.append)
    monkeypatch.setattr(sys, "argv", ["train_net.py"])
    command_line.main(["--host", "detectron2", "--num-gpus", "1", "--eval-only", "SEED", "3"])
    assert seen[0].eval_only and seen[0].opts == ["SEED", "3"] and seen[0].dist_url == "auto"


def test_a_config_that_comes_with_the_package_is_found_by_its_name(tmp_path, monkeypatch):
    args = arguments(tmp_path, FCOS)
    args.config_file = FCOS
    monkeypatch.chdir(tmp_path)
    assert setup(args).MODEL.META_ARCHITECTURE == "BCNetFCOS" and args.config_file == FCOS


def test_mixed_precision_is_turned_off_on_the_cpu_with_a_warning(tmp_path, caplog):
    cfg = setup(arguments(tmp_path, FCOS, "SOLVER.AMP.ENABLED", True, "MODEL.DEVICE", "cpu"))
    trainer = BCNetTrainer(cfg)
    assert type(trainer._trainer).__name__ == "SimpleTrainer"
    assert "mixed precision on CUDA only: SOLVER.AMP.ENABLED is turned off" in caplog.text


def test_occluder_losses_of_zero_are_explained(tmp_path, caplog):
    """With "front", and annotations without a depth order, no instance has an occluder."""
    main(arguments(tmp_path, FASTER_RCNN, "MODEL.BILAYER.OCCLUDER_TARGET", "front", "SOLVER.MAX_ITER", 1))
    assert caplog.text.count("the occluder losses are exactly zero because no instance has an occluder. An") == 1
    caplog.clear()
    main(arguments(tmp_path / "neighbours", FASTER_RCNN, "SOLVER.MAX_ITER", 1))
    assert "exactly zero" not in caplog.text
