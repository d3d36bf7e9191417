"""Exported models against eager: ONNX Runtime, OpenVINO and torch.export, on 20 images; TensorRT's operators.

Any image size is in test_predict_command.py.
"""

from __future__ import annotations

import pytest

pytest.importorskip("onnxscript", reason="needs the extra export")

from exported_models import exported, write_images

from bcnet.export import ExportedPredictor, check_export
from bcnet.export.check import BOX_TOLERANCE, SCORE_TOLERANCE

# Operators that TensorRT 10 reads from ONNX, by the table of its parser (docs/operators.md of onnx-tensorrt, release
# 10.1). By name only: it has not been run.
TENSORRT = """
    Add And Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose Div Equal Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm Greater GreaterOrEqual Identity InstanceNormalization IsInf IsNaN Less LessOrEqual Log
    MatMul Max MaxPool Min Mod Mul Neg NonMaxSuppression NonZero Not Or Pad Pow Range ReduceMax ReduceMean ReduceMin
    ReduceSum Relu Reshape Resize RoiAlign Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tile TopK Transpose
    Unsqueeze Where
"""
LARGEST_TOPK = 3840  # of TensorRT


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("detector", ["GeneralizedRCNN", "BCNetFCOS"])
def test_a_fixed_size_equals_eager(detector, images, tmp_path):
    onnx = pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
    from bcnet.export.formats import copy_as_openvino

    path = tmp_path / "model.onnx"
    predictor = exported(detector, path, size=64, fixed_detections=True)
    found = ExportedPredictor.load(path)
    report = check_export(found, predictor, images)
    assert report.images == 20 and report.detections > 100
    assert report.boxes < BOX_TOLERANCE and max(report.scores, report.maps) < SCORE_TOLERANCE
    assert found.class_names == predictor.class_names and found.info.size == 64 and found.info.max_detections == 10
    copy_as_openvino(path, tmp_path / "model.xml")
    assert openvino and check_export(ExportedPredictor.load(tmp_path / "model.xml"), predictor, images).images == 20

    graph = onnx.load(path).graph
    operators = {node.op_type for node in graph.node}
    assert operators <= set(TENSORRT.split()) and "RoiAlign" in operators
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    assert all(int(constants[node.input[1]][0]) < LARGEST_TOPK for node in graph.node if node.op_type == "TopK")
    for value in [*graph.input, *graph.output]:
        assert all(dimension.dim_value > 0 for dimension in value.type.tensor_type.shape.dim), value.name


@pytest.fixture(scope="module")
def box_prompted(tmp_path_factory):
    """A box-prompted model as a torch.export program, and its predictor."""
    path = tmp_path_factory.mktemp("box_prompted") / "model.pt2"
    predictor = exported("BoxPrompted", path, "torch", size=64)
    return ExportedPredictor.load(path), predictor


def test_a_box_prompted_model_takes_boxes(box_prompted, images):
    found, predictor = box_prompted
    assert check_export(found, predictor, images[:3]).detections == 12
    none = found.segment(images[0], [])
    assert len(none) == 0 and none.maps["occluder_mask"].shape == (0, 28, 28)
    masks = found.segment(images[0], [[4.5, 3, 30, 40], [10, 10, 60, 47]], class_names=["thing"])
    assert masks.masks.shape == (2, 48, 64) and masks.names == ["thing", "thing"] and masks.occluded_by.shape == (2, 2)
    with pytest.raises(ValueError, match="outside the image of 64 x 48 pixels, the first is box 1"):
        found.segment(images[0], [[0, 0, 9, 9], [70, 0, 90, 9]])
    with pytest.raises(ValueError, match="give it boxes"):
        found.predict(images[0])


def test_a_difference_is_an_error_that_names_the_image(box_prompted, images):
    found, predictor = box_prompted
    bias = predictor.model.mask_branch.head.occludee_mask.predictor.bias.data
    bias += 0.1
    with pytest.raises(ValueError, match=r"00\.png: occludee_mask differ from eager by 0\.02\d*, the limit is 0\.001"):
        check_export(found, predictor, images[:1])
    bias -= 0.1
    with pytest.raises(ValueError, match="no images to check"):
        check_export(found, predictor, [])
