"""SceneConfig: parameters of synthetic scenes, and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

POOLS = ("all", "train", "test")
_IMAGE_FORMATS = ("png", "jpg")


@dataclass(frozen=True)
class SceneConfig:
    """Parameters of a scene. The defaults are the ``hard`` preset; lengths are fractions of the image side.

    The parameters below ``Appearance`` apply to procedural objects; scenes composed of cut-outs use only the layout,
    the shadow and the noise.

    Raises:
        ValueError: a value out of range; names the parameter and the value.
    """

    image_size: int = 192  # pixels, of both sides

    # Layout. Objects are placed front to back, each behind all earlier ones.
    min_objects: int = 3
    max_objects: int = 6
    object_size: tuple[float, float] = (0.32, 0.6)  # longer side of an object's box
    occluded_probability: float = 0.92  # an object is placed partly behind an earlier one
    hidden_range: tuple[float, float] = (0.12, 0.68)  # range of the target hidden fraction of such an object
    max_hidden_fraction: float = 0.8  # objects with a larger hidden fraction, or
    min_visible_pixels: int = 150  # fewer visible pixels, are not part of the scene
    max_outside: float = 0.3  # maximum fraction of an object's area outside the image
    classes_per_scene: int = 3
    same_class_probability: float = 0.42  # an object placed behind another gets the same class

    # Appearance
    class_appearance: float = 0.0  # probability that a class has the same colours and texture in all scenes
    shared_appearance: float = 0.7  # probability that an object looks like the others of its class in the scene
    tint: float = 8.0  # standard deviation of the brightness of objects of one appearance, of 255
    shared_palette: bool = True  # the background uses the colours of the objects
    background_contrast: float = 0.8
    texture_contrast: float = 1.0
    deformation: float = 1.0  # 0 draws the prototypes, only rotated and scaled
    shading: float = 0.3  # strength of the shading of the objects
    shadow: float = 0.22  # of an object on those behind it
    noise: int = 5  # maximum deviation of a pixel value, of 255
    texture_pool: str = "all"  # "train" and "test" have no texture in common
    shape_pool: str = "all"  # "train" and "test" have no shape prototype in common

    image_format: str = "png"  # or "jpg" (quality 95, full chroma resolution)

    def __post_init__(self) -> None:
        # JSON has no tuples: convert, so that a config read from a file equals the one that was written.
        for name in ("object_size", "hidden_range"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        for name in ("image_size", "min_objects", "max_objects", "min_visible_pixels", "classes_per_scene", "noise"):
            self._require(name, isinstance(getattr(self, name), int), "an integer")
        self._require("image_size", 32 <= self.image_size <= 4096, "from 32 to 4096")
        self._require("min_objects", self.min_objects >= 1, "at least 1")
        self._require("max_objects", self.max_objects >= self.min_objects, f"at least min_objects ({self.min_objects})")
        for name in ("object_size", "hidden_range"):
            low_high = getattr(self, name)
            valid = len(low_high) == 2 and 0 < low_high[0] <= low_high[1] <= 1
            self._require(name, valid, "two ascending numbers above 0 and up to 1")
        self._require("max_hidden_fraction", 0 <= self.max_hidden_fraction < 1, "from 0 to less than 1")
        self._require("min_visible_pixels", self.min_visible_pixels >= 1, "at least 1")
        self._require("max_outside", 0 <= self.max_outside < 1, "from 0 to less than 1")
        self._require("classes_per_scene", self.classes_per_scene >= 1, "at least 1")
        for name in (
            "occluded_probability",
            "same_class_probability",
            "class_appearance",
            "shared_appearance",
            "background_contrast",
            "texture_contrast",
            "shading",
            "shadow",
        ):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        self._require("deformation", 0 <= self.deformation <= 2, "from 0 to 2")
        self._require("tint", 0 <= self.tint <= 128, "from 0 to 128")
        self._require("noise", 0 <= self.noise <= 64, "from 0 to 64")
        for name in ("texture_pool", "shape_pool"):
            self._require(name, getattr(self, name) in POOLS, f"one of {', '.join(POOLS)}")
        self._require("image_format", self.image_format in _IMAGE_FORMATS, f"one of {', '.join(_IMAGE_FORMATS)}")

    def _require(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise ValueError(f"SceneConfig.{name} is {getattr(self, name)!r}; it must be {expected}")

    @classmethod
    def preset(cls, name: str, **overrides) -> SceneConfig:
        """A preset with fields replaced.

        ``"easy"`` is quick to learn, for demonstrations. ``"medium"`` has objects that are easy to detect but
        neighbours of one class that are hard to separate, for studies of masks with small models. ``"hard"`` is
        difficult in all respects.

        Raises:
            ValueError: no such preset, or a value out of range.
        """
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    def to_dict(self) -> dict:
        """All fields as JSON values; ``SceneConfig(**values)`` restores the config."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


PRESETS: dict[str, dict] = {
    "hard": {},
    "medium": {
        "min_objects": 2,
        "max_objects": 5,
        "object_size": (0.38, 0.62),
        "same_class_probability": 0.6,
        "class_appearance": 1.0,
        "shared_appearance": 0.0,
        "tint": 10.0,
        "shared_palette": False,
        "background_contrast": 0.3,
        "texture_contrast": 0.6,
        "deformation": 0.5,
    },
    "easy": {
        "min_objects": 2,
        "max_objects": 4,
        "object_size": (0.38, 0.62),
        "hidden_range": (0.1, 0.5),
        "class_appearance": 1.0,
        "shared_appearance": 0.0,
        "tint": 30.0,
        "shared_palette": False,
        "background_contrast": 0.3,
        "texture_contrast": 0.4,
        "deformation": 0.5,
        "shading": 0.6,
        "shadow": 0.45,
        "noise": 3,
    },
}


def pool_members(pool: str, size: int) -> list[int]:
    """The variants in ``range(size)`` that belong to a pool: of every four, three for "train" and one for "test"."""
    if pool == "all":
        return list(range(size))
    return [variant for variant in range(size) if (variant % 4 == 3) == (pool == "test")]
