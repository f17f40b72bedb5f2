"""What a mask does to the fields of one element.

Given a config, an element's data and a keep mask, returns new data: the image with its dropped
values replaced and clipped, and the auxiliary fields dropped by the same mask.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dropax.checks import is_array, must
from dropax.config import DropoutOperatorConfig
from dropax.fields import get_field, remove_field, set_field
from dropax.fills import clip_to_range, fill_dropped, require_in_range
from dropax.masks import fit_mask, layout_of


def require_numbers(array: Any, owner: str) -> None:
    """Refuses what is not an array of numbers or bools."""
    if not is_array(array):
        raise TypeError(must(owner, "be an array", array))
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == jnp.bool_):
        raise TypeError(must(owner, "have a numeric or bool dtype", array))


def select_fields(config: DropoutOperatorConfig, data: dict[str, Any]) -> dict[str, Any]:
    """Returns only the fields that `apply` reads, by path, each checked to be numbers or bools."""
    selected = {}
    for path in (config.field_key, *(config.auxiliary_fields or ())):
        selected[path] = get_field(data, path)
        require_numbers(selected[path], f"field {path!r}")
    return selected


def merge_fields(
    config: DropoutOperatorConfig, data: dict[str, Any], dropped: dict[str, Any]
) -> dict[str, Any]:
    """Returns data with what `drop` made of its selected fields put in place."""
    target = config.target_key or config.field_key
    data = set_field(data, target, get_field(dropped, target))
    for path in config.auxiliary_fields or ():
        if config.preserve_auxiliary:
            data = set_field(data, path, get_field(dropped, path))
        else:
            data = remove_field(data, path)
    return data


def drop(config: DropoutOperatorConfig, data: dict[str, Any], keep_mask: Any) -> dict[str, Any]:
    """Returns the selected fields of one element with a mask applied, as `apply` says."""
    image = get_field(data, config.field_key)
    layout = layout_of(config, image.shape)
    mask = fit_mask(config, keep_mask, image.shape)
    for path in (config.auxiliary_fields or ()) if config.preserve_auxiliary else ():
        field = jnp.asarray(get_field(data, path))
        field_mask = layout.follow(mask, field.shape, f"auxiliary field {path!r}")
        data = set_field(data, path, fill_dropped(field, field_mask, 0, f"field {path!r}"))
    return set_field(data, config.target_key or config.field_key, drop_values(config, image, mask))


def drop_values(config: DropoutOperatorConfig, image: Any, mask: jax.Array) -> jax.Array:
    """Returns an array with a mask that broadcasts to it applied, then clipped."""
    owner = type(config).__name__
    image = jnp.asarray(image)
    if config.validate_domain_constraints:
        require_in_range(config.fill, image.dtype, f"{owner}.fill")
    image = fill_dropped(image, mask, config.fill, f"{owner}.fill")
    if config.clip_range is not None:
        image = clip_to_range(image, config.clip_range, f"{owner}.clip_range")
    return image
