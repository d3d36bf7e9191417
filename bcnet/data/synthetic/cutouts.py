"""Synthetic scenes composed of cut-outs: instances of a COCO json, pasted in depth order over crops of its images.

The occlusions are known exactly, so amodal masks, depth order and hidden fractions are as accurate as the source's
masks, on real textures and without further annotation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.cutouts import MAX_MAGNIFICATION, cut_out, is_large_and_whole, mask_area
from bcnet.data.images import open_record_image
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.data.synthetic.composition import Layout, Scene, finish, paint
from bcnet.data.synthetic.config import SceneConfig
from bcnet.data.synthetic.scene import choose_front, scene_generators
from bcnet.ops.rle import RLE, segmentation_to_rle

_TRIES_PER_OBJECT = 4
_BACKGROUND_TRIES = 6
_IMAGES_KEPT = 64
_FEATHER = 0.7  # standard deviation in pixels of the blur of a cut-out's edge


@dataclass(frozen=True)
class _Template:
    record: int  # index of the image
    instance: int  # index in the image's instances
    category: int  # 0..K-1


@dataclass(frozen=True)
class _Square:
    record: int  # index of the image
    window: tuple[slice, slice]
    annotated: np.ndarray  # uint8 [side, side], 255 on annotated instances

    @property
    def annotated_share(self) -> float:
        return np.count_nonzero(self.annotated) / self.annotated.size


class CutoutLibrary:
    """The instances of a data set that can be cut out.

    Crowds and instances without a mask or with fewer than ``min_pixels`` are excluded.

    Args:
        records, info: the data set, as `bcnet.data.load_dataset` returns it.
        min_pixels: minimum area of an instance in its source image.
        whole_only: exclude incomplete instances: truncated by the image border, or of several polygons (COCO's
            annotation of objects split by an occluder).
        single_class: give all objects the single class "object".

    Raises:
        ValueError: no usable instance.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        info: DatasetInfo,
        *,
        min_pixels: int = 40**2,
        whole_only: bool = True,
        single_class: bool = False,
    ) -> None:
        self.records = list(records)
        self.info = replace(info, category_ids=(1,), class_names=("object",)) if single_class else info
        self.single_class = single_class
        self.min_pixels = min_pixels
        self.whole_only = whole_only
        self.templates = [
            _Template(index, position, 0 if single_class else instance.category)
            for index, record in enumerate(self.records)
            for position, instance in enumerate(record.instances)
            if is_large_and_whole(record, instance, min_pixels=min_pixels, whole_only=whole_only)
            and mask_area(record, instance) >= min_pixels
        ]
        if not self.templates:
            raise ValueError(
                f"{info.annotation_file}: none of the {sum(len(r.instances) for r in self.records)} instances can be "
                f"cut out (not a crowd, at least {min_pixels} pixels{', whole' if whole_only else ''})"
            )
        self._of_category: dict[int, list[_Template]] = defaultdict(list)
        for template in self.templates:
            self._of_category[template.category].append(template)
        self._images: dict[int, np.ndarray] = {}  # the images read last: reading is the most expensive step

    @classmethod
    def from_files(cls, annotation_file: str, image_root: str, **options) -> CutoutLibrary:
        """Reads a COCO json and its image folder; options as in the constructor.

        Raises:
            FileNotFoundError: the file or the folder does not exist.
            ValueError: malformed content, or no usable instance.
        """
        from bcnet.data.catalog import load_dataset

        return cls(*load_dataset(f"coco:{annotation_file}:{image_root}"), **options)

    def parameters(self) -> dict:
        """Parameters that identify this library, as JSON values; the source is identified by its content."""
        with open(self.info.annotation_file, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        parameters = {"annotations_sha256": digest, "min_pixels": self.min_pixels, "whole_only": self.whole_only}
        return {**parameters, "single_class": True} if self.single_class else parameters

    def draw_category(self, rng: np.random.Generator) -> int:
        """Draws a class 0..K-1 with the frequency of its instances in the source."""
        return self.templates[rng.integers(len(self.templates))].category

    def draw(self, category: int, size: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws a random instance: cut out, scaled and randomly mirrored.

        Args:
            category: 0..K-1, as returned by `draw_category`.
            size: longer side of its box in pixels; less if the source is too small.

        Returns:
            coverage uint8 [h, w]; colours float32 [h, w, 3] RGB, 0..255.
        """
        choices = self._of_category[category]
        template = choices[rng.integers(len(choices))]
        record = self.records[template.record]
        mask = self._mask(record, record.instances[template.instance])
        cutout = cut_out(self._image(template.record), mask, category)
        scale = min(size / max(cutout.mask.shape), MAX_MAGNIFICATION)
        scaled = cutout.scaled(scale, mirrored=rng.random() < 0.5, feather=_FEATHER)
        exposure = rng.uniform(0.85, 1.15)
        return scaled.coverage, scaled.colours() * np.float32(exposure)

    def background(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """float32 [size, size, 3] RGB: a crop of an image, without its annotated objects.

        Of several crops the one with the fewest annotated pixels is used; annotated objects in it are filled with the
        surrounding colours, so that no object without ground truth is visible.
        """
        square = self._random_square(rng)
        for _ in range(_BACKGROUND_TRIES - 1):
            if square.annotated_share == 0:
                break
            square = min(square, self._random_square(rng), key=lambda s: s.annotated_share)
        interpolation = cv2.INTER_AREA if len(square.annotated) > size else cv2.INTER_LINEAR
        piece = cv2.resize(self._image(square.record)[square.window], (size, size), interpolation=interpolation)
        hole = cv2.resize(square.annotated, (size, size), interpolation=interpolation)
        return _fill(piece.astype(np.float32), hole)

    def _random_square(self, rng: np.random.Generator) -> _Square:
        """A random square crop of a random image; its side is 0.5 to 1 times the image's shorter side."""
        index = int(rng.integers(len(self.records)))
        record = self.records[index]
        side = int(min(record.height, record.width) * rng.uniform(0.5, 1.0))
        x, y = (int(rng.integers(extent - side + 1)) for extent in (record.width, record.height))
        window = np.s_[y : y + side, x : x + side]
        return _Square(index, window, self._annotated(record)[window])

    def _mask(self, record: ImageRecord, instance: InstanceRecord) -> RLE:
        try:
            return segmentation_to_rle(instance.segmentation, record.height, record.width)
        except ValueError as error:
            raise ValueError(f"{self.info.annotation_file}: annotation {instance.annotation_id!r}: {error}") from error

    def _annotated(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W]: 255 on annotated instances, including crowds (as boxes)."""
        annotated = np.zeros((record.height, record.width), np.uint8)
        for instance in record.instances:
            if instance.iscrowd or instance.segmentation is None:
                x, y, width, height = (round(value) for value in instance.bbox)
                annotated[max(y, 0) : y + height, max(x, 0) : x + width] = 255
            else:
                annotated[coco_mask.decode(self._mask(record, instance)) > 0] = 255
        return annotated

    def _image(self, index: int) -> np.ndarray:
        if index not in self._images:
            if len(self._images) >= _IMAGES_KEPT:
                self._images.pop(next(iter(self._images)))
            self._images[index] = np.asarray(open_record_image(self.records[index]))
        return self._images[index]


def render_cutout_scene(
    library: CutoutLibrary, config: SceneConfig, seed: int, index: int, split: str = "train"
) -> Scene:
    """Composes the scene of an index; category ids are those of the source.

    Args:
        library: source of cut-outs and backgrounds; the scene depends on it too.
        config, seed, index, split: as in `render_scene`; the parameters of appearance are not used.

    Returns:
        Scene: image uint8 [size, size, 3] RGB, objects nearest first with exact masks.

    Raises:
        FileNotFoundError: a source image is missing.
        ValueError: a source image whose size differs from its json, or a malformed segmentation.
    """
    layout_rng, rng = scene_generators(seed, index, split)
    layout = Layout(config)
    colours_of_placed = []
    categories = [library.draw_category(layout_rng) for _ in range(config.classes_per_scene)]
    for _ in range(int(layout_rng.integers(config.min_objects, config.max_objects + 1))):
        for _ in range(_TRIES_PER_OBJECT):
            front = choose_front(layout, config, layout_rng)
            category = categories[layout_rng.integers(len(categories))]
            if front is not None and layout_rng.random() < config.same_class_probability:
                category = library.info.category_ids.index(front.category_id)
            size = layout_rng.uniform(*config.object_size) * config.image_size
            coverage, colours = library.draw(category, size, layout_rng)
            if layout.place(library.info.category_ids[category], coverage, front, layout_rng):
                colours_of_placed.append(colours)
                break
    canvas = library.background(config.image_size, rng)
    for placed, colours in reversed(list(zip(layout.placed, colours_of_placed, strict=True))):
        paint(canvas, placed, colours, config.shadow)
    return Scene(finish(canvas, config.noise, rng), layout.objects)


def _fill(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Inpaints a hole (uint8, 255 inside) with local averages of the surrounding pixels."""
    if not hole.any():
        return picture
    size = picture.shape[0]
    # Annotated contours are slightly too narrow; without dilation a halo of the object would remain.
    hole = cv2.dilate(hole, np.ones((5, 5), np.uint8))
    weight = (1 - hole / np.float32(255)).astype(np.float32)
    total, norm = picture * weight[..., None], weight
    filled = np.zeros_like(picture)
    missing = np.ones_like(weight)
    # Averages over growing neighbourhoods; each pixel uses the smallest one with known pixels.
    width = 5
    while missing.max() > 1e-3 and width < 4 * size:
        local_norm = cv2.blur(norm, (width, width), borderType=cv2.BORDER_REPLICATE)
        local = cv2.blur(total, (width, width), borderType=cv2.BORDER_REPLICATE)
        confidence = np.clip(local_norm * 8, 0, 1) * missing
        filled += local / np.maximum(local_norm, 1e-6)[..., None] * confidence[..., None]
        missing -= confidence
        width = 2 * width + 1
    filled += picture.mean(axis=(0, 1)) * missing[..., None]
    return picture * weight[..., None] + filled * (1 - weight[..., None])
