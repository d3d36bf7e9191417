"""Procedural video clips: the shapes of the scenes, moving across each other at constant depth, with exact truth.

Letters: T frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bcnet.data.synthetic.composition import Placed, Scene, SceneObject, finish, paint, scene_object
from bcnet.data.synthetic.config import SceneConfig, pool_members
from bcnet.data.synthetic.scene import appearances, background, relief, scene_generators, texturise
from bcnet.data.synthetic.shapes import CLASS_NAMES, NUM_VARIANTS, draw_shape
from bcnet.data.synthetic.textures import make_palette

STATIC = 0.25  # probability that an object does not move
CENTRE = (0.35, 0.65)  # paths pass through a point of the image's middle, as fractions of its side
LENGTH = (0.5, 1.1)  # of a path in the time of the clip, as fractions of the image's side
SWAY = 0.03  # amplitude of the deviation from a straight path at constant speed, as a fraction of the image's side


@dataclass(frozen=True)
class MovingObject:
    """An object of a clip; its position in the list of a clip's objects is its depth, 0 nearest, and its identity.

    Attributes:
        category_id: as in the scenes.
        coverage: uint8 [h, w], 255 inside.
        path: int64 [T, 2], x and y of the window's first pixel in each frame.
    """

    category_id: int
    coverage: np.ndarray
    path: np.ndarray

    def at(self, frame: int) -> Placed:
        x, y = self.path[frame].tolist()
        return Placed(self.category_id, self.coverage, x, y)


def render_clip(config: SceneConfig, seed: int, index: int, frames: int, split: str = "train") -> Iterator[Scene]:
    """Renders the frames of a clip.

    The objects, min_objects to max_objects of the config, cross the middle of the image on nearly straight paths, or
    stand still; shapes, depth order and textures do not change. `SceneObject.depth` is the identity of an object in its
    clip. An object of no pixel inside the image is not listed; one that others hide entirely is, with a visible
    area of 0.

    Args:
        config: of the objects and their appearance; what it says of their arrangement does not apply.
        seed, index: not negative; together with the split they determine the clip.
        frames: number of frames, at least 1. Clips of other lengths are others.
        split: any name.

    Yields:
        Scene: image uint8 [size, size, 3] RGB and the objects, nearest first.

    Raises:
        ValueError: no frame.
    """
    objects, rng = _objects_and_generator(config, seed, index, frames, split)
    palette = make_palette(rng)
    empty = background(config, palette, rng)
    light = np.exp(2j * np.pi * rng.random())
    colours = []
    for instance, look in zip(objects, appearances(config, [o.at(0) for o in objects], palette, rng), strict=True):
        colours.append(texturise(look, instance.coverage.shape, config, rng))
        colours[-1] *= relief(instance.coverage, light, config.shading)[..., None]
    for frame in range(frames):
        placed = [instance.at(frame) for instance in objects]
        canvas = empty.copy()
        for one, colour in reversed(list(zip(placed, colours, strict=True))):
            paint(canvas, one, colour, config.shadow)
        yield Scene(finish(canvas, config.noise, rng), objects_in_frame(placed, config.image_size))


def clip_truth(
    config: SceneConfig, seed: int, index: int, frames: int, split: str = "train"
) -> Iterator[list[SceneObject]]:
    """The objects of each frame of `render_clip`, without the images."""
    objects, _ = _objects_and_generator(config, seed, index, frames, split)
    for frame in range(frames):
        yield objects_in_frame([instance.at(frame) for instance in objects], config.image_size)


def _objects_and_generator(
    config: SceneConfig, seed: int, index: int, frames: int, split: str
) -> tuple[list[MovingObject], np.random.Generator]:
    """The objects of a clip, and the generator of its appearance."""
    if frames < 1:
        raise ValueError(f"a clip has at least 1 frame, got {frames}")
    layout_rng, rng = scene_generators(seed, index, f"{split} clip")
    return moving_objects(config, frames, layout_rng), rng


def moving_objects(config: SceneConfig, frames: int, rng: np.random.Generator) -> list[MovingObject]:
    """Draws the objects of a clip and their paths, nearest first, which are the larger ones."""
    variants = pool_members(config.shape_pool, NUM_VARIANTS)
    num_classes = min(config.classes_per_scene, len(CLASS_NAMES))
    classes = rng.choice(len(CLASS_NAMES), size=num_classes, replace=False)
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    sizes = np.sort(rng.uniform(*config.object_size, count))[::-1] * config.image_size
    objects = []
    for size in sizes.tolist():
        class_index = int(rng.choice(classes))
        variant = variants[rng.integers(len(variants))]
        coverage = draw_shape(CLASS_NAMES[class_index], variant, size, config.deformation, rng)
        path = _path(frames, rng) * config.image_size - np.array(coverage.shape[::-1]) / 2
        objects.append(MovingObject(class_index + 1, coverage, path.round().astype(np.int64)))
    return objects


def objects_in_frame(placed: list[Placed], size: int) -> list[SceneObject]:
    """The truth of a frame's objects, given nearest first; those outside the image are left out."""
    occupied = np.zeros((size, size), bool)
    objects = []
    for depth, one in enumerate(placed):
        amodal = one.amodal_mask(size)
        if amodal.any():
            objects.append(scene_object(one.category_id, depth, amodal, occupied))
            occupied |= amodal
    return objects


def _path(frames: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [T, 2]: centres in each frame, as fractions of the image's side."""
    middle = rng.uniform(*CENTRE, 2)
    time = np.linspace(0, 1, frames)[:, None]
    direction = rng.uniform(0, 2 * np.pi)
    length = 0.0 if rng.random() < STATIC else rng.uniform(*LENGTH)
    passed = rng.uniform(0.35, 0.65)  # when it passes that point
    sway = SWAY * np.sin(2 * np.pi * (rng.uniform(0.5, 2, 2) * time + rng.uniform(0, 1, 2)))
    return middle + length * (time - passed) * np.array([np.cos(direction), np.sin(direction)]) + np.sign(length) * sway
