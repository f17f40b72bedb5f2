"""Every mode through every transformation and setting of JAX: the same bits, dtype and trace."""

import contextlib
import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cases
import dropax
from cases import MODES, REPRESENTATIVES, SHAPE, config_of, image_of, representatives
from dropax import apply, apply_batch, generate_random_params, init_state
from dropax.kit.batching import RecordEngine

IMAGES = image_of(SHAPE)
# Each form of mask in an image and in another shape, and every dtype once.
LAYOUTS = [
    ("pixel", (17,), jnp.uint8),
    ("pixel", (6, 5, 3), jnp.int32),
    ("pixel", (2, 5, 4, 3), jnp.int16),
    ("channel, one kept", (5, 7), jnp.bfloat16),
    ("channel, one kept", (6, 5, 3), jnp.float16),
    ("block", (5, 7), jnp.bool_),
    ("block", (6, 5, 3), jnp.float32),
]


def run(config, key, images):
    return apply_batch(config, init_state(config, key), {"image": images})[0]["image"]


# Compiled with other optimizations than the eager calls: the bits must not depend on these.
jitted = jax.jit(run, compiler_options=cases.AS_USERS)


def assert_same(out, expected):
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("mode", "shape", "dtype"), LAYOUTS, ids=str)
def test_eager_jit_and_apply_agree_bit_for_bit(mode, shape, dtype, key):
    config = config_of(MODES[mode])
    if mode == "channel, one kept" and len(shape) < 3:
        config = config.replace(channel_axis=-1)
    images = image_of((4, *shape), dtype)
    expected = run(config, key, images)
    assert expected.dtype == dtype
    assert expected.shape == images.shape
    assert_same(jitted(config, key, images), expected)
    step_key = init_state(config, key).next_key()
    masks = generate_random_params(config, step_key, {"image": images.shape})["keep_mask"]
    each = [
        np.asarray(apply(config, {"image": x}, {}, {}, {"keep_mask": mask})[0]["image"])
        for x, mask in zip(images, masks, strict=True)
    ]
    assert_same(np.stack(each), expected)


@cases.every_mode
def test_one_program_serves_every_rate_and_rates_saturate(mode, key):
    config = config_of(mode)

    def drop(rate):
        return np.asarray(run(config.replace(dropout_rate=jnp.float32(rate)), key, IMAGES))

    drop(0.4)
    programs = RecordEngine.step._cache_size()
    np.testing.assert_array_equal(drop(-0.5), IMAGES)
    np.testing.assert_array_equal(drop(0.0), IMAGES)
    np.testing.assert_array_equal(drop(1.5), drop(1.0))
    kept = 1 if mode == MODES["channel, one kept"] else 0
    assert (drop(1.0) != 0).any(axis=(1, 2)).sum() == 4 * kept
    assert RecordEngine.step._cache_size() == programs


@representatives
def test_forward_reverse_and_second_derivatives_work(mode, key):
    config = config_of(mode)

    def energy(scale):
        return (run(config, key, IMAGES * scale) ** 2).sum()

    @jax.jit
    def derivatives(scale):
        tangent = jax.jvp(energy, (scale,), (1.0,))[1]
        return jax.grad(energy)(scale), tangent, jax.hessian(energy)(scale)

    kept = (np.asarray(run(config, key, IMAGES)) ** 2).sum()
    np.testing.assert_allclose(derivatives(1.0), 2 * kept, rtol=1e-5)


@representatives
def test_a_mask_that_is_drawn_again_for_a_gradient_is_the_same(mode, key):
    config = config_of(mode)
    expected = run(config, key, IMAGES)

    @jax.checkpoint  # by default nothing is kept: the mask is drawn a second time
    def energy(images):
        out = run(config, key, images)
        return (out**2).sum(), out

    gradient, out = jax.jit(jax.grad(energy, has_aux=True))(IMAGES)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(gradient, 2 * expected)


@pytest.mark.parametrize(
    ("mode", "impl"), [("pixel", "rbg"), ("channel", "threefry2x32"), ("box", "threefry2x32")]
)
def test_states_and_rates_can_be_mapped_over_together(mode, impl):
    config, key = config_of(mode), jax.random.key(1, impl=impl)
    states = jax.vmap(lambda n: init_state(config, jax.random.fold_in(key, n)))(jnp.arange(3))
    rates = jnp.asarray([0.1, 0.4, 0.9])

    def drop(state, rate):
        return apply_batch(config.replace(dropout_rate=rate), state, {"image": IMAGES})

    each, after = jax.jit(jax.vmap(drop))(states, rates)
    for row in range(3):
        now = config.replace(dropout_rate=rates[row])
        expected = run(now, jax.random.fold_in(key, row), IMAGES)
        np.testing.assert_array_equal(each["image"][row], expected)
    np.testing.assert_array_equal(after.step, [1, 1, 1])
    np.testing.assert_array_equal(after.applied_count, [[0, 4]] * 3)


def test_images_and_states_can_be_donated(key):
    config = config_of("pixel", precomputed_stats={"mean": jnp.ones(3)})
    step = jax.jit(lambda state, batch: apply_batch(config, state, batch), donate_argnums=(0, 1))
    state = twin = init_state(config, key)
    for _ in range(2):
        images = image_of(SHAPE)
        expected, twin = apply_batch(config, twin, {"image": images})
        out, state = step(state, {"image": images})
        np.testing.assert_array_equal(out["image"], expected["image"])
        assert images.is_deleted()
    assert int(state.step) == 2
    # Neither the caller's key nor the config's statistics are deleted.
    jax.block_until_ready((jax.random.key_data(key), config.precomputed_stats))


