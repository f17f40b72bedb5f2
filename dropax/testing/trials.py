"""Two functions under test, and one example to run them on.

A `Subject` is what is under test, with all that the caller said about it. A `Trial` is a subject
with a config and a batch; it holds what came out, compiled once, and computes what should come.
"""

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax import functional
from dropax.config import DropoutOperatorConfig
from dropax.fills import FromField, spread_channels
from dropax.kit.batching import batched
from dropax.kit.errors import must
from dropax.kit.fields import by_path, get_field, set_field
from dropax.kit.trees import summarize
from dropax.layout import Layout
from dropax.measures import expected_dropped_fraction
from dropax.testing.drops import Reference, reference_of
from dropax.testing.masks import flipped_keys

_BYTES, _FEWEST, _MOST = 2**23, 512, 2**14  # of the params of many records, and their number
_MASK = "mask of.check_transform"


def is_shared(config: Any) -> bool:
    """Says whether all records get what the first one draws."""
    return bool(getattr(config, "share_mask", False))


def row(tree: Any, at: int) -> Any:
    """Returns one record of stacked ones, which may be written to."""
    return jax.tree.map(
        lambda leaf: np.array(leaf[at]) if isinstance(leaf, np.ndarray) else leaf[at], tree
    )


def _compiled(method: Callable[..., Any]) -> Any:
    """Compiles a method, anew for each object."""
    return functools.cached_property(lambda self: jax.jit(functools.partial(method, self)))


class Subject(types.SimpleNamespace):
    """What is under test; the attributes are the arguments of `check_transform`."""

    def stats_of(self, config: Any) -> dict[str, Any] | None:
        """Returns what `apply` gets as stats."""
        return getattr(config, "precomputed_stats", None) if self.stats is None else self.stats

    def fields_of(self, config: Any, data: Any) -> tuple[str, str]:
        """Returns the names of the field that is worked on and of that of the result."""
        field = self.field or getattr(config, "field_key", None)
        if field is None and len(data) > 1:
            constraint = "be given if the config has no field_key and the batch several fields"
            cure = f"Pass one of {', '.join(map(repr, data))}."
            raise ValueError(must("check_transform.field", constraint, None, cure))
        field = field or next(iter(data))
        return field, getattr(config, "target_key", None) or field

    def apply_batch(self, *arguments: Any, **options: Any) -> Any:
        """The `apply_batch` of the two functions."""
        run = batched(self.generate_random_params, self.apply, is_shared=is_shared)
        return run(*arguments, **options)

    def draw_eagerly(self, config: Any, keys: jax.Array, data: Any) -> Any:
        """Draws for as many records like those of a batch as there are keys."""
        shapes = jax.tree.map(lambda leaf: (*keys.shape, *np.shape(leaf)[1:]), data)
        return self.generate_random_params(config, keys, shapes)

    @_compiled
    def draw(self, config: Any, keys: jax.Array, data: Any) -> tuple[Any, Any]:
        """Does so, and returns the keep masks too; None if nothing says what is kept."""
        params, masks = self.draw_eagerly(config, keys, data), None
        if self.keep_mask is not None:
            masks = jax.vmap(functools.partial(self.keep_mask, config))(params)
        elif isinstance(params, dict):
            masks = params.get("keep_mask")
        return params, None if masks is None else jnp.asarray(masks, jnp.bool_)

    def apply_one(self, config: Any, data: Any, state: Any, params: Any) -> Any:
        """Applies to one record, as `dropax.batched` does."""
        return self.apply(config, data, state, {}, params, self.stats_of(config))[:2]

    def apply_eagerly(self, config: Any, *trees: Any) -> Any:
        """`(config, data, states, params) -> (data, states)`, one operation after the other."""
        return jax.vmap(functools.partial(self.apply_one, config))(*trees)

    apply_compiled = _compiled(apply_eagerly)

    @_compiled
    def drop(self, config: Any, data: Any, params: Any) -> Any:
        """Returns the data that `dropax.apply` returns."""

        def drop(data: Any, params: Any) -> Any:
            return functional.apply(config, data, {}, {}, params, self.stats_of(config))[0]

        return jax.vmap(drop)(data, params)

    @_compiled
    def gradient(self, images: Any, weights: Any, config: Any, data: Any, *rest: Any) -> Any:
        """Returns the gradient of the weighted sum of the results."""
        field, target = self.fields_of(config, data)

        def total(images: Any) -> Any:
            out, _ = self.apply_eagerly(config, set_field(data, field, images), *rest)
            return (get_field(out, target).astype(jnp.float32) * weights).sum()

        return jax.grad(total)(images)


