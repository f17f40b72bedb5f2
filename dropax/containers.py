"""One record and many: `Element` and `Batch`.

Both are frozen pytrees of their data and states. Metadata stays on the host: it is no part of the
tree, so a batch that went through `jit` or `tree.map` has metadata of None.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, register_pytree_with_keys, tree_flatten_with_path

from dropax.checks import is_array, must, names, require_kind


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Element:
    """One record.

    Attributes:
      data: nested dicts of arrays, such as an image of shape (H, W, C).
      state: nested dicts of arrays that go along with the record.
      metadata: anything about the record that stays on the host.

    Example:
      >>> element = Element({"image": jnp.ones((4, 4, 3))}, metadata={"file": "a.png"})
      >>> element.apply_to_data(lambda x: x * 2)
      Element(data={'image': float32[4,4,3]}, state={}, metadata={'file': 'a.png'})
    """

    data: Any = dataclasses.field(default_factory=dict)
    state: Any = dataclasses.field(default_factory=dict)
    metadata: Any = None

    def replace(self, **changes: Any) -> "Element":
        """Returns a new element with some attributes replaced."""
        return dataclasses.replace(self, **changes)

    def update_data(self, updates: Mapping[str, Any]) -> "Element":
        """Returns a new element with fields added to its data, or replaced in it."""
        return self.replace(data={**self.data, **updates})

    def update_state(self, updates: Mapping[str, Any]) -> "Element":
        """Returns a new element with entries added to its state, or replaced in it."""
        return self.replace(state={**self.state, **updates})

    def with_metadata(self, metadata: Any) -> "Element":
        """Returns a new element with other metadata."""
        return self.replace(metadata=metadata)

    def apply_to_data(self, function: Callable[[Any], Any]) -> "Element":
        """Returns a new element with a function applied to each array of its data."""
        return self.replace(data=jax.tree.map(function, self.data))

    transform = apply_to_data

    def __repr__(self) -> str:
        data, state = summarize(self.data), summarize(self.state)
        return f"Element(data={data}, state={state}, metadata={self.metadata!r})"


@dataclasses.dataclass(frozen=True, init=False, eq=False, repr=False)
class Batch:
    """Records stacked along a leading axis.

    Args:
      elements: records of one structure. Each of their leaves is stacked; scalars become arrays.

    Attributes:
      data: nested dicts of arrays of shape (B, ...).
      states: nested dicts of arrays of shape (B, ...).
      batch_state: a tree that belongs to the whole batch, without a batch axis.
      metadata_list: one entry a record.
      batch_metadata: anything about the whole batch that stays on the host.

    Raises:
      TypeError: if an element is no `Element`, or a leaf no array or number.
      ValueError: if the elements differ in structure, shape or dtype.

    Example:
      >>> batch = Batch([Element({"image": jnp.ones((4, 4, 3))}) for _ in range(2)])
      >>> batch["image"].shape, len(batch), next(iter(batch)).data["image"].shape
      ((2, 4, 4, 3), 2, (4, 4, 3))
    """

    data: Any
    states: Any
    batch_state: Any
    batch_metadata: Any
    _metadata: tuple[Any, ...] | None

    def __init__(self, elements: Sequence[Element]) -> None:
        elements = list(elements)
        for position, element in enumerate(elements):
            require_kind(f"Batch.elements[{position}]", element, Element, "a dropax.Element")
        data = _stack([element.data for element in elements], "data")
        states = _stack([element.state for element in elements], "state")
        metadata = tuple(element.metadata for element in elements)
        self._set(data, states, None, None, metadata)

    @classmethod
    def from_parts(
        cls,
        data: Any,
        states: Any = None,
        metadata_list: Sequence[Any] | None = None,
        batch_metadata: Any = None,
        batch_state: Any = None,
    ) -> "Batch":
        """Makes a batch of arrays that are stacked already.

        Args:
          data: nested dicts of arrays of shape (B, ...), NumPy or JAX; kept as they are.
          states: the same, or None for none.
          metadata_list: B entries, or None for B times None.
          batch_metadata: anything about the whole batch.
          batch_state: a tree without a batch axis.

        Returns:
          The batch.

        Raises:
          TypeError: if `data` or `states` is no dict, or holds something that is no array.
          ValueError: if there is no array, or the leading axes or the metadata differ in length.
        """
        states = {} if states is None else states
        cure = "Build the batch of records instead: Batch([Element(data, state), ...])."
        require_kind("Batch.from_parts.data", data, dict, "a dict of arrays", cure)
        require_kind("Batch.from_parts.states", states, dict, "a dict of arrays", cure)
        size = leading_size({"data": data, "states": states}, "Batch.from_parts")
        if metadata_list is not None and len(metadata_list) != size:
            owner = "Batch.from_parts.metadata_list"
            raise ValueError(must(owner, f"have {size} entries, one per record", metadata_list))
        return cls.unchecked(data, states, batch_state, batch_metadata, metadata_list)

    @classmethod
    def unchecked(
        cls,
        data: Any,
        states: Any,
        batch_state: Any = None,
        batch_metadata: Any = None,
        metadata: Any = None,
    ) -> "Batch":
        """Makes a batch of parts that are known to fit, or of a tree's odd leaves."""
        batch = object.__new__(cls)
        batch._set(data, states, batch_state, batch_metadata, metadata)
        return batch

    def _set(
        self, data: Any, states: Any, batch_state: Any, batch_metadata: Any, metadata: Any
    ) -> None:
        parts = {
            "data": data,
            "states": states,
            "batch_state": batch_state,
            "batch_metadata": batch_metadata,
            "_metadata": None if metadata is None else tuple(metadata),
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    def with_parts(self, data: Any, states: Any) -> "Batch":
        """Returns a batch with other data and states, of the same records."""
        parts = (self.batch_state, self.batch_metadata, self._metadata)
        return Batch.unchecked(data, states, *parts)

    @property
    def batch_size(self) -> int:
        """How many records there are."""
        leaves = jax.tree.leaves((self.data, self.states))
        if not leaves:
            return len(self._metadata or ())
        return int(leaves[0].shape[0])

    @property
    def metadata_list(self) -> list[Any]:
        """The metadata of each record; None for each where it is not known."""
        return [None] * self.batch_size if self._metadata is None else list(self._metadata)

    def get_data(self) -> Any:
        """Returns the data, as the attribute does."""
        return self.data

    def get_element(self, index: int) -> Element:
        """Returns the record at a position.

        Raises:
          IndexError: if there is no such position.
        """
        size = self.batch_size
        if not -size <= index < size:
            raise IndexError(f"the batch has {size} records; got index {index}.")
        metadata = None if self._metadata is None else self._metadata[index]
        return Element(*self._rows(index), metadata)

    def get_elements(self, indices: slice | Sequence[int]) -> list[Element]:
        """Returns the records at some positions, or in a slice."""
        if isinstance(indices, slice):
            indices = range(self.batch_size)[indices]
        return [self.get_element(index) for index in indices]

    def slice(self, start: int, end: int) -> "Batch":
        """Returns the records from `start` to `end` (not included) as a batch."""
        rows = slice(start, end)
        parts = (self.batch_state, self.batch_metadata, self.metadata_list[rows])
        return Batch.unchecked(*self._rows(rows), *parts)

    def _rows(self, rows: Any) -> tuple[Any, Any]:
        data, states = jax.tree.map(lambda leaf: leaf[rows], (self.data, self.states))
        return data, states

    def __len__(self) -> int:
        return self.batch_size

    def __iter__(self) -> Iterator[Element]:
        return map(self.get_element, range(self.batch_size))

    def __contains__(self, name: object) -> bool:
        return name in self.data

    def __getitem__(self, name: str) -> Any:
        if name not in self.data:
            raise KeyError(f"field {name!r} not found: the batch has {names(self.data)}.")
        return self.data[name]

    def __repr__(self) -> str:
        data, states = summarize(self.data), summarize(self.states)
        leaves = jax.tree.leaves((self.data, self.states))
        known = all(is_array(leaf) and leaf.shape for leaf in leaves)  # a tree may hold anything
        size = self.batch_size if known else None
        return f"Batch(batch_size={size}, data={data}, states={states})"


def is_empty(batch: Any) -> bool:
    """Says whether a batch is a `Batch` without a single array."""
    return isinstance(batch, Batch) and not jax.tree.leaves((batch.data, batch.states))


def records_of(batch: Any, owner: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the data and the states of a batch, checked to be arrays of one leading length.

    Args:
      batch: a `Batch`, or a dict of arrays of shape (B, ...), which has no states.
      owner: the argument's name for the error.

    Returns:
      (data, states).

    Raises:
      TypeError: if it is neither, or a leaf is no array.
      ValueError: if there is no array, one without axes, or two that differ in length.
    """
    if isinstance(batch, Batch):
        data, states = batch.data, batch.states
    else:
        require_kind(owner, batch, dict, "a dropax.Batch or a dict of arrays")
        data, states = batch, {}
    leading_size({"data": data, "states": states}, owner)
    return data, states


def with_records(batch: Any, data: Any, states: Any) -> Any:
    """Returns a batch of the same kind with other data and states."""
    return batch.with_parts(data, states) if isinstance(batch, Batch) else data


def leading_size(tree: Any, owner: str) -> int:
    """Returns the length of the leading axis that all leaves share.

    Args:
      tree: nested dicts of arrays.
      owner: whose tree it is, for the error.

    Returns:
      That length.

    Raises:
      TypeError: if a leaf is no array.
      ValueError: if there is no leaf, one without axes, or two that differ.
    """
    first: tuple[str, int] | None = None
    for path, leaf in tree_flatten_with_path(tree)[0]:
        name = keystr(path, simple=True, separator=".")
        if not is_array(leaf):
            raise TypeError(must(f"{owner}: leaf {name!r}", "be an array", leaf))
        if not leaf.shape:
            raise ValueError(must(f"{owner}: leaf {name!r}", "have a leading batch axis", leaf))
        first = first or (name, leaf.shape[0])
        if leaf.shape[0] != first[1]:
            constraint = f"have {first[1]} records along its leading axis, as {first[0]!r} has"
            raise ValueError(must(f"{owner}: leaf {name!r}", constraint, leaf))
    if first is None:
        raise ValueError(f"{owner} must hold at least one array; got none.")
    return first[1]


def summarize(tree: Any) -> Any:
    """Shows a tree with `dtype[shape]` in place of its arrays, for a repr."""
    shown = jax.tree.map(
        lambda leaf: (
            _Text(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]") if is_array(leaf) else leaf
        ),
        tree,
    )
    return repr(shown)


class _Text(str):
    """Text that shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if is_array(leaf) else type(leaf).__name__


def _stack(trees: list[Any], part: str) -> Any:
    if not trees:
        return {}
    paths = tree_flatten_with_path(trees[0])[0]
    structure: Any = jax.tree.structure(trees[0])
    columns: list[list[Any]] = [[] for _ in paths]
    for position, tree in enumerate(trees):
        leaves, other = jax.tree.flatten(tree)
        if other != structure:
            owner = f"Batch.elements[{position}].{part}"
            raise ValueError(must(owner, f"have the structure of the first, {structure}", other))
        for column, leaf, (path, first) in zip(columns, leaves, paths, strict=True):
            owner = f"Batch.elements[{position}].{part}{keystr(path)}"
            if not is_array(leaf) and not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(must(owner, "be an array or a number", leaf))
            if np.shape(leaf) != np.shape(first):
                constraint = f"have the first's shape {np.shape(first)}"
                raise ValueError(must(owner, constraint, leaf))
            if _kind(leaf) != _kind(first):
                raise ValueError(must(owner, f"have the first's dtype {_kind(first)}", leaf))
            column.append(leaf)
    return jax.tree.unflatten(structure, [jnp.stack(column) for column in columns])


register_pytree_with_keys(
    Element,
    lambda e: (((GetAttrKey("data"), e.data), (GetAttrKey("state"), e.state)), None),
    lambda _, children: Element(*children),
    lambda e: ((e.data, e.state), None),
)
_BATCH_CHILDREN = ("data", "states", "batch_state")
register_pytree_with_keys(
    Batch,
    lambda b: (tuple((GetAttrKey(name), getattr(b, name)) for name in _BATCH_CHILDREN), None),
    lambda _, parts: Batch.unchecked(**dict(zip(_BATCH_CHILDREN, parts, strict=True))),
    lambda b: (tuple(getattr(b, name) for name in _BATCH_CHILDREN), None),
)
