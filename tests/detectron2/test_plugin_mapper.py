"""Occluders and masks of the data mapper."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import numpy as np
import torch
from coco_scene import CATEGORIES, HEIGHT, WIDTH, write_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from plugin_samples import FASTER_RCNN, plugin_cfg

from bcnet.data import DatasetMapper as EngineMapper
from bcnet.data import load_dataset
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.detectron2 import BCNetDatasetMapper, register_datasets
from bcnet.detectron2.datasets import dict_to_record, record_to_dict
from bcnet.ops.rle import segmentation_to_rle

MASKS = {"use_instance_mask": True, "instance_mask_format": "bitmask"}


def mapper(*augmentations, **changes):
    return BCNetDatasetMapper(True, augmentations=list(augmentations), image_format="BGR", **{**MASKS, **changes})


@pytest.fixture
def dicts(tmp_path):
    """detectron2's own dataset dicts of the scene, from the plain json."""

    def load(**changes):
        _, annotations, images = write_coco(tmp_path, images=1, **changes).split(":")
        return load_coco_json(annotations, images, dataset_name=None)

    def contiguous(**changes):
        found = load(**changes)
        ids = sorted(category["id"] for category in CATEGORIES)
        for annotation in found[0]["annotations"]:
            annotation["category_id"] = ids.index(annotation["category_id"])
        return found

    return contiguous


@pytest.mark.parametrize(
    ("short_side", "flip", "augmentation"),
    [
        (0, "none", ()),
        (45, "none", (T.ResizeShortestEdge(45, 999),)),
        (93, "horizontal", (T.ResizeShortestEdge(93, 999), T.RandomFlip(prob=1.0))),
        (30, "vertical", (T.ResizeShortestEdge(30, 999), T.RandomFlip(prob=1.0, horizontal=False, vertical=True))),
    ],
)
@pytest.mark.parametrize("converted", [False, True])
def test_the_targets_are_those_of_the_engines_mapper(tmp_path, short_side, flip, augmentation, converted):
    def convert(annotations):
        if converted:  # two annotations with an occluder of the file's own, one of them empty
            annotations[0]["bg_object_segmentation"] = [[8, 8, 30, 8, 30, 30]]
            annotations[1]["bg_object_segmentation"] = []

    (record,), _ = load_dataset(write_coco(tmp_path, images=1, change=convert))

    class Flipped:
        """A generator for which the coin always says flip."""

        random = staticmethod(lambda: 0.0)

    engine = EngineMapper(augmentation=Augmentation(ResizeShortestEdge((short_side,), 999), flip))
    expected = engine(record, Flipped)
    found = mapper(*augmentation)(record_to_dict(record))
    assert torch.equal(found["image"], expected["image"])
    assert (found["height"], found["width"], found["image_id"]) == (HEIGHT, WIDTH, 1)
    instances, targets = found["instances"], expected["targets"]
    torch.testing.assert_close(instances.gt_boxes.tensor, targets.boxes)
    assert torch.equal(instances.gt_classes, targets.classes) and len(targets) == 4
    masks = targets.masks.to_full(*found["image"].shape[1:]).bool()
    assert torch.equal(instances.gt_masks.tensor, masks[:, 0])
    assert torch.equal(instances.gt_occluder_masks.tensor, masks[:, 1])
    assert masks[:, 1].any()


def test_plain_dicts_of_detectron2_are_enough(dicts):
    instances = mapper()(dicts()[0])["instances"]
    occluders = instances.gt_occluder_masks.tensor
    masks = instances.gt_masks.tensor
    assert isinstance(instances.gt_occluder_masks, BitMasks) and occluders.dtype == torch.bool
    # The crowd over all of them is nobody's occluder, and the object far away has none.
    others = [(masks.sum(dim=0) - masks[i].int() > 0) for i in range(4)]
    in_box = torch.zeros_like(masks)
    for box, window in zip(instances.gt_boxes.tensor.int().tolist(), in_box, strict=True):
        window[box[1] : box[3], box[0] : box[2]] = True
    assert torch.equal(occluders, torch.stack(others) & in_box)
    assert occluders.flatten(1).any(dim=1).tolist() == [True, True, True, False]


