"""Command-line inputs: resolves paths, folders, glob patterns, URLs and data set names to images and videos."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable

from bcnet.data.catalog import dataset_names, load_dataset
from bcnet.data.image_source import is_url
from bcnet.data.images import IMAGE_SUFFIXES
from bcnet.data.videos import is_webcam

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".ogv"),
    *(".mpg", ".mpeg", ".m2ts", ".mts", ".wmv", ".flv"),
)


def find_images(inputs: Iterable[str], *, videos: bool = False) -> list[str]:
    """Resolves command-line inputs to image files, in order and without duplicates.

    Files that the search of a folder skips are logged, counted by suffix.

    Args:
        inputs: files, folders (searched with all their subfolders, by file suffix), glob patterns, http(s) URLs, and
            names or specs of data sets.
        videos: also find video files in folders, and pass "webcam" and "webcam:N" (the N-th camera) through.

    Raises:
        FileNotFoundError: an input is none of these, or is a pattern or folder without images; names it.
        KeyError, ValueError: from `bcnet.data.load_dataset`.
    """
    files: dict[str, None] = {}
    for name in inputs:
        files.update(dict.fromkeys(_resolve(name, videos)))
    return list(files)


def _resolve(name: str, videos: bool) -> list[str]:
    if is_url(name) or (videos and is_webcam(name)):
        return [name]
    if os.path.isdir(name):
        return _images_in_folder(name, IMAGE_SUFFIXES + VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES)
    if os.path.exists(name):
        return [name]
    files = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
    if not files and (name in dataset_names() or ":" in name):
        files = [record.file_name for record in load_dataset(name)[0]]
    if not files:
        raise FileNotFoundError(
            f"no images found for the input {name!r}: it is not a file, a folder or pattern with images, or a data set "
            "(config keys with new values go last, after another option)"
        )
    return files


def _images_in_folder(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    files = [os.path.join(parent, file) for parent, _, names in os.walk(folder) for file in names]
    images = sorted(file for file in files if file.lower().endswith(suffixes))
    others = (file for file in files if not file.lower().endswith(suffixes))
    counts = Counter(os.path.splitext(file)[1].lower() or "no suffix" for file in others)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    skipped = ", ".join(f"{suffix} ({count})" for suffix, count in by_count)
    if not images:
        raise FileNotFoundError(f"no images found for the input {folder!r}: the folder holds {skipped or 'no files'}")
    if skipped:
        logger.warning("%s: skipped files of other types: %s", folder, skipped)
    return images
