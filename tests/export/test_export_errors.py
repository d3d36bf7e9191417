"""What export refuses, each with one clear error, and the metadata of files."""

from __future__ import annotations

import numpy as np
import pytest
from exported_models import small_predictor

import bcnet
from bcnet.export import ExportedPredictor, check, export_model
from bcnet.export.check import CheckReport
from bcnet.export.info import ExportInfo
from bcnet.export.results import ArrayDetections
from bcnet.exported_files import format_of
from bcnet.maps import PUBLISHED_MAPS


@pytest.fixture(scope="module")
def predictor():
    return small_predictor("BoxPrompted")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tflite", "m.onnx"), {}, "format is 'tflite'; it must be one of 'onnx', 'openvino', 'torch'"),
        (("onnx", "m.xml"), {}, r"a file of format onnx ends with \.onnx, got 'm\.xml'"),
        (("torch", "m.pt2"), {"size": 100}, "size must be a multiple of 32, which the backbone needs, got 100"),
        (("torch", "m.pt2"), {"size": 64, "dynamic": True}, r"give a size \(64\) or dynamic, not both"),
        (("torch", "m.pt2"), {"maps": "boundary"}, "maps is 'boundary'; it must be 'all' or 'masks'"),
    ],
)
def test_options_that_make_no_sense(predictor, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        export_model(predictor, *arguments, **options)


def test_test_time_augmentation_is_refused():
    augmented = small_predictor("BCNetFCOS", TEST__AUG__ENABLED=True)
    with pytest.raises(ValueError, match=r"a AugmentedDetector cannot be exported.*TEST\.AUG\.ENABLED False"):
        export_model(augmented, "torch", "m.pt2", size=64)


def test_files_that_are_no_exported_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no exported model '.*none\.onnx'"):
        ExportedPredictor.load(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"broken\.onnx' cannot be read as onnx"):
        ExportedPredictor.load(tmp_path / "broken.onnx")
    assert [format_of(name) for name in ("a.ONNX", "b.xml", "c.pt2", "d.pth", None)] == [
        "onnx",
        "openvino",
        "torch",
        None,
        None,
    ]
    with pytest.raises(ValueError, match=r"an exported model is a file \.onnx, \.xml, \.pt2, got 'd\.pth'"):
        ExportedPredictor.load("d.pth")


def test_metadata_round_trip():
    info = ExportInfo(
        version="1",
        detector="FCOS",
        num_classes=2,
        class_names=("a", "b"),
        size=64,
        max_detections=5,
        maps=PUBLISHED_MAPS,
    )
    again = ExportInfo.from_json(info.to_json(), "m.onnx")
    assert again.class_names == ("a", "b") and again.size == 64
    assert [(spec.name, spec.coco_key, spec.layer, spec.kind, spec.on_request) for spec in again.maps] == [
        (spec.name, spec.coco_key, spec.layer, spec.kind, spec.on_request) for spec in PUBLISHED_MAPS
    ]
    with pytest.raises(ValueError, match=r"'other\.onnx' is not a model that bcnet exported"):
        ExportInfo.from_json(None, "other.onnx")
    with pytest.raises(ValueError, match=r"'other\.onnx': its metadata 'bcnet' cannot be read"):
        ExportInfo.from_json("{}", "other.onnx")


class _Session:
    """A file of a detector that finds one box in every image."""

    info = ExportInfo(version="1", detector="FCOS", num_classes=1, size=64, max_detections=5)

    def run(self, inputs):
        self.inputs = inputs
        box = np.array([[1, 2, 31, 22]], np.float32)
        return {"boxes": box, "scores": np.array([0.6], np.float32), "classes": np.zeros(1, np.int64)}


def test_images_are_resized_to_fit_and_results_scaled_back():
    session = _Session()
    found = ExportedPredictor(session).predict(np.full((100, 200, 3), 255, np.uint8), score_threshold=0.5)
    canvas = session.inputs["image"]
    assert canvas.shape == (1, 3, 64, 64) and canvas.dtype == np.float32
    assert session.inputs["image_size"].tolist() == [32, 64]
    assert (canvas[..., :32, :] == 255).all() and (canvas[..., 32:, :] == 0).all()
    np.testing.assert_allclose(found.boxes, [[3.125, 6.25, 96.875, 68.75]])
    assert len(ExportedPredictor(session).predict([np.zeros((9, 9, 3), np.uint8)], score_threshold=0.7)[0]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, r"the score threshold must lie in 0\.\.1, got 2"),
        ({"max_detections": 6}, r"max_detections must lie in 1\.\.5, which the model was exported with, got 6"),
        ({"with_occluder": True}, "the occluder layer is not in this file, whose maps are: none"),
    ],
)
def test_thresholds_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ExportedPredictor(_Session()).predict([], **options)


def test_load_opens_exported_files(tmp_path, monkeypatch):
    from bcnet.export import runtime

    opened = {}

    def open_session(path, **options):
        opened.update(options, path=path)
        return _Session()

    monkeypatch.setattr(runtime, "open_session", open_session)
    for arguments in (("m.onnx",), (None, "m.onnx")):
        model = bcnet.load(*arguments, precision="fp32")
        assert isinstance(model, ExportedPredictor) and opened.pop("path") == "m.onnx"
        found = model(np.zeros((64, 64, 3), np.uint8), score_threshold=0.5)
        assert isinstance(found, bcnet.Detections) and found.boxes.tolist() == [[1, 2, 31, 22]]
    for arguments, options, message in (
        (("config.yaml", "m.onnx"), {}, r"a config file cannot change 'm\.onnx', an exported model; export it anew"),
        (("m.onnx",), {"opts": ["SEED", 1]}, "config keys cannot change"),
        (("m.onnx",), {"device": "cuda"}, r"device 'cuda' cannot be chosen for 'm\.onnx', an exported model"),
    ):
        with pytest.raises(ValueError, match=message):
            bcnet.load(*arguments, **options)
    assert not opened.keys() - {"threads", "precision"}


def test_equal_scores_may_come_in_any_order():
    eager = ArrayDetections(
        (64, 64),
        np.array([[0, 0, 9, 9], [5, 5, 20, 20], [5, 5, 20, 21], [1, 1, 4, 4]], np.float32),
        np.array([1, 1, 1 - 1e-6, 0.5], np.float32),
        np.array([0, 1, 1, 0]),
    ).to_torch()
    swapped = eager[[2, 0, 1, 3]]
    found = ArrayDetections(
        (64, 64), swapped.boxes.numpy() + np.float32(1e-4), eager.scores.numpy(), swapped.classes.numpy()
    )
    report = CheckReport()
    check._compare("a.jpg", found, eager, report)
    assert report.detections == 4 and 5e-5 < report.boxes < 2e-4
    with pytest.raises(ValueError, match=r"a\.jpg: detection 3 has class 1, eager 0: other detections"):
        check._compare("a.jpg", found[[0, 1, 3, 2]], eager, report)


def test_tiles_need_tensors():
    with pytest.raises(ValueError, match="load the file with tensors=True"):
        ExportedPredictor(_Session()).predict_tiled(np.zeros((9, 9, 3), np.uint8))
    found = ExportedPredictor(_Session(), tensors=True).predict_tiled(
        np.zeros((64, 110, 3), np.uint8), tile=64, score_threshold=0.5
    )
    assert found.boxes.tolist() == [[1, 2, 31, 22], [47, 2, 77, 22]]  # one in each tile
