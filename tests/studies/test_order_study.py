"""Visible-only arms, single-class cut-outs, and occlusion order accuracy of each estimate of the relations."""

import json
from dataclasses import replace

import pytest
import torch
from small_models import write_small_data_set

from bcnet.data import load_dataset
from bcnet.data.synthetic import CutoutLibrary
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS
from bcnet.occlusion.relations import relation_confidences, with_relations
from bcnet.structures import Detections
from studies.occlusion.plan import Run, load_plan
from studies.occlusion.relations import order_by_estimate
from studies.occlusion.scenes import make_scenes
from studies.scenes import VISIBLE_TRAIN, scene_spec

SMALL = [
    *("data", "{shapes: {train: {count: 3, size: 64}, test: {count: 2, size: 64}}}"),
    *("arms.composed.INPUT.COMPOSITION.PROBABILITY", "1.0"),
]


def test_visible_only_arms_train_only_on_visible_masks(tmp_path):
    plan = load_plan("studies/order.yaml", SMALL)
    make_scenes(plan, str(tmp_path), workers=1)
    specs = {
        arm: plan.config(Run("shapes", "faster_rcnn", arm, 1), str(tmp_path), num_classes=6).DATASETS.TRAIN
        for arm in plan.arms
    }
    assert specs["true_order"] == (scene_spec(str(tmp_path), "shapes", "train"),)
    for arm in plan.visible_only:
        assert specs[arm] == (scene_spec(str(tmp_path), "shapes", VISIBLE_TRAIN),)
    whole, visible = (load_dataset(specs[arm][0])[0] for arm in ("true_order", "composed"))
    assert all(record.in_front is not None for record in whole)
    for record, plain in zip(whole, visible, strict=True):
        assert plain.in_front is None
        for instance, other in zip(record.instances, plain.instances, strict=True):
            assert instance.amodal and not other.amodal and other.hidden_fraction is None
            assert other.segmentation == instance.segmentation and other.bbox == instance.bbox


def test_an_unknown_visible_only_arm_is_rejected():
    with pytest.raises(ValueError, match="visible_only names 'x', not one of the arms neighbours, "):
        load_plan("studies/order.yaml", ["visible_only", "[x]"])


def test_single_class_cutouts_are_all_objects(tmp_path):
    _, annotations, images = write_small_data_set(tmp_path).split(":")
    options = {"min_pixels": 10, "whole_only": False}
    library = CutoutLibrary.from_files(annotations, images, single_class=True, **options)
    assert library.info.class_names == ("object",) and library.info.category_ids == (1,)
    assert {template.category for template in library.templates} == {0}
    assert library.parameters() != CutoutLibrary.from_files(annotations, images, **options).parameters()


def occluded_pair(image_size=(32, 48)) -> Detections:
    """Detection 1 covers the right half of detection 0, in the occluder layer and in the amodal mask of 0."""
    left = (torch.arange(28) < 14).float().expand(28, 28)
    ones, zeros = torch.ones(28, 28), torch.zeros(28, 28)
    return Detections(
        image_size,
        torch.tensor([[4.0, 4, 24, 24], [14, 4, 34, 24]]),
        torch.ones(2),
        torch.zeros(2, dtype=torch.int64),
        {
            "occludee_mask": torch.stack([left, ones]),
            "occluder_mask": torch.stack([0.6 * (1 - left), zeros]),
            "occludee_amodal": torch.stack([ones, ones]),
        },
        specs=(*PUBLISHED_MAPS, OCCLUDEE_AMODAL),
    )


def test_estimates_of_an_occluded_pair():
    estimates = relation_confidences(occluded_pair())
    assert list(estimates) == ["occluder", "hidden_part", "mean"]
    hidden = 0.5 / (0.5 + 0.05)  # half of the object
    expected = {"occluder": 0.6, "hidden_part": hidden, "mean": (0.6 + hidden) / 2}
    for name, value in expected.items():
        assert estimates[name][0, 1].item() == pytest.approx(value, abs=0.02)
        assert estimates[name][1, 0].item() == 0
    without_amodal = replace(occluded_pair(), maps={n: m for n, m in occluded_pair().maps.items() if "amodal" not in n})
    assert list(relation_confidences(without_amodal)) == ["occluder"]
    # Predictions carry the mean, and without amodal masks the occluder layer's.
    assert with_relations(occluded_pair()).occluded_by[0, 1].item() == pytest.approx(expected["mean"], abs=0.02)
    assert with_relations(without_amodal).occluded_by[0, 1].item() == pytest.approx(0.6, abs=0.02)


class _Oracle:
    """A model that detects both objects of every image, with the relation of `occluded_pair`."""

    device = torch.device("cpu")
    num_classes = 1
    class_names = ("thing",)

    def inference(self, images, *, with_occluder, output_sizes=None):
        assert with_occluder
        return [occluded_pair(tuple(image.shape[1:])) for image in images]


class _Blind(_Oracle):
    """A model that finds nothing, as after a few iterations."""

    def inference(self, images, *, with_occluder, output_sizes=None):
        return [found[:0] for found in super().inference(images, with_occluder=with_occluder)]


@pytest.mark.parametrize(("depths", "accuracy"), [((1, 0), 100.0), ((0, 1), 0.0)])
def test_order_of_a_known_model_by_each_estimate(tmp_path, depths, accuracy):
    from PIL import Image

    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    annotations = [
        {
            "id": 1 + index,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [x, 4, width, 20],
            "area": width * 20,
            "segmentation": [[x, 4, x + width, 4, x + width, 24, x, 24]],
            "amodal_segmentation": [[x, 4, x + 20, 4, x + 20, 24, x, 24]],
            "depth": depth,
        }
        for index, (x, width, depth) in enumerate([(4, 10, depths[0]), (14, 20, depths[1])])
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    plan = load_plan("studies/order.yaml", SMALL)
    cfg = plan.config(Run("shapes", "faster_rcnn", "composed", 1), str(tmp_path), num_classes=1).clone()
    cfg.defrost()
    cfg.DATASETS.TEST = (f"coco:{tmp_path / 'a.json'}:{tmp_path}",)
    cfg.INPUT.MIN_SIZE_TEST = 32
    orders = order_by_estimate(cfg, _Oracle())
    assert {name: order["accuracy"] for name, order in orders.items()} == dict.fromkeys(
        ("occluder", "hidden_part", "mean"), accuracy
    )
    assert all(order["found"] == 1 for order in orders.values())
    assert order_by_estimate(cfg, _Blind()) == {}
