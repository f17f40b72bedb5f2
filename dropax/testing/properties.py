"""What a transform must do.

A property returns, raises `BrokenError` with what came instead, or `NotRunError` with the reason
why it says nothing of a trial. Its name and the first line of its docstring say what holds, the
rest what is often the fault.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.batch import Batch
from dropax.kit.fields import by_path, get_field
from dropax.kit.state import new_state
from dropax.testing.drops import Reference, show, value_fault
from dropax.testing.masks import (
    FLIPS,
    count_different,
    draws_of,
    entries_fault,
    fraction_fault,
    mask_fault,
)
from dropax.testing.strategies import IMPLEMENTATIONS
from dropax.testing.trials import Trial, is_shared, row, varied

COMMON = (jnp.dtype("float32"), jnp.dtype("uint8"))
"""The dtypes that most images have, on which most is tried."""

_TARGET = "result of.check_transform"


class BrokenError(Exception):
    """A property does not hold; says what came instead."""


class NotRunError(Exception):
    """A property says nothing of a trial; says why."""


def _require_same(one: Any, other: Any, what: str, tolerance: float | None = None) -> None:
    """Raises `BrokenError` if two trees differ; without a tolerance they must be equal by bits."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (one, other)]
    if structures[0] != structures[1]:
        raise BrokenError(f"{what} differ in structure: {structures[0]} and {structures[1]}")
    for (path, a), b in zip(by_path(one), jax.tree.leaves(other), strict=True):
        reference = Reference(_words_of(a), exact=tolerance is None)
        if fault := value_fault(_words_of(b), reference, tolerance or 0.0):
            raise BrokenError(f"{what} differ in {path or 'the result'}: {fault}")


