"""How far a dropped fraction may be off, by a stated probability of a false alarm.

Given keep masks and what fraction they should drop, says whether a right library could have drawn
them. Nothing here is random.
"""

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

    Masks that were drawn right fail with probability `false_alarm` at most, over the choice of
    their keys. The records must be independent, and by default nothing is assumed of the values in
    a record: their dropped fractions are n draws in [0, 1], whose mean is off by the empirical
    Bernstein bound of Maurer and Pontil at most, with V their sample variance and
    L = log(4 / false_alarm): sqrt(2 L V / n) + 7 L / (3 (n - 1)). Where each value drops on its own
    they are far more draws, of a known variance, and Bernstein's inequality says more. Expectations
    of 0 and 1 leave no room.

    Args:
      keep_mask: bool, True where kept, of shape (n, ...): one record a row.
      expected: the fraction that should be dropped, in [0, 1].
      independent_values: whether each value of the mask, as it is given, drops on its own and with
        the same probability, as in pixel mode.
      false_alarm: the probability that right masks fail, in (0, 1).

    Raises:
      AssertionError: if the masks drop more or less than the bound allows.
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range, or there are so few records that no mask could
        fail.

    Example:
      >>> import jax
      >>> from dropax import DropoutOperatorConfig, generate_random_params
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.2)
      >>> shapes = {"image": (512, 8, 8, 3)}
      >>> masks = generate_random_params(config, jax.random.key(0), shapes)["keep_mask"]
      >>> assert_dropped_fraction(masks, 0.2, independent_values=True)
      >>> assert_dropped_fraction(masks, 0.25, independent_values=True)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: the dropped fraction must be 0.25 up to 0.00749; got 0.1984. ...
    """
    owner = "assert_dropped_fraction"
    if not is_array(keep_mask) or keep_mask.dtype != np.bool_:
        raise TypeError(must(f"{owner}.keep_mask", "be an array of bools", keep_mask))
    require_kind(f"{owner}.independent_values", independent_values, bool, "a bool")
    if not keep_mask.shape or not keep_mask.size:
        constraint = "have records along its leading axis, and values in them"
        raise ValueError(must(f"{owner}.keep_mask", constraint, keep_mask))
    drops = ~np.asarray(keep_mask)
    draws = drops.ravel() if independent_values else drops.reshape(len(drops), -1).mean(axis=1)
    assert_mean(draws, expected, owner, variance_known=independent_values, false_alarm=false_alarm)


def assert_mean(
    draws: np.ndarray,
    expected: Any,
    owner: str,
    *,
    variance_known: bool = False,
    false_alarm: float = 1e-6,
) -> None:
    """Asserts that independent draws in [0, 1] have a mean in expectation.

    Args:
      draws: shape (n,).
      expected: their mean, in [0, 1].
      owner: whose arguments these are, for the error.
      variance_known: whether each is 0 or 1, so that the mean tells the variance.
      false_alarm: the probability that right draws fail, in (0, 1).

    Raises:
      AssertionError, TypeError, ValueError: as `assert_dropped_fraction`.
    """
    expected = expected.item() if is_array(expected) and expected.shape == () else expected
    for name, value in (("expected", expected), ("false_alarm", false_alarm)):
        if not is_number(value):
            raise TypeError(must(f"{owner}.{name}", "be a number", value))
    if not 0 <= expected <= 1:  # NaN fails the comparison too
        raise ValueError(must(f"{owner}.expected", "be in [0, 1]", expected))
    if not 0 < false_alarm < 1:
        raise ValueError(must(f"{owner}.false_alarm", "be in (0, 1)", false_alarm))
    count = len(draws)
    if expected in (0, 1):
        bound = 0.0
    elif variance_known:
        bound = float(count_bound(count, expected, false_alarm)) / count
    else:
        bound = mean_bound(draws, false_alarm)
    if bound >= max(expected, 1 - expected):
        constraint = f"hold enough records for a bound below {max(expected, 1 - expected):.4g}"
        raise ValueError(
            f"{owner}.keep_mask must {constraint}; got {count} draws, for a bound of {bound:.4g}."
        )
    mean = float(np.mean(draws, dtype=np.float64))
    if abs(mean - expected) > bound + 1e-7:  # what float32 rounds away
        raise AssertionError(
            f"the dropped fraction must be {expected:.6g} up to {bound:.3g}; got {mean:.4g}. "
            f"Masks drawn right are further off with a probability of {false_alarm:g} at most "
            f"({count} draws)."
        )


def count_bound(draws: int, probability: Any, false_alarm: float) -> np.ndarray:
    """Returns how far the sum of independent draws in [0, 1] may be off, by Bernstein's inequality.

    It holds for every number of draws. No draw in [0, 1] varies more than an event of the same
    probability.

    Args:
      draws: how many there are.
      probability: the mean of each.
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
    each side. It holds for every number of draws from 2 on.

    Args:
      draws: shape (n,), within an interval of length 1.
      false_alarm: the probability that the mean is further off.

    Returns:
      The bound; infinite for less than two draws.
    """
    count, share = len(draws), math.log(4 / false_alarm)
    if count < 2:
        return math.inf
    variance = float(np.var(draws, ddof=1, dtype=np.float64))
    return math.sqrt(2 * share * variance / count) + 7 * share / (3 * (count - 1))
