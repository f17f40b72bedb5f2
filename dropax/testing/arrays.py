"""Hypothesis strategies for what is dropped from: images, elements, batches and their shapes.

Given a config, they draw data that it works on: with its fields, and of shapes and dtypes that its
mode, its fill and its clip range fit. Arrays are NumPy's, of every memory layout.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from dropax.config import DropoutOperatorConfig
from dropax.kit.batch import Batch, Element
from dropax.kit.config import ModalityOperatorConfig
from dropax.kit.errors import must, require_choice
from dropax.kit.fields import set_field
from dropax.regions import Band, Channel, Grid
from dropax.testing.properties import DTYPES
from dropax.testing.strategies import as_strategy

LAYOUTS = ("C", "F", "strided", "reversed", "read-only")
_KINDS = ("dict", "Batch")


def shapes(*, ranks: Sequence[int] = (3, 2, 1, 4), max_side: int = 5) -> Any:
    """Draws shapes of images, sides of 1 among them."""
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
    max_side: int = 5,
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
    dtype = jnp.dtype(draw(st.sampled_from(list(dtypes)), label="dtype"))
    if shape is None:
        shape = shapes(ranks=ranks, max_side=max_side)
    size = tuple(draw(as_strategy(shape), label="shape"))
    layout = draw(st.sampled_from(list(layouts)), label="layout")
    values = st.sampled_from(_candidates(dtype, special, low, high))
    pool = draw(st.lists(values, min_size=1, max_size=8), label="values")
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
    fits = all(isinstance(fill, str) or least <= fill <= most for fill in fills)
    if is_float:
        return fits and low <= high
    whole = all(isinstance(fill, str) or fill == int(fill) for fill in fills)
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
    region = config.region if isinstance(config, DropoutOperatorConfig) else None
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
    return data, {"seen": np.zeros(lead, np.uint32)}


@st.composite
def elements(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 5,
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
      >>> @settings(max_examples=10)
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
    max_side: int = 5,
    **options: Any,
) -> Any:
    """Draws batches that a config works on.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `elements`.
      size: how many records, or a strategy; None for 1 to 4.
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
    count = draw(as_strategy(st.integers(1, 4) if size is None else size), label="size")
    data, states = draw(_parts(config, count, ranks, max_side, dict(options)))
    if draw(st.sampled_from(list(kinds)), label="kind") == "dict":
        return data
    return Batch.from_parts(data, states, [{"name": number} for number in range(count)])


@st.composite
def data_shapes(
    draw: st.DrawFn,
    /,
    config: Any = None,
    *,
    size: Any = None,
    ranks: Sequence[int] = (3, 2, 1, 4),
    max_side: int = 5,
) -> dict[str, Any]:
    """Draws what `generate_random_params` takes as `data_shapes`.

    Args:
      draw: given by Hypothesis; not an argument of the call.
      config: as for `elements`.
      size: how many records, or a strategy; None for 1 to 4.
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
    count = draw(as_strategy(st.integers(1, 4) if size is None else size), label="size")
    return set_field({}, config.field_key, (count, *draw(_shape_of(config, ranks, max_side))))
