"""Hypothesis strategies: regions, configs, keys, states, and the data that goes with a config.

Each draws only what dropax takes, the simplest first, so that failing examples shrink to what one
can read. (Fewer choices count as simpler, so that what is plain must not take more of them.) A
keyword narrows a strategy down: it takes values, or a strategy of them. Data fits a config: its
fields, and the shapes and dtypes that its mode, fill and clip range take. Arrays are NumPy's, of
every memory layout.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from dropax.config import DropoutOperatorConfig
from dropax.fills import FromField
from dropax.kit.batch import Batch, Element
from dropax.kit.config import ModalityOperatorConfig
from dropax.kit.errors import must, require_choice
from dropax.kit.fields import set_field
from dropax.kit.state import OperatorState
from dropax.layout import Layout
from dropax.modes import (
    MODES,
    Band,
    Block,
    Blocks,
    Box,
    Channel,
    Grid,
    Inverted,
    Mode,
    OneOf,
    Patch,
    Pixel,
    Shared,
)

DTYPES = ("float32", "uint8", "bfloat16", "int32", "float16", "int16", "bool")
IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")
LAYOUTS = ("C", "F", "strided", "reversed", "read-only")
_KINDS = ("dict", "Batch")

# What a check goes through, whatever its batches draw: few shapes, as each compiles anew, of large
# and small batches, odd, even and short sides, every rank and one to five channels.
# (records, rank, sides, channels), the rank if the config and the caller leave a choice.
_PLANS = (
    (9, 3, (7, 5), 3),
    (2, 3, (4, 6), 5),
    (1, 4, (5, 7), 4),
    (10, 3, (8, 3), 2),
    (4, 2, (6, 9), 1),
    (3, 3, (5, 9), 1),
    (5, 1, (11, 1), 1),
)
_plan: contextvars.ContextVar[int | None] = contextvars.ContextVar("_plan", default=None)


@contextlib.contextmanager
def fixed_plan(number: int | None) -> Iterator[None]:
    """Fixes the sizes, shapes and dtypes that batches are drawn with, as far as they may vary.

    Args:
      number: which of the planned ones; None to draw them freely.
    """
    token = _plan.set(number)
    try:
        yield
    finally:
        _plan.reset(token)


def _choice(draw: st.DrawFn, options: Sequence[Any], label: str) -> Any:
    """Draws one of the options, or takes the planned one."""
    plan = _plan.get()
    if plan is not None:
        return options[plan % len(options)]
    return draw(st.sampled_from(list(options)), label=label)


_OTHER_REGIONS = ("Blocks", "OneOf", "Shared", "Inverted")


def regions(
    *,
    modes: Sequence[str] = (*MODES, *_OTHER_REGIONS),
    max_size: int = 4,
    min_kept: Any = 0,
    rotate: Any = 0,
) -> st.SearchStrategy[Mode]:
    """Draws region objects of every mode, which fit elements of one to three spatial axes.

    Args:
      modes: the names of the modes to draw from, or of classes of regions that no mode is named
        after; the first is the simplest.
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
      >>> @settings(max_examples=3)
      ... @given(regions(modes=("box", "band")))
      ... def check(region):
      ...     assert region.sample(jax.random.key(0), (6, 6, 3), 0.5).dtype == bool
      >>> check()
    """
    for mode in modes:
        require_choice("regions.modes", mode, (*MODES, *_OTHER_REGIONS))
    sizes = st.integers(1, max_size)
    counts = st.integers(1, 3)
    aspects = st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.25, 0.25)])
    units = sizes | st.tuples(sizes, sizes).map(lambda pair: (min(pair), max(pair)))
    of_mode: dict[str, st.SearchStrategy[Any]] = {
        **{name: st.just(mode) for name, mode in MODES.items()},
        "pixel": st.builds(Pixel, per_channel=st.sampled_from([True, False])),
        "channel": st.builds(
            Channel, min_kept=as_strategy(min_kept), exact=st.sampled_from([False, True])
        ),
        "block": st.builds(Block, size=sizes, per_channel=st.booleans()),
        "patch": st.builds(Patch, size=sizes, exact=st.sampled_from([False, True])),
        "box": st.builds(
            Box, count=counts, aspect_ratio=aspects, border=st.sampled_from(["inside", "clip"])
        ),
        "grid": st.builds(Grid, unit=units, rotate=as_strategy(rotate)),
        "band": st.builds(Band, axis=st.sampled_from([0, -1]), count=counts),
        # A larger cell would not divide every image.
        "Blocks": st.builds(Blocks, size=st.just(1), min_cells=sizes),
    }
    inner = st.one_of([of_mode[mode] for mode in ("pixel", "patch", "box", "band")])
    of_mode |= {
        "OneOf": st.builds(OneOf, st.lists(inner, min_size=1, max_size=2).map(tuple)),
        "Shared": st.builds(Shared, inner, axes=st.just(-1)),
        "Inverted": st.builds(Inverted, inner),
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
    choose("where_key", st.sampled_from([None, None, "may_drop"]))
    simple = map(st.just, (0.0, 1.0, "mean", "noise", "stats_mean", FromField("other")))
    fill = choose("fill", st.one_of(*simple, st.floats(-2, 100, width=16)))
    choose("rescale", st.sampled_from([False, False, True]))
    choose("apply_probability", st.sampled_from([None, None, 0.5 if stochastic else None]))
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
        raise ValueError(must("keys.implementations", "name one if legacy is False", ()))
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


def shapes(*, ranks: Sequence[int] = (3, 2, 1, 4), max_side: int = 9) -> Any:
    """Draws shapes of images, sides of 1 among them."""
    plan = _plan.get()
    if plan is not None:
        _, rank, spatial, channels = _PLANS[plan % len(_PLANS)]
        rank = rank if rank in ranks else ranks[plan % len(ranks)]
        planned = spatial[:rank] if rank < 3 else (*(2,) * (rank - 3), *spatial, channels)
        return st.just(tuple(min(side, max_side) for side in planned))
    # As many sides for every rank: else the fewest axes would count as the simplest.
    sides = st.tuples(*[st.integers(1, max_side)] * max(ranks))
    return st.builds(lambda rank, sides: sides[:rank], st.sampled_from(list(ranks)), sides)


@st.composite
def images(
    draw: st.DrawFn,
    /,
    *,
    dtypes: Sequence[str] = DTYPES,
    shape: Any = None,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 9,
    layouts: Sequence[str] = LAYOUTS,
    special: bool = True,
    low: float = -math.inf,
    high: float = math.inf,
) -> np.ndarray:
    """Draws NumPy images.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      dtypes: names of dtypes to draw from; the first is the simplest.
      shape: a shape, or a strategy of them; None for one of the ranks and sides below.
      ranks: how many axes.
      max_side: the largest size of an axis.
      layouts: of the memory: "C", "F", "strided" (every other value of a larger array), "reversed"
        (negative strides), "read-only".
      special: whether values may be NaN, infinite, subnormal or as large as the dtype holds.
        Otherwise they are small numbers that every dtype holds exactly.
      low: no value is lower.
      high: no value is higher. At least one whole number must lie between.

    Returns:
      A strategy. It shrinks towards a small array of zeros, or what is next to them.

    Raises:
      ValueError: when drawing, if a layout or a dtype is unknown.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(images(dtypes=("uint8",), ranks=(3,)))
      ... def check(image):
      ...     assert image.dtype == np.uint8 and image.ndim == 3
      >>> check()
    """
    for name in dtypes:
        require_choice("images.dtypes", name, (*DTYPES, "float64", "int64", "uint16", "int8"))
    for name in layouts:
        require_choice("images.layouts", name, LAYOUTS)
    dtype = jnp.dtype(_choice(draw, dtypes, "dtype"))
    if shape is None:
        shape = shapes(ranks=ranks, max_side=max_side)
    size = tuple(draw(as_strategy(shape), label="shape"))
    layout = _choice(draw, layouts, "layout")
    values = _candidates(dtype, special, low, high)
    if _plan.get() is None:
        pool = draw(st.lists(st.sampled_from(values), min_size=1, max_size=8), label="values")
    else:
        pool = [values[at * 31 % len(values)] for at in range(23)]
    # Few values, laid out by a stride that draws no further: an image in a handful of choices.
    stride = draw(st.integers(1, 7), label="stride")
    at = np.arange(math.prod(size)) * stride % len(pool)
    return _laid_out(np.array(pool, dtype)[at].reshape(size), layout)


def _candidates(dtype: Any, special: bool, low: float, high: float) -> list[Any]:
    """Returns values of a dtype within bounds, the simplest first."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    info: Any = jnp.finfo(dtype) if is_float else None
    least, most = (0, 1) if dtype == np.bool_ else (-math.inf, math.inf)
    if jnp.issubdtype(dtype, jnp.integer):
        least, most = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    least, most = max(low, least), min(high, most)
    # Quarters up to 64 are exact in every floating-point dtype.
    tame = (number / 4 for number in range(-36, 257)) if is_float else range(-9, 101)
    values: list[Any] = sorted((v for v in tame if least <= v <= most), key=_plainness)
    if special and is_float:
        largest, tiny = float(info.max), float(info.smallest_subnormal)
        odd = (math.inf, -math.inf, -0.0, largest, -largest, tiny, -tiny)
        values += [math.nan, *(value for value in odd if least <= value <= most)]
    elif special or not values:
        ends = ((math.ceil, least), (math.floor, most))
        values += [rounded(bound) for rounded, bound in ends if math.isfinite(bound)]
    return values


