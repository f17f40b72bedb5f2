"""Two functions under test, and one example to run them on.

A `Transform` runs the two functions of a transform as `dropax.batched` and users do: eagerly, under
jit, on one record or many. A `Trial` is a transform with a config, a batch and a key; it holds the
outputs and says which values were kept.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.fills import FromField, Mean, Noise
from dropax.functional import fit_mask
from dropax.kit.batch import Batch
from dropax.kit.batching import ApplyBatch, batched
from dropax.kit.config import OperatorConfig
from dropax.kit.fields import get_field, set_field
from dropax.kit.keys import record_keys
from dropax.kit.state import OperatorState, new_state
from dropax.kit.trees import broadcast_rank, summarize
from dropax.layout import Layout
from dropax.measures import expected_dropped_fraction
from dropax.modes import Pixel, expected_fraction

Tree = Any
MANY = 67
"""How many records a batch has that masks are drawn for: more than most."""
# For statistics: how many values to draw, in how many pairs of records; records drawn at a time,
# of which both are a multiple; and how far apart values are compared.
_VALUES, _FEWEST, _MOST, _AT_ONCE, _STEPS = 2**21, 2**8, 2**15, 256, 8


class Tally(NamedTuple):
    """Statistics of many pairs of records, whose keys differ in one bit.

    Attributes:
      alone: what the first `MANY` records drew, each in a batch of its own.
      differ: whether the two records of a pair drew anything different, bool (pairs,).
      fractions: dropped fraction of each record, (records,); None if nothing drops.
      covariances: for each axis along which values drop independently, and each number of steps
        along it, half the product of the differences within a pair of two values so many steps
        apart, averaged over positions, (pairs,). Its expectation is their covariance.
      mask_shape: the element's shape, but 1 along axes that a mask does not depend on.
      varies: for each axis of a mask, whether any mask varies along it.
    """

    alone: Tree
    differ: np.ndarray
    fractions: np.ndarray | None
    covariances: dict[tuple[int, int], np.ndarray]
    mask_shape: tuple[int, ...]
    varies: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Transform:
    """The functions under test, and how to read what they do.

    Attributes:
      draw: `generate_random_params(config, keys, data_shapes)`.
      apply: `apply(config, data, state, metadata, random_params, stats)`.
      keep_mask: `(config, random_params) -> mask` of one record, or None for the entry
        "keep_mask".
      kept_value: `(config, image, random_params) -> image` of one record: what kept values become.
        None for what the config says.
      expected_fraction: `(config, element_shape) -> fraction`, or None for what the config says.
      field: the field that is worked on, or None for the config's `field_key` or the only one.
      rate_field: the config's field that is the rate.
      stats: what `apply` gets as stats.
      fill_reads: which part of the image the fill is computed from, or None for what the config
        says.
      new_fields: fields that `apply` adds or changes beside those that the config names.
    """

    draw: Callable[..., Any]
    apply: Callable[..., Any]
    keep_mask: Callable[[Any, Any], Any] | None = None
    kept_value: Callable[[Any, Any, Any], Any] | None = None
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None
    field: str | None = None
    rate_field: str = "dropout_rate"
    stats: dict[str, Any] | None = None
    fill_reads: str | None = None
    new_fields: tuple[str, ...] = ()
    traces: list[str] = dataclasses.field(default_factory=list)
    """Grows with each trace of `run_batch`."""

    @functools.cached_property
    def draw_together(self) -> Callable[..., Any]:
        """`(config, keys, data) -> (params, masks)` of one batch, under jit.

        `data` has the records' shapes, for as many records as there are keys.
        """

        def draw_together(config: OperatorConfig, keys: jax.Array, data: Tree) -> Tree:
            params = self.draw_eagerly(config, keys, data)
            shape = get_field(data, self.field_of(config, data)).shape[1:]
            return params, jax.vmap(lambda one: self.mask_of(config, one, shape))(params)

        return jax.jit(draw_together)

    @functools.cached_property
    def draw_alone(self) -> Callable[..., Any]:
        """The same, but each record is drawn in a batch of one. `data` has one record."""

        def draw_alone(config: OperatorConfig, keys: jax.Array, data: Tree) -> Tree:
            shape = get_field(data, self.field_of(config, data)).shape[1:]

            def one(key: jax.Array) -> Tree:
                params = row(self.draw_eagerly(config, key[None], data), 0)
                return params, self.mask_of(config, params, shape)

            return jax.lax.map(one, keys, batch_size=min(len(keys), _AT_ONCE))

        return jax.jit(draw_alone)

    def draw_eagerly(self, config: OperatorConfig, keys: jax.Array, data: Tree) -> Tree:
        """Draws for records of the data's shapes."""
        return self.draw(config, keys, jax.tree.map(np.shape, data))

    @functools.cached_property
    def apply_each(self) -> Callable[..., Any]:
        """`(config, data, states, params) -> (data, states)`, under jit."""

        def apply_each(config: OperatorConfig, data: Tree, states: Tree, params: Tree) -> Tree:
            one = functools.partial(self.apply_one, config)
            return jax.vmap(one)(data, states, params)

        return jax.jit(apply_each)

    def apply_one(self, config: OperatorConfig, data: Tree, state: Tree, params: Tree) -> Tree:
        """Applies to one record, as `dropax.batched` does."""
        data, state, _ = self.apply(config, data, state, {}, params, self.stats_of(config))
        return data, state

    def stats_of(self, config: OperatorConfig) -> dict[str, Any] | None:
        """Returns what `apply` gets as stats."""
        return config.precomputed_stats if self.stats is None else self.stats

    def batch_eagerly(self, config: OperatorConfig, state: OperatorState, batch: Batch) -> Tree:
        """Draws for all records and applies to all of them, without any jit of dropax's."""
        params = None
        if config.stochastic:
            keys = record_keys(state.next_key(), batch.batch_size, "check_transform.key")
            params = self.draw_eagerly(config, keys, batch.data)
        one = functools.partial(self.apply_one, config)
        return jax.vmap(one)(batch.data, batch.states, params)

    def apply_batch(self) -> ApplyBatch:
        """Builds the `apply_batch` of the two functions, of which nothing is traced yet."""
        return batched(self.draw, self.apply)

    @functools.cached_property
    def run_batch(self) -> Callable[..., Any]:
        """The `apply_batch` of the two functions, under jit; counts its traces."""
        apply_batch = self.apply_batch()

        def run_batch(config: OperatorConfig, state: OperatorState, batch: Tree) -> Tree:
            self.traces.append(config.batch_strategy)
            return apply_batch(config, state, batch)

        return jax.jit(run_batch)

    @functools.cached_property
    def gradient(self) -> Callable[..., jax.Array]:
        """`(trial's config, target, field, data, states, params) -> d sum(result) / d image`."""

        @functools.partial(jax.jit, static_argnums=(1, 2))
        def gradient(
            config: OperatorConfig, target: str, field: str, data: Tree, states: Tree, params: Tree
        ) -> jax.Array:
            def total(images: jax.Array) -> jax.Array:
                changed = set_field(data, field, images)
                return get_field(self.apply_each(config, changed, states, params)[0], target).sum()

            return jax.grad(total)(get_field(data, field))

        return gradient

    def mask_of(self, config: OperatorConfig, params: Tree, shape: tuple[int, ...]) -> Any:
        """Returns one record's mask with the image's axes, or None if there is none."""
        if self.keep_mask is not None:
            mask = jnp.asarray(self.keep_mask(config, params))
        elif isinstance(params, dict) and "keep_mask" in params:
            mask = params["keep_mask"]
            if isinstance(config, DropoutOperatorConfig):
                return fit_mask(config, mask, shape)
        else:
            return None
        return broadcast_rank(mask, shape, "the keep mask").astype(jnp.bool_)

    def field_of(self, config: OperatorConfig, data: Tree) -> str:
        """Returns the field that is worked on."""
        field = self.field or getattr(config, "field_key", None)
        if field is None and len(data) == 1:
            (field,) = data
        if field is None:
            raise ValueError(
                "check_transform.field must be given if the config has no field_key and the batch "
                f"several fields; got None. Pass one of {', '.join(map(repr, data))}."
            )
        return str(field)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trial:
    """A transform on one example.

    Attributes:
      transform: what is under test.
      config: as drawn or given.
      data: nested dicts of arrays of shape (B, ...).
      states: the same.
      seed: of the key.
      false_alarm: for each statistical assertion.
    """

    transform: Transform
    config: Any
    data: Tree
    states: Tree
    seed: int
    false_alarm: float

    def replace(self, **changes: Any) -> "Trial":
        """Returns another trial of the same transform."""
        return dataclasses.replace(self, **changes)

    def with_config(self, **changes: Any) -> "Trial":
        """Returns a trial with a changed config."""
        return self.replace(config=self.config.replace(**changes))

    def with_rate(self, rate: float) -> "Trial":
        """Returns a trial of another rate, in which no record is left alone."""
        name = self.transform.rate_field
        is_range = isinstance(getattr(self.config, name), tuple)
        changes: dict[str, Any] = {name: (rate, rate) if is_range else rate}
        if isinstance(self.config, DropoutOperatorConfig):
            changes["apply_probability"] = None
        return self.with_config(**changes)

    def with_images(self, images: Any) -> "Trial":
        """Returns a trial of other images; a field that fills them gets their dtype."""
        data, fill = set_field(self.data, self.field, images), getattr(self.config, "fill", None)
        if isinstance(fill, FromField):
            with np.errstate(invalid="ignore"):
                other = np.asarray(get_field(data, fill.field)).astype(images.dtype)
            data = set_field(data, fill.field, other)
        return self.replace(data=data)

    def with_wide_images(self, dtype: Any, seed: int, *, finite: bool = False) -> "Trial":
        """Returns a trial of images of a dtype whose values are as varied as the dtype has them."""
        return self.with_images(wide_values(self.images.shape, jnp.dtype(dtype), seed, finite))

    def __repr__(self) -> str:
        parts = f"{self.config!r}, {summarize(self.data)}, {summarize(self.states)}"
        return f"Trial({parts}, seed={self.seed})"

    @property
    def field(self) -> str:
        """The field that is worked on."""
        return self.transform.field_of(self.config, self.data)

    @property
    def target(self) -> str:
        """The field that receives the result."""
        return getattr(self.config, "target_key", None) or self.field

    @property
    def images(self) -> Any:
        """The images, (B, ...)."""
        return get_field(self.data, self.field)

    @property
    def batch(self) -> Batch:
        """Data and states together."""
        return Batch.unchecked(self.data, self.states)

    @property
    def size(self) -> int:
        """How many records there are."""
        return self.batch.batch_size

    @property
    def key(self) -> jax.Array:
        """A key of an implementation over whose keys `vmap` is a loop."""
        return jax.random.key(self.seed, impl="threefry2x32")

    def keys(self, count: int) -> jax.Array:
        """Returns keys for records."""
        return jax.random.split(self.key, count)

    def state(self) -> OperatorState:
        """Returns an operator state for `apply_batch`."""
        return new_state(self.key, self.transform.stats_of(self.config))

    def draw_together(self, keys: jax.Array) -> tuple[Tree, Any]:
        """Returns what records like the first draw in one batch, and their masks."""
        return self.transform.draw_together(self.config, keys, _shapes(self.data, len(keys)))

    @functools.cached_property
    def draws(self) -> tuple[Tree, Any]:
        """What the records drew, and their masks, in a batch that may be larger."""
        params, masks = self.draw_together(self.keys(max(MANY, self.size)))
        return jax.tree.map(lambda leaf: leaf[: self.size], (params, masks))

    @property
    def params(self) -> Tree:
        """What the records drew; None of a deterministic config."""
        return self.draws[0] if self.config.stochastic else None

    @functools.cached_property
    def many_keys(self) -> jax.Array:
        """Many keys, of which 2 i and 2 i + 1 differ in one bit."""
        values = max(math.prod(self.images.shape[1:]), 1)
        pairs = min(_MOST, max(_FEWEST, _VALUES // (2 * values) // _AT_ONCE * _AT_ONCE))
        return flipped_keys(pairs, self.seed)

    @functools.cached_property
    def output(self) -> tuple[Tree, Tree]:
        """The data and the states that come back, under jit."""
        return jax.tree.map(
            np.asarray,
            self.transform.apply_each(self.config, self.data, self.states, self.params),
        )

    @property
    def result(self) -> np.ndarray:
        """The images that come back."""
        return np.asarray(get_field(self.output[0], self.target))

    def uncompiled_result(self, at: int) -> np.ndarray:
        """Returns one image that comes back if each primitive runs on its own."""
        parts = (row(tree, at) for tree in (self.data, self.states, self.params))
        with jax.disable_jit():
            data, _ = self.transform.apply_one(self.config, *parts)
        return np.asarray(get_field(data, self.target))

    @property
    def fill_reads(self) -> str:
        """Which part of the image the fill is computed from."""
        fills = getattr(self.config, "fills", (None,))
        computed = isinstance(fills[0], Mean | Noise)
        return self.transform.fill_reads or ("statistics" if computed else "nothing")

    def kept_values(self) -> tuple[np.ndarray, bool]:
        """Returns what the images become where they are kept, and whether that is exact.

        Kept values stay, unless `kept_value` says otherwise, or the config: they are divided by the
        expected kept fraction (`rescale`) and clipped (`clip_range`). Records that
        `apply_probability` leaves alone stay as they are.
        """
        config, images, params = self.config, np.asarray(self.images), self.params
        if self.transform.kept_value is not None:
            kept_value = functools.partial(self.transform.kept_value, config)
            each = [kept_value(images[at], row(params, at)) for at in range(self.size)]
            return np.stack([np.asarray(value, images.dtype) for value in each]), False
        values, rescale = images, bool(getattr(config, "rescale", False))
        if rescale:
            wide = images.astype(np.result_type(images.dtype, np.float32))
            fractions = [self._kept_fraction(row(params, at)) for at in range(self.size)]
            with np.errstate(over="ignore", invalid="ignore"):
                values = wide / np.reshape(fractions, (-1, *[1] * (images.ndim - 1)))
                values = values.astype(images.dtype)
        clip = getattr(config, "clip_range", None)
        if clip is not None:
            values = _clipped(values, *clip)
        if isinstance(params, dict) and "applied" in params:
            applied = np.asarray(params["applied"]).reshape(-1, *[1] * (images.ndim - 1))
            values = np.where(applied, values, images)
        if self.where is not None:
            values = np.where(self.where, values, images)
        return values, not rescale

    def _kept_fraction(self, params: Tree) -> np.ndarray:
        """Returns what `rescale` divides one record by."""
        config = self.config
        rate = params.get("rate") if isinstance(params, dict) else None
        rate = getattr(config, self.transform.rate_field) if rate is None else rate
        dropped = rate
        if isinstance(config, DropoutOperatorConfig):
            shape = Layout.of(tuple(self.images.shape[1:]), config.channel_axis).channel_last_shape
            dropped = expected_fraction(config.mode_object, shape, rate)
        kept = np.float32(1) - np.asarray(dropped, np.float32)
        return np.where(kept > 0, kept, np.float32(1))

    @functools.cached_property
    def masks(self) -> Any:
        """The keep masks, bool, of the images' shape; None if nothing says what is kept."""
        if not self.config.stochastic or self.draws[1] is None:
            return None
        masks = np.broadcast_to(self.draws[1], self.images.shape)
        return masks if self.where is None else masks | ~self.where

    @functools.cached_property
    def where(self) -> Any:
        """Where values may drop, bool, with the images' axes; None for everywhere."""
        config = self.config
        if not isinstance(config, DropoutOperatorConfig) or config.where_key is None:
            return None
        layout = Layout.of(tuple(self.images.shape[1:]), config.channel_axis)
        field = jnp.asarray(get_field(self.data, config.where_key))
        return np.asarray(jax.vmap(lambda where: layout.fit_where(where, "where"))(field))

    @functools.cached_property
    def tally(self) -> Tally:
        """Statistics of what many records draw, each in a batch of its own."""
        one = _shapes(self.data, 1)
        params, masks = self.transform.draw_alone(self.config, self.many_keys, one)
        params = jax.tree.map(words_of, params)
        # A copy: the draws themselves, which may be large, are not kept.
        alone = jax.tree.map(lambda leaf: leaf[:MANY].copy(), params)
        leaves = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(params)]
        differ = np.any([(leaf[::2] != leaf[1::2]).any(axis=1) for leaf in leaves], axis=0)
        if masks is None:
            return Tally(alone, differ, None, {}, (), ())
        masks = np.asarray(masks)
        fractions = 1 - masks.reshape(len(masks), -1).mean(axis=1)
        shape = masks.shape[1:]
        varies = tuple(bool((masks != np.roll(masks, 1, 1 + at)).any()) for at in range(len(shape)))
        # Of two independent records, E[(x - x')(y - y')] / 2 is the covariance of x and y.
        apart = masks[::2].astype(np.int8) - masks[1::2].astype(np.int8)
        covariances = {}
        for axis in independent_axes(self.config, self.images.shape[1:]):
            for step in range(1, min(shape[axis] // 2, _STEPS) + 1):
                products = apart * np.roll(apart, step, 1 + axis)
                covariances[axis, step] = products.reshape(len(apart), -1).mean(axis=1) / 2
        return Tally(alone, differ, fractions, covariances, shape, varies)

    def expected_fraction(self) -> float | None:
        """Returns the fraction that should be dropped, or None if nothing says so."""
        shape = tuple(self.images.shape[1:])
        if self.transform.expected_fraction is not None:
            return float(self.transform.expected_fraction(self.config, shape))
        if isinstance(self.config, DropoutOperatorConfig):
            return float(expected_dropped_fraction(self.config, shape))
        rate = getattr(self.config, self.transform.rate_field, None)
        return None if rate is None else float(np.clip(np.mean(np.asarray(rate)), 0, 1))


def row(tree: Tree, at: int) -> Tree:
    """Returns one record of stacked ones."""
    return jax.tree.map(lambda leaf: leaf[at], tree)


def _shapes(data: Tree, count: int) -> Tree:
    """Returns arrays of the shapes of `count` records: what a draw sees has no dtypes."""
    return jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape[1:]), np.bool_), data)


