"""Writers of data sets in annotation tools' formats, by name: COCO, YTVIS, labelme, YOLO, label images, layered TIFF.

A writer takes the records of any reader, so that each format can be converted to each.
"""

from __future__ import annotations

from bcnet.data.exporters.coco import write_coco
from bcnet.data.exporters.label_images import write_label_images, write_layered_tiff
from bcnet.data.exporters.labelme import write_labelme
from bcnet.data.exporters.yolo import write_yolo
from bcnet.data.exporters.ytvis import write_ytvis
from bcnet.registry import Registry

# Called as ``write(records, info, output)``; gives what the format cannot hold, counted by what it is.
WRITER_REGISTRY = Registry("WRITER", key="the format to write", kind="writer")
WRITER_REGISTRY.register(write_coco, name="coco")
WRITER_REGISTRY.register(write_labelme, name="labelme")
WRITER_REGISTRY.register(write_yolo, name="yolo")
WRITER_REGISTRY.register(write_label_images, name="label-images")
WRITER_REGISTRY.register(write_layered_tiff, name="layered-tiff")
WRITER_REGISTRY.register(write_ytvis, name="ytvis")
FILE_FORMATS = ("coco", "ytvis")  # their output is one json; that of the others is a folder

__all__ = ["FILE_FORMATS", "WRITER_REGISTRY"]
