"""Two functions under test, and one example to run them on.

A `Subject` is what is under test, with all that the caller said about it. A `Trial` is a subject
with a config and a batch; it holds what came out, compiled once, and computes what should come.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.fills import FromField, spread_channels
from dropax.kit.batching import batched
from dropax.kit.fields import get_field, set_field
from dropax.kit.state import OperatorState, new_state
from dropax.layout import Layout
from dropax.measures import expected_dropped_fraction
from dropax.modes import Channel, Pixel, expected_fraction
from dropax.testing.drops import TOLERANCE, dropped_reference, in_dtype
from dropax.testing.masks import flipped_keys

Tree = Any
IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")
MANY = 300
"""How many records a batch has at least that masks are drawn for: more than a byte counts."""
_BYTES, _FEWEST, _MOST = 2**23, 512, 2**14  # of the params of many records, and their number


def is_shared(config: Any) -> bool:
    """Says whether all records get what the first one draws."""
    return bool(getattr(config, "share_mask", False))


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is under test; the attributes are the arguments of `check_transform`."""

    draw: Callable[..., Any]
    apply: Callable[..., Any]
    operator: Any = None
    keep_mask: Callable[[Any, Any], Any] | None = None
    kept_value: Callable[[Any, Any, Any], Any] | None = None
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None
    fill: Any = None
    fill_reads: str | None = None
    reference: Callable[[Any, Any, Any], Any] | None = None
    output_spec: Any = None
    independent: bool = False
    field: str | None = None
    rate_field: str = "dropout_rate"
    channel_axis: Any = "auto"
    stats: dict[str, Any] | None = None
    new_fields: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    def apply_one(self, config: Any, data: Tree, state: Tree, params: Tree) -> Tree:
        """Applies to one record, as `dropax.batched` does."""
        data, state, _ = self.apply(config, data, state, {}, params, self.stats_of(config))
        return data, state

    def apply_batch(self, *arguments: Any, **options: Any) -> Any:
        """The `apply_batch` of the two functions."""
        return batched(self.draw, self.apply, is_shared=is_shared)(*arguments, **options)

    @functools.cached_property
    def apply_each(self) -> Callable[..., Any]:
        """`(config, data, states, params) -> (data, states)`, under jit."""
        return jax.jit(
            lambda config, *trees: jax.vmap(functools.partial(self.apply_one, config))(*trees)
        )

    @functools.cached_property
    def gradient(self) -> Callable[..., Any]:
        """`(config, target, field, weights, data, states, params) -> gradient`, under jit."""

        def total(
            image: Any, config: Any, target: str, field: str, weights: Any, data: Tree, *rest: Any
        ) -> jax.Array:
            out, _ = self.apply_each(config, set_field(data, field, image), *rest)
            return (get_field(out, target).astype(jnp.float32) * weights).sum()

        return jax.jit(jax.grad(total), static_argnums=(2, 3))

    def stats_of(self, config: Any) -> dict[str, Any] | None:
        """Returns what `apply` gets as stats."""
        return getattr(config, "precomputed_stats", None) if self.stats is None else self.stats


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trial:
    """A subject on one example: a config, data of shape (B, ...), states, and a seed."""

    subject: Subject
    config: Any
    data: Tree
    states: Tree
    seed: int
    false_alarm: float

    def replace(self, **changes: Any) -> "Trial":
        """Returns another trial of the same subject."""
        return dataclasses.replace(self, **changes)

    def with_config(self, **changes: Any) -> "Trial":
        """Returns a trial of a changed config and the same draw."""
        other = self.replace(config=self.config.replace(**changes))
        vars(other)["draws"] = self.draws
        return other

    def with_images(self, images: Any) -> "Trial":
        """Returns a trial of other images and the same draw."""
        other = self.replace(data=set_field(self.data, self.field, images))
        vars(other)["draws"] = self.draws
        return other

    @functools.cached_property
    def moderate(self) -> "Trial":
        """The same draw, on finite images of the same range with full mantissas."""
        return self.with_images(varied(self.images, np.random.default_rng(self.seed)))

    def with_rate(self, rate: float) -> "Trial | None":
        """Returns a trial of another rate with no record left alone; None if there is no rate."""
        name = self.subject.rate_field
        own = getattr(self.config, name, None)
        value: Any = jnp.asarray(rate, own.dtype) if isinstance(own, jax.Array) else rate
        changes: dict[str, Any] = {name: (value, value) if isinstance(own, tuple) else value}
        if isinstance(self.config, DropoutOperatorConfig):
            changes["apply_probability"] = None
        try:
            return None if own is None else self.replace(config=self.config.replace(**changes))
        except (TypeError, ValueError):
            return None

    def at_rate(self, rate: float) -> "Trial | None":
        """Returns `with_rate(rate)`, sharing what is compiled."""
        other = self.with_rate(rate)
        if other is not None:
            vars(other).update(draw=self.draw, many_keys=self.many_keys)
        return other

    def other_fills(self) -> "list[Trial]":
        """Returns trials of another number as the config's fill: 0 and 1 hide that it is scaled."""
        fill, dtype = getattr(self.config, "fill", None), self.images.dtype
        if self.subject.fill is not None or type(fill) not in (int, float) or fill not in (0, 1):
            return []
        try:
            number = 0.5 if jnp.issubdtype(dtype, jnp.floating) else 1 - fill
            other = self.with_config(fill=type(fill)(number))
            return [other] if other.output else []
        except (TypeError, ValueError):
            return []  # it takes no other

    @functools.cached_property
    def field(self) -> str:
        """The field that is worked on."""
        field = self.subject.field or getattr(self.config, "field_key", None)
        if field is None and len(self.data) == 1:
            (field,) = self.data
        if field is None:
            raise ValueError(
                "check_transform.field must be given if the config has no field_key and the batch "
                f"several fields; got None. Pass one of {', '.join(map(repr, self.data))}."
            )
        return str(field)

    @property
    def target(self) -> str:
        """The field that receives the result."""
        return getattr(self.config, "target_key", None) or self.field

    @property
    def images(self) -> np.ndarray:
        """The images, (B, ...)."""
        return get_field(self.data, self.field)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an element."""
        return tuple(self.images.shape[1:])

    @property
    def size(self) -> int:
        """How many records there are."""
        return len(self.images)

    @functools.cached_property
    def layout(self) -> Layout:
        """Which axis of an element is that of the channels."""
        axis = getattr(self.config, "channel_axis", self.subject.channel_axis)
        return Layout.of(self.shape, axis)

    def keys(self, count: int) -> jax.Array:
        """Returns Threefry keys for records."""
        return jax.random.split(jax.random.key(self.seed, impl="threefry2x32"), count)

    def state(self) -> OperatorState:
        """Returns an operator state for `apply_batch`, whose key is of any implementation."""
        key = jax.random.key(self.seed, impl=IMPLEMENTATIONS[self.seed % len(IMPLEMENTATIONS)])
        return new_state(key, self.subject.stats_of(self.config))

    def draw_eagerly(self, keys: jax.Array) -> Tree:
        """Draws for as many records as there are keys."""
        shapes = jax.tree.map(lambda leaf: (*keys.shape, *np.shape(leaf)[1:]), self.data)
        return self.subject.draw(self.config, keys, shapes)

    @functools.cached_property
    def draw(self) -> Callable[..., Any]:
        """`(config, keys) -> (params, masks)` of records in one batch, under jit."""

        def draw(config: Any, keys: jax.Array) -> Tree:
            trial = self.replace(config=config)
            params = trial.draw_eagerly(keys)
            return params, jax.vmap(trial.mask_of)(params) if jax.tree.leaves(params) else None

        return jax.jit(draw)

    @functools.cached_property
    def draws(self) -> tuple[Tree, Any]:
        """What the records of the batch drew, and their masks."""
        return self.draw(self.config, self.keys(self.size))

    @functools.cached_property
    def many_keys(self) -> jax.Array:
        """Many keys, of which 2 i and 2 i + 1 differ in one bit of one word or of both."""
        specs = jax.tree.leaves(jax.eval_shape(self.draw, self.config, self.keys(2)))
        records = _BYTES // max(1, sum(2 * spec.size for spec in specs))
        return flipped_keys(min(_MOST, max(_FEWEST, records)) // 2, self.seed)

    @functools.cached_property
    def many(self) -> tuple[Tree, Any]:
        """What many records draw in one batch, and their masks; each its own, if they share one."""
        config = self.config.replace(share_mask=False) if is_shared(self.config) else self.config
        return self.draw(config, self.many_keys)

    @property
    def params(self) -> Tree:
        """What the records drew; None of a deterministic config."""
        return self.draws[0] if self.config.stochastic else None

    def mask_of(self, params: Tree) -> Any:
        """Returns one record's mask with the image's axes, or None if there is none."""
        if self.subject.keep_mask is not None:
            mask = self.subject.keep_mask(self.config, params)
        elif isinstance(params, dict) and "keep_mask" in params:
            mask = params["keep_mask"]
        else:
            return None
        mask, shape, axis = jnp.asarray(mask, jnp.bool_), self.shape, self.layout.channel_axis
        leads = mask.shape != shape[len(shape) - mask.ndim :] and all(
            size in (1, full) for size, full in zip(mask.shape, shape, strict=False)
        )
        mode = getattr(self.config, "mode_object", None)
        if mask.ndim == 1 and axis is not None and (isinstance(mode, Channel) or not leads):
            return mask.reshape([-1 if at == axis else 1 for at in range(len(shape))])
        missing = (1,) * (len(shape) - mask.ndim)
        # (H, W) of an image (H, W, C); else as NumPy broadcasts.
        mask = mask.reshape((*mask.shape, *missing) if leads else (*missing, *mask.shape))
        jnp.broadcast_shapes(mask.shape, shape)
        return mask

    @functools.cached_property
    def masks(self) -> Any:
        """The keep masks, bool, of the images' shape; None if nothing says what is kept."""
        if not self.config.stochastic or self.draws[1] is None:
            return None
        if isinstance(self.params, dict) and "record_key" in self.params:
            return None  # it depends on fields of the record
        masks = np.broadcast_to(np.asarray(self.draws[1]), self.images.shape)
        return masks if self.where is None else masks | ~self.where

    @functools.cached_property
    def where(self) -> Any:
        """Where values may drop, bool, with the images' axes; None for everywhere."""
        key = getattr(self.config, "where_key", None)
        if key is None:
            return None
        field = jnp.asarray(get_field(self.data, key))
        return np.asarray(jax.vmap(lambda where: self.layout.fit_where(where, key))(field))

    @functools.cached_property
    def output(self) -> tuple[Tree, Tree]:
        """The data and the states that come back, under jit."""
        out = self.subject.apply_each(self.config, self.data, self.states, self.params)
        return jax.tree.map(np.asarray, out)

    def gradient(self, weights: np.ndarray, data: Tree) -> Any:
        """Returns the gradient of the weighted sum of the results."""
        static = (self.config, self.target, self.field)
        images = get_field(data, self.field)
        return self.subject.gradient(images, *static, weights, data, self.states, self.params)

    @property
    def fill_name(self) -> str | None:
        """The name of a fill that is computed; None of a number or a field."""
        fill = getattr(self.config, "fill", None)
        names = {"Mean": "mean", "Noise": "noise", "StatsMean": "stats_mean"}
        return fill if isinstance(fill, str) else names.get(type(fill).__name__)

    @property
    def fill_reads(self) -> str:
        """Which part of the image the fill is computed from."""
        computed = "statistics" if self.fill_name in ("mean", "noise") else "nothing"
        return self.subject.fill_reads or computed

    def fills(self) -> tuple[Any, bool]:
        """Returns what dropped values become, and whether exactly; None if it is unknown."""
        subject, config, images = self.subject, self.config, self.images
        fill = getattr(config, "fill", None) if subject.fill is None else subject.fill
        values: Any = None
        if callable(subject.fill):
            records = [(row(self.data, at), row(self.params, at)) for at in range(self.size)]
            each = [subject.fill(config, *record) for record in records]
            return np.stack([np.broadcast_to(one, self.shape) for one in each]), False
        if isinstance(fill, FromField):
            other = np.asarray(get_field(self.data, fill.field))
            pads = (1,) * (images.ndim - other.ndim)
            return other.reshape(len(other), *pads, *other.shape[1:]), True
        if self.fill_name == "mean" and self.where is None:
            axes, wide = tuple(axis + 1 for axis in self.layout.spatial_axes), images.astype(float)
            finite = np.isfinite(wide)
            count = np.maximum(finite.sum(axis=axes, keepdims=True), 1)
            values = np.where(finite, wide, 0).sum(axis=axes, keepdims=True) / count
        elif self.fill_name == "stats_mean":
            values = np.asarray((subject.stats_of(config) or {})["mean"])
        elif self.fill_name is None and not callable(getattr(fill, "fill", None)):
            values = None if fill is None else np.asarray(fill)
        if values is not None and values.ndim == 1 and self.layout.channel_axis is not None:
            layout = self.layout
            values = spread_channels(values, layout.shape, layout.channel_axis, "fill")
        if values is None or self.fill_name is None:
            return values, True
        whole = not jnp.issubdtype(images.dtype, jnp.floating)
        return (np.clip(np.round(values), *_range(images.dtype)) if whole else values), False

    def reference(self) -> tuple[np.ndarray, Any, Any]:
        """Returns the images that should come, where exactly, and where that is known at all."""
        config, images, params, kept = self.config, self.images, self.params, self.kept()
        fill, exact_fill = self.fills()
        clip = getattr(config, "clip_range", None)
        wanted = dropped_reference(images, self.masks, kept, fill, clip)
        exact = np.where(self.masks, kept is None, exact_fill)
        if clip is not None and jnp.issubdtype(images.dtype, jnp.floating):
            # XLA makes one instruction of a clip, which on CPU flushes subnormal numbers to 0.
            tiny = np.asarray(jnp.finfo(images.dtype).tiny, images.dtype)
            with np.errstate(invalid="ignore"):
                exact = exact & ~((np.abs(wanted) < tiny) & (wanted != 0))
        known = self.masks | (fill is not None)
        changes = np.asarray(True if self.where is None else self.where)
        if isinstance(params, dict) and isinstance(config, DropoutOperatorConfig):
            applied = np.asarray(params.get("applied", True))
            changes = changes & applied.reshape(-1, *[1] * (images.ndim - 1))
        return np.where(changes, wanted, images), np.where(changes, exact, True), known

    def kept(self) -> Any:
        """Returns what kept values become, before they are clipped; None if they stay."""
        images, subject = self.images, self.subject
        if subject.kept_value is not None:
            each = [
                subject.kept_value(self.config, images[at], row(self.params, at))
                for at in range(self.size)
            ]
            return np.stack([in_dtype(values, images.dtype) for values in each])
        if getattr(self.config, "rescale", False):
            return images.astype(np.float64) / self._kept_fractions()
        return None

    def _kept_fractions(self) -> np.ndarray:
        """Returns what `rescale` divides each record by, of shape (B, 1, ...)."""
        params = self.params if isinstance(self.params, dict) else {}
        own = getattr(self.config, self.subject.rate_field)
        dropped = np.broadcast_to(np.asarray(params.get("rate", own), np.float32), (self.size,))
        if isinstance(self.config, DropoutOperatorConfig):
            mode, shape = self.config.mode_object, self.layout.channel_last_shape
            dropped = np.array([expected_fraction(mode, shape, rate) for rate in dropped])
        kept = np.where(dropped < 1, 1 - dropped, 1)
        return kept.reshape(-1, *[1] * (self.images.ndim - 1))

    def kept_gradient(self, weights: np.ndarray) -> Any:
        """Returns the gradient of the weighted kept values; None if JAX cannot differentiate."""
        dtype, kept_value = self.images.dtype, self.subject.kept_value
        slope: Any = np.ones(self.images.shape)
        if kept_value is None and getattr(self.config, "rescale", False):
            slope = slope / self._kept_fractions()
            if isinstance(self.params, dict) and "applied" in self.params:
                applied = np.asarray(self.params["applied"]).reshape(-1, *[1] * len(self.shape))
                slope = np.where(applied, slope, 1)
            slope = slope if self.where is None else np.where(self.where, slope, 1)
        if kept_value is None:
            return (weights * slope).astype(dtype)

        def total(image: Any, at: int, params: Any) -> Any:
            kept = jnp.asarray(kept_value(self.config, image, params)).astype(jnp.float32)
            return jnp.where(self.masks[at], kept * weights[at], 0).sum()

        try:
            each = [
                jax.grad(total)(jnp.asarray(image), at, row(self.params, at))
                for at, image in enumerate(self.images)
            ]
        except (TypeError, jax.errors.JAXTypeError):
            return None
        return np.stack(each)

    def turned(self) -> np.ndarray:
        """Returns the images; dropped values change places within each channel of a record."""
        axis = self.layout.channel_axis
        parts = (np.array(self.images), self.masks)
        values, kept = (
            x[..., None] if axis is None else np.moveaxis(x, axis + 1, -1) for x in parts
        )
        for at in np.ndindex(len(values), values.shape[-1]):
            own, drops = values[at[0], ..., at[1]], ~kept[at[0], ..., at[1]]
            own[drops] = own[drops][::-1]
        return values[..., 0] if axis is None else np.moveaxis(values, -1, axis + 1)

    def followers(self) -> list[tuple[str, np.ndarray, Any]]:
        """Returns (name, masks, fill) of the auxiliary fields; a fill of None is unknown."""
        fills, out = getattr(self.config, "auxiliary_fill", None), []
        axis, masks = self.layout.channel_axis, jnp.asarray(self.masks)
        if axis is not None and bool((masks == jnp.take(masks, jnp.array([0]), axis + 1)).all()):
            masks = jnp.take(masks, jnp.array([0]), axis + 1)
        for number, name in enumerate(getattr(self.config, "auxiliary_fields", None) or ()):
            field = get_field(self.data, name)
            try:
                follow = functools.partial(self.layout.follow, shape=field.shape[1:], name=name)
                each = jax.vmap(follow)(masks)
            except ValueError:
                continue  # a field without the image's axes, such as a label of a record
            fill = fills[number] if isinstance(fills, tuple) else fills
            if isinstance(fill, FromField):
                fill = get_field(self.data, fill.field)
            known = isinstance(fill, int | float | np.ndarray | jax.Array)
            out.append((name, np.broadcast_to(each, field.shape), fill if known else None))
        return out

    @property
    def independent(self) -> bool:
        """Whether each value of a mask drops on its own, with one probability for all records."""
        config = self.config
        if not isinstance(config, DropoutOperatorConfig):
            return self.subject.independent
        tied = isinstance(config.dropout_rate, tuple) or config.apply_probability is not None
        return isinstance(config.mode_object, Pixel) and not tied

    def expected_fraction(self) -> Any:
        """Returns the fraction that should be dropped, or None if nothing says so."""
        if self.subject.expected_fraction is not None:
            return float(self.subject.expected_fraction(self.config, self.shape))
        if isinstance(self.config, DropoutOperatorConfig):
            return float(expected_dropped_fraction(self.config, self.shape))
        rate = getattr(self.config, self.subject.rate_field, None)
        return None if rate is None else float(np.clip(np.mean(np.asarray(rate)), 0, 1))


def row(tree: Tree, at: int) -> Tree:
    """Returns one record of stacked ones."""
    return jax.tree.map(lambda leaf: leaf[at], tree)


def _range(dtype: Any) -> tuple[int, int]:
    return (0, 1) if dtype == np.bool_ else (int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max))


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
