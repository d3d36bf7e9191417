from __future__ import annotations

import os

import pytest
from coco_samples import annotation

import bcnet.data.catalog as catalog
from bcnet.data import dataset_files, dataset_info, dataset_names, dataset_root, load_dataset, register_dataset
from bcnet.data.formats import SpecPart
from bcnet.data.records import DatasetInfo


@pytest.fixture(autouse=True)
def no_traces(monkeypatch):
    monkeypatch.setattr(catalog, "_catalog", dict(catalog._catalog))
    monkeypatch.delenv("BCNET_DATASETS", raising=False)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)


def test_root_comes_from_the_environment(monkeypatch):
    assert dataset_root() == "datasets"
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/d2")
    assert dataset_root() == "/data/d2"
    monkeypatch.setenv("BCNET_DATASETS", "/data/ours")
    assert dataset_root() == "/data/ours"
    monkeypatch.setenv("BCNET_DATASETS", "")
    assert dataset_root() == "/data/d2"


@pytest.mark.parametrize(
    "name, annotation_file, image_root",
    [
        ("coco_2017_train", "r/coco/annotations/instances_train2017.json", "r/coco/train2017"),
        ("coco_2017_val", "r/coco/annotations/instances_val2017.json", "r/coco/val2017"),
        ("coco_2017_test-dev", "r/coco/annotations/image_info_test-dev2017.json", "r/coco/test2017"),
        ("coco_2017_occ", "r/coco/annotations/instances_val2017_occ.json", "r/coco/val2017"),
        ("coco:a/b.json:c/d", "a/b.json", "c/d"),
        ("coco:/x:y/b.json:/c:d", "/x:y/b.json", "/c:d"),
        ("coco:a/annotations:c/d", "a/annotations", "c/d"),
    ],
)
def test_files_of_names_and_specs(monkeypatch, name, annotation_file, image_root):
    monkeypatch.setenv("BCNET_DATASETS", "r")
    files = dataset_files(name)
    assert (files.annotation_file, files.image_root) == (annotation_file, image_root)


@pytest.mark.parametrize("spec", ["kins:", "kins:a.json", "kins:a.json:", "kins::images"])
def test_incomplete_spec(spec):
    with pytest.raises(ValueError, match=r"must have the form 'kins:path/to/annotations.json:path/to/images'"):
        dataset_files(spec)


@pytest.mark.parametrize("spec", ["coco:", "coco:a.json:", "coco::images"])
def test_an_optional_part_is_not_empty(spec):
    form = r"must have the form 'coco:path/to/annotations.json\[:path/to/images\]'"
    with pytest.raises(ValueError, match=form):
        dataset_files(spec)


def test_optional_parts(tmp_path):
    assert dataset_files("coco:a.json").paths == ("a.json",)
    assert dataset_files("labelme:a/b:images").paths == ("a/b", "images")
    (tmp_path / "a:b").mkdir()
    assert dataset_files(f"labelme:{tmp_path}/a:b").paths == (f"{tmp_path}/a:b",)  # as there is such a folder
    register_dataset("mine", str(tmp_path), format="labelme")
    assert dataset_files("mine").paths == (str(tmp_path),)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(KeyError, match="unknown data set 'coco_2017_trian'; nearest known names: 'coco_2017_train'"):
        load_dataset("coco_2017_trian")


def test_load_by_spec_and_by_registered_name(coco_files):
    files = coco_files({1: (20, 30)}, [annotation(1, 1, [2, 2, 9, 9])])
    records, info = load_dataset("coco:{}:{}".format(*files))
    register_dataset("mine", *files)
    assert "mine" in dataset_names()
    again, same = load_dataset("mine")
    assert again == records
    assert same.name == "mine"
    assert (same.class_names, same.annotation_file) == (info.class_names, files[0])
    assert dataset_info("mine") == same


def test_registering_twice(coco_files):
    files = coco_files({1: (20, 30)})
    register_dataset("mine", *files)
    register_dataset("mine", *files)
    with pytest.raises(ValueError, match=r"'mine' is already taken by .*annotations.json"):
        register_dataset("mine", "other.json", files[1])
    with pytest.raises(ValueError, match="'coco_2017_val' is already taken"):
        register_dataset("coco_2017_val", *files)
    with pytest.raises(ValueError, match="without a colon, got 'a:b'"):
        register_dataset("a:b", *files)
    with pytest.raises(
        ValueError,
        match="'voc_mine': the format of a data set is 'pascal'; registered are 'ade20k'",
    ):
        register_dataset("voc_mine", *files, format="pascal")


