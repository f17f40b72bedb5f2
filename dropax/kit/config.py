"""What is fixed for any operator: the configs that others build on.

Frozen dataclasses, checked when they are made, equal and hashed by value, and registered as
pytrees. Dynamic fields are leaves, so that they may be traced, scheduled or mapped over without a
new compilation; everything else is static. Unflattening goes round the constructor, so that
`tree.map`, `vmap` axes and `device_get` may put anything into a leaf.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

import jax
import numpy as np

from dropax.kit.errors import (
    did_you_mean,
    is_array,
    is_number,
    is_traced,
    must,
    require_choice,
    require_kind,
)
from dropax.kit.serialization import (
    as_containers,
    changed_fields,
    plain,
    read_statistics,
    static_number,
    write_statistics,
    write_value,
)
from dropax.kit.trees import copy_containers, register_pytree


class _ByValue:
    """A dict or a list that is copied, then hashed and compared by value, arrays included."""

    def __init__(self, tree: Any) -> None:
        self.tree = copy_containers(tree)

    @functools.cached_property
    def _value(self) -> Any:
        leaves, structure = jax.tree.flatten(self.tree)
        return str(structure), *map(_leaf_value, leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByValue) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class _Copied:
    """A field whose dict or list is copied in and read back as a copy: no one can change it.

    Fields are annotated with what they hold; a type checker wants the descriptor there instead.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, config: Any, owner: type | None = None) -> Any:
        value = None if config is None else vars(config)[self._name]
        return copy_containers(value.tree) if isinstance(value, _ByValue) else value

    def __set__(self, config: Any, value: Any) -> None:
        value = as_containers(value)
        if is_traced(value):
            name, cure = config.argument(self._name), "Pass them to apply_batch: stats={...}."
            raise TypeError(must(name, "not hold traced values", value, cure))
        # What is neither is left for the constructor to refuse.
        vars(config)[self._name] = _ByValue(value) if isinstance(value, dict | list) else value


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OperatorConfig:
    """What every operator is configured by.

    Attributes:
      cacheable: whether what does not change between calls may be kept; see `reset_cache`.
      batch_stats_fn: a function of data that returns a dict of statistics, or None.
      precomputed_stats: such a dict, known beforehand, or None. Arrays in it are copied.
      stochastic: whether each record gets its own mask at each call. Otherwise one fixed pattern.
      stream_name: which stream of the `rngs` a stochastic operator draws its key from; None for the
        default one.
      batch_strategy: "vmap" runs a batch at once, "scan" record by record in less memory. The
        masks are the same.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if a deterministic config names a stream, `batch_strategy` is unknown, or both
        `batch_stats_fn` and `precomputed_stats` are given.
    """

    cacheable: bool = False
    batch_stats_fn: Callable[..., Any] | None = None
    precomputed_stats: dict[str, Any] | None = _Copied()  # type: ignore[assignment]
    stochastic: bool = False
    stream_name: str | None = None
    batch_strategy: Literal["vmap", "scan"] = "vmap"

    dynamic_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that are leaves. One that is None has no leaf."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Or `dataclass` would write its own, which take neither arrays nor lists nor tracers.
        for name in ("__eq__", "__hash__", "__repr__"):
            if name not in vars(cls):
                setattr(cls, name, getattr(cls, name))
        register_pytree(cls, cls.dynamic_fields, static=True)

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Refuses an unknown argument by the name of a known one that holds it or is near it."""
        known = _field_names(cls)
        for name in options:
            if name not in known:
                text = f"{cls.__name__} got an unexpected keyword argument {name!r}."
                raise TypeError(" ".join(filter(None, (text, did_you_mean(name, known)))))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._require(bool, "a bool", "cacheable", "stochastic")
        self._require(str | None, "a string or None", "stream_name")
        require_choice(self.argument("batch_strategy"), self.batch_strategy, ("vmap", "scan"))
        if self.stream_name is not None and not self.stochastic:
            cure = "A deterministic operator draws no keys; pass stochastic=True to draw some."
            raise ValueError(self._must("stream_name", "be None if stochastic is False", cure))
        function: Any = self.batch_stats_fn
        if function is not None and not callable(function):
            raise TypeError(self._must("batch_stats_fn", "be callable or None"))
        self._require(dict | None, "a dict or None", "precomputed_stats")
        if self.precomputed_stats is not None and function is not None:
            raise ValueError(self._must("precomputed_stats", "be None if batch_stats_fn is given"))

    def replace(self, **changes: Any) -> Self:
        """Returns a new config, checked again, with some attributes replaced."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Writes the config as values that JSON knows.

        Returns:
          A dict of every field. Modes and fills are names, or text as they are written in Python.
          Tuples become lists, infinities and NaN text, and arrays in `precomputed_stats` dicts of
          their dtype, shape and values.

        Raises:
          TypeError: if a field has no such form, such as a function or a traced value.

        Example:
          >>> OperatorConfig(cacheable=True).to_dict()["cacheable"]
          True
        """
        values = {}
        for name in _field_names(self):
            value, write = self._meaning(name), write_value
            if isinstance(value, _ByValue):
                value, write = value.tree, write_statistics
            values[name] = write(value, self.argument(name))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], types: Sequence[type] = ()) -> Self:
        """Makes the config that `to_dict` wrote, or that was written by hand, as in YAML.

        Args:
          values: arguments of the constructor by name. What is left out has its default.
          types: dataclasses of your own that text may hold, modes or fills.

        Returns:
          The config; of what `to_dict` returned, an equal one.

        Raises:
          TypeError: if `values` is no dict, or an argument is of the wrong type.
          ValueError: if an argument is unknown or out of range.

        Example:
          >>> OperatorConfig.from_dict({"stochastic": True})
          OperatorConfig(stochastic=True)
        """
        method, values = f"{cls.__name__}.from_dict", as_containers(values)
        require_kind(f"{method}.values", values, dict, "a dict as to_dict returns it")
        for name in values:
            require_choice(f"{method}.values: a field", name, _field_names(cls))
        for number, kind in enumerate(types):
            if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
                raise TypeError(must(f"{method}.types[{number}]", "be a dataclass", kind))
        known = {kind.__name__: kind for kind in types}
        return cls(**{name: cls._read(name, value, known) for name, value in values.items()})

    @classmethod
    def _read(cls, field: str, value: Any, types: dict[str, type]) -> Any:
        """Returns the constructor's argument for what `to_dict` wrote."""
        is_statistics = field == "precomputed_stats"
        return read_statistics(value, f"{cls.__name__}.{field}") if is_statistics else value

    def same_statistics(self, other: "OperatorConfig") -> bool:
        """Says whether another config has equal `precomputed_stats`."""
        return bool(vars(self)["precomputed_stats"] == vars(other)["precomputed_stats"])

    def argument(self, name: str) -> str:
        """Returns the name of an argument as the caller wrote it, for an error."""
        return f"{type(self).__name__}.{name}"

    def _require(self, kind: Any, noun: str, *names: str) -> None:
        """Checks the types of arguments, and that no string is empty."""
        for name in names:
            require_kind(self.argument(name), getattr(self, name), kind, noun)
            if vars(self)[name] == "":
                raise ValueError(self._must(name, "not be empty"))

    def _must(self, name: str, constraint: str, cure: str = "") -> str:
        """Returns what an error says of an argument."""
        return must(self.argument(name), constraint, getattr(self, name), cure)

    @functools.cached_property
    def static_part(self) -> tuple[tuple[str, Any], ...]:
        """The fields that are no leaves, each with its value: one form for equal values."""
        names = [one for one in _field_names(self) if one not in self.dynamic_fields]
        part = tuple((name, self._meaning(name)) for name in names)
        for name, value in part:
            try:
                hash(value)
            except TypeError:
                cure = "Pass a tuple for a list, or name the field in dynamic_fields."
                raise TypeError(self._must(name, "be hashable", cure)) from None
        return part

    def _meaning(self, name: str) -> Any:
        """Returns what a field is compared by, and written as: one form for equal values."""
        return vars(self)[name]

    def _value(self) -> tuple[Any, ...]:
        """Returns what stands for the config in comparisons and hashes."""
        leaves, structure = jax.tree.flatten([getattr(self, name) for name in self.dynamic_fields])
        if is_traced(leaves):
            raise TypeError(
                f"{type(self).__name__} holds a traced value, so it can be neither hashed nor "
                "compared. Pass it to the jitted function as an argument: it is a pytree."
            )
        return type(self), self.static_part, structure, *map(_rate_value, leaves)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in changed_fields(self))
        return f"{type(self).__name__}({shown})"


