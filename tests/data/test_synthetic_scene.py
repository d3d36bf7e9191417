"""Synthetic scenes: exactness of the ground truth, determinism, disjoint pools, amount of occlusion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcnet.data.synthetic import CLASS_NAMES, SceneConfig, render_scene
from bcnet.data.synthetic import scene as scene_module
from bcnet.data.synthetic.composition import Layout, Placed, finish, paint
from bcnet.data.synthetic.config import pool_members
from bcnet.data.synthetic.shapes import NUM_VARIANTS, draw_shape
from bcnet.data.synthetic.textures import KINDS, NUM_TEXTURES, colour_field, texture, texture_field


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return (
        int(columns.min()),
        int(rows.min()),
        int(columns.max() - columns.min() + 1),
        int(rows.max() - rows.min() + 1),
    )


def assert_exact(scene, config: SceneConfig) -> None:
    """Invariants of the ground truth of any scene."""
    size = config.image_size
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    in_front = np.zeros((size, size), bool)
    for depth, thing in enumerate(scene.objects):
        assert thing.depth == depth
        assert thing.amodal_mask.shape == thing.visible_mask.shape == (size, size)
        np.testing.assert_array_equal(thing.visible_mask, thing.amodal_mask & ~in_front)
        assert thing.visible_area == thing.visible_mask.sum() >= config.min_visible_pixels
        assert thing.amodal_area == thing.amodal_mask.sum()
        assert thing.bbox == tight_box(thing.visible_mask)
        assert thing.amodal_bbox == tight_box(thing.amodal_mask)
        assert thing.hidden_fraction == 1 - thing.visible_mask.sum() / thing.amodal_mask.sum()
        assert thing.hidden_fraction <= config.max_hidden_fraction
        in_front |= thing.amodal_mask
    visible = [thing.visible_mask for thing in scene.objects]
    assert np.sum(visible, axis=0).max() <= 1  # disjoint


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
    preset=st.sampled_from(["easy", "medium", "hard"]),
    size=st.sampled_from([64, 97, 192]),
    max_hidden=st.floats(0.0, 0.9),
)
def test_ground_truth_is_exact(seed, index, preset, size, max_hidden):
    config = SceneConfig.preset(preset, image_size=size, max_hidden_fraction=max_hidden, min_visible_pixels=40)
    scene = render_scene(config, seed, index)
    assert_exact(scene, config)
    assert 1 <= len(scene.objects) <= config.max_objects
    assert {thing.category_id for thing in scene.objects} <= set(range(1, len(CLASS_NAMES) + 1))


def test_the_arguments_determine_the_scene():
    config = SceneConfig(image_size=96)
    first = render_scene(config, 3, 7)
    np.testing.assert_array_equal(first.image, render_scene(config, 3, 7).image)
    for other in (render_scene(config, 3, 8), render_scene(config, 4, 7), render_scene(config, 3, 7, split="val")):
        assert (first.image != other.image).any()
        assert [t.bbox for t in first.objects] != [t.bbox for t in other.objects]


def test_textures_do_not_affect_the_layout():
    first = render_scene(SceneConfig(image_size=96, texture_pool="train"), 0, 1)
    other = render_scene(SceneConfig(image_size=96, texture_pool="test"), 0, 1)
    assert (first.image != other.image).any()
    for a, b in zip(first.objects, other.objects, strict=True):
        np.testing.assert_array_equal(a.visible_mask, b.visible_mask)


def test_pools_are_disjoint_and_complete():
    for size in (NUM_VARIANTS, NUM_TEXTURES):
        train, test = pool_members("train", size), pool_members("test", size)
        assert sorted(train + test) == pool_members("all", size) == list(range(size))
        assert len(train) == 3 * len(test)
    for pool in ("train", "test"):
        assert {texture(variant).kind for variant in pool_members(pool, NUM_TEXTURES)} == set(KINDS)


@pytest.mark.parametrize("pool", ["train", "test"])
@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_scenes_use_only_their_pools(monkeypatch, pool, preset):
    shapes, textures = set(), set()

    def spy_shape(family, variant, *args):
        shapes.add(variant)
        return draw_shape(family, variant, *args)

    def spy_texture(variant):
        textures.add(variant)
        return texture(variant)

    monkeypatch.setattr(scene_module, "draw_shape", spy_shape)
    monkeypatch.setattr(scene_module, "texture", spy_texture)
    config = SceneConfig.preset(preset, image_size=64, min_visible_pixels=30, texture_pool=pool, shape_pool=pool)
    for index in range(12):
        render_scene(config, 0, index)
    assert shapes and shapes <= set(pool_members(pool, NUM_VARIANTS))
    assert textures and textures <= set(pool_members(pool, NUM_TEXTURES))


def test_occlusion_statistics_of_hard_scenes():
    config = SceneConfig()
    layouts = [scene_module.arrange(config, scene_module.scene_generators(0, i, "train")[0]) for i in range(250)]
    things = [thing for layout in layouts for thing in layout.objects]
    hidden = np.array([thing.hidden_fraction for thing in things])
    assert 0.2 < hidden.mean() < 0.33
    assert (hidden > 0).mean() > 0.6
    same_class = [
        front.category_id == back.category_id
        for layout in layouts
        for back in layout.objects
        for front in layout.objects[: back.depth]
        if (front.amodal_mask & back.amodal_mask).any()
    ]
    assert 0.4 < np.mean(same_class) < 0.6
    assert np.mean([len(layout.objects) for layout in layouts]) == pytest.approx(4.5, abs=0.3)


def square(side: int) -> np.ndarray:
    return np.full((side, side), 255, np.uint8)


def test_layout_aims_at_the_hidden_fraction():
    config = SceneConfig(hidden_range=(0.4, 0.4), min_visible_pixels=1)
    for seed in range(10):
        layout = Layout(config)
        rng = np.random.default_rng(seed)
        assert layout.place(1, square(60), None, rng)
        assert layout.place(2, square(60), layout.placed[0], rng)
        assert layout.objects[0].hidden_fraction == 0
        assert layout.objects[1].hidden_fraction == pytest.approx(0.4, abs=0.1)


def test_layout_rejects_objects_that_would_be_too_small():
    layout = Layout(SceneConfig(min_visible_pixels=101))
    assert not layout.place(1, square(10), None, np.random.default_rng(0))
    assert layout.objects == [] and layout.placed == []


def test_paint_covers_exactly_the_window_in_the_image():
    canvas = np.zeros((8, 8, 3), np.float32)
    paint(canvas, Placed(1, square(4), -2, 6), np.full((4, 4, 3), 200, np.float32), shadow=0.0)
    expected = np.zeros((8, 8))
    expected[6:8, 0:2] = 200
    for channel in range(3):
        np.testing.assert_allclose(canvas[..., channel], expected, atol=0.01)


def test_shadow_falls_outside_the_object_only():
    canvas = np.full((64, 64, 3), 100, np.float32)
    paint(canvas, Placed(1, square(20), 20, 20), np.full((20, 20, 3), 200, np.float32), shadow=0.5)
    np.testing.assert_allclose(canvas[20:40, 20:40], 200, atol=0.01)
    assert 45 < canvas[41, 30, 0] < 90 and canvas[5, 5, 0] == 100


def test_finish_rounds_and_saturates():
    canvas = np.array([[[-3.0, 12.6, 300.0]]], np.float32)
    np.testing.assert_array_equal(finish(canvas, 0, np.random.default_rng(0)), [[[0, 13, 255]]])
    noisy = finish(np.full((50, 50, 3), 100, np.float32), 5, np.random.default_rng(0))
    assert noisy.min() == 95 and noisy.max() == 105


@pytest.mark.parametrize("family", CLASS_NAMES)
def test_every_prototype_fills_its_window(family):
    for variant in range(NUM_VARIANTS):
        coverage = draw_shape(family, variant, 60.0, 1.0, np.random.default_rng(variant))
        assert coverage.dtype == np.uint8 and max(coverage.shape) in (60, 61)
        for edge in (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]):
            assert edge.any()
        assert (coverage >= 128).sum() > 300
        assert ((coverage > 0) & (coverage < 255)).any()  # an anti-aliased edge


@pytest.mark.parametrize("variant", range(0, NUM_TEXTURES, 4))
def test_texture_fields(variant):
    field = texture_field(texture(variant), 31, 50, 96, np.random.default_rng(0))
    assert field.shape == (31, 50) and field.dtype == np.float32
    assert field.min() >= 0 and field.max() <= 1 and field.std() > 0.02


def test_colour_field_looks_the_ramp_up():
    colours = np.array([[0.0, 0.0, 0.0], [255.0, 100.0, 0.0]])
    field = np.array([[0.0, 1.0]], np.float32)
    np.testing.assert_allclose(colour_field(field, colours, 1.0), [[[0, 0, 0], [255, 100, 0]]])
    np.testing.assert_allclose(colour_field(field, colours, 0.0), [[[127.5, 50, 0], [127.5, 50, 0]]])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 10),
        ("image_size", 192.5),
        ("min_objects", 0),
        ("max_objects", 2),
        ("object_size", (0.5, 0.2)),
        ("hidden_range", (0.2,)),
        ("max_hidden_fraction", 1.0),
        ("min_visible_pixels", 0),
        ("same_class_probability", 1.5),
        ("texture_pool", "validation"),
        ("image_format", "gif"),
        ("noise", -1),
    ],
)
def test_config_names_the_bad_value(field, value):
    with pytest.raises(ValueError, match=f"SceneConfig.{field} is .*must be"):
        SceneConfig(**{field: value})


def test_config_round_trip_and_presets():
    easy = SceneConfig.preset("easy", image_size=64)
    assert SceneConfig(**easy.to_dict()) == easy
    assert SceneConfig.preset("hard") == SceneConfig()
    assert set(easy.to_dict()) == {field.name for field in dataclasses.fields(SceneConfig)}
    with pytest.raises(ValueError, match="no preset 'hardest'; there are: hard, medium, easy"):
        SceneConfig.preset("hardest")