def test_missing_files_say_what_to_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("coco_2017_val")
    text = str(error.value)
    assert "data set 'coco_2017_val'" in text
    assert "'datasets/coco/annotations/instances_val2017.json'" in text and "'datasets/coco/val2017'" in text
    assert "set the environment variable BCNET_DATASETS to the folder that holds coco/" in text
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"the environment variable DETECTRON2_DATASETS is '{tmp_path}'; set"):
        load_dataset("coco_2017_val")


def test_missing_image_folder_of_a_spec(coco_files):
    annotation_file, _ = coco_files({1: (20, 30)})
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(f"coco:{annotation_file}:nowhere")
    message = "image folder 'nowhere' not found; relative paths are resolved against the current directory"
    assert message in str(error.value)
    assert "annotation file" not in str(error.value)


def test_a_spec_of_an_unknown_format_lists_the_formats():
    with pytest.raises(ValueError, match=r"format of a data set is 'pascal'; registered .*'coco', .*--import MODULE"):
        load_dataset("pascal:a.xml:images")


# -- Readers of another package ----------------------------------------------------------------------------


@pytest.fixture
def readers(monkeypatch):
    monkeypatch.setattr(catalog.READER_REGISTRY, "_obj_map", dict(catalog.READER_REGISTRY._obj_map))
    return catalog.READER_REGISTRY


def read_nothing(*paths, name):
    return [], DatasetInfo(name=name, class_names=paths, category_ids=(), annotation_file=paths[0], image_root="")


YAML = SpecPart("description", "data.yaml", file=True, suffixes=(".yaml", ".yml"))
FOLDER = SpecPart("folder", "folder", folder=True)


@pytest.mark.parametrize(
    ("parts", "rest", "paths"),
    [
        ((FOLDER,), "some/folder:with:colons", ("some/folder:with:colons",)),
        ((YAML,), "a.yaml", ("a.yaml",)),
        ((YAML, FOLDER), "a:b.yml:c:d", ("a:b.yml", "c:d")),
        ((YAML, FOLDER), "a.txt:c", ("a.txt", "c")),
        ((FOLDER, FOLDER, YAML), "a:b:c:d.yaml", ("a", "b:c", "d.yaml")),
        ((YAML, FOLDER, FOLDER), "x.yaml:b:c", ("x.yaml", "b", "c")),
        ((FOLDER,), "~/x", (os.path.expanduser("~/x"),)),
        ((FOLDER,), "", None),
        ((YAML, FOLDER), "a.yaml", None),
        ((YAML, FOLDER), "a.yaml:", None),
    ],
)
def test_a_reader_says_how_its_spec_is_split(readers, parts, rest, paths):
    readers.register(read_nothing, name="mine", parts=parts)
    if paths is None:
        form = "mine:" + ":".join(part.example for part in parts)
        with pytest.raises(ValueError, match=f"data set spec 'mine:{rest}' must have the form '{form}'"):
            dataset_files(f"mine:{rest}")
    else:
        assert dataset_files(f"mine:{rest}").paths == paths


def test_a_reader_of_another_package(readers, tmp_path):
    readers.register(parts=[FOLDER])(read_nothing)
    with pytest.raises(FileNotFoundError, match=f"'read_nothing:{tmp_path}/x': folder '{tmp_path}/x' not found"):
        load_dataset(f"read_nothing:{tmp_path}/x")
    records, info = load_dataset(f"read_nothing:{tmp_path}")
    assert records == [] and info.name == f"read_nothing:{tmp_path}" and info.class_names == (str(tmp_path),)
    register_dataset("named", str(tmp_path), format="read_nothing")
    assert dataset_info("named").class_names == (str(tmp_path),)
    with pytest.raises(ValueError, match=r"the format 'read_nothing' is read from 'read_nothing:folder', got"):
        register_dataset("other", str(tmp_path), str(tmp_path), format="read_nothing")
    with pytest.raises(KeyError, match=r"pass its files as a spec .*'coco:path/to/annotations\.json:path.*read_n"):
        load_dataset("unknown")
    with pytest.raises(AssertionError, match="read_nothing"):
        readers.register(read_nothing)
    with pytest.raises(ValueError, match="a word without a colon"):
        readers.register(read_nothing, name="a:b")


def test_tilde_is_expanded(monkeypatch, coco_files):
    annotation_file, image_root = coco_files({1: (20, 30)})
    monkeypatch.setenv("HOME", os.path.dirname(annotation_file))
    name = os.path.basename(annotation_file)
    register_dataset("home", f"~/{name}", image_root)
    for spec in ("home", f"coco:~/{name}:{image_root}"):
        assert dataset_info(spec).annotation_file == annotation_file


def test_a_part_of_a_spec_is_a_file_or_a_folder():
    """If it were neither, every path would be reported as missing."""
    with pytest.raises(ValueError, match="the part 'box file' of a spec is neither a file nor a folder"):
        SpecPart("box file", "boxes.txt")
