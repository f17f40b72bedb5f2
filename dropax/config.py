"""What is fixed for dropout: what drops, how much of it, and what takes its place."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from dropax.fills import FILLS, AnyFill, Number, as_fill, needs_of
from dropax.kit.config import ModalityOperatorConfig
from dropax.kit.errors import is_number, is_real, must, require_kind, require_whole
from dropax.kit.serialization import plain, shortest
from dropax.layout import ChannelAxis
from dropax.modes import MODES, Mode, as_mode

Rate = float | jax.Array
_UNWRITTEN = "name a field of its own, which is not written to"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DropoutOperatorConfig(ModalityOperatorConfig):
    """Says what is dropped, how much of it, and what replaces it.

    Frozen, hashable, compared by value, and a pytree. Its leaves are `dropout_rate` and
    `apply_probability`, which may be traced; all else is static.

    The first six arguments of the constructor may be positional, in this order: `cacheable`,
    `batch_stats_fn`, `precomputed_stats`, `stochastic`, `stream_name`, `batch_strategy`. The others
    are keyword-only.

    Attributes:
      stochastic: True if each record draws its own mask at each call. False, the default, gives
        every record one fixed pattern, that of `seed`; it does not switch dropout off. To switch it
        off, do not call it, or set `dropout_rate` to 0.0.
      field_key: name of the image's field; a dotted path leads into nested dicts.
      dropout_rate: expected dropped fraction of the element, in [0.0, 1.0], in every mode. A number
        or a JAX scalar; a JAX scalar is not checked and saturates: 0 and below keeps all, 1 and
        above drops all. A tuple (low, high) lets each record draw its own rate.
      mode: "pixel", "channel", "block", "patch", "box", "grid", "band" or "record", which stand for
        the defaults of their object; a mode object such as `Box(count=3)`; or such an object as
        text, "Box(count=3)".
      fill: what dropped values become: a number; a tuple of one number for each channel; "mean",
        "noise" or "stats_mean", which stand for `Mean()`, the mean of the element's own channel,
        `Noise()`, normal with the mean and standard deviation of that channel, and `StatsMean()`,
        `stats["mean"]`; `FromField("other")`, the values of another field; a `Fill` of your own; or
        any of these as text. An integer dtype must hold a number exactly, so neither NaN nor
        infinity; "mean", "noise" and "stats_mean" are rounded.
      rescale: whether kept values are divided by the expected kept fraction. Floating-point images
        only.
      apply_probability: probability that a record is changed at all, in [0.0, 1.0], or None, which
        says always.
      target_key: field that the result is written to; None for `field_key`.
      mask_key: field that the keep mask is written to, bool, of the element's shape; None for no
        such field.
      where_key: field that says where values may drop: where it is not zero (NaN is not zero).
        Elsewhere a value never changes, not by `rescale` or `clip_range` either. Of real numbers or
        bools, with the image's spatial axes, with or without its channel axis; any axis may have
        size 1. None for everywhere. The rate is the expected dropped fraction of what may drop, in
        modes that drop equally all over the image. `mask_key` and `auxiliary_fields` follow it, and
        the "mean" and "noise" fills are computed from what may drop. `box_mask` and `length_mask`
        return such fields.
      extent_key: field that says how much of a padded record is real: integers, one for the first
        spatial axis, or one for each of the first n. Modes draw within it and values beyond it
        never change, as with `where_key`, which may be given too. The rate is the expected dropped
        fraction of what is real, in every mode; holes shrink with the record, cells of a grid do
        not. None if all of every record is.
      auxiliary_fields: list of fields that drop at the same positions as the image, or None. Each
        has the image's shape, or its spatial axes with or without channels of its own. Spatial axes
        may be a whole number of times shorter, the last two by the same number, and a cell then
        drops if any pixel under it does; or longer, and all cells of a pixel drop. A field without
        the image's channels needs a mode that drops whole pixels. Where whole records drop
        ("record"), fields may have any shape.
      auxiliary_fill: what dropped values of `auxiliary_fields` become: a number, such as the ignore
        index of a label map, or a fill, as for `fill`; or a tuple of one for each field.
      preserve_auxiliary: whether the output holds the auxiliary fields.
      clip_range: (low, high) that the result is clipped to, or None.
      channel_axis: axis of an element's channels; None for no channel axis; "auto" for the last
        axis of an element of three axes or more, and none otherwise.
      share_mask: whether all records of a batch get the mask and the rate of the first.
      seed: seed of the fixed pattern of a deterministic config, in [0, 2^32).
      **others: as in `OperatorConfig` and `ModalityOperatorConfig`.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range, or two arguments conflict.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.2, mode="pixel")
      >>> config
      DropoutOperatorConfig(field_key='image', dropout_rate=0.2)
      >>> jax.tree.leaves(config)
      [0.2]
    """

    _: dataclasses.KW_ONLY
    dropout_rate: Rate | tuple[Rate, Rate] = 0.1
    mode: str | Mode = "pixel"
    fill: AnyFill | tuple[Number, ...] = 0.0
    rescale: bool = False
    apply_probability: Rate | None = None
    auxiliary_fill: AnyFill | tuple[AnyFill, ...] = 0
    mask_key: str | None = None
    where_key: str | None = None
    extent_key: str | None = None
    channel_axis: ChannelAxis = "auto"
    seed: int = 0
    share_mask: bool = False

    dynamic_fields: ClassVar[tuple[str, ...]] = ("dropout_rate", "apply_probability")

    @property
    def mode_object(self) -> Mode:
        """The object that `mode` stands for."""
        return MODES[self.mode] if isinstance(self.mode, str) else self.mode

    @functools.cached_property
    def fills(self) -> tuple[Any, ...]:
        """What fills the image, and each auxiliary field of the output: numbers or objects."""
        fields = (self.auxiliary_fields or ()) if self.preserve_auxiliary else ()
        each = self.auxiliary_fill
        each = each if isinstance(each, tuple) else (each,) * len(fields)
        fills = (self.fill, *each[: len(fields)])
        return tuple(FILLS[fill] if isinstance(fill, str) else fill for fill in fills)

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """What any of the fills needs: see `Fill`."""
        return frozenset(need for fill in self.fills for need in needs_of(fill))

    @functools.cached_property
    def sources(self) -> tuple[str | None, ...]:
        """The field that each fill takes its values from, or None."""
        return tuple(fill.field if "values" in needs_of(fill) else None for fill in self.fills)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rates()
        for name in _OPEN:
            vars(self)[name] = _understood(name, vars(self)[name], self.argument(name))
        self._check_fills()
        self._require(bool, "a bool", "rescale", "share_mask")
        self._require(str | None, "a string or None", "mask_key", "where_key", "extent_key")
        taken = [self.field_key, self.target_key, *(self.auxiliary_fields or ())]
        for name in ("where_key", "extent_key"):
            field = getattr(self, name)
            if field is not None and field in (*taken, self.mask_key):
                raise ValueError(self._must(name, _UNWRITTEN))
        if self.mask_key is not None:
            # Of two new fields neither can lie within the other.
            one, other = f"{self.mask_key}.", f"{self.target_key or self.mask_key}."
            nested = one != other and (one.startswith(other) or other.startswith(one))
            if self.mask_key in taken or nested:
                raise ValueError(self._must("mask_key", "name a field of its own"))
        for name in ("seed", "channel_axis"):
            vars(self)[name] = plain(getattr(self, name))
        require_whole(self.argument("seed"), self.seed, 0, 2**32)
        axis = self.channel_axis
        if axis is not None and not (isinstance(axis, str) and axis == "auto"):
            require_kind(self.argument("channel_axis"), axis, int, "an int, 'auto' or None")

    def _check_rates(self) -> None:
        cure = "A deterministic operator has one pattern; pass stochastic=True for a draw a record."
        rate = checked_rates(self.dropout_rate, self.argument("dropout_rate"))
        vars(self)["dropout_rate"] = rate
        if isinstance(rate, tuple) and not self.stochastic:
            constraint = "be one number if stochastic is False"
            raise ValueError(self._must("dropout_rate", constraint, cure))
        if self.apply_probability is not None:
            probability = checked_rate(self.apply_probability, self.argument("apply_probability"))
            vars(self)["apply_probability"] = probability
            certain = isinstance(probability, float) and probability == 1
            if not certain and not self.stochastic:
                constraint = "be None or 1.0 if stochastic is False"
                raise ValueError(self._must("apply_probability", constraint, cure))

    def _meaning(self, name: str) -> Any:
        value = vars(self)[name]
        return shortest(value, _OPEN[name][1]) if name in _OPEN else value

    @classmethod
    def _read(cls, field: str, value: Any, types: dict[str, type]) -> Any:
        if field in _OPEN:
            return _understood(field, value, f"{cls.__name__}.{field}", types)
        return super()._read(field, value, types)

    def _check_fills(self) -> None:
        fills, fields = self.auxiliary_fill, self.auxiliary_fields or ()
        if isinstance(fills, tuple) and len(fills) != len(fields):
            constraint = f"have one fill for each of the {len(fields)} auxiliary_fields"
            raise ValueError(self._must("auxiliary_fill", constraint))
        written = (self.field_key, self.target_key, self.mask_key)
        for number, field in enumerate(self.sources):
            if field is not None and field in written:
                name = self.argument("auxiliary_fill" if number else "fill")
                raise ValueError(must(name, _UNWRITTEN, self.fills[number]))


_OPEN: dict[str, tuple[Any, Any]] = {
    "mode": (as_mode, MODES),
    "fill": (as_fill, FILLS),
    "auxiliary_fill": (functools.partial(as_fill, each="field"), FILLS),
}
"""The fields that hold objects: what reads them, and the names that stand for objects."""


def _understood(field: str, value: Any, name: str, types: Mapping[str, type] = {}) -> Any:
    """Returns the object that a field's text says; a name stays a name."""
    read, names = _OPEN[field]
    is_name = isinstance(value, str) and value.strip() in names
    return value.strip() if is_name else read(value, name, types)