def test_boxes_of_another_mode_and_keypoints_and_other_keys(dicts):
    plain, changed = dicts()[0], dicts()[0]
    for annotation in changed["annotations"]:
        annotation["bbox"] = BoxMode.convert(annotation["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        annotation["bbox_mode"] = BoxMode.XYXY_ABS
        annotation["keypoints"] = [1.0, 2.0, 2.0]
        annotation["something"] = "else"
    expected, found = mapper()(plain)["instances"], mapper()(changed)["instances"]
    assert found.get_fields().keys() == expected.get_fields().keys()
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert torch.equal(found.gt_occluder_masks.tensor, expected.gt_occluder_masks.tensor)


def test_polygons_stay_polygons_with_the_same_occluders(dicts):
    resize = T.ResizeShortestEdge(45, 999)
    expected = mapper(resize)(dicts(polygons_only=True)[0])["instances"]
    found = mapper(resize, instance_mask_format="polygon")(dicts(polygons_only=True)[0])["instances"]
    assert isinstance(found.gt_masks, PolygonMasks)
    np.testing.assert_allclose(found.gt_masks.polygons[0][0][:4], np.array([5, 5, 35, 5]) * 0.75)
    assert torch.equal(found.gt_occluder_masks.tensor, expected.gt_occluder_masks.tensor)


def test_an_object_that_is_hidden_altogether_is_not_trained_on(dicts):
    for mask_format in ("polygon", "bitmask"):
        sample = dicts(polygons_only=True)[0]
        first = sample["annotations"][0]
        first["amodal_segmentation"] = first.pop("segmentation")
        instances = mapper(instance_mask_format=mask_format)(sample)["instances"]
        assert len(instances) == 3 and instances.gt_boxes.tensor[0, 0] == 20


def test_padding_is_neither_object_nor_occluder(dicts):
    padded = mapper(T.FixedSizeCrop((100, 120), pad=True))(dicts()[0])["instances"]
    plain = mapper()(dicts()[0])["instances"]
    for field in ("gt_masks", "gt_occluder_masks"):
        tensor = getattr(padded, field).tensor
        assert tensor.shape[1:] == (100, 120)
        assert torch.equal(tensor[:, :HEIGHT, :WIDTH], getattr(plain, field).tensor)
        assert tensor.sum() == getattr(plain, field).tensor.sum()


def test_a_crop_drops_objects_together_with_their_occluders(dicts):
    class CornerCrop(T.Augmentation):
        def get_transform(self, image):
            return T.CropTransform(0, 0, 30, 30)

    instances = mapper(CornerCrop(), recompute_boxes=True)(dicts()[0])["instances"]
    assert len(instances) == 2 == len(instances.gt_occluder_masks)  # the third begins where the crop ends
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 30, 30], [20, 15, 30, 30]]
    # Derived before the crop: what lies beyond the crop still counted.
    assert instances.gt_occluder_masks.tensor[0].sum() > 0


def test_without_masks_and_without_annotations(dicts):
    instances = mapper(use_instance_mask=False)(dicts()[0])["instances"]
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"} and len(instances) == 4
    nothing = dicts()[0]
    nothing["annotations"] = []
    assert len(mapper()(nothing)["instances"]) == 0
    unlabelled = dicts()[0]
    del unlabelled["annotations"]
    assert "instances" not in mapper()(unlabelled)


def test_in_inference_the_mapper_is_detectron2s():
    test_mapper = BCNetDatasetMapper(plugin_cfg(FASTER_RCNN), is_train=False)
    assert not test_mapper.is_train and test_mapper.mask_target == "visible"


