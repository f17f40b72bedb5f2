"""Hypothesis strategies: modes, configs, keys, states, and the data that goes with a config.

They draw only what dropax takes, every option of it, the simplest first. A keyword narrows a
strategy down: it takes values, or a strategy of them. Arrays are NumPy's, of every memory layout;
their values are drawn from a seed, so that large ones cost no more than small ones.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dropax import presets
from dropax.config import DropoutOperatorConfig
from dropax.fills import FromField
from dropax.kit.batch import Batch, Element
from dropax.kit.config import ModalityOperatorConfig
from dropax.kit.errors import must, require_choice
from dropax.kit.fields import set_field
from dropax.kit.state import OperatorState
from dropax.layout import Layout
from dropax.modes import MODES, TYPES, Channel, Inverted, Mode, OneOf, Shared
from dropax.testing.trials import IMPLEMENTATIONS

DTYPES = ("float32", "uint8", "bfloat16", "int32", "float16", "int16", "int8", "uint16", "bool")
LAYOUTS = ("C", "F", "strided", "reversed", "read-only")
_PLAIN = ("Pixel", "Patch", "Box", "Band")  # modes that others hold


def as_strategy(value: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy as it is, and one of a single value for anything else."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


def _fairly(strategies: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Draws from each strategy or value equally often; `one_of` would take nested ones apart."""
    return st.sampled_from(range(len(strategies))).flatmap(lambda at: as_strategy(strategies[at]))


def modes(
    *, names: Sequence[str] = tuple(TYPES), max_size: int = 4, rotate: Any = 0
) -> st.SearchStrategy[Mode]:
    """Draws mode objects with every option, which fit elements of one to three spatial axes.

    Args:
      names: of modes or of their classes; the first is the simplest.
      max_size: largest side of blocks and patches and largest unit of grids, in pixels.
      rotate: of `Grid`, in degrees. Above 0, an element must have two spatial axes.

    Returns:
      A strategy of modes.

    Raises:
      ValueError: if a mode is unknown, or there is none.

    Example:
      >>> from hypothesis import find
      >>> find(modes(names=("record",)), lambda mode: True)
      Record()
    """
    for name in names:
        require_choice("modes.names", name, (*MODES, *TYPES))
    if not names:
        raise ValueError(must("modes.names", "name a mode", names))
    sizes, counts, flags = st.integers(1, max_size), st.integers(1, 3), st.booleans()
    pairs = st.tuples(sizes, sizes).map(lambda pair: (min(pair), max(pair)))
    groups = st.sampled_from([None, None, ((0, 1), (2,)), ((0, 2), (1, 3))])
    aspects = st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.25, 0.25)])
    options: dict[str, dict[str, Any]] = {
        "Pixel": {"per_channel": st.sampled_from([True, False])},
        "Channel": {"min_kept": st.integers(0, 2), "exact": flags, "groups": groups},
        "Block": {"size": sizes, "per_channel": flags},
        "Patch": {"size": sizes, "exact": flags},
        "Box": {
            "count": _fairly([counts, st.just((1, 3))]),
            "aspect_ratio": aspects,
            "border": st.sampled_from(["inside", "clip"]),
        },
        "Grid": {"unit": _fairly([sizes, pairs]), "rotate": as_strategy(rotate)},
        "Band": {"axis": st.sampled_from([0, -1]), "count": counts},
        # A larger cell would not divide every image.
        "Blocks": {"size": st.just(1), "aspect_ratio": st.just((0.5, 2.0)), "min_cells": sizes},
    }
    every = {name: st.builds(kind, **options.get(name, {})) for name, kind in TYPES.items()}
    inner = _fairly([every[name] for name in _PLAIN])
    of = st.lists(inner, min_size=1, max_size=2).map(tuple)
    weighted = st.tuples(of, st.booleans())
    every |= {
        "OneOf": weighted.map(lambda x: OneOf(x[0], (3, 1)[: len(x[0])] if x[1] else None)),
        "Shared": st.builds(Shared, inner, axes=st.sampled_from([-1, 0])),
        "Inverted": st.builds(Inverted, inner),
    }
    classes = [type(MODES[name]).__name__ if name in MODES else name for name in names]
    # Hypothesis draws nothing twice: modes without options would soon be used up.
    again = st.integers(0, 2**32 - 1)
    return st.tuples(_fairly([every[name] for name in classes]), again).map(lambda pair: pair[0])


def rates() -> st.SearchStrategy[float]:
    """Draws rates in [0, 1]: common ones, both ends, and any float between."""
    return _fairly([0.5, 0.25, 0.0, 1.0, st.floats(0, 1, width=32)])