@dataclasses.dataclass(eq=False, repr=False)
class Trial:
    """A subject on one example: a config, data of shape (B, ...), states, and a seed.

    Its draws are those of `drawn_by`, if that is given.
    """

    subject: Subject
    config: Any
    data: Any
    states: Any
    seed: int
    false_alarm: float
    eager: bool = False
    drawn_by: "Trial | None" = None

    def __post_init__(self) -> None:
        config, subject = self.config, self.subject
        self.field, self.target = subject.fields_of(config, self.data)
        self.images: np.ndarray = get_field(self.data, self.field)
        if not self.images.size or not self.images.ndim:
            raise ValueError(must("check_transform.batch", "hold a record", summarize(self.data)))
        self.size, self.shape = len(self.images), self.images.shape[1:]
        self.is_dropout = isinstance(config, DropoutOperatorConfig)
        self.layout = Layout.of(self.shape, getattr(config, "channel_axis", subject.channel_axis))

    def replace(self, **changes: Any) -> "Trial":
        """Returns another trial, of the same draws if `drawn_by` is not among the changes."""
        return dataclasses.replace(self, **{"drawn_by": self, **changes})

    def with_field(self, name: str, values: Any) -> "Trial":
        """Returns a trial of a changed field and the same draws."""
        return self.replace(data=set_field(self.data, name, values))

    @functools.cached_property
    def moderate(self) -> "Trial":
        """The same draws, on finite images of the same range with full mantissas."""
        return self.with_field(self.field, varied(self.images, np.random.default_rng(self.seed)))

    def at_rates(self, *rates: float) -> "Iterator[Trial]":
        """Yields this trial, and those of other rates with no record left alone, if there are."""
        yield self
        name = self.subject.rate_field
        own = getattr(self.config, name, None)
        for rate in rates if own is not None else ():
            value: Any = jnp.asarray(rate, own.dtype) if isinstance(own, jax.Array) else rate
            changes: dict[str, Any] = {name: (value, value) if isinstance(own, tuple) else value}
            changes |= {"apply_probability": None} if self.is_dropout else {}
            try:
                config = self.config.replace(**changes)
            except (TypeError, ValueError):
                continue  # it takes no such rate
            yield self.replace(config=config, drawn_by=None)

    @functools.cached_property
    def keys(self) -> jax.Array:
        """Threefry keys of the records."""
        return jax.random.split(jax.random.key(self.seed, impl="threefry2x32"), self.size)

    @functools.cached_property
    def draws(self) -> tuple[Any, Any]:
        """What the records of the batch drew, and their masks; None of a deterministic config."""
        if self.drawn_by is not None:
            return self.drawn_by.draws
        if not self.config.stochastic:
            return None, None
        return self.subject.draw(self.config, self.keys, self.data)

    @property
    def params(self) -> Any:
        """What the records of the batch drew."""
        return self.draws[0]

    @functools.cached_property
    def many(self) -> tuple[jax.Array, Any, Any]:
        """Many keys, what they draw in one batch, and the masks; each its own, if one is shared.

        The keys 2 i and 2 i + 1 differ in one bit of one word or of both.
        """
        draw, config = self.subject.draw, self.config
        config = config.replace(share_mask=False) if is_shared(config) else config
        specs = jax.tree.leaves(draw.eval_shape(config, self.keys[:1], self.data))
        records = _BYTES // max(1, sum(4 * spec.size for spec in specs))
        keys = flipped_keys(min(_MOST, max(_FEWEST, records)) // 2, self.seed)
        return keys, *draw(config, keys, self.data)

    @functools.cached_property
    def masks(self) -> Any:
        """The keep masks, bool, of the images' shape; None if nothing says what is kept."""
        if self.draws[1] is None:
            return None
        if self.is_dropout and self.subject.keep_mask is None:
            return np.asarray(get_field(self.by_dropax, self.config.mask_key or _MASK))
        masks, axis = np.asarray(self.draws[1]), self.layout.channel_axis
        own, missing = masks.shape[1:], (1,) * (self.images.ndim - masks.ndim)
        # (H, W) of an image (H, W, C), or one number a channel; else as NumPy broadcasts.
        fits = (size in (1, full) for size, full in zip(own, self.shape, strict=False))
        if own != self.shape[len(missing) :] and all(fits):
            own = (*own, *missing)
        elif len(own) == 1 and axis is not None:
            own = tuple(-1 if at == axis else 1 for at in range(len(self.shape)))
        else:
            own = (*missing, *own)
        return np.broadcast_to(masks.reshape(self.size, *own), self.images.shape)

    @functools.cached_property
    def output(self) -> tuple[Any, Any]:
        """The data and the states that come back."""
        given = (self.config, self.data, self.states, self.params)
        if self.eager:  # loops then count in Python's ints, on which not every function works
            with contextlib.suppress(Exception), jax.disable_jit():
                return jax.tree.map(np.asarray, self.subject.apply_eagerly(*given))
        return jax.tree.map(np.asarray, self.subject.apply_compiled(*given))

    @functools.cached_property
    def by_dropax(self) -> Any:
        """The data that `dropax.apply` makes of these draws, and the masks."""
        config = self.config.replace(mask_key=self.config.mask_key or _MASK)
        return jax.tree.map(np.asarray, self.subject.drop(config, self.data, self.params))

    def references(self) -> Iterator[dict[str, Reference]]:
        """Yields what should come, by path: what the config says, and what the caller says."""
        config, subject = self.config, self.subject
        drops = {"masks": self.masks, "before": self.images}
        if self.is_dropout and subject.kept_value is None and subject.keep_mask is None:
            exact = not config.rescale and self.fill_reads == "nothing"
            fields = dict(by_path(self.by_dropax))
            fields.pop(_MASK, None)
            wanted = {path: Reference(values, exact) for path, values in fields.items()}
            yield wanted | {self.target: wanted[self.target]._replace(**drops)}
        elif self.masks is not None:
            kept, clip = self.kept(self.images), getattr(config, "clip_range", None)
            given = (self.images, self.masks, kept, self._fill(), clip, not callable(subject.fill))
            wanted = {self.target: reference_of(*given)}
            for name in getattr(config, "auxiliary_fields", None) or ():
                masks, fill = self._followed(name), getattr(config, "auxiliary_fill", None)
                if masks is not None and getattr(config, "preserve_auxiliary", True):
                    wanted[name] = reference_of(get_field(self.data, name), masks, None, fill, None)
            yield wanted
        else:
            yield {}
        if subject.reference is not None:
            yield self._by_caller()

    def _by_caller(self) -> dict[str, Reference]:
        """Returns what the caller's own `reference` computes for each record."""

        def fields_of(config: Any, data: Any, params: Any) -> Any:
            wanted = self.subject.reference(config, data, params)
            wanted = wanted[0] if isinstance(wanted, tuple) else wanted
            return wanted if isinstance(wanted, dict) else set_field({}, self.target, wanted)

        out = dict(by_path(self.output[0]))
        return {
            path: Reference(values.astype(out[path].dtype) if path in out else values, exact=False)
            for path, values in by_path(self._each(fields_of, self.data))
        }

    def _each(self, function: Callable[..., Any], values: Any, stack: Any = np.stack) -> Any:
        """Stacks what `function(config, values, params)` returns for each record."""
        rows = (row((values, self.params), at) for at in range(self.size))
        each = [function(self.config, *record) for record in rows]
        return jax.tree.map(lambda *leaves: stack(leaves), *each)

    @property
    def fill_reads(self) -> str:
        """Which part of the image the fill is computed from."""
        fill = None if self.subject.fill is not None else getattr(self.config, "fill", None)
        known = fill is None or isinstance(fill, int | float | tuple | FromField)
        return self.subject.fill_reads or ("nothing" if known else "statistics")

    def _fill(self) -> Any:
        """Returns what dropped values become; None if it is unknown."""
        fill, axis = self.subject.fill, self.layout.channel_axis
        if fill is None and self.subject.fill_reads is None:
            fill = getattr(self.config, "fill", None)
        if callable(fill):
            return self._each(lambda *given: np.broadcast_to(fill(*given), self.shape), self.data)
        if not isinstance(fill, int | float | tuple | np.ndarray | jax.Array):
            return None
        if np.ndim(fill) == 1 and axis is not None:
            return spread_channels(np.asarray(fill), self.shape, axis, "fill")
        return fill

    def _followed(self, name: str) -> np.ndarray | None:
        """Returns the masks of a field that drops with the image; None if it has other axes."""
        axis, masks, shape = self.layout.channel_axis, self.masks, get_field(self.data, name).shape
        if axis is not None and (masks == masks.take([0], axis + 1)).all():
            masks = masks.take([0], axis + 1)
        follow = functools.partial(self.layout.follow, shape=shape[1:], name=name)
        try:
            return np.broadcast_to(jax.vmap(follow)(masks), shape)
        except ValueError:
            return None  # such as a label of a record

    def kept(self, images: Any) -> Any:
        """Returns what kept values become, before they are clipped; None if they stay."""
        if self.subject.kept_value is None:
            return None
        stack = np.stack if isinstance(images, np.ndarray) else jnp.stack
        return self._each(self.subject.kept_value, images, stack)

    def wanted_gradient(self, weights: np.ndarray) -> Any:
        """Returns the gradient of the weighted kept values; None if JAX cannot differentiate."""

        def total(images: Any) -> Any:
            kept = self.kept(images)
            if self.is_dropout and kept is None:
                data = set_field(self.data, self.field, images)
                kept = get_field(self.subject.drop(self.config, data, self.params), self.target)
            kept = jnp.asarray(images if kept is None else kept).astype(jnp.float32)
            return (jnp.where(self.masks, kept, 0) * weights).sum()

        try:
            return np.asarray(jax.grad(total)(jnp.asarray(self.images)))
        except (TypeError, jax.errors.JAXTypeError):
            return None

    def expected_fraction(self) -> float | None:
        """Returns the fraction that should be dropped, or None if nothing says so."""
        rate = getattr(self.config, self.subject.rate_field, None)
        if self.subject.expected_fraction is not None:
            rate = self.subject.expected_fraction(self.config, self.shape)
        elif self.is_dropout:
            rate = expected_dropped_fraction(self.config, self.shape)
        if rate is None:
            return None
        fraction = float(np.clip(np.mean(np.asarray(rate)), 0, 1))
        # The formulas round, and certainties leave no room.
        return round(fraction) if abs(fraction - round(fraction)) < 1e-7 else fraction


def varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns finite images like these: of the same dtype and range, with full mantissas."""
    dtype, values = images.dtype, images.astype(np.float64)
    values = values[np.abs(values) < 1e4]  # NaN is not
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if high - low < 1e-6 * max(abs(high), 1):
        low, high = min(low, 0.0), max(high, 1.0)
    if not jnp.issubdtype(dtype, jnp.floating):
        return rng.integers(int(low), int(high), images.shape, endpoint=True).astype(dtype)
    return np.clip(rng.uniform(low, high, images.shape), low, high).astype(dtype)
