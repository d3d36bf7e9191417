"""`Predictor.segment`: masks in boxes of other detectors, of any kind, and equality with `predict`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import DETECTORS, finding_detector, small_config

from bcnet.modeling import build_model
from bcnet.prediction.boxes import given_boxes
from bcnet.prediction.predictor import Predictor
from bcnet.structures import Detections

NAMES = ("cup", "plate", "fork")
SIZE = (97, 141)
BOXES = [[10.0, 20, 60, 70], [40, 30, 140, 97]]


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def predictor(detector="GeneralizedRCNN", **overrides):
    cfg, model = finding_detector(detector, **overrides)
    return Predictor.from_config(cfg, model, NAMES).eval()


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("views", [{}, {"TEST__AUG__ENABLED": True, "TEST__AUG__MIN_SIZES": "(48, 64)"}])
def test_on_the_boxes_of_predict_it_gives_its_maps_bit_for_bit(image, detector, views):
    """The image is resized for the network, so boxes go there and back; with test-time augmentation in each view."""
    model = predictor(detector, **views)
    found = model.predict(image, with_occluder=True)
    assert len(found) > 2 and tuple(found.image_size) == SIZE
    assert model.segment(image, found) == found
    assert model.segment(image, found.boxes, found.classes, found.scores) == found
    as_arrays = model.segment(image, found.boxes.double().numpy(), found.classes.numpy(), found.scores.tolist())
    assert as_arrays == found
    masks = model.predict(image)
    assert model.segment(image, masks, with_occluder=False) == masks


def test_the_boxes_stay_those_that_were_given(image):
    model = predictor()
    result = model.segment(image, BOXES, [2, 0], [0.2, 0.9])
    assert result.boxes.tolist() == BOXES and result.classes.tolist() == [2, 0]
    assert result.class_names == NAMES and result.occluded_by is not None
    assert torch.equal(model.segment(image, BOXES[::-1]).boxes, result.boxes.flip(0))
    assert model.segment(image, BOXES, mask_threshold=0.9).mask_threshold == 0.9
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    assert model.segment(rgb, BOXES, [2, 0], [0.2, 0.9], "RGB") == result


def test_classes_of_another_detector_keep_their_names(image):
    model = predictor()
    assert model.segment(image, BOXES).class_names == ("object",)  # nothing is known of them
    named = model.segment(image, BOXES, [3, 0], class_names=["a", "b", "c", "d"])
    assert named.class_names == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match="class 7 has no name: 3 names were given"):
        model.segment(image, BOXES, [7, 0])
    cfg = small_config("BoxPrompted")
    without_detector = Predictor.from_config(cfg, build_model(cfg), NAMES).eval()
    assert without_detector.segment(image, BOXES, [7, 0]).class_names == ()


def test_masks_by_class_need_the_classes(image):
    model = predictor(MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=False)
    found = model.predict(image, with_occluder=True)
    assert model.segment(image, found) == found
    with pytest.raises(ValueError, match="masks of 3 classes: give the class of each box"):
        model.segment(image, BOXES)
    with pytest.raises(ValueError, match="class 3 is not one of the 3 that the model has masks of"):
        model.segment(image, BOXES, [0, 3])


def test_without_boxes_there_are_no_masks(image):
    for nothing in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        result = predictor().segment(image, nothing)
        assert len(result) == 0 and result.maps["occluder_mask"].shape == (0, 28, 28)


def test_a_model_without_masks_says_so(image):
    with pytest.raises(ValueError, match=r"MODEL\.MASK_ON is False"):
        predictor(MODEL__MASK_ON=False).segment(image, BOXES)


# -- Kinds of boxes --------------------------------------------------------------------------------------------


def given(boxes, *arguments, **keywords):
    return given_boxes(boxes, *arguments, image_size=SIZE, **keywords)


@pytest.mark.parametrize(
    ("box_format", "boxes"),
    [
        ("xyxy", BOXES),
        ("xywh", [[10, 20, 50, 50], [40, 30, 100, 67]]),
        ("cxcywh", [[35, 45, 50, 50], [90, 63.5, 100, 67]]),
    ],
)
@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor, lambda b: torch.tensor(b, requires_grad=True)])
def test_formats_and_arrays(box_format, boxes, kind):
    boxes = [[float(value) for value in box] for box in boxes]
    assert given(kind(boxes), box_format=box_format).boxes.tolist() == BOXES


def test_results_of_other_packages():
    """With their classes and scores, which may be missing: supervision's class_id is None for class-agnostic tools."""
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    boxes = np.array(BOXES)
    plain = given(supervision.Detections(xyxy=boxes))
    assert plain.classes.tolist() == [0, 0] and plain.scores.tolist() == [1, 1] and plain.class_names == ("object",)
    data = {"class_name": np.array(["dog", "cat"])}
    full = supervision.Detections(xyxy=boxes, class_id=np.array([2, 0]), confidence=np.array([0.5, 0.25]), data=data)
    found = given(full)
    assert found.classes.tolist() == [2, 0] and found.scores.tolist() == [0.5, 0.25]
    assert found.class_names == ("cat", "class 1", "dog")
    assert given(full, [1, 1], [0.75, 1]).classes.tolist() == [1, 1]
    assert given(supervision.Detections.empty()).boxes.shape == (0, 4)
    tensor = torch.tensor(BOXES)
    ultralytics = SimpleNamespace(xyxy=tensor, cls=torch.tensor([1.0, 2.0]), conf=torch.tensor([0.5, 1.0]), data=tensor)
    assert given(ultralytics).classes.tolist() == [1, 2]
    instances = SimpleNamespace(
        image_size=SIZE,
        pred_boxes=SimpleNamespace(tensor=tensor),
        pred_classes=torch.tensor([1, 2]),
        scores=torch.ones(2),
    )
    assert given(instances).classes.tolist() == [1, 2]
    own = Detections((10, 10), tensor, torch.ones(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"boxes are of an image of \(10, 10\) .*, not \(97, 141\)"):
        given(own)
    results = SimpleNamespace(boxes=ultralytics, names={0: "person", 1: "car", 2: "dog"}, orig_shape=SIZE)
    assert given(results).class_names == ("person", "car", "dog") and given(results).classes.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"boxes are of an image of \(10, 10\) .*, not \(97, 141\)"):
        given(SimpleNamespace(boxes=ultralytics, names={}, orig_shape=(10, 10)))
    with pytest.raises(ValueError, match="the SimpleNamespace object has no boxes"):
        given(SimpleNamespace(boxes=None, names={0: "person"}, orig_shape=SIZE))


