"""dropax with equinox: as a layer of a module, and in a filtered training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

equinox = pytest.importorskip("equinox", reason="equinox is missing: pip install '.[interop]'")
optax = pytest.importorskip("optax", reason="optax is missing: pip install '.[interop]'")


class Drop(equinox.Module):
    """A layer for one element, as equinox's own: the key is an argument."""

    rate: float = 0.3
    mode: str = equinox.field(default="pixel", static=True)
    inference: bool = False

    def __call__(self, features, *, key=None):
        if self.inference:
            return features
        return dropax.dropout(key, features, rate=self.rate, mode=self.mode, rescale=True)


class Network(equinox.Module):
    dense: equinox.nn.Linear
    drop: Drop

    def __init__(self, key):
        self.dense, self.drop = equinox.nn.Linear(48, 6, key=key), Drop()

    def __call__(self, image, *, key=None):
        return self.dense(self.drop(image, key=key).reshape(-1))


def test_a_layer_under_vmap_drops_what_each_record_s_key_says(key):
    images, keys = jax.random.normal(key, (5, 4, 4, 3)), jax.random.split(key, 5)
    dropped = jax.vmap(lambda image, key: Drop()(image, key=key))(images, keys)
    for image, record_key, got in zip(images, keys, dropped, strict=True):
        kept = jax.random.bernoulli(record_key, np.float32(1) - np.float32(0.3), image.shape)
        np.testing.assert_array_equal(got != 0, kept)
        np.testing.assert_allclose(got, jnp.where(kept, image / 0.7, 0), rtol=1e-6)


def test_inference_mode_drops_nothing(key):
    network = equinox.nn.inference_mode(Network(key))
    image = jax.random.normal(key, (4, 4, 3))
    np.testing.assert_array_equal(network(image), network.dense(image.reshape(-1)))


def test_a_filtered_training_step(key):
    config = dropax.DropoutOperatorConfig(
        field_key="image", mode=dropax.Box(), dropout_rate=0.2, stochastic=True
    )
    batch = {"image": jax.random.normal(key, (6, 4, 4, 3)), "label": jnp.arange(6)}
    network, optimizer = Network(key), optax.adam(1e-2)
    moments = optimizer.init(equinox.filter(network, equinox.is_array))
    operator = dropax.DropoutOperator(config, rngs=key)
    twin = operator.clone()

    @equinox.filter_jit
    def train_step(network, moments, operator, batch, key):
        batch = operator(batch)
        keys = jax.random.split(key, 6)

        @equinox.filter_value_and_grad
        def loss(network):
            logits = jax.vmap(lambda image, key: network(image, key=key))(batch["image"], keys)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

        value, gradients = loss(network)
        updates, moments = optimizer.update(gradients, moments)
        network = equinox.apply_updates(network, updates)
        return network, moments, operator, value, batch["image"]

    losses = []
    for number in range(60):
        network, moments, operator, value, seen = train_step(
            network, moments, operator, batch, jax.random.fold_in(key, number)
        )
        losses.append(float(value))
        np.testing.assert_array_equal(seen, twin(batch)["image"])
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert operator.get_operation_stats() == {"applied_count": 360, "skipped_count": 0}
