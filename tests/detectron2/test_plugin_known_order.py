"""Known order, amodal maps, composition and the jitters in the plugin's mapper and mask targets."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

from collections import Counter

import numpy as np
import torch
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, plugin_cfg
from scene_detections import write_scenes

from bcnet.bilayer import crop_layers
from bcnet.data import DatasetMapper as EngineMapper
from bcnet.data import load_dataset
from bcnet.data.augmentation import Augmentation, ColorJitter, ResizeShortestEdge
from bcnet.data.composition import build_composition
from bcnet.detectron2 import BCNetDatasetMapper, dataset_mapper, register_datasets
from bcnet.detectron2.augmentations import RandomColors
from bcnet.detectron2.datasets import record_to_dict
from bcnet.detectron2.targets import roi_targets
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER, unknown_layer

LAYERS = (OCCLUDEE, OCCLUDER, AMODAL)
FRONT = ("MODEL.BILAYER.OCCLUDER_TARGET", "front", "MODEL.BILAYER.AMODAL", True)
COMPOSED = ("INPUT.COMPOSITION.ENABLED", True, "INPUT.COMPOSITION.PROBABILITY", 1.0)
KEEP_SIZE = ("INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.RANDOM_FLIP", "none")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of which the json keeps neither order nor amodal masks, as COCO's."""
    import json

    folder = tmp_path_factory.mktemp("scenes")
    spec = write_scenes(folder, images=6)
    path = folder / "annotations" / "val.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        for key in ("depth", "amodal_segmentation", "amodal_bbox", "hidden_fraction", "bg_object_segmentation"):
            annotation.pop(key, None)
    plain = folder / "annotations" / "plain.json"
    plain.write_text(json.dumps(content))
    specs = {"ordered": spec, "plain": f"coco:{plain}:{folder}/images"}
    register_datasets(specs.values())
    return specs


def cfg_of(spec, *opts):
    return plugin_cfg(FASTER_RCNN, "DATASETS.TRAIN", (spec,), *KEEP_SIZE, *FRONT, *opts)


def engine_mapper(**changes):
    augmentation = Augmentation(ResizeShortestEdge((0,), 9999))
    return EngineMapper(augmentation=augmentation, layers=LAYERS, occluder_target="front", **changes)


def assert_same_layers(instances, targets):
    assert len(instances) == len(targets) > 0
    torch.testing.assert_close(instances.gt_boxes.tensor, targets.boxes)
    assert torch.equal(instances.gt_classes, targets.classes)
    full = targets.masks.to_full(*instances.image_size).bool()
    for index, layer in enumerate(targets.masks.layers):
        field = "gt_masks" if layer == OCCLUDEE else f"gt_{layer}_masks"
        assert torch.equal(instances.get(field).tensor, full[:, index]), layer
    expected = {f"gt_{layer}_masks" for layer in targets.masks.layers if layer != OCCLUDEE}
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes", "gt_masks"} | expected


@pytest.mark.parametrize("kind", ["ordered", "plain"])
def test_what_is_known_to_lie_in_front_and_its_unknown_pixels(scenes, kind):
    records, _ = load_dataset(scenes[kind])
    mapper = BCNetDatasetMapper(cfg_of(scenes[kind], "MODEL.BILAYER.AMODAL", kind == "ordered"), is_train=True)
    engine = engine_mapper()
    engine.layers = LAYERS if kind == "ordered" else LAYERS[:2]
    for record in records:
        found, expected = mapper(record_to_dict(record)), engine(record)
        assert_same_layers(found["instances"], expected["targets"])
        unknown = found["instances"].gt_occluder_unknown_masks.tensor
        assert unknown.any() == (kind == "plain")


def test_a_composition_is_the_engines(scenes, monkeypatch):
    records, info = load_dataset(scenes["plain"])
    cfg = cfg_of(scenes["plain"], *COMPOSED)
    mapper = BCNetDatasetMapper(cfg, is_train=True)
    engine = engine_mapper(composition=build_composition(cfg, records, info.class_names))
    pasted = 0
    for seed, record in enumerate(records):
        monkeypatch.setattr(dataset_mapper, "random_generator", lambda seed=seed: np.random.default_rng(seed))
        found, expected = mapper(record_to_dict(record)), engine(record, np.random.default_rng(seed))
        assert torch.equal(found["image"], expected["image"])
        assert_same_layers(found["instances"], expected["targets"])
        pasted += len(found["instances"]) - sum(not instance.iscrowd for instance in record.instances)
    assert pasted > 0


def test_the_crops_of_unknown_layers_are_the_engines(scenes):
    records, _ = load_dataset(scenes["plain"])
    cfg = cfg_of(scenes["plain"], *COMPOSED)
    instances = BCNetDatasetMapper(cfg, is_train=True)(record_to_dict(records[0]))["instances"]
    names = [*LAYERS, unknown_layer(OCCLUDER), unknown_layer(AMODAL)]
    fields = ["gt_masks" if name == OCCLUDEE else f"gt_{name}_masks" for name in names]
    from bcnet.structures import InstanceMasks

    masks = InstanceMasks.from_full({n: instances.get(f).tensor for n, f in zip(names, fields, strict=True)})
    torch.manual_seed(0)
    matched = torch.arange(len(instances)).repeat(4)
    boxes = instances.gt_boxes.tensor[matched] + 3 * torch.randn(len(matched), 4)
    rois = instances[matched]
    rois.proposal_boxes = type(instances.gt_boxes)(boxes)
    rois.proposal_boxes.clip(instances.image_size)
    boxes = rois.proposal_boxes.tensor
    found = roi_targets([rois], LAYERS, side=28, device=torch.device("cpu"))
    expected = crop_layers(masks, boxes, matched, 28)
    assert not found[OCCLUDER].known.all() and found[OCCLUDEE].known is None
    for layer in LAYERS:
        same = found[layer].values == expected[layer].values
        assert same.float().mean() > 0.9999, layer  # averages of a half, in float32 and float64
        if expected[layer].known is not None:
            assert (found[layer].known == expected[layer].known).float().mean() > 0.999