def test_a_dict_of_torchvision_or_transformers():
    found = given({"boxes": torch.tensor(BOXES), "labels": torch.tensor([3, 1]), "scores": torch.tensor([0.5, 0.25])})
    assert found.boxes.tolist() == BOXES and found.classes.tolist() == [3, 1] and found.scores.tolist() == [0.5, 0.25]
    assert given({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}).boxes.shape == (0, 4)
    with pytest.raises(ValueError, match=r"a dict must have 'boxes', .*; got \['bbox', 'labels'\]"):
        given({"bbox": BOXES, "labels": [1, 2]})


def test_classes_by_name_as_detectors_of_free_text_give_them():
    found = given({"boxes": BOXES, "labels": ["a dog", "a cat"], "text_labels": ["a dog", "a cat"]})
    assert found.classes.tolist() == [0, 1] and found.class_names == ("a dog", "a cat")
    found = given([{"boxes": BOXES, "labels": torch.tensor([2, 0]), "text_labels": ["a dog", "a cat"]}])
    assert found.classes.tolist() == [2, 0] and found.class_names == ("a cat", "class 1", "a dog")
    assert given({"boxes": BOXES, "labels": torch.tensor([2, 0]), "text_labels": None}).class_names == ()
    assert given({"boxes": BOXES, "text_labels": ["dog", "dog"]}).class_names == ("dog",)
    merged = SimpleNamespace(xyxy=BOXES, class_id=[3, 3], confidence=[1, 1], data={"class_name": ["cat", "dog"]})
    assert given(merged).classes.tolist() == [0, 1] and given(merged).class_names == ("cat", "dog")
    assert given(BOXES, np.array(["dog", "cat"]), class_names=["cat", "dog"]).classes.tolist() == [1, 0]
    by_class = given(BOXES, ["fork", "cup"], default_names=NAMES, mask_classes=3)
    assert by_class.classes.tolist() == [2, 0] and by_class.class_names == NAMES
    with pytest.raises(ValueError, match="class 'spoon' is not one of the 3 class names"):
        given(BOXES, ["fork", "spoon"], default_names=NAMES, mask_classes=3)


