"""Reader of labelme: hand-made files with the keys that labelme writes."""

import base64
import io
import math

import numpy as np
import pytest
from importer_samples import box_mask, masks, read_one, same
from PIL import Image

from bcnet.data import load_dataset
from bcnet.data.inputs import find_images

SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4]]


def shape(points=SQUARE, label="cup", **changes):
    return {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}} | changes


def content(*shapes, image="a.png", height=10, width=12, **changes):
    sizes = {"imageHeight": height, "imageWidth": width}
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None} | sizes | changes


def png(mask):
    file = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=bool)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_polygons_keep_their_vertices_and_overlap(write):
    other = [[4, 2], [9, 2], [9, 8], [4, 8]]
    write("a.png", (10, 12))
    folder = write("a.json", content(shape(), shape(other, "bowl")))
    record, info = read_one(f"labelme:{folder}")
    assert [instance.segmentation for instance in record.instances] == [
        [[2, 1, 6, 1, 6, 4, 2, 4]],
        [[4, 2, 9, 2, 9, 8, 4, 8]],
    ]
    assert [instance.bbox for instance in record.instances] == [[2, 1, 4, 3], [4, 2, 5, 6]]
    assert info.class_names == ("bowl", "cup") and [i.category for i in record.instances] == [1, 0]
    assert record.in_front is None  # the order of shapes is no depth
    assert record.file_name == f"{folder}/a.png" and (record.height, record.width) == (10, 12)
    assert record.instances[0].annotation_id == "a.json shape 1"


def test_later_shapes_lie_in_front_where_asked_for(write):
    write("a.png", (10, 12))
    folder = write(
        "a.json", content(shape(group_id=1), shape(label="bowl"), shape([[8, 8], [9, 8], [9, 9]], group_id=1))
    )
    record, _ = read_one(f"labelme_ordered:{folder}")
    # The cup's second part is the last shape: all of the cup lies in front.
    assert record.in_front == [(1, 0)]


def test_shapes_of_a_group_and_label_are_one_object(write):
    far = [[8, 6], [11, 6], [11, 9], [8, 9]]
    write("a.png", (10, 12))
    shapes = [shape(group_id=3), shape(far, group_id=3), shape(far, "bowl", group_id=3), shape(far)]
    record, _ = read_one(f"labelme:{write('a.json', content(*shapes))}")
    assert [len(instance.segmentation) for instance in record.instances] == [2, 1, 1]
    assert same(masks(record)[:1], [box_mask((10, 12), 2, 1, 6, 4) | box_mask((10, 12), 8, 6, 11, 9)])


def test_rectangles_circles_and_masks(write):
    write("a.png", (40, 40))
    ell = [[1, 1, 1], [1, 0, 0]]
    shapes = [
        shape([[6, 4], [2, 1]], shape_type="rectangle"),  # corners in any order
        shape([[20, 20], [26, 28]], shape_type="circle"),  # centre, and a point of the circle
        shape([[30, 3], [32, 4]], shape_type="mask", mask=png(ell)),
    ]
    record, _ = read_one(f"labelme:{write('a.json', content(*shapes, height=40, width=40))}")
    rectangle, circle, mask = masks(record)
    assert np.array_equal(rectangle, box_mask((40, 40), 2, 1, 6, 4))
    ys, xs = np.mgrid[:40, :40] + 0.5
    distance = np.hypot(xs - 20, ys - 20)
    assert circle[distance < 9.5].all() and not circle[distance > 10.5].any()
    assert circle.sum() == pytest.approx(math.pi * 100, rel=0.02)
    expected = np.zeros((40, 40), dtype=bool)
    expected[3:5, 30:33] = ell
    assert np.array_equal(mask, expected)


def test_a_circle_far_beyond_the_image_is_an_error(write):
    write("a.png", (40, 40))
    folder = write("a.json", content(shape([[-1e30, 6], [8, 6]], shape_type="circle"), height=40, width=40))
    with pytest.raises(ValueError, match=r"'a.json shape 1': .* has the coordinate"):
        load_dataset(f"labelme:{folder}")


def test_a_group_of_a_polygon_and_a_mask_is_their_union(write):
    write("a.png", (10, 12))
    shapes = [shape(group_id=0), shape([[8, 6], [9, 7]], shape_type="mask", mask=png([[1, 1], [1, 1]]), group_id=0)]
    record, _ = read_one(f"labelme:{write('a.json', content(*shapes))}")
    assert same(masks(record), [box_mask((10, 12), 2, 1, 6, 4) | box_mask((10, 12), 8, 6, 10, 8)])


def test_classes_of_labels_txt_are_in_its_order(write):
    write("labels.txt", "__ignore__\n_background_\nspoon\ncup\n")
    write("train/a.png", (10, 12))
    folder = write("train/a.json", content(shape(), shape(label="__ignore__")))
    record, info = read_one(f"labelme:{folder}/train")
    assert info.class_names == ("spoon", "cup") and len(record.instances) == 1
    write("train/a.json", content(shape(label="spon")))
    with pytest.raises(
        ValueError, match=r"'a.json shape 1': its class 'spon' is not one of the 2 classes; the nearest is 'spoon'"
    ):
        load_dataset(f"labelme:{folder}/train")


