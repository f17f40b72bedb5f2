"""The statistical assertions: they let right masks pass, and no others."""

import math

import jax
import numpy as np
import pytest

from bounds import assert_counts
from dropax.testing import assert_dropped_fraction, assert_masks
from dropax.testing.masks import count_bound, entries_fault, mean_bound


def masks_of(rate, shape=(4096, 5, 5, 3), seed=0):
    return np.random.default_rng(seed).random(shape) >= rate


def boxes_of(rate):
    """Masks that drop all or nothing of a record: only records are independent."""
    return np.broadcast_to(masks_of(rate, (65536, 1)), (65536, 4))


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
    masks[17, 0, 0, 0] ^= True
    with pytest.raises(AssertionError, match=f"must be {rate:g} up to 0; got"):
        assert_dropped_fraction(masks, rate)


def test_false_alarms_are_no_more_than_was_said():
    # The bound holds for any distribution, so that for the usual ones it is not reached.
    draws = [masks_of(0.7, 200, seed) for seed in range(400)]
    off = [abs(drops.mean() - 0.3) > mean_bound(drops, 0.9) for drops in draws]
    assert 0 < sum(off) <= 400 * 0.9


def test_the_bounds_are_the_inequalities_they_name():
    draws = np.array([0.0, 0.5, 0.25, 1.0])
    share, variance = math.log(4 / 1e-3), np.var(draws, ddof=1)
    wanted = math.sqrt(2 * share * variance / 4) + 7 * share / (3 * 3)
    assert mean_bound(draws, 1e-3) == pytest.approx(wanted)
    assert mean_bound(draws[:1], 1e-3) == math.inf
    # The bound solves t^2 / (2 (variance + t / 3)) = log(2 / false alarm).
    bound = float(count_bound(1000, 0.2, 1e-3))
    assert bound**2 / (2 * (1000 * 0.16 + bound / 3)) == pytest.approx(math.log(2 / 1e-3))


# fmt: off
REFUSED = [
    (masks_of(0.3, (20, 8)), {"expected": 0.3}, r"hold enough records for a bound"),
    ([True], {}, r"keep_mask must be an array of bools; got \[True\]"),
    (np.bool_(True), {}, r"keep_mask must have records along its leading axis"),
    (masks_of(0.5), {"expected": "half"}, r"expected must be a number; got 'half'"),
    (masks_of(0.5), {"expected": 1.5}, r"expected must be in \[0, 1\]"),
    (masks_of(0.5), {"false_alarm": 0}, r"false_alarm must be in \(0, 1\); got 0"),
    (masks_of(0.5), {"independent_values": 1}, r"independent_values must be a bool"),
]
# fmt: on


@pytest.mark.parametrize(("masks", "options", "text"), REFUSED)
def test_arguments_are_checked(masks, options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        assert_dropped_fraction(masks, **{"expected": 0.5, **options})
    with pytest.raises(TypeError, match=r"assert_masks\.draw must return bools of shape \(4096,"):
        assert_masks(lambda keys: keys, 0.3)


def test_the_tests_own_bound_is_the_public_one():
    drops = ~masks_of(0.3, (1000, 9))
    assert_counts(drops.sum(axis=0), 1000, 0.3)
    with pytest.raises(AssertionError, match="off by up to"):
        assert_counts(drops.sum(axis=0), 1000, 0.6)


def drawer(change, shape=(6, 8, 3)):
    def draw(keys):
        return jax.vmap(lambda key: change(jax.random.bernoulli(key, 0.7, shape)))(keys)

    return draw


@pytest.mark.parametrize("shape", [(6, 8, 3), (20, 20, 3)])  # the second is sampled
def test_masks_of_a_right_draw_pass_for_many_seeds(shape):
    for seed in range(10):
        draw = drawer(lambda mask: mask, shape)
        assert_masks(draw, 0.3, independent=True, records=1024, seed=seed)


DEPENDENT = [
    (lambda mask: mask & mask[:, ::-1], r"must be 0\.3 up to"),
    (lambda mask: mask.at[2, 3, 1].set(True), r"position \[2, 3, 1\] drops 0 of the time"),
    (lambda mask: mask.at[1:].set(mask[:-1]), "are not independent: both drop 0.[23]"),
    (lambda mask: mask.at[4:].set(mask[:2]), "are not independent"),
    (lambda mask: mask.at[:, 4:].set(mask[:, :4][:, ::-1]), "are not independent"),
    (lambda mask: mask.at[:, :, 2].set(mask[:, :, 0]), r"positions \[\d, \d, 0\] and"),
]


@pytest.mark.parametrize(("change", "text"), DEPENDENT)
def test_masks_that_are_not_independent_are_told(change, text):
    with pytest.raises(AssertionError, match=text):
        assert_masks(drawer(change), 0.3, independent=True)


def test_masks_that_repeat_are_told():
    def draw(keys):
        pool = jax.vmap(lambda key: jax.random.key(jax.random.bits(key, dtype=np.uint16)))(keys)
        return drawer(lambda mask: mask)(pool)

    with pytest.raises(AssertionError, match=r"4096 keys drew only \d+ different masks"):
        assert_masks(draw, 0.3, independent=True)


def test_entries_of_one_draw_are_told_and_those_that_follow_on_purpose_are_not():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 512)).astype(np.float32)
    right = {"one": one, "two": two, "rest": 1 - one, "flip": rng.random(512) < 0.5}
    corners = rng.integers(0, 9, 512)
    assert entries_fault({**right, "top": corners, "bottom": corners + 3}) is None
    for wrong in (one * 2 - 1, -2 * one, one < 0.5, one):
        assert "come from one draw" in entries_fault({**right, "wrong": wrong})
    assert "come from one draw" in entries_fault({"top": corners, "left": corners})