def channel_axis_of(config: OperatorConfig, shape: tuple[int, ...]) -> int | None:
    """Returns the axis of an image's channels: the last of three or more, or as the config says."""
    if isinstance(config, DropoutOperatorConfig):
        return Layout.of(shape, config.channel_axis).channel_axis
    return len(shape) - 1 if len(shape) > 2 else None


def independent_axes(config: OperatorConfig, shape: tuple[int, ...]) -> Iterable[int]:
    """Returns the axes along which a mask of the image's size drops each value on its own."""
    if isinstance(config, DropoutOperatorConfig) and isinstance(config.mode_object, Pixel):
        return range(len(shape))
    axis = channel_axis_of(config, shape)
    return () if axis is None else (axis,)


def flipped_keys(pairs: int, seed: int) -> jax.Array:
    """Returns pairs of keys that differ in one bit: those of pair i in bit i % 64."""
    words = np.random.default_rng(seed).integers(0, 2**32, (pairs, 2), np.uint32)
    at = np.arange(pairs)
    flipped = words.copy()
    flipped[at, at % 64 // 32] ^= np.uint32(1) << (at % 32).astype(np.uint32)
    both = np.stack([words, flipped], axis=1).reshape(-1, 2)
    return jax.random.wrap_key_data(jnp.asarray(both), impl="threefry2x32")


def wide_values(
    shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, finite: bool
) -> np.ndarray:
    """Returns values from all of a dtype's range, drawn from a seed.

    Integers are uniform over the dtype, so that those of 32 bits are not exact in float32. Floats
    are of both signs and many magnitudes, with full mantissas; unless `finite`, one in four is
    NaN, infinite, -0.0 or nearly the largest number.
    """
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, info.dtype, endpoint=True)
    values = np.asarray(rng.normal(size=shape) * 2.0 ** rng.integers(-6, 11, shape))
    if not finite:
        largest = float(jnp.finfo(dtype).max) / 4
        odd = rng.choice([np.nan, np.inf, -np.inf, -0.0, largest, -largest], shape)
        values = np.where(rng.random(shape) < 0.25, odd, values)
    return values.astype(dtype)


def _clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clips as on the real numbers; values within the range and NaN stay bit for bit."""
    dtype = values.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        info: Any = None if dtype == np.bool_ else jnp.iinfo(dtype)
        least, most = (0, 1) if info is None else (int(info.min), int(info.max))
        low = least if low <= least else math.ceil(low)
        high = most if high >= most else math.floor(high)
    with np.errstate(over="ignore"):
        low_value, high_value = np.asarray(low).astype(dtype), np.asarray(high).astype(dtype)
    with np.errstate(invalid="ignore"):
        clipped = np.where(values < low_value, low_value, values)
        return np.where(clipped > high_value, high_value, clipped)


def words_of(leaf: Any) -> np.ndarray:
    """Returns an array, or the words of an array of keys, as NumPy's."""
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)
