"""The statistical assertion: it lets right masks pass, and no others."""

import math

import numpy as np
import pytest

from bounds import assert_counts
from dropax.testing import assert_dropped_fraction
from dropax.testing.bounds import count_bound, mean_bound


def masks_of(rate, shape=(4096, 5, 5, 3), seed=0):
    return np.random.default_rng(seed).random(shape) >= rate


def boxes_of(rate, records=65536, seed=0):
    """Masks that drop all or nothing of a record: only records are independent."""
    kept = masks_of(rate, (records, 1), seed)
    return np.broadcast_to(kept, (records, 4))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("independent", [False, True])
def test_right_masks_pass(rate, independent):
    assert_dropped_fraction(masks_of(rate), rate, independent_values=independent)
    assert_dropped_fraction(boxes_of(rate), np.float32(rate))


@pytest.mark.parametrize("off", [-0.01, 0.01])
def test_masks_that_are_off_by_a_hundredth_do_not(off):
    text = r"the dropped fraction must be 0\.3 up to 0\.0[01]\d+; got 0\.(2|3)\d+"
    for masks, independent in ((masks_of(0.3 + off), True), (boxes_of(0.3 + 2 * off), False)):
        with pytest.raises(AssertionError, match=text):
            assert_dropped_fraction(masks, 0.3, independent_values=independent)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_certainties_leave_no_room(rate):
    masks = masks_of(rate)
    masks[17, 0, 0, 0] = not masks[17, 0, 0, 0]
    with pytest.raises(AssertionError, match=f"must be {rate:g} up to 0; got"):
        assert_dropped_fraction(masks, rate)


@pytest.mark.parametrize("independent", [False, True])
def test_false_alarms_are_no_more_than_was_said(independent):
    # Both bounds hold for any distribution, so that for the usual ones they are not reached.
    alarms = 0
    for seed in range(400):
        masks = masks_of(0.3, (200, 8), seed) if independent else boxes_of(0.3, 2000, seed)
        try:
            assert_dropped_fraction(masks, 0.3, independent_values=independent, false_alarm=0.5)
        except AssertionError:
            alarms += 1
    assert alarms <= 400 * 0.5 + float(count_bound(400, 0.5, 1e-6))
    assert alarms > 0, "the bound is so wide that nothing is caught"


def test_the_bounds_are_the_inequalities_they_name():
    draws = np.array([0.0, 0.5, 0.25, 1.0])
    share, variance = math.log(4 / 1e-3), np.var(draws, ddof=1)
    wanted = math.sqrt(2 * share * variance / 4) + 7 * share / (3 * 3)
    assert mean_bound(draws, 1e-3) == pytest.approx(wanted)
    assert mean_bound(draws[:1], 1e-3) == math.inf
    # The bound solves t^2 / (2 (variance + t / 3)) = log(2 / false alarm).
    bound = float(count_bound(1000, 0.2, 1e-3))
    assert bound**2 / (2 * (1000 * 0.16 + bound / 3)) == pytest.approx(math.log(2 / 1e-3))


def test_what_could_not_fail_is_refused():
    with pytest.raises(ValueError, match=r"hold enough records for a bound below 0\.7; got 20"):
        assert_dropped_fraction(masks_of(0.3, (20, 8)), 0.3)
    assert_dropped_fraction(masks_of(0.3, (200, 8)), 0.3, independent_values=True)


@pytest.mark.parametrize(
    ("masks", "options", "error", "text"),
    [
        ([True], {}, TypeError, r"keep_mask must be an array of bools; got \[True\]"),
        (np.ones((4, 4)), {}, TypeError, r"keep_mask must be an array of bools; got an array"),
        (np.bool_(True), {}, ValueError, r"keep_mask must have records along its leading axis"),
        (np.ones((0, 4), bool), {}, ValueError, r"keep_mask must have records along"),
        (masks_of(0.5), {"expected": "half"}, TypeError, r"expected must be a number; got 'half'"),
        (masks_of(0.5), {"expected": 1.5}, ValueError, r"expected must be in \[0, 1\]; got 1\.5"),
        (masks_of(0.5), {"expected": math.nan}, ValueError, r"expected must be in \[0, 1\]"),
        (masks_of(0.5), {"false_alarm": 0}, ValueError, r"false_alarm must be in \(0, 1\); got 0"),
        (masks_of(0.5), {"false_alarm": None}, TypeError, r"false_alarm must be a number"),
        (masks_of(0.5), {"independent_values": 1}, TypeError, r"independent_values must be a bool"),
    ],
)
def test_arguments_are_checked(masks, options, error, text):
    with pytest.raises(error, match=text):
        assert_dropped_fraction(masks, **{"expected": 0.5, **options})


def test_the_tests_own_bound_is_the_public_one():
    drops = ~masks_of(0.3, (1000, 9))
    assert_counts(drops.sum(axis=0), 1000, 0.3)
    with pytest.raises(AssertionError, match="off by up to"):
        assert_counts(drops.sum(axis=0), 1000, 0.6)
