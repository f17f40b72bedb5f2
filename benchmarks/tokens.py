"""What kept tokens cost beside the forms that people write by hand: `python -m benchmarks.tokens`.

The forms are those of MAE (noise, `argsort` twice, `take_along_axis`) and of FLIP (a product with
one-hot ids). All take turns in one run; the ratio is to a jitted `x + 1` of all tokens.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import interleave
from dropax import gather_tokens, keep_tokens, scatter_tokens


def ids_by_argsort(noise: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns (ids_keep, ids_restore) as MAE's `random_masking` does."""
    shuffled = jnp.argsort(noise, axis=1)
    return shuffled[:, :count], jnp.argsort(shuffled, axis=1)


def gather_by_one_hot(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Gathers as FLIP does."""
    return jnp.einsum("bkn,bnd->bkd", jax.nn.one_hot(ids, x.shape[1], dtype=x.dtype), x)


def gather_by_take(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Gathers as MAE does."""
    return jnp.take_along_axis(x, ids[..., None], axis=1)


def scatter_by_take(kept: jax.Array, restore: jax.Array, fill: jax.Array) -> jax.Array:
    """Puts tokens back as MAE's decoder does."""
    batch, count, features = kept.shape
    fills = jnp.broadcast_to(fill, (batch, restore.shape[1] - count, features))
    return gather_by_take(jnp.concatenate([kept, fills], axis=1), restore)


def contenders(shape: tuple[int, int, int], count: int) -> dict[str, Callable[[], Any]]:
    """Returns what is timed, by name, each compiled and called without arguments.

    Args:
      shape: (records, tokens, features).
      count: how many tokens are kept.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random(shape, np.float32))
    noise = jnp.asarray(rng.random(shape[:2], np.float32))
    ids, restore = ids_by_argsort(noise, count)
    mask = restore < count
    tokens, fill = keep_tokens(mask, count), jnp.ones(shape[2])
    kept = gather_tokens(x, tokens.kept)
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "copy: x + 1": (lambda x: x + 1, (x,)),
        "ids: keep_tokens of a mask": (lambda mask: keep_tokens(mask, count), (mask,)),
        "ids: argsort of noise, twice": (lambda noise: ids_by_argsort(noise, count), (noise,)),
        "gather: gather_tokens": (gather_tokens, (x, tokens.kept)),
        "gather: take_along_axis": (gather_by_take, (x, ids)),
        "gather: one-hot product": (gather_by_one_hot, (x, ids)),
        "scatter: scatter_tokens": (scatter_tokens, (kept, tokens, fill)),
        "scatter: take_along_axis": (scatter_by_take, (kept, restore, fill)),
    }

    def compiled(function: Callable[..., Any], given: tuple[Any, ...]) -> Callable[[], Any]:
        run = jax.jit(function).lower(*given).compile()
        return lambda: run(*given)

    return {name: compiled(*call) for name, call in calls.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 196, 768))
    parser.add_argument("--count", type=int, default=49, help="kept tokens of a record")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long it is timed at least")
    options = parser.parse_args(argv)
    calls = contenders(tuple(options.shape), options.count)
    timings = interleave(calls, seconds=options.seconds)
    copy = timings["copy: x + 1"].median
    print(
        f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, {tuple(options.shape)} float32"
    )
    print(f"{'median of interleaved repetitions':34} {'ms':>8} {'10 %':>8} {'copies':>7}")
    for name, timing in timings.items():
        ratio = timing.median / copy
        print(f"{name:34} {timing.median * 1e3:8.3f} {timing.p10 * 1e3:8.3f} {ratio:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
