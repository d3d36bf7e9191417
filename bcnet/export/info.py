"""What an exported file says of itself, as JSON inside it: classes, input size, maps, limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from bcnet.maps import MapSpec

KEY = "bcnet"  # of the metadata in the file
_SPEC_FIELDS = ("name", "short_name", "layer", "kind", "target", "loss_name", "on_request", "title")


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """Metadata of an exported model.

    Attributes:
        version: of bcnet that exported it.
        detector: name of the model's class.
        num_classes: K.
        class_names: K names, or none.
        takes_boxes: the model has no detector: boxes are an input.
        takes_classes: the class of each box is an input too.
        size: side of the square input, pixels: an image is resized to fit and padded at the right and bottom. None: any
            size, short side `short_side`, long side at most `long_side`.
        short_side, long_side: INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST.
        divisor: a dynamic input is padded to multiples of this many pixels.
        fixed: the number of detections is `max_detections`, with those beyond the output "count" zeros.
        max_detections: maximum number of detections.
        roi_scale: as `Detections.roi_scale`.
        max_image_pixels: INPUT.MAX_IMAGE_PIXELS.
        maps: records of the maps in the file.
    """

    version: str
    detector: str
    num_classes: int
    class_names: tuple[str, ...] = ()
    takes_boxes: bool = False
    takes_classes: bool = False
    size: int | None = None
    short_side: int = 0
    long_side: int = 0
    divisor: int = 1
    fixed: bool = False
    max_detections: int
    roi_scale: float = 1.0
    max_image_pixels: int = 0
    maps: tuple[MapSpec, ...] = field(default=())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the file's inputs, in order."""
        boxes = ("boxes",) if self.takes_boxes else ()
        return ("image", "image_size", *boxes, *(("classes",) if self.takes_classes else ()))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the file's outputs, in order."""
        found = () if self.takes_boxes else ("boxes", "scores", "classes")
        count = ("count",) if self.fixed and not self.takes_boxes else ()
        return (*found, *count, *(spec.name for spec in self.maps))

    def to_json(self) -> str:
        """As JSON text; of the maps what concerns results, not training."""
        content = asdict(self)
        content["maps"] = [{name: getattr(spec, name) for name in _SPEC_FIELDS} for spec in self.maps]
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str | None, path: str) -> ExportInfo:
        """Reads the metadata of a file.

        Raises:
            ValueError: there is none, or not of this form; names the file.
        """
        if not text:
            raise ValueError(f"{path!r} is not a model that bcnet exported: it has no metadata {KEY!r}")
        try:
            content: Mapping = json.loads(text)
            known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
            known["class_names"] = tuple(known.get("class_names", ()))
            known["maps"] = tuple(MapSpec(**spec) for spec in known.get("maps", ()))
            return cls(**known)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path!r}: its metadata {KEY!r} cannot be read: {error}") from error