def test_amodal_targets_and_the_order_of_depth(dicts):
    sample = dicts()[0]
    for annotation in sample["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["amodal_segmentation"] = [[x, y, x + w + 4, y, x + w + 4, y + h, x, y + h]]
        annotation["amodal_bbox"] = [x, y, w + 4, h]
    sample["in_front"] = [(0, 1)]  # the second lies in front of the first
    instances = mapper(mask_target="amodal")(sample)["instances"]
    occluders = instances.gt_occluder_masks.tensor.flatten(1).sum(dim=1)
    assert occluders[0] > 0 and occluders[1:].tolist() == [0, 0, 0]
    assert instances.gt_boxes.tensor[0].tolist() == [5, 5, 39, 35]
    assert instances.gt_masks.tensor[0].sum() == 34 * 30
    # Neighbours hide by what is seen of them: the second's visible mask in the first's amodal box.
    assert occluders[0] == (39 - 20) * (35 - 15)


def test_amodal_masks_beside_the_visible_ones(dicts):
    samples = [dicts()[0] for _ in range(3)]
    for sample in samples[:2]:
        for annotation in sample["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["amodal_segmentation"] = [[x, y, x + w + 4, y, x + w + 4, y + h, x, y + h]]
    instances = mapper(amodal_masks=True)(samples[0])["instances"]
    assert instances.gt_masks.tensor[0].sum() == 30 * 30
    assert instances.gt_amodal_masks.tensor[0].sum() == 34 * 30
    assert not mapper()(samples[1])["instances"].has("gt_amodal_masks")
    with pytest.raises(
        ValueError, match=r"'at position 0' of image 1 \(.*\) has no amodal segmentation; MODEL.BILAYER.AM"
    ):
        mapper(amodal_masks=True)(samples[2])
    assert BCNetDatasetMapper(plugin_cfg(FASTER_RCNN, "MODEL.BILAYER.AMODAL", True)).amodal_masks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("segmentation"), r"annotation 'at position 1' of image 1 \(.*1.png\) has no segmentation"),
        (lambda a: a.update(segmentation=[[1, 2, 3, 4]]), r"position 1.* segmentation: .*at least 3 points.*got 4"),
        (lambda a: a.update(bg_object_segmentation=7), r"bg_object_segmentation: .*got int 7"),
        (lambda a: a.update(segmentation=np.ones((4, 4))), r"position 1.* of image 1 .*segmentation of type ndarray"),
    ],
)
def test_what_cannot_be_trained_on_is_named(dicts, change, message):
    sample = dicts()[0]
    change(sample["annotations"][1])
    with pytest.raises(ValueError, match=message):
        mapper()(sample)
    sample = {**dicts()[0], "in_front": [(0, 1), (0, 5)]}
    with pytest.raises(ValueError, match=r"1.png \(image 1\): in_front has \(0, 5\), but there are 5 annotations"):
        mapper()(sample)
    with pytest.raises(
        ValueError, match=r"position 1.* has a segmentation in RLE: INPUT.MASK_FORMAT must be 'bitmask'"
    ):
        mapper(instance_mask_format="polygon")(dicts()[0])
    with pytest.raises(ValueError, match=r"mask_target must be 'visible' or 'amodal', got 'all'"):
        mapper(mask_target="all")


def test_records_and_dicts_are_two_forms_of_one_thing(tmp_path):
    spec = write_coco(tmp_path)
    records, info = load_dataset(spec)
    for record in records:
        for instance in record.instances:
            if isinstance(instance.segmentation, dict):  # compressed, as detectron2's mapper takes it
                instance.segmentation = segmentation_to_rle(instance.segmentation, HEIGHT, WIDTH)
    assert [dict_to_record(record_to_dict(record)) for record in records] == records
    register_datasets([spec, spec])
    dicts = DatasetCatalog.get(spec)
    metadata = MetadataCatalog.get(spec)
    assert dicts == [record_to_dict(record) for record in records]
    assert metadata.thing_classes == ["cup", "cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1, 40: 2}
    assert metadata.json_file == info.annotation_file and metadata.evaluator_type == "coco"


def test_names_that_detectron2_knows_stay_its_own_and_unknown_ones_are_refused():
    before = DatasetCatalog["coco_2017_val"]
    register_datasets(["coco_2017_val"])
    assert DatasetCatalog["coco_2017_val"] is before
    register_datasets(["coco_2017_occ"])  # a name of the package's catalog alone
    assert "coco_2017_occ" in DatasetCatalog.list()
    with pytest.raises(KeyError, match=r"coco_2017_vla.*coco_2017_val"):
        register_datasets(["coco_2017_vla"])
    with pytest.raises(ValueError, match=r"must have the form 'coco:path/to/annotations.json"):
        register_datasets(["coco:"])
