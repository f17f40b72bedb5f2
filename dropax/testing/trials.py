"""Two functions under test, and one example to run them on.

Given the two functions of a transform, a `Transform` runs them as `dropax.batched` and users do:
eagerly, under jit, on one record or many. A `Trial` is such a transform with a config, a batch and
a key, and says what came out and which values were kept.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.functional import fit_mask
from dropax.kit.batch import Batch
from dropax.kit.batching import ApplyBatch, batched
from dropax.kit.config import OperatorConfig
from dropax.kit.fields import get_field, set_field
from dropax.kit.keys import record_keys
from dropax.kit.state import OperatorState, new_state
from dropax.layout import Layout, broadcast_rank
from dropax.measures import expected_dropped_fraction

Tree = Any
_VALUES, _FEWEST, _MOST = 2**22, 2**8, 2**15  # values and pairs of records, for statistics


class Tally(NamedTuple):
    """What many records drew, in pairs.

    Attributes:
      differ: whether the two records of a pair drew anything different, bool (pairs,).
      fractions: dropped fraction of each record, float32 (2 pairs,); None where nothing drops.
      covariances: half the product of two channels' differences within a pair of records, on
        average over positions, float32 (pairs, pairs of channels): its expectation is their
        covariance. None where there are not two channels that drop on their own.
    """

    differ: np.ndarray
    fractions: np.ndarray | None
    covariances: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Transform:
    """The functions under test, and how to read what they do.

    Attributes:
      draw: `generate_random_params(config, keys, data_shapes)`.
      apply: `apply(config, data, state, metadata, random_params, stats)`.
      keep_mask: `(config, random_params) -> mask` of one record, or None for the entry "keep_mask"
        where there is one.
      expected_fraction: `(config, element_shape) -> fraction`, or None for what the config says.
      field: the field that is worked on, or None for the config's `field_key` or the only one.
      rate_field: the config's field that is the rate.
      stats: what `apply` gets as stats.
    """

    draw: Callable[..., Any]
    apply: Callable[..., Any]
    keep_mask: Callable[[Any, Any], Any] | None = None
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None
    field: str | None = None
    rate_field: str = "dropout_rate"
    stats: dict[str, Any] | None = None
    traces: list[str] = dataclasses.field(default_factory=list)
    """Grows with each trace of `run_batch`."""

    def draw_each(self, config: OperatorConfig, keys: jax.Array, data: Tree) -> Tree:
        """Draws for records of the data's shapes, under jit."""
        return self._draw(config, keys, _without_dtypes(data))

    @functools.cached_property
    def _draw(self) -> Callable[..., Any]:
        return jax.jit(self.draw_eagerly)

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

    def tally(self, config: OperatorConfig, keys: jax.Array, data: Tree) -> Any:
        """Returns a `Tally` of many pairs of keys, shape (pairs, 2), for records like the first."""
        return self._tally(config, keys, _without_dtypes(jax.tree.map(lambda x: x[:1], data)))

    @functools.cached_property
    def _tally(self) -> Callable[..., Any]:
        return jax.jit(self._tally_eagerly)

    def _tally_eagerly(self, config: OperatorConfig, keys: jax.Array, data: Tree) -> Any:
        shape = get_field(data, self.field_of(config, data)).shape[1:]

        def one(key: jax.Array) -> Any:
            return row(self.draw_eagerly(config, key[None], data), 0)

        def pair(keys: jax.Array) -> Any:
            both = jax.vmap(one)(keys)
            leaves = [_words(leaf) for leaf in jax.tree.leaves(both)]
            differ = jnp.stack([jnp.any(leaf[0] != leaf[1]) for leaf in leaves] or [False]).any()
            masks = [self.mask_of(config, row(both, at), shape) for at in range(2)]
            if masks[0] is None:
                return differ, None, None
            fractions = jnp.stack([1 - mask.mean(dtype=jnp.float32) for mask in masks])
            axis = channel_axis_of(config, shape)
            if axis is None or masks[0].shape[axis] < 2:
                return differ, fractions, None
            apart = masks[0].astype(jnp.int8) - masks[1].astype(jnp.int8)
            apart = jnp.moveaxis(apart, axis, -1)
            count = apart.shape[-1] if apart.shape[-1] > 2 else 1
            products = apart[..., :count] * jnp.roll(apart, -1, axis=-1)[..., :count]
            covariances = products.reshape(-1, count).mean(axis=0, dtype=jnp.float32) / 2
            return differ, fractions, covariances

        return jax.lax.map(pair, keys, batch_size=min(len(keys), 256))

    def mask_of(self, config: OperatorConfig, params: Tree, shape: tuple[int, ...]) -> Any:
        """Returns one record's mask with the image's axes, or None where there is none."""
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
                "check_transform.field must be given where the config has no field_key and the "
                f"batch several fields; got None. Pass one of {', '.join(map(repr, data))}."
            )
        return str(field)


