"""Study statistics: means, paired differences and verdicts over seeds."""

import math

import pytest

from studies.occlusion.plan import Run, StudyPlan
from studies.occlusion.statistics import Difference, by_seed, comparisons, difference, figure


def results(**arms):
    """Results whose mask AP is given by seed."""
    return {
        Run("d", "m", arm, seed): {"metrics": {"segm/AP": value}}
        for arm, values in arms.items()
        for seed, value in enumerate(values, start=1)
        if value is not None
    }


def test_differences_are_taken_seed_by_seed():
    found = difference(results(a=[10.0, 20.0, 30.0], b=[11.0, 22.0, 33.0]), "d", "m", "b", "a", "mask AP")
    assert found.by_seed == {1: 1.0, 2: 2.0, 3: 3.0}
    assert found.mean == 2.0 and found.deviation == 1.0
    assert found.spread == pytest.approx(11.0)  # the standard deviation of b, the larger one


def test_differences_use_only_common_seeds():
    found = difference(results(a=[10.0, None, 30.0], b=[11.0, 22.0]), "d", "m", "b", "a", "mask AP")
    assert found.by_seed == {1: 1.0}
    assert difference(results(a=[None, 1.0], b=[1.0]), "d", "m", "b", "a", "mask AP") is None


@pytest.mark.parametrize(
    ("by_seed", "spread", "verdict"),
    [
        ((1.0, 2.0, 3.0), 1.0, "gain"),
        ((-1.0, -2.0, -3.0), 1.0, "loss"),
        ((1.0, 2.0, 3.0), 2.0, "within spread"),  # the mean does not exceed the spread
        ((-0.1, 5.0, 5.0), 1.0, "within spread"),  # one seed has the opposite sign
        ((0.0, 5.0, 5.0), 1.0, "within spread"),
        ((5.0,), math.nan, "too few seeds"),
        ((5.0, 5.0), 1.0, "too few seeds"),
    ],
)
def test_no_gain_inside_the_spread_over_seeds(by_seed, spread, verdict):
    assert Difference(dict(enumerate(by_seed)), spread).verdict == verdict


def test_metrics_that_a_run_lacks_are_none():
    result = {
        "metrics": {"segm/AP": 5, "order/accuracy": None, "occlusion/levels/heavy/AP": 2.0},
        "true_boxes": {"all": {"mean_iou": 60.0}},
    }
    assert figure(result, "mask AP") == 5.0
    assert figure(result, "mask AP, heavy") == 2.0
    assert figure(result, "order") is None
    assert figure(result, "IoU in ground-truth boxes") == 60.0
    assert figure(result, "occluder IoU in ground-truth boxes") is None
    assert figure({"metrics": {}}, "IoU in ground-truth boxes, light") is None
    assert by_seed({Run("d", "m", "a", 1): result}, "d", "m", "a", "order") == {}


def test_a_gain_everywhere_is_no_gain_under_occlusion():
    def levels(none, heavy):
        return {"true_boxes": {"none": {"mean_iou": none}, "heavy": {"mean_iou": heavy}}}

    title = "IoU in ground-truth boxes, heavy minus none"
    assert figure(levels(60.0, 40.0), title) == -20.0
    assert figure({"true_boxes": {"heavy": {"mean_iou": 40.0}}}, title) is None
    both = {Run("d", "m", "a", 1): levels(60.0, 40.0), Run("d", "m", "b", 1): levels(65.0, 45.0)}
    assert difference(both, "d", "m", "b", "a", title).by_seed == {1: 0.0}
    assert difference(both, "d", "m", "b", "a", "IoU in ground-truth boxes, heavy").by_seed == {1: 5.0}


def test_ablations_are_compared_with_the_candidate_too():
    arms = {arm: {} for arm in ("plain", "bilayer", "no_gcn")}
    plan = StudyPlan((1,), {}, {}, arms, "plain", "bilayer", None, {})
    assert comparisons(plan) == [("bilayer", "plain"), ("no_gcn", "plain"), ("bilayer", "no_gcn")]
