from __future__ import annotations

import functools
import http.server
import threading

import numpy as np
import pycocotools.mask as maskUtils
import pytest
import torch
from PIL import Image
from small_models import DETECTORS, small_config
from small_predictors import assert_same_detections, predictor
from torchvision.ops import box_iou

import bcnet
from bcnet.checkpoint import write_checkpoint
from bcnet.ops.paste import paste_masks
from bcnet.prediction import Predictor, preparation


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("detector", DETECTORS)
def test_predicts_in_image_coordinates(detector, image):
    model = predictor(detector)
    found = model.predict(image)
    assert found.image_size == (40, 60)
    assert 0 < len(found) <= 10
    assert found.masks.shape == (len(found), 40, 60)
    assert found.masks.dtype == torch.bool
    assert found.class_names == ("cup", "plate", "fork")
    assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= 60).all() and (found.boxes[:, 3] <= 40).all()
    assert found.occluder_mask is None

    everything = model.predict(image, with_occluder=True)
    assert torch.allclose(everything.boxes, found.boxes, atol=1e-4)
    for name in ("masks", "boundaries", "occluder_masks", "occluder_boundaries"):
        assert getattr(everything, name).shape == (len(found), 40, 60)


class Recorder(torch.nn.Module):
    """A detector that keeps the image it was given and finds nothing."""

    num_classes = 1
    device = torch.device("cpu")

    def inference(self, images, with_occluder=False, thresholds=None, output_sizes=None):
        (self.image,) = images
        size = self.image.shape[1:]
        none = torch.zeros(0)
        return [bcnet.structures.Detections(tuple(size), none.reshape(0, 4), none, none.long())]


def prepared(image, format="BGR", **overrides) -> torch.Tensor:
    """The tensor that the detector gets, [h, w, 3]."""
    model = Recorder()
    Predictor.from_config(small_config(**overrides), model).predict(image, format)
    return model.image.permute(1, 2, 0)


