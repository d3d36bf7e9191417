"""Reader properties: training, evaluation, conversion and selection see the same objects, crowds, ids and sizes.

Values are drawn together with their meaning, so that the records are compared with an independent expectation.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from bcnet.data import DatasetMapper, ImageRecord
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.data.coco import load_coco
from bcnet.data.coco_occ import box_overlaps, build_coco_occ
from bcnet.data.occluder_annotations import convert_annotations
from bcnet.data.source_masks import missing_masks, source_masks, visible_rle
from bcnet.data.transforms import Transform
from bcnet.evaluation import GroundTruth
from bcnet.evaluation.coco_api import ground_truth_to_coco
from bcnet.ops.rle import rle_to_json, segmentation_to_rle

ABSENT = object()
BAD = object()  # meaning of a value that every consumer rejects
THRESHOLD = 0.2
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")

flags = st.sampled_from(
    [(ABSENT, False), (None, False)]
    + [(value, False) for value in (0, 0.0, False, "0", "false", "False")]
    + [(value, True) for value in (1, 1.0, True, "1", "true", "TRUE")]
)
bad_flags = st.sampled_from([("yes", BAD), (2, BAD), ("", BAD), (float("nan"), BAD), ([], BAD)])
areas = st.sampled_from(
    [(value, None) for value in (ABSENT, None, "12", float("nan"), -1, [3], True)]
    + [(value, float(value)) for value in (0, 7, 12.5)]
)


@dataclass
class Drawn:
    """A json and the instances that it describes."""

    content: dict
    instances: list[tuple] = field(default_factory=list)  # image id, annotation id, class name, crowd, area
    refused: bool = False


def rarely(usual, unusual):
    """Mostly the first strategy: otherwise nearly all files would have faults and be rejected."""
    return st.integers(0, 39).flatmap(lambda number: unusual if number == 27 else usual)


def as_number(value):
    """An integer in the forms that json writers use, with its meaning."""
    return st.sampled_from([(value, value), (float(value), value)])


@st.composite
def masks(draw, box, size, crowd):
    """A segmentation and whether there is a mask in it, or BAD."""
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    rle = rle_to_json(segmentation_to_rle([polygon], *size))
    pixels = coco_mask.decode({**rle, "counts": rle["counts"].encode()})
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[1 - pixels.flat[0]], pixels.ravel("F"), [2]])))).tolist()
    runs = [0, *runs] if pixels.ravel("F")[0] else runs
    good = [
        ([polygon], True),
        ([[1, 1, 2, 2], polygon, [0, 0, 1, 0, 1, 1, 5]], True),
        (rle, True),
        ({"size": [float(side) for side in size], "counts": runs}, True),
    ]
    absent = [(ABSENT, False), (None, False), ([], False)]
    broken = [
        ("mask.png", BAD),
        ([[1, 2, 3, 4, 5]], BAD),
        ([[0, 0, 4, float("nan"), 4, 4]], BAD),
        ({"size": list(size), "counts": [3]}, BAD),
        ({"size": [size[0] + 1, size[1]], "counts": rle["counts"]}, BAD),
    ]
    value, meaning = draw(rarely(st.sampled_from(good * 4 + absent), st.sampled_from(broken)))
    if crowd and draw(st.booleans()):
        value, meaning = draw(st.sampled_from(absent + broken))
    return value, (meaning if not crowd or meaning is not BAD else False)


@st.composite
def files(draw):
    """A COCO json with all unusual values of the reader's table, most of them usable."""
    numbers = st.integers(0, 9).flatmap(as_number)
    ids = rarely(numbers, st.sampled_from([("7", "7"), ("a", "a"), (1.5, BAD), (True, BAD), (None, BAD)]))
    image_ids = draw(st.lists(ids, min_size=1, max_size=3, unique_by=lambda pair: str(pair[1])))
    if draw(st.integers(0, 39)) == 27:
        image_ids.append(image_ids[0])
    drawn = Drawn({"images": [], "annotations": [], "categories": []})
    drawn.refused = len({repr(meaning) for _, meaning in image_ids}) < len(image_ids)
    sizes = []
    for number, (value, meaning) in enumerate(image_ids):
        size = draw(st.sampled_from([(12, 20), (16, 16), (9, 14)]))
        height, width = (draw(as_number(side))[0] for side in size)
        image = {"id": value, "file_name": f"{number}.png", "height": height, "width": width}
        drawn.content["images"].append(image)
        drawn.refused |= meaning is BAD
        sizes.append(size)
    names = draw(st.lists(st.sampled_from(["cat", "cup"]), min_size=1, max_size=3))
    category_ids = draw(st.permutations(range(len(names))))
    drawn.content["categories"] = [
        {"id": draw(as_number(number))[0], "name": f"{name}"} for number, name in zip(category_ids, names, strict=True)
    ]
    for number in range(draw(st.integers(0, 5))):
        draw_annotation(draw, drawn, number, image_ids, sizes, dict(zip(category_ids, names, strict=True)))
    return drawn


