"""What a transform must do.

Given a trial, each property returns, or raises `BrokenError` with what came instead. A property is
a function whose name says what holds; beside it stands what to look for if it does not. `GENERAL`
holds for any transform. `DROPPING` holds for transforms that drop values, and needs to know which
values were kept: from the entry "keep_mask" of the random params, or from the caller.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from dropax.config import DropoutOperatorConfig
from dropax.kit.fields import get_field, set_field
from dropax.modes import Channel
from dropax.testing.bounds import assert_mean, mean_bound
from dropax.testing.strategies import DTYPES
from dropax.testing.trials import MANY, Trial, channel_axis_of, row, words_of

_VALUE_DTYPES = ("float32", "int32", "uint8", "bfloat16")  # that values are checked in


class BrokenError(Exception):
    """A property does not hold; says what came instead."""


@dataclasses.dataclass(frozen=True)
class Property:
    """A named property.

    Attributes:
      name: what holds.
      check: raises `BrokenError` if it does not.
      look_for: what is often the fault.
      applies: whether a trial can have it at all.
    """

    name: str
    check: Callable[[Trial], None]
    look_for: str
    applies: Callable[[Trial], bool]


def always(trial: Trial) -> bool:
    """Says that a property makes sense for every trial."""
    del trial
    return True


def is_stochastic(trial: Trial) -> bool:
    """Says whether records draw anything."""
    return bool(trial.config.stochastic)


def property_of(
    look_for: str, applies: Callable[[Trial], bool] = always
) -> Callable[[Callable[[Trial], None]], Property]:
    """Makes a property of the function that checks it; the function's name is its name."""

    def make(check: Callable[[Trial], None]) -> Property:
        return Property(check.__name__, check, look_for, applies)

    return make


