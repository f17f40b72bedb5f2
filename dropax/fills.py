"""What takes the place of dropped values.

A fill is a number or an object whose `fill` returns values in the image's dtype. Dropping is a
select, never a product: NaN and infinity under a dropped value vanish, in values and in gradients.
The dtype never changes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import normal_from, sample_words, sample_words_from
from dropax.kit.errors import is_number, must, require_by_value, require_kind
from dropax.kit.keys import threefry_key
from dropax.kit.serialization import plain, read_text, static_number
from dropax.kit.trees import broadcast_rank

Number = int | float


@runtime_checkable
class Fill(Protocol):
    """What dropped values become: anything frozen and hashable by value with `fill` is a fill.

    A class attribute `needs`, a tuple of names, says what else than the image `fill` asks for:
    "key", without which `key` is None and costs nothing; and keyword arguments of these names:
    "channel_axis", the axis of the image's channels or None; "where", bools that broadcast to the
    image, True where values may drop, or None; "stats", a dict with the "mean" of the statistics;
    "values", those of the record's field that the attribute `field` names.

    Example:
      >>> import dropax
      >>> @dataclasses.dataclass(frozen=True)
      ... class Largest:
      ...     def fill(self, key, image, keep_mask):
      ...         return image.max()
      >>> images = jnp.arange(4.0).reshape(2, 2, 1)
      >>> dropax.dropout(jax.random.key(0), images, rate=1.0, fill=Largest()).min()
      Array(3., dtype=float32)
    """

    def fill(self, key: Any, image: jax.Array, keep_mask: jax.Array) -> jax.Array:
        """Returns what dropped values of one record become.

        Args:
          key: one typed key if the fill needs one, else None.
          image: the record's image or auxiliary field, with its own axes.
          keep_mask: bool, of a shape that broadcasts to the image; True where kept.

        Returns:
          Values of the image's dtype, of a shape that broadcasts to the image.
        """
        ...


AnyFill = Number | str | Fill


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of each channel's finite values, as a constant to gradients.

    Exact if all values are equal, in every dtype; rounded in integers.

    Example:
      >>> Mean().fill(None, jnp.arange(4.0).reshape(2, 2, 1), jnp.zeros(()))
      Array([[[1.5]]], dtype=float32)
    """

    needs: ClassVar[tuple[str, ...]] = ("channel_axis", "where")

    def fill(
        self, key: Any, image: jax.Array, keep_mask: Any, channel_axis: Any = -1, where: Any = None
    ) -> jax.Array:
        """Returns the mean of what may drop in each channel; 0 if there is nothing."""
        return mean_fill(image, _spatial_axes(image, channel_axis), where)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Normal noise with the mean and the standard deviation of each channel's finite values.

    It is `mean + deviation * jax.random.normal(key, image.shape, float32)`, up to rounding. The
    mean and the deviation are constants to gradients.

    Example:
      >>> Noise().fill(jax.random.key(0), jnp.ones((2, 2, 1)), jnp.zeros(())).max()
      Array(1., dtype=float32)
    """

    needs: ClassVar[tuple[str, ...]] = ("key", "channel_axis", "where")

    def fill(
        self, key: Any, image: jax.Array, keep_mask: Any, channel_axis: Any = -1, where: Any = None
    ) -> jax.Array:
        """Draws noise of the image's shape; raises a TypeError if its dtype is complex."""
        if jnp.issubdtype(image.dtype, jnp.complexfloating):
            raise TypeError(must("the image that Noise fills", "hold real numbers", image))
        key = threefry_key(key)
        return noise_fill(key, image, _spatial_axes(image, channel_axis), where)


@dataclasses.dataclass(frozen=True)
class StatsMean:
    """`stats["mean"]`: a scalar, one number for each channel, or an array; rounded in integers.

    Example:
      >>> StatsMean().fill(None, jnp.ones((2, 2, 3)), jnp.zeros(()), -1, {"mean": 0.5})
      Array([[[0.5]]], dtype=float32)
    """

    needs: ClassVar[tuple[str, ...]] = ("channel_axis", "stats")

    def fill(
        self, key: Any, image: jax.Array, keep_mask: Any, channel_axis: Any = -1, stats: Any = None
    ) -> jax.Array:
        """Returns the mean; raises a ValueError if it does not broadcast to the image."""
        owner, mean = "apply.stats['mean']", jnp.asarray(stats["mean"])
        if mean.ndim == 1:
            mean = spread_channels(mean, image.shape, channel_axis, owner)
        return in_dtype(widened(broadcast_rank(mean, image.shape, owner)), image.dtype)


