"""Hypothesis strategies: modes, configs, keys, states, and the data that goes with a config.

They draw only what dropax takes, every option of it, the simplest first. A keyword narrows a
strategy down: it takes values, or a strategy of them. Arrays are NumPy's, of every memory layout;
their values are drawn from a seed, so that large ones cost no more than small ones.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
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
from dropax.kit.errors import must, require_choice, require_kind
from dropax.kit.fields import set_field
from dropax.kit.state import OperatorState
from dropax.layout import Layout
from dropax.modes import MODES, TYPES, Mode
from dropax.moments import integer_range

IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")
DTYPES = ("float32", "uint8", "bfloat16", "int32", "float16", "int16", "int8", "uint16", "bool")
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda array: array,
    "F": np.asfortranarray,
    "strided": lambda array: np.repeat(array[..., None], 2, axis=-1)[..., 0],
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "read-only": lambda array: np.broadcast_to(array, array.shape),
}
_RANKS = (3, 2, 1, 4)


def as_strategy(value: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy as it is, and one of a single value for anything else."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


def _fairly(strategies: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Draws from each strategy or value equally often; `one_of` would take nested ones apart."""
    return st.sampled_from(range(len(strategies))).flatmap(lambda at: as_strategy(strategies[at]))


def _range_of(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(bounds, bounds).map(lambda pair: (min(pair), max(pair)))


def _rates() -> st.SearchStrategy[float]:
    return _fairly([0.5, 0.25, 0.0, 1.0, st.floats(0, 1, width=32)])


def _built(make: Any, options: dict[str, Any], *given: Any) -> st.SearchStrategy[Any]:
    """Calls a class or a function with those of the options that it takes."""
    taken = [name for name in inspect.signature(make).parameters if name in options]
    return st.builds(make, *given, **{name: options[name] for name in taken})


def modes(
    *, names: Sequence[str] = tuple(TYPES), max_size: int = 4, rotate: Any = 0
) -> st.SearchStrategy[Mode]:
    """Draws mode objects with every option, which fit elements of one to three spatial axes.

    Args:
      names: of modes or of their classes; the first is the simplest. Unknown ones are a ValueError.
      max_size: largest side of blocks and patches and largest unit of grids, in pixels.
      rotate: of `Grid`, in degrees. Above 0, an element must have two spatial axes.

    Returns:
      A strategy of modes.

    Example:
      >>> from hypothesis import find
      >>> find(modes(names=("record",)), lambda mode: True)
      Record()
    """
    for name in names:
        require_choice("modes.names", name, (*MODES, *TYPES))
    if not names:
        raise ValueError(must("modes.names", "name a mode", names))
    sizes, flags, ends = st.integers(1, max_size), st.booleans(), st.sampled_from([0, -1])
    options: dict[str, Any] = {
        **dict.fromkeys(("size", "min_cells"), sizes),
        **dict.fromkeys(("axis", "axes"), ends),
        **dict.fromkeys(("per_channel", "exact"), flags),
        "unit": _fairly([sizes, _range_of(sizes)]),
        "rotate": as_strategy(rotate),
        "count": st.integers(1, 3),
        "border": st.sampled_from(["inside", "clip"]),
        "aspect_ratio": st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.25, 0.25)]),
        "min_kept": st.integers(0, 2),
        "groups": st.sampled_from([None, None, ((0, 1), (2,)), ((0, 2), (1, 3))]),
        "weights": st.sampled_from([None, (3, 1), (1, 2)]),
    }
    one = _fairly([_built(TYPES[name], options) for name in ("Pixel", "Patch", "Box", "Band")])
    options |= {"mode": one, "modes": st.tuples(one, one)}
    own = {
        "Blocks": {"size": st.just(1)},  # a larger cell would not divide every image
        "Box": {"count": _fairly([options["count"], (1, 3)])},
    }
    every = {name: _built(kind, options | own.get(name, {})) for name, kind in TYPES.items()}
    kinds = [type(MODES[name]).__name__ if name in MODES else name for name in names]
    # Hypothesis draws nothing twice: modes without options would soon be used up.
    again = st.integers(0, 2**32 - 1)
    return st.tuples(_fairly([every[kind] for kind in kinds]), again).map(lambda pair: pair[0])


def _channels_of(mode: Any, fill: Any = None) -> tuple[int, int]:
    """Returns how many channels an element has at least and at most."""
    exact = sum(map(len, getattr(mode, "groups", None) or ())) or np.size(fill)
    if exact > 1:
        return exact, exact
    least = max(1, getattr(mode, "min_kept", 1))
    return least, max(8, least)


