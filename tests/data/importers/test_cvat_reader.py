"""Reader of CVAT for images."""

import numpy as np
import pytest
from importer_samples import box_mask, masks, read_one, same

from bcnet.data import load_dataset
from bcnet.data.conversion import convert_dataset, with_amodal_shapes
from bcnet.data.source_masks import depth_order

SIZE = (10, 12)
NO_HEIGHT = 'name="a.png" width="12" height="0"'
LABELS = "<labels><label><name>cup</name></label><label><name>bowl</name></label></labels>"


def polygon(x0, y0, x1, y1, label="cup", **attributes):
    points = f"{x0}.00,{y0}.00;{x1}.00,{y0}.00;{x1}.00,{y1}.00;{x0}.00,{y1}.00"
    return element("polygon", label=label, source="manual", occluded="0", points=points, **attributes)


def element(tag, **attributes):
    return f"<{tag} {' '.join(f'{key}={str(value)!r}' for key, value in attributes.items())}></{tag}>"


@pytest.fixture
def cvat(write):
    """An annotations.xml of one image with these shapes; gives its path."""

    def make(*shapes, image='id="0" name="a.png" width="12" height="10"', meta=f"<meta><task>{LABELS}</task></meta>"):
        write("images/a.png", SIZE)
        xml = f"<annotations><version>1.1</version>{meta}<image {image}>{''.join(shapes)}</image></annotations>"
        return str(write("annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{xml}') / "annotations.xml")

    return make


def test_polygons_stay_whole_and_z_order_is_the_depth(cvat, tmp_path):
    path = cvat(polygon(2, 1, 6, 4, z_order=0), polygon(4, 2, 9, 8, "bowl", z_order=2), polygon(0, 0, 1, 1, z_order=0))
    record, info = read_one(f"cvat:{path}")
    assert record.instances[0].segmentation == [[2, 1, 6, 1, 6, 4, 2, 4]]
    assert same(masks(record)[:2], [box_mask(SIZE, 2, 1, 6, 4), box_mask(SIZE, 4, 2, 9, 8)])
    assert record.in_front == [(0, 1), (2, 1)]
    assert info.class_names == ("cup", "bowl")  # as the labels are listed
    assert record.file_name == f"{tmp_path}/images/a.png"
    assert read_one(f"cvat:{tmp_path}")[0] == record


def test_shapes_of_one_z_order_have_no_known_order(cvat):
    record, _ = read_one(f"cvat:{cvat(polygon(2, 1, 6, 4, z_order=0), polygon(4, 2, 9, 8, z_order=0))}")
    assert record.in_front is None


def test_an_overlap_of_one_z_order_is_a_pair_of_unknown_order(cvat, tmp_path):
    apart, front = polygon(0, 7, 2, 9), polygon(5, 1, 11, 9, "bowl", z_order=1)
    record, _ = read_one(f"cvat:{cvat(polygon(2, 1, 6, 4), polygon(4, 2, 9, 8), apart, front)}")
    assert record.in_front == [(0, 3), (1, 3), (2, 3)] and record.unordered_pairs == ((0, 1),)
    known, unknown = depth_order(record, range(4))
    assert unknown.sum() == 2 and unknown[0, 1] and unknown[1, 0] and known.sum() == 3
    convert_dataset("cvat", [str(tmp_path)], str(tmp_path / "coco.json"))
    again, _ = read_one(f"coco:{tmp_path}/coco.json:{tmp_path}/images")
    assert (sorted(again.in_front), again.unordered_pairs) == (record.in_front, record.unordered_pairs)
    with pytest.raises(ValueError, match=r"annotations 'a.png shape 1' and 'a.png shape 2' of image 1 .*overlap"):
        with_amodal_shapes(record)


def test_images_of_one_name_are_told_apart_by_their_subset(write, tmp_path):
    def image(subset, number):
        return f'<image id="{number}" name="1.png" subset="{subset}" width="12" height="10"></image>'

    xml = f"<annotations><meta><project>{LABELS}</project></meta>{image('Train', 0)}{image('Validation', 1)}"
    write("annotations.xml", xml + "</annotations>")
    write("images/1.png", SIZE)
    with pytest.raises(ValueError, match=r"two images have the name '1.png': one of id 0, subset Train, one of id 1"):
        load_dataset(f"cvat:{tmp_path}")
    write("images/Train/1.png", SIZE)
    write("images/Validation/1.png", SIZE)
    records, _ = load_dataset(f"cvat:{tmp_path}")
    names = [f"{tmp_path}/images/{subset}/1.png" for subset in ("Train", "Validation")]
    assert [record.file_name for record in records] == names


def test_masks_are_runs_along_the_rows_of_their_box(cvat):
    # 0 1 1 / 1 1 0
    mask = element("mask", label="cup", occluded="1", rle="1, 4, 1", left=5, top=3, width=3, height=2, z_order=0)
    record, _ = read_one(f"cvat:{cvat(mask)}")
    expected = np.zeros(SIZE, dtype=bool)
    expected[3, 6:8] = expected[4, 5:7] = True
    assert same(masks(record), [expected]) and record.instances[0].occluded


def test_a_mask_beyond_the_image_is_cut(cvat):
    mask = element("mask", label="cup", rle="0, 9", left=-1, top=8, width=3, height=3)
    record, _ = read_one(f"cvat:{cvat(mask)}")
    assert same(masks(record), [box_mask(SIZE, 0, 8, 2, 10)])


def test_groups_are_one_object(cvat):
    shapes = [
        polygon(2, 1, 6, 4, group_id=5),
        polygon(8, 6, 11, 9, group_id=5),
        polygon(8, 6, 11, 9, "bowl", group_id=5),
    ]
    record, _ = read_one(f"cvat:{cvat(*shapes, polygon(0, 0, 2, 2, group_id=0), polygon(0, 0, 2, 2, group_id=0))}")
    assert [len(instance.segmentation) for instance in record.instances] == [2, 1, 1, 1]


def test_a_box_in_a_group_with_masks_is_counted(cvat, caplog):
    box = element("box", label="cup", xtl=2, ytl=1, xbr=6, ybr=4, group_id=5)
    record, _ = read_one(f"cvat:{cvat(polygon(2, 1, 6, 4, group_id=5), box)}")
    assert [instance.segmentation for instance in record.instances] == [[[2, 1, 6, 1, 6, 4, 2, 4]]]
    assert "1 boxes in a group with masks, dropped" in caplog.text


def test_boxes_have_no_mask_and_ellipses_have_one(cvat):
    box = element("box", label="cup", xtl=2, ytl=1, xbr=6, ybr=4)
    turned = element("box", label="cup", xtl=2, ytl=1, xbr=8, ybr=5, rotation=90)
    ellipse = element("ellipse", label="cup", cx=6, cy=5, rx=4, ry=2, rotation=90)
    record, _ = read_one(f"cvat:{cvat(box, turned, ellipse)}")
    boxes = np.array([instance.bbox for instance in record.instances])
    assert boxes == pytest.approx(np.array([[2, 1, 4, 3], [3, 0, 4, 6], [4, 1, 4, 8]]), abs=0.1)
    assert [instance.segmentation is None for instance in record.instances] == [True, True, False]


def test_what_has_no_area_is_counted(cvat, caplog):
    shapes = [element("points", label="cup", points="1,2"), element("tag", label="cup"), element("star", label="cup")]
    record, _ = read_one(f"cvat:{cvat(*shapes, polygon(2, 1, 6, 4))}")
    assert len(record.instances) == 1
    assert "2 points, lines, cuboids, skeletons and tags, dropped (a.png shape 1, a.png shape 2)" in caplog.text
    assert "1 shapes of an unknown kind, dropped (a.png shape 3)" in caplog.text


def test_without_meta_the_labels_that_occur_are_the_classes(cvat):
    _, info = read_one(f"cvat:{cvat(polygon(2, 1, 6, 4), polygon(2, 1, 6, 4, 'bowl'), meta='')}")
    assert info.class_names == ("bowl", "cup")


@pytest.mark.parametrize(
    "broken, message",
    [
        (
            element("polygon", label="cup", points="1,2;3,x"),
            r"'a.png shape 1': points must be x,y;x,y;..., got '1,2;3,x'",
        ),
        (element("polygon", label="cup", points="1,2;3,4"), r"every polygon has fewer than 3 points"),
        (element("polygon", label="cup"), r"every polygon has fewer than 3 points"),
        (element("polygon", label="plate", points="1,2;3,4;5,2"), r"its class 'plate' is not one of the 2 classes"),
        (element("polygon", points="1,2;3,4;5,2"), r"its class None is not one of the 2 classes"),
        (polygon(2, 1, 6, 4, z_order="top"), r"z_order of a polygon must be a number, got 'top'"),
        (element("box", label="cup", xtl=1, ytl=2, xbr=3), r"ybr of a box must be a number, got None"),
        (
            element("mask", label="cup", rle="1,2", left=0, top=0, width=2, height=2),
            r"sum to 3, its box has 2 x 2 pixels",
        ),
        (
            element("mask", label="cup", rle="", left=0, top=0, width=2, height=2),
            r"its rle must be whole numbers, got ''",
        ),
        (element("mask", label="cup", rle="4,-4", left=0, top=0, width=0, height=2), r"its box has 0 x 2 pixels"),
        (
            element("mask", label="cup", rle="8,-4", left=0, top=0, width=2, height=2),
            r"its rle is negative: -4",
        ),
        (element("mask", label="cup", rle="1", left=0, top=0, width=9e9, height=9e9), r"its box has 9000000000 x"),
        (
            element("polygon", label="cup", occluded="maybe", points="1,2;3,4;5,2"),
            r"occluded must be 0, 1, false or true",
        ),
    ],
)
def test_malformed_shapes(cvat, broken, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"cvat:{cvat(broken)}")


def test_malformed_files(cvat, write):
    with pytest.raises(ValueError, match="height and width are 0 and 12"):
        load_dataset(f"cvat:{cvat(image=NO_HEIGHT)}")
    path = write("b.xml", "<annotations>") / "b.xml"
    with pytest.raises(ValueError, match=r"b.xml is not XML"):
        load_dataset(f"cvat:{path}")
    write("b.xml", "<annotation/>")
    with pytest.raises(ValueError, match="its root is <annotation>, not <annotations>"):
        load_dataset(f"cvat:{path}")
    write("b.xml", "<annotations><track/></annotations>")
    with pytest.raises(ValueError, match="is of CVAT for video"):
        load_dataset(f"cvat:{path}")
    write("b.xml", "<annotations><image/></annotations>")
    with pytest.raises(ValueError, match="an image must have a name"):
        load_dataset(f"cvat:{path}")