def _channels_of(mode: Any) -> int:
    """Returns how many channels a mode needs; exactly so many, if it has groups."""
    if not isinstance(mode, Channel):
        return 1
    return mode.min_kept if mode.groups is None else sum(map(len, mode.groups))


@st.composite
def configs(draw: st.DrawFn, /, **options: Any) -> DropoutOperatorConfig:
    """Draws configs of dropout whose options go together.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      **options: any argument of `DropoutOperatorConfig`: a value, which is then fixed, or a
        strategy of values. What is left out is drawn, but for `cacheable`, `batch_stats_fn` and
        `stream_name`. It shrinks towards a stochastic config on "image", of rate 0.5 in pixel mode.

    Returns:
      A strategy of configs.

    Raises:
      TypeError, ValueError: when drawing, if options that are given do not go together.

    Example:
      >>> from hypothesis import find
      >>> find(configs(mode="channel"), lambda config: True).dropout_rate
      0.5
    """
    drawn: dict[str, Any] = {}

    def choose(name: str, *choices: Any) -> Any:
        drawn[name] = draw(as_strategy(options.get(name, _fairly(choices))), label=name)
        return drawn[name]

    stochastic = choose("stochastic", True, True, True, False)
    pairs = st.tuples(rates(), rates()).map(lambda pair: (min(pair), max(pair)))
    choose("dropout_rate", rates(), pairs if stochastic else rates())
    no_channels = options.get("channel_axis", "auto") is None
    drawn_modes = modes().filter(lambda mode: not (no_channels and _channels_of(mode) > 1))
    mode = choose("mode", st.sampled_from([*MODES]), drawn_modes)
    choose("field_key", "image", "camera.rgb")
    choose("target_key", None, None, "dropped", "views.dropped")
    choose("mask_key", None, None, "kept")
    choose("clip_range", None, None, (0.0, 1.0), (-2.0, 100.0))
    choose("where_key", None, None, "may_drop")
    channels = _channels_of(mode)
    several = () if no_channels else ((0.0, 1.0, 2.0, 3.0)[: max(channels, 3)],)
    computed = (0.0, 1.0, "mean", "noise", "stats_mean", FromField("other"), *several)
    fill = choose("fill", *computed, st.floats(-2, 100, width=16))
    choose("rescale", False, False, True)
    choose("apply_probability", None, None, 0.5 if stochastic else None)
    choose("share_mask", False, False, True)
    choose(
        "channel_axis", "auto", "auto", -1, 0, *[None] * (channels < 2 and type(fill) is not tuple)
    )
    if choose("auxiliary_fields", None, None, ["depth"]):
        choose("auxiliary_fill", 0, -1.0)
        choose("preserve_auxiliary", True, False)
    choose("batch_strategy", "vmap", "vmap", "scan")
    choose("seed", st.integers(0, 2**32 - 1))
    if fill == "stats_mean":
        choose("precomputed_stats", {"mean": 0.5})
    rest = {name: draw(as_strategy(value)) for name, value in options.items() if name not in drawn}
    return DropoutOperatorConfig(**drawn, **rest)


def preset_configs(*, names: Sequence[str] = tuple(presets.PRESETS)) -> st.SearchStrategy[Any]:
    """Draws configs of the papers' presets, for images (16, 16, C) or larger.

    Args:
      names: of functions in `dropax.presets`.

    Returns:
      A strategy of stochastic configs on "image".

    Example:
      >>> from hypothesis import find
      >>> find(preset_configs(names=("mae",)), lambda config: True).stochastic
      True
    """
    for name in names:
        require_choice("preset_configs.names", name, presets.PRESETS)
    sizes = st.sampled_from([1, 2, 4, 8])
    options: dict[str, dict[str, Any]] = {
        "cutout": {"image_shape": st.just((16, 16)), "length": st.integers(1, 16)},
        "random_erasing": {"probability": st.floats(0, 1)},
        "coarse_dropout": {"image_shape": st.just((16, 16))},
        "gridmask": {
            "unit": sizes,
            "ratio": st.floats(0.3, 0.9),
            "rotate": st.sampled_from([0, 90]),
        },
        "dropblock": {"rate": rates(), "block_size": sizes},
        **{name: {"rate": rates(), "patch_size": sizes} for name in ("mae", "simmim", "videomae")},
        "beit": {"rate": rates(), "patch_size": sizes, "min_patches": st.integers(1, 4)},
        "drop_path": {"rate": rates()},
        "spec_augment": {
            "spectrogram_shape": st.just((16, 16)),
            "time_mask_max_frames": st.integers(0, 15),
        },
    }
    made = [
        st.builds(presets.PRESETS[name], st.just("image"), **options.get(name, {}))
        for name in names
    ]
    return _fairly(made).map(lambda made: getattr(made, "configs", (made,))[0])