def _plainness(value: float) -> tuple[bool, float, bool]:
    return value != int(value), abs(value), value < 0


def _laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[backwards])[backwards]
    if layout == "read-only":
        array.flags.writeable = False
    return array


def dtypes_of(config: Any, dtypes: Sequence[str] = DTYPES) -> list[str]:
    """Returns those of the dtypes that a config takes images of."""
    return [name for name in dtypes if _takes(config, jnp.dtype(name))]


def _takes(config: Any, dtype: Any) -> bool:
    if not isinstance(config, DropoutOperatorConfig):
        return True
    is_float = jnp.issubdtype(dtype, jnp.floating)
    info: Any = jnp.finfo(dtype) if is_float else None if dtype == np.bool_ else jnp.iinfo(dtype)
    least, most = (0, 1) if info is None else (float(info.min), float(info.max))
    low, high = config.clip_range or (least, most)
    low, high = max(low, least), min(high, most)
    fills = config.fill if isinstance(config.fill, tuple) else (config.fill,)
    numbers = [fill for fill in fills if isinstance(fill, int | float)]
    fits = all(least <= number <= most for number in numbers)
    if is_float:
        return fits and low <= high
    whole = all(number == int(number) for number in numbers)
    return fits and whole and not config.rescale and low <= high and math.ceil(low) <= high