_CHOICES: dict[str, tuple[Any, ...]] = {
    "field_key": ("image", "camera.rgb"),
    "target_key": (None, None, "dropped", "views.dropped"),
    "mask_key": (None, None, "kept"),
    "clip_range": (None, None, (0.0, 1.0), (-2.0, 100.0)),
    "where_key": (None, None, "may_drop"),
    "extent_key": (None, None, "sizes"),
    "rescale": (False, False, True),
    "share_mask": (False, False, True),
    "auxiliary_fields": (None, None, ["depth"]),
    "auxiliary_fill": (0, -1.0),
    "preserve_auxiliary": (True, True, False),
    "batch_strategy": ("vmap", "vmap", "scan"),
    "seed": (st.integers(0, 2**32 - 1),),
}


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

    stochastic, flat = choose("stochastic", True, True, True, False), "channel_axis" in options
    flat = flat and options["channel_axis"] is None
    choose("dropout_rate", _rates(), _range_of(_rates()) if stochastic else _rates())
    choose("apply_probability", None, None, 0.5 if stochastic else None)
    for name, choices in _CHOICES.items():
        choose(name, *choices)
    fitting = modes().filter(lambda mode: not flat or _channels_of(mode)[0] == 1)
    mode = choose("mode", st.sampled_from([*MODES]), fitting)
    least, most = _channels_of(mode)
    several = () if flat else (tuple(map(float, range(least if least == most else 3))),)
    fills = (0.0, 1.0, "mean", "noise", "stats_mean", FromField("other"), *several)
    fill = choose("fill", *fills, st.floats(-2, 100, width=16))
    choose("channel_axis", "auto", "auto", -1, 0, *[None] * (_channels_of(mode, fill)[0] == 1))
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
    sizes, counts, shape = st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.just((16, 16))
    options: dict[str, Any] = {
        **dict.fromkeys(("rate", "probability", "time_mask_max_share"), _rates()),
        **dict.fromkeys(("unit", "block_size", "patch_size", "min_patches", "length"), sizes),
        **dict.fromkeys(("freq_mask_max_bins", "time_mask_max_frames"), sizes),
        **dict.fromkeys(("holes", "freq_mask_count", "time_mask_count"), counts),
        **dict.fromkeys(("image_shape", "spectrogram_shape"), shape),
        "scale": st.sampled_from([(0.02, 0.33), (0.2, 0.2)]),
        "rotate": st.sampled_from([0, 90]),
    }
    own: dict[str, dict[str, Any]] = {
        "gridmask": {"ratio": st.floats(0.3, 0.9)},
        "beit": {"patch_size": st.just(1)},  # a larger one would not divide every image
    }
    made = [
        _built(presets.PRESETS[name], options | own.get(name, {}), st.just("image"))
        for name in names
    ]
    return _fairly(made).map(lambda config: getattr(config, "configs", (config,))[0])


def keys(
    *, implementations: Sequence[str] = IMPLEMENTATIONS, legacy: bool = False
) -> st.SearchStrategy[jax.Array]:
    """Draws PRNG keys of shape (), from seeds in [0, 2^32).

    Args:
      implementations: of typed keys; the first is the simplest. Unknown ones are a ValueError.
      legacy: whether legacy `uint32` keys, of JAX's default implementation, are drawn too.

    Returns:
      A strategy of keys.

    Example:
      >>> from hypothesis import find
      >>> find(keys(), lambda key: True).shape
      ()
    """
    for name in implementations:
        require_choice("keys.implementations", name, IMPLEMENTATIONS)
    makers: list[Any] = [functools.partial(jax.random.key, impl=name) for name in implementations]
    makers += [jax.random.PRNGKey] * legacy
    if not makers:
        raise ValueError(must("keys.implementations", "name one if legacy is False", ()))
    seeds = st.integers(0, 2**32 - 1).map(np.uint32)
    return st.builds(lambda make, seed: make(seed), st.sampled_from(makers), seeds)


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

    def given(value: Any, *choices: Any) -> st.SearchStrategy[Any]:
        return _fairly(choices) if value is None else as_strategy(value)

    words = _fairly([0, st.integers(0, 9), st.integers(2**32 - 2, 2**32 - 1)])
    count = given(counts, words, st.integers(2**64 - 2, 2**64 - 1)).map(
        lambda number: jnp.asarray([number >> 32, number & 0xFFFFFFFF], jnp.uint32)
    )
    return st.builds(
        OperatorState,
        key=given(key, keys()),
        step=given(step, words).map(jnp.uint32),
        applied_count=count,
        skipped_count=count,
        statistics=given(statistics, None, {"mean": 0.5}),
    )


