"""dropax with optax: a schedule for the rate, in one compilation, beside an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

optax = pytest.importorskip("optax", reason="optax is missing: pip install '.[interop]'")

STEPS = 40


def test_a_scheduled_rate_drops_what_it_says_and_is_traced_once(key):
    config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True, mask_key="kept")
    ramp, optimizer = optax.linear_schedule(0.0, 0.5, STEPS - 1), optax.adam(1e-2)
    shade = jnp.linspace(-1, 1, 8)[:, None, None, None]
    images = shade + 0.1 * jax.random.normal(key, (8, 8, 8, 3))
    batch = {"image": images, "target": images.mean((1, 2))}
    traces = []

    @jax.jit
    def train_step(weights, moments, drop_state, batch):
        traces.append(1)
        rate = ramp(drop_state.step)  # the state counts the steps
        batch, drop_state = dropax.apply_batch(config.replace(dropout_rate=rate), drop_state, batch)

        def loss(weights):
            outputs = jnp.einsum("bhwc,hwcd->bd", batch["image"], weights)
            return ((outputs - batch["target"]) ** 2).mean()

        value, gradients = jax.value_and_grad(loss)(weights)
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(weights, updates), moments, drop_state, value, batch["kept"]

    weights = jnp.zeros((8, 8, 3, 3))
    moments, drop_state = optimizer.init(weights), dropax.init_state(config, key)
    losses = []
    for number in range(STEPS):
        weights, moments, drop_state, value, kept = train_step(weights, moments, drop_state, batch)
        losses.append(float(value))
        record_key = jax.random.fold_in(jax.random.fold_in(key, number), 0)
        keep_rate = np.float32(1) - np.float32(ramp(number))
        expected = jax.random.bernoulli(record_key, keep_rate, (8, 8, 3))
        np.testing.assert_array_equal(kept[0], expected)
    assert len(traces) == 1
    assert losses[-1] < losses[0] / 2


def test_a_rate_in_the_tree_of_the_weights_decays_unless_it_is_masked():
    config = dropax.DropoutOperatorConfig(field_key="image", dropout_rate=jnp.float32(0.1))
    model = {"weights": jnp.ones(3), "drop": config}
    is_weight = {"weights": True, "drop": jax.tree.map(lambda rate: False, config)}
    adamw = optax.adamw(0.01, weight_decay=0.1)
    for optimizer, expected in ((adamw, 0.0606), (optax.masked(adamw, is_weight), 0.1)):
        tree, state = model, optimizer.init(model)
        for _ in range(500):
            updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, tree), state, tree)
            tree = optax.apply_updates(tree, updates)
        np.testing.assert_allclose(tree["drop"].dropout_rate, expected, rtol=1e-3)
