"""What to expect, and what came."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES, config_of
from dropax import (
    Channel,
    Pixel,
    dropped_fraction,
    expected_dropped_fraction,
    generate_random_params,
)

RATES = [0.0, 0.02, 0.3, 0.9, 1.0]


@pytest.mark.parametrize(
    "mode", [mode for name, mode in MODES.items() if "kept" not in name], ids=str
)
def test_the_rate_is_expected_in_every_mode(mode):
    for rate in RATES:
        expected = expected_dropped_fraction(config_of(mode, dropout_rate=rate), (6, 5, 3))
        assert float(expected) == pytest.approx(rate, abs=2**-23)


@pytest.mark.parametrize("channels", [1, 3, 200])
def test_fewer_are_expected_where_channels_must_be_kept(channels):
    for least in {0, 1, channels // 2, channels}:
        for rate in RATES:
            config = config_of(Channel(min_kept=least), dropout_rate=rate)
            chances = [
                math.comb(channels, n) * rate**n * (1 - rate) ** (channels - n)
                for n in range(channels + 1)
            ]
            mean = sum(chance * min(n, channels - least) for n, chance in enumerate(chances))
            found = float(expected_dropped_fraction(config, (4, 4, channels)))
            assert found == pytest.approx(mean / channels, abs=1e-5)


def test_ranges_count_by_their_mean_and_records_left_alone_count():
    config = config_of("box", dropout_rate=(0.2, 0.6), apply_probability=0.5)
    assert float(expected_dropped_fraction(config, (8, 8, 3))) == pytest.approx(0.2, abs=1e-6)


def test_a_traced_rate_is_taken():
    fraction = jax.jit(lambda config: expected_dropped_fraction(config, (8, 8, 3)))
    for rate in (0.1, 0.7):
        config = config_of(Channel(min_kept=1), dropout_rate=rate)
        assert float(fraction(config)) == pytest.approx((3 * rate - rate**3) / 3, abs=1e-6)
    assert fraction._cache_size() == 1


@jax.jit
def expected_and_drawn(low, high, probability, key):
    config = config_of("pixel", dropout_rate=(0.1, 0.2), apply_probability=0.5)
    values = {0.1: low, 0.2: high, 0.5: probability}
    # Put in past the checks: a program may be handed anything.
    config = jax.tree.map(lambda leaf: values[round(float(leaf), 6)], config)
    drawn = generate_random_params(config, key, {"image": (20_000, 1, 4, 1)})
    return expected_dropped_fraction(config, (1, 4, 1)), drawn


@pytest.mark.parametrize(
    ("rates", "mean"),
    [
        ((-1.0, 0.5), 0.25),
        ((0.5, 3.0), 0.75),
        ((-2.0, 2.0), 0.5),
        ((0.6, 0.2), 0.6),
        ((-2.0, -1.0), 0.0),
        ((1.5, 2.0), 1.0),
        ((math.nan, 0.5), 1.0),
        ((0.5, math.nan), 0.75),
    ],
    ids=str,
)
@pytest.mark.parametrize(("probability", "share"), [(0.5, 0.5), (-1.0, 0), (2.0, 1), (math.nan, 0)])
def test_traced_ranges_that_saturate_or_are_reversed_are_expected_as_they_are_drawn(
    rates, mean, probability, share, key
):
    low, high = map(jnp.float32, rates)
    expected, drawn = expected_and_drawn(low, high, jnp.float32(probability), key)
    assert float(expected) == pytest.approx(mean * share, abs=2**-22)
    assert_mean(drawn["rate"], mean)
    assert_mean(drawn["applied"], share)
    assert_mean(dropped_fraction(drawn["keep_mask"]), float(expected))


def assert_mean(fractions, mean):
    """Asserts the mean of independent draws in [0, 1]; a false alarm has a probability of 1e-6."""
    bound = math.sqrt(math.log(2 / 1e-6) / (2 * len(fractions)))  # Hoeffding's inequality
    assert abs(np.asarray(fractions, np.float64).mean() - mean) <= min(bound, mean, 1 - mean)


def test_what_came_is_counted_for_each_record_and_each_channel(key):
    for mode in ("pixel", "channel", Pixel(per_channel=False), "box"):
        mask = generate_random_params(config_of(mode), key, {"image": (8, 6, 5, 3)})["keep_mask"]
        flat = 1 - np.asarray(mask).reshape(8, -1, mask.shape[-1]).mean(axis=1)
        np.testing.assert_allclose(dropped_fraction(mask), flat.mean(axis=1), atol=1e-6)
        each = dropped_fraction(mask, per_channel=True)
        np.testing.assert_allclose(each, flat, atol=1e-6)
    first = jnp.moveaxis(mask, -1, 1)
    np.testing.assert_allclose(dropped_fraction(first, per_channel=True, channel_axis=1), flat)


def test_what_is_no_mask_is_refused():
    owner = "dropped_fraction.keep_mask must"
    with pytest.raises(TypeError, match=f"{owner} be an array of bools; got an array of shape"):
        dropped_fraction(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=rf"{owner} have a batch axis; got an array of shape \(\)"):
        dropped_fraction(jnp.asarray(True))
    for axis in (0, -2, 2, -3):
        with pytest.raises(ValueError, match=rf"{owner} have a channel axis {axis}; got an array"):
            dropped_fraction(jnp.ones((2, 3), bool), per_channel=True, channel_axis=axis)
    with pytest.raises(TypeError, match=r"expected_dropped_fraction\.config must be a Dropout"):
        expected_dropped_fraction({}, (4, 4, 3))
    for shape in (4, (4, 4.0, 3), None):
        text = rf"element_shape must be a shape; got {re.escape(str(shape))}"
        with pytest.raises(TypeError, match=text):
            expected_dropped_fraction(config_of("pixel"), shape)
