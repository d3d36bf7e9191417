"""Whatever a results file holds, it is evaluated or refused with a ValueError that names the entry."""

import copy
import json
import random

import pytest
from results_samples import HEIGHT, WIDTH, compressed, ground_truth, polygon, results, runs

from bcnet.evaluation import GroundTruth, evaluate_results, uniform_results

SIZE = [HEIGHT, WIDTH]
JUNK = [
    *(None, [], {}, "", 0, -1, 1.5, float("inf"), float("nan"), True, "x", 10**400, [[]], [None], {"a": 1}),
    *([1, 2, 3, 4], [1, 2, 3, "4"], [1, 2, 3, 1e308], [1, 2, 3, 4, 5, 6]),
    *([[1, 2, 3, 4, 5, 6]], [[1, 2, "a", 4, 5, 6]], [[1, 2, None, 4, 5, 6]], [[[1, 2, 3, 4, 5, 6]]], [[True] * 6]),
    *({"size": SIZE, "counts": counts} for counts in ("", "é\ud800", [2000], [1e3, 1e3], [[1]], [10**30, 1], None)),
    *({"size": SIZE}, {"size": "ab", "counts": [1]}),
]
KEYS = ("bbox", "segmentation", "score", "image_id", "category_id", "occluded_by", "number", "depth")


@pytest.mark.parametrize("seed", range(4))
def test_malformed_results_are_value_errors(seed):
    rng = random.Random(seed)
    truth = GroundTruth.from_dict(ground_truth())
    outcomes = {"evaluated": 0, "refused": 0}
    for _ in range(60):
        entries = copy.deepcopy(results(rng.choice([compressed, polygon, runs, None])))
        for _ in range(rng.choice([1, 1, 2])):
            entry = rng.choice(entries)
            key = rng.choice(KEYS)
            if rng.random() < 0.15:
                entry.pop(key, None)
            else:
                entry[key] = rng.choice(JUNK)
        try:
            uniform = uniform_results(entries, truth, "results.json")
        except ValueError as error:
            assert str(error).startswith("results.json is malformed:\n  result ")
            outcomes["refused"] += 1
        else:
            metrics = evaluate_results(truth, uniform, metrics=["bbox", "segm", "operating_point"])
            json.dumps(metrics)
            outcomes["evaluated"] += 1
    assert min(outcomes.values()) > 5