@dataclasses.dataclass(frozen=True)
class FromField:
    """A fill that is read from another field of the record.

    The other field has the image's dtype and a shape that broadcasts to the image, so in a batch
    (B, ...), each record with its own. It is in the output as it was. Only its values under what
    drops are read, so NaN elsewhere has no effect, and gradients reach it there.

    * A learned token: `jnp.broadcast_to(token, (B, 1, 1, C))`.
    * A blurred copy of the images.
    * Another record: `jnp.roll(images, 1, axis=0)`. With `Box` this is CutMix (Yun et al., 2019,
      arXiv:1905.04899); `dropped_fraction` of the mask is the weight of the other record's label.

    Attributes:
      field: the other field's name, or a dotted path into nested dicts.

    Raises:
      TypeError: if the name is no string.
      ValueError: if it is empty.

    Example:
      >>> import dropax
      >>> config = dropax.DropoutOperatorConfig(
      ...     field_key="image", fill=FromField("other"), dropout_rate=1.0
      ... )
      >>> data = {"image": jnp.zeros((2, 2, 1)), "other": jnp.ones((2, 2, 1))}
      >>> dropax.apply(config, data, {}, {})[0]["image"].sum()
      Array(4., dtype=float32)
    """

    field: str

    needs: ClassVar[tuple[str, ...]] = ("values",)

    def __post_init__(self) -> None:
        require_kind("FromField.field", self.field, str, "a field's name")
        if not self.field:
            raise ValueError(must("FromField.field", "not be empty", self.field))

    def fill(self, key: Any, image: jax.Array, keep_mask: Any, values: Any = None) -> jax.Array:
        """Returns the field's values; raises an error if they do not fit the image."""
        return fit_values(values, image, f"field {self.field!r}, a fill,")


FILLS: dict[str, Fill] = {"mean": Mean(), "noise": Noise(), "stats_mean": StatsMean()}
"""The objects that names stand for."""

_TYPES = {kind.__name__: kind for kind in (Mean, Noise, StatsMean, FromField)}
"""The classes that text may hold, by name."""


def as_fill(fill: Any, owner: str, types: Mapping[str, type] = {}, *, each: str = "channel") -> Any:
    """Returns a number or a fill object for what a user may pass, or a tuple of them.

    Args:
      fill: a number; a fill's name, which stands for its object; text, as the object or the numbers
        are written in Python; a fill object; or a tuple or a list.
      owner: the argument's name for the error.
      types: further classes that text may hold, by name.
      each: what a tuple has one entry for: each "channel", of which entries are numbers, or each
        "field".

    Raises:
      ValueError: if there is no fill of that name, the text says none, or the tuple is empty.
      TypeError: if it is anything else, or an object that is not hashable by value.
    """
    if isinstance(fill, str):
        fill = read_text(fill, FILLS, {**_TYPES, **types}, owner, "FromField('other')")
    fill = plain(fill)
    if isinstance(fill, tuple):
        if not fill:
            raise ValueError(must(owner, f"have one for each {each}", fill))
        parts = tuple(as_fill(part, f"{owner}[{n}]", types) for n, part in enumerate(fill))
        for n, part in enumerate(parts):
            if isinstance(part, tuple) or (each == "channel" and not is_number(part)):
                raise TypeError(must(f"{owner}[{n}]", "be a number", part))
        return parts
    if is_number(fill):
        return static_number(fill)
    if isinstance(fill, jax.Array | np.ndarray):
        cure = "Pass fill='stats_mean' and stats={'mean': array}, which takes arrays."
        raise TypeError(must(owner, "be a number or a tuple of numbers", fill, cure))
    if not callable(getattr(type(fill), "fill", None)):
        raise TypeError(must(owner, "be a number, or a fill's name or object such as Mean()", fill))
    require_by_value(owner, fill)
    return fill


