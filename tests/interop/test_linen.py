"""dropax in a training step of flax.linen, and as a layer of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

linen = pytest.importorskip("flax.linen", reason="flax is missing: pip install '.[interop]'")
optax = pytest.importorskip("optax", reason="optax is missing: pip install '.[interop]'")

RATE = 0.25


class Drop(linen.Module):
    """A layer: its key comes from the module's own stream."""

    rate: float = RATE

    @linen.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        if not train:
            return features
        key = self.make_rng("dropout")
        return dropax.dropout(key, features, rate=self.rate, mode="channel", rescale=True)


class Network(linen.Module):
    @linen.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        features = Drop(name="drop")(linen.relu(linen.Conv(8, (3, 3))(images)), train=train)
        return linen.Dense(10)(features.mean((1, 2)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_step(model, config, params, drop_state, key, batch):
    batch, drop_state = dropax.apply_batch(config, drop_state, batch)

    def loss(params):
        logits = model.apply(params, batch["image"], train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    value, gradients = jax.value_and_grad(loss)(params)
    params = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, params, gradients)
    return params, drop_state, value, batch["kept"]


def test_a_step_trains_on_the_masks_that_the_key_stands_for(key):
    config = dropax.DropoutOperatorConfig(
        field_key="image", dropout_rate=RATE, stochastic=True, mask_key="kept"
    )
    batch = {"image": jax.random.normal(key, (6, 8, 8, 3)), "label": jnp.arange(6)}
    model = Network()
    params = model.init(key, batch["image"], train=False)
    drop_state, losses = dropax.init_state(config, key), []
    for number in range(30):
        params, drop_state, value, kept = train_step(
            model, config, params, drop_state, jax.random.fold_in(key, number), batch
        )
        losses.append(float(value))
        call_key = jax.random.fold_in(key, number)
        for record in range(6):
            record_key = jax.random.fold_in(call_key, record)
            expected = jax.random.bernoulli(record_key, np.float32(1 - RATE), (8, 8, 3))
            np.testing.assert_array_equal(kept[record], expected)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_layer_drops_whole_channels_by_the_key_of_its_stream(key):
    class Key(linen.Module):
        @linen.compact
        def __call__(self):
            return self.make_rng("dropout")

    features = jnp.ones((4, 5, 5, 8))
    dropped = Drop(RATE).apply({}, features, train=True, rngs={"dropout": key})
    own_key = Key().apply({}, rngs={"dropout": key})
    expected = dropax.dropout(own_key, features, rate=RATE, mode="channel", rescale=True)
    np.testing.assert_array_equal(dropped, expected)
    assert set(np.unique(np.asarray(dropped)).round(4)) == {0, np.float32(1 / 0.75).round(4)}
    np.testing.assert_array_equal(Drop(RATE).apply({}, features, train=False), features)