def test_a_list_of_one_result_as_detectors_return_it_for_one_image():
    found = {"boxes": torch.tensor(BOXES), "labels": torch.tensor([3, 1])}
    assert given([found]).classes.tolist() == [3, 1]
    results = SimpleNamespace(boxes=SimpleNamespace(xyxy=BOXES, cls=[1, 2], conf=[0.5, 1]), names={}, orig_shape=SIZE)
    assert given((results,)).classes.tolist() == [1, 2]
    with pytest.raises(ValueError, match="got the results of 2 images, give those of one image"):
        given([results, results])


def test_class_names_by_class():
    assert given(BOXES, [0, 2], class_names={0: "person", 2: "dog"}).class_names == ("person", "class 1", "dog")


def test_corners_taken_for_xywh_are_pointed_out(caplog):
    given(BOXES, box_format="xywh")
    assert "boxes reach beyond the image as xywh and none does as xyxy; the first is [10.0, 20.0, 60.0," in caplog.text
    caplog.clear()
    given([[10, 20, 60, 70], [100, 50, 45, 50]], box_format="xywh")  # 4 pixels beyond the right side, a narrow box
    given([[4, 4, 141, 97]], box_format="xywh")  # 4 pixels beyond
    assert not caplog.text


def test_boxes_are_clipped_to_the_image():
    assert given([[-5, -3, 60, 70], [40, 30, 300, 300]]).boxes.tolist() == [[0, 0, 60, 70], [40, 30, 141, 97]]


def test_normalised_boxes_are_pointed_out(caplog):
    given([[0.1, 0.2, 0.5, 0.9]])
    assert "normalised ones must be multiplied" in caplog.text
    caplog.clear()
    given(BOXES)
    assert not caplog.text


@pytest.mark.parametrize(
    ("boxes", "keywords", "message"),
    [
        ([1.0, 2, 3, 4], {}, r"boxes must be \[D, 4\], got \(4,\); one box is \[\[x0, y0, x1, y1\]\]"),
        ([[1, 2, 3]], {}, r"boxes must be \[D, 4\], got \(1, 3\)"),
        ([[1, 2, 3, 4, 0.5, 0]], {}, r"got \(1, 6\); scores and classes are arguments of their own"),
        (None, {}, r"boxes must be numbers \[D, 4\], got None"),
        ("photo.jpg", {}, r"boxes must be numbers \[D, 4\]"),
        ([[1, 2, 3, 4], [1, 2]], {}, r"boxes must be numbers \[D, 4\]"),
        ([[1, 2, float("nan"), 4]], {}, r"boxes must be finite; at \[0, 2\] there is nan"),
        (
            [*BOXES, [50, 20, 10, 70]],
            {},
            r"1 of 3 boxes are without area, the first is box 2, \[50\.0, 20\.0, 10\.0, 70\.0\]",
        ),
        ([[10, 20, 50, 0]], {"box_format": "xywh"}, "without area, the first is box 0, .* as xywh"),
        ([*BOXES, [200, 20, 210, 70]], {}, "outside the image of 141 x 97 pixels, the first is box 2"),
        (BOXES, {"box_format": "yxyx"}, r"box_format is 'yxyx'; it must be one of 'xyxy', 'xywh', 'cxcywh'"),
        (BOXES, {"classes": [1]}, r"classes must be \[2\] like the boxes, got \(1,\)"),
        (BOXES, {"classes": [1, -1]}, r"classes must be whole numbers from 0, got \[1\.0, -1\.0\]"),
        (BOXES, {"classes": ["a"]}, r"classes must be \[2\] like the boxes, got \(1,\)"),
        (BOXES, {"classes": ["a", 1]}, r"classes must be numbers \[D\]"),
        (BOXES, {"scores": [1, float("inf")]}, r"scores must be finite; at \[1\] there is inf"),
    ],
)
def test_what_cannot_be_boxes(boxes, keywords, message):
    with pytest.raises(ValueError, match=message):
        given(boxes, **keywords)