def draw_annotation(draw, drawn, number, image_ids, sizes, names):
    which = draw(st.integers(0, len(image_ids) - 1))
    image_id, size = image_ids[which], sizes[which]
    listed = draw(st.integers(0, 15)) != 7
    identity = draw(rarely(as_number(number + 1), st.sampled_from([(f"{number}", f"{number}"), (None, BAD)])))
    category = draw(rarely(st.sampled_from(sorted(names)).flatmap(as_number), st.just((99, BAD))))
    iscrowd, ignore = draw(rarely(flags, bad_flags)), draw(st.one_of(st.just((ABSENT, False)), flags))
    crowd = iscrowd[1] is True or ignore[1] is True
    x, y = draw(st.integers(0, size[1] - 3)), draw(st.integers(0, size[0] - 3))
    box = [x, y, draw(st.integers(2, size[1] - x)), draw(st.integers(2, size[0] - y))]
    segmentation = draw(masks(box, size, crowd))
    boxes = [(box, True)] * 9 + [([*map(float, box)], True), (ABSENT, False), (None, False), ([], False)]
    bad_boxes = [(f"{box}", BAD), ([*box[:3], float("nan")], BAD), (box[:3], BAD), ([size[1], 0, 3, 3], BAD)]
    bbox = draw(rarely(st.sampled_from(boxes), st.sampled_from(bad_boxes)))
    area = draw(areas)
    depth = draw(rarely(st.sampled_from([(ABSENT, 0), (number, 0), (None, 0)]), st.just(("near", BAD))))
    annotation = {
        "id": identity[0],
        "image_id": image_id[0] if listed else 12345,
        "category_id": category[0],
        "bbox": bbox[0],
        "segmentation": segmentation[0],
        "area": area[0],
        "iscrowd": iscrowd[0],
        "ignore": ignore[0],
        "depth": depth[0],
    }
    drawn.content["annotations"].append({key: value for key, value in annotation.items() if value is not ABSENT})
    if not listed and identity[1] is not BAD:
        return
    meanings = [identity[1], category[1], iscrowd[1], segmentation[1], bbox[1], depth[1]]
    drawn.refused |= BAD in meanings or (bbox[1] is False and segmentation[1] is False)
    # Box and mask cover the same pixels, of which there are width x height.
    expected_area = area[1] if area[1] is not None else float(box[2] * box[3])
    drawn.instances.append((image_id[1], identity[1], names.get(category[1]), crowd, expected_area))


def in_order(instances):
    return sorted(instances, key=repr)


def of_records(records: list[ImageRecord], info) -> list[tuple]:
    return [
        (record.image_id, instance.annotation_id, info.class_names[instance.category], instance.iscrowd)
        for record in records
        for instance in record.instances
    ]


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=files(), encoding=st.sampled_from(ENCODINGS))
def test_all_consumers_agree(tmp_path_factory, drawn, encoding):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "property.json"
    path.write_bytes(json.dumps(drawn.content).encode(encoding))
    event("refused" if drawn.refused else "read")
    if drawn.refused:
        for read in (lambda: load_coco(str(path), str(folder)), lambda: GroundTruth.from_file(path)):
            with pytest.raises(ValueError, match=r"property\.json is malformed"):
                read()
        return
    records, info = load_coco(str(path), str(folder))
    assert in_order(of_records(records, info)) == in_order(instance[:4] for instance in drawn.instances)
    check_evaluation(path, records, info, drawn)
    check_conversion(folder, path, records, info)
    check_selection(folder, path, records, info)
    for record in records:
        check_targets(record)


