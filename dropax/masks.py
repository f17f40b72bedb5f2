"""Which mask an element meets.

Given a config and an element's shape, returns the mask that its region draws, on the element's own
axes; the one fixed pattern; or the mask that the user gives, checked.
"""

from typing import Any

import jax

from dropax.bits import store_mask
from dropax.checks import is_array, must, names, require_kind
from dropax.config import DropoutOperatorConfig
from dropax.layouts import Layout
from dropax.regions import Channel


def sample_mask(
    config: DropoutOperatorConfig, key: jax.Array, element_shape: tuple[int, ...]
) -> jax.Array:
    """Draws the keep mask of one record, in the shape that `apply` takes."""
    layout = layout_of(config, element_shape)
    mask = config.region.sample(key, layout.channel_last_shape, config.dropout_rate)
    return mask if isinstance(config.region, Channel) else layout.place(mask)


def fixed_mask(config: DropoutOperatorConfig, element_shape: tuple[int, ...]) -> jax.Array:
    """Draws the one pattern of a deterministic config for elements of a shape.

    Not from `key(seed)` itself: of the usual seeds, that of 0 drops the channel of every image that
    has just one, at any rate above 0.0523.
    """
    key = jax.random.fold_in(jax.random.key(config.seed, impl="threefry2x32"), 1)
    return store_mask(lambda key: sample_mask(config, key, element_shape), key)


def given_mask(random_params: Any) -> Any:
    """Returns the keep mask of random params, which must be there."""
    if random_params is None:
        raise ValueError(
            "apply.random_params must hold 'keep_mask' where the config is stochastic; got None. "
            "Draw them: generate_random_params(config, key, {field_key: (1, *image.shape)}), then "
            "pass {'keep_mask': params['keep_mask'][0]}; or call apply_batch, which draws."
        )
    require_kind("apply.random_params", random_params, dict, "a dict with 'keep_mask'")
    if "keep_mask" not in random_params:
        raise KeyError(f"apply.random_params must hold 'keep_mask'; got {names(random_params)}.")
    mask = random_params["keep_mask"]
    if not is_array(mask):
        raise TypeError(must("apply.random_params['keep_mask']", "be an array", mask))
    return mask


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
