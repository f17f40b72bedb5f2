"""Fills that are computed, or given for each channel: right, in the dtype, and constants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bounds import assert_counts
from cases import config_of, image_of, refuses
from dropax import DropoutOperator, Pixel, apply, apply_batch, init_state
from dropax.moments import in_dtype, mean_fill, noise_fill

FLOATS = ["float32", "bfloat16", "float16"]
HALF = np.indices((4, 6, 1)).sum(0) % 2 == 0  # every other pixel is kept


def fill(image, stats=None, mask=HALF, **options):
    """What `apply` makes of an image with a given mask."""
    config = config_of(Pixel(per_channel=False), **options)
    params = {"keep_mask": mask, "fill_key": jax.random.key(0)}
    return apply(config, {"image": image}, {}, {}, params, stats)[0]["image"]


def test_each_channel_has_its_own_number():
    image = image_of((4, 6, 3), jnp.uint8)
    out = np.asarray(fill(image, fill=(200, 210, 220)))
    np.testing.assert_array_equal(out, np.where(HALF, image, [200, 210, 220]))
    first = np.asarray(fill(np.moveaxis(image, -1, 0), fill=(200, 210, 220), channel_axis=0,
                            mask=np.moveaxis(HALF, -1, 0)))  # fmt: skip
    np.testing.assert_array_equal(first, np.moveaxis(out, -1, 0))


# An odd number of rows, and more than are summed up or drawn at once: the last part is shorter.
SHAPE = (70, 33, 3)
SHORT = ["uint8", "int16"]
LONG = ["uint32", "int32"]


@functools.partial(jax.jit, static_argnums=2)
def compiled_fills(key, array, axes):
    """The mean and the noise of an array, in one program."""
    return mean_fill(array, axes), noise_fill(key, array, axes)


def fills_of(values, dtype):
    """The mean and the noise of values that are repeated over one shape, of which it is a whole."""
    array = np.resize(np.asarray(values).astype(dtype), SHAPE[:2])[..., None].repeat(3, -1)
    mean, noise = compiled_fills(jax.random.key(0), jnp.asarray(array), (0, 1))
    assert (mean.dtype, noise.dtype) == (array.dtype, array.dtype)
    return np.asarray(mean), np.asarray(noise)


MEANS = ([1, 2], 2), ([2, 3], 2), ([2, 1], 2), ([3, 2], 2), ([1, 1, 2], 1)
MOSTLY = ([True, True, False], True), ([True, False, False], False)


@pytest.mark.parametrize("dtype", [*SHORT, *LONG, "bool"])
def test_a_mean_is_rounded_in_whole_dtypes_and_ties_go_to_the_even(dtype):
    for values, mean in MOSTLY if dtype == "bool" else MEANS:
        assert (fills_of(values, dtype)[0] == mean).all()


def constants(dtype):
    """Numbers of a dtype that sums and conversions to float32 would round."""
    if dtype == jnp.bool_:
        return [False, True]
    if jnp.issubdtype(dtype, jnp.integer):
        least, most = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
        numbers = {least, least + 1, -(2**24) - 1, -1, 0, 3, 2**24 + 1, most // 2, most - 1, most}
        return sorted(number for number in numbers if least <= number <= most)
    largest, tiny = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).tiny)
    return [-largest, -0.3, tiny, 0.1, 1 / 3, largest / 3, largest]


@pytest.mark.parametrize("dtype", [*FLOATS, *SHORT, *LONG, "bool", "int64", "uint64", "float64"])
def test_equal_values_are_their_own_mean_and_have_no_noise(dtype):
    with jax.enable_x64("64" in dtype):
        dtype = jnp.dtype(dtype)
        for number in constants(dtype):
            for found in fills_of([number], dtype):
                np.testing.assert_array_equal(found, np.full(found.shape, number).astype(dtype))


def test_of_no_values_the_mean_is_zero_and_there_is_no_noise():
    mean, noise = compiled_fills(jax.random.key(0), jnp.zeros((0, 4, 3)), (0, 1))
    np.testing.assert_array_equal(mean, np.zeros((1, 1, 3)))
    assert noise.shape == (0, 4, 3)


@pytest.mark.parametrize("dtype", LONG)
def test_noise_of_long_integers_ends_at_the_range(dtype):
    least, most = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    _, noise = fills_of([least, most], dtype)
    # The ends are one deviation from the mean: of all numbers 15.9 percent are due at each. They
    # are computed in float32, whose largest number within the range is below its upper end.
    for end in (least, most - (127 if dtype == "int32" else 255)):
        assert_counts((noise == end).sum(), noise.size, 0.158655)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(dtype, SHAPE) for dtype in ("uint8", "bfloat16", "float32", "int32")]
    + [("float32", shape) for shape in ((3, 67), (1000, 1))],
    ids=str,
)
def test_every_value_counts_once_and_noise_is_that_of_jax(dtype, shape):
    spread = 5 * (1 + np.arange(shape[-1]) % 3)  # channels differ
    values = np.random.default_rng(0).normal(4 * spread + 20, spread, shape)
    array = jnp.asarray(values.astype(jnp.dtype(dtype)))
    key, axes = jax.random.key(0), tuple(range(len(shape) - 1))
    exact = np.asarray(array, np.float64)
    mean, deviation = (of(axis=axes, keepdims=True) for of in (exact.mean, exact.std))
    spacing = 0.5 if jnp.issubdtype(dtype, jnp.integer) else 100 * float(jnp.finfo(dtype).eps)
    found, noise = compiled_fills(key, array, axes)
    off = np.abs(np.asarray(found, np.float64) - mean)
    assert off.max() <= spacing * (1 + 1e-6)
    # JAX draws a number by its row-major index, whatever the shape.
    normal = np.asarray(jax.random.normal(key, SHAPE), np.float64)
    expected = mean + deviation * normal.ravel()[: array.size].reshape(shape)
    off = np.abs(np.asarray(noise, np.float64) - expected)
    assert off.max() <= spacing + 1e-3


@pytest.mark.parametrize("dtype", ["uint8", "bfloat16"])  # what would be widened to be summed up
def test_computed_fills_take_at_most_twice_the_memory_of_the_images(dtype):
    config = config_of(Pixel(per_channel=False), fill="noise")  # which computes the mean too
    images = jax.ShapeDtypeStruct((8, 128, 128, 3), dtype)
    state = init_state(config, jax.random.key(0))
    batch = jax.jit(lambda state, x: apply_batch(config, state, {"image": x}))
    memory = batch.lower(state, images).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 2 * images.size * images.dtype.itemsize


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_does_not_count_and_nothing_overflows(dtype):
    largest = float(jnp.finfo(dtype).max)
    means = (([1, np.nan, 3, np.inf, -np.inf, np.nan], 2), ([largest], largest), ([np.nan], 0))
    for values, mean in means:
        assert (fills_of(values, jnp.dtype(dtype))[0].astype(np.float64) == mean).all()
    for values in ([largest], [largest, -largest], [np.nan, np.inf], [0.0]):
        noise = fills_of(values, jnp.dtype(dtype))[1]
        assert np.isfinite(noise.astype(np.float64)).all()


@pytest.mark.parametrize("kind", ["mean", "noise"])
def test_what_lies_under_a_dropped_pixel_leaks_into_no_fill_and_no_gradient(kind):
    image = np.array(image_of((4, 6, 3)))
    image[0, 1], image[0, 3] = np.nan, np.inf

    def total(image):
        out = fill(image, fill=kind)
        return out.sum(), out

    slopes, out = jax.jit(jax.grad(total, has_aux=True))(image)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(slopes, np.broadcast_to(HALF, image.shape))  # fills are constants


def test_the_mean_of_complex_numbers_is_one():
    image = image_of((4, 6, 3), jnp.complex64) * jnp.complex64(1 + 2j)
    out = np.asarray(fill(image, fill="mean"))
    assert out.dtype == np.complex64
    mean = np.asarray(image)[np.broadcast_to(HALF, image.shape)].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(out, np.where(HALF, image, mean), rtol=1e-5)


def test_computed_values_saturate_at_the_range_of_a_dtype():
    values = jnp.asarray([-1e10, -0.4, 0.5, 1.5, 1e10], jnp.float32)
    assert in_dtype(values, jnp.uint8).tolist() == [0, 0, 0, 2, 255]
    info = jnp.iinfo(jnp.int32)
    low, *_, high = in_dtype(values, jnp.int32).tolist()
    assert (low, high) == (info.min, 2**31 - 128)  # the largest float32 that fits
    assert in_dtype(values, jnp.float16)[-1] == jnp.finfo(jnp.float16).max
    assert in_dtype(jnp.array([0.0, 0.49, 0.5]), jnp.bool_).tolist() == [False, False, True]


def test_the_mean_of_the_statistics_is_used(key):
    config = config_of(Pixel(per_channel=False), fill="stats_mean", mask_key="kept")
    data = {"image": image_of((4, 6, 5, 3))}
    for mean in (7.0, (1.0, 2.0, 3.0)):
        stats = {"mean": np.asarray(mean, np.float32), "note": "not for JAX"}
        out, _ = apply_batch(config, init_state(config, key), data, stats)
        expected = np.where(out["kept"], data["image"], mean)
        np.testing.assert_array_equal(out["image"], expected)

    image, of_pixels = image_of((4, 6, 3)), jnp.arange(24.0).reshape(4, 6, 1)
    out = fill(image, {"mean": of_pixels}, fill="stats_mean")
    np.testing.assert_array_equal(out, np.where(HALF, image, of_pixels))
    assert fill(image.astype(jnp.uint8), {"mean": 1.6}, fill="stats_mean")[0, 1, 0] == 2
    known = config.replace(precomputed_stats={"mean": np.asarray(mean, np.float32)})
    operator = DropoutOperator(known, rngs=lambda: key)
    np.testing.assert_array_equal(operator.apply_batch(data)["image"], expected)
    state = init_state(known, key)
    np.testing.assert_array_equal(apply_batch(known, state, data)[0]["image"], expected)
    # A list is one of traced numbers under `jit`.
    listed = config.replace(precomputed_stats={"mean": np.asarray(mean).tolist()})
    for step in (apply_batch, jax.jit(apply_batch)):
        out, _ = step(listed, init_state(listed, key), data)
        np.testing.assert_array_equal(out["image"], expected)


CURE = "Pass stats={'mean': ...}, or set them: precomputed_stats, batch_stats_fn, set_statistics."
IMAGE, MEAN = image_of((4, 6, 3)), "apply.stats['mean'] must "
NEEDED = "apply.stats must hold 'mean' if a fill needs statistics; got"
WRONG = [
    *(
        (IMAGE, stats, "stats_mean", KeyError, f"{NEEDED} {held}. {CURE}")
        for stats, held in ((None, "None"), ({"std": 1}, "'std'"), ({}, "nothing"))
    ),
    (IMAGE, {"mean": jnp.ones(2)}, "stats_mean", ValueError, MEAN + "have one number for each"),
    (IMAGE, {"mean": np.complex64(1j)}, "stats_mean", TypeError, MEAN + "be real for dtype float"),
    (
        *(IMAGE, {"mean": jnp.ones((5, 1, 1))}, "stats_mean", ValueError),
        MEAN + "broadcast to the element's shape (4, 6, 3); got an array",
    ),
    (
        *(IMAGE.astype(jnp.complex64), None, "noise", TypeError),
        "the image that Noise fills must hold real numbers; got an array of shape (4, 6, 3) and "
        "dtype complex64",
    ),
]


@pytest.mark.parametrize(("image", "stats", "kind", "error", "text"), WRONG)
def test_what_no_fill_can_be_computed_of_is_refused(image, stats, kind, error, text):
    with refuses(error, text):
        fill(image, stats, fill=kind)
