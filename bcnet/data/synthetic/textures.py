"""Procedural textures and palettes.

There are `NUM_TEXTURES` fixed textures, so that two sets of scenes can use disjoint ones. A texture is a scalar field
in [0, 1] (stripes, checks, dots, rings, noise, blobs, patches, gradients), warped by noise of several octaves and
mapped to a ramp between two or three colours. With a steep ramp, its edges are as sharp as an object's boundary.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

KINDS = ("stripes", "checks", "noise", "patches", "dots", "gradient", "rings", "blobs")
NUM_TEXTURES = 16 * len(KINDS)


@dataclass(frozen=True)
class Texture:
    """Parameters of a texture; lengths are fractions of the image side."""

    kind: str
    cell: float  # period, or size of the coarsest detail
    stretch: float  # ratio of the periods along the two axes
    warp: float  # displacement of the pattern by noise, in cells
    octaves: int
    sharpness: float  # slope of the ramp: 1 is smooth, 8 has hard edges
    detail: float  # amplitude of fine noise


@cache
def texture(variant: int) -> Texture:
    """The texture of an index below `NUM_TEXTURES`."""
    rng = np.random.default_rng([20210610, variant])
    # Groups of four of one kind: three in the training pool, one in the test pool.
    kind = KINDS[variant // 4 % len(KINDS)]
    coarse = kind in ("noise", "patches", "blobs", "gradient")
    return Texture(
        kind=kind,
        cell=rng.uniform(0.12, 0.3) if coarse else rng.uniform(0.05, 0.14),
        stretch=rng.uniform(1.0, 1.8),
        warp=rng.uniform(0.05, 0.7),
        octaves=int(rng.integers(2, 4)),
        sharpness=rng.uniform(1.2, 8.0),
        detail=rng.uniform(0.0, 0.25),
    )


def texture_field(spec: Texture, height: int, width: int, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [height, width] in [0, 1]: a random part of the texture, randomly rotated."""
    cell = max(spec.cell * image_size, 3.0)
    noise = _fractal_noise(height, width, cell, spec.octaves, rng)
    angle = rng.uniform(0, 2 * np.pi)
    # Coordinates in periods; float32 throughout, which halves the time.
    x = np.arange(width, dtype=np.float32)[None] / np.float32(cell)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(cell)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = x * cos + y * sin + np.float32(rng.random())
    v = (y * cos - x * sin) / np.float32(spec.stretch) + np.float32(rng.random())
    bend = (noise - np.float32(0.5)) * np.float32(2 * spec.warp)
    turn = np.float32(2 * np.pi)
    if spec.kind == "stripes":
        field = 0.5 + 0.5 * np.sin(turn * (u + bend))
    elif spec.kind == "checks":
        field = 0.5 + 0.5 * np.sin(turn * (u + bend)) * np.sin(turn * (v + bend))
    elif spec.kind == "dots":
        field = 0.35 + 0.5 * np.cos(turn * (u + bend)) * np.cos(turn * (v - bend))
    elif spec.kind == "rings":
        row, column = rng.integers(height), rng.integers(width)
        radius = np.hypot(u - u[row, column], v - v[row, column])
        field = 0.5 + 0.5 * np.sin(turn * (radius + bend))
    elif spec.kind == "gradient":
        span = np.float32(max(height, width) / cell)
        field = (u - u.min()) / span + 0.5 * bend
    elif spec.kind == "patches":
        levels = 4
        field = np.floor(noise * levels) / np.float32(levels - 1)
    else:  # noise, blobs: the ramp makes the difference
        field = noise
    # A wide ramp for the smooth kinds, the texture's own for the others.
    slope = 1.0 if spec.kind in ("noise", "gradient", "patches") else spec.sharpness
    field = 0.5 + (field - 0.5) * np.float32(slope)
    if spec.detail > 0:
        field = field + np.float32(spec.detail) * (_noise_layer(height, width, 2.5, rng) - np.float32(0.5))
    return np.clip(field, 0, 1)


def colour_field(field: np.ndarray, colours: np.ndarray, contrast: float) -> np.ndarray:
    """Maps a scalar field to a ramp of colours.

    Args:
        field: float32 [h, w] in [0, 1].
        colours: float [n, 3], RGB in 0..255, n >= 2, evenly spaced along the ramp.
        contrast: 1 keeps the colours, 0 gives their mean.

    Returns:
        float32 [h, w, 3] in 0..255.
    """
    mean = colours.mean(axis=0)
    colours = mean + (colours - mean) * contrast
    stops = np.linspace(0, 255, len(colours))
    ramp = np.stack([np.interp(np.arange(256), stops, channel) for channel in colours.T], axis=1)
    return np.take(ramp.astype(np.float32), (field * 255).astype(np.uint8), axis=0)


def make_palette(rng: np.random.Generator, size: int = 6) -> np.ndarray:
    """float [size, 3] RGB in 0..255: harmonious colours of different brightness and saturation."""
    hue = rng.random()
    offsets = rng.choice([0.0, 0.08, -0.08, 0.5, 0.33, 0.42], size=size)
    hues = hue + offsets + rng.normal(0, 0.02, size)
    values = rng.permutation(np.linspace(0.25, 0.95, size)) + rng.uniform(-0.05, 0.05, size)
    return np.array([_rgb(h, rng.uniform(0.15, 0.85), v) for h, v in zip(hues, values, strict=True)])


def class_palette(class_index: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """float [3, 3] RGB in 0..255: a dark, a medium and a light colour around the hue of a class."""
    hue = class_index / num_classes + rng.uniform(-0.02, 0.02)
    return np.array([_rgb(hue + rng.normal(0, 0.015), rng.uniform(0.55, 0.9), v) for v in (0.4, 0.7, 0.95)])


def neutral_palette(rng: np.random.Generator) -> np.ndarray:
    """float [3, 3] RGB in 0..255: greys with a tint."""
    hue = rng.random()
    return np.array([_rgb(hue, rng.uniform(0.0, 0.15), rng.uniform(0.25, 0.9)) for _ in range(3)])


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return 255 * red, 255 * green, 255 * blue


def _noise_layer(height: int, width: int, cell: float, rng: np.random.Generator) -> np.ndarray:
    """float32 [height, width]: random values on a grid of ``cell`` pixels, smoothly interpolated."""
    rows, columns = int(np.ceil(height / cell)) + 1, int(np.ceil(width / cell)) + 1
    interpolation = cv2.INTER_CUBIC if cell > 4 else cv2.INTER_LINEAR
    return cv2.resize(rng.random((rows, columns), dtype=np.float32), (width, height), interpolation=interpolation)


def _fractal_noise(height: int, width: int, cell: float, octaves: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [height, width] in [0, 1]: noise of several octaves, each half as large and half as strong."""
    total = _noise_layer(height, width, cell, rng)
    weight = 1.0
    for octave in range(1, octaves):
        amplitude = np.float32(0.5**octave)
        total += amplitude * _noise_layer(height, width, max(cell / 2**octave, 1.5), rng)
        weight += float(amplitude)
    # The values of the sum concentrate around 0.5: stretch them.
    total = (total / np.float32(weight) - np.float32(0.5)) * np.float32(1.7) + np.float32(0.5)
    return np.clip(total, 0, 1)
