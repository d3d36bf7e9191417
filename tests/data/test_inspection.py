"""Checks of data sets: counts, suspicious entries, images that splits share, config keys, the report."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_samples import annotation
from PIL import Image

from bcnet.cli import main
from bcnet.config import load_config
from bcnet.data import load_dataset
from bcnet.data.duplicates import content_groups
from bcnet.data.findings import collected_findings
from bcnet.data.inspection.advice import config_lines, remarks
from bcnet.data.inspection.counts import DatasetCounts, count_dataset
from bcnet.data.inspection.dataset_check import check_datasets
from bcnet.data.inspection.shared_images import shared_images


def spec(files):
    return "coco:{}:{}".format(*files)


def scene(**changes):
    """Two neighbours, of which the second is in front and hides a part of the first, and an object apart."""
    return [
        annotation(1, 1, [10, 10, 40, 40], depth=2, hidden_fraction=0.2, **changes),
        annotation(2, 1, [30, 10, 40, 40], depth=1, hidden_fraction=0.0),
        annotation(3, 1, [100, 60, 110, 100], depth=3, category_id=7),
        annotation(4, 1, [0, 0, 300, 200], iscrowd=1),
    ]


def test_counts(coco_files):
    records, _ = load_dataset(spec(coco_files({1: (200, 300), 2: (100, 120)}, scene())))
    counts = count_dataset(records)
    assert (counts.images, counts.empty, counts.objects, counts.crowds) == (2, 1, 3, 1)
    assert dict(counts.per_class) == {0: 2, 1: 1} and (counts.small, counts.medium, counts.large) == (0, 2, 1)
    assert (counts.heights, counts.widths, counts.per_image) == ([200, 100], [300, 120], [3, 0])
    assert (counts.neighbours, counts.pairs, counts.ordered_pairs) == (2, 1, 1)
    assert counts.with_occluder == 1  # by the order: the first alone
    assert (counts.hidden, counts.known_hidden) == (1, 2)
    for instance in records[0].instances:
        instance.hidden_fraction = None
    records[0].in_front = None
    records[0].instances[0].occluded = True
    counts = count_dataset(records)
    assert (counts.with_occluder, counts.ordered_pairs, counts.hidden, counts.known_hidden) == (2, 0, 1, 1)


def test_pairs_of_unordered_objects_are_not_of_known_order(coco_files):
    records, _ = load_dataset(spec(coco_files({1: (200, 300)}, scene())))
    records[0].unordered = (0,)
    assert count_dataset(records).ordered_pairs == 0


def test_findings_are_collected_in_place_of_an_error(coco_files, caplog):
    objects = [*scene(), annotation(5, 1, [1, 1, 5, 5], segmentation=[[1, 2]]), annotation(6, 9, [1, 1, 5, 5])]
    files = coco_files({1: (200, 300)}, objects)
    with collected_findings() as findings:
        records, _ = load_dataset(spec(files))
    assert len(records[0].instances) == 4 and not caplog.text
    (found,) = findings
    assert [fault.label for fault in found.faults] == ["annotation 5"] and len(found.dropped) == 1
    with pytest.raises(ValueError, match="annotation 5"):
        load_dataset(spec(files))


def test_suspicious_entries(coco_files, tmp_path):
    sizes = {1: (200, 300), 2: (50, 60), 3: (50, 60), 4: (50, 60)}
    objects = [
        *scene(area=None),
        annotation(5, 1, [1, 1, 5, 5], segmentation=[[1, 2]]),
        annotation(6, 1, [30, 10, 40, 40], depth=5),  # like 2
        annotation(7, 99, [1, 1, 5, 5]),
    ]
    files = coco_files(sizes, objects)
    (tmp_path / "images/2.png").write_bytes(b"no image")
    Image.new("RGB", (30, 20)).save(tmp_path / "images/3.png")
    Image.new("RGB", (60, 50)).save(tmp_path / "images/4.png")
    (tmp_path / "images/5.png").write_bytes((tmp_path / "images/4.png").read_bytes())
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["images"].append({"id": 5, "file_name": "5.png", "height": 50, "width": 60})
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    check = check_datasets([spec(files)])
    found = {suspicion.what: suspicion for suspicion in check.datasets[0].suspicions}
    unreadable, size = found["unreadable images"], found["images of another size"]
    assert unreadable.count == 1 and "2.png" in unreadable.message and unreadable.severity == "error"
    assert size.message.endswith("3.png is 30 x 20, the annotations say 60 x 50")
    twice = found["images whose file has the same content as another one's"]
    assert twice.message == "5.png and 4.png" and twice.examples[0].record.image_id == 5
    (repeated,) = (suspicion for what, suspicion in found.items() if "annotated twice" in what)
    assert repeated.message == "like annotation 2" and repeated.examples[0].position == 4
    (broken,) = (suspicion for what, suspicion in found.items() if "every polygon has fewer than 3 points" in what)
    assert broken.severity == "error" and broken.message.startswith("annotation 5: every polygon has")
    assert broken.examples[0].record is None  # it was not read
    (area,) = (suspicion for what, suspicion in found.items() if "area" in what)
    assert area.severity == "noted" and area.examples[0].position == 0
    assert [s.severity for s in check.datasets[0].suspicions][:3] == ["error"] * 3 and check.datasets[0].errors == 3
    assert not check.is_fine
    text = check.text()
    assert "error: 1 unreadable images (image 2): cannot read the image" in text
    assert "left out: 1 annotations of images that are not listed, dropped (annotation 7): image_id is 99" in text


def picture(seed, size=(96, 128)):
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return small.resize(size[::-1], Image.Resampling.BICUBIC)


def test_images_that_two_sets_share(coco_files, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(1, 6):
        picture(number).save(tmp_path / f"images/{number}.png")
    (tmp_path / "images/7.png").write_bytes((tmp_path / "images/1.png").read_bytes())
    picture(2).resize((100, 75)).save(tmp_path / "images/8.png")  # a smaller copy
    picture(99).save(tmp_path / "images/9.png")
    Image.new("RGB", (128, 96)).save(tmp_path / "images/5.png")  # black images look alike, and say nothing
    Image.new("RGB", (120, 96)).save(tmp_path / "images/10.png")
    sizes = {1: (96, 128), 2: (96, 128), 3: (96, 128), 5: (96, 128)}
    train = load_dataset(spec(coco_files(sizes, name="a.json")))[0]
    val_files = coco_files({7: (96, 128), 8: (75, 100), 9: (96, 128), 10: (96, 120)}, name="b.json")
    val = load_dataset(spec(val_files))[0]
    shared = shared_images(train, val)
    assert [(s.first.image_id, s.second.image_id, s.identical) for s in shared] == [(1, 7, True), (2, 8, False)]
    assert shared_images(train[2:], val) == []


def test_files_by_content(tmp_path):
    for name, content in {"a": b"1", "b": b"22", "c": b"1", "d": b"2"}.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("a", "b", "gone", "c", "d", "a", "gone")]
    assert content_groups(paths) == [[0, 3, 5], [1], [2], [4], [6]]


@pytest.mark.parametrize("images, side", [(20, 200), (500, 480), (118287, 480), (3000, 2000)])
def test_the_config_is_valid(images, side):
    counts = DatasetCounts(images=images, objects=9, with_amodal=9, ordered_pairs=3)
    counts.heights, counts.widths, counts.areas = [side] * 3, [2 * side] * 3, [500.0]
    counts.small = 1 if images == 3000 else 3
    lines = config_lines(counts, "coco:a.json:b", "coco:c.json:d")
    cfg = load_config("Base-RCNN-FPN.yaml", [part for line in lines for part in (line.split(" ", 1)[0], value(line))])
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("coco:a.json:b",), ("coco:c.json:d",))
    assert cfg.SOLVER.STEPS[0] < cfg.SOLVER.STEPS[1] < cfg.SOLVER.MAX_ITER
    assert cfg.INPUT.MIN_SIZE_TRAIN[0] <= cfg.INPUT.MAX_SIZE_TRAIN
    assert cfg.MODEL.BILAYER.AMODAL and cfg.MODEL.BILAYER.OCCLUDER_TARGET == "front"
    if images == 118287:  # COCO's own: detectron2's 1x schedule
        assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH) == (89000, 0.02, 16)
        assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN) == ((800,), 1333)


def test_images_are_enlarged_for_small_objects_alone():
    counts = DatasetCounts(images=20, objects=8, small=2)
    counts.heights, counts.widths = [427] * 3, [640] * 3
    assert {"INPUT.MIN_SIZE_TRAIN '(448,)'", "INPUT.MAX_SIZE_TRAIN 672"} <= set(config_lines(counts, "a", "b"))
    counts.small = 3
    assert {"INPUT.MIN_SIZE_TRAIN '(736,)'"} <= set(config_lines(counts, "a", "b"))
    assert "3 of 8 objects are small: images are enlarged for them" in remarks(counts, ())


def value(line):
    return line.split(" ", 1)[1].strip("'")


def test_command_and_report(coco_files, tmp_path, capsys):
    files = coco_files({1: (200, 300)}, [*scene(), annotation(5, 1, [200, 150, 0, 10])])
    (dataset,) = check_datasets([spec(files)]).datasets
    assert sum(len(suspicion.examples) for suspicion in dataset.suspicions) == 4  # crowds, and what is wrong with 5
    main(["data", "check", spec(files), "--output", str(tmp_path / "out/report.html")])
    printed = capsys.readouterr().out
    assert "objects                     4, and 1 crowd;" in printed and "DATASETS.TEST '()'" in printed
    assert "note: no test set was named" in printed and "--split 0.8" in printed
    report = (tmp_path / "out/report.html").read_text()
    assert "boxes of zero width or height" in report and report.count("<img") == 4
    assert "<td>cat</td><td>3</td>" in report and 'src="data:image/jpeg;base64,' in report
    with pytest.raises(SystemExit) as error:
        main(["data", "check", spec(files), spec(files)])
    assert error.value.code == 1 and "images of coco:" in capsys.readouterr().out


def test_names_are_escaped_in_the_report(coco_files, tmp_path):
    categories = [{"id": 3, "name": "<b>&"}, {"id": 7, "name": "cup"}]
    files = coco_files({1: (200, 300)}, scene(), categories=categories)
    main(["data", "check", spec(files), "--output", str(tmp_path / "report.html")])
    report = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;&amp;" in report and "<b>&<" not in report


def test_a_data_set_without_objects_and_classes_of_one_data_set_alone(coco_files, tmp_path):
    files = coco_files({1: (200, 300)}, scene())
    content = json.loads(Path(files[0]).read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content | {"annotations": [], "categories": [{"id": 1, "name": "spoon"}]}))
    train, test = spec(files), spec((other, files[1]))
    check = check_datasets([train, test])
    assert [dataset.errors for dataset in check.datasets] == [0, 1]
    assert "error: 1 data set without an object, which training rejects" in check.text()
    assert f"1 class of {test}, not in {train}: spoon" in check.remarks and len(check.remarks) >= 2
