"""What is drawn for an element.

Given a config and an element's shape, returns its random params: the mask that the region draws, on
the element's own axes, and what other options draw; those of the one fixed pattern; or those that
the user gives, checked.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, sample_bernoulli, sample_words, store, whole_below
from dropax.config import DropoutOperatorConfig
from dropax.kit.errors import is_array, is_real, must, names, require_kind
from dropax.kit.keys import as_key, map_keys
from dropax.layout import Layout
from dropax.regions import Channel

# The mask draws from the record's key itself. Other draws fold these in: words that no index of a
# value in an image of common size is equal to.
_RATE, _APPLIED, _FILL = np.uint32(2**32 - 1), np.uint32(2**32 - 2), np.uint32(2**32 - 3)


# All three are one dispatch where they are called eagerly, and inside another jit nothing of their
# own.
@functools.partial(jax.jit, static_argnames="element_shape", inline=True)
def sample_params(
    config: DropoutOperatorConfig, key: jax.Array, element_shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Draws the random params of one record.

    Args:
      config: what is dropped.
      key: the record's. Consumed; do not reuse.
      element_shape: the element's own.

    Returns:
      `keep_mask`, in the shape that `apply` takes; `rate`, float32, where the config's is a range;
      `applied`, bool, where some records are left alone; `fill_key` where the fill is noise. The
      mask of a record that is left alone is True everywhere.
    """
    return _sample(config, key, element_shape, stored=config.share_mask)


@functools.partial(jax.jit, static_argnames="element_shape", inline=True)
def sample_each(
    config: DropoutOperatorConfig, keys: jax.Array, element_shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Draws the random params of records, one for each key, and stacks them."""
    return map_keys(lambda key: sample_params(config, key, element_shape), keys)


@functools.partial(jax.jit, static_argnames="element_shape", inline=True)
def fixed_params(
    config: DropoutOperatorConfig, element_shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Draws the one pattern of a deterministic config for elements of a shape.

    Not from `key(seed)` itself: of the usual seeds, that of 0 drops the channel of every image that
    has just one, at any rate above 0.0523.
    """
    key = jax.random.fold_in(jax.random.key(config.seed, impl="threefry2x32"), 1)
    return _sample(config, key, element_shape, stored=True)


def given_params(config: DropoutOperatorConfig, random_params: Any) -> dict[str, Any]:
    """Returns the random params that the user gives, of which what is needed must be there."""
    if random_params is None:
        raise ValueError(
            "apply.random_params must hold 'keep_mask' where the config is stochastic; got None. "
            "Draw them: generate_random_params(config, key, {field_key: (1, *image.shape)}), then "
            "pass {'keep_mask': params['keep_mask'][0]}; or call apply_batch, which draws."
        )
    require_kind("apply.random_params", random_params, dict, "a dict with 'keep_mask'")
    needed = {"keep_mask": ""}
    if config.rescale and isinstance(config.dropout_rate, tuple):
        needed["rate"] = " where rescale is True and dropout_rate is a range"
    if config.fill == "noise":
        needed["fill_key"] = " where fill is 'noise'"
    for name, why in needed.items():
        if name not in random_params:
            held = names(random_params)
            raise KeyError(f"apply.random_params must hold {name!r}{why}; got {held}.")
    for name in ("keep_mask", "applied", "rate"):
        value = random_params.get(name)
        if name not in random_params:
            continue
        owner = f"apply.random_params[{name!r}]"
        number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**31)
        if not ((number and name != "keep_mask") or (is_array(value) and is_real(value.dtype))):
            raise TypeError(must(owner, "be an array of numbers or bools", value))
        if name != "keep_mask" and np.shape(value) != ():
            raise ValueError(must(owner, "be a scalar", value))
    if config.fill == "noise":
        as_key(random_params["fill_key"], "apply.random_params['fill_key']")
    return random_params


def fit_mask(
    config: DropoutOperatorConfig, keep_mask: Any, element_shape: tuple[int, ...]
) -> jax.Array:
    """Returns a mask as bools with the element's axes; one axis is that of the channels."""
    layout = layout_of(config, element_shape)
    by_channel = isinstance(config.region, Channel)
    return layout.fit(keep_mask, "apply.random_params['keep_mask']", by_channel=by_channel)


def layout_of(config: DropoutOperatorConfig, element_shape: tuple[int, ...]) -> Layout:
    """Returns the axes of an element, as the config says."""
    return Layout.of(element_shape, config.channel_axis, f"{type(config).__name__}.channel_axis")


def is_active(config: DropoutOperatorConfig, params: dict[str, Any] | None) -> Any:
    """Says whether anything is dropped at all, of all records or of each.

    Args:
      config: what is dropped.
      params: random params of several records, with a leading axis, or of one; None for the fixed
        pattern.

    Returns:
      bool, of shape () or one for each record. A rate that is NaN drops all.
    """
    params = params or {}
    active = ~(jnp.asarray(params.get("rate", config.dropout_rate)) <= 0)
    return active & params["applied"] if "applied" in params else active


def _sample(
    config: DropoutOperatorConfig, key: jax.Array, element_shape: tuple[int, ...], *, stored: bool
) -> dict[str, jax.Array]:
    params: dict[str, jax.Array] = {}
    rate: Any = config.dropout_rate
    if isinstance(rate, tuple):
        rate = params["rate"] = _sample_rate(jax.random.fold_in(key, _RATE), *rate)
    if config.may_skip:
        skip = 1 - jnp.asarray(config.apply_probability, jnp.float32)
        params["applied"] = sample_bernoulli(jax.random.fold_in(key, _APPLIED), skip, ())
        # A rate of 0 keeps all, and costs nothing where the mask is used.
        rate = jnp.where(params["applied"], rate, 0.0)
    if config.fill == "noise":
        params["fill_key"] = jax.random.fold_in(key, _FILL)

    def draw(key: jax.Array) -> jax.Array:
        layout = layout_of(config, element_shape)
        mask = config.region.sample(key, layout.channel_last_shape, rate)
        return mask if isinstance(config.region, Channel) else layout.place(mask)

    params["keep_mask"] = store(draw, key) if stored else draw(key)
    return params


def _sample_rate(key: jax.Array, low: Any, high: Any) -> jax.Array:
    """Draws a rate, uniform on the multiples of 2^-23 from `low` to `high`."""
    least, most = drop_units(low), drop_units(high)
    span = jnp.maximum(most, least) - least + np.uint32(1)
    units = least + whole_below(sample_words(key, ()), span)
    return units.astype(jnp.float32) / GRID
