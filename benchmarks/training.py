"""Trains a small network many times over, with a mode of dropax or without, all seeds at once.

All that a seed decides but the masks is made once and handed to every mode: the training set, the
initial weights, the order of the batches. So modes can be compared seed by seed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dropax
from benchmarks.tasks import Data, Task, Weights


class Seeds(NamedTuple):
    """What each of S seeds starts from.

    Attributes:
      weights: leading axis S.
      order: which images each step trains on, (S, steps, batch size).
      others: which images the seed does not train on, (S, n); its validation set.
      keys: for the masks, (S,).
    """

    weights: Weights
    order: jax.Array
    others: jax.Array
    keys: jax.Array


class Dropping(NamedTuple):
    """What is dropped while training. Nothing is dropped afterwards.

    Attributes:
      place: "input", as an augmentation, or "features", as a layer (then what is kept is rescaled).
      mode: as `dropax.dropout` takes it.
    """

    place: str
    mode: Any


def make_seeds(task: Task, data: Data, count: int, steps: int) -> Seeds:
    """Draws what each seed starts from; seed i is the same however many there are."""
    orders, others = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(data.images))
        mine, rest = np.split(rows, [task.train_size])
        epochs = -(-steps * task.batch_size // task.train_size)
        order = np.concatenate([rng.permutation(mine) for _ in range(epochs)])
        orders.append(order[: steps * task.batch_size].reshape(steps, task.batch_size))
        others.append(rest)
    numbers = jnp.arange(count, dtype=jnp.uint32)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(numbers)
    init_keys, mask_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    weights = jax.jit(jax.vmap(task.init))(init_keys)
    return Seeds(weights, jnp.asarray(np.stack(orders)), jnp.asarray(np.stack(others)), mask_keys)


def make_trainer(task: Task, dropping: Dropping | None) -> Callable[..., dict[str, jax.Array]]:
    """Makes the function that trains all seeds.

    Args:
      task: what is learned.
      dropping: what is dropped, or None.

    Returns:
      `(seeds, data, rate) -> scores`, (S,) for each of "validation" and the tests. One compilation
      serves all rates.
    """

    def train(seeds: Seeds, data: Data, rate: Any) -> dict[str, jax.Array]:
        return jax.vmap(functools.partial(_train, task, dropping, data, rate))(seeds)

    return jax.jit(train)


def _train(
    task: Task, dropping: Dropping | None, data: Data, rate: Any, seed: Seeds
) -> dict[str, jax.Array]:
    optimizer = optax.adam(task.learning_rate)

    def loss(weights: Weights, rows: jax.Array, key: jax.Array) -> jax.Array:
        images, hide = data.images[rows], _identity
        if dropping is not None:
            drop = functools.partial(
                dropax.dropout,
                key,
                rate=rate,
                mode=dropping.mode,
                rescale=dropping.place == "features",
            )
            if dropping.place == "input":
                images = drop(images)
            else:
                hide = drop
        return task.loss(task.forward(weights, images, hide), data.targets[rows])

    def step(carry: Any, now: Any) -> Any:
        weights, moments = carry
        number, rows = now
        gradients = jax.grad(loss)(weights, rows, jax.random.fold_in(seed.keys, number))
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(weights, updates), moments), None

    numbers = jnp.arange(len(seed.order), dtype=jnp.uint32)
    start = (seed.weights, optimizer.init(seed.weights))
    (weights, _), _ = jax.lax.scan(step, start, (numbers, seed.order))

    # One pass over all images, or each set would be compiled by itself.
    everything = jnp.concatenate([data.images, *data.tests.values()])
    outputs, *tested = jnp.split(
        task.forward(weights, everything, _identity),
        len(data.images) + len(data.test_targets) * np.arange(len(data.tests)),
    )
    scores = {"validation": task.score(outputs[seed.others], data.targets[seed.others])}
    for name, outputs in zip(data.tests, tested, strict=True):
        scores[name] = task.score(outputs, data.test_targets)
    return scores


def _identity(images: jax.Array) -> jax.Array:
    return images