def checked_rate(rate: Any, name: str) -> Any:
    """Returns a fraction as a Python float, or as the JAX scalar that it is."""
    rate = plain(rate)
    is_rate = isinstance(rate, jax.Array) and is_real(rate.dtype) and rate.dtype != bool
    if is_rate and rate.shape == ():
        return rate
    if not is_number(rate):
        cure = "To give each record its own, map over them with jax.vmap, or pass (low, high)."
        cure = cure if getattr(rate, "shape", ()) else ""
        raise TypeError(must(name, "be a number or a real scalar array", rate, cure))
    if not 0.0 <= rate <= 1.0:  # NaN fails the comparison too
        raise ValueError(must(name, "be in [0.0, 1.0]", rate))
    return float(rate)


def checked_rates(rate: Any, name: str) -> Any:
    """Returns a rate, or the bounds (low, high) of a range of them, each as `checked_rate` does."""
    rate = plain(rate)
    if not isinstance(rate, tuple):
        return checked_rate(rate, name)
    if len(rate) != 2:
        raise ValueError(must(name, "be a number or (low, high)", rate))
    low, high = (checked_rate(bound, f"{name}[{n}]") for n, bound in enumerate(rate))
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise ValueError(must(name, "be (low, high) with low <= high", rate))
    return low, high
