"""Each form of mask in a batch, under settings by which JAX checks more than by default."""

import contextlib
import functools

import jax
import numpy as np
import pytest

import dropax
from cases import MODES, REPRESENTATIVES, SHAPE, config_of, image_of

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
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


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


@functools.cache
def expected_of(run, mode, **options):
    """What comes under the settings that all tests have."""
    return run(mode, **options)


def assert_same_under(setting, run, mode, up_to=0.0, **options):
    expected = expected_of(run, mode, **options)
    with settings_of(SETTINGS[setting]):
        found = run(mode, **options)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=up_to, atol=up_to)


# That each mode's masks follow no setting is tested in test_modes.py.
@pytest.mark.parametrize(
    ("mode", "setting"),
    [
        *((mode, "all checks") for mode in REPRESENTATIVES[1:]),  # pixels are in the steps below
        ("block", "64 bits"),
        ("pixel", "loose promotion"),
    ],
)
def test_batches_come_to_the_same(mode, setting):
    assert_same_under(setting, batch, MODES[mode], fill=-1.0)


@pytest.mark.parametrize("setting", ["all checks", "64 bits"])
def test_steps_and_gradients_come_to_the_same(setting):
    options = {"fill": "noise", "dropout_rate": (0.0, 1.0), "apply_probability": 0.5}
    assert_same_under(setting, step, "pixel", up_to=1e-5, **options)


def test_at_rate_1_a_mean_and_its_gradient_are_finite_under_all_checks():
    options = {"fill": "mean", "rescale": True, "clip_range": (0.0, 50.0), "mask_key": "kept"}
    assert_same_under("all checks", step, "pixel", up_to=1e-5, dropout_rate=1.0, **options)
