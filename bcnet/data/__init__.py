"""Data sets: names, readers, the mapper to the model's input, and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.data.catalog import dataset_files, dataset_info, dataset_names, dataset_root, load_dataset, register_dataset
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.data.image_source import ImageSource, image_array
    from bcnet.data.images import UnreadableImageError, read_image
    from bcnet.data.inputs import find_images
    from bcnet.data.loaders import build_test_loader, build_train_loader
    from bcnet.data.mapper import DatasetMapper

__all__ = [
    "DatasetInfo",
    "DatasetMapper",
    "ImageRecord",
    "ImageSource",
    "InstanceRecord",
    "UnreadableImageError",
    "build_test_loader",
    "build_train_loader",
    "dataset_files",
    "dataset_info",
    "dataset_names",
    "dataset_root",
    "find_images",
    "image_array",
    "load_dataset",
    "read_image",
    "register_dataset",
]

# Everything that needs torch or reads images. Reading annotations does not.
__getattr__ = lazy_attributes(
    __name__,
    {
        "DatasetMapper": "mapper",
        "ImageSource": "image_source",
        "UnreadableImageError": "images",
        "build_test_loader": "loaders",
        "build_train_loader": "loaders",
        "find_images": "inputs",
        "image_array": "image_source",
        "read_image": "images",
    },
)
