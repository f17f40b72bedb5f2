"""What any transform must do, whatever it is for.

Given a trial, each property returns, or raises `BrokenError` with what came instead. A property is
a function whose name says what holds; beside it stands what to look for where it does not.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from dropax.kit.fields import set_field
from dropax.testing.trials import Trial, row

DTYPES = ("float32", "uint8", "bfloat16", "int32", "float16", "int16", "bool")


class BrokenError(Exception):
    """A property does not hold; says what came instead."""


@dataclasses.dataclass(frozen=True)
class Property:
    """A named property.

    Attributes:
      name: what holds.
      check: raises `BrokenError` where it does not.
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
    """Says whether records draw at all."""
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
      exact: whether floats must be equal bit for bit; else up to 16 units in the last place.
    """
    leaves, others = tree_flatten_with_path(one)[0], tree_flatten_with_path(other)[0]
    paths, other_paths = ([keystr(path) for path, _ in each] for each in (leaves, others))
    if paths != other_paths:
        return f"the structure: {paths} against {other_paths}"
    for path, (_, a), (_, b) in zip(paths, leaves, others, strict=True):
        a, b = (_plain(leaf) for leaf in (a, b))
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{path}: {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
        off = _differs(a, b, exact)
        if off.any():
            at = tuple(int(index) for index in np.argwhere(off)[0])
            where = f" at {list(at)}" if at else ""
            return f"{path or 'the result'}{where}: {a[at]} against {b[at]}"
    return None


def _plain(leaf: Any) -> np.ndarray:
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _differs(a: np.ndarray, b: np.ndarray, exact: bool) -> np.ndarray:
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return np.asarray(a != b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if exact:
        return np.asarray(~same)
    wide = np.result_type(a.dtype, np.float32) if a.dtype.itemsize > 2 else np.dtype(np.float32)
    with np.errstate(all="ignore"):
        a, b, unit = a.astype(wide), b.astype(wide), float(jnp.finfo(a.dtype).eps)
        finite = np.where(np.isfinite(a), np.abs(a), 0)
        near = np.abs(a - b) <= 16 * unit * np.maximum(finite, finite.max(initial=0) * 1e-3)
    return ~(same | near)


def require_same(one: Any, other: Any, what: str, *, exact: bool = True) -> None:
    """Raises `BrokenError` where two trees differ; `what` says what they are."""
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
    """The same arguments give the same result, whatever was called in between."""
    transform = trial.transform
    if trial.config.stochastic:
        key = trial.keys(trial.size)[:1]
        eager = row(transform.draw_eagerly(trial.config, key, row_batch(trial.data)), 0)
        what = "two draws from the same key, the first of them under jit,"
        require_same(row(trial.params, 0), eager, what, exact=False)
    record, state, params = (row(tree, 0) for tree in (trial.data, trial.states, trial.params))
    last = [row(tree, -1) for tree in (trial.data, trial.states, trial.params)]
    first = transform.apply_one(trial.config, record, state, params)
    transform.apply_one(trial.config, *last)
    again = transform.apply_one(trial.config, record, state, params)
    require_same(first, again, "two results of the same arguments")


def row_batch(tree: Any) -> Any:
    """Returns a batch of the first record alone."""
    return jax.tree.map(lambda leaf: leaf[:1], tree)


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
        added = [trial.target, getattr(config, "mask_key", None)]
        for path, spec in before.items():
            came = after.get(path)
            if came is not None and _show(came) != _show(spec):
                raise BrokenError(f"field {path!r} came out as {_show(came)} of {_show(spec)}")
            if came is None and not _within(path, gone):
                raise BrokenError(f"field {path!r} is gone from the output")
        for path in after:
            if path not in before and not _within(path, added):
                raise BrokenError(f"field {path!r} is new in the output")
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
    draw, config, size = trial.transform.draw_each, trial.config, trial.size
    keys, data = trial.keys(2 * size), trial.data
    whole = draw(config, keys[:size], data)
    turned = draw(config, jnp.roll(keys[:size], 1), data)
    what = "what a record draws at two places of the batch"
    require_same(whole, jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), turned), what)
    if size > 1:
        mixed = draw(config, jnp.concatenate([keys[:1], keys[size + 1 :]]), data)
        require_same(row(whole, 0), row(mixed, 0), "what a record draws beside other records")
    alone = draw(config, keys[:1], row_batch(data))
    what = "what a record draws in a batch and alone"
    require_same(row(whole, 0), row(alone, 0), what, exact=False)


def _draws(trial: Trial) -> bool:
    if not is_stochastic(trial) or not jax.tree.leaves(trial.params):
        return False
    expected = trial.expected_fraction()
    # Where next to nothing drops, or all, masks are rightly the same.
    return trial.masks is None or expected is None or 0.01 <= expected <= 0.99


@property_of("a constant key, or randomness that is not drawn from the keys given", _draws)
def keys_matter(trial: Trial) -> None:
    """Different keys give different draws."""
    if not trial.tally.differ.any():
        raise BrokenError(f"{2 * len(trial.tally.differ)} different keys all gave the same draw")


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
    with jax.checking_leaks():
        jax.eval_shape(apply_batch, trial.config, trial.state(), trial.batch)


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