def fit_values(values: Any, image: jax.Array, owner: str) -> jax.Array:
    """Returns values that a fill returned, checked, with as many axes as the image.

    Args:
      values: of the image's dtype; broadcasts to the image.
      image: what is filled.
      owner: the name of the values for the error.
    """
    values = jnp.asarray(values)
    if values.dtype != image.dtype:
        cure = "Convert it with astype."
        raise TypeError(must(owner, f"have the image's dtype {image.dtype}", values, cure))
    return broadcast_rank(values, image.shape, owner)


def spread_channels(
    numbers: Any, shape: tuple[int, ...], channel_axis: int | None, owner: str
) -> Any:
    """Puts an array of one number for each channel along the channel axis of a shape."""
    axes = range(len(shape))
    channels = 1 if channel_axis is None else shape[channel_axis]
    if numbers.shape != (channels,):
        raise ValueError(must(owner, f"have one number for each of {channels} channels", numbers))
    at = None if channel_axis is None else axes[channel_axis]
    return numbers.reshape([channels if axis == at else 1 for axis in axes])


def _spatial_axes(image: jax.Array, channel_axis: int | None) -> tuple[int, ...]:
    at = None if channel_axis is None else range(image.ndim)[channel_axis]
    return tuple(axis for axis in range(image.ndim) if axis != at)


def fill_dropped(array: jax.Array, keep_mask: jax.Array, fill: Any) -> jax.Array:
    """Replaces dropped values.

    Args:
      array: any dtype and shape.
      keep_mask: bool or number, kept if not 0; broadcasts to the array.
      fill: what dropped values become, of the array's dtype; broadcasts to the array.

    Returns:
      An array of the same shape and dtype.
    """
    array, fill = jnp.asarray(array), jnp.asarray(fill)
    select: Any = jnp.where
    if _word_of(array.dtype):
        is_float = jnp.issubdtype(array.dtype, jnp.floating)
        select = _select_floats if is_float else _select_words
    return select(jnp.asarray(keep_mask).astype(jnp.bool_), array, fill)


def exact_fill(fill: Any, dtype: Any, owner: str, *, in_range: bool = False) -> np.ndarray:
    """Returns numbers in a dtype that can hold them.

    Args:
      fill: a number, or several.
      dtype: of the array that they go into.
      owner: the argument's name for the error.
      in_range: whether a number past the range of a floating-point dtype is refused too.

    Returns:
      An array of that dtype, of shape () or (numbers,).

    Raises:
      ValueError: if an integer or bool dtype cannot hold a number exactly, or if a finite number
        becomes infinite and `in_range` is True.
    """
    numbers = np.asarray(fill, object)
    if not jnp.issubdtype(dtype, jnp.inexact):
        least, most = _integer_range(dtype)
        if not all(least <= number <= most and number == int(number) for number in numbers.flat):
            cure = f"Pass a whole number from {least} to {most}, or convert to a float dtype."
            raise ValueError(must(owner, f"be exact in dtype {dtype}", fill, cure))
        return np.vectorize(int, otypes=[object])(numbers).astype(dtype)
    if in_range and jnp.issubdtype(dtype, jnp.floating):
        largest = float(jnp.finfo(dtype).max)
        if any(largest < abs(number) < math.inf for number in numbers.flat):
            raise ValueError(must(owner, f"be within the range of dtype {dtype}", fill))
    with np.errstate(over="ignore"):
        return numbers.astype(np.float64).astype(dtype)


# Jitted with `inline=True`: one dispatch when called eagerly, without which
# loops would be compiled anew in each call; inlined under an outer jit.
@functools.partial(jax.jit, static_argnames="axes", inline=True)
def mean_fill(array: jax.Array, axes: tuple[int, ...], where: Any = None) -> jax.Array:
    """Returns the mean along some axes, as a constant to gradients.

    Exact if all values are equal, in every dtype.

    Args:
      array: any dtype. NaN and infinities do not count.
      axes: of size 1 in the result.
      where: bools that broadcast to the array, True where values count; None for everywhere.

    Returns:
      The mean in the array's dtype, rounded in integers; 0 if nothing counts.
    """
    pivot, offset, _ = _moments(array, axes, where)
    return _moved(pivot, offset)


