"""The panels of both layers and the sheets of heat maps."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mask_layers import two_layers

from bcnet.maps import PUBLISHED_MAPS
from bcnet.structures import Detections, InstanceMasks, Targets
from bcnet.visualization import detections_from_targets, draw_detections, draw_heat_maps, draw_layers, style
from bcnet.visualization.duplicates import near_identical
from bcnet.visualization.heat_maps import COLORMAP, _columns, _roi_crop
from bcnet.visualization.layers import layer_panels
from bcnet.visualization.overlay import scene_of
from bcnet.visualization.sheet import GAP, NARROWEST, Panel, sheet
from bcnet.visualization.style import SMALLEST_FONT, instance_color

MAPS = tuple(spec.name for spec in reversed(PUBLISHED_MAPS))


def detections(count=1, maps=MAPS, image_size=(100, 120), side=4):
    boxes = torch.tensor([[20.0, 20.0, 80.0, 80.0]]).repeat(count, 1)
    values = {name: torch.zeros(count, side, side) for name in maps}
    return Detections(
        image_size, boxes, torch.ones(count), torch.zeros(count, dtype=torch.int64), values, class_names=("cat",)
    )


def image(height=100, width=120):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def panels_of(found, **options):
    """The pictures of a sheet of one row, without titles and gaps."""
    picture = draw_layers(image(), found, columns=9, keep_places=True, **options)
    count = (picture.shape[1] + GAP) // (120 + GAP)
    return [picture[-100:, i * (120 + GAP) : i * (120 + GAP) + 120] for i in range(count)]


def test_an_empty_layer_has_a_sentence_instead_of_a_panel():
    found = detections()
    found.occludee_mask[:] = 1
    two = draw_layers(image(), found)
    assert two.shape[1] == 2 * 120 + GAP  # detections and occludee layer
    assert (two[-30:] != 255).any()  # the sentence, below them
    found.occluder_mask[:] = 1
    three = draw_layers(image(), found)
    assert three.shape[1] == 3 * 120 + 2 * GAP and len(panels_of(found)) == 3
    assert all((three[-20:, start : start + 120] != 255).any() for start in (0, 132, 264))  # no place is free


def test_panels_of_videos_keep_their_places():
    found = detections()
    found.occludee_mask[:] = 1
    empty = draw_layers(image(), found, keep_places=True)
    found.occluder_mask[:] = 1
    full = draw_layers(image(), found, keep_places=True)
    assert abs(empty.shape[0] - full.shape[0]) < 100 and empty.shape[1] == full.shape[1]


def test_three_panels_stand_in_a_row_and_sentences_below_or_in_the_free_place():
    white, black = (np.full((50, 240, 3), value, np.uint8) for value in (250, 0))
    panels = [
        Panel(black, "a", "one two three four five six"),
        Panel(white, "b"),
        Panel(None, "c", "nothing"),
        Panel(black, "d"),
    ]
    picture = sheet(panels)
    assert picture.shape[1] == 3 * 240 + 2 * GAP
    assert (picture[:, 2 * (240 + GAP) :] == 0).all(axis=(1, 2)).sum() == 50  # the third picture in the same row
    assert (picture[-30:, :240] < 100).any()  # the sentence below
    picture = sheet([*panels, Panel(black, "e"), Panel(white, "f")], columns=3)
    assert picture.shape[1] == 3 * 240 + 2 * GAP and (picture[-50:, 2 * (240 + GAP) :] < 100).any()  # beside the last
    legend = [((200, 30, 40), "red"), ((30, 200, 40), "green")]
    with_legend = sheet([Panel(black, "a", legend=legend)])
    assert (with_legend == (200, 30, 40)).all(axis=2).any() and (with_legend == (30, 200, 40)).all(axis=2).any()
    assert with_legend.shape[0] > sheet([Panel(black, "a")]).shape[0]
    with pytest.raises(ValueError, match="first panel"):
        sheet(panels[2:])


def test_titles_of_a_narrow_picture_are_whole():
    black = np.zeros((50, 40, 3), np.uint8)
    panels = [Panel(black, "Detections", "no object"), Panel(None, "Occluder layer", "empty: there is no object")]
    narrow, wide = (
        sheet(panels, columns=1),
        sheet([replace(panels[0], picture=np.pad(black, ((0, 0), (0, 260), (0, 0))))]),
    )
    assert narrow.shape[1] == NARROWEST * SMALLEST_FONT
    head = wide.shape[0] - 50
    assert np.array_equal(narrow[:head, :117], wide[:head, :117])  # the same texts, not shortened
    picture = narrow[head : head + 50]
    assert (picture[:, :40] == 0).all() and (picture[:, 40:] == 255).all()


def test_the_image_is_resized_once_for_all_panels(monkeypatch):
    sizes = []
    resize = cv2.resize
    monkeypatch.setattr(
        cv2, "resize", lambda image, size, **options: sizes.append(size) or resize(image, size, **options)
    )
    draw_layers(image(), detections(), long_side=360)
    assert sizes == [(360, 300)]


def test_occluder_is_striped_in_the_colour_of_what_it_covers():
    found = detections(2)
    found.occluder_mask[1, :, :2] = 1
    found.occludee_mask[1] = 1  # otherwise the two are one to the eye
    _, occluder, _ = panels_of(found)
    inside = occluder[30:70, 25:45].reshape(-1, 3).astype(int)
    faded = occluder[5, 5].astype(int)
    striped = np.round(0.2 * faded + 0.8 * np.array(instance_color(1)))
    shades = {tuple(color) for color in inside.tolist()}
    assert {tuple(faded.tolist()), tuple(striped.astype(int).tolist())} <= shades
    assert (occluder[30:70, 60:75] == faded).all()  # the other half of the box


def test_boundaries_are_bright():
    found = detections()
    without = detections()
    for both in (found, without):
        both.occludee_mask[:] = 1
    found.occludee_boundary[:, 1:3, 1:3] = 1
    bright = panels_of(found)[2]
    assert bright[50, 50].mean() > panels_of(without)[2][50, 50].mean() + 20


def test_amodal_panel_fills_the_visible_part_and_hatches_the_hidden_one():
    found = detections(maps=("occludee_mask", "occludee_amodal"))
    found.maps["occludee_mask"][:, :, :2] = 1
    found.maps["occludee_amodal"][:] = 1
    panels = panels_of(found)
    inside = panels[1][40:70]  # instead of the occludee layer
    faded = inside[0, 5].astype(int)
    filled = np.round(0.4 * faded + 0.6 * np.array(instance_color(0))).astype(int)
    hatched = np.round(0.1 * faded + 0.9 * np.array(instance_color(0))).astype(int)
    assert {tuple(color) for color in inside[:, 25:45].reshape(-1, 3).tolist()} == {tuple(filled)}
    assert {tuple(color) for color in inside[:, 55:75].reshape(-1, 3).tolist()} == {tuple(hatched), tuple(faded)}
    assert (inside[:, 90:] == faded).all()  # outside the amodal mask


def test_heat_maps_of_a_layer_lie_side_by_side():
    found = detections(maps=(*MAPS, "occludee_amodal"))
    assert [spec.name for spec in _columns(found)] == [*MAPS[:2], "occludee_amodal", *MAPS[2:]]
    assert [spec.name for spec in _columns(detections())] == list(MAPS)


def test_targets_have_an_amodal_panel_where_the_masks_have_the_layer():
    mask = torch.zeros(1, 20, 20)
    mask[0, 5:15, 5:15] = 1
    boxes, classes = torch.tensor([[5.0, 5.0, 15.0, 15.0]]), torch.tensor([0])
    layers = {"occludee": mask, "occluder": torch.zeros_like(mask)}
    shown = detections_from_targets(Targets(boxes, classes, InstanceMasks.from_full(layers)), (20, 20))
    assert "occludee_amodal" not in shown.maps and len(shown.maps) == 4
    masks = InstanceMasks.from_full({**layers, "amodal": mask})
    assert detections_from_targets(Targets(boxes, classes, masks), (20, 20)).occluded_fraction.tolist() == [0]


def test_layers_that_are_absent_have_no_panel():
    found = detections(maps=("occludee_mask",))
    found.occludee_mask[:] = 1
    assert draw_layers(image(), found).shape[1] == 2 * 120 + GAP
    assert draw_layers(image(), detections(maps=())).shape[1] == 120
    assert draw_heat_maps(image(), detections(maps=())) == []
    assert layer_panels(image(), detections(maps=()))["detections"].explanation == "1 object: boxes, classes and scores"
    assert layer_panels(image(), found)["detections"].explanation == "1 object: masks, classes and scores"


def test_nothing_detected():
    assert draw_layers(image(), detections(0)).shape[1] == 120
    assert draw_layers(image(), detections(0, maps=())).shape[0] < draw_layers(image(), detections(0)).shape[0]
    assert draw_heat_maps(image(), detections(0)) == []


def test_heat_maps_show_the_values_in_order():
    found = detections(side=2)
    for index, name in enumerate(MAPS):
        getattr(found, name)[0] = torch.tensor([[index / 4, 1.0], [0.0, 0.5]])
    (sheet,) = draw_heat_maps(image(), found, cell=100)
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], COLORMAP)[0, :, ::-1]
    top = next(y for y in range(sheet.shape[0]) if (sheet[y : y + 40, 118 + 52 : 118 + 98] == colors[255]).all())
    for index in range(4):
        x = 12 + (index + 1) * 104
        assert (sheet[top + 5 : top + 45, x + 5 : x + 45] == colors[round(index / 4 * 255)]).all(), MAPS[index]
        assert (sheet[top + 5 : top + 45, x + 55 : x + 95] == colors[255]).all()
        assert (sheet[top + 55 : top + 95, x + 55 : x + 95] == colors[round(0.5 * 255)]).all()


def test_many_detections_fill_sheets():
    found = detections(11)
    one, two = draw_heat_maps(image(), found, cell=60, rows=4)
    assert one.shape[1] == two.shape[1] > draw_heat_maps(image(), found[:1], cell=60)[0].shape[1]
    assert two.shape[0] < one.shape[0]  # three detections are left: two rows


@pytest.mark.parametrize(
    "maps, titles",
    [
        (MAPS, ["Occluder layer: occluder", "Occludee layer: instance"]),
        (("occluder_mask", "occludee_boundary", "occludee_mask"), ["Occluder layer", "Occludee layer: instance"]),
        (("occludee_mask",), ["Occludee layer"]),
    ],
)
def test_the_title_of_a_layer_is_no_wider_than_its_maps(maps, titles, monkeypatch):
    texts = []
    drawn = style.draw_texts
    monkeypatch.setattr(
        style, "draw_texts", lambda picture, found, *a, **kw: texts.extend(found) or drawn(picture, found, *a, **kw)
    )
    (sheet,) = draw_heat_maps(image(), detections(maps=maps))
    found = [(x, text) for x, _, text, _ in texts if "layer" in text]
    assert [text for _, text in found] == titles
    ends = [x for x, _ in found[1:]] + [sheet.shape[1]]
    assert all(x + style.text_size(text, 14, bold=True)[0] <= end for (x, text), end in zip(found, ends, strict=True))


def test_plain_head_has_one_heat_map():
    wide = draw_heat_maps(image(), detections(), cell=60)[0].shape[1]
    narrow = draw_heat_maps(image(), detections(maps=("occludee_mask",)), cell=60)[0].shape[1]
    assert narrow == wide - 3 * 64


def test_roi_crop_is_the_box():
    picture = np.zeros((10, 10, 3), dtype=np.uint8)
    picture[2:6, 4:8] = 200
    assert (_roi_crop(picture, [4, 2, 8, 6], 4) == 200).all()
    half = _roi_crop(picture, [0, 2, 8, 6], 8)[3:5]  # twice as high; the first and last rows are mixed
    assert (half[:, 4:] == 200).all() and not half[:, :4].any()


def test_targets_become_perfect_detections():
    occludee = torch.zeros(1, 40, 40, dtype=torch.uint8)
    occludee[:, 4:32, 4:32] = 1
    occluder = torch.zeros_like(occludee)
    occluder[:, 18:32, 4:32] = 1
    targets = Targets(
        torch.tensor([[4.0, 4.0, 32.0, 32.0]]),
        torch.tensor([1]),
        two_layers(occludee, occluder),
    )
    found = detections_from_targets(targets, (40, 40), ("bat", "cat"))
    assert found.occludee_mask.shape == (1, 28, 28)
    assert (found.masks[0] == occludee[0].bool()).all()
    assert (found.occluder_masks[0] == occluder[0].bool()).all()
    # The edge between dilation and erosion: one row on each side.
    assert found.occluder_boundary[0].sum(dim=1).nonzero().flatten().tolist() == [13, 14]
    assert found.occludee_boundary.sum() == 0  # it fills its box
    empty = detections_from_targets(targets[:0], (40, 40))
    assert len(empty) == 0


def test_targets_are_shown_in_the_roi_that_the_mask_head_sees():
    occludee, amodal = torch.zeros(2, 1, 40, 40, dtype=torch.uint8)
    occludee[:, 10:30, 10:30] = 1
    amodal[:, 10:30, 10:34] = 1  # the hidden part lies beyond the visible box
    masks = InstanceMasks.from_full({"occludee": occludee, "occluder": torch.zeros_like(occludee), "amodal": amodal})
    targets = Targets(torch.tensor([[10.0, 10.0, 30.0, 30.0]]), torch.tensor([0]), masks)
    in_box, in_roi = (detections_from_targets(targets, (40, 40), roi_scale=scale) for scale in (1.0, 1.4))
    assert in_roi.map_boxes.tolist() == [[6, 6, 34, 34]]
    assert (in_box.masks == in_roi.masks).all() and (in_roi.masks[0] == occludee[0].bool()).all()
    assert (in_box.hidden_masks.sum(), in_roi.hidden_masks.sum()) == (0, 20 * 4)


def test_wrong_image_size():
    with pytest.raises(ValueError, match="rescaled"):
        draw_layers(image(50, 50), detections())
    with pytest.raises(ValueError, match="rescaled"):
        draw_heat_maps(image(50, 50), detections())


def test_near_identical_detections_are_drawn_once_with_both_labels():
    found = replace(detections(3), classes=torch.tensor([0, 1, 0]), class_names=("cat", "dog"))
    found.occludee_mask[0, :, :2] = found.occludee_mask[1, :, :2] = found.occludee_mask[2, :, 2:] = 1
    assert near_identical(found) == [[0, 1], [2]]  # the third has the same box and other pixels
    scene = scene_of(image(), found, long_side=None, numbered=True, scores=False)
    assert scene.names == ["#1 cat = #2 dog", "#3 cat"] and scene.merged == 1
    assert scene.colors == [instance_color(0), instance_color(2)]
    found.boxes[1, 2] -= 12
    assert near_identical(found) == [[0], [1], [2]]
    assert near_identical(found[:0]) == []
    assert near_identical(replace(detections(2, maps=()))) == [[0, 1]]


def test_hidden_parts_are_hatched_in_the_plain_picture_too():
    found = detections(maps=("occludee_mask", "occludee_amodal"))
    found.maps["occludee_mask"][:, :, :2] = 1
    found.maps["occludee_amodal"][:] = 1
    drawn = draw_detections(image(), found, labels=False, boxes=False)
    hidden = drawn[30:70, 55:74].reshape(-1, 3)
    untouched = (hidden == 128).all(axis=1).mean()
    assert 0.4 < untouched < 0.9  # lines, and the image between them
    assert not (drawn[30:70, 25:45] == 128).all(axis=2).any()  # the visible part is filled
