"""Tracing and ONNX of both detectors, for any number of detections and any image size, against eager."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import warnings

import numpy as np
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling.postprocessing import detector_postprocess
from plugin_samples import FASTER_RCNN, FCOS, both_hosts, images

from bcnet.detectron2 import instances_to_detections

BOXES = {"pred_boxes", "pred_classes"}
LAYERS = ("MODEL.BILAYER.OUTPUT_LAYERS", True)
AMODAL = ("MODEL.BILAYER.AMODAL", True)
PER_CLASS = ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", False)
FIELDS = {
    "masks": {"pred_masks"},
    "layers": {"pred_masks", "pred_boundaries", "pred_occluder_masks", "pred_occluder_boundaries"},
}


def without_postprocessing(model, batch):
    return [{"instances": model.inference(batch, do_postprocess=False)[0]}]


def detector(config_file, *opts):
    """A model, and images of which it detects different numbers of objects, also none; the last has another size."""
    model = both_hosts(config_file, *opts)[1]
    first, other = images()
    chosen = [first, other, torch.roll(first, 40, dims=2), torch.zeros_like(first), first[:, :80, :100].contiguous()]

    def scores():
        with torch.no_grad():
            outputs = [without_postprocessing(model, [{"image": image}])[0]["instances"].scores for image in chosen]
        return outputs

    threshold = min(float(values.max()) for values in scores()) + 1e-4
    if config_file == FCOS:
        model.detection.decoding["min_score"] = threshold
    else:
        model.roi_heads.box_predictor.test_score_thresh = threshold
    counts = [len(values) for values in scores()]
    assert len(set(counts)) > 2 and min(counts) == 0 and counts[0] > 0
    return model, chosen


def assert_close(found, expected):
    assert len(found) == len(expected)
    for field, value in expected.get_fields().items():
        theirs = found.get(field)
        value, theirs = (getattr(v, "tensor", v) for v in (value, theirs))
        torch.testing.assert_close(theirs, value, rtol=0, atol=2e-3, msg=lambda text, field=field: f"{field}: {text}")


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize("maps", ["masks", "layers"])
def test_a_trace_takes_any_number_of_detections(config_file, maps):
    opts = (*LAYERS, *AMODAL, *PER_CLASS) if maps == "layers" else ()
    model, (first, *others) = detector(config_file, *opts)
    adapter = TracingAdapter(model, [{"image": first}], without_postprocessing)
    traced = torch.jit.trace(adapter, (first,), check_trace=False)
    for image in (first, *others):
        with torch.no_grad():
            expected = without_postprocessing(model, [{"image": image}])[0]["instances"]
        found = adapter.outputs_schema(traced(image))[0]["instances"]
        assert_close(found, expected)
        # Before post-processing, which scales the boxes in place, they are the result object; `rescaled` is the same.
        rescaled = instances_to_detections(found).rescaled((50, 70))
        # Post-processing of what the trace gives pastes the maps, too.
        pasted = detector_postprocess(found, 50, 70)
        for field in FIELDS[maps] | ({"pred_amodal_masks"} if opts else set()):
            assert pasted.get(field).shape == (len(pasted), 50, 70)
        torch.testing.assert_close(rescaled.boxes, pasted.pred_boxes.tensor[pasted.scores.argsort(descending=True)])
        assert {spec.detectron2_field for spec in rescaled.present} == {
            field for field in pasted.get_fields() if field.startswith("pred_") and field not in BOXES
        }
        if len(pasted):
            with pytest.raises(ValueError, match=r"rebuilt from a trace, .*: convert them before detector_postprocess"):
                instances_to_detections(pasted)


def test_a_trace_of_the_whole_fcos_pastes_masks():
    model, (first, *others) = detector(FCOS, *LAYERS)
    adapter = TracingAdapter(model, [{"image": first}])
    traced = torch.jit.trace(adapter, (first,), check_trace=False)
    for image in (first, *others):
        with torch.no_grad():
            expected = model([{"image": image}])[0]["instances"]
        found = adapter.outputs_schema(traced(image))[0]["instances"]
        assert len(found) == len(expected)
        for field in FIELDS["layers"]:
            different = found.get(field) != expected.get(field)
            assert different.shape == (len(expected), *image.shape[1:])
            assert different.float().sum() <= 1e-3 * different.numel()


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize("maps", ["masks", "layers"])
def test_onnx_takes_any_number_of_detections(config_file, maps, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, (first, *others) = detector(config_file, *(LAYERS if maps == "layers" else ()))
    # In eval mode itself: torch's exporter restores the mode of what it is given, submodules included.
    adapter = TracingAdapter(model, [{"image": first}], without_postprocessing).eval()
    path = str(tmp_path / "model.onnx")
    axes = {"image": {1: "height", 2: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter of traces warns of itself
        torch.onnx.export(
            adapter, (first,), path, opset_version=17, dynamo=False, input_names=["image"], dynamic_axes=axes
        )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for image in (first, *others):
        with torch.no_grad():
            expected = without_postprocessing(model, [{"image": image}])[0]["instances"]
        outputs = session.run(None, {"image": np.ascontiguousarray(image.numpy())})
        found = adapter.outputs_schema(tuple(map(torch.from_numpy, outputs)))[0]["instances"]
        assert_close(found, expected)
