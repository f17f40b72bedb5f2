"""What random params do to the fields of one element.

Given a config, an element's data and its random params, returns new data: the image with its
dropped values replaced, rescaled and clipped, the auxiliary fields dropped by the same mask, and
the mask itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.fills import (
    clip_to_range,
    exact_fill,
    fill_dropped,
    in_dtype,
    mean_fill,
    noise_fill,
    require_in_range,
    widened,
)
from dropax.kit.errors import is_array, is_traced, must, names
from dropax.kit.fields import get_field, remove_field, set_field
from dropax.kit.trees import refuse_endless
from dropax.layout import Layout, broadcast_rank
from dropax.regions import expected_fraction
from dropax.sampling import fit_mask, layout_of


def require_numbers(array: Any, owner: str) -> None:
    """Refuses what is not an array of numbers or bools, of a dtype that JAX has."""
    if not is_array(array):
        raise TypeError(must(owner, "be an array", array))
    if isinstance(array, np.ma.MaskedArray):
        cure = "Fill what is masked: array.filled(0)."
        raise TypeError(must(owner, "not be a masked array", array, cure))
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == jnp.bool_):
        raise TypeError(must(owner, "have a numeric or bool dtype", array))
    try:
        jax.typeof(array)
    except TypeError:
        cure = "Convert it first, such as by array.astype('float32')."
        raise TypeError(must(owner, "be an array that JAX takes", array, cure)) from None


def select_fields(config: DropoutOperatorConfig, data: dict[str, Any]) -> dict[str, Any]:
    """Returns only the fields that `apply` reads, by path, each checked to be numbers or bools."""
    selected = {}
    for path in (config.field_key, *(config.auxiliary_fields or ())):
        selected[path] = get_field(data, path)
        require_numbers(selected[path], f"field {path!r}")
    return selected


def select_stats(config: DropoutOperatorConfig, stats: Any) -> dict[str, Any] | None:
    """Returns only the statistics that `apply` reads, or None where it reads none."""
    if config.fill != "stats_mean":
        return None
    if not isinstance(stats, dict) or "mean" not in stats:
        held = names(stats) if isinstance(stats, dict) else stats
        raise KeyError(
            f"apply.stats must hold 'mean' where fill is 'stats_mean'; got {held}. Pass "
            "stats={'mean': ...}, or set them: precomputed_stats, batch_stats_fn, set_statistics."
        )
    owner, mean = "apply.stats['mean']", stats["mean"]
    refuse_endless(mean, owner)
    if not (is_array(mean) or is_traced(mean)):
        try:
            mean = np.asarray(mean)
        except ValueError:
            raise TypeError(must(owner, "be a number or an array of numbers", mean)) from None
    if is_array(mean):
        require_numbers(mean, owner)
    return {"mean": mean}


def merge_fields(
    config: DropoutOperatorConfig, data: dict[str, Any], dropped: dict[str, Any]
) -> dict[str, Any]:
    """Returns data with what `drop` made of its selected fields put in place."""
    names_of_new = {
        "target_key": config.target_key or config.field_key,
        "mask_key": config.mask_key,
    }
    for name, path in names_of_new.items():
        if path is not None:
            _refuse_dict(data, path, f"{type(config).__name__}.{name}")
            data = set_field(data, path, get_field(dropped, path))
    for path in config.auxiliary_fields or ():
        if config.preserve_auxiliary:
            data = set_field(data, path, get_field(dropped, path))
        else:
            data = remove_field(data, path)
    return data


def drop(
    config: DropoutOperatorConfig,
    data: dict[str, Any],
    params: dict[str, Any],
    stats: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the selected fields of one element with random params applied, as `apply` says."""
    image = get_field(data, config.field_key)
    layout = layout_of(config, image.shape)
    mask = fit_mask(config, params["keep_mask"], image.shape)
    fields = (config.auxiliary_fields or ()) if config.preserve_auxiliary else ()
    for number, path in enumerate(fields):
        owner, fill = f"field {path!r}", config.auxiliary_fill
        field = jnp.asarray(get_field(data, path))
        field_mask = layout.follow(mask, field.shape, f"auxiliary {owner}")
        value = fill[number] if isinstance(fill, tuple) else fill
        owner = f"{type(config).__name__}.auxiliary_fill of {owner}"
        if config.validate_domain_constraints:
            require_in_range(value, field.dtype, owner)
        filled = fill_dropped(field, field_mask, exact_fill(value, field.dtype, owner))
        data = set_field(data, path, _unless_left_alone(params, filled, field))
    if config.mask_key is not None:
        shown = mask | ~jnp.asarray(params.get("applied", True), jnp.bool_)
        data = set_field(data, config.mask_key, jnp.broadcast_to(shown, image.shape))
    dropped = drop_values(config, image, {**params, "keep_mask": mask}, stats)
    return set_field(data, config.target_key or config.field_key, dropped)


