"""Maps reach the image in every meta-architecture, whatever was imported first; detectron2's functions stay its own."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import pickle
import subprocess
import sys

import torch
from detectron2.modeling import build_model, postprocessing
from detectron2.modeling.meta_arch import panoptic_fpn, rcnn
from detectron2.structures import Boxes, Instances
from plugin_samples import FASTER_RCNN, both_hosts, inputs, perturb, plugin_cfg

from bcnet.detectron2 import instances_to_detections
from bcnet.detectron2.postprocessing import ImageBoxes, ImageMaps
from bcnet.ops.paste import paste_masks

LAYERS = ("MODEL.BILAYER.OUTPUT_LAYERS", True)
FIELDS = ("pred_masks", "pred_boundaries", "pred_occluder_masks", "pred_occluder_boundaries")
SIZES = [(150, 200), (55, 45)]  # not those of the network's input


def resized_inputs():
    return [{**sample, "height": h, "width": w} for sample, (h, w) in zip(inputs(), SIZES, strict=True)]


def assert_in_the_image(outputs):
    for size, output in zip(SIZES, outputs, strict=True):
        instances = output["instances"]
        assert len(instances) > 0
        for field in FIELDS:
            value = instances.get(field)
            assert type(value) is torch.Tensor and value.dtype == torch.bool
            assert value.shape == (len(instances), *size)


def test_detectron2s_functions_are_its_own():
    functions = {module.detector_postprocess for module in (postprocessing, rcnn, panoptic_fpn)}
    assert len(functions) == 1 and not hasattr(functions.pop(), "__wrapped__")


def test_panoptic_fpn():
    torch.manual_seed(0)
    panoptic = ("MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32)
    model = build_model(plugin_cfg(FASTER_RCNN, *LAYERS, *panoptic, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)).eval()
    perturb(model.roi_heads)
    with torch.no_grad():
        outputs = model(resized_inputs())
    assert_in_the_image(outputs)
    assert all("panoptic_seg" in output for output in outputs)


@pytest.mark.parametrize("road", ["from the config", "switched on later", "subset of the detections"])
def test_faster_rcnn(road):
    _, plugin = both_hosts(FASTER_RCNN, *(LAYERS if road == "from the config" else ()))
    plugin.roi_heads.mask_head.output_layers = True
    with torch.no_grad():
        outputs = plugin(resized_inputs())
        if road == "subset of the detections":
            raw = plugin.inference(inputs(), do_postprocess=False)
            chosen = [instances[instances.scores > instances.scores.median()] for instances in raw]
            (expected, _), outputs = outputs, plugin._postprocess(chosen, resized_inputs(), [i.image_size for i in raw])
            found, kept = outputs[0]["instances"], len(outputs[0]["instances"])
            assert 0 < kept < len(expected["instances"])
            assert torch.equal(found.pred_occluder_masks, expected["instances"].pred_occluder_masks[:kept])
    assert_in_the_image(outputs)


def test_a_model_unpickled_in_a_new_process(tmp_path):
    _, plugin = both_hosts(FASTER_RCNN, *LAYERS)
    with torch.no_grad():
        expected = plugin(resized_inputs())[0]["instances"].pred_occluder_masks
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((plugin, resized_inputs())))
    code = (
        "import pickle, sys, warnings; warnings.simplefilter('ignore'); import torch\n"
        "model, inputs = pickle.load(open(sys.argv[1] + '/model.pkl', 'rb'))\n"
        "with torch.no_grad(): found = model(inputs)[0]['instances'].pred_occluder_masks\n"
        "torch.save(found, sys.argv[1] + '/found.pt')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert torch.equal(torch.load(tmp_path / "found.pt"), expected)


def test_the_mean_of_the_post_processing_is_bcnets_own_pasting():
    torch.manual_seed(0)
    boxes = torch.tensor([[2.0, 3, 40, 30], [10, 10, 10.2, 60], [-5, 5, 90, 50], [70, 60, 90, 90]])
    maps = torch.rand(4, 28, 28)
    instances = Instances((64, 80), pred_boxes=ImageBoxes(boxes.clone()), pred_other=ImageMaps(maps))
    found = postprocessing.detector_postprocess(instances, 32, 60)
    scaled = boxes * torch.tensor([60 / 80, 0.5, 60 / 80, 0.5])
    scaled = torch.minimum(scaled.clamp(min=0), torch.tensor([60.0, 32, 60, 32]))
    assert torch.equal(found.pred_boxes.tensor, scaled[[0, 1, 2, 3]][(scaled[:, 2] > scaled[:, 0])])
    assert torch.equal(found.pred_other, paste_masks(maps[: len(found)], found.pred_boxes.tensor, (32, 60)))


def test_elsewhere_maps_and_boxes_stay_what_they_are():
    boxes, maps = ImageBoxes(torch.tensor([[2.0, 3, 40, 30], [1, 1, 1, 5]])), ImageMaps(torch.rand(2, 28, 28))
    assert type(maps[torch.tensor([True, False])]) is ImageMaps and type(maps[:1]) is ImageMaps
    assert type(maps[boxes.nonempty()]) is ImageMaps  # never clipped to an image
    assert type(maps.to("cpu")) is ImageMaps and type(boxes[:1]) is ImageBoxes and type(boxes.to("cpu")) is ImageBoxes
    assert boxes[-1].tensor.tolist() == [[1, 1, 1, 5]] and boxes[0].tensor.tolist() == [[2, 3, 40, 30]]
    boxes.clip((20, 20))
    assert boxes[0].image_size == boxes.clone().image_size == boxes.to("cpu").image_size == (20, 20)
    assert maps[boxes.nonempty()].shape == (1, 20, 20)
    assert type(Boxes.cat([boxes, boxes])) is Boxes


def test_instances_are_joined_with_their_maps():
    _, plugin = both_hosts(FASTER_RCNN, *LAYERS)
    with torch.no_grad():
        raw = plugin.inference(inputs(), do_postprocess=False)[0]
        pasted = plugin(resized_inputs())[0]["instances"]
    for instances in (raw, pasted):
        joined = instances_to_detections(Instances.cat([instances[:3], instances[3:]]))
        assert joined == instances_to_detections(instances) and "occluder_mask" in joined.maps
    plain = pasted[:2]
    plain.pred_boxes = Boxes(plain.pred_boxes.tensor)
    mixed = Instances.cat([pasted, plain])
    with pytest.raises(ValueError, match=r"pred_masks in the image .* joined with such: convert them before"):
        instances_to_detections(mixed)
    resampled = instances_to_detections(mixed, resampled_side=28)
    assert {*resampled.maps} == {*instances_to_detections(pasted).maps}  # every layer, not the masks alone
    assert resampled.occluder_mask.shape == (len(mixed), 28, 28)