@dataclasses.dataclass(frozen=True, eq=False)
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
            changes["apply_probability"] = 1.0
        return self.with_config(**changes)

    def with_images(self, images: Any) -> "Trial":
        """Returns a trial of other images."""
        return self.replace(data=set_field(self.data, self.field, images))

    def in_float(self) -> "Trial":
        """Returns a trial whose images are floating-point and finite."""
        images = np.asarray(self.images)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            images = images.astype(np.float32)
        return self.with_images(np.where(np.isfinite(images), images, images.dtype.type(1)))

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

    @functools.cached_property
    def params(self) -> Tree:
        """What the records drew; None of a deterministic config."""
        if not self.config.stochastic:
            return None
        return self.transform.draw_each(self.config, self.keys(self.size), self.data)

    @functools.cached_property
    def result(self) -> np.ndarray:
        """What became of the images."""
        data, _ = self.transform.apply_each(self.config, self.data, self.states, self.params)
        return np.asarray(get_field(data, self.target))

    def uncompiled_result(self, at: int) -> np.ndarray:
        """Returns what becomes of one image, one primitive after the other."""
        parts = (row(tree, at) for tree in (self.data, self.states, self.params))
        with jax.disable_jit():
            data, _ = self.transform.apply_one(self.config, *parts)
        return np.asarray(get_field(data, self.target))

    @functools.cached_property
    def masks(self) -> Any:
        """The keep masks, bool, of the images' shape; None where nothing says what is kept."""
        if self.params is None:
            return None
        shape = tuple(self.images.shape[1:])
        masks = [
            self.transform.mask_of(self.config, row(self.params, at), shape)
            for at in range(self.size)
        ]
        return None if masks[0] is None else np.stack([np.broadcast_to(m, shape) for m in masks])

    @functools.cached_property
    def tally(self) -> Tally:
        """What many records draw."""
        values = math.prod(self.images.shape[1:])
        pairs = min(_MOST, max(_FEWEST, _VALUES // (2 * max(values, 1))))
        keys = self.keys(2 * pairs).reshape(pairs, 2)
        differ, fractions, covariances = self.transform.tally(self.config, keys, self.data)
        return Tally(
            np.asarray(differ),
            None if fractions is None else np.asarray(fractions).reshape(-1),
            None if covariances is None else np.asarray(covariances),
        )

    def expected_fraction(self) -> float | None:
        """Returns the fraction that should be dropped, or None where nothing says so."""
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


def _without_dtypes(data: Tree) -> Tree:
    """Returns arrays of the same shapes: a draw must not be compiled for each dtype."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.bool_), data)


def channel_axis_of(config: OperatorConfig, shape: tuple[int, ...]) -> int | None:
    """Returns the axis of an image's channels: the last of three or more, or as the config says."""
    if isinstance(config, DropoutOperatorConfig):
        return Layout.of(shape, config.channel_axis).channel_axis
    return len(shape) - 1 if len(shape) > 2 else None


def _words(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