def test_a_loader_of_workers_composes_and_a_model_learns_from_it(scenes):
    cfg = cfg_of(scenes["plain"], *COMPOSED, "DATALOADER.NUM_WORKERS", 2, "SOLVER.IMS_PER_BATCH", 2)
    mapper = BCNetDatasetMapper(cfg, is_train=True)
    batch = next(iter(build_detection_train_loader(cfg, mapper=mapper)))
    assert all(sample["instances"].has("gt_amodal_unknown_masks") for sample in batch)
    model = build_model(cfg).train()
    with EventStorage():
        losses = model(batch)
    assert losses["loss_amodal"] > 0 and torch.isfinite(losses["loss_occluder_mask"])
    for sample in batch:
        sample["instances"].remove("gt_occluder_masks")
    with (
        pytest.raises(
            ValueError, match=r"OCCLUDER_TARGET is 'front' and an image of the batch has no gt_occluder_masks"
        ),
        EventStorage(),
    ):
        model(batch)


def test_what_a_composition_excludes(scenes, tmp_path):
    with pytest.raises(ValueError, match=r"INPUT.MASK_FORMAT must be 'bitmask', got 'polygon'"):
        BCNetDatasetMapper(cfg_of(scenes["plain"], *COMPOSED, "INPUT.MASK_FORMAT", "polygon"), is_train=True)
    mapper = BCNetDatasetMapper(cfg_of(scenes["plain"], *COMPOSED), is_train=True)
    sample = DatasetCatalog.get(scenes["plain"])[0] | {"sem_seg_file_name": "labels.png"}
    with pytest.raises(ValueError, match=r"has 'sem_seg_file_name', which does not follow the objects"):
        mapper(sample)
    with pytest.raises(ValueError, match=r"occluder_target must be 'neighbours' or 'front', got 'behind'"):
        BCNetDatasetMapper(True, augmentations=[], image_format="BGR", occluder_target="behind")
    assert BCNetDatasetMapper(cfg_of(scenes["plain"], *COMPOSED), is_train=False).composition is None


def test_large_scale_jitter(scenes):
    jitter = ("INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.SIZE", (96, 160))
    cfg = cfg_of(scenes["ordered"], *jitter, "INPUT.RANDOM_FLIP", "horizontal")
    mapper = BCNetDatasetMapper(cfg, is_train=True)
    kinds = [type(augmentation) for augmentation in mapper.augmentations.augs]
    assert kinds == [T.ResizeScale, T.FixedSizeCrop, T.RandomFlip] and mapper.recompute_boxes
    np.random.seed(0)
    for sample in DatasetCatalog.get(scenes["ordered"]):
        found = mapper(sample)
        assert found["image"].shape == (3, 96, 160)
        instances = found["instances"]
        assert torch.equal(instances.gt_boxes.tensor, BitMasks(instances.gt_masks.tensor).get_bounding_boxes().tensor)


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_colour_jitter_is_the_engines_in_either_channel_order(image_format):
    jitter = ColorJitter((0.5, 1.5), (0.6, 1.7), (0.2, 1.9))
    rgb = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    step = -1 if image_format == "BGR" else 1
    np.random.seed(5)
    transform = RandomColors(jitter, image_format).get_transform(rgb[:, :, ::step])
    found = transform.apply_image(rgb[:, :, ::step])[:, :, ::step]
    np.random.seed(5)
    expected = jitter.apply(rgb, np.random.default_rng(np.random.randint(2**31)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(transform.apply_image(rgb[:, :, ::step])[:, :, ::step], expected)


def test_colours_are_jittered_by_the_config_before_everything_else(scenes):
    mapper = BCNetDatasetMapper(cfg_of(scenes["ordered"], "INPUT.COLOR_JITTER.ENABLED", True), is_train=True)
    assert type(mapper.augmentations.augs[0]) is RandomColors
    plain = BCNetDatasetMapper(cfg_of(scenes["ordered"]), is_train=True)
    sample = DatasetCatalog.get(scenes["ordered"])[0]
    assert not torch.equal(mapper(sample)["image"], plain(sample)["image"])
    assert torch.equal(mapper(sample)["instances"].gt_masks.tensor, plain(sample)["instances"].gt_masks.tensor)


def test_a_registration_that_ignores_the_order_is_told(scenes, caplog, monkeypatch):
    monkeypatch.setattr("detectron2.utils.logger._LOG_COUNTER", Counter())
    _, annotations, root = scenes["ordered"].split(":")
    name = "scenes_without_order"
    if name not in DatasetCatalog.list():
        register_coco_instances(name, {}, annotations, root)
    sample = DatasetCatalog.get(name)[0]
    BCNetDatasetMapper(cfg_of(name, "MODEL.BILAYER.AMODAL", False), is_train=True)(sample)
    assert "has a depth order, which this registration ignores" in caplog.text and annotations in caplog.text
    caplog.clear()
    for spec in scenes.values():
        BCNetDatasetMapper(cfg_of(spec, "MODEL.BILAYER.AMODAL", False), is_train=True)(DatasetCatalog.get(spec)[0])
    assert "depth order" not in caplog.text
