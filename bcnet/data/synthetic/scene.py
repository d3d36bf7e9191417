"""Procedural scenes: textured and shaded shapes of several classes, stacked in depth."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bcnet.data.synthetic.composition import Layout, Placed, Scene, finish, paint
from bcnet.data.synthetic.config import SceneConfig, pool_members
from bcnet.data.synthetic.shapes import CLASS_NAMES, NUM_VARIANTS, draw_shape
from bcnet.data.synthetic.textures import (
    NUM_TEXTURES,
    class_palette,
    colour_field,
    make_palette,
    neutral_palette,
    texture,
    texture_field,
)

_TRIES_PER_OBJECT = 3


@dataclass(frozen=True)
class Appearance:
    """Texture and colours of an object."""

    texture_variant: int
    colours: np.ndarray  # float [n, 3] RGB


def scene_generators(seed: int, index: int, split: str) -> tuple[np.random.Generator, np.random.Generator]:
    """Random generators of one scene: one for the layout, one for the appearance.

    They depend only on the arguments. The split is one of them, so that a training set and a test set of one seed have
    no scene in common; the layout has its own generator, so that the same layouts can be drawn with other textures.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index])
    layout, appearance = sequence.spawn(2)
    return np.random.default_rng(layout), np.random.default_rng(appearance)


def render_scene(config: SceneConfig, seed: int, index: int, split: str = "train") -> Scene:
    """Renders the scene of an index.

    Category ids are 1..6 in the order of `CLASS_NAMES`.

    Args:
        config: parameters of the scenes.
        seed, index: not negative; together with the split they determine the scene.
        split: any name.

    Returns:
        Scene: image uint8 [size, size, 3] RGB, objects nearest first with exact masks.
    """
    layout_rng, rng = scene_generators(seed, index, split)
    layout = arrange(config, layout_rng)
    palette = make_palette(rng)
    canvas = background(config, palette, rng)
    light = np.exp(2j * np.pi * rng.random())
    looks = appearances(config, layout.placed, palette, rng)
    for placed, look in reversed(list(zip(layout.placed, looks, strict=True))):
        colours = texturise(look, placed.coverage.shape, config, rng)
        colours *= relief(placed.coverage, light, config.shading)[..., None]
        paint(canvas, placed, colours, config.shadow)
    return Scene(finish(canvas, config.noise, rng), layout.objects)


def arrange(config: SceneConfig, rng: np.random.Generator) -> Layout:
    """Draws shapes and places them, front to back."""
    layout = Layout(config)
    variants = pool_members(config.shape_pool, NUM_VARIANTS)
    num_classes = min(config.classes_per_scene, len(CLASS_NAMES))
    classes = rng.choice(len(CLASS_NAMES), size=num_classes, replace=False)
    for _ in range(int(rng.integers(config.min_objects, config.max_objects + 1))):
        for _ in range(_TRIES_PER_OBJECT):
            front = choose_front(layout, config, rng)
            class_index = int(rng.choice(classes))
            if front is not None and rng.random() < config.same_class_probability:
                class_index = front.category_id - 1
            size = rng.uniform(*config.object_size) * config.image_size
            variant = variants[rng.integers(len(variants))]
            coverage = draw_shape(CLASS_NAMES[class_index], variant, size, config.deformation, rng)
            if layout.place(class_index + 1, coverage, front, rng):
                break
    return layout


def choose_front(layout: Layout, config: SceneConfig, rng: np.random.Generator) -> Placed | None:
    """The object that the next one shall be placed behind, or None."""
    if not layout.placed or rng.random() >= config.occluded_probability:
        return None
    return layout.placed[rng.integers(len(layout.placed))]


def appearances(
    config: SceneConfig, objects: list[Placed], palette: np.ndarray, rng: np.random.Generator
) -> list[Appearance]:
    """Draws the appearance of each object; those of one class may look alike."""
    shared: dict[int, Appearance] = {}
    looks = []
    for placed in objects:
        look = _new_appearance(config, placed.category_id - 1, palette, rng)
        if rng.random() < config.shared_appearance:
            # The first object of a class sets the appearance; the others differ by a slight tint.
            look = shared.setdefault(placed.category_id, look)
        tint = rng.normal(0, 6, 3) + rng.normal(0, config.tint)
        looks.append(replace(look, colours=np.clip(look.colours + tint, 0, 255)))
    return looks


def _new_appearance(config: SceneConfig, class_index: int, palette: np.ndarray, rng: np.random.Generator) -> Appearance:
    variants = pool_members(config.texture_pool, NUM_TEXTURES)
    if rng.random() < config.class_appearance:
        # Every sixth texture belongs to the class.
        variants = variants[class_index :: len(CLASS_NAMES)]
        colours = class_palette(class_index, len(CLASS_NAMES), rng)
    else:
        colours = palette[rng.choice(len(palette), size=int(rng.integers(2, 4)), replace=False)]
    return Appearance(int(variants[rng.integers(len(variants))]), colours)


def texturise(look: Appearance, shape: tuple[int, int], config: SceneConfig, rng: np.random.Generator) -> np.ndarray:
    """float32 [h, w, 3]: the colours of an object's window, without shading."""
    field = texture_field(texture(look.texture_variant), *shape, config.image_size, rng)
    return colour_field(field, look.colours, config.texture_contrast)


def background(config: SceneConfig, palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [size, size, 3], 0..255: the canvas before any object is painted."""
    variants = pool_members(config.texture_pool, NUM_TEXTURES)
    if config.shared_palette:
        colours = palette[rng.choice(len(palette), size=int(rng.integers(2, 4)), replace=False)]
    else:
        colours = neutral_palette(rng)
    size = config.image_size
    field = texture_field(texture(int(variants[rng.integers(len(variants))])), size, size, size, rng)
    canvas = colour_field(field, colours, config.background_contrast)
    # A brightness gradient across the image.
    gradient = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.uniform(-0.15, 0.15))
    canvas *= (1 + gradient)[:, None] if rng.random() < 0.5 else (1 + gradient)[:, None, None]
    return canvas


def relief(coverage: np.ndarray, light: complex, strength: float) -> np.ndarray:
    """float32 [h, w]: shading of a dome over the object's mask, lit from one side."""
    height, width = coverage.shape
    if strength == 0:
        return np.ones((height, width), np.float32)
    inside = cv2.copyMakeBorder((coverage >= 128).view(np.uint8), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    rim = max(distance.max() * 0.8, 1.0)
    level = np.minimum(distance / rim, 1)
    dome = cv2.blur(np.sqrt(level * (2 - level)), (5, 5)) * np.float32(rim / 2)
    slope_x = cv2.Sobel(dome, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)[2:-2, 2:-2]
    slope_y = cv2.Sobel(dome, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)[2:-2, 2:-2]
    lit = slope_x * np.float32(light.real) + slope_y * np.float32(light.imag)
    return 1 + np.float32(strength) * np.clip(lit, -1.2, 1.2)
