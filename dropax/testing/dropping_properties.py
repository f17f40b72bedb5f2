"""What a transform that drops values must do.

These properties need to know which values were kept: from the entry "keep_mask" of the random
params, or from the caller. That the mask is what happens is a property of its own.
"""

import math

import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.kit.fields import get_field
from dropax.regions import Channel
from dropax.sampling import may_skip
from dropax.testing.bounds import assert_mean, mean_bound
from dropax.testing.properties import BrokenError, Property, property_of, require_same
from dropax.testing.trials import Trial


def _drops(trial: Trial) -> bool:
    return trial.masks is not None


def _has_rate(trial: Trial) -> bool:
    return _drops(trial) and hasattr(trial.config, trial.transform.rate_field)


def _poisoned(trial: Trial, bad: float) -> Trial:
    """Returns a trial with something not finite wherever a value is dropped."""
    clean = trial.in_float()
    images = np.asarray(clean.images)
    return clean.with_images(np.where(trial.masks, images, images.dtype.type(bad)))


def _require_finite(values: np.ndarray, masks: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        lost = ~np.isfinite(values)
        where = "a dropped" if (lost & ~masks).any() else "a kept"
        at = [int(index) for index in np.argwhere(lost & (masks == (where == "a kept")))[0]]
        raise BrokenError(f"{what} is {values[tuple(at)]} at {where} value, {at}")


@property_of("a product with the mask, which keeps NaN; select: jnp.where(mask, x, fill)", _drops)
def nothing_is_left_under_a_dropped_value(trial: Trial) -> None:
    """NaN and infinity under a dropped value are gone, and touch no other."""
    masks = trial.masks
    clean = trial.in_float().result
    for bad in (math.nan, math.inf):
        poisoned = _poisoned(trial, bad)
        result = poisoned.result
        what = f"with {bad} under what is dropped, the result"
        _require_finite(result, masks, what)
        # XLA may make a select of a product with a mask, here and now: it promises no such thing.
        at = int(np.argmin(masks.reshape(len(masks), -1).sum(axis=1)))
        _require_finite(poisoned.uncompiled_result(at), masks[at], f"without jit, {what}")
        before, after = (np.where(masks, values, 0) for values in (clean, result))
        what = f"with and without {bad} under what is dropped, kept values"
        require_same(before, after, what, exact=False)


def _is_clipped(trial: Trial) -> bool:
    """Says whether the config's clip range changes images that are left alone."""
    images, clip = np.asarray(trial.images), getattr(trial.config, "clip_range", None)
    return clip is not None and not (images.min() >= clip[0] and images.max() <= clip[1])


def _has_two_values(trial: Trial) -> bool:
    """Says whether images hold values so far apart that no rounding makes them the same."""
    images = np.asarray(trial.images).astype(np.float64)
    low, high = images.min(), images.max()
    apart = bool(np.isfinite(images).all() and high - low > np.abs(images).max() / 50)
    return _drops(trial) and apart and not _is_clipped(trial)


@property_of("an apply that drops other values than the mask says, or none at all", _has_two_values)
def kept_values_are_used(trial: Trial) -> None:
    """The result at a kept value depends on what was there."""
    images = np.asarray(trial.images)
    low, high = images.min(), images.max()
    middle = float(low) / 2 + float(high) / 2
    changed = trial.with_images(np.where(images.astype(np.float64) > middle, low, high))
    unused = trial.masks & (trial.result == changed.result)
    if unused.any():
        at = [int(index) for index in np.argwhere(unused)[0]]
        raise BrokenError(f"the value at {at} is kept, but the result is the same for other images")


@property_of("a division by what can be 0, such as 1 - rate, even in a branch not taken", _drops)
def gradient_is_finite(trial: Trial) -> None:
    """Gradients are finite at every rate, NaN under dropped values included."""
    trials = [trial]
    if _has_rate(trial):
        trials += [trial.with_rate(0.0), trial.with_rate(1.0)]
    for each in trials:
        masks = each.masks
        for shown in (each.in_float(), _poisoned(each, math.nan)):
            arguments = (shown.data, shown.states, each.params)
            gradient = shown.transform.gradient(shown.config, each.target, each.field, *arguments)
            rate = getattr(each.config, each.transform.rate_field, None)
            _require_finite(np.asarray(gradient), masks, f"at rate {rate}, the gradient")


@property_of(
    "apply writing to field_key where a target_key is set, or not at all",
    lambda trial: hasattr(trial.config, "target_key"),
)
def target_key_is_honoured(trial: Trial) -> None:
    """The result goes under target_key, and field_key stays as it was."""
    aimed = trial.with_config(target_key="result of.check_transform")
    plain = trial.with_config(target_key=None)
    before = np.asarray(trial.images)
    out, _ = trial.transform.apply_each(aimed.config, trial.data, trial.states, trial.params)
    try:
        result = get_field(out, aimed.target)
    except KeyError as error:
        raise BrokenError(f"with target_key={aimed.target!r}, {error.args[0]}") from error
    kept = np.asarray(get_field(out, trial.field))
    require_same(before, kept, "with a target_key, field_key before and after")
    require_same(plain.result, result, "the results with and without a target_key", exact=False)


@property_of("uniform <= rate, where uniform may be 0; or a rate that is kept off 0", _has_rate)
def rate_0_keeps_all(trial: Trial) -> None:
    """At rate 0 every value is kept, and comes out as it was."""
    never = trial.with_rate(0.0)
    most = float(np.asarray(never.tally.fractions).max())
    if most > 0:
        raise BrokenError(f"a record drops {most:.4g} of its values at rate 0")
    if not _is_clipped(trial):
        require_same(np.asarray(trial.images), never.result, "at rate 0, the image and the result")


@property_of("uniform < rate that is kept off 1 for a division's sake", _has_rate)
def rate_1_drops_all(trial: Trial) -> None:
    """At rate 1 no value is kept, but those that the config keeps at any rate."""
    ever = trial.with_rate(1.0)
    expected = ever.expected_fraction()
    fractions = np.asarray(ever.tally.fractions)
    if expected is not None:
        off = float(np.abs(fractions - expected).max())
        if off > 1e-6:
            raise BrokenError(f"a record's dropped fraction is {off:.4g} off {expected:.6g}")
    result = _poisoned(ever, math.nan).result
    _require_finite(result, ever.masks, "at rate 1, with NaN under all, the result")


def _has_expectation(trial: Trial) -> bool:
    return _drops(trial) and trial.expected_fraction() is not None


@property_of(
    "a rate that is the fraction kept, or borders, overlaps and rounding that are not counted",
    _has_expectation,
)
def dropped_fraction_is_the_rate(trial: Trial) -> None:
    """The rate is the dropped fraction in expectation."""
    trials = [trial, trial.with_rate(0.5)] if _has_rate(trial) else [trial]
    for each in trials:
        try:
            assert_mean(
                np.asarray(each.tally.fractions),
                each.expected_fraction(),
                "check_transform",
                false_alarm=each.false_alarm / len(trials),
            )
        except AssertionError as error:
            raise BrokenError(str(error).rstrip(".")) from error


def _channels_are_free(trial: Trial) -> bool:
    """Says whether channels drop each on its own: no common rate, no least number of them."""
    config = trial.config
    if not _drops(trial) or trial.tally.covariances is None:
        return False
    if isinstance(getattr(config, trial.transform.rate_field, None), tuple):
        return False
    if isinstance(config, DropoutOperatorConfig):
        least = isinstance(config.region, Channel) and config.region.min_kept
        return not (may_skip(config) or least)
    return True


@property_of(
    "one draw for all channels in a mask of full shape (give it one channel), or one key for each",
    _channels_are_free,
)
def channels_are_uncorrelated(trial: Trial) -> None:
    """Where each channel has a mask of its own, that says nothing of another channel's."""
    covariances = np.asarray(trial.tally.covariances)
    for number, draws in enumerate(covariances.T):
        bound = mean_bound(draws, trial.false_alarm / covariances.shape[1])
        mean = float(draws.mean(dtype=np.float64))
        if abs(mean) > bound:
            other = (number + 1) % max(2, covariances.shape[1])
            raise BrokenError(
                f"the drops of channels {number} and {other} have a covariance of {mean:.4g}, "
                f"where 0 up to {bound:.3g} is allowed"
            )


DROPPING: tuple[Property, ...] = (
    nothing_is_left_under_a_dropped_value,
    rate_0_keeps_all,
    rate_1_drops_all,
    gradient_is_finite,
    kept_values_are_used,
    target_key_is_honoured,
    dropped_fraction_is_the_rate,
    channels_are_uncorrelated,
)