def keys(
    *, implementations: Sequence[str] = IMPLEMENTATIONS, legacy: bool = False
) -> st.SearchStrategy[jax.Array]:
    """Draws PRNG keys of shape (), from seeds in [0, 2^32).

    Args:
      implementations: of typed keys; the first is the simplest.
      legacy: whether legacy `uint32` keys, of JAX's default implementation, are drawn too.

    Returns:
      A strategy of keys.

    Raises:
      ValueError: if an implementation is unknown, or there is nothing to draw.

    Example:
      >>> from hypothesis import find
      >>> find(keys(), lambda key: True).shape
      ()
    """
    for name in implementations:
        require_choice("keys.implementations", name, IMPLEMENTATIONS)
    makers: list[Any] = [
        lambda seed, impl=name: jax.random.key(seed, impl=impl) for name in implementations
    ]
    if legacy:
        makers.append(jax.random.PRNGKey)
    if not makers:
        raise ValueError(must("keys.implementations", "name one if legacy is False", ()))
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(lambda make, seed: make(np.uint32(seed)), st.sampled_from(makers), seeds)


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
      A strategy of states.

    Example:
      >>> from hypothesis import find
      >>> int(find(operator_states(step=7), lambda state: True).step)
      7
    """
    words = _fairly([0, st.integers(0, 9), st.integers(2**32 - 2, 2**32 - 1)])
    wide = _fairly([words, st.integers(2**64 - 2, 2**64 - 1)])
    count = as_strategy(wide if counts is None else counts).map(
        lambda number: jnp.asarray([number >> 32, number & 0xFFFFFFFF], jnp.uint32)
    )
    return st.builds(
        OperatorState,
        key=as_strategy(keys() if key is None else key),
        step=as_strategy(words if step is None else step).map(jnp.uint32),
        applied_count=count,
        skipped_count=count,
        statistics=as_strategy(
            _fairly([None, {"mean": 0.5}]) if statistics is None else statistics
        ),
    )


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
    """Draws NumPy images. It shrinks towards a small array of zeros.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      dtypes: names of dtypes to draw from; the first is the simplest.
      shape: a shape, or a strategy of them; None for one of the ranks and sides below.
      ranks: how many axes.
      max_side: the largest size of an axis.
      layouts: of the memory: "C", "F", "strided" (every other value of a larger array), "reversed"
        (negative strides), "read-only".
      special: whether half of all images hold NaN, infinities, -0.0, subnormal, least and largest
        values. Other values are moderate: in [-9, 99], with full mantissas.
      low: no value is lower.
      high: no value is higher. At least one whole number must lie between.

    Returns:
      A strategy of arrays.

    Raises:
      ValueError: when drawing, if a layout or a dtype is unknown.

    Example:
      >>> from hypothesis import find
      >>> find(images(dtypes=("uint8",), ranks=(3,)), lambda image: True)
      array([[[0]]], dtype=uint8)
    """
    for name in dtypes:
        require_choice("images.dtypes", name, (*DTYPES, "float64", "int64"))
    for name in layouts:
        require_choice("images.layouts", name, LAYOUTS)
    dtype = jnp.dtype(draw(st.sampled_from([*dtypes]), label="dtype"))
    if shape is None:
        sides = {"min_side": 1, "max_side": max_side}
        shape = _fairly([hnp.array_shapes(min_dims=n, max_dims=n, **sides) for n in ranks])
    size = tuple(draw(as_strategy(shape), label="shape"))
    seed = draw(st.integers(0, 2**32 - 1), label="seed of the values")
    odd = special and draw(st.booleans(), label="special values")
    values = _values(np.random.default_rng(seed), size, dtype, bool(seed), odd, low, high)
    return _laid_out(values, draw(st.sampled_from([*layouts]), label="layout"))


def _values(
    rng: Any, size: tuple[int, ...], dtype: Any, filled: bool, odd: bool, low: float, high: float
) -> np.ndarray:
    """Returns values of a dtype within bounds; zeros, or what is next to them, if not `filled`."""
    if dtype == np.bool_:
        return rng.random(size) < 0.5 if filled or odd else np.zeros(size, bool)
    is_float = jnp.issubdtype(dtype, jnp.floating)
    info: Any = jnp.finfo(dtype) if is_float else jnp.iinfo(dtype)
    least, most = max(low, float(info.min)), min(high, float(info.max))
    if not is_float:
        least, most = math.ceil(least), math.floor(most)
    start = min(max(least, -9.0), most)
    values = rng.uniform(start, max(min(most, 99.0), start), size)
    values = values if filled else np.full(size, min(max(0.0, least), most))
    if odd:
        extremes = [least, most]
        if is_float:
            tiny = float(info.smallest_subnormal)
            extremes += [v for v in (math.inf, -math.inf, -0.0, tiny, -tiny) if low <= v <= high]
            extremes.append(math.nan)
        # Each of them once, if there is room, and then at random.
        at = rng.random(size) < 0.3
        picked = rng.permutation(np.resize(extremes, max(int(at.sum()), 1)))
        values[at] = picked[: int(at.sum())]
    return np.asarray(values if is_float else np.clip(np.round(values), least, most)).astype(dtype)


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


def _takes(config: Any, dtype: Any) -> bool:
    """Says whether a config takes images of a dtype."""
    if not isinstance(config, DropoutOperatorConfig):
        return True
    is_float = jnp.issubdtype(dtype, jnp.floating)
    info: Any = jnp.finfo(dtype) if is_float else None if dtype == np.bool_ else jnp.iinfo(dtype)
    least, most = (0, 1) if info is None else (float(info.min), float(info.max))
    low, high = config.clip_range or (least, most)
    low, high = max(low, least), min(high, most)
    fills = config.fill if isinstance(config.fill, tuple) else (config.fill,)
    numbers = [fill for fill in fills if isinstance(fill, int | float)]
    whole = is_float or (
        all(number == int(number) for number in numbers)
        and not config.rescale
        and math.ceil(low) <= high
    )
    return whole and low <= high and all(least <= number <= most for number in numbers)


def _config_of(config: Any, owner: str) -> ModalityOperatorConfig:
    if config is None:
        return DropoutOperatorConfig(field_key="image")
    if not isinstance(config, ModalityOperatorConfig):
        raise TypeError(must(owner, "be a config with a field_key", config))
    return config


@functools.cache
def _samples(mode: Any, shape: tuple[int, ...], channels: int) -> bool:
    """Says whether a mode draws masks for elements of a channel-last shape."""
    try:
        jax.eval_shape(lambda key: mode and mode.sample(key, shape, 0.5), jax.random.key(0))
    except ValueError:
        return False
    return shape[-1] >= channels


@st.composite
def _shape_of(draw: st.DrawFn, /, config: Any, ranks: Sequence[int], max_side: int) -> Any:
    """Draws an element's shape that a config's mode, fill and channel axis fit."""
    known = isinstance(config, DropoutOperatorConfig)
    mode = config.mode_object if known else None
    axis = config.channel_axis if known else "auto"
    several = len(config.fill) if known and isinstance(config.fill, tuple) else 1
    least = _channels_of(mode)
    if isinstance(mode, Channel) and mode.groups is not None:
        several = least
    fits = []
    for rank in ranks:
        has_channels = axis is not None and (axis != "auto" or rank > 2)
        named = isinstance(axis, int) and not -rank <= axis < rank
        probe = (4,) * (rank - has_channels) + (max(several, least) if has_channels else 1,)
        if len(probe) > 1 and not named and _samples(mode, probe, max(several, least)):
            fits.append(rank)
    if not fits:
        raise ValueError(must("elements.ranks", "have one that the config fits", tuple(ranks)))
    rank = draw(st.sampled_from(fits))
    # Most images are small, and those of three spatial axes all are.
    small, large = st.integers(1, min(9, max_side)), st.integers(1, max_side)
    side = small if rank > 3 else _fairly([small, small, large])
    shape = [draw(side) for _ in range(rank)]
    channels: Any = -1 if axis == "auto" else axis
    if channels is not None and (axis != "auto" or rank > 2):
        shape[channels] = (
            draw(st.integers(max(least, 1), max(8, least))) if several == 1 else several
        )
    return tuple(shape)


@st.composite
def _parts(
    draw: st.DrawFn, /, config: Any, size: int | None, ranks: Any, max_side: int, options: Any
) -> tuple[Any, Any]:
    """Draws the data and the state of an element, or of a batch of some size."""
    lead = () if size is None else (size,)
    shape = draw(_shape_of(config, ranks, max_side if (size or 0) < 100 else min(max_side, 5)))
    asked = options.pop("dtypes", DTYPES)
    names = [name for name in asked if _takes(config, jnp.dtype(name))]
    if not names:
        raise ValueError(must("elements.dtypes", "have one that the config takes", asked))
    low, high = config.clip_range or (-math.inf, math.inf)
    given = {"low": low, "high": high, "special": False, **options}
    image = draw(images(dtypes=names, shape=(*lead, *shape), **given))
    label = np.int32(1) if size is None else np.arange(size, dtype=np.int32)
    data = set_field({"label": label}, config.field_key, image)
    beside: dict[str, Any] = {"special": False, "layouts": ("C",)}
    read: list[tuple[str, tuple[str, ...], tuple[int, ...]]] = [
        (field, ("float32",), shape) for field in config.auxiliary_fields or ()
    ]
    if isinstance(config, DropoutOperatorConfig):
        if isinstance(config.fill, FromField):
            read.append((config.fill.field, (image.dtype.name,), shape))
        if config.where_key is not None:
            spatial = Layout.of(shape, config.channel_axis).channel_last_shape[:-1]
            read.append((config.where_key, ("bool", "float32"), spatial))
        if config.extent_key is not None:
            sizes = Layout.of(shape, config.channel_axis).channel_last_shape[:-1]
            rows = st.tuples(*(st.integers(0, side) for side in sizes))
            extents = draw(st.lists(rows, min_size=size or 1, max_size=size or 1))
            data = set_field(data, config.extent_key, np.array(extents).reshape(*lead, len(sizes)))
    for field, dtypes, own in read:
        data = set_field(data, field, draw(images(dtypes=dtypes, shape=(*lead, *own), **beside)))
    return data, {"seen": np.zeros(lead, np.uint32)}


@st.composite
def elements(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 33,
    **options: Any,
) -> Element:
    """Draws elements that a config works on, with its fields, a label, a state and metadata.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: what the element must fit: its fields, axes, channels (1 to 8) and dtypes. None for a
        default config on "image".
      ranks: how many axes an image has; only those that fit are drawn.
      max_side: the largest size of an axis.
      **options: `dtypes`, `layouts`, `special`, `low` and `high` of `images`. Unless they say
        otherwise, values are moderate and within the config's `clip_range`.

    Returns:
      A strategy of elements.

    Raises:
      TypeError: when drawing, if the config has no `field_key`.
      ValueError: when drawing, if no rank or no dtype fits.

    Example:
      >>> from hypothesis import find
      >>> find(elements(ranks=(3,)), lambda element: True).data["image"].shape
      (1, 1, 1)
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
    max_side: int = 33,
    **options: Any,
) -> Any:
    """Draws batches that a config works on, as `elements` does.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `elements`.
      size: how many records, or a strategy; None for 1 to 9, and at times 257.
      kinds: "dict" for dicts of arrays, "Batch" for `dropax.Batch` with states and metadata.
      ranks: as for `elements`.
      max_side: as for `elements`; batches of more than 100 records have smaller sides.
      **options: as for `elements`.

    Returns:
      A strategy of dicts of arrays of shape (B, ...), or of batches.

    Raises:
      TypeError, ValueError: when drawing, as for `elements`; or if a kind is unknown.

    Example:
      >>> from hypothesis import find
      >>> find(batches(size=3, ranks=(3,)), lambda batch: True)["image"].shape
      (3, 1, 1, 1)
    """
    for kind in kinds:
        require_choice("batches.kinds", kind, ("dict", "Batch"))
    config = _config_of(config, "batches.config")
    count = draw(_sizes() if size is None else as_strategy(size), label="size")
    data, states = draw(_parts(config, count, ranks, max_side, dict(options)))
    if draw(st.sampled_from([*kinds]), label="kind") == "dict":
        return data
    return Batch.from_parts(data, states, [{"name": number} for number in range(count)])


def _sizes() -> st.SearchStrategy[int]:
    return st.sampled_from([*range(1, 10), 257])


@st.composite
def data_shapes(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    size: Any = None,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 33,
) -> dict[str, Any]:
    """Draws what `generate_random_params` takes as `data_shapes`.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `batches`, and so are the others.
      size: how many records.
      ranks: how many axes an image has.
      max_side: the largest size of an axis.

    Returns:
      A strategy of nested dicts of shapes (B, ...).

    Example:
      >>> from hypothesis import find
      >>> find(data_shapes(size=2, ranks=(3,)), lambda shapes: True)
      {'image': (2, 1, 1, 1)}
    """
    config = _config_of(config, "data_shapes.config")
    count = draw(_sizes() if size is None else as_strategy(size), label="size")
    return set_field({}, config.field_key, (count, *draw(_shape_of(config, ranks, max_side))))
