"""dropax with flax.nnx: its streams, its jit, its modules and its optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

nnx = pytest.importorskip("flax.nnx", reason="flax is missing: pip install '.[interop]'")
optax = pytest.importorskip("optax", reason="optax is missing: pip install '.[interop]'")

CONFIG = dropax.DropoutOperatorConfig(
    field_key="image", dropout_rate=0.5, stochastic=True, stream_name="augment"
)


def make_batch(key):
    return {"image": jax.random.normal(key, (6, 4, 4, 3)), "label": jnp.arange(6)}


class Network(nnx.Module):
    """Drops in its own forward pass: the state of dropax is one more variable."""

    def __init__(self, config, *, rngs):
        self.config = nnx.static(config)
        self.drop_state = nnx.Variable(dropax.init_state(config, rngs.augment()))
        self.dense = nnx.Linear(48, 6, rngs=rngs)

    def __call__(self, batch):
        batch, drop_state = dropax.apply_batch(self.config, self.drop_state.get_value(), batch)
        self.drop_state.set_value(drop_state)
        return self.dense(batch["image"].reshape(len(batch["image"]), -1)), batch


class Dropout(nnx.Module):
    """A layer to copy; without the name `deterministic`, `model.eval()` would not switch it off.

    The rate is an argument of the call: as an attribute it would be static, and compile anew.
    """

    def __init__(self, mode="pixel", *, rngs, deterministic=False):
        self.mode, self.deterministic = mode, deterministic
        self.rngs = rngs.dropout.fork()

    def __call__(self, features, rate):
        if self.deterministic:
            return features
        return dropax.dropout(self.rngs(), features, rate=rate, mode=self.mode, rescale=True)


def test_eval_switches_a_layer_off_and_train_on_again(key):
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.drop = Dropout(dropax.Block(size=2), rngs=rngs)

        def __call__(self, images, rate):
            return self.drop(nnx.relu(self.conv(images)) + 1, rate)

    network, images = Network(nnx.Rngs(0, dropout=1)), make_batch(key)["image"]
    traces = []

    @nnx.jit
    def run(network, images, rate):
        traces.append(rate)
        return network(images, rate)

    network.eval()
    whole = run(network, images, 0.4)
    assert (whole >= 1).all()
    np.testing.assert_array_equal(run(network, images, 0.4), whole)
    network.train()
    rates = (0.4, 0.4, 0.2)
    results = [run(network, images, rate) for rate in rates]
    assert len(traces) == 2  # one in each mode, for all rates
    assert (results[0] == 0).any()
    assert ((results[0] == 0) != (results[1] == 0)).any()
    stream = nnx.Rngs(dropout=1).dropout.fork()
    for dropped, rate in zip(results, rates, strict=True):
        expected = dropax.dropout(
            stream(), whole, rate=rate, mode=dropax.Block(size=2), rescale=True
        )
        np.testing.assert_allclose(dropped, expected, rtol=1e-6)


def test_the_operator_takes_nnx_rngs_as_they_are():
    rngs = nnx.Rngs(0, augment=1)
    operator = dropax.DropoutOperator(CONFIG, rngs=rngs)
    assert operator.rngs is rngs
    batch = {"image": jnp.ones((6, 4, 4, 3))}
    dropped = operator.apply_batch(batch)
    # The key is the stream's first, so the masks are those of the pure functions with that key.
    state = dropax.init_state(CONFIG, nnx.Rngs(0, augment=1).augment())
    expected, _ = dropax.apply_batch(CONFIG, state, batch)
    np.testing.assert_array_equal(dropped["image"], expected["image"])
    # And the next operator is given another.
    other = dropax.DropoutOperator(CONFIG, rngs=rngs)
    assert (other.state.key != operator.state.key).all()


def test_a_key_drawn_inside_nnx_jit_advances_the_stream(key):
    images = make_batch(key)["image"]

    @nnx.jit
    def drop(rngs, images):
        return dropax.dropout(rngs.augment(), images, rate=0.5)

    rngs, twin = nnx.Rngs(augment=1), nnx.Rngs(augment=1)
    for _ in range(3):
        expected = dropax.dropout(twin.augment(), images, rate=0.5)
        np.testing.assert_array_equal(drop(rngs, images), expected)


def test_a_training_step_of_a_module_that_drops(key):
    network = Network(CONFIG, rngs=nnx.Rngs(0, augment=1))
    optimizer = nnx.Optimizer(network, optax.adam(1e-2), wrt=nnx.Param)
    batch = make_batch(key)

    @nnx.jit
    def train_step(network, optimizer, batch):
        def loss(network):
            logits, dropped = network(batch)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return losses.mean(), dropped["image"]

        (value, seen), gradients = nnx.value_and_grad(loss, has_aux=True)(network)
        optimizer.update(network, gradients)
        return value, seen

    losses, state = [], dropax.init_state(CONFIG, nnx.Rngs(augment=1).augment())
    for _ in range(60):
        value, seen = train_step(network, optimizer, batch)
        losses.append(float(value))
        expected, state = dropax.apply_batch(CONFIG, state, batch)
        np.testing.assert_array_equal(seen, expected["image"])
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert int(network.drop_state.get_value().step) == 60


def test_an_operator_held_by_a_module_goes_on_after_nnx_jit(key):
    class Holder(nnx.Module):
        def __init__(self, operator):
            self.operator = nnx.data(operator)

        def __call__(self, batch):
            return self.operator(batch)

    operator = dropax.DropoutOperator(CONFIG, rngs=nnx.Rngs(0, augment=1))
    twin, holder, batch = operator.clone(), Holder(operator), make_batch(key)
    run = nnx.jit(lambda holder, batch: holder(batch))
    for number in range(3):
        np.testing.assert_array_equal(run(holder, batch)["image"], twin(batch)["image"])
        assert int(holder.operator.state.step) == number + 1