def test_what_makes_a_new_trace_is_a_shape_a_dtype_a_structure_or_a_static_option():
    traces = []

    @jax.jit
    def step(config, state, batch, ids=None, epoch=None):
        traces.append(1)
        return apply_batch(config, state, batch, record_ids=ids, epoch=epoch)

    config, state = config_of("pixel"), init_state(config_of("pixel"), jax.random.key(0))
    images, ids = jnp.ones(SHAPE), np.arange(4, dtype=np.uint32)
    odds = config.replace(apply_probability=0.5)
    spread = config.replace(dropout_rate=(0.1, 0.2))
    batch = {"image": images}
    # Each row makes one trace; what follows in it makes none.
    rows = [
        [
            (config, state, batch),
            (config.replace(dropout_rate=0.9), state, batch),
            (config, step(config, state, batch)[1], batch),
            (config, init_state(config, jax.random.key(5)), {"image": images * 2}),
        ],
        [(odds, state, batch), (odds.replace(apply_probability=0.0), state, batch)],
        [(spread, state, batch), (spread.replace(dropout_rate=(0.0, 0.9)), state, batch)],
        [(config, state, batch, ids, 1), (config, state, batch, ids + np.uint32(7), 9)],
        [(config, state, batch, np.stack([ids, ids], 1), 1)],
        [(config, state, {"image": images[:2]})],
        [(config, state, {"image": images.astype(jnp.bfloat16)})],
        [(config, state, {"image": images, "label": ids})],
        [(config.replace(mode="channel"), state, batch)],
        [(config.replace(fill=1.0), state, batch)],
        [(config.replace(batch_strategy="scan"), state, batch)],
    ]
    for number, row in enumerate(rows, start=1):
        for arguments in row:
            step(*arguments)
            assert len(traces) == number, (number, arguments)


# Settings by which JAX checks more, or other things, than by default.


BATCH = {"image": np.asarray(image_of(SHAPE))}

# Strict promotion of dtypes and ranks is what all tests run under; here it is off as well.
SETTINGS = {
    "all checks": {
        "jax_check_tracer_leaks": True,
        "jax_debug_infs": True,
        "jax_debug_key_reuse": True,
        "jax_debug_nans": True,
        "jax_enable_checks": True,
    },
    "64 bits": {"jax_enable_x64": True},
    "loose promotion": {
        "jax_numpy_dtype_promotion": "standard",
        "jax_numpy_rank_promotion": "allow",
    },
}


@contextlib.contextmanager
def settings_of(values):
    before = {name: getattr(jax.config, name) for name in values}
    # Looking for leaked tracers collects garbage at each trace: only what is new need be looked at.
    gc.freeze()
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        gc.unfreeze()


KEY = jax.random.key(7)


def batch(mode, **options):
    """A batch through an operator."""
    operator = dropax.DropoutOperator(config_of(mode, **options), rngs=lambda: KEY)
    return [operator.apply_batch(BATCH)["image"]]


def step(mode, **options):
    """A batch under jit through the pure function, and its gradient."""
    config = config_of(mode, **options)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(images):
        state = dropax.init_state(config, KEY)
        batch, state = dropax.apply_batch(config, state, {"image": images})
        return batch["image"].sum(), (batch["image"], state.step)

    (_, out), gradient = jax.jit(loss)(BATCH["image"])
    return [*out, gradient]


# That each mode's masks follow no setting is tested in test_modes.py.
BATCHES = [
    *((mode, "all checks") for mode in REPRESENTATIVES[1:]),  # pixels are in the steps below
    ("block", "64 bits"),
    ("pixel", "loose promotion"),
]
DRAWN = {"fill": "noise", "dropout_rate": (0.0, 1.0), "apply_probability": 0.5}
AT_1 = {"fill": "mean", "rescale": True, "clip_range": (0.0, 50.0), "mask_key": "kept"}


@pytest.mark.parametrize(
    ("run", "mode", "setting", "options", "up_to"),
    [
        *((batch, *each, {"fill": -1.0}, 0.0) for each in BATCHES),
        *((step, "pixel", setting, DRAWN, 1e-5) for setting in ("all checks", "64 bits")),
        # Means of nothing, and their gradients, are finite.
        (step, "pixel", "all checks", {**AT_1, "dropout_rate": 1.0}, 1e-5),
    ],
)
def test_batches_steps_and_gradients_come_to_the_same(run, mode, setting, options, up_to):
    expected = run(MODES[mode], **options)
    with settings_of(SETTINGS[setting]):
        found = run(MODES[mode], **options)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=up_to, atol=up_to)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_second_derivatives_in_loops_are_those_of_a_batch(dtype, key):
    config = config_of("box", fill=2.0)
    state, ids = init_state(config, key), np.arange(3, dtype=np.uint32)
    images = jnp.ones((3, 4, 4, 2), dtype)

    def energy(scale, strategy):
        data = {"image": (scale * images).astype(dtype)}
        given = config.replace(batch_strategy=strategy)
        out, _ = apply_batch(given, state, data, record_ids=ids, epoch=0)
        return (out["image"].astype(jnp.float32) ** 2).sum()

    def in_map(scale):
        keys = dropax.record_keys(key, ids, 0)
        drop = functools.partial(dropax.dropout, rate=0.4, mode="box", fill=2.0)
        data = (scale * images).astype(dtype)
        out = jax.lax.map(lambda record: drop(*record), (keys, data))
        return (out.astype(jnp.float32) ** 2).sum()

    expected = jax.hessian(energy)(2.0, "vmap")
    assert expected > 0
    assert jax.hessian(energy)(2.0, "scan") == expected
    assert jax.grad(jax.grad(energy))(2.0, "scan") == expected
    assert jax.hessian(in_map)(2.0) == expected
