"""Test-time augmentation: several views of an image, merged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_models import DETECTORS, finding_detector, small_config, write_small_data_set
from torchvision.ops import nms

from bcnet.modeling import Detector, Thresholds
from bcnet.prediction import Predictor, evaluate
from bcnet.prediction.tta import AugmentedDetector, merge_detections, with_test_time_augmentation
from bcnet.structures import Detections

MAPS = {"occludee_mask", "occludee_boundary", "occluder_mask", "occluder_boundary"}


def detector(name="GeneralizedRCNN", **overrides) -> Detector:
    return finding_detector(name, **overrides)[1]


def random_image(height=48, width=64, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def close(found, expected, **tolerance):
    torch.testing.assert_close(found, expected, **{"rtol": 1e-4, "atol": 1e-3, **tolerance})


@pytest.mark.parametrize("name", DETECTORS)
def test_one_view_is_the_detector_itself(name):
    model = detector(name)
    augmented = AugmentedDetector(model, min_sizes=(0,), max_size=1, flip=False)
    expected = model.inference([random_image()], with_occluder=True)[0]
    (found,) = augmented.inference([random_image()], with_occluder=True)
    # FCOS suppresses before it clips boxes to the image; merging suppresses what clipping has made equal.
    boxes = expected.boxes + 1000 * expected.classes[:, None]
    expected = expected[nms(boxes, expected.scores, model.nms_threshold)]
    assert len(found) == len(expected) > 3
    assert torch.equal(found.classes, expected.classes)
    close(found.boxes, expected.boxes)
    assert found.maps.keys() == MAPS
    for map_name, values in found.maps.items():
        close(values, expected.maps[map_name], atol=1e-4)
    assert augmented.inference([random_image()])[0].maps.keys() == {"occludee_mask"}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_mirrored_image_has_mirrored_detections(name):
    """With the mirrored view the two images have the same views, and so the same detections, all maps included."""
    augmented = AugmentedDetector(detector(name), min_sizes=(0,), max_size=1)
    image = random_image()
    seen, mirrored = augmented.inference([image, image.flip(2)], with_occluder=True)
    assert len(seen) == len(mirrored) > 3
    assert torch.equal(seen.classes, mirrored.classes)
    x0, y0, x1, y1 = seen.boxes.unbind(dim=1)
    close(mirrored.boxes, torch.stack([64 - x1, y0, 64 - x0, y1], dim=1))
    for map_name, values in seen.maps.items():
        close(mirrored.maps[map_name], values.flip(2), atol=1e-4)
        assert not torch.allclose(values, values.flip(2), atol=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_maps_are_averages_over_the_views_at_the_merged_boxes(name):
    model = detector(name)
    image = random_image(40, 60)
    augmented = AugmentedDetector(model, min_sizes=(40, 64), max_size=200)
    (found,) = augmented.inference([image], with_occluder=True)
    assert len(found) > 3
    expected = {map_name: [] for map_name in MAPS}
    for transform in augmented.transforms(40, 60):
        view = torch.from_numpy(transform.apply_image(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1).copy())
        boxes = torch.from_numpy(transform.apply_boxes(found.boxes.numpy())).float()
        given = Detections(transform.output_size, boxes, found.scores, found.classes)
        (seen,) = model.inference_masks([view], [given], with_occluder=True)
        for map_name, values in seen.maps.items():
            expected[map_name].append(values.flip(2) if transform.flip == "horizontal" else values)
    for map_name, views in expected.items():
        assert len(views) == 4
        close(found.maps[map_name], torch.stack(views).mean(dim=0), atol=1e-4)
        assert torch.stack(views).std(dim=0).max() > 1e-3


class OneObject(torch.nn.Module):
    """Finds in every view the object at the same place of the image, the surer the larger the view."""

    mask_branch = None
    nms_threshold, max_detections, num_classes = 0.5, 10, 3
    device = torch.device("cpu")
    place = torch.tensor([0.125, 0.25, 0.5, 0.75])  # of the image's width and height

    def __init__(self):
        super().__init__()
        self.batches = []

    def inference_boxes(self, images, thresholds=None):
        self.batches.append([tuple(image.shape[1:]) for image in images])
        found = []
        for image in images:
            height, width = image.shape[1:]
            x0, y0, x1, y1 = (self.place * torch.tensor([width, height, width, height])).tolist()
            if image[0, 0, 0] < image[0, 0, -1]:  # the image gets darker to the right, its mirror image brighter
                x0, x1 = width - x1, width - x0
            box = torch.tensor([[x0, y0, x1, y1]])
            found.append(Detections((height, width), box, torch.tensor([width / 1000]), torch.tensor([2])))
        return found


def test_boxes_of_all_views_are_merged_in_the_image():
    model = OneObject()
    image = torch.arange(255, 55, -2, dtype=torch.uint8).repeat(3, 80, 1)  # [3, 80, 100]
    augmented = AugmentedDetector(model, min_sizes=(40, 80, 160, 161), max_size=200)
    (found,) = augmented.inference([image])
    assert model.batches == [[(40, 50)] * 2, [(80, 100)] * 2, [(160, 200)] * 2]  # 161 is the same under MAX_SIZE
    assert found.image_size == (80, 100)
    close(found.boxes, torch.tensor([[12.5, 20.0, 50.0, 60.0]]))
    assert found.scores.tolist() == pytest.approx([0.2])
    assert found.classes.tolist() == [2]


def test_merging_is_per_class_by_score_and_clips():
    first = Detections(
        (50, 50), torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60]]), torch.tensor([0.6, 0.5]), torch.tensor([0, 1])
    )
    second = Detections(
        (50, 50), torch.tensor([[1.0, 0, 21, 20], [0, 0, 20, 20]]), torch.tensor([0.9, 0.3]), torch.tensor([0, 1])
    )
    merged = merge_detections([first, second], nms_threshold=0.5, max_detections=10)
    assert merged.boxes.tolist() == [[1, 0, 21, 20], [30, 30, 50, 50], [0, 0, 20, 20]]
    assert merged.classes.tolist() == [0, 1, 1]
    assert len(merge_detections([first, second], nms_threshold=1.0, max_detections=10)) == 4
    assert merge_detections([first, second], nms_threshold=0.5, max_detections=1).scores.tolist() == [
        pytest.approx(0.9)
    ]


@pytest.mark.parametrize("name", DETECTORS)
def test_no_detections(name):
    augmented = AugmentedDetector(detector(name), min_sizes=(48,), max_size=64)
    (found,) = augmented.inference([random_image()], with_occluder=True, thresholds=Thresholds(score=1.0))
    assert len(found) == 0
    assert {map_name: tuple(values.shape) for map_name, values in found.maps.items()} == dict.fromkeys(
        MAPS, (0, 28, 28)
    )


def test_detector_of_boxes_alone():
    model = detector(MODEL__MASK_ON=False)
    (found,) = AugmentedDetector(model, min_sizes=(48, 64), max_size=90).inference([random_image()])
    assert len(found) > 3 and found.maps == {}
    with pytest.raises(ValueError, match="without masks"):
        model.inference_masks([random_image()], [found])


AUGMENTED = {"TEST__AUG__ENABLED": True, "TEST__AUG__MIN_SIZES": (40, 64), "TEST__AUG__MAX_SIZE": 100}


def test_predictor_under_test_aug():
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, INPUT__MIN_SIZE_TEST=320, **AUGMENTED)
    model = detector()
    predictor = Predictor.from_config(cfg, model)
    image = random_image(40, 60).permute(1, 2, 0).numpy()
    found = predictor.predict(image, with_occluder=True)
    # The views are made from the image as it is.
    (expected,) = AugmentedDetector(model, min_sizes=(40, 64), max_size=100).inference(
        [random_image(40, 60)], with_occluder=True
    )
    close(found.boxes, expected.boxes)
    close(found.occluder_mask, expected.occluder_mask)
    assert found.image_size == (40, 60)
    both = predictor.predict([image, np.ascontiguousarray(image[:30])], max_detections=4)
    assert [len(d) for d in both] == [4, 4]
    close(both[0].boxes, found.boxes[:4])
    floats = predictor.predict(image.astype(np.float32))
    assert floats.image_size == (40, 60) and len(floats) > 0


def test_evaluation_under_test_aug(tmp_path):
    data_set = write_small_data_set(tmp_path / "data", images=2)
    cfg = small_config(
        OUTPUT_DIR=str(tmp_path), DATASETS__TEST=(data_set,), MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, **AUGMENTED
    )
    model = detector()
    metrics = evaluate(cfg, model)
    assert {"bbox", "segm"} <= set(metrics[data_set])
    (results,) = (tmp_path / "inference").glob("*/coco_instances_results.json")
    results = json.loads(results.read_text())
    assert {result["image_id"] for result in results} == {1, 2}
    assert results[0]["segmentation"]["size"] == [48, 64]
    # A predictor's detector is found inside it, and is not augmented twice.
    assert with_test_time_augmentation(cfg, Predictor.from_config(cfg, model))[1].model is model
    with pytest.raises(ValueError, match="Linear holds no Detector"):
        evaluate(cfg, torch.nn.Linear(1, 1))


def test_sizes_are_needed():
    with pytest.raises(ValueError, match="MIN_SIZES is empty"):
        AugmentedDetector(OneObject(), min_sizes=(), max_size=100)
