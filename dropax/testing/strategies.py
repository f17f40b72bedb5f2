"""Hypothesis strategies for what fixes a drop: regions, configs, keys and operator states.

Each draws only what dropax takes, the simplest first, so that failing examples shrink to what one
can read. (Fewer choices count as simpler, so that what is plain must not take more of them.) A
keyword narrows a strategy down: it takes values, or a strategy of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from dropax.config import DropoutOperatorConfig
from dropax.kit.errors import must, require_choice
from dropax.kit.state import OperatorState
from dropax.regions import MODES, Band, Block, Box, Channel, Grid, Patch, Pixel, Region

IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


def regions(
    *,
    modes: Sequence[str] = tuple(MODES),
    max_size: int = 4,
    min_kept: Any = 0,
    rotate: Any = 0,
) -> st.SearchStrategy[Region]:
    """Draws region objects of every mode, which fit elements of one to three spatial axes.

    Args:
      modes: the names of the modes to draw from; the first is the simplest.
      max_size: largest side of blocks and patches and largest unit of grids, in pixels, at least 1.
      min_kept: of `Channel`; a number or a strategy. An element must have as many channels.
      rotate: of `Grid`, in degrees; a number or a strategy. Above 0, an element must have two
        spatial axes.

    Returns:
      A strategy. It shrinks towards the first mode, with its least options.

    Raises:
      ValueError: if a mode is unknown, or there is none.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(regions(modes=("box", "band")))
      ... def check(region):
      ...     assert region.sample(jax.random.key(0), (6, 6, 3), 0.5).dtype == bool
      >>> check()
    """
    for mode in modes:
        require_choice("regions.modes", mode, MODES)
    sizes = st.integers(1, max_size)
    counts = st.integers(1, 3)
    aspects = st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.25, 0.25)])
    units = sizes | st.tuples(sizes, sizes).map(lambda pair: (min(pair), max(pair)))
    of_mode: dict[str, st.SearchStrategy[Any]] = {
        "pixel": st.builds(Pixel, per_channel=st.sampled_from([True, False])),
        "channel": st.builds(Channel, min_kept=as_strategy(min_kept)),
        "block": st.builds(Block, size=sizes, per_channel=st.booleans()),
        "patch": st.builds(Patch, size=sizes),
        "box": st.builds(
            Box, count=counts, aspect_ratio=aspects, border=st.sampled_from(["inside", "clip"])
        ),
        "grid": st.builds(Grid, unit=units, rotate=as_strategy(rotate)),
        "band": st.builds(Band, axis=st.sampled_from([0, -1]), count=counts),
    }
    if not modes:
        raise ValueError(must("regions.modes", "name a mode", modes))
    return st.one_of([of_mode[mode] for mode in modes])


def rates() -> st.SearchStrategy[float]:
    """Draws rates in [0, 1]: common ones, both ends, and any float between."""
    return st.one_of(*map(st.just, (0.5, 0.25, 0.0, 1.0)), st.floats(0, 1, width=32))


@st.composite
def configs(draw: st.DrawFn, /, **options: Any) -> DropoutOperatorConfig:
    """Draws configs of dropout whose options go together.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      **options: any argument of `DropoutOperatorConfig`: a value, which is then fixed, or a
        strategy of values. What is left out is drawn: the rate or a range, the mode as a name or an
        object, all kinds of fills, everything else. Only `cacheable`, `batch_stats_fn`,
        `stream_name`, `auxiliary_fields` and `auxiliary_fill` keep their defaults, and `field_key`
        is "image" or "camera.rgb".

    Returns:
      A strategy. It shrinks towards a stochastic config on "image", of rate 0.5 in pixel mode, with
      the defaults of all else.

    Raises:
      TypeError, ValueError: when drawing, if options that are given do not go together, as the
        constructor says.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(configs(mode="channel", dropout_rate=st.floats(0.1, 0.9)))
      ... def check(config):
      ...     assert config.mode == "channel" and 0.1 <= config.dropout_rate <= 0.9
      >>> check()
    """
    drawn: dict[str, Any] = {}

    def choose(name: str, default: st.SearchStrategy[Any]) -> Any:
        drawn[name] = draw(as_strategy(options.get(name, default)), label=name)
        return drawn[name]

    stochastic = choose("stochastic", st.sampled_from([True, True, True, False]))
    range_of_rates = st.tuples(rates(), rates()).map(lambda pair: (min(pair), max(pair)))
    choose("dropout_rate", rates() | range_of_rates if stochastic else rates())
    choose("mode", st.one_of(*map(st.just, MODES), regions()))
    choose("field_key", st.sampled_from(["image", "camera.rgb"]))
    choose("target_key", st.sampled_from([None, None, "dropped", "views.dropped"]))
    choose("mask_key", st.sampled_from([None, None, "kept"]))
    choose("clip_range", st.sampled_from([None, None, (0.0, 1.0), (-2.0, 100.0)]))
    simple = map(st.just, (0.0, 1.0, "mean", "noise", "stats_mean"))
    fill = choose("fill", st.one_of(*simple, st.floats(-2, 100, width=16)))
    choose("rescale", st.sampled_from([False, False, True]))
    choose("apply_probability", st.sampled_from([1.0, 1.0, 0.5 if stochastic else 1.0]))
    choose("share_mask", st.sampled_from([False, False, True]))
    choose("batch_strategy", st.sampled_from(["vmap", "vmap", "scan"]))
    choose("seed", st.integers(0, 2**32 - 1))
    if fill == "stats_mean":
        choose("precomputed_stats", st.just({"mean": 0.5}))
    rest = {name: draw(as_strategy(value)) for name, value in options.items() if name not in drawn}
    return DropoutOperatorConfig(**drawn, **rest)


def keys(
    *, implementations: Sequence[str] = IMPLEMENTATIONS, legacy: bool = False
) -> st.SearchStrategy[jax.Array]:
    """Draws PRNG keys.

    Args:
      implementations: of typed keys; the first is the simplest.
      legacy: whether legacy `uint32` keys, of JAX's default implementation, are drawn too.

    Returns:
      A strategy of keys of shape (), made of seeds in [0, 2^32). It shrinks towards seed 0.

    Raises:
      ValueError: if an implementation is unknown, or there is nothing to draw.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(keys(implementations=("threefry2x32",)))
      ... def check(key):
      ...     assert key.shape == () and jax.random.bits(key).dtype == jnp.uint32
      >>> check()
    """
    for name in implementations:
        require_choice("keys.implementations", name, IMPLEMENTATIONS)
    makers: list[Any] = [lambda seed, impl=name: _typed_key(seed, impl) for name in implementations]
    if legacy:
        makers.append(jax.random.PRNGKey)
    if not makers:
        raise ValueError(must("keys.implementations", "name one where legacy is False", ()))
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(lambda make, seed: make(np.uint32(seed)), st.sampled_from(makers), seeds)


def _typed_key(seed: Any, implementation: str) -> jax.Array:
    return jax.random.key(seed, impl=implementation)


def operator_states(
    *, key: Any = None, step: Any = None, counts: Any = None, statistics: Any = None
) -> st.SearchStrategy[OperatorState]:
    """Draws states as they are after any number of calls, at the edges of their words too.

    Args:
      key: a typed key, or a strategy of them; None for those of `keys()`.
      step: an int in [0, 2^32), or a strategy; None for any.
      counts: an int in [0, 2^64), or a strategy, for either count; None for any.
      statistics: a dict, or a strategy of dicts or None. None for none, or a mean.

    Returns:
      A strategy. It shrinks towards the state of `init_state`.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(operator_states(step=2**32 - 1))
      ... def check(state):
      ...     assert int(state.advance().step) == 0
      >>> check()
    """
    words = st.just(0) | st.integers(0, 9) | st.integers(2**32 - 2, 2**32 - 1)
    wide = words | st.integers(2**64 - 2, 2**64 - 1)
    count = as_strategy(wide if counts is None else counts).map(
        lambda number: jnp.asarray([number >> 32, number & 0xFFFFFFFF], jnp.uint32)
    )
    means = st.sampled_from([None, {"mean": 0.5}])
    return st.builds(
        OperatorState,
        key=as_strategy(keys() if key is None else key),
        step=as_strategy(words if step is None else step).map(
            lambda number: jnp.asarray(number, jnp.uint32)
        ),
        applied_count=count,
        skipped_count=count,
        statistics=as_strategy(means if statistics is None else statistics),
    )


def as_strategy(value: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy as it is, and one of a single value for anything else."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)
