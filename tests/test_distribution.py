"""What users see is distributed as promised.

Each assertion fails on a right library with probability 1e-6 at most, over the choice of its seed
(which is fixed). Its bound is Bernstein's inequality, which holds for every n, with that
probability shared out among the counts that it compares. (That single masks are right needs no
statistics: `test_bits.py` compares them with JAX's.)
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bounds import assert_counts
from cases import config_of
from dropax import Channel, Pixel, apply_batch, generate_random_params, init_state

RATES = [0.02, 0.1, 0.5, 0.9]
SHAPE = (16, 12, 3)
RECORDS = 2048
modes = pytest.mark.parametrize("mode", ["pixel", Pixel(per_channel=False), "channel"], ids=str)
rates = pytest.mark.parametrize("rate", RATES)


@functools.cache
def dropped(mode, rate, seed=0):
    """Where values drop, bool of shape (RECORDS, H, W, C) or what the mode draws of it."""
    config = config_of(mode, dropout_rate=rate)
    shapes = {"image": (RECORDS, *SHAPE)}
    return ~np.asarray(generate_random_params(config, jax.random.key(seed), shapes)["keep_mask"])


@modes
@rates
def test_each_position_channel_and_record_drops_at_the_rate(mode, rate):
    drops = dropped(mode, rate)
    assert_counts(drops.sum(), drops.size, rate)
    assert_counts(drops.sum(axis=0), RECORDS, rate)
    by_channel = drops.reshape(-1, drops.shape[-1])
    assert_counts(by_channel.sum(axis=0), len(by_channel), rate)
    by_record = drops.reshape(RECORDS, -1)
    if rate * by_record.shape[1] > 20:  # or a single record could drop nothing
        assert_counts(by_record.sum(axis=1), by_record.shape[1], rate)


def pairs(mode, rate):
    """Pairs of draws that must know nothing of each other."""
    drops = dropped(mode, rate)
    yield drops[:-1], drops[1:]  # records
    yield drops, dropped(mode, rate, seed=1)  # keys
    yield drops[..., :-1], drops[..., 1:]  # channels
    if drops.ndim == 4:
        yield drops[:, :-1], drops[:, 1:]  # rows
        yield drops[:, :, :-1], drops[:, :, 1:]  # columns


@modes
@rates
def test_records_keys_channels_and_neighbours_are_independent(mode, rate):
    for one, other in pairs(mode, rate):
        # A record is in two pairs of neighbours: every other pair counts.
        both = (one & other).reshape(len(one), -1)[::2]
        if both.size:
            differ = (one ^ other).reshape(len(one), -1)[::2]
            # So is a position, along its axis: each is counted by itself, over the records.
            assert_counts(differ.sum(axis=0), len(differ), 2 * rate * (1 - rate))
            assert_counts(both.sum(axis=0), len(both), rate * rate)


def test_steps_are_independent():
    config = config_of("pixel", dropout_rate=0.3)
    state = init_state(config, jax.random.key(5))
    images = jnp.ones((64, 32, 32, 3))
    shown = []
    for _ in range(3):
        batch, state = apply_batch(config, state, {"image": images})
        shown.append(np.asarray(batch["image"]) == 0)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert_counts(shown[one].sum(), shown[one].size, 0.3)
        both = shown[one] & shown[other]
        assert_counts(both.sum(), both.size, 0.09)


@pytest.mark.parametrize("least", [1, 2])
def test_channels_that_must_be_kept_are_and_none_is_preferred(least):
    rate = 0.6
    kept = ~dropped(Channel(min_kept=least), rate)
    counts = kept.sum(axis=1)
    assert counts.min() == least
    chances = [math.comb(3, k) * (1 - rate) ** k * rate ** (3 - k) for k in range(4)]
    assert_counts((counts == least).sum(), RECORDS, sum(chances[: least + 1]))
    for channel in range(3):
        only = kept[counts == least][:, channel]
        assert_counts(only.sum(), only.size, least / 3)