@functools.partial(jax.jit, static_argnames="axes", inline=True)
def noise_fill(
    key: jax.Array, array: jax.Array, axes: tuple[int, ...], where: Any = None
) -> jax.Array:
    """Draws normal noise with the mean and the standard deviation along some axes.

    Args:
      key: one typed key. Consumed; do not reuse.
      array: any real dtype. NaN and infinities do not count.
      axes: those that the moments are taken along.
      where: as for `mean_fill`.

    Returns:
      An array of the same shape and dtype, rounded in integers. Before rounding it is
      `mean + deviation * jax.random.normal(key, shape, float32)`.
    """
    shape, dtype = array.shape, array.dtype
    pivot, offset, deviation = _moments(array, axes, where)

    def noise_of(words: jax.Array) -> jax.Array:
        return _moved(pivot, offset + deviation * normal_from(words).astype(offset.dtype))

    def at_once(key: jax.Array) -> jax.Array:
        return noise_of(sample_words(key, shape))

    def in_parts(key: jax.Array) -> jax.Array:
        axis, length = _parts(shape, axes)
        key_words = jax.random.key_data(key)

        def start_of(part: Any) -> Any:
            # The last part overlaps the one before if it would be shorter, and repeats its numbers.
            return jnp.clip(part * length, 0, shape[axis] - length)

        def words_of(part: Any) -> jax.Array:
            return sample_words_from(key_words, shape, axis, start_of(part), length)

        def add(part: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            noise, words = state
            rows = _as_bits(noise_of(words))
            noise = jax.lax.dynamic_update_slice_in_dim(noise, rows, start_of(part - 1), axis)
            return noise, words_of(part)

        # The words of a part are drawn one step ahead and stored between the steps: one loop that
        # draws and computes the noise as well is not vectorized, and takes ten times as long. The
        # first step has no words yet, and what it writes is written over by the second. It starts
        # from a word, not from zeros, so that on a mesh the state is of one type throughout.
        word = sample_words_from(key_words, (1,) * len(shape), 0, 0, 1)
        words = jnp.broadcast_to(word, (*shape[:axis], length, *shape[axis + 1 :]))
        noise = jnp.broadcast_to(_as_bits(noise_of(word)), shape)
        noise, _ = jax.lax.fori_loop(0, 1 - shape[axis] // -length, add, (noise, words))
        return _from_bits(noise, dtype)

    if not array.size or not axes:
        return at_once(key)
    return jax.lax.platform_dependent(key, cpu=in_parts, default=at_once)


def in_dtype(values: jax.Array, dtype: Any) -> jax.Array:
    """Returns computed values in a dtype: rounded for integer dtypes, and clipped to its range.

    Args:
      values: floating-point or complex numbers.
      dtype: any numeric dtype, or bool, which is True from 0.5 on.

    Returns:
      An array of that dtype and the same shape.
    """
    if dtype == jnp.bool_:
        return values >= 0.5
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return values.astype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        info = jnp.finfo(dtype)
        least, most = (np.asarray(bound).astype(values.dtype) for bound in (info.min, info.max))
        return jnp.clip(values, least, most).astype(dtype)
    bounds = []
    for bound in _integer_range(dtype):
        near = np.asarray(bound).astype(values.dtype)
        # The nearest float may lie outside the range; converting it is undefined.
        bounds.append(near if abs(int(near)) <= abs(bound) else np.nextafter(near, 0 * near))
    return jnp.clip(jnp.round(values), *bounds).astype(dtype)


def clip_to_range(array: jax.Array, bounds: tuple[float, float], owner: str) -> jax.Array:
    """Clips values to a range, as on the real numbers.

    Values within the range are left untouched, bit for bit, and pass gradients on, even if they
    are equal to a bound; but XLA on CPU flushes subnormal numbers to 0. NaN stays NaN.

    Args:
      array: any real dtype and any shape.
      bounds: the lowest and the highest value. Integers are clipped to the integers between them.
      owner: the argument's name for the error.

    Returns:
      An array of the same shape and dtype.

    Raises:
      TypeError: if the dtype is complex, which has no order.
      ValueError: if the dtype has no finite value within the range.
    """
    dtype = array.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(must(owner, f"be None for dtype {dtype}, which has no order", bounds))
    low: Any
    high: Any
    if jnp.issubdtype(dtype, jnp.floating):
        least, most = (float(bound) for bound in (jnp.finfo(dtype).min, jnp.finfo(dtype).max))
        if bounds[0] > most or bounds[1] < least:
            raise ValueError(must(owner, f"hold a value of dtype {dtype}", bounds))
        # A bound past the dtype's range is no bound.
        low = np.asarray(-np.inf if bounds[0] < least else float(bounds[0])).astype(dtype)
        high = np.asarray(np.inf if bounds[1] > most else float(bounds[1])).astype(dtype)
    else:
        least, most = _integer_range(dtype)
        low = least if bounds[0] <= least else math.ceil(bounds[0])
        high = most if bounds[1] >= most else math.floor(bounds[1])
        if low > high:
            raise ValueError(must(owner, f"hold a value of dtype {dtype}", bounds))
        low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    return jnp.where(array < low, low, jnp.where(array > high, high, array))


def widened(array: jax.Array) -> jax.Array:
    """Returns an array in the dtype that is computed in: float32, or float64 for 64-bit dtypes."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    return array.astype(jnp.float64 if array.dtype.itemsize == 8 else jnp.float32)


def _word_of(dtype: Any) -> Any:
    """Returns the unsigned dtype of the same bits; None for bools, complex and packed numbers."""
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.finfo(dtype).bits
    elif jnp.issubdtype(dtype, jnp.integer):
        bits = jnp.iinfo(dtype).bits
    else:
        return None
    return {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}.get(bits)


def _select_words(keep_mask: jax.Array, array: jax.Array, fill: jax.Array) -> jax.Array:
    """Selects as `where` does, by logic on bits.

    XLA on CPU compiles a `where` whose mask is shared by a few channels to a branch, and converts
    dtypes that the CPU lacks: up to sixteen copies of time, for which this takes one. A TPU lays
    out the mask as values of four bytes or one, but not of two.
    """
    word = _word_of(array.dtype)

    def by_bits(keep_mask: jax.Array, array: jax.Array, fill: jax.Array) -> jax.Array:
        bits, fill_bits = (jax.lax.bitcast_convert_type(values, word) for values in (array, fill))
        kept = -keep_mask.astype(word)  # all ones, or none
        return jax.lax.bitcast_convert_type(fill_bits ^ ((bits ^ fill_bits) & kept), array.dtype)

    default = by_bits if array.dtype.itemsize != 2 else jnp.where
    return jax.lax.platform_dependent(keep_mask, array, fill, cpu=by_bits, default=default)


_select_floats = jax.custom_jvp(_select_words)


@_select_floats.defjvp
def _select_floats_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    tangent = jnp.where(primals[0], tangents[1], tangents[2])
    # Off the CPU in the same form as the tangent: else a TPU draws the mask for each.
    out = jax.lax.platform_dependent(*primals, cpu=_select_floats, default=jnp.where)
    return out, tangent


def _moments(
    array: jax.Array, axes: tuple[int, ...], where: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the mean and the standard deviation of the finite values, as constants.

    Returns:
      (pivot, offset, deviation): the mean is pivot + 2 * offset, the deviation 2 * deviation. The
      pivot has the array's dtype, the others are at least float32. Halves, as the distance between
      two finite numbers may overflow.
    """
    array = jax.lax.stop_gradient(array)
    count: Any = math.prod(array.shape[axis] for axis in axes)
    if not count:
        shape = [1 if axis in axes else size for axis, size in enumerate(array.shape)]
        pivot = jnp.zeros(shape, array.dtype)
        return pivot, widened(pivot), widened(pivot).real
    # Distances from one of the values are 0 if all are equal, and so is their mean, in whatever
    # order and precision they are summed up.
    pivot = array[tuple(slice(1 if axis in axes else None) for axis in range(array.ndim))]
    # A power of two, by which it is exact to multiply, so that no sum overflows.
    scale = 2.0 ** -math.ceil(math.log2(count))
    if jnp.issubdtype(array.dtype, jnp.inexact):
        pivot = in_dtype(jnp.where(_is_finite(pivot), widened(pivot), 0), array.dtype)
    if where is not None or jnp.issubdtype(array.dtype, jnp.inexact):
        counted = _sum(lambda part: jnp.ones(part.shape, jnp.float32), array, axes, where)
        count = jnp.maximum(counted, 1)

    def average(values: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def scaled(part: jax.Array) -> jax.Array:
            return values(widened(part) / 2 - widened(pivot) / 2) * scale

        total = _sum(scaled, array, axes, where)
        return total / jnp.asarray(count * scale, total.dtype)

    offset = average(lambda apart: apart)
    # Squares of distances in units of the mean distance neither overflow nor all vanish: their mean
    # is between 1 and the count.
    unit = average(lambda apart: jnp.abs(apart - offset))
    unit = jnp.maximum(unit, jnp.finfo(unit.dtype).tiny)
    squares = average(lambda apart: (jnp.abs(apart - offset) / unit) ** 2)
    return pivot, offset, unit * jnp.sqrt(squares)


def _sum(
    values: Callable[[jax.Array], jax.Array], array: jax.Array, axes: tuple[int, ...], where: Any
) -> jax.Array:
    """Returns the sum of `values(array)`, of what is finite, along axes that stay with size 1.

    XLA on CPU stores what it sums up, in the dtype that it sums up in: for 8-bit images several
    times their memory. So there a loop adds up parts of the array first.
    """

    def counted(part: jax.Array, where: Any) -> jax.Array:
        counts = _is_finite(part) if where is None else _is_finite(part) & where
        return jnp.where(counts, values(part), 0)

    def at_once(array: jax.Array, where: Any) -> jax.Array:
        return counted(array, where).sum(axes, keepdims=True)

    def in_parts(array: jax.Array, where: Any) -> jax.Array:
        axis, length = _parts(array.shape, axes)
        count = array.shape[axis] // length
        bits = _as_bits(array)

        def rows(start: Any, length: int) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(bits, start, length, axis)
            here = where
            if where is not None and where.shape[axis] > 1:
                here = jax.lax.dynamic_slice_in_dim(where, start, length, axis)
            return counted(_from_bits(part, array.dtype), here)

        def add(part: Any, total: jax.Array) -> jax.Array:
            return total + rows(part * length, length)

        total = jax.lax.fori_loop(1, count, add, rows(0, length)).sum(axes, keepdims=True)
        rest = array.shape[axis] - count * length
        if rest:
            total = total + rows(count * length, rest).sum(axes, keepdims=True)
        return total

    if not axes or not array.size:
        return at_once(array, where)
    return jax.lax.platform_dependent(array, where, cpu=in_parts, default=at_once)


def _parts(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int]:
    """Returns which axis to cut so that 32 parts or fewer take turns, and the length of a part."""
    axis = max(axes, key=lambda axis: shape[axis])
    return axis, -(shape[axis] // -32)


def _as_bits(array: jax.Array) -> jax.Array:
    """Returns 16-bit floats as words: XLA on CPU widens all of them to cut out a part."""
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize == 2:
        return jax.lax.bitcast_convert_type(array, jnp.uint16)
    return array


def _from_bits(bits: jax.Array, dtype: Any) -> jax.Array:
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


def _is_finite(array: jax.Array) -> Any:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or jnp.isfinite(widened(array))


def _moved(pivot: jax.Array, half: jax.Array) -> jax.Array:
    """Returns pivot + 2 * half in the pivot's dtype: rounded in integers, and in its range."""
    # The pivot and the sum are finite, and the pivot plus one half is between them.
    moved = in_dtype(widened(pivot) + half + half, pivot.dtype)
    # The dtype that is computed in does not hold every integer of 32 bits and more.
    return jnp.where(half == 0, pivot, moved)


def _integer_range(dtype: Any) -> tuple[int, int]:
    if dtype == jnp.bool_:
        return 0, 1
    return int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