def _config_of(config: Any, owner: str) -> ModalityOperatorConfig:
    if config is None:
        return DropoutOperatorConfig(field_key="image")
    if not isinstance(config, ModalityOperatorConfig):
        raise TypeError(must(owner, "be a config with a field_key", config))
    return config


@st.composite
def _shape_of(draw: st.DrawFn, /, config: Any, ranks: Sequence[int], max_side: int) -> Any:
    """Draws an element's shape that a config's mode, fill and channel axis fit."""
    region = config.mode_object if isinstance(config, DropoutOperatorConfig) else None
    axis = config.channel_axis if isinstance(config, DropoutOperatorConfig) else "auto"
    fill = config.fill if isinstance(config, DropoutOperatorConfig) else 0
    fits = []
    for rank in ranks:
        has_channels = axis is not None and (axis != "auto" or rank > 2)
        spatial = rank - has_channels
        named = isinstance(axis, int) and not -rank <= axis < rank
        turned = isinstance(region, Grid) and region.rotate and spatial != 2
        cut = isinstance(region, Band) and not -spatial <= region.axis < spatial
        least = isinstance(region, Channel) and region.min_kept > 1 and not has_channels
        several = isinstance(fill, tuple) and len(fill) > 1 and not has_channels
        if spatial and not (named or turned or cut or least or several):
            fits.append(rank)
    if not fits:
        raise ValueError(must("elements.ranks", "have one that the config fits", tuple(ranks)))
    shape = list(draw(shapes(ranks=fits, max_side=max_side)))
    channels = -1 if axis == "auto" else axis
    if channels is not None and (axis != "auto" or len(shape) > 2):
        if isinstance(fill, tuple):
            shape[channels] = len(fill)
        elif isinstance(region, Channel):
            shape[channels] = max(shape[channels], region.min_kept)
    return tuple(shape)


@st.composite
def _parts(
    draw: st.DrawFn,
    /,
    config: ModalityOperatorConfig,
    size: int | None,
    ranks: Sequence[int],
    max_side: int,
    options: dict[str, Any],
) -> tuple[Any, Any]:
    """Draws the data and the state of an element, or of a batch of some size."""
    lead = () if size is None else (size,)
    shape = draw(_shape_of(config, ranks, max_side))
    asked = options.pop("dtypes", DTYPES)
    names = dtypes_of(config, asked)
    if not names:
        raise ValueError(must("elements.dtypes", "have one that the config takes", asked))
    low, high = config.clip_range or (-math.inf, math.inf)
    given = {"low": low, "high": high, "special": False, **options}
    image = draw(images(dtypes=names, shape=(*lead, *shape), **given))
    label = np.int32(1) if size is None else np.arange(size, dtype=np.int32)
    data = set_field({"label": label}, config.field_key, image)
    for field in config.auxiliary_fields or ():
        follower = images(dtypes=("float32",), shape=image.shape, special=False, layouts=("C",))
        data = set_field(data, field, draw(follower, label=field))
    if isinstance(config, DropoutOperatorConfig):
        data = draw(_with_read_fields(config, data, image, lead))
    return data, {"seen": np.zeros(lead, np.uint32)}


