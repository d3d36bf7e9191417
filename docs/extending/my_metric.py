"""A metric: the share of objects that are detected, by their size."""

import numpy as np

from bcnet.evaluation import METRIC_REGISTRY


@METRIC_REGISTRY.register(requires=("masks",))
def recall_by_size(inputs):
    """Share of objects, 0..1, with a detection of mask IoU 0.5 or more; small ones are below the median area."""
    objects = [annotation for annotation in inputs.ground_truth.annotations if not annotation["iscrowd"]]
    areas = np.array([annotation["area"] for annotation in objects])
    detected = np.array([annotation["id"] in inputs.matches for annotation in objects])
    small = areas < np.median(areas)
    return {"small": float(detected[small].mean()), "large": float(detected[~small].mean())}
