"""How far a dropped fraction may be off, by a stated probability of a false alarm."""

import math
from typing import Any

import numpy as np

from dropax.kit.errors import is_array, is_number, must, require_kind


def assert_dropped_fraction(
    keep_mask: Any,
    expected: Any,
    *,
    independent_values: bool = False,
    false_alarm: float = 1e-6,
) -> None:
    """Asserts that keep masks drop a fraction in expectation.

    The records must be independent; of the values in a record nothing is assumed by default, and
    the empirical Bernstein bound (`mean_bound`) holds for the fractions of the records.

    Args:
      keep_mask: bool, True where kept, of shape (n, ...): one record a row.
      expected: the fraction that should be dropped, in [0, 1]; 0 and 1 leave no room.
      independent_values: whether each value of the mask, as it is given, drops on its own and with
        the same probability, as in pixel mode: a tighter bound.
      false_alarm: the probability that right masks fail, over the choice of their keys.

    Raises:
      AssertionError: if the masks drop more or less than the bound allows.
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range, or there are so few records that no mask could
        fail.

    Example:
      >>> masks = np.random.default_rng(0).random((512, 8, 8, 3)) >= 0.2
      >>> assert_dropped_fraction(masks, 0.2, independent_values=True)
      >>> assert_dropped_fraction(masks, 0.25, independent_values=True)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: the dropped fraction must be 0.25 up to 0.00749; got 0.2... ...
    """
    owner = "assert_dropped_fraction"
    if not is_array(keep_mask) or keep_mask.dtype != np.bool_:
        raise TypeError(must(f"{owner}.keep_mask", "be an array of bools", keep_mask))
    require_kind(f"{owner}.independent_values", independent_values, bool, "a bool")
    if not keep_mask.shape or not keep_mask.size:
        constraint = "have records along its leading axis, and values in them"
        raise ValueError(must(f"{owner}.keep_mask", constraint, keep_mask))
    expected = expected.item() if is_array(expected) and expected.shape == () else expected
    for name, value in (("expected", expected), ("false_alarm", false_alarm)):
        if not is_number(value):
            raise TypeError(must(f"{owner}.{name}", "be a number", value))
    if not 0 <= expected <= 1:  # NaN fails the comparison too
        raise ValueError(must(f"{owner}.expected", "be in [0, 1]", expected))
    if not 0 < false_alarm < 1:
        raise ValueError(must(f"{owner}.false_alarm", "be in (0, 1)", false_alarm))
    drops = ~np.asarray(keep_mask)
    draws = drops.ravel() if independent_values else drops.reshape(len(drops), -1).mean(axis=1)
    bound, most = (
        _bound(draws, expected, independent_values, false_alarm),
        max(expected, 1 - expected),
    )
    if bound >= most:
        constraint = f"hold enough records for a bound below {most:.4g}"
        raise ValueError(must(f"{owner}.keep_mask", constraint, f"a bound of {bound:.4g}"))
    fault = fraction_fault(draws, expected, false_alarm, variance_known=independent_values)
    if fault is not None:
        raise AssertionError(f"{fault}.")


def _bound(draws: np.ndarray, expected: float, variance_known: bool, false_alarm: float) -> float:
    if expected in (0, 1):
        return 0.0
    if variance_known:
        return float(count_bound(len(draws), expected, false_alarm)) / len(draws)
    return mean_bound(draws, false_alarm)


def fraction_fault(
    draws: np.ndarray, expected: float, false_alarm: float, *, variance_known: bool
) -> str | None:
    """Says how the mean of independent draws in [0, 1] is off, or returns None.

    Args:
      draws: shape (n,).
      expected: their mean, in [0, 1]; 0 and 1 leave no room.
      false_alarm: the probability that right draws are called wrong.
      variance_known: whether each is 0 or 1, so that the mean tells the variance.
    """
    bound = _bound(draws, expected, variance_known, false_alarm)
    mean = float(np.mean(draws, dtype=np.float64))
    if abs(mean - expected) <= bound + 1e-7:  # what float32 rounds away
        return None
    return (
        f"the dropped fraction must be {expected:.6g} up to {bound:.3g}; got {mean:.4g}. Masks "
        f"drawn right are further off with a probability of {false_alarm:g} at most "
        f"({len(draws)} draws)"
    )


def count_bound(draws: int, probability: Any, false_alarm: float) -> np.ndarray:
    """Returns how far the sum of independent draws in [0, 1] may be off, by Bernstein's inequality.

    Args:
      draws: how many there are, any number.
      probability: the mean of each. No draw varies more than an event of the same probability.
      false_alarm: the probability that the sum is further off.

    Returns:
      The bound, in the shape of `probability`.
    """
    share = math.log(2 / false_alarm)
    probability = np.asarray(probability, np.float64)
    variance = draws * probability * (1 - probability)
    return np.asarray(share / 3 + np.sqrt(share**2 / 9 + 2 * share * variance))


def mean_bound(draws: np.ndarray, false_alarm: float) -> float:
    """Returns how far the mean of independent draws may be off, by their own variance.

    The empirical Bernstein bound, Maurer and Pontil, 2009, arXiv:0907.3740, theorem 4, once for
    each side. The draws lie within an interval of length 1. Infinite for less than two draws.
    """
    count, share = len(draws), math.log(4 / false_alarm)
    if count < 2:
        return math.inf
    variance = float(np.var(draws, ddof=1, dtype=np.float64))
    return math.sqrt(2 * share * variance / count) + 7 * share / (3 * (count - 1))