def test_images_are_found_by_place_name_and_folder(write, tmp_path):
    write("photos/b.png", (10, 12))
    write("json/sub/a.json", content(shape(), image="..\\..\\photos\\b.png"))  # as on Windows
    record, _ = read_one(f"labelme:{tmp_path}/json")
    assert find_images([f"labelme:{tmp_path}/json"]) == [record.file_name]
    write("json/sub/a.json", content(shape(), image="C:\\photos\\b.png"))
    record, _ = read_one(f"labelme:{tmp_path}/json:{tmp_path}/photos")
    assert record.file_name == f"{tmp_path}/photos/b.png"
    write("json/sub/a.jpg", (10, 12))  # beside the json, of its name
    record, _ = read_one(f"labelme:{tmp_path}/json")
    assert record.file_name == f"{tmp_path}/json/sub/a.jpg"


def test_a_missing_image_is_counted_and_embedded_pixels_are_named(write, caplog):
    folder = write("a.json", content(shape(), image="gone.png", imageData="iVBORw0KGgo="))
    read_one(f"labelme:{folder}")
    assert "1 images that were not found (a.json)" in caplog.text


def test_sides_that_the_json_lacks_are_the_image_s_after_exif_orientation(write):
    exif = Image.Exif()
    exif[0x0112] = 6
    write("a.jpg", (10, 12), exif=exif.tobytes())
    record, _ = read_one(f"labelme:{write('a.json', content(shape(), image='a.jpg', height=None, width=None))}")
    assert (record.height, record.width) == (12, 10)


def test_oriented_rectangles_are_polygons(write):
    write("a.png", (10, 12))
    turned = [[4, 1], [7, 4], [5, 6], [2, 3]]
    shapes = [shape(turned, shape_type=kind) for kind in ("oriented_rectangle", "rotation")]
    record, _ = read_one(f"labelme:{write('a.json', content(*shapes))}")
    assert [instance.segmentation for instance in record.instances] == [[[4, 1, 7, 4, 5, 6, 2, 3]]] * 2


def test_images_without_a_json_are_counted(write, caplog):
    write("a.png", (10, 12))
    write("sub/b.png", (10, 12))
    read_one(f"labelme:{write('a.json', content(shape()))}")
    assert "1 images without a json, left out (sub/b.png)" in caplog.text


def test_jsons_of_an_image_folder_are_not_read_and_counted(write, caplog, tmp_path):
    write("b/a.png", (10, 12))
    write("b/a.json", content(shape()))
    write("a/a.json", content(shape()))
    read_one(f"labelme:{tmp_path}/a:{tmp_path}/b")
    assert "1 json files in the image folder, not read (a.json)" in caplog.text


def test_two_jsons_of_an_image(write):
    write("a.png", (10, 12))
    write("a.json", content(shape()))
    with pytest.raises(ValueError, match=r"b.json: its image 'a.png' is that of a.json too"):
        load_dataset(f"labelme:{write('b.json', content(shape()))}")


def test_occluded_and_what_has_no_area(write, caplog):
    write("a.png", (10, 12))
    shapes = [shape(flags={"occluded": True}), shape([[1, 1]], shape_type="point"), shape(flags={"hard": True})]
    record, _ = read_one(f"labelme:{write('a.json', content(*shapes))}")
    assert [instance.occluded for instance in record.instances] == [True, None]
    assert "1 points and lines, which have no area, dropped (a.json shape 2)" in caplog.text


@pytest.mark.parametrize(
    "broken, message",
    [
        (shape([[1, 2], [3, 4]]), r"'a.json shape 1': every polygon has fewer than 3 points"),
        (
            shape([[1, 2], [3, "4"], [5, 6]]),
            r"points must be a list of pairs of finite numbers, got \[\[1, 2\], \[3, '4'\]",
        ),
        (shape(shape_type="cube"), r"its shape_type is 'cube'; known are polygon, oriented_rectangle"),
        (shape(label=""), r"'a.json shape 1': the name of its class is empty"),
        (shape(label=7), r"its label must be a text, got 7"),
        ({"points": SQUARE}, r"it has no label"),
        ("shape", r"it must be an object with label, points, got 'shape'"),
        (shape([[1, 1]], shape_type="rectangle"), r"a rectangle has two points, got \[\[1, 1\]\]"),
        (shape([[1, 1], [2, 2]], shape_type="mask", mask="???"), r"its mask is not a PNG in base64"),
        (shape([[1, 1], [2, 2]], shape_type="mask", mask=None), r"its mask is not a PNG in base64"),
        (
            shape([[1, 1], [2, 2]], shape_type="mask", mask=png(np.ones((3, 2)))),
            r"its mask is 2 x 3 pixels, its points \[\[1, 1\], \[2, 2\]\] span 2 x 2",
        ),
        (
            shape([[20, 20], [30, 20], [30, 30]]),
            r"its mask spans x 20..30 and y 20..30, outside its image 1 of 12 x 10",
        ),
    ],
)
def test_malformed_shapes(write, broken, message):
    write("a.png", (10, 12))
    folder = write("a.json", content(broken, shape()))
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(f"labelme:{folder}")
    assert f"{folder} is malformed" in str(error.value)


def test_malformed_files(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no json files of labelme"):
        load_dataset(f"labelme:{tmp_path}/empty")
    write("a.json", "{")
    write("b.json", {"images": []})
    write("c.json", content(shape(), height="10"))
    with pytest.raises(ValueError, match="is malformed") as error:
        load_dataset(f"labelme:{tmp_path}")
    text = str(error.value)
    assert (
        "a.json is not valid JSON" in text and "b.json: it is not a file of labelme: it has no list of shapes" in text
    )
    assert "c.json: height and width are '10' and 12" in text
    write("a.json", content())
    (tmp_path / "b.json").unlink()
    (tmp_path / "c.json").unlink()
    with pytest.raises(ValueError, match="has no annotations, and nothing names classes"):
        load_dataset(f"labelme:{tmp_path}")