@st.composite
def images(
    draw: st.DrawFn,
    /,
    *,
    dtypes: Sequence[str] = DTYPES,
    shape: Any = None,
    ranks: Sequence[int] = _RANKS,
    max_side: int = 9,
    layouts: Sequence[str] = tuple(LAYOUTS),
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
      A strategy of arrays. When drawing, an unknown layout or dtype is a ValueError.

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
    rng, odd = np.random.default_rng(seed), special and draw(st.booleans(), label="special values")
    is_float, least, most = limits(dtype)
    least, most = max(low, least), min(high, most)
    if not is_float:
        least, most = math.ceil(least), math.floor(most)
    start, end = np.clip((-9.0, 99.0), least, most)
    values = rng.uniform(start, end, size) if seed else np.full(size, np.clip(0.0, least, most))
    if odd:
        tiny = float(jnp.finfo(dtype).smallest_subnormal) if is_float else 0.0
        floats = [math.nan, math.inf, -math.inf, -0.0, tiny, -tiny] if is_float else []
        extremes = [value for value in (least, most, *floats) if not (value < low or value > high)]
        # Each of them once, if there is room, and then at random.
        at = rng.random(size) < 0.3
        values[at] = rng.permutation(np.resize(extremes, int(at.sum())))
    values = values if is_float else np.clip(np.round(values), least, most)
    return LAYOUTS[draw(st.sampled_from([*layouts]), label="layout")](values.astype(dtype))


def limits(dtype: Any) -> tuple[bool, Any, Any]:
    """Returns whether a dtype is one of floating point, and its least and largest value."""
    is_float = bool(jnp.issubdtype(dtype, jnp.floating))
    info: Any = jnp.finfo(dtype) if is_float else None
    return is_float, *((float(info.min), float(info.max)) if is_float else integer_range(dtype))


def _takes(config: Any, dtype: Any) -> bool:
    """Says whether a config takes images of a dtype."""
    if not isinstance(config, DropoutOperatorConfig):
        return True
    is_float, least, most = limits(dtype)
    low, high = config.clip_range or (least, most)
    low, high = max(low, least), min(high, most)
    fills = config.fill if isinstance(config.fill, tuple) else (config.fill,)
    numbers = [fill for fill in fills if isinstance(fill, int | float)]
    fits = low <= high and all(least <= number <= most for number in numbers)
    whole = math.ceil(low) <= high and all(number == int(number) for number in numbers if fits)
    return fits and (is_float or (whole and not config.rescale))


@functools.cache
def _fits(mode: Any, axis: Any, channels: int, rank: int) -> bool:
    """Says whether elements of a rank have the axes that a mode, and its channels, need."""
    try:
        layout = Layout.of((4,) * rank, axis)
        *spatial, _ = layout.channel_last_shape
        if mode is not None and spatial:
            shape = (*spatial, channels)
            jax.eval_shape(lambda key: mode.sample(key, shape, 0.5), jax.random.key(0))
    except ValueError:
        return False
    return bool(spatial) and (channels == 1 or layout.channel_axis is not None)


@st.composite
def _parts(
    draw: st.DrawFn,
    /,
    owner: str,
    config: Any,
    size: Any,
    *,
    ranks: Sequence[int] = _RANKS,
    max_side: int = 33,
    dtypes: Sequence[str] = DTYPES,
    **options: Any,
) -> tuple[Any, Any]:
    """Draws the data and the state of an element, or, if it has a size, of a batch."""
    config = DropoutOperatorConfig(field_key="image") if config is None else config
    require_kind(f"{owner}.config", config, ModalityOperatorConfig, "a config with a field_key")
    is_dropout = isinstance(config, DropoutOperatorConfig)
    mode, fill = (config.mode_object, config.fill) if is_dropout else (None, None)
    axis: Any = getattr(config, "channel_axis", "auto")
    least, most = _channels_of(mode, fill)
    # Of the ranks in any order the first that fits, as it takes milliseconds to say that one does.
    order = draw(st.permutations(ranks))
    rank = next((rank for rank in order if _fits(mode, axis, least, rank)), 0)
    names = [name for name in dtypes if _takes(config, jnp.dtype(name))]
    for what, asked, found in (("ranks", ranks, rank), ("dtypes", dtypes, names)):
        if not found:
            raise ValueError(must(f"{owner}.{what}", "have one that the config fits", asked))
    lead = () if size is None else (draw(as_strategy(size), label="size"),)
    # Most images are small, and those of many records or of three spatial axes all are.
    largest = min(max_side, 5) if max(lead, default=0) > 99 else max_side
    small, large = st.integers(1, min(9, largest)), st.integers(1, largest)
    side = small if rank > 3 else _fairly([small, small, large])
    shape = [draw(side) for _ in range(rank)]
    layout = Layout.of(tuple(shape), axis)
    if layout.channel_axis is not None:
        shape[layout.channel_axis] = draw(st.integers(least, most))
    low, high = config.clip_range or (-math.inf, math.inf)
    options = {"low": low, "high": high, "special": False, **options}
    image = draw(images(dtypes=names, shape=(*lead, *shape), **options))
    label = np.arange(lead[0], dtype=np.int32) if lead else np.int32(1)
    data = set_field({"label": label}, config.field_key, image)
    beside: list[Any] = [(name, ("float32",), shape) for name in config.auxiliary_fields or ()]
    if is_dropout and isinstance(config.fill, FromField):
        beside.append((config.fill.field, (image.dtype.name,), shape))
    sides = layout.channel_last_shape[:-1]
    if is_dropout and config.where_key is not None:
        beside.append((config.where_key, ("bool",), sides))
    if is_dropout and config.extent_key is not None:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed of the extents"))
        extents = rng.integers(0, np.add(sides, 1), (*lead, len(sides)))
        data = set_field(data, config.extent_key, extents)
    for name, kinds, own in beside:
        values = images(dtypes=kinds, shape=(*lead, *own), special=False, layouts=("C",))
        data = set_field(data, name, draw(values))
    return data, {"seen": np.zeros(lead, np.uint32)}


def batches(
    config: Any = None, *, size: Any = None, kinds: Sequence[str] = ("dict",), **options: Any
) -> st.SearchStrategy[Any]:
    """Draws batches that a config works on: its fields, of shape (B, ...), and a label.

    Args:
      config: what an element must fit: its fields, axes, channels (1 to 8) and dtypes. None for a
        default config on "image".
      size: how many records, or a strategy; None for 1 to 9, and at times 257.
      kinds: "dict" for dicts of arrays, "Batch" for `dropax.Batch` with states and metadata.
      **options: `ranks`, of which only those that fit are drawn; `max_side`, 33 by default, and 5
        for more than 99 records; `dtypes`, `layouts`, `special`, `low` and `high` of `images`.
        Unless they say otherwise, values are moderate and within the config's `clip_range`.

    Returns:
      A strategy of dicts of arrays of shape (B, ...), or of batches.

    Raises:
      TypeError: when drawing, if the config has no `field_key`.
      ValueError: if a kind is unknown; when drawing, if no rank or no dtype fits.

    Example:
      >>> from hypothesis import find
      >>> find(batches(size=3, ranks=(3,)), lambda batch: True)["image"].shape
      (3, 1, 1, 1)
    """
    for kind in kinds:
        require_choice("batches.kinds", kind, ("dict", "Batch"))

    def as_kind(kind: str, parts: tuple[Any, Any]) -> Any:
        data, states = parts
        names = [{"name": number} for number in range(len(states["seen"]))]
        return data if kind == "dict" else Batch.from_parts(data, states, names)

    sizes = st.sampled_from([*range(1, 10), 257]) if size is None else size
    return st.builds(
        as_kind, st.sampled_from([*kinds]), _parts("batches", config, sizes, **options)
    )


def elements(config: Any = None, **options: Any) -> st.SearchStrategy[Element]:
    """Draws elements that a config works on, with its fields, a label, a state and metadata.

    Args:
      config: as for `batches`.
      **options: as for `batches`.

    Returns:
      A strategy of elements.

    Example:
      >>> from hypothesis import find
      >>> find(elements(ranks=(3,)), lambda element: True).data["image"].shape
      (1, 1, 1)
    """
    parts = _parts("elements", config, None, **options)
    return parts.map(lambda parts: Element(*parts, {"name": "a record"}))


def data_shapes(config: Any = None, **options: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Draws what `generate_random_params` takes as `data_shapes`: the shapes of `batches`.

    Args:
      config: as for `batches`.
      **options: as for `batches`.

    Returns:
      A strategy of nested dicts of shapes (B, ...).

    Example:
      >>> from hypothesis import find
      >>> find(data_shapes(size=2, ranks=(3,)), lambda shapes: True)
      {'image': (2, 1, 1, 1), 'label': (2,)}
    """
    return batches(config, **options).map(lambda batch: jax.tree.map(np.shape, batch))