def drop_values(
    config: DropoutOperatorConfig,
    image: Any,
    params: dict[str, Any],
    stats: dict[str, Any] | None = None,
) -> jax.Array:
    """Returns one image with random params applied, whose mask broadcasts to it."""
    owner, mask = type(config).__name__, params["keep_mask"]
    layout = layout_of(config, image.shape)
    before = image = jnp.asarray(image)
    fill = _fill_of(config, image, layout, params, stats)
    if config.rescale:
        rate = params.get("rate", config.dropout_rate)
        image = _rescaled(config, image, layout, rate)
    image = fill_dropped(image, mask, fill)
    if config.clip_range is not None:
        image = clip_to_range(image, config.clip_range, f"{owner}.clip_range")
    return _unless_left_alone(params, image, before)


def _refuse_dict(data: dict[str, Any], path: str, owner: str) -> None:
    """Refuses a path to a dict, as other fields would vanish with it."""
    try:
        held = get_field(data, path)
    except KeyError:
        return
    if isinstance(held, dict):
        raise ValueError(must(owner, f"not take the place of a dict with {names(held)}", path))


def _fill_of(
    config: DropoutOperatorConfig,
    image: jax.Array,
    layout: Layout,
    params: dict[str, Any],
    stats: dict[str, Any] | None,
) -> Any:
    """Returns what dropped values become, in the image's dtype and broadcasting to it."""
    fill, owner = config.fill, f"{type(config).__name__}.fill"
    if fill == "mean":
        return mean_fill(image, layout.spatial_axes)
    if fill == "noise":
        return noise_fill(params["fill_key"], image, layout.spatial_axes, owner)
    if fill == "stats_mean":
        mean = jnp.asarray((select_stats(config, stats) or {})["mean"])
        mean = layout.spread(mean, "apply.stats['mean']") if mean.ndim == 1 else mean
        mean = broadcast_rank(mean, image.shape, "apply.stats['mean']")
        return in_dtype(widened(mean), image.dtype)
    if config.validate_domain_constraints:
        require_in_range(fill, image.dtype, owner)
    value = exact_fill(fill, image.dtype, owner)
    return layout.spread(value, owner) if isinstance(fill, tuple) else value


def _rescaled(
    config: DropoutOperatorConfig, image: jax.Array, layout: Layout, rate: Any
) -> jax.Array:
    """Returns an image divided by the fraction of it that is kept in expectation."""
    if not jnp.issubdtype(image.dtype, jnp.inexact):
        owner = f"{type(config).__name__}.rescale"
        cure = "Convert the image to a floating-point dtype first."
        raise TypeError(must(owner, f"be False for dtype {image.dtype}", True, cure))
    kept = 1 - expected_fraction(config.region, layout.channel_last_shape, rate)
    # Where nothing is kept nothing is divided, and no gradient is 0 / 0.
    kept = jnp.where(kept > 0, kept, 1)
    wide = widened(image)
    return (wide / kept.astype(wide.dtype)).astype(image.dtype)


def _unless_left_alone(params: dict[str, Any], new: jax.Array, old: jax.Array) -> jax.Array:
    return fill_dropped(new, params["applied"], old) if "applied" in params else new