def _words_of(leaf: Any) -> np.ndarray:
    """Returns an array, or the words of an array of keys, as NumPy's."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _require_draw(trial: Trial) -> None:
    if not jax.tree.leaves(trial.params):
        raise NotRunError("nothing is drawn, or the config is not stochastic")


def _require_masks(trial: Trial) -> None:
    if trial.masks is None:
        raise NotRunError("nothing says which values are kept: there is no keep_mask")


def _rate(trial: Trial) -> str:
    return f"at rate {getattr(trial.config, trial.subject.rate_field, None)}"


def calls_agree(trial: Trial) -> None:
    """The same arguments return the same result, called again, under jit, vmap and scan.

    What is handed in stays as it was, and metadata are passed on. An operation in place, such as
    data[...] = ... (build a new dict: {**data, field: new}), something kept from call to call, the
    time, random numbers of Python or NumPy, Python branches on values, or NumPy calls on arrays.
    """
    trial, subject, config = trial.moderate, trial.subject, trial.config
    if config.stochastic:
        shapes = jax.tree.map(np.shape, trial.data)
        given: Any = copy.deepcopy(shapes)
        one, two = (subject.generate_random_params(config, trial.keys, given) for _ in range(2))
        _require_same(one, two, "two draws from the same keys")
        _require_same(shapes, given, "data_shapes before and after a draw")
        for path, leaf in by_path(one):
            if leaf.shape[:1] != (trial.size,):
                raise BrokenError(f"random_params[{path!r}] is {show(leaf)} for {trial.size} keys")
    results = []
    for at in (0, -1, 0):
        data, state, params = row((trial.data, trial.states, trial.params), at)
        given = [config, data, state, {"name": "a record"}, params, subject.stats_of(config)]
        before = copy.deepcopy(given)
        *result, metadata = subject.apply(*given)
        results.append(tuple(result))
        _require_same(before, given, "what apply was given, before and after")
        _require_same(before[3], metadata, "the metadata before and after")
    _require_same(results[0], results[2], "two results of the same arguments")
    what = "the results with and without jit"
    _require_same(results[0], row(trial.output, 0), what, subject.tolerance)
    batch, state = _batch_of(trial)
    run = jax.jit(lambda config, state: subject.apply_batch(config, state, batch)[0])
    outs = (run(config.replace(batch_strategy=name), state) for name in ("vmap", "scan"))
    one, two = ((out.data, out.states) for out in outs)
    _require_same(one, two, "the results under vmap and scan", subject.tolerance)


def other_fields_stay(trial: Trial) -> None:
    """Fields that no argument declares stay bit for bit; the result goes to target_key.

    An apply that writes to fields which nothing declares (name them in new_fields), to field_key
    although target_key is set, or another shape or dtype (end with .astype(image.dtype), or, if it
    is on purpose, pass output_spec).
    """
    trials, results = [trial], []
    if trial.field == getattr(trial.config, "field_key", None):
        configs = (trial.config.replace(target_key=key) for key in (_TARGET, None))
        trials += [trial.replace(config=config) for config in configs]
    for each in trials:
        _compare(each, {})
        one, two = (jax.tree.map(np.zeros_like, tree) for tree in (each.states, each.output[1]))
        _require_same(one, two, "the states before and after")
        results.append(get_field(each.output[0], each.target))
    what = "the results with and without a target_key"
    _require_same(results[:1] * len(results), results, what, trial.subject.tolerance)


def _compare(trial: Trial, references: dict[str, Reference]) -> None:
    """Compares each field of the output with its reference, or with what it was."""
    config, subject, out = trial.config, trial.subject, dict(by_path(trial.output[0]))
    spec, made = jax.ShapeDtypeStruct(trial.shape, trial.images.dtype), subject.output_spec
    made = made(spec) if callable(made) else made or spec
    anything = np.zeros((trial.size, *made.shape), made.dtype)
    wanted = {path: Reference(leaf) for path, leaf in by_path(trial.data)}
    wanted |= {trial.target: Reference(anything, known=False), **references}
    if subject.output_spec is not None:
        result = wanted[trial.target]
        wanted[trial.target] = result._replace(wanted=result.wanted.astype(made.dtype))
    followers = getattr(config, "auxiliary_fields", None) or ()
    gone = () if getattr(config, "preserve_auxiliary", True) else followers
    free = (*subject.new_fields, *gone, getattr(config, "mask_key", None))
    for path in {*wanted, *out}:
        within = any(name and f"{path}.".startswith(f"{name}.") for name in free)
        if path not in references and within:
            continue
        if path not in out:
            raise BrokenError(f"there is no field {path!r} in the output")
        if path not in wanted:
            cure = "if it should be, name it in new_fields"
            raise BrokenError(f"field {path!r} is new in the output; {cure}")
        is_known = path in references or path not in followers
        reference = wanted[path] if is_known else wanted[path]._replace(known=False)
        if fault := value_fault(out[path], reference, subject.tolerance):
            raise BrokenError(f"in field {path!r}, {fault}")


def result_is_as_the_reference(trial: Trial) -> None:
    """The result is that of `reference`, and where(keep_mask, kept_value, fill), clipped.

    A wrong formula, order of operations, rounding, fill or clip, a mask that is not the one drawn,
    or a product instead of jnp.where. If kept values change on purpose, pass kept_value; if the
    fill is computed from the image, fill_reads.
    """
    if trial.masks is None and trial.subject.reference is None:
        _compare(trial, {})
        raise NotRunError("nothing says what should come: neither a reference nor a keep_mask")
    for each in _variants(trial):
        for references in each.references():
            _compare(each, references)
        if trial.masks is not None:
            what = "the states of other images, fills and draws"
            _require_same(trial.output[1], each.output[1], what)
    if trial.masks is not None and trial.fill_reads != "image":
        _require_same_fills(trial.moderate)


def _variants(trial: Trial) -> Iterator[Trial]:
    """Yields a trial, and others of other images, fills and draws."""
    moderate, dtype, fill = trial.moderate, trial.images.dtype, getattr(trial.config, "fill", None)
    is_float = jnp.issubdtype(dtype, jnp.floating)
    yield from (trial, moderate, trial.replace(seed=trial.seed ^ 1, drawn_by=None))
    if trial.subject.fill is None and type(fill) in (int, float) and fill in (0, 1):
        with contextlib.suppress(TypeError, ValueError):  # if it takes no other
            # 0 and 1 hide that a fill is scaled.
            fill = 0.5 if is_float and type(fill) is float else 1 - fill
            other = moderate.replace(config=trial.config.replace(fill=fill))
            yield from [other] if other.output else []
    if trial.masks is not None and trial.fill_reads == "nothing":
        if is_float:  # whatever is under what drops, NaN and infinities too, must leave no trace
            odd = np.resize(np.array([np.nan, np.inf, -np.inf, -1.0], dtype), trial.images.shape)
            images = np.where(trial.masks, moderate.images, odd)
            moderate = moderate.with_field(trial.field, images)
            yield moderate
        # XLA may turn a product with a mask into a select, and x / 255 * 255 into x, here and now,
        # but promises no such thing. Compiling each operation by itself takes a second.
        if dtype in COMMON:
            yield moderate.replace(eager=True)


def _require_same_fills(trial: Trial) -> None:
    """Compares fills that are not known with those of other images, as far as `fill_reads` says."""
    rng = np.random.default_rng(trial.seed + 1)
    for path, reference in next(trial.references()).items():
        if np.all(reference.known) or reference.masks is None:
            continue
        name, tolerance = trial.field if path == trial.target else path, None
        field = varied(get_field(trial.data, name), rng)
        if path == trial.target and trial.fill_reads == "statistics":
            # No statistics of a channel depend on the order of its values.
            axes, tolerance = tuple(axis + 1 for axis in trial.layout.spatial_axes), 64.0
            field = np.flip(trial.images, axes)
        outs = (get_field(each.output[0], path) for each in (trial, trial.with_field(name, field)))
        one, two = (np.where(reference.masks, np.zeros_like(out), out) for out in outs)
        _require_same(one, two, f"the fills of two images, in field {path!r},", tolerance)


def gradient_is_that_of_the_reference(trial: Trial) -> None:
    """The gradient is that of the kept value where kept, and 0 under what is dropped.

    A gradient that flows through the fill or a product with the mask, or a division by what can be
    0, such as 1 - rate, even in a branch not taken.
    """
    _require_masks(trial)
    for dtype in (trial.images.dtype, get_field(trial.output[0], trial.target).dtype):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise NotRunError(f"values of dtype {dtype} have no gradient")
    for each in trial.at_rates(0.0, 1.0):
        if fault := _gradient_fault(each.moderate):
            raise BrokenError(f"{_rate(each)}, {fault}")


def _gradient_fault(trial: Trial) -> str | None:
    masks, images, clip = trial.masks, trial.images, getattr(trial.config, "clip_range", None)
    weights = np.random.default_rng(trial.seed).integers(1, 4, masks.shape).astype(np.float32)
    wanted = trial.wanted_gradient(weights)
    known = ~masks | (wanted is not None)
    if clip is not None:
        out = get_field(trial.output[0], trial.target)
        known &= ~masks | ((out > clip[0]) & (out < clip[1]))
    known &= trial.fill_reads != "image"
    wanted = np.zeros_like(images) if wanted is None else wanted
    reference = Reference(wanted, ~masks, known, masks, images)
    odd = np.where(masks, images, np.asarray(np.nan, images.dtype))
    for shown in (odd, images) if trial.fill_reads == "nothing" else (images,):
        given = (trial.config, trial.data, trial.states, trial.params)
        got = np.asarray(trial.subject.gradient(shown, weights, *given))
        if not np.isfinite(got).all():
            at = tuple(np.argwhere(~np.isfinite(got))[0].tolist())
            return f"the gradient must be finite; at {list(at)} it is {got[at]}"
        got = np.where(got == 0, np.zeros_like(got), got)  # -0.0 too
        if fault := value_fault(got, reference, 4 * trial.subject.tolerance):
            return f"in the gradient, {fault}"
    return None


def record_depends_on_its_key_alone(trial: Trial) -> None:
    """A record draws the same alone and anywhere in a batch of more than 256 records.

    jnp.arange(batch_size), one key for all records, or an axis that mixes records; use
    jax.vmap(draw_one)(keys).
    """
    _require_draw(trial)
    if is_shared(trial.config):
        raise NotRunError("the records share a draw (share_mask)")
    subject, config, (keys, whole, _) = trial.subject, trial.config, trial.many
    some = np.unique(np.r_[0:8, 120:136, 250:266, 296:300, len(keys) - 8 : len(keys)])
    draw_alone = jax.jit(lambda key: row(subject.draw_eagerly(config, key[None], trial.data), 0))
    alone = jax.lax.map(draw_alone, keys[some])
    chosen = jax.tree.map(lambda leaf: leaf[some], whole)
    _require_same(chosen, alone, f"what a record draws in a batch of {len(keys)} and alone", 4)


def draws_matter(trial: Trial) -> None:
    """Keys that differ in any bit draw differently, entries on their own, and the result differs.

    A constant key, a part of the key alone, randomness not drawn from the keys given, one draw for
    two things that should be independent, or params that apply does not read.
    """
    _require_draw(trial)
    many = trial.many[1]
    if fault := entries_fault(many):
        raise BrokenError(fault)
    leaves = [_words_of(leaf) for leaf in jax.tree.leaves(many)]
    leaves = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    differ = np.any([(leaf[::2] != leaf[1::2]).any(axis=1) for leaf in leaves], axis=0)
    expected = None if trial.masks is None else trial.expected_fraction()
    numbers = [getattr(trial.config, field.name) for field in dataclasses.fields(trial.config)]
    certain = any(type(number) in (int, float) and number in (0, 1) for number in numbers)
    if (expected is not None and not 0.01 <= expected <= 0.99) or (certain and not differ.any()):
        raise NotRunError("the config makes the draw all but certain")
    # If a bit mattered, its pairs would differ at least half as often as those of the bit that
    # matters most, so that all pairs of a bit are hardly ever the same.
    of_way = np.arange(len(differ)) % FLIPS
    ways = {"a bit of the first word": of_way < 32, "a bit of the second word": of_way // 32 == 1}
    for way in range(FLIPS):
        ways[f"bit {way}" if way < 64 else f"bit {way - 64} of both words"] = of_way == way
    chance = max(differ[pairs].mean() for pairs in ways.values()) / 2
    for where, pairs in ways.items():
        count = np.count_nonzero(pairs)
        sure = not chance or (1 - chance) ** count * len(ways) < trial.false_alarm
        if not differ[pairs].any() and sure:
            raise BrokenError(f"{count} pairs of keys that differ in {where} only drew the same")
    for leaf in leaves:  # continuous numbers, of which no two records have the same
        rich = leaf.dtype.kind == "f" and len(np.unique(leaf[0])) >= 12
        if rich and count_different(leaf) < len(leaf):
            different = count_different(leaf)
            raise BrokenError(f"{len(leaf)} keys drew only {different} different arrays")
    if trial.masks is None and differ.any():
        one, some = (trial.moderate.data, trial.states), range(64)
        one = jax.tree.map(lambda leaf: np.stack([leaf[0] for _ in some]), one)
        params = jax.tree.map(lambda leaf: leaf[:64], many)
        out = trial.subject.apply_compiled(trial.config, *one, params)[0]
        if not any((leaf != leaf[:1]).any() for leaf in map(_words_of, jax.tree.leaves(out))):
            raise BrokenError("64 different draws of one record all gave the same result")


def keys_are_used_once(trial: Trial) -> None:
    """No key is used for two draws, by JAX's own key reuse checker.

    One key for two draws; jax.random.split or fold_in it first.
    """
    _require_draw(trial)
    try:
        with jax.debug_key_reuse(True):
            params = trial.subject.draw_eagerly(trial.config, trial.keys[:1], trial.data)
            params = row(params, 0)
            data, state = row((trial.data, trial.states), 0)
            trial.subject.apply_one(trial.config, data, state, params)
    except jax.errors.KeyReuseError as error:
        text = str(error).partition("\n")[0]
        if text.startswith(("In scan", "In while")):  # taken for reuse under vmap
            raise NotRunError(f"JAX's checker does not see through loops: {text}") from error
        raise BrokenError(f"JAX reports that a key is reused: {text.rstrip('.')}") from error


def _batch_of(trial: Trial) -> tuple[Any, Any]:
    """Returns a batch, and an operator state whose key is of any implementation."""
    key = jax.random.key(trial.seed, impl=IMPLEMENTATIONS[trial.seed % len(IMPLEMENTATIONS)])
    state = new_state(key, trial.subject.stats_of(trial.config))
    return Batch.unchecked(trial.data, trial.states), state


def traces_leave_nothing_behind(trial: Trial) -> None:
    """Nothing of a trace outlives it, and another rate is no new one.

    Arrays that are stored in globals, attributes or caches (return them instead), or a static field
    that changes from call to call (make the rate a dynamic field).
    """
    batch, state = _batch_of(trial)
    try:
        with jax.checking_leaks():
            jax.eval_shape(trial.subject.apply_batch, trial.config, state, batch)
    except Exception as error:
        text = str(error).partition("\n")[0]
        if not text.startswith("Leaked trace"):
            raise
        raise BrokenError(text.rstrip(".:")) from error
    _, *others = (each.config for each in trial.at_rates(0.25, 0.75))
    if len({jax.tree.structure(config) for config in others}) > 1:
        raise BrokenError(f"{others[1]!r} is traced anew after {others[0]!r}")


def masks_are_random(trial: Trial) -> None:
    """The rate is the dropped fraction, at every rate; masks reach every border, at random.

    A rate that is the fraction kept, uniform <= rate, a rate kept off 0 or 1, borders, overlaps and
    rounding that are not counted (if less should drop, pass expected_fraction), one draw for
    several rows, columns or channels, a key used twice, or a generator of few bits.
    """
    _require_masks(trial)
    trials, fault = [*trial.at_rates(0.3, 0.5, 0.0, 0.05, 0.8, 0.95, 1.0)], None
    alarm, free = trial.false_alarm / len(trials), trial.subject.independent
    for number, each in enumerate(trials):
        expected, masks = each.expected_fraction(), np.asarray(each.many[2])
        if number < 3:
            fault = mask_fault(masks, expected, free, alarm)
        elif expected is not None:
            fault = fraction_fault(draws_of(~masks, free), expected, alarm)
        if fault is not None:
            raise BrokenError(f"{_rate(each)}, {fault}")


def operator_runs_its_methods(trial: Trial) -> None:
    """`apply_batch` of the operator draws and applies as its methods do, and keeps count.

    An apply_batch that keeps its state, drops metadata, ids or statistics, or does not do what
    generate_random_params and apply do.
    """
    subject, config, trial = trial.subject, trial.config, trial.moderate
    if subject.operator is None:
        raise NotRunError("no operator is checked; see check_operator")
    operator = subject.operator(config, rngs=trial.seed if config.stochastic else None)
    stats = subject.stats_of(config)
    names = [{"name": number} for number in range(trial.size)]
    batch, state = Batch.from_parts(trial.data, trial.states, names), operator.state
    calls: list[dict[str, Any]] = [{}, {}]
    if config.stochastic and not is_shared(config):
        ids = np.arange(7, 7 + trial.size, dtype=np.uint32)
        calls += [{"record_ids": ids, "epoch": epoch} for epoch in (0, 1)]
    for number, call in enumerate(calls, 1):
        wanted, state = subject.apply_batch(config, state, batch, stats, **call)
        got = operator.apply_batch(batch, stats, **call)
        what = f"in call {number}, with {[*call]}, the results of the methods and of apply_batch"
        one, two = ((each.data, each.states) for each in (wanted, got))
        _require_same(one, two, what, subject.tolerance)
        counted = sum(operator.get_operation_stats().values())
        for what, left, right in (
            ("metadata", got.metadata_list, names),
            ("a step", int(operator.state.step), int(state.step)),
            ("a count", counted, number * trial.size),
        ):
            if left != right:
                raise BrokenError(
                    f"call {number} of apply_batch left {what} of {left}, not {right}"
                )
    plain = operator.apply_batch(trial.data, stats)
    if not isinstance(plain, dict):
        raise BrokenError(f"apply_batch of a dict returned a {type(plain).__name__}")


_ALL: tuple[Callable[[Trial], None], ...] = (
    calls_agree,
    result_is_as_the_reference,
    other_fields_stay,
    record_depends_on_its_key_alone,
    traces_leave_nothing_behind,
    keys_are_used_once,
    draws_matter,
    gradient_is_that_of_the_reference,
    masks_are_random,
    operator_runs_its_methods,
)
PROPERTIES = {check.__name__: check for check in _ALL}
"""Each property by its name, in the order in which they are checked."""
