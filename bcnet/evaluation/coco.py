"""COCO evaluator: collects detections image by image and computes the registered metrics."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bcnet.distributed import gather_on_main_process, is_main_process, rank, world_size
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.metrics import evaluate_results
from bcnet.evaluation.registry import METRIC_REGISTRY
from bcnet.evaluation.report import format_report
from bcnet.evaluation.server_files import write_submissions
from bcnet.files import write_json, write_json_list
from bcnet.maps import RESULT_MAPS
from bcnet.structures import Detections
from bcnet.words import counted

if TYPE_CHECKING:
    from bcnet.data import DatasetInfo

logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"
METRICS_FILE = "metrics.json"


class CocoEvaluator:
    """Collects detections image by image and computes all metrics of `evaluate_results`.

    What is kept of an image is its COCO results (boxes and run-length encoded masks), nothing else.

    With several processes each one updates its own evaluator with its share of the images; `compute` is called
    by all of them, gathers the shares on rank 0 and returns the metrics there, an empty dict elsewhere.

    Args:
        dataset: a COCO annotation file, whose categories by rising id are the classes 0..K-1; or a
            `DatasetInfo` of one, which says the classes itself; or a `GroundTruth` (of other formats, or of amodal
            masks). One without annotations (test-dev) gives files for the server and no metrics.
        output_dir: folder for ``coco_instances_results.json`` and ``metrics.json`` of `compute`, or, of a test set
            without annotations, ``submission/`` (`write_submissions`); None writes nothing.
        max_detections: highest scoring detections per image and class that count.
        score_threshold: of the detections that are counted as true and false positives.
        metrics: names in `METRIC_REGISTRY`; none chooses all.
        olac_labels: COCO-OLAC's occlusion level by file name without suffix, see `read_olac_labels`.

    Raises:
        FileNotFoundError: no annotation file.
        ValueError: it is not a COCO file; an unknown metric.
    """

    def __init__(
        self,
        dataset: str | os.PathLike | DatasetInfo | GroundTruth,
        output_dir: str | os.PathLike | None = None,
        max_detections: int = 100,
        score_threshold: float = 0.5,
        metrics: Sequence[str] = (),
        olac_labels: Mapping[str, str] | None = None,
    ) -> None:
        METRIC_REGISTRY.chosen(metrics)  # an unknown name is an error now, not after the inference
        if isinstance(dataset, GroundTruth):
            self._ground_truth = dataset
        elif isinstance(dataset, (str, os.PathLike)):
            self._ground_truth = GroundTruth.from_file(dataset)
        else:
            self._ground_truth = GroundTruth.from_file(
                dataset.annotation_file, dataset.category_ids, dataset.class_names
            )
        self._output_dir = output_dir
        self._max_detections = max_detections
        self._score_threshold = score_threshold
        self._metrics = tuple(metrics)
        self._olac_labels = olac_labels
        self.reset()

    def reset(self) -> None:
        """Forgets every image."""
        self._results: dict[int | str, list[dict]] = {}
        self._has_masks = False

    def update(self, image_id: int | str, detections: Detections) -> None:
        """Adds the detections of one image, in that image's own pixels and with classes 0..K-1.

        Raises:
            ValueError: an image that the annotation file does not list, that was added before, or whose size is
                another one (detections that were not rescaled to the original image).
        """
        self.update_results(
            image_id,
            detections.image_size,
            detections.to_coco(image_id, self._ground_truth.category_ids, names=RESULT_MAPS),
            has_masks=detections.occludee_mask is not None,
        )

    def update_results(
        self, image_id: int | str, image_size: tuple[int, int], results: list[dict], *, has_masks: bool
    ) -> None:
        """Adds the COCO results of one image, as `Detections.to_coco` gives them; see `update`.

        Args:
            image_size: (H, W) of the image whose pixels the results are in.
            has_masks: whether the model predicts masks, which shows in the results only if there are any.
        """
        truth = self._ground_truth
        if image_id not in truth.images:
            raise ValueError(f"image {image_id!r} is not listed in {truth.source}")
        if image_id in self._results:
            raise ValueError(f"image {image_id!r} was added twice; its detections would count as false ones")
        if tuple(image_size) != truth.image_size(image_id):
            raise ValueError(
                f"the detections of image {image_id!r} are for (height, width) {tuple(image_size)}, but "
                f"{truth.source} says {truth.image_size(image_id)}; use Detections.rescaled"
            )
        self._has_masks |= has_masks
        self._results[image_id] = results

    def state(self) -> dict:
        """What this evaluator has collected, to be merged into another process' evaluator. Can be pickled."""
        return {"results": self._results, "has_masks": self._has_masks}

    def merge(self, states: list[dict]) -> None:
        """Adds the states of other evaluators. An image that is already present keeps its results.

        Distributed samplers may repeat an image to give all processes equally many.
        """
        for state in states:
            self._has_masks |= state["has_masks"]
            for image_id, results in state["results"].items():
                self._results.setdefault(image_id, results)

    def results(self) -> list[dict]:
        """COCO results of all images, in the order of the annotation file's image ids."""
        ordered = (self._results.get(image_id, ()) for image_id in self._ground_truth.image_ids)
        return [result for results in ordered for result in results]

    def compute(self) -> dict:
        """Gathers, writes the results file and computes the metrics.

        Returns:
            dict: as `evaluate_results` gives it, in percent and nan where there is no ground truth; metrics of
            masks are present only where detector and annotations have masks. Empty without annotations, where no image
            was added, and on every rank but 0.

        Raises:
            ValueError: the files for the server do not pass its checks.
        """
        if world_size() > 1:
            states = gather_on_main_process(self.state())
            if not is_main_process():
                return {}
            self.merge([state for source, state in enumerate(states) if source != rank()])
        truth, results = self._ground_truth, self.results()
        if not self._results:
            logger.warning("No image of %s was evaluated: there are no metrics", truth.source)
            return {}
        missing = len(truth.images) - len(self._results)
        if missing:
            logger.warning("%d of %d images of %s were not evaluated", missing, len(truth.images), truth.source)
        if self._output_dir is not None:
            path = os.path.join(self._output_dir, RESULTS_FILE)
            write_json_list(path, results)
            logger.info(
                "Wrote %s of %s to %s", counted(len(results), "result"), counted(len(self._results), "image"), path
            )
        if not truth.annotations:
            logger.info("%s has no annotations: no metrics, only the results", truth.source)
            if missing and self._output_dir is not None:
                logger.error("No files for COCO's server: of %d images there are no results", missing)
            elif self._output_dir is not None:
                folder = os.path.join(self._output_dir, "submission")
                for task, path in write_submissions(truth, results, folder).items():
                    logger.info("Wrote %s for COCO's server (%s); it has passed the server's checks", path, task)
            return {}
        metrics = evaluate_results(
            truth,
            results,
            source=counted(len(self._results), "image"),
            score_threshold=self._score_threshold,
            max_detections=self._max_detections,
            with_masks=self._has_masks,
            olac_labels=self._olac_labels,
            metrics=self._metrics,
        )
        logger.info("Metrics of %s\n%s", truth.source, format_report(metrics))
        if self._output_dir is not None:
            write_json(os.path.join(self._output_dir, METRICS_FILE), metrics)
        return metrics