def test_resizes_with_pils_filter(image):
    expected = np.asarray(Image.fromarray(image).resize((64, 43), Image.Resampling.BILINEAR))
    resized = prepared(image)
    assert resized.dtype == torch.uint8
    assert np.array_equal(resized.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_go_through_the_same_filter(image, dtype):
    resized = prepared(image.astype(dtype))
    assert resized.dtype == torch.float32
    assert (resized - prepared(image).float()).abs().max() <= 1.0
    assert torch.equal(prepared(image.astype(dtype), INPUT__MIN_SIZE_TEST=0), torch.from_numpy(image).float())


def test_min_size_zero_leaves_the_size(image):
    assert np.array_equal(prepared(image, INPUT__MIN_SIZE_TEST=0).numpy(), image)


@pytest.mark.parametrize("own", ["BGR", "RGB"])
@pytest.mark.parametrize("given", ["BGR", "RGB"])
def test_channel_order(image, own, given):
    tensor = prepared(image, given, INPUT__FORMAT=own, INPUT__MIN_SIZE_TEST=0).numpy()
    assert np.array_equal(tensor, image if own == given else image[:, :, ::-1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4), np.int16), "got int16"),
        (np.full((4, 4, 3), 256.0), r"got 256\.\.256"),
        (np.full((4, 4, 3), -1.0, np.float32), r"got -1\.\.-1"),
        (np.full((4, 4, 3), np.nan), r"got nan\.\.nan"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\); give a batch as a list"),
        (torch.zeros(8, 4, 3), r"H, W\], got shape \(8, 4, 3\); an image with the channels last is a numpy array"),
        (torch.zeros(2, 3, 4, 4), r"got shape \(2, 3, 4, 4\); give a batch as a list"),
        (torch.full((3, 4, 4), 300.0), r"got 300\.\.300"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "got int64"),
        (torch.zeros(3, 0, 4), r"shape \(0, 4, 3\)"),
        (Image.new("F", (4, 4)), r"cannot read the image 'PIL image of mode F': its values are floats"),
        (None, "got NoneType"),
        ({"image": 1}, "got dict"),
        ("absent.png", r"cannot read the image 'absent\.png': No such file"),
        ("http://127.0.0.1:9/absent.png", r"cannot download the image 'http://127\.0\.0\.1:9/absent\.png'"),
        ([np.zeros((4, 4, 3), np.uint8), "absent.png"], r"image 1 of 2: cannot read the image 'absent\.png'"),
    ],
)
def test_bad_images(bad, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_config(small_config(), Recorder()).predict(bad)


@pytest.fixture(scope="module")
def served(tmp_path_factory, image):
    """A folder with the image as a file, and the file's address."""
    folder = tmp_path_factory.mktemp("served")
    Image.fromarray(image).save(folder / "image.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder / "image.png", f"http://127.0.0.1:{server.server_port}/image.png"
        server.shutdown()
        thread.join()


def test_all_kinds_of_one_image_are_the_same(image, served):
    path, address = served
    expected = prepared(image, "RGB")
    assert not torch.equal(expected, prepared(image, "BGR"))
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for same in (chw, Image.fromarray(image), str(path), path, address):
        assert torch.equal(prepared(same, "RGB"), expected)
    for without_order in (Image.fromarray(image), path, address):
        assert torch.equal(prepared(without_order), expected)
    for floats in (chw.float(), chw.half(), chw.bfloat16().requires_grad_()):
        assert (prepared(floats, "RGB") - expected.float()).abs().max() <= 1.0
    grey = Image.fromarray(image).convert("L")
    assert torch.equal(prepared(grey), prepared(np.stack([np.asarray(grey)] * 3, axis=2)))


def test_address_of_something_else(served):
    (served[0].parent / "page.html").write_text("<html>")
    with pytest.raises(ValueError, match=r"cannot read the image 'http.*page.html': not an image"):
        Predictor.from_config(small_config(), Recorder()).predict(served[1].replace("image.png", "page.html"))


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batched_equals_single(detector, batch_size):
    """Sizes differ, so that padding to the largest would change what is found at the edges."""
    model = predictor(detector, INPUT__MIN_SIZE_TEST=0)
    rng = np.random.default_rng(2)
    sizes = [(40, 60), (90, 40), (64, 64), (33, 50), (40, 61), (64, 60), (90, 33)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    seen = []
    forward = type(model.model).features
    model.model.features = lambda images: seen.append(len(images)) or forward(model.model, images)
    together = model.predict(images, with_occluder=True, batch_size=batch_size)
    assert sum(seen) == 7 and max(seen) == batch_size
    for image, found in zip(images, together, strict=True):
        assert len(found) > 0
        assert_same_detections(found, model.predict(image, with_occluder=True))


def test_lists(image):
    model = predictor()
    assert model.predict([]) == []
    (one,) = model.predict((Image.fromarray(image),))
    assert_same_detections(one, model.predict(image, "RGB"))


def test_few_images_wait_for_company(image, monkeypatch):
    """Images of ever new sizes do not pile up."""
    monkeypatch.setattr(preparation, "BUFFERED_BATCHES", 2)
    model = predictor(INPUT__MIN_SIZE_TEST=0)
    images = [np.zeros((32 * n, 32, 3), np.uint8) for n in (1, 2, 3, 1, 4, 5)]
    prepare_image = functools.partial(model._prepared, format="BGR")
    batches = list(preparation.equal_size_batches(images, prepare_image, 2, 32))
    assert [indices for indices, _ in batches] == [[0, 3], [1], [2], [4], [5]]
    batches = list(preparation.equal_size_batches(images[1:], prepare_image, 2, 32))
    assert [indices for indices, _ in batches] == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("detector", DETECTORS)
def test_thresholds_are_arguments(detector, image):
    model = predictor(detector)
    found = model.predict(image, with_occluder=True, max_detections=50)
    assert len(found) > 10 == len(model.predict(image))  # TEST.DETECTIONS_PER_IMAGE
    assert_same_detections(model.predict(image, with_occluder=True, max_detections=7), found[:7])
    lowest = float(found.scores[4])
    best = model.predict(image, with_occluder=True, score_threshold=lowest)
    assert_same_detections(best, found[found.scores >= lowest])
    assert len(model.predict(image, score_threshold=1.0)) == 0
    assert len(model.predict(image, nms_threshold=1.0, max_detections=50)) >= len(found)
    for label in model.predict(image, nms_threshold=0.0).classes.unique():
        kept = model.predict(image, nms_threshold=0.0)
        boxes = kept.boxes[kept.classes == label]
        assert torch.equal(box_iou(boxes, boxes).fill_diagonal_(0), torch.zeros(len(boxes), len(boxes)))
    assert [len(d) for d in model.predict([image, image], max_detections=3)] == [3, 3]


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_score_threshold_below_the_models_own(detector, image):
    """The argument holds, not the lower limit of the two."""
    strict = predictor(detector)
    strict.model.load_state_dict(predictor(detector).model.state_dict())
    if detector == "BCNetFCOS":
        strict.model.detection.decoding["score_threshold"] = 0.99
    else:
        strict.model.box_branch.score_threshold = 0.99
    assert len(strict.predict(image)) == 0
    assert_same_detections(strict.predict(image, score_threshold=1e-3), predictor(detector).predict(image))


def test_mask_threshold(image):
    model = predictor()
    found = model.predict(image, with_occluder=True)
    (low,) = model.predict([image], with_occluder=True, mask_threshold=0.4)
    high = model.predict(image, with_occluder=True, mask_threshold=0.6)
    assert (found.mask_threshold, low.mask_threshold, high.mask_threshold) == (0.5, 0.4, 0.6)
    assert low.masks.sum() > found.masks.sum() > high.masks.sum()
    assert torch.equal(low.occluder_masks, paste_masks(found.occluder_mask, found.boxes, found.image_size, 0.4))
    decoded = maskUtils.decode(high.mask_rles())
    assert np.array_equal(decoded.transpose(2, 0, 1), high.masks.numpy())
    assert low[:2].mask_threshold == 0.4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_threshold": 1.5}, "score threshold must lie in 0..1, got 1.5"),
        ({"score_threshold": float("nan")}, "got nan"),
        ({"nms_threshold": -0.1}, "nms threshold must lie in 0..1, got -0.1"),
        ({"mask_threshold": 2}, "mask threshold must lie in 0..1, got 2"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_thresholds(image, arguments, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_config(small_config(), Recorder()).predict(image, **arguments)


def test_bad_format(image):
    with pytest.raises(ValueError, match="got 'rgb'"):
        Predictor.from_config(small_config(), Recorder()).predict(image, "rgb")


def test_values_up_to_one_are_suspicious(image, caplog):
    prepared(image / 255)
    assert "0..255 is expected" in caplog.text


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="2 class names given for a model of 1 class"):
        Predictor.from_config(small_config(), Recorder(), ("cup", "plate"))


def test_the_precision_is_the_callers_not_the_trainings(tmp_path, image):
    weights = str(tmp_path / "model_final.pth")
    cfg = small_config(SOLVER__AMP__ENABLED=True, SOLVER__AMP__DTYPE="fp16")
    write_checkpoint({"model": predictor().model.state_dict(), "config": cfg.dump()}, weights)
    seen = []
    for precision in ({}, {"precision": "fp32"}, {"precision": "bf16"}, {"precision": "fp16"}):
        model = bcnet.load(weights=weights, **precision)
        model.model.backbone.register_forward_hook(lambda *_: seen.append(autocast_of_cpu()))
        model.predict(image)
    assert seen == [None, None, torch.bfloat16, torch.float16]
    with pytest.raises(ValueError, match=r"precision is 'half'; it must be one of 'fp32', 'bf16', 'fp16'"):
        bcnet.load(weights=weights, precision="half")


def autocast_of_cpu() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def test_load_without_weights_says_so(tmp_path, caplog):
    (tmp_path / "config.yaml").write_text(small_config().dump())
    loaded = bcnet.load(tmp_path / "config.yaml")
    assert "the model is random" in caplog.text
    assert loaded.class_names == ()


def test_calling_the_model_is_predicting(image):
    model = predictor()
    assert_same_detections(model(image, score_threshold=0.1), model.predict(image, score_threshold=0.1))
    assert isinstance(model([image, image]), list)
    assert repr(model) == "<Predictor: FasterRCNN, 3 classes (cup, plate, fork), on cpu>"


def test_results_know_their_image(image, tmp_path):
    model = predictor()
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    of_file = model(path)
    assert of_file.path == str(path) and np.array_equal(of_file.image, image)
    with Image.open(path) as opened:
        assert model(opened).path == str(path)
    for given, format in ((image, "RGB"), (np.ascontiguousarray(image[:, :, ::-1]), "BGR")):
        found = model(given, format)
        assert found.path is None and np.array_equal(found.image, image)  # in RGB, whatever the order was
    assert found.plot().size == (640, 427)
    with pytest.raises(ValueError, match="the image is in BGR order"):
        bcnet.draw_detections(given, found)
    assert np.array_equal(model(image.astype(np.float32), "RGB").image, image)
    path.unlink()
    with pytest.raises(ValueError, match=r"cannot read the image .*photo\.png"):
        of_file.plot()
    assert of_file._repr_jpeg_() is None


def test_options_and_names_of_other_packages_are_translated(image):
    model = predictor()
    with pytest.raises(TypeError, match=r"predict has no option 'conf'; did you mean score_threshold\?"):
        model(image, conf=0.5)
    with pytest.raises(TypeError, match=r"predict has no option 'max_detection'; did you mean max_detections\?"):
        model.predict(image, max_detection=3)
    with pytest.raises(TypeError, match=r"segment has no option 'quite_another_thing'$"):
        model.segment(image, [], quite_another_thing=1)
    with pytest.raises(AttributeError, match=r"Predictor has no attribute 'names'; did you mean class_names\?"):
        _ = model.names


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(
        ValueError, match=r"is a folder, and an image was expected: bcnet predict --input takes folders"
    ):
        predictor()(str(tmp_path))
