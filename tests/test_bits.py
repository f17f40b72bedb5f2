"""The stream is JAX's own: equality, bit for bit, is the whole test."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from dropax import bits
from dropax.bits import GRID, keep_threshold, normal_from, sample_bernoulli, sample_words

SHAPES = [(), (0,), (7,), (4, 5, 3), (2, 1, 3, 1, 5)]
RATES = [0.0, 1e-9, 0.1, 1 / 3, 0.5, 0.9, 1 - 1e-7, 1.0]


def jax_mask(key, rate, shape):
    return jax.random.bernoulli(key, jnp.float32(1) - jnp.float32(rate), shape)


def assert_same(ours, theirs):
    assert ours.dtype == jnp.bool_
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_equal_those_of_jax_in_every_shape(shape, key):
    for rate in RATES:
        assert_same(sample_bernoulli(key, rate, shape), jax_mask(key, rate, shape))


@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0, 1))
def test_masks_equal_those_of_jax_for_any_seed_and_rate(seed, rate):
    key = jax.random.key(seed)
    assert_same(sample_bernoulli(key, rate, (4, 5, 3)), jax_mask(key, rate, (4, 5, 3)))


def test_a_draw_at_the_very_threshold_is_dropped(key):
    # Where a draw happens to be the probability of keeping, of which random rates hit none.
    draws = np.asarray(sample_words(key, (32,)) >> 9)
    for at in range(32):
        rate = np.float32(1) - draws[at].astype(np.float32) / np.float32(GRID)
        assert_same(sample_bernoulli(key, rate, (32,)), draws < draws[at])
        assert_same(sample_bernoulli(key, rate, (32,)), jax_mask(key, rate, (32,)))


def test_the_few_stored_draws_are_the_same_stream(key):
    for count in (0, 3):
        draws = np.asarray(sample_words(key, (count,))) >> 9
        expected = np.asarray(jax.random.uniform(key, (count,))) * 2**23
        np.testing.assert_array_equal(draws, expected)


@pytest.mark.parametrize("shape", [(64, 65, 3), (), (5, 0)], ids=str)
def test_normal_numbers_are_those_of_jax(shape, key):
    def normal_of(key):
        return normal_from(sample_words(key, shape))

    ours = jax.jit(normal_of)(key)
    theirs = jax.random.normal(key, shape, jnp.float32)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(normal_of(key), theirs, rtol=1e-6, atol=1e-6)


def test_two_keys_are_those_of_a_partitionable_split_under_either_flag(key):
    with jax.threefry_partitionable(True):
        expected = jax.random.key_data(jax.random.split(key))
    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            both = [jax.random.key_data(each) for each in bits.split_in_two(key)]
            np.testing.assert_array_equal(both, expected)


def test_64_bit_mode_makes_no_difference(key):
    expected = [sample_bernoulli(key, rate, (4, 5)) for rate in RATES]
    jitted = jax.jit(lambda rate: sample_bernoulli(key, rate, (4, 5)))
    with jax.enable_x64(True):
        for rate, mask in zip(RATES, expected, strict=True):
            assert_same(sample_bernoulli(key, rate, (4, 5)), mask)
            assert_same(jitted(rate), mask)
            assert_same(sample_bernoulli(key, np.float64(rate), (4, 5)), mask)


def test_rates_saturate():
    for rate, kept in ((-np.inf, 1), (-1.0, 1), (0.0, 1), (1.0, 0), (2.0, 0), (np.nan, 0)):
        assert int(keep_threshold(jnp.float32(rate))) == 2**23 * kept
    assert int(keep_threshold(0.25)) == 3 * 2**21


def test_a_counter_is_the_row_major_index_up_to_the_last_of_2_to_32():
    for shape in ((2**16, 2**16), (3, 2**30), (2**11, 2**10, 2**11)):
        for point in itertools.product(*([0, 1, size // 2, size - 1] for size in shape)):
            counter = bits._counters([jnp.uint32(at) for at in point], shape)
            assert int(counter) == np.ravel_multi_index(point, shape)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8], ids=lambda d: d.__name__)
def test_a_drawn_and_used_mask_is_never_stored(dtype):
    shape = (32, 64, 64, 3)

    def step(keys, images):
        masks = jax.vmap(lambda key: sample_bernoulli(key, 0.1, shape[1:]))(keys)
        return jnp.where(masks, images, jnp.zeros((), dtype))

    keys, images = jax.random.split(jax.random.key(0), 32), jax.ShapeDtypeStruct(shape, dtype)
    memory = jax.jit(step).lower(keys, images).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.02 * np.prod(shape)