def difference(one: Any, other: Any, *, exact: bool) -> str | None:
    """Says where two trees differ, or None.

    Args:
      one: a tree of arrays, keys among them.
      other: another.
      exact: whether floats must be equal bit for bit; else up to 16 units in the last place. Any
        NaN is equal to any other.
    """
    leaves, others = tree_flatten_with_path(one)[0], tree_flatten_with_path(other)[0]
    paths, other_paths = ([keystr(path) for path, _ in each] for each in (leaves, others))
    if paths != other_paths:
        return f"the structure: {paths} against {other_paths}"
    for path, (_, a), (_, b) in zip(paths, leaves, others, strict=True):
        a, b = (words_of(leaf) for leaf in (a, b))
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{path}: {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
        off = ~(_same_bits(a, b) if exact else _near(a, b))
        if off.any():
            at = first_of(off)
            where = f" at {list(at)}" if at else ""
            return f"{path or 'the result'}{where}: {a[at]} against {b[at]}"
    return None


def first_of(bools: np.ndarray) -> tuple[int, ...]:
    """Returns the index of the first True."""
    return tuple(int(index) for index in np.argwhere(bools)[0])


def _same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Says where values are equal bit for bit, 0.0 and -0.0 apart, or both NaN."""
    same = np.asarray(a == b)
    if jnp.issubdtype(a.dtype, jnp.floating):
        same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return same


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return np.asarray(a == b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    wide = np.result_type(a.dtype, np.float32) if a.dtype.itemsize > 2 else np.dtype(np.float32)
    with np.errstate(all="ignore"):
        a, b, unit = a.astype(wide), b.astype(wide), float(jnp.finfo(a.dtype).eps)
        finite = np.where(np.isfinite(a), np.abs(a), 0)
        near = np.abs(a - b) <= 16 * unit * np.maximum(finite, finite.max(initial=0) * 1e-3)
    return np.asarray(same | near)


def require_same(one: Any, other: Any, what: str, *, exact: bool = True) -> None:
    """Raises `BrokenError` if two trees differ; `what` says what they are."""
    text = difference(one, other, exact=exact)
    if text is not None:
        raise BrokenError(f"{what} differ in {text}")


@property_of("data[...] = ... or an operation in place; build a new dict: {**data, field: new}")
def input_untouched(trial: Trial) -> None:
    """What is handed in stays as it was, in both functions."""
    transform = trial.transform
    shapes = jax.tree.map(np.shape, trial.data)
    given = copy.deepcopy(shapes)
    if trial.config.stochastic:
        keys = trial.keys(trial.size)
        jax.eval_shape(lambda keys: transform.draw(trial.config, keys, given), keys)
        if given != shapes:
            raise BrokenError(f"generate_random_params made {given} of data_shapes {shapes}")
    handed = {
        "data": jax.tree.map(lambda leaf: np.array(leaf[0]), trial.data),
        "state": jax.tree.map(lambda leaf: np.array(leaf[0]), trial.states),
        "metadata": {"name": "a record"},
        "random_params": row(trial.params, 0),
        "stats": transform.stats_of(trial.config),
    }
    kept = jax.tree.map(lambda leaf: leaf, handed)  # other dicts, the same arrays
    values = copy.deepcopy({name: handed[name] for name in ("data", "state")})
    transform.apply(trial.config, *handed.values())
    for name, before in kept.items():
        leaves, others = (tree_flatten_with_path(tree)[0] for tree in (before, handed[name]))
        if [(path, id(leaf)) for path, leaf in leaves] != [(path, id(x)) for path, x in others]:
            raise BrokenError(f"apply put something else into the {name} that it was given")
    for name, before in values.items():
        require_same(before, handed[name], f"apply changed the {name} it was given: they")


@property_of("something kept from call to call, such as a global, a default argument or np.random")
def deterministic(trial: Trial) -> None:
    """The same arguments return the same result, whatever was called in between."""
    transform = trial.transform
    if trial.config.stochastic:
        keys = trial.keys(trial.size)
        one, other = (transform.draw_eagerly(trial.config, keys, trial.data) for _ in range(2))
        require_same(one, other, "two draws from the same keys")
    record, state, params = (row(tree, 0) for tree in (trial.data, trial.states, trial.params))
    last = [row(tree, -1) for tree in (trial.data, trial.states, trial.params)]
    first = transform.apply_one(trial.config, record, state, params)
    transform.apply_one(trial.config, *last)
    again = transform.apply_one(trial.config, record, state, params)
    require_same(first, again, "two results of the same arguments")


@property_of("arithmetic that widens, such as x * 1.0 or x / 2; end with .astype(image.dtype)")
def dtype_and_structure_kept(trial: Trial) -> None:
    """Each field keeps its dtype and shape, and none comes or goes but as the config says."""
    config, field = trial.config, trial.field
    own = np.asarray(trial.images).dtype
    params = row(trial.params, 0)
    state = row(trial.states, 0)
    for dtype in (own, *(jnp.dtype(name) for name in DTYPES if name != own.name)):
        data = row(trial.data, 0)
        data = set_field(data, field, jax.ShapeDtypeStruct(trial.images.shape[1:], dtype))
        try:
            out, out_state = jax.eval_shape(
                lambda data: trial.transform.apply_one(config, data, state, params), _specs(data)
            )
        except (TypeError, ValueError):
            if dtype == own:
                raise
            continue  # it may refuse a dtype, but not change it
        before, after = _by_path(_specs(data)), _by_path(out)
        gone = () if getattr(config, "preserve_auxiliary", True) else config.auxiliary_fields or ()
        added = [trial.target, getattr(config, "mask_key", None), *trial.transform.new_fields]
        for path, spec in before.items():
            came = after.get(path)
            if came is not None and _show(came) != _show(spec):
                raise BrokenError(f"field {path!r} came out as {_show(came)} of {_show(spec)}")
            if came is None and not _within(path, gone):
                raise BrokenError(f"field {path!r} is gone from the output")
        for path in after:
            if path not in before and not _within(path, added):
                raise BrokenError(
                    f"field {path!r} is new in the output; if it should be, name it in new_fields"
                )
        result = after.get(trial.target)
        if result is None:
            raise BrokenError(f"there is no field {trial.target!r} in the output")
        if (result.shape, result.dtype) != (trial.images.shape[1:], dtype):
            raise BrokenError(f"the result is {_show(result)} of an image {_show(before[field])}")
        require_same(_zeros(_specs(state)), _zeros(out_state), "the states before and after")


def _specs(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def _show(spec: Any) -> str:
    return f"{spec.dtype}{list(spec.shape)}"


def _by_path(tree: Any) -> dict[str, Any]:
    return {
        keystr(path, simple=True, separator="."): leaf
        for path, leaf in tree_flatten_with_path(tree)[0]
    }


def _within(path: str, fields: Any) -> bool:
    return any(name and (path == name or path.startswith(f"{name}.")) for name in fields)


@property_of(
    "jnp.arange(batch_size), one key for all records, or an axis that mixes records; use "
    "jax.vmap(draw_one)(keys)",
    lambda trial: is_stochastic(trial) and not getattr(trial.config, "share_mask", False),
)
def record_depends_on_its_key_alone(trial: Trial) -> None:
    """A record draws the same alone, elsewhere in the batch, and beside other records."""
    keys = trial.keys(MANY)
    whole, _ = trial.draw_together(keys)
    turned, _ = trial.draw_together(jnp.roll(keys, 1))
    what = "what a record draws at two places of the batch"
    require_same(whole, jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), turned), what)
    mixed, _ = trial.draw_together(trial.many_keys[:MANY].at[0].set(keys[0]))
    require_same(row(whole, 0), row(mixed, 0), "what a record draws beside other records")
    together, _ = trial.draw_together(trial.many_keys[:MANY])
    what = f"what a record draws in a batch of {MANY} and alone"
    require_same(together, trial.tally.alone, what, exact=False)


def _draws(trial: Trial) -> bool:
    if not is_stochastic(trial) or not jax.tree.leaves(trial.params):
        return False
    expected = trial.expected_fraction()
    # If next to nothing drops, or all, masks are rightly the same.
    return trial.masks is None or expected is None or 0.01 <= expected <= 0.99


@property_of(
    "a constant key, a part of the key alone, or randomness not drawn from the keys given", _draws
)
def keys_matter(trial: Trial) -> None:
    """Different keys draw differently, even if they differ in one bit only."""
    differ = trial.tally.differ
    if not differ.any():
        raise BrokenError(f"{2 * len(differ)} different keys all gave the same draw")
    # Pair i differs in bit i % 64. If its bit mattered, a pair would differ at least half as often
    # as all pairs together do, so that all pairs of a bit, or of a word, are hardly ever the same.
    chance = differ.mean() / 2
    bits = np.arange(len(differ)) % 64
    for width, noun in ((1, "bit"), (32, "word")):
        for part in range(64 // width):
            pairs = differ[bits // width == part]
            if not pairs.any() and (1 - chance) ** len(pairs) * 64 < trial.false_alarm:
                raise BrokenError(
                    f"{len(pairs)} pairs of keys that differ in {noun} {part} only all gave the "
                    "same draw"
                )


@property_of("Python branches on values, NumPy calls on arrays, or draws that need the whole batch")
def transformations_agree(trial: Trial) -> None:
    """Eager, under jit, at once and record by record, the result is the same."""
    transform, state = trial.transform, trial.state()
    vmap, scan = (trial.config.replace(batch_strategy=name) for name in ("vmap", "scan"))
    expected, _ = transform.run_batch(vmap, state, trial.batch)
    eager = transform.batch_eagerly(trial.config, state, trial.batch)
    compiled = (expected.data, expected.states)
    require_same(compiled, eager, "the results with and without jit", exact=False)
    scanned, _ = transform.run_batch(scan, state, trial.batch)
    require_same(expected, scanned, "the results under vmap and scan", exact=False)
    many, _ = transform.apply_each(trial.config, trial.data, trial.states, trial.params)
    one, _ = transform.apply_one(
        trial.config, *(row(tree, 0) for tree in (trial.data, trial.states, trial.params))
    )
    require_same(row(many, 0), one, "apply under vmap and on one record", exact=False)


@property_of("a static field that changes from call to call (make the rate a dynamic field)")
def one_trace_serves_all(trial: Trial) -> None:
    """Another rate, key, state or batch of the same shapes is no new compilation."""
    transform, state = trial.transform, trial.state()
    calls = [(trial.config, state), *((other, state.advance()) for other in _other_rates(trial))]
    calls.append((trial.config, state.replace(key=jax.random.fold_in(state.key, 1))))
    transform.run_batch(*calls[0], trial.batch)
    traced = len(transform.traces)
    backwards = jax.tree.map(lambda leaf: leaf[::-1], trial.batch)
    for number, (config, state) in enumerate(calls[1:], 2):
        transform.run_batch(config, state, backwards)
        if len(transform.traces) != traced:
            raise BrokenError(f"call {number} of {len(calls)}, of {config!r}, was traced anew")


def _other_rates(trial: Trial) -> Iterator[Any]:
    name = trial.transform.rate_field
    rate = getattr(trial.config, name, None)
    for other in (0.25, 0.75) if rate is not None else ():
        value = jnp.asarray(other, rate.dtype) if isinstance(rate, jax.Array) else other
        yield trial.config.replace(**{name: (value, value) if isinstance(rate, tuple) else value})


@property_of("arrays that are stored in globals, attributes or caches; return them instead")
def no_tracer_leaks(trial: Trial) -> None:
    """Nothing of a trace is left behind when it ends."""
    apply_batch = trial.transform.apply_batch()
    try:
        with jax.checking_leaks():
            jax.eval_shape(apply_batch, trial.config, trial.state(), trial.batch)
    except Exception as error:
        text = str(error).partition("\n")[0]
        if not text.startswith("Leaked trace"):
            raise
        raise BrokenError(text.rstrip(".:")) from error


def _drops(trial: Trial) -> bool:
    return trial.masks is not None


def _has_rate(trial: Trial) -> bool:
    return _drops(trial) and hasattr(trial.config, trial.transform.rate_field)


def _in_dtypes(trial: Trial, check: Callable[[Trial], None]) -> None:
    """Checks a trial with varied values, in its own dtype and in others that the transform takes.

    A transform may refuse other dtypes, by an error that says so.
    """
    own = np.asarray(trial.images).dtype
    for dtype in (own, *(jnp.dtype(name) for name in _VALUE_DTYPES if name != own.name)):
        varied = trial.with_wide_images(dtype, trial.seed)
        try:
            varied.output  # noqa: B018
        except (TypeError, ValueError, OverflowError):
            if dtype == own:
                raise
            continue
        check(varied)


def _place(trial: Trial, at: tuple[int, ...]) -> str:
    kind = "a kept" if trial.masks[at] else "a dropped"
    return f"{kind} value, {list(at)}"


def _with_other_dropped_values(trial: Trial) -> Trial:
    """Returns a trial whose images differ from this one's wherever a value is dropped."""
    images = np.asarray(trial.images)
    other = np.asarray(trial.with_wide_images(images.dtype, trial.seed + 1).images)
    other = np.where(_same_bits(images, other), np.asarray(1, images.dtype), other)
    other = ~images if images.dtype == np.bool_ else other
    return trial.with_images(np.where(trial.masks, images, other))


def _require_dropped_do_not_matter(trial: Trial) -> None:
    """Compares the output with that of images that differ only under what is dropped."""
    other = _with_other_dropped_values(trial)
    computed = trial.fill_reads != "nothing"
    free = {trial.target} if computed else set()
    if trial.target != trial.field:
        free.add(trial.field)  # the input itself, which stays as it was
    what = "of two images that differ only under what is dropped"
    one, two = (_by_path(each.output[0]) for each in (trial, other))
    for path, before in one.items():
        after = two[path]
        off = ~_same_bits(before, after)
        if path in free:
            off &= trial.masks
        if off.any():
            at = first_of(off)
            where = _place(trial, at) if path == trial.target else f"{list(at)}"
            text = f"field {path!r} differs at {where}: {before[at]} against {after[at]}"
            raise BrokenError(f"{what}, {text}")
    require_same(trial.output[1], other.output[1], f"{what}, the states")
    if computed:
        if trial.fill_reads == "statistics":
            _require_order_does_not_matter(trial)
        return
    # XLA may turn a product with a mask into a select here and now, but promises no such thing.
    record = int(np.argmin(trial.masks.reshape(trial.size, -1).sum(axis=1)))
    before, after = (each.uncompiled_result(record) for each in (trial, other))
    off = ~_same_bits(before, after)
    if off.any():
        at = first_of(off)
        where = _place(trial, (record, *at))
        text = f"field {trial.target!r} differs at {where}: {before[at]} against {after[at]}"
        raise BrokenError(f"without jit, {what}, {text}")


def _require_order_does_not_matter(trial: Trial) -> None:
    """Compares the output with that of images whose dropped values changed places.

    Mean and spread of a channel do not depend on the order of its values, so neither does a fill
    that is computed from them, up to rounding. A fill that follows the value it replaces does.
    """
    finite = trial.with_wide_images(np.asarray(trial.images).dtype, trial.seed, finite=True)
    images, masks = np.array(finite.images), trial.masks
    axis = channel_axis_of(trial.config, images.shape[1:])
    channels_last = np.moveaxis(images, -1 if axis is None else axis + 1, -1)
    masks_last = np.moveaxis(masks, -1 if axis is None else axis + 1, -1)
    if axis is None:
        channels_last, masks_last = images[..., None], masks[..., None]
    moved = channels_last.copy()
    for record in range(trial.size):
        for channel in range(moved.shape[-1]):
            values, kept = channels_last[record, ..., channel], masks_last[record, ..., channel]
            moved[record, ..., channel][~kept] = values[~kept][::-1]
    moved = moved[..., 0] if axis is None else np.moveaxis(moved, -1, axis + 1)
    before, after = finite.result, finite.with_images(moved).result
    is_float = jnp.issubdtype(before.dtype, jnp.floating)
    wide = [np.asarray(each).astype(np.float64) for each in (before, after, images)]
    unit = max(float(jnp.finfo(before.dtype).eps) if is_float else 0, 2.0**-23)
    # Sums are rounded in another order; integers may be rounded to the one beside.
    bound = 64 * unit * np.abs(wide[2]).max(initial=0)
    bound += 1 if jnp.issubdtype(before.dtype, jnp.integer) else 0
    off = (np.abs(wide[0] - wide[1]) > bound) & ~masks
    if off.any():
        at = first_of(off)
        raise BrokenError(
            "of two images whose dropped values changed places within each channel, the result "
            f"differs at {_place(trial, at)}: {before[at]} against {after[at]}"
        )


@property_of(
    "a product with the mask, which keeps NaN and signs, or a fill, a field or a state computed "
    "from the whole image; select: jnp.where(mask, x, fill). If the fill is computed from the "
    "image on purpose, pass fill_reads",
    _drops,
)
def nothing_is_left_under_a_dropped_value(trial: Trial) -> None:
    """Images that differ only under what is dropped give the same output, bit for bit."""
    _in_dtypes(trial, _require_dropped_do_not_matter)


def _require_kept(trial: Trial) -> None:
    expected, exact = trial.kept_values()
    result = trial.result
    if result.shape != expected.shape or result.dtype != expected.dtype:
        raise BrokenError(f"the result is {_show(result)} of images {_show(expected)}")
    off = trial.masks & ~(_same_bits(expected, result) if exact else _near(expected, result))
    clips = getattr(trial.config, "clip_range", None) is not None
    if clips and jnp.issubdtype(result.dtype, jnp.floating):
        # XLA makes one instruction of a clip, which on CPU flushes subnormal numbers to 0.
        tiny = np.abs(expected.astype(np.float64)) < float(jnp.finfo(result.dtype).tiny)
        off &= ~(tiny & (result == 0))
    if off.any():
        at = first_of(off)
        given = np.asarray(trial.images)[at]
        wanted = "" if given == expected[at] or given != given else f", to become {expected[at]},"
        raise BrokenError(f"{given} at {_place(trial, at)}{wanted} became {result[at]}")


@property_of(
    "an apply that does not use its mask, or drops more than the mask says, or arithmetic on kept "
    "values: a scale, a clip, a conversion to float and back. If kept values change on purpose, "
    "pass kept_value",
    _drops,
)
def kept_values_stay(trial: Trial) -> None:
    """Kept values stay bit for bit, or become what the config or `kept_value` says."""
    _in_dtypes(trial, _require_kept)


def _has_other_fields(trial: Trial) -> bool:
    return _drops(trial) and bool(_other_fields(trial))


def _other_fields(trial: Trial) -> list[str]:
    """Returns the paths of fields that neither the config nor the caller names."""
    config = trial.config
    named = (
        trial.target,
        getattr(config, "mask_key", None),
        *(getattr(config, "auxiliary_fields", None) or ()),
        *trial.transform.new_fields,
    )
    return [path for path in _by_path(trial.data) if not _within(path, named)]


@property_of(
    "an apply that writes to fields which the config does not name; name them in auxiliary_fields "
    "or in new_fields",
    _has_other_fields,
)
def other_fields_stay(trial: Trial) -> None:
    """Fields that nothing names stay bit for bit."""
    before, after = (_by_path(data) for data in (trial.data, trial.output[0]))
    for path in _other_fields(trial):
        if path in after:
            require_same(before[path], after[path], f"field {path!r} before and after")


@property_of(
    "a state that apply computes from the image or from the random params; if it should, skip this",
    lambda trial: _drops(trial) and bool(trial.states),
)
def state_is_independent(trial: Trial) -> None:
    """The state that comes back is the same for every image and every draw."""
    dtype = np.asarray(trial.images).dtype
    for what, other in (
        ("for other images", trial.with_wide_images(dtype, trial.seed)),
        ("for other keys", trial.replace(seed=(trial.seed + 1) % 2**32)),
    ):
        require_same(trial.output[1], other.output[1], f"the states that come back {what}")


def _require_finite(values: np.ndarray, trial: Trial, what: str) -> None:
    if not np.isfinite(values).all():
        lost, masks = ~np.isfinite(values), trial.masks
        at = first_of(lost & ~masks if (lost & ~masks).any() else lost)
        raise BrokenError(f"{what} is {values[at]} at {_place(trial, at)}")


@property_of("a division by what can be 0, such as 1 - rate, even in a branch not taken", _drops)
def gradient_is_finite(trial: Trial) -> None:
    """Gradients are finite at every rate, also with NaN under dropped values."""
    trials = [trial]
    if _has_rate(trial):
        trials += [trial.with_rate(0.0), trial.with_rate(1.0)]
    own = np.asarray(trial.images).dtype
    dtype = own if jnp.issubdtype(own, jnp.floating) else np.float32
    for each in trials:
        clean = each.with_wide_images(dtype, each.seed, finite=True)
        images = np.asarray(clean.images)
        nan = clean.with_images(np.where(clean.masks, images, images.dtype.type(math.nan)))
        for shown in (clean, nan):
            arguments = (shown.data, shown.states, each.params)
            gradient = shown.transform.gradient(shown.config, each.target, each.field, *arguments)
            rate = getattr(each.config, each.transform.rate_field, None)
            _require_finite(np.asarray(gradient), each, f"at rate {rate}, the gradient")


@property_of(
    "apply writing to field_key although target_key is set, or not at all",
    lambda trial: hasattr(trial.config, "target_key"),
)
def target_key_is_honored(trial: Trial) -> None:
    """The result goes under target_key, and field_key stays as it was."""
    aimed = trial.with_config(target_key="result of.check_transform")
    plain = trial.with_config(target_key=None)
    before = np.asarray(trial.images)
    out, _ = trial.transform.apply_each(aimed.config, trial.data, trial.states, trial.params)
    try:
        result = get_field(out, aimed.target)
    except KeyError as error:
        raise BrokenError(f"with target_key={aimed.target!r}, {error.args[0]}") from error
    kept = np.asarray(get_field(out, trial.field))
    require_same(before, kept, "with a target_key, field_key before and after")
    require_same(plain.result, result, "the results with and without a target_key", exact=False)


@property_of("uniform <= rate, where uniform may be 0; or a rate that is kept off 0", _has_rate)
def rate_0_keeps_all(trial: Trial) -> None:
    """At rate 0 every value is kept, and stays or becomes what kept values become."""
    never = trial.with_rate(0.0)
    most = float(np.asarray(never.tally.fractions).max())
    if most > 0:
        raise BrokenError(f"a record drops {most:.4g} of its values at rate 0")
    _require_kept(never)


@property_of("uniform < rate that is kept off 1 for a division's sake", _has_rate)
def rate_1_drops_all(trial: Trial) -> None:
    """At rate 1 no value is kept, but those that the config keeps at any rate."""
    ever = trial.with_rate(1.0)
    expected = ever.expected_fraction()
    fractions = np.asarray(ever.tally.fractions)
    if expected is not None:
        off = float(np.abs(fractions - expected).max())
        if off > 1e-6:
            raise BrokenError(f"a record's dropped fraction is {off:.4g} off {expected:.6g}")
    dtype = np.asarray(trial.images).dtype
    try:
        _require_dropped_do_not_matter(ever.with_wide_images(dtype, trial.seed))
    except BrokenError as broken:
        raise BrokenError(f"at rate 1, {broken}") from None


def _has_expectation(trial: Trial) -> bool:
    return _drops(trial) and trial.expected_fraction() is not None


@property_of(
    "a rate that is the fraction kept, or borders, overlaps and rounding that are not counted",
    _has_expectation,
)
def dropped_fraction_is_the_rate(trial: Trial) -> None:
    """The rate is the dropped fraction in expectation."""
    rates = (0.1, 0.5, 0.9) if _has_rate(trial) else ()
    trials = [trial, *map(trial.with_rate, rates)]
    for each in trials:
        try:
            assert_mean(
                np.asarray(each.tally.fractions),
                each.expected_fraction(),
                "check_transform",
                false_alarm=each.false_alarm / len(trials),
            )
        except AssertionError as error:
            raise BrokenError(str(error).rstrip(".")) from error


def _has_free_axes(trial: Trial) -> bool:
    """Says whether values drop each on its own along an axis.

    A rate in common, records left alone and a least number kept all tie values together.
    """
    config = trial.config
    if not _drops(trial) or not trial.tally.covariances:
        return False
    if isinstance(getattr(config, trial.transform.rate_field, None), tuple):
        return False
    if isinstance(config, DropoutOperatorConfig):
        least = isinstance(config.mode_object, Channel) and config.mode_object.min_kept
        return not (config.apply_probability is not None or least)
    return True


@property_of(
    "one draw for several channels or pixels in a mask of full shape (give it size 1 there), or "
    "one key for each",
    _has_free_axes,
)
def values_are_uncorrelated(trial: Trial) -> None:
    """Along the axes on which a mask drops each value on its own, no drop tells of another.

    That is the axis of the channels, if the mask has all of them, and all axes in pixel mode.
    """
    covariances = trial.tally.covariances
    for (axis, step), draws in covariances.items():
        bound = mean_bound(draws, trial.false_alarm / len(covariances))
        mean = float(draws.mean())
        if abs(mean) > bound:
            raise BrokenError(
                f"drops {step} apart along axis {axis} of the element have a covariance of "
                f"{mean:.4g}; up to {bound:.3g} is allowed"
            )


def _may_repeat(trial: Trial) -> bool:
    """Says whether nothing but the mask's own shape tells along which axes it is drawn."""
    return _draws(trial) and _drops(trial) and not isinstance(trial.config, DropoutOperatorConfig)


@property_of(
    "one draw for each row or column that is repeated along the other axis; give the mask size 1 "
    "there, so that it says so",
    _may_repeat,
)
def mask_is_drawn_along_each_axis(trial: Trial) -> None:
    """A mask varies along each spatial axis that it has all of.

    Large patches may cover a short axis and not a long one. So a mask is refused if it never varies
    along one axis, but does along another that is not longer.
    """
    channels = channel_axis_of(trial.config, trial.images.shape[1:])
    sizes, varies = trial.tally.mask_shape, trial.tally.varies
    spatial = [axis for axis in range(len(sizes)) if axis != channels and sizes[axis] > 1]
    for axis in spatial:
        shorter = [other for other in spatial if varies[other] and sizes[other] <= sizes[axis]]
        if not varies[axis] and shorter:
            raise BrokenError(
                f"of {2 * len(trial.tally.differ)} masks of shape {sizes} none varies along axis "
                f"{axis}, but some do along axis {shorter[0]}"
            )


GENERAL = (
    input_untouched,
    deterministic,
    record_depends_on_its_key_alone,
    transformations_agree,
    dtype_and_structure_kept,
    no_tracer_leaks,
    keys_matter,
    one_trace_serves_all,
)

DROPPING = (
    nothing_is_left_under_a_dropped_value,
    kept_values_stay,
    other_fields_stay,
    state_is_independent,
    rate_0_keeps_all,
    rate_1_drops_all,
    gradient_is_finite,
    target_key_is_honored,
    dropped_fraction_is_the_rate,
    values_are_uncorrelated,
    mask_is_drawn_along_each_axis,
)