@st.composite
def _with_read_fields(
    draw: st.DrawFn,
    /,
    config: DropoutOperatorConfig,
    data: dict[str, Any],
    image: np.ndarray,
    lead: tuple[int, ...],
) -> dict[str, Any]:
    """Adds the fields that a config reads beside the image: what fills, and where values drop."""
    layout = Layout.of(image.shape[len(lead) :], config.channel_axis)
    tame: dict[str, Any] = {"special": False, "layouts": ("C",)}
    if isinstance(config.fill, FromField):
        one = images(dtypes=(image.dtype.name,), shape=image.shape, **tame)
        data = set_field(data, config.fill.field, draw(one, label=config.fill.field))
    if config.where_key is not None:
        spatial = (*lead, *layout.channel_last_shape[:-1])
        one = images(dtypes=("bool", "float32"), shape=spatial, **tame)
        data = set_field(data, config.where_key, draw(one, label=config.where_key))
    return data


@st.composite
def elements(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 9,
    **options: Any,
) -> Element:
    """Draws elements that a config works on.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: what the element must fit: its fields, axes, channels and dtypes. None for a default
        config on "image".
      ranks: how many axes an image has; only those that fit are drawn.
      max_side: the largest size of an axis, unless the config needs more channels.
      **options: `dtypes`, `layouts`, `special`, `low` and `high` of `images`. Unless they say
        otherwise, values are tame and within the config's `clip_range`.

    Returns:
      A strategy of `dropax.Element`, with the config's `field_key` and auxiliary fields, a field
      "label", a state of one number and metadata.

    Raises:
      TypeError: when drawing, if the config has no `field_key`.
      ValueError: when drawing, if no rank or no dtype fits.

    Example:
      >>> from hypothesis import given, settings
      >>> from dropax import DropoutOperatorConfig, apply
      >>> config = DropoutOperatorConfig(field_key="image")
      >>> @settings(max_examples=3)
      ... @given(elements(config, dtypes=("float32", "uint8")))
      ... def check(element):
      ...     data, _, _ = apply(config, element.data, element.state, element.metadata)
      ...     assert data["image"].dtype == element.data["image"].dtype
      >>> check()
    """
    config = _config_of(config, "elements.config")
    data, state = draw(_parts(config, None, ranks, max_side, dict(options)))
    return Element(data, state, {"name": "a record"})


@st.composite
def batches(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    size: Any = None,
    kinds: Sequence[str] = ("dict",),
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 9,
    **options: Any,
) -> Any:
    """Draws batches that a config works on.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `elements`.
      size: how many records, or a strategy; None for 1 to 9.
      kinds: "dict" for dicts of arrays, "Batch" for `dropax.Batch` with states and metadata.
      ranks: as for `elements`.
      max_side: as for `elements`.
      **options: as for `elements`.

    Returns:
      A strategy of dicts of arrays of shape (B, ...), or of batches.

    Raises:
      TypeError, ValueError: when drawing, as for `elements`; or if a kind is unknown.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(batches(size=3, kinds=("Batch",)))
      ... def check(batch):
      ...     assert len(batch) == len(batch["image"]) == 3
      >>> check()
    """
    for kind in kinds:
        require_choice("batches.kinds", kind, _KINDS)
    config = _config_of(config, "batches.config")
    count = draw(_sizes(size), label="size")
    data, states = draw(_parts(config, count, ranks, max_side, dict(options)))
    if _choice(draw, kinds, "kind") == "dict":
        return data
    return Batch.from_parts(data, states, [{"name": number} for number in range(count)])


def _sizes(size: Any) -> st.SearchStrategy[int]:
    """Draws how many records there are, as asked for."""
    plan = _plan.get()
    if size is not None:
        return as_strategy(size)
    return st.integers(1, 9) if plan is None else st.just(_PLANS[plan % len(_PLANS)][0])


@st.composite
def data_shapes(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    size: Any = None,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 9,
) -> dict[str, Any]:
    """Draws what `generate_random_params` takes as `data_shapes`.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `elements`.
      size: how many records, or a strategy; None for 1 to 9.
      ranks: as for `elements`.
      max_side: as for `elements`.

    Returns:
      A strategy of dicts of shapes (B, ...): nested as data is, of the config's `field_key`.

    Raises:
      TypeError: when drawing, if the config has no `field_key`.
      ValueError: when drawing, if no rank fits.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=10)
      ... @given(data_shapes(size=2))
      ... def check(shapes):
      ...     assert shapes["image"][0] == 2
      >>> check()
    """
    config = _config_of(config, "data_shapes.config")
    count = draw(_sizes(size), label="size")
    return set_field({}, config.field_key, (count, *draw(_shape_of(config, ranks, max_side))))


def as_strategy(value: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy as it is, and one of a single value for anything else."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)
