"""Frozen dataclasses as plain values, for JSON and back.

Given an object, returns dicts, lists, strings, numbers, bools and None that make an equal object
again. What has no such form is refused by name.
"""

import dataclasses
import math
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import is_array, is_real, is_traced, must, require_choice, require_kind


class Plain:
    """A frozen dataclass that can be written as plain values."""

    plain_types: ClassVar[dict[str, type]] = {}
    """Classes that a field may hold an object of, by name."""

    def to_dict(self) -> dict[str, Any]:
        """Writes the object as values that JSON knows.

        Returns:
          A dict with the class's name as `type`, and every field. Tuples become lists, arrays
          dicts, infinities and NaN strings in a dict.

        Raises:
          TypeError: if a field holds what has no plain form: a function, a traced value, an object
            of a class of the user's own.
        """
        kind: Any = type(self)
        plain = {"type": kind.__name__}
        for field in dataclasses.fields(kind):
            owner = f"{kind.__name__}.{field.name}"
            plain[field.name] = _to_plain(
                _number(getattr(self, field.name)), owner, self.plain_types
            )
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Makes the object that `to_dict` wrote. Strict: nothing is guessed.

        Args:
          values: the dict, or one that went through JSON. Fields that are left out get their
            defaults.

        Returns:
          An equal object.

        Raises:
          TypeError: if `values` is no dict, or a field is of the wrong type.
          ValueError: if `type` is another class, a field is unknown, or a value is out of range.
        """
        owner = f"{cls.__name__}.from_dict.values"
        require_kind(owner, values, dict, "a dict as to_dict returns it")
        if values.get("type") != cls.__name__:
            raise ValueError(must(f"{owner}['type']", f"be {cls.__name__!r}", values.get("type")))
        kind: Any = cls
        types = {field.name: field.type for field in dataclasses.fields(kind)}
        fields = {}
        for name, value in values.items():
            if name != "type":
                require_choice(f"{owner}: a field", name, types)
                fields[name] = _from_plain(value, f"{cls.__name__}.{name}", cls.plain_types)
                if "list" not in str(types[name]):
                    fields[name] = _as_tuples(fields[name])
        return cls(**fields)


def _as_tuples(value: Any) -> Any:
    """Returns lists, and lists in them, as the tuples that they were."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    """Returns a Python number for a scalar of a config: it is equal to it."""
    if isinstance(value, tuple):
        return tuple(map(_number, value))
    scalar = is_array(value) and value.shape == () and not is_traced(value)
    return np.asarray(value).item() if scalar else value


def _to_plain(value: Any, owner: str, types: dict[str, type]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list | tuple):
        return [_to_plain(part, f"{owner}[{n}]", types) for n, part in enumerate(value)]
    if isinstance(value, dict):
        plain = {}
        for name, part in value.items():
            if not isinstance(name, str) or name == "type" or name.startswith("$"):
                constraint = "be named by a string that is not 'type' and has no $ in front"
                raise TypeError(must(f"{owner}: an entry", constraint, name))
            if isinstance(part, tuple):
                raise TypeError(must(f"{owner}[{name!r}]", "be a list or an array", part))
            plain[name] = _to_plain(part, f"{owner}[{name!r}]", types)
        return plain
    if isinstance(value, Plain) and types.get(type(value).__name__) is type(value):
        return value.to_dict()
    if is_array(value) and not is_traced(value) and is_real(value.dtype):
        array = np.asarray(value)
        wide = array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
        values = [_to_plain(number, owner, types) for number in wide.ravel().tolist()]
        return {"$array": {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}}
    cure = "Functions, traced values and objects of other classes have no plain form."
    raise TypeError(must(owner, "be plain values", value, cure))


def _number_or_array(value: dict[str, Any], owner: str, types: dict[str, type]) -> Any:
    if "$float" in value:
        return float(value["$float"])
    array = value["$array"]
    numbers = _from_plain(array["values"], owner, types)
    return np.array(numbers, jnp.dtype(array["dtype"])).reshape(array["shape"])


def _from_plain(value: Any, owner: str, types: dict[str, type]) -> Any:
    if isinstance(value, list):
        return [_from_plain(part, f"{owner}[{n}]", types) for n, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$float"} or set(value) == {"$array"}:
        try:
            return _number_or_array(value, owner, types)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(must(owner, "be as to_dict writes it", value)) from error
    if isinstance(value.get("type"), str) and value["type"] in types:
        kind: Any = types[value["type"]]
        return kind.from_dict(value)
    return {name: _from_plain(part, f"{owner}[{name!r}]", types) for name, part in value.items()}
