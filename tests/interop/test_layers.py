"""dropax between the layers of a network; with one key for all layers, all drop the same."""

import jax
import jax.numpy as jnp
import numpy as np

import dropax

DEPTH, WIDTH = 5, 6


def test_scanned_layers_draw_from_keys_of_their_own(key):
    weights = jax.random.normal(key, (DEPTH, WIDTH, WIDTH)) / WIDTH**0.5

    @jax.jit
    def network(weights, key, features):
        def layer(features, weight_and_key):
            weight, key = weight_and_key
            kept = dropax.dropout(key, features, rate=0.3, mode="channel", rescale=True)
            return jnp.tanh(kept @ weight), kept != 0

        return jax.lax.scan(layer, features, (weights, jax.random.split(key, DEPTH)))

    _, kept = network(weights, key, jnp.ones((2, 4, 4, WIDTH)))
    for layer_key, mask in zip(jax.random.split(key, DEPTH), kept, strict=True):
        for record in range(2):
            record_key = jax.random.fold_in(layer_key, record)
            expected = jax.random.bernoulli(record_key, np.float32(1) - np.float32(0.3), (WIDTH,))
            np.testing.assert_array_equal(mask[record, 0, 0], expected)
    assert len(np.unique(np.asarray(kept).reshape(DEPTH, -1), axis=0)) > 1


def test_dropblock_on_features_with_a_ramped_rate_compiles_once(key):
    block = dropax.Block(size=3)
    traces = []

    @jax.jit
    def layer(key, features, rate):
        traces.append(1)
        return dropax.dropout(key, features, rate=rate, mode=block, rescale=True)

    # From 0 to 0.1 over the training, as the paper's schedule has it.
    features = jnp.ones((4, 12, 12, 8))
    for step, rate in enumerate(np.linspace(0, 0.1, 5, dtype=np.float32)):
        dropped = layer(jax.random.fold_in(key, step), features, rate)
        assert dropped.mean() > 0.5
        if rate == 0:
            np.testing.assert_array_equal(dropped, features)
    assert len(traces) == 1
