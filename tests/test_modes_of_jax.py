"""Each form of mask in a batch, under settings by which JAX checks more than by default."""

import contextlib
import functools

import jax
import numpy as np
import pytest

import dropax
from cases import MODES, REPRESENTATIVES, config_of, image_of

BATCH = {"image": np.asarray(image_of((4, 6, 5, 3)))}

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


def run(mode, **options):
    """A batch through an operator, and under jit through the pure function and its gradient."""
    config, key = config_of(mode, **options), jax.random.key(7)
    operator = dropax.DropoutOperator(config, rngs=lambda: key)
    out = operator.apply_batch(BATCH)["image"]

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(images):
        state = dropax.init_state(config, key)
        batch, state = dropax.apply_batch(config, state, {"image": images})
        return batch["image"].sum(), (batch["image"], state.step)

    (_, (jitted, step)), gradient = jax.jit(loss)(BATCH["image"])
    return out, jitted, gradient, step


expected_of = functools.cache(run)
"""What comes under the settings that all tests have."""


# That each region's masks follow no setting is tested in test_regions.py.
@pytest.mark.parametrize(
    ("mode", "setting"),
    [
        *((mode, "all checks") for mode in REPRESENTATIVES),
        ("block", "64 bits"),
        ("pixel", "loose promotion"),
    ],
)
def test_modes_run_and_drop_the_same(mode, setting):
    expected = expected_of(MODES[mode], fill=-1.0)
    with settings_of(SETTINGS[setting]):
        found = run(MODES[mode], fill=-1.0)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


NOISE = {"fill": "noise", "dropout_rate": (0.0, 1.0), "apply_probability": 0.5}
MEAN = {"fill": "mean", "rescale": True, "clip_range": (0.0, 50.0), "mask_key": "kept"}


@pytest.mark.parametrize(
    ("options", "setting"),
    [(NOISE, "all checks"), (NOISE, "64 bits"), ({**MEAN, "dropout_rate": 1.0}, "all checks")],
    ids=["noise, all checks", "noise, 64 bits", "mean, all checks"],
)
def test_options_run_and_come_to_the_same(options, setting):
    expected = expected_of("pixel", **options)
    with settings_of(SETTINGS[setting]):
        found = run("pixel", **options)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
