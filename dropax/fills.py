"""What takes the place of dropped values.

A fill is a number or an object whose `fill` returns values in the image's dtype.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import is_number, must, require_by_value, require_choice, require_kind
from dropax.kit.keys import as_key
from dropax.kit.serialization import plain, read_text, static_number
from dropax.kit.trees import broadcast_rank
from dropax.moments import in_dtype, integer_range, mean_fill, noise_fill, widened

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
        key = as_key(key, "Noise.fill.key")
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
        name, mean = "apply.stats['mean']", jnp.asarray(stats["mean"])
        if jnp.iscomplexobj(mean) and not jnp.iscomplexobj(image):
            raise TypeError(must(name, f"be real for dtype {image.dtype}", mean))
        if mean.ndim == 1:
            mean = spread_channels(mean, image.shape, channel_axis, name)
        return in_dtype(widened(broadcast_rank(mean, image.shape, name)), image.dtype)


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


def as_fill(fill: Any, name: str, types: Mapping[str, type] = {}, *, each: str = "channel") -> Any:
    """Returns a number or a fill object for what a user may pass, or a tuple of them.

    Args:
      fill: a number; a fill's name, which stands for its object; text, as the object or the numbers
        are written in Python; a fill object; or a tuple or a list.
      name: the argument's, for the error.
      types: further classes that text may hold, by name.
      each: what a tuple has one entry for: each "channel", of which entries are numbers, or each
        "field".
    """
    if isinstance(fill, str):
        fill = read_text(fill, FILLS, {**_TYPES, **types}, name, "FromField('other')")
    fill = plain(fill)
    if isinstance(fill, tuple):
        if not fill:
            raise ValueError(must(name, f"have one for each {each}", fill))
        parts = tuple(as_fill(part, f"{name}[{n}]", types) for n, part in enumerate(fill))
        for n, part in enumerate(parts):
            if isinstance(part, tuple) or (each == "channel" and not is_number(part)):
                raise TypeError(must(f"{name}[{n}]", "be a number", part))
        return parts
    if is_number(fill):
        return static_number(fill)
    if isinstance(fill, jax.Array | np.ndarray):
        cure = "Pass fill='stats_mean' and stats={'mean': array}, which takes arrays."
        raise TypeError(must(name, "be a number or a tuple of numbers", fill, cure))
    if not callable(getattr(type(fill), "fill", None)):
        raise TypeError(must(name, "be a number, or a fill's name or object such as Mean()", fill))
    require_by_value(name, fill)
    for need in needs_of(fill):
        require_choice(f"{name}.needs: a name", need, _NEEDS)
    if "values" in needs_of(fill):
        constraint = "be a field's name if needs has 'values'"
        field = getattr(fill, "field", None)
        if not isinstance(field, str) or not field:
            raise TypeError(must(f"{name}.field", constraint, field))
    return fill


_NEEDS = ("key", "channel_axis", "where", "stats", "values")


def needs_of(fill: Any) -> tuple[str, ...]:
    """Returns what else than the image a fill asks for: see `Fill`; nothing if it is a number."""
    needs = getattr(fill, "needs", ())
    return (needs,) if isinstance(needs, str) else tuple(needs)


def fit_values(values: Any, image: jax.Array, name: str) -> jax.Array:
    """Returns values that a fill returned, checked, with as many axes as the image."""
    values = jnp.asarray(values)
    if values.dtype != image.dtype:
        cure = "Convert it with astype."
        raise TypeError(must(name, f"have the image's dtype {image.dtype}", values, cure))
    return broadcast_rank(values, image.shape, name)


def spread_channels(
    numbers: Any, shape: tuple[int, ...], channel_axis: int | None, name: str
) -> Any:
    """Puts an array of one number for each channel along the channel axis of a shape."""
    axes = range(len(shape))
    channels = 1 if channel_axis is None else shape[channel_axis]
    if numbers.shape != (channels,):
        raise ValueError(must(name, f"have one number for each of {channels} channels", numbers))
    at = None if channel_axis is None else axes[channel_axis]
    return numbers.reshape([channels if axis == at else 1 for axis in axes])


def _spatial_axes(image: jax.Array, channel_axis: int | None) -> tuple[int, ...]:
    at = None if channel_axis is None else range(image.ndim)[channel_axis]
    return tuple(axis for axis in range(image.ndim) if axis != at)


def exact_fill(fill: Any, dtype: Any, name: str, *, in_range: bool = False) -> np.ndarray:
    """Returns numbers in a dtype that can hold them, of shape () or (numbers,).

    A ValueError if an integer dtype cannot hold one exactly, or, if `in_range` is True, one is past
    the range of a floating-point dtype.
    """
    numbers = np.asarray(fill, object)
    if not jnp.issubdtype(dtype, jnp.inexact):
        least, most = integer_range(dtype)
        if not all(least <= number <= most and number == int(number) for number in numbers.flat):
            cure = f"Pass a whole number from {least} to {most}, or convert to a float dtype."
            raise ValueError(must(name, f"be exact in dtype {dtype}", fill, cure))
        return np.vectorize(int, otypes=[object])(numbers).astype(dtype)
    largest = float(jnp.finfo(dtype).max)  # of a complex dtype, that of its parts
    if in_range and any(largest < abs(number) < math.inf for number in numbers.flat):
        raise ValueError(must(name, f"be within the range of dtype {dtype}", fill))

    @np.vectorize(otypes=[np.float64])
    def as_float(number: Any) -> float:
        try:
            return float(number)
        except OverflowError:  # an int past the range of every float
            return math.inf if number > 0 else -math.inf

    with np.errstate(over="ignore"):
        return as_float(numbers).astype(dtype)