def check_evaluation(path, records, info, drawn):
    truth = GroundTruth.from_file(path)
    seen = [
        (
            truth.image_id(annotation),
            annotation["annotation_id"],
            info.class_names[info.category_ids.index(annotation["category_id"])],
            bool(annotation["iscrowd"]),
        )
        for annotation in truth.annotations
    ]
    assert seen == of_records(records, info)
    assert truth.image_ids == [record.image_id for record in records]
    assert all(truth.image_size(record.image_id) == (record.height, record.width) for record in records)
    areas = {annotation["annotation_id"]: annotation["area"] for annotation in truth.annotations}
    assert areas == {instance[1]: instance[4] for instance in drawn.instances}
    flat = [(record, instance) for record in records for instance in record.instances]
    for annotation, (record, instance) in zip(truth.annotations, flat, strict=True):
        assert annotation["bbox"] == list(instance.bbox)
        if instance.segmentation:
            assert annotation["segmentation"] == visible_rle(record, instance)
        else:
            assert ("segmentation" in annotation) == instance.iscrowd
    assert len(ground_truth_to_coco(truth).dataset["annotations"]) == len(flat)


def check_conversion(folder, path, records, info):
    output = folder / "converted.json"
    statistics = convert_annotations(str(path), str(output), overwrite=True)
    content = json.loads(output.read_text())
    converted, same_info = load_coco(str(output), str(folder))
    assert (of_records(converted, same_info), same_info.class_names) == (of_records(records, info), info.class_names)
    instances = [instance for record in records for instance in record.instances]
    usable = [instance for instance in instances if not instance.iscrowd and instance.segmentation]
    crowds = sum(instance.iscrowd for instance in instances)
    assert (statistics.images, statistics.annotations) == (len(records), len(content["annotations"]))
    assert (statistics.crowds, statistics.instances) == (crowds, len(usable))
    assert statistics.skipped.total() == len(content["annotations"]) - crowds - len(usable)
    assert all("bg_object_segmentation" in annotation for annotation in content["annotations"])
    for record, with_occluders in zip(records, converted, strict=True):
        if not missing_masks(record):
            assert source_masks(with_occluders).layers == source_masks(record).layers


def check_selection(folder, path, records, info):
    output = folder / "selected.json"
    build_coco_occ(str(path), str(output), overwrite=True, threshold=THRESHOLD)
    selected = [image["id"] for image in json.loads(output.read_text())["images"]]
    expected = []
    for record in records:
        objects = [instance for instance in record.instances if not instance.iscrowd]
        overlaps = box_overlaps([o.bbox for o in objects], [o.category for o in objects])
        if overlaps.max(initial=0) >= THRESHOLD:
            expected.append(record.image_id)
    assert in_order(selected) == in_order(expected)
    if selected:
        chosen = [record for record in records if record.image_id in selected]
        assert of_records(load_coco(str(output), str(folder))[0], info) == of_records(chosen, info)


def check_targets(record):
    record = copy.deepcopy(record)
    if missing_masks(record):
        return
    objects = [instance for instance in record.instances if not instance.iscrowd]
    assert [record.instances[position] for position in source_masks(record).positions] == objects
    mapper = DatasetMapper(augmentation=Augmentation(ResizeShortestEdge((0,), 9999)))
    targets = mapper.targets(record, Transform((record.height, record.width), (record.height, record.width)))
    corners = [[x, y, x + w, y + h] for x, y, w, h in (instance.bbox for instance in objects)]
    assert targets.boxes.tolist() == corners
    assert targets.classes.tolist() == [instance.category for instance in objects]
