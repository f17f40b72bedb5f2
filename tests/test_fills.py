"""What takes the place of dropped values: exact or refused, and on the real numbers."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from cases import refuses
from dropax.dropping import clip_to_range, fill_dropped
from dropax.fills import exact_fill

FLOATS = ["float32", "bfloat16", "float16"]
WHOLE = ["uint8", "int16", "int32", "bool"]
floats = pytest.mark.parametrize("dtype", FLOATS)
RANGES = {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1)}
RANGES["bool"] = (0, 1)
MASK = jnp.asarray([True, False, True])


compiled = jax.jit(fill_dropped)  # which is what it is without, bit for bit: tested below


def fill(array, value, mask=MASK, select=compiled):
    return select(array, mask, exact_fill(value, array.dtype, "Config.fill"))


def ones(dtype):
    return np.ones(3, jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLE, "complex64", "int4"])
def test_dropped_values_become_the_fill_and_the_dtype_is_kept(dtype):
    array = np.array([1, 0, 1]).astype(jnp.dtype(dtype))
    for value in (0, 1, 0.0, 1.0, np.float64(1), np.int8(1)):
        filled = fill(array, value)
        assert filled.dtype == array.dtype
        expected = np.array([1, float(value), 1]).astype(array.dtype)
        np.testing.assert_array_equal(np.asarray(filled), expected)


@floats
def test_any_fill_is_rounded_to_a_floating_point_dtype(dtype):
    for value in (1 / 3, 2**70, -(2**70), 1e-300, 1e300, math.nan, math.inf, -math.inf):
        with np.errstate(over="ignore"):
            expected = np.asarray([1, float(value), 1]).astype(jnp.dtype(dtype))
        filled = np.asarray(fill(ones(dtype), value), np.float64)
        np.testing.assert_array_equal(filled, expected.astype(np.float64))


@pytest.mark.parametrize("dtype", WHOLE)
def test_a_whole_dtype_takes_the_fills_that_it_holds_and_no_others(dtype):
    least, most = RANGES[dtype]
    for value in (least, most, float(least), float(most)):
        assert int(np.asarray(fill(ones(dtype), value))[1]) == value
    for value in (least - 1, most + 1, 0.5, most - 0.5, 1e300, math.inf, -math.inf, math.nan):
        cure = f"Pass a whole number from {least} to {most}, or convert to a float dtype."
        text = f"Config.fill must be exact in dtype {dtype}; got {value!r}. {cure}"
        with refuses(ValueError, text):
            fill(ones(dtype), value)


@floats
def test_what_is_under_a_dropped_value_vanishes_in_values_and_in_gradients(dtype):
    slopes_of = jax.jit(jax.grad(lambda x: fill(x, 0).sum()))
    for hidden in (math.nan, math.inf, -math.inf):
        array = np.asarray([1, hidden, 1], jnp.dtype(dtype))
        np.testing.assert_array_equal(np.asarray(fill(array, 0), np.float32), [1, 0, 1])
        slopes = slopes_of(array)
        np.testing.assert_array_equal(np.asarray(slopes, np.float32), [1, 0, 1])


IN_RANGE = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}
IN_RANGE["complex64"] = IN_RANGE["float32"]


@pytest.mark.parametrize(("dtype", "largest"), IN_RANGE.items(), ids=IN_RANGE)
def test_a_fill_past_the_range_of_a_floating_point_dtype_is_refused(dtype, largest):
    dtype = jnp.dtype(dtype)
    for value in (largest, -largest, 0, math.nan, math.inf):
        exact_fill(value, dtype, "Config.fill", in_range=True)
    for value in (largest * 1.01, -largest * 1.01):
        text = f"Config.fill must be within the range of dtype {dtype}; got {value!r}."
        with refuses(ValueError, text):
            exact_fill(value, dtype, "Config.fill", in_range=True)
    for value in (10**400, -(10**400)):  # past the range of every float
        with refuses(ValueError, "Config.fill must be within the range of dtype"):
            exact_fill((0, value), dtype, "Config.fill", in_range=True)
        end = math.copysign(math.inf, value > 0 or -1)
        assert exact_fill(value, dtype, "Config.fill").real == end


def clip(array, bounds):
    return clip_to_range(array, bounds, "Config.clip_range")


BOUNDS = st.floats(-300, 300) | st.sampled_from([-math.inf, math.inf, 0.5, 254.5, -32768.5])


@pytest.mark.parametrize("dtype", WHOLE)
@given(bounds=st.tuples(BOUNDS, BOUNDS).filter(lambda b: b[0] < b[1]))
def test_whole_dtypes_are_clipped_to_the_whole_numbers_within_the_range(dtype, bounds):
    least, most = RANGES[dtype]
    low = least if bounds[0] <= least else math.ceil(bounds[0])
    high = most if bounds[1] >= most else math.floor(bounds[1])
    values = [n for n in (least, -1, 0, 1, 2, 100, 254, most) if least <= n <= most]
    array = jnp.asarray(np.asarray(values).astype(dtype))
    if low > high:
        text = f"Config.clip_range must hold a value of dtype {dtype}; got {bounds!r}."
        with refuses(ValueError, text):
            clip(array, bounds)
        return
    clipped = np.asarray(clip(array, bounds))
    assert clipped.dtype == array.dtype
    assert clipped.tolist() == [min(max(n, low), high) for n in values]


@floats
@given(low=st.floats(-1e4, 1e4), width=st.floats(1e-3, 1e4))
def test_floats_within_the_range_are_untouched_and_others_go_to_the_nearest_bound(
    dtype, low, width
):
    high = low + width
    array = jnp.asarray(np.linspace(-2e4, 2e4, 41).astype(jnp.dtype(dtype)))
    clipped = np.asarray(clip(array, (low, high)))
    assert clipped.dtype == array.dtype
    ends = np.asarray([low, high]).astype(clipped.dtype)
    exact = [fractions.Fraction(float(x)) for x in np.asarray(array)]
    for before, real, after in zip(np.asarray(array), exact, clipped, strict=True):
        if low <= real <= high:
            assert after == before
        else:
            assert after == ends[int(real > high)]


PAST = [1e300, math.inf, 2**70, 2**2000]


@pytest.mark.parametrize("bound", PAST, ids=["a float", "infinity", "an int", "a large int"])
@floats
def test_a_bound_far_out_is_taken_as_a_real_number(dtype, bound):
    array = jnp.asarray([-1, 0, 1000], dtype)
    np.testing.assert_array_equal(np.asarray(clip(array, (0, bound)), np.float32), [0, 0, 1000])
    np.testing.assert_array_equal(np.asarray(clip(array, (-bound, 0)), np.float32), [-1, 0, 0])


@pytest.mark.parametrize("bounds", [(1e39, 1e40), (-1e40, -1e39)], ids=str)
@floats
def test_a_range_that_lies_past_the_dtype_does_not_make_infinities(dtype, bounds):
    with pytest.raises(ValueError, match="must hold a value of dtype"):
        clip(jnp.ones(2, dtype), bounds)


@floats
def test_infinities_go_to_the_bounds_nan_stays_nan_and_a_zero_keeps_its_sign(dtype):
    values = jnp.asarray([math.nan, math.inf, -math.inf], dtype)
    largest = float(jnp.finfo(dtype).max)
    for low, high in ((-1, 2), (-largest, largest)):
        clipped = np.asarray(clip(values, (low, high)), np.float64)
        np.testing.assert_array_equal(clipped, [math.nan, high, low])
    clipped = clip(jnp.asarray([-0.0, 0.0], dtype), (0.0, 1.0))
    np.testing.assert_array_equal(np.signbit(np.asarray(clipped, np.float32)), [True, False])


def test_gradients_pass_within_the_range_and_at_its_bounds_and_nowhere_else():
    values = jnp.asarray([-1, 0, 0.5, 1, 2, math.inf, math.nan])
    slopes = jax.grad(lambda x: clip(x, (0.0, 1.0)).sum())(values)
    np.testing.assert_array_equal(slopes, [0, 1, 1, 1, 0, 0, 1])


def test_complex_numbers_have_no_order():
    text = "Config.clip_range must be None for dtype complex64, which has no order; got (0, 1)."
    with refuses(TypeError, text):
        clip(jnp.ones(2, jnp.complex64), (0, 1))


def test_sixty_four_bits_are_exact_where_they_are_switched_on():
    with jax.enable_x64(True):
        array = jnp.asarray([2**62 + 1, -1, 5], jnp.int64)
        np.testing.assert_array_equal(fill(array, -(2**63)), [2**62 + 1, -(2**63), 5])
        np.testing.assert_array_equal(clip(array, (0, 2**62 - 1)), [2**62 - 1, 0, 5])
        np.testing.assert_array_equal(clip(array, (0.0, 1e19)), [2**62 + 1, 0, 5])
        assert float(clip(jnp.asarray([1.0], jnp.float64), (0.0, 0.1))[0]) == 0.1
