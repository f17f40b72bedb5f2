"""Each form of mask in a batch, under settings by which JAX checks more than by default."""

import contextlib
import functools
import gc

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
