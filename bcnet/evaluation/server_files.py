"""Files for COCO's evaluation server, for test sets whose annotations are not public.

The server takes a zip with one json in it, both named ``detections_<test set>_<algorithm>_results``, and scores boxes
and masks as two separate submissions.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bcnet.data.findings import Findings
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.results import uniform_result
from bcnet.files import atomic_write, write_json_list

MAX_PER_IMAGE = 100  # of the server
TASKS = {"bbox": "bbox", "segm": "segmentation"}  # what is scored, and the key of a result that it reads


def write_submissions(
    ground_truth: GroundTruth, results: Sequence[dict], output_dir: str | os.PathLike, algorithm: str = "bcnet"
) -> dict[str, str]:
    """Writes and checks ``<output_dir>/bbox/<name>.zip`` and, of results with masks, ``<output_dir>/segm/<name>.zip``.

    Each has the json beside it. A result keeps the keys that its task needs: masks come without boxes, because
    the server would take small, medium and large from the boxes where there are any. Of an image with more than
    100 results the highest scoring 100 are kept.

    Args:
        ground_truth: of the test set: its images and categories.
        results: COCO result dicts.
        output_dir: made when missing.
        algorithm: the method's name; letters, digits and "-".

    Returns:
        dict: path of the checked zip by task, "bbox" and "segm".

    Raises:
        ValueError: a name that the server does not take, or what `check_submission` finds.
    """
    name = submission_name(ground_truth.source, algorithm)
    results = _highest_scoring(results)
    has_masks = bool(results) and all("segmentation" in result for result in results)
    written = {}
    for task in TASKS if has_masks else ("bbox",):
        folder = os.path.join(output_dir, task)
        path = os.path.join(folder, f"{name}.json")
        keys = ("image_id", "category_id", TASKS[task], "score")
        write_json_list(path, ({key: result[key] for key in keys} for result in results))
        with atomic_write(os.path.join(folder, f"{name}.zip"), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(path, f"{name}.json")
            file.flush()
            check_submission(file.name, ground_truth, task, name)
        written[task] = os.path.join(folder, f"{name}.zip")
    return written


def submission_name(annotation_file: str, algorithm: str) -> str:
    """The name that the server demands, without suffix, such as ``detections_test-dev2017_bcnet_results``.

    The test set is what follows ``image_info_`` in the annotation file's name.

    Raises:
        ValueError: the algorithm's name has other characters than letters, digits and "-".
    """
    stem = os.path.splitext(os.path.basename(annotation_file))[0]
    test_set = re.sub(r"[^\w-]+", "-", stem.removeprefix("image_info_"))
    if not re.fullmatch(r"[A-Za-z0-9-]+", algorithm):
        raise ValueError(f"the algorithm's name is {algorithm!r}; the server takes letters, digits and '-'")
    return f"detections_{test_set}_{algorithm}_results"


def check_submission(path: str | os.PathLike, ground_truth: GroundTruth, task: str, name: str | None = None) -> int:
    """Reads a submission as the server would, one result at a time.

    Args:
        path: a zip that `write_submissions` made (one result on each line of its json).
        ground_truth: of the test set.
        task: "bbox" or "segm".
        name: the zip's name without suffix; by default its own.

    Returns:
        Number of results.

    Raises:
        ValueError: not one json of the zip's name in the zip; an unknown image or category, a score or box that is
            not finite, an RLE that cannot be decoded or is not of its image's size, more than 100 results of
            an image. Names the file, the line and the value.
    """
    name = os.path.splitext(os.path.basename(path))[0] if name is None else name
    per_image: Counter = Counter()
    findings = Findings(name)
    with zipfile.ZipFile(path) as archive:
        if archive.namelist() != [f"{name}.json"]:
            raise ValueError(f"{path} must hold {name}.json and nothing else, it holds {archive.namelist()}")
        with archive.open(f"{name}.json") as file:
            for line, result in _results(io.TextIOWrapper(file, encoding="utf-8"), f"{name}.json"):
                try:
                    if uniform_result(result, ground_truth, findings, f"line {line}").get(TASKS[task]) is None:
                        raise ValueError(f"it has no {TASKS[task]}")
                except ValueError as error:
                    raise ValueError(f"{name}.json: line {line}: {error}") from error
                per_image[result["image_id"]] += 1
    crowded = [image_id for image_id, count in per_image.items() if count > MAX_PER_IMAGE]
    if crowded:
        raise ValueError(
            f"{name}.json: {len(crowded)} images have more than {MAX_PER_IMAGE} results, which is the server's limit: "
            f"image {crowded[0]!r} has {per_image[crowded[0]]}"
        )
    return per_image.total()


def _results(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict]]:
    """Numbered entries of a json list with one entry per line, so that a large file need not fit into memory."""
    last = ""
    for number, line in enumerate(lines, start=1):
        last = line.strip() or last
        if last in ("[", "]", "[]", ""):
            continue
        try:
            yield number, json.loads(last.removesuffix(","))
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}: line {number} is not one result: {error}") from error
    if not last.endswith("]"):
        raise ValueError(f"{name} is cut off: its last line is {last[:80]!r}")


def _highest_scoring(results: Sequence[dict]) -> list[dict]:
    """The results in their order, less those beyond the limit of an image."""
    by_image: dict = {}
    for index, result in enumerate(results):
        by_image.setdefault(result["image_id"], []).append(index)
    kept = []
    for indices in by_image.values():
        kept += sorted(indices, key=lambda index: -results[index]["score"])[:MAX_PER_IMAGE]
    return [results[index] for index in sorted(kept)]
