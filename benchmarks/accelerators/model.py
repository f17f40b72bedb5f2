"""A small vision transformer in plain JAX, bfloat16, with dropout at the usual places."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import dropax
from benchmarks.cases import RATE

BATCH, SIDE, PATCH, WIDTH, HEADS, BLOCKS, CLASSES = 128, 224, 16, 384, 6, 2, 1000
_TOKENS = (SIDE // PATCH) ** 2

Drop = Callable[[jax.Array, jax.Array], jax.Array]
Weights = dict[str, jax.Array]


def flax_dropout(key: jax.Array, x: jax.Array) -> jax.Array:
    """Returns what `flax.linen.Dropout` does; by its formula if flax is not installed."""
    try:
        from flax import linen
    except ImportError:
        mask = jax.random.bernoulli(key, 1 - RATE, x.shape)
        return jnp.where(mask, x / (1 - RATE), jnp.zeros_like(x))
    return linen.Dropout(RATE, deterministic=False).apply({}, x, rngs={"dropout": key})


def _dropax(key: jax.Array, x: jax.Array, batch_axes: int) -> jax.Array:
    element_ndim = x.ndim - batch_axes
    return dropax.dropout(key, x, rate=RATE, rescale=True, element_ndim=element_ndim)


DROPS: dict[str, Drop] = {
    "no dropout": lambda key, x: x,
    "`flax.linen.Dropout`": flax_dropout,
    "`dropax.dropout`, one key": functools.partial(_dropax, batch_axes=0),
    "`dropax.dropout`, a key for each record": functools.partial(_dropax, batch_axes=1),
}


def make_arguments() -> tuple[Any, ...]:
    """Makes (weights, key, images, labels)."""

    def normal(*shape: int) -> jax.Array:
        return jnp.full(shape, 0.02, jnp.bfloat16)

    weights: dict[str, Any] = {
        "embed": normal(PATCH * PATCH * 3, WIDTH),
        "position": normal(_TOKENS, WIDTH),
        "head": normal(WIDTH, CLASSES),
    }
    for n in range(BLOCKS):
        weights[f"block {n}"] = {
            "query_key_value": normal(WIDTH, 3 * WIDTH),
            "out": normal(WIDTH, WIDTH),
            "up": normal(WIDTH, 4 * WIDTH),
            "down": normal(4 * WIDTH, WIDTH),
        }
    images = jnp.ones((BATCH, SIDE, SIDE, 3), jnp.bfloat16)
    return weights, jax.random.key(0), images, jnp.zeros(BATCH, jnp.int32)


def _loss(
    drop: Drop, checkpoint: bool, weights: Any, key: jax.Array, images: jax.Array, labels: jax.Array
) -> jax.Array:
    side = SIDE // PATCH
    patches = images.reshape(BATCH, side, PATCH, side, PATCH, 3).swapaxes(2, 3)
    x = patches.reshape(BATCH, _TOKENS, -1) @ weights["embed"] + weights["position"]
    x = drop(jax.random.fold_in(key, BLOCKS), x)
    block = functools.partial(_block, drop)
    for n in range(BLOCKS):
        run = jax.checkpoint(block) if checkpoint else block
        x = run(weights[f"block {n}"], jax.random.fold_in(key, n), x)
    logits = (_normalize(x).mean(1) @ weights["head"]).astype(jnp.float32)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def _block(drop: Drop, weights: Weights, key: jax.Array, x: jax.Array) -> jax.Array:
    keys = jax.random.split(key, 4)
    x = x + drop(keys[1], _attend(functools.partial(drop, keys[0]), weights, _normalize(x)))
    hidden = drop(keys[2], jax.nn.gelu(_normalize(x) @ weights["up"]))
    return x + drop(keys[3], hidden @ weights["down"])


def _attend(drop: Callable[[jax.Array], jax.Array], weights: Weights, x: jax.Array) -> jax.Array:
    heads = (x @ weights["query_key_value"]).reshape(BATCH, _TOKENS, 3, HEADS, -1)
    query, key, value = jnp.moveaxis(heads, 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(WIDTH // HEADS)
    weighted = jnp.einsum("bhqk,bkhd->bqhd", drop(jax.nn.softmax(scores)), value)
    return weighted.reshape(BATCH, _TOKENS, WIDTH) @ weights["out"]


def _normalize(x: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, axis=-1)


def gradients(drop: Drop, checkpoint: bool, *arguments: Any) -> tuple[jax.Array, Any]:
    """Returns the loss and the gradients of a step, as `make_arguments` orders its arguments."""
    return jax.value_and_grad(functools.partial(_loss, drop, checkpoint))(*arguments)


def residuals(drop: Drop, checkpoint: bool) -> dict[str, int]:
    """Returns how many bytes JAX keeps from forward to backward: all of them, and of booleans."""

    def backward(weights: Any, *rest: Any) -> Any:
        return jax.vjp(lambda weights: _loss(drop, checkpoint, weights, *rest), weights)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, *jax.eval_shape(make_arguments)))
    kept = [leaf for leaf in kept if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return {
        "residuals": sum(leaf.size * leaf.dtype.itemsize for leaf in kept),
        "masks": sum(leaf.size for leaf in kept if leaf.dtype == jnp.bool_),
    }