register_pytree(OperatorConfig, (), static=True)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModalityOperatorConfig(OperatorConfig):
    """What every operator on one field of an element is configured by.

    Attributes:
      field_key: the field to work on, a name or a dotted path into nested dicts.
      target_key: where the result goes, a name or a dotted path; None for `field_key` itself.
      auxiliary_fields: further fields that go along with `field_key`, or None.
      clip_range: lowest and highest value of the result, or None. May be infinite.
      preserve_auxiliary: whether auxiliary fields are in the output; if so, shape and dtype stay.
      validate_domain_constraints: whether to check what can be checked without values: that a
        floating-point dtype can hold the fill. What cannot work is refused either way.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if a name is empty, an auxiliary field is named twice or is `field_key` or
        `target_key` itself, or `clip_range` is not low < high.
    """

    _: dataclasses.KW_ONLY
    field_key: str
    target_key: str | None = None
    auxiliary_fields: list[str] | None = _Copied()  # type: ignore[assignment]
    clip_range: tuple[float, float] | None = None
    preserve_auxiliary: bool = True
    validate_domain_constraints: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(str, "a string", "field_key")
        self._require(str | None, "a string or None", "target_key")
        self._require(bool, "a bool", "preserve_auxiliary", "validate_domain_constraints")
        name, fields = self.argument("auxiliary_fields"), self.auxiliary_fields
        require_kind(name, fields, list | None, "a list of field names or None")
        for position, field in enumerate(fields or ()):
            require_kind(f"{name}[{position}]", field, str, "a string")
            if not field:
                raise ValueError(must(f"{name}[{position}]", "not be empty", field))
            for other in ("field_key", "target_key"):
                if getattr(self, other) == field:
                    raise ValueError(self._must("auxiliary_fields", f"not name {other} itself"))
        if fields and len(set(fields)) < len(fields):
            raise ValueError(self._must("auxiliary_fields", "name each field once"))
        bounds = vars(self)["clip_range"] = plain(self.clip_range)
        if bounds is None:
            return
        if not isinstance(bounds, tuple) or not all(map(is_number, bounds)):
            cure = "Pass a tuple such as (0.0, 1.0)."
            raise TypeError(self._must("clip_range", "be a tuple of two numbers or None", cure))
        if len(bounds) != 2 or not bounds[0] < bounds[1]:  # NaN fails the comparison too
            raise ValueError(self._must("clip_range", "be (low, high) with low < high"))
        vars(self)["clip_range"] = tuple(map(static_number, bounds))

    @classmethod
    def _read(cls, field: str, value: Any, types: dict[str, type]) -> Any:
        if field == "clip_range" and isinstance(value, list):
            return [float(bound) if bound in ("-inf", "inf") else bound for bound in value]
        return super()._read(field, value, types)


def _field_names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _leaf_value(leaf: Any) -> Any:
    """Returns what a leaf is hashed and compared by; 1, 1.0 and True differ."""
    if not is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
        return type(leaf), repr(leaf)
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()


def _rate_value(rate: Any) -> Any:
    """Returns what a rate is hashed and compared by: its number, whatever holds it."""
    array = np.asarray(rate)
    return array.item() if array.shape == () else _leaf_value(array)
