"""One record and many: `Element` and `Batch`.

Both are frozen pytrees of their data and states. Metadata stays on the host: it is no part of the
tree, so a batch that went through `jit` or `tree.map` has metadata of None.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dropax.kit.arrays import as_array
from dropax.kit.errors import is_array, must, names, require_kind
from dropax.kit.fields import leading_size
from dropax.kit.ids import as_record_ids
from dropax.kit.process import Process
from dropax.kit.trees import register_pytree, stack_trees, summarize


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
      record_ids: which record is which, uint32 of shape (B,), or (B, 2) for 64 bits; or None. With
        an epoch, masks depend on them alone; see `dropax.apply_batch`.
      valid_mask: bools of shape (B,), False for rows that only pad the batch, which are not
        counted; or None.

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
    batch_state: Any = None
    batch_metadata: Any = None
    record_ids: Any = None
    valid_mask: Any = None
    _metadata: tuple[Any, ...] | None = None

    def __init__(self, elements: Sequence[Element]) -> None:
        Process.require_own()
        elements = list(elements)
        for position, element in enumerate(elements):
            require_kind(f"Batch.elements[{position}]", element, Element, "a dropax.Element")
        data = stack_trees([element.data for element in elements], "data")
        states = stack_trees([element.state for element in elements], "state")
        vars(self).update(
            data=data, states=states, _metadata=tuple(element.metadata for element in elements)
        )

    @classmethod
    def from_parts(
        cls,
        data: Any,
        states: Any = None,
        metadata_list: Sequence[Any] | None = None,
        batch_metadata: Any = None,
        batch_state: Any = None,
        *,
        record_ids: Any = None,
        valid_mask: Any = None,
    ) -> "Batch":
        """Makes a batch of arrays that are stacked already, and are kept as they are.

        The arguments are the attributes of a batch; ids are as `as_record_ids` takes them.

        Raises:
          TypeError: if `data` or `states` is no dict, or holds something that is no array; if the
            ids are no integers, or the mask no bools.
          ValueError: if there is no array, or the leading axes, the metadata, the ids or the mask
            differ in length; if an id is negative.
        """
        states = {} if states is None else states
        cure = "Build the batch of records instead: Batch([Element(data, state), ...])."
        require_kind("Batch.from_parts.data", data, dict, "a dict of arrays", cure)
        require_kind("Batch.from_parts.states", states, dict, "a dict of arrays", cure)
        size = leading_size({"data": data, "states": states})
        name = "each field of a batch"
        data, states = jax.tree.map(lambda leaf: as_array(leaf, name), (data, states))
        if record_ids is not None:
            record_ids = as_record_ids(record_ids)
        valid_mask = as_array(valid_mask, "Batch.from_parts.valid_mask")
        if valid_mask is not None and getattr(valid_mask, "dtype", None) != jnp.bool_:
            raise TypeError(must("Batch.from_parts.valid_mask", "be an array of bools", valid_mask))
        if valid_mask is not None and valid_mask.ndim != 1:
            constraint = f"have shape ({size},), one entry per record"
            raise ValueError(must("Batch.from_parts.valid_mask", constraint, valid_mask))
        marks = {"metadata_list": metadata_list, "record_ids": record_ids, "valid_mask": valid_mask}
        for name, part in marks.items():
            if part is None:
                continue
            # A size may be symbolic, which `len` cannot return.
            if (part.shape[:1] if is_array(part) else (len(part),)) != (size,):
                constraint = f"have {size} entries, one per record"
                raise ValueError(must(f"Batch.from_parts.{name}", constraint, part))
        return cls.unchecked(
            data,
            states,
            batch_state=batch_state,
            batch_metadata=batch_metadata,
            record_ids=record_ids,
            valid_mask=valid_mask,
            _metadata=None if metadata_list is None else tuple(metadata_list),
        )

    @classmethod
    def unchecked(cls, data: Any, states: Any, **parts: Any) -> "Batch":
        """Makes a batch of parts that are known to fit, or of a tree's odd leaves."""
        batch = object.__new__(cls)
        vars(batch).update(data=data, states=states, **parts)
        return batch

    def with_parts(self, data: Any, states: Any) -> "Batch":
        """Returns a batch with other data and states, of the same records."""
        return Batch.unchecked(**{**vars(self), "data": data, "states": states})

    @property
    def batch_size(self) -> int:
        """How many records there are."""
        leaves = jax.tree.leaves((self.data, self.states))
        if not leaves:
            return len(self._metadata or ())
        size: int = leaves[0].shape[0]
        return size

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
          TypeError: if it is no int.
        """
        index, size = operator.index(index), self.batch_size
        if not -size <= index < size:
            raise IndexError(f"the batch has {size} records; got index {index}.")
        metadata = None if self._metadata is None else self._metadata[index]
        return Element(_rows(self.data, index), _rows(self.states, index), metadata)

    def get_elements(self, indices: slice | Sequence[int]) -> list[Element]:
        """Returns the records at some positions, as `get_element` does, or in a slice."""
        if isinstance(indices, slice):
            indices = range(self.batch_size)[indices]
        return [self.get_element(index) for index in indices]

    def slice(self, start: int, end: int) -> "Batch":
        """Returns the records from `start` to `end` (not included) as a batch."""
        rows = slice(start, end)
        stacked = ("data", "states", "record_ids", "valid_mask")
        parts = {name: _rows(getattr(self, name), rows) for name in stacked}
        parts["_metadata"] = None if self._metadata is None else self._metadata[rows]
        return Batch.unchecked(**{**vars(self), **parts})

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


def _rows(tree: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


register_pytree(Element, ("data", "state"))
register_pytree(Batch, ("data", "states", "batch_state", "record_ids", "valid_mask"))
