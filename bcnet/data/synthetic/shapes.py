"""Shape families: the classes of the procedural scenes.

A family has `NUM_VARIANTS` fixed prototypes (number of points of a star, width of a ring, ...), so that two sets of
scenes can use disjoint prototypes. An object is a prototype that is deformed, rotated and scaled.

Contours are complex numbers x + iy in the unit circle, dense enough to stay smooth when deformed.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

NUM_VARIANTS = 32
_CONTOUR_POINTS = 128
_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 4  # fractional bits of cv2's polygon coordinates

Contour = NDArray[np.complex128]  # closed: [P], x + iy


def _ellipse(rng: np.random.Generator) -> list[Contour]:
    angle = _angles()
    exponent = rng.uniform(0.75, 1.05)  # below 1 the ellipse approaches a rounded rectangle
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** exponent
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** exponent * rng.uniform(0.45, 0.9)
    egg = rng.uniform(0.0, 0.35)
    return [x + 1j * y * (1 - egg * x)]


def _triangle(rng: np.random.Generator) -> list[Contour]:
    apex = rng.uniform(-0.5, 0.5) + 1j * rng.uniform(0.6, 1.0)
    corners = np.array([-1 - 0.75j, 1 - 0.75j, apex])
    return [_rounded(_polygon(corners), rng.uniform(0.004, 0.02))]


def _star(rng: np.random.Generator) -> list[Contour]:
    points = int(rng.integers(4, 8))
    inner = rng.uniform(0.36, 0.55)
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    angle = np.arange(2 * points) * np.pi / points
    angle[1::2] += rng.uniform(-0.2, 0.2) * np.pi / points
    return [_rounded(_polygon(radius * np.exp(1j * angle)), rng.uniform(0.003, 0.01))]


def _ring(rng: np.random.Generator) -> list[Contour]:
    outline: Contour = np.exp(1j * _angles())
    hole = rng.uniform(0.36, 0.58)
    offset = rng.uniform(0, 0.5 * (0.75 - hole)) * np.exp(2j * np.pi * rng.random())
    corners = int(rng.integers(0, 3)) * 2  # 0: round; 2, 4: bulges
    bulge = 1 + (rng.uniform(0.04, 0.1) if corners else 0.0) * np.cos(corners * _angles())
    return [outline * bulge, outline * hole + offset]


def _cross(rng: np.random.Generator) -> list[Contour]:
    arms = int(rng.integers(3, 5))
    width = rng.uniform(0.24, 0.34)
    lengths = rng.uniform(0.75, 1.0, arms)
    lengths[rng.integers(arms)] = 1.0
    corners = []
    for arm in range(arms):
        direction = np.exp(2j * np.pi * arm / arms)
        corners += [direction * (lengths[arm] - 1j * width), direction * (lengths[arm] + 1j * width)]
        # The inner corner between two neighbouring arms.
        corners.append(np.exp(2j * np.pi * (arm + 0.5) / arms) * width / np.sin(np.pi / arms))
    return [_rounded(_polygon(np.array(corners)), rng.uniform(0.002, 0.008))]


def _crescent(rng: np.random.Generator) -> list[Contour]:
    # The unit disk minus a disk around (offset, 0) that extends beyond it.
    radius = rng.uniform(0.68, 0.88)
    offset = rng.uniform(0.5, 0.68)
    outer_angle = np.arccos((1 + offset**2 - radius**2) / (2 * offset))
    inner_angle = np.arctan2(np.sin(outer_angle), np.cos(outer_angle) - offset)
    outer = np.exp(1j * np.linspace(outer_angle, 2 * np.pi - outer_angle, 80))
    inner = offset + radius * np.exp(1j * np.linspace(2 * np.pi - inner_angle, inner_angle, 80))
    return [_rounded(_polygon(np.concatenate([outer, inner])), 0.003)]


FAMILIES = {
    "ellipse": _ellipse,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
}
CLASS_NAMES = tuple(FAMILIES)


@cache
def prototype(family: str, variant: int) -> tuple[Contour, ...]:
    """Closed contours (outline first, then holes), complex [P], centred and scaled to the unit circle."""
    rng = np.random.default_rng([20210609, CLASS_NAMES.index(family), variant])
    contours = FAMILIES[family](rng)
    outline = contours[0]
    centre = (outline.real.min() + outline.real.max() + 1j * (outline.imag.min() + outline.imag.max())) / 2
    scale = np.abs(outline - centre).max()
    return tuple((contour - centre) / scale for contour in contours)


def draw_shape(family: str, variant: int, size: float, deformation: float, rng: np.random.Generator) -> np.ndarray:
    """Draws an object of a family.

    Args:
        family: one of `CLASS_NAMES`.
        variant: index of the prototype, below `NUM_VARIANTS`.
        size: longer side of the object's box in pixels.
        deformation: strength of the deformation; 0 only rotates and scales.

    Returns:
        uint8 [h, w]: coverage of each pixel of the tight window, 255 inside. The object's binary mask is
        ``coverage >= 128``.
    """
    contours = _deform(prototype(family, variant), deformation, rng)
    outline = contours[0]
    low = outline.real.min() + 1j * outline.imag.min()
    extent = max(np.ptp(outline.real), np.ptp(outline.imag))
    scale = size / extent
    width = max(int(np.ceil(np.ptp(outline.real) * scale)), 1)
    height = max(int(np.ceil(np.ptp(outline.imag) * scale)), 1)
    fine = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    polygons = []
    for contour in contours:
        points = (contour - low) * (scale * _SUPERSAMPLING * 2**_SUBPIXEL_BITS)
        polygons.append(np.stack([points.real, points.imag], axis=1).round().astype(np.int32))
    cv2.fillPoly(fine, polygons, 255, shift=_SUBPIXEL_BITS)  # even-odd: the second contour is a hole
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)


def _deform(contours: tuple[Contour, ...], strength: float, rng: np.random.Generator) -> list[Contour]:
    turn = np.exp(2j * np.pi * rng.random())
    squeeze = 1 - strength * rng.uniform(0.0, 0.3)
    squeeze_axis = np.exp(2j * np.pi * rng.random())
    # A smooth displacement of the plane: two waves of low frequency.
    waves = [(rng.uniform(1.0, 2.6) * np.exp(2j * np.pi * rng.random()), 2 * np.pi * rng.random()) for _ in range(2)]
    heights = strength * rng.uniform(0.02, 0.11, 2) * np.exp(2j * np.pi * rng.random(2))
    deformed = []
    for contour in contours:
        bent = contour.copy()
        for (frequency, phase), height in zip(waves, heights, strict=True):
            bent += height * np.sin((contour * np.conj(frequency)).real * 2 + phase)
        bent = bent * squeeze_axis
        bent = bent.real + 1j * squeeze * bent.imag
        deformed.append(bent * turn)
    return deformed


def _angles() -> NDArray[np.float64]:
    return np.linspace(0, 2 * np.pi, _CONTOUR_POINTS, endpoint=False)


def _polygon(corners: np.ndarray) -> np.ndarray:
    """Evenly spaced points along a polygon's edges."""
    closed = np.append(corners, corners[0])
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(closed)))])
    return np.interp(np.linspace(0, length[-1], _CONTOUR_POINTS, endpoint=False), length, closed)


def _rounded(contour: np.ndarray, radius: float) -> np.ndarray:
    """A closed contour after Gaussian smoothing; ``radius`` is the standard deviation as a fraction of its length."""
    frequency = np.fft.fftfreq(len(contour), 1 / len(contour))
    return np.fft.ifft(np.fft.fft(contour) * np.exp(-2 * (np.pi * frequency * radius) ** 2))
