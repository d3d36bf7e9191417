"""Training that starts from weights, or goes on, with its classes in another order than the data: no silent shift."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from small_models import small_config, write_small_data_set

from bcnet.checkpoint import write_checkpoint
from bcnet.config import load_config
from bcnet.data import build_train_loader
from bcnet.modeling import build_model
from bcnet.training import evaluate_only, train
from bcnet.training.train import prepare_training


@pytest.fixture
def data_set(tmp_path):
    return write_small_data_set(tmp_path / "data")


def config(tmp_path, *train_sets, **overrides):
    return small_config(
        OUTPUT_DIR=str(tmp_path / "out"), DATASETS__TRAIN=train_sets, **{"SOLVER__MAX_ITER": 1, **overrides}
    )


def renumbered(tmp_path, data_set, name, ids):
    """The data set with its categories (cup, plate, fork) under these ids; None leaves a class out."""
    content = json.loads((tmp_path / "data" / "annotations.json").read_text())
    new_ids = dict(zip((7, 8, 9), ids, strict=True))
    for category in content["categories"]:
        category["id"] = new_ids[category["id"]]
    content["categories"] = [category for category in content["categories"] if category["id"] is not None]
    for annotation in content["annotations"]:
        annotation["category_id"] = new_ids[annotation["category_id"]]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] is not None]
    (tmp_path / "data" / f"{name}.json").write_text(json.dumps(content))
    return data_set.replace("annotations.json", f"{name}.json")


def named_targets(cfg, class_names=(), count=20):
    """(image id, x of the box, name of the class) of all targets, without augmentation that moves boxes."""
    loader = build_train_loader(cfg, class_names=class_names)
    names = loader.info.class_names
    return {
        (sample["image_id"], round(float(box[0])), names[label])
        for batch in islice(loader, count)
        for sample in batch
        for box, label in zip(sample["targets"].boxes, sample["targets"].classes, strict=True)
    }, names


def test_training_sets_are_brought_to_the_classes_of_the_first(tmp_path, data_set):
    flip = {"INPUT__RANDOM_FLIP": "none"}
    expected, names = named_targets(config(tmp_path, data_set, **flip))
    assert len(expected) == 10 and names == ("cup", "plate", "fork")
    rotated = renumbered(tmp_path, data_set, "rotated", (3, 1, 2))  # in the file: plate, fork, cup
    together, names = named_targets(config(tmp_path, data_set, rotated, **flip), count=40)
    assert together == expected and names == ("cup", "plate", "fork")
    together, names = named_targets(config(tmp_path, rotated, data_set, **flip), count=40)
    assert together == expected and names == ("plate", "fork", "cup")
    subset = renumbered(tmp_path, data_set, "subset", (2, None, 1))  # in the file: fork, cup
    together, names = named_targets(config(tmp_path, rotated, subset, **flip), count=40)
    assert together == expected and names == ("plate", "fork", "cup")
    with pytest.raises(ValueError, match=r"same classes as the first one, or a subset.* has fork, cup, .* has plate"):
        named_targets(config(tmp_path, subset, rotated))


def test_the_data_is_brought_to_the_order_of_the_weights(tmp_path, data_set):
    flip = {"INPUT__RANDOM_FLIP": "none"}
    expected, _ = named_targets(config(tmp_path, data_set, **flip))
    actual, names = named_targets(config(tmp_path, data_set, **flip), ("fork", "cup", "plate"))
    assert actual == expected and names == ("fork", "cup", "plate")
    cfg = config(tmp_path, data_set, MODEL__ROI_HEADS__NUM_CLASSES=5, **flip)
    actual, names = named_targets(cfg, ("knife", "fork", "cup", "spoon", "plate"))
    assert actual == expected and names == ("knife", "fork", "cup", "spoon", "plate")
    assert build_train_loader(cfg, class_names=names).info.category_ids == (-1, 9, 7, -1, 8)


def test_fine_tuning_and_resuming_keep_the_rows_of_the_weights(tmp_path, data_set, caplog):
    weights = str(tmp_path / "weights.pth")
    model = build_model(config(tmp_path, data_set))
    write_checkpoint({"model": model.state_dict(), "class_names": ["fork", "cup", "plate"]}, weights)
    train(config(tmp_path, data_set, MODEL__WEIGHTS=weights))
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert final["class_names"] == ["fork", "cup", "plate"]
    # The file's ids change while the training is interrupted.
    rotated = renumbered(tmp_path, data_set, "annotations", (3, 1, 2))
    metrics = train(config(tmp_path, rotated, SOLVER__MAX_ITER=2, DATASETS__TEST=(rotated,)), resume=True)
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert final["class_names"] == ["fork", "cup", "plate"]
    assert f"{rotated}/bbox/AP-cup" in metrics
    assert "are not classes of" not in caplog.text


def test_classes_that_the_weights_lack_are_named(tmp_path, data_set):
    weights = str(tmp_path / "weights.pth")
    model = build_model(config(tmp_path, data_set))
    write_checkpoint({"model": model.state_dict(), "class_names": ["fork", "dog", "cup"]}, weights)
    train(config(tmp_path, data_set, MODEL__WEIGHTS=weights))
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "classes of the weights" in log and "(plate): [cup, plate, fork] and [fork, dog, cup]" in log
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert final["class_names"] == ["fork", "plate", "cup"]


def test_weights_are_evaluated_by_the_names_that_they_carry(tmp_path, data_set):
    weights = str(tmp_path / "weights.pth")
    torch.manual_seed(0)
    cfg = config(tmp_path, DATASETS__TEST=(data_set,), MODEL__WEIGHTS=weights)
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    state = build_model(cfg).state_dict()
    results = {}
    for names in (["cup", "plate", "fork"], ["fork", "cup", "plate"], []):
        write_checkpoint({"model": state, "class_names": names}, weights)
        evaluate_only(cfg)
        (path,) = (tmp_path / "out" / "inference").glob("*/coco_instances_results.json")
        results["".join(name[0] for name in names)] = json.loads(path.read_text())
    assert results["cpf"] == results[""] and len(results["cpf"]) > 5
    renamed = {7: 9, 8: 7, 9: 8}  # the first output is called fork, not cup, and so on
    assert results["fcp"] == [{**r, "category_id": renamed[r["category_id"]]} for r in results["cpf"]]
    write_checkpoint({"model": state, "class_names": "cup"}, weights)
    with pytest.raises(ValueError, match=r"weights\.pth': class_names must be a list of strings, got cup"):
        evaluate_only(cfg)


CLASSES = "MODEL.ROI_HEADS.NUM_CLASSES"


@pytest.mark.parametrize(
    ("in_file", "options", "expected"),
    [
        (80, [], 3),  # the file's number is for the file's data
        (6, [CLASSES, 5], 5),
        (2, [], 3),
    ],
)
def test_the_number_of_classes_is_that_of_the_data_unless_given_with_it(
    tmp_path, data_set, caplog, in_file, options, expected
):
    text = small_config(DATASETS__TRAIN=("other",), OUTPUT_DIR=str(tmp_path / "out")).dump()
    (tmp_path / "own.yaml").write_text(text.replace("NUM_CLASSES: 3", f"NUM_CLASSES: {in_file}"))
    weights = str(tmp_path / "weights.pth")
    write_checkpoint({"model": build_model(small_config(MODEL__ROI_HEADS__NUM_CLASSES=9)).state_dict()}, weights)
    cfg = load_config(str(tmp_path / "own.yaml"), ["DATASETS.TRAIN", (data_set,), "MODEL.WEIGHTS", weights, *options])
    caplog.set_level("INFO", logger="bcnet")
    cfg, trainer = prepare_training(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == trainer.state.model.num_classes == expected
    said = [record.getMessage() for record in caplog.records]
    assert any("re-initialised" in message for message in said)
    if not options:
        (message,) = [message for message in said if message.startswith(f"{CLASSES} is 3, the classes of")]
        assert "(cup, plate, fork), not" in message and f"{CLASSES}={in_file} keeps it" in message


def test_a_file_of_its_own_data_keeps_its_number_of_classes(tmp_path, data_set):
    text = small_config(DATASETS__TRAIN=(data_set,), OUTPUT_DIR=str(tmp_path / "out")).dump()
    (tmp_path / "own.yaml").write_text(text.replace("NUM_CLASSES: 3", "NUM_CLASSES: 5"))
    cfg, _ = prepare_training(load_config(str(tmp_path / "own.yaml")))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5
