"""What a transform must do.

A property returns, raises `BrokenError` with what came instead, or `NotRunError` with the reason
why it says nothing of a trial. Its name says what holds; beside it stands what is often the fault.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from dropax.kit.batch import Batch
from dropax.kit.fields import get_field, set_field
from dropax.kit.keys import batch_keys
from dropax.testing.bounds import fraction_fault
from dropax.testing.drops import is_near, same_bits, show, value_fault
from dropax.testing.masks import (
    FLIPS,
    count_different,
    entries_fault,
    mask_fault,
    words_of,
)
from dropax.testing.trials import MANY, Trial, is_shared, row, varied


class BrokenError(Exception):
    """A property does not hold; says what came instead."""


class NotRunError(Exception):
    """A property says nothing of a trial; says why."""


class Property(NamedTuple):
    """A check, what to look for if it fails, and whether it is run on several batches."""

    check: Callable[[Trial], None]
    look_for: str
    every_batch: bool


PROPERTIES: dict[str, Property] = {}
"""Each property by its name, in the order in which they are checked."""


def property_of(look_for: str, *, every_batch: bool = False) -> Callable[[Any], Any]:
    """Makes a property of the function that checks it; the function's name is its name."""

    def add(check: Callable[[Trial], None]) -> Callable[[Trial], None]:
        PROPERTIES[check.__name__] = Property(check, look_for, every_batch)
        return check

    return add


def _broken(text: str) -> NoReturn:
    raise BrokenError(text)


def _not_run(reason: str) -> NoReturn:
    raise NotRunError(reason)


def require_same(one: Any, other: Any, what: str, tolerance: float | None = None) -> None:
    """Raises `BrokenError` if two trees differ; without a tolerance they must be equal by bits."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (one, other)]
    if structures[0] != structures[1]:
        _broken(f"{what} differ in structure: {structures[0]} and {structures[1]}")
    for (path, a), b in zip(tree_flatten_with_path(one)[0], jax.tree.leaves(other), strict=True):
        a, b, name = words_of(a), words_of(b), keystr(path) or "the result"
        if show(a) != show(b):
            _broken(f"{what} differ in {name}: {show(a)} and {show(b)}")
        off = ~(same_bits(a, b) if tolerance is None else is_near(a, b, tolerance))
        if off.any():
            at = tuple(int(index) for index in np.argwhere(off)[0])
            _broken(f"{what} differ in {name} at {list(at)}: {a[at]} and {b[at]}")


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of nested dicts by their dotted paths."""
    leaves = tree_flatten_with_path(tree)[0]
    return {keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _within(path: str, fields: Any) -> bool:
    return any(name and (path == name or path.startswith(f"{name}.")) for name in fields)


def _require_draw(trial: Trial) -> None:
    if not trial.config.stochastic:
        _not_run("the config is not stochastic")
    if not jax.tree.leaves(trial.params):
        _not_run("nothing is drawn")


def _require_masks(trial: Trial) -> None:
    if trial.masks is None:
        _not_run("nothing says which values are kept: there is no keep_mask")


def _writable(leaf: Any) -> Any:
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.array(leaf)


@property_of("data[...] = ... or an operation in place; build a new dict: {**data, field: new}")
def input_untouched(trial: Trial) -> None:
    """What is handed in stays as it was, in both functions, and metadata are passed on."""
    shapes = jax.tree.map(np.shape, trial.data)
    given = copy.deepcopy(shapes)
    if trial.config.stochastic:
        keys = trial.keys(trial.size)
        jax.eval_shape(lambda keys: trial.subject.draw(trial.config, keys, given), keys)
        if given != shapes:
            _broken(f"generate_random_params changed data_shapes from {shapes} to {given}")
    parts = (trial.data, trial.states, trial.params)
    data, state, params = (jax.tree.map(_writable, row(tree, 0)) for tree in parts)
    stats = trial.subject.stats_of(trial.config)
    handed = {"data": data, "state": state, "metadata": {"name": "a record"}}
    handed |= {"random_params": params, "stats": stats}
    kept = jax.tree.map(lambda leaf: leaf, handed)  # other dicts, the same arrays
    values = copy.deepcopy((data, state, params))
    _, _, metadata = trial.subject.apply(trial.config, *handed.values())
    for name, before in kept.items():
        leaves, others = (tree_flatten_with_path(tree)[0] for tree in (before, handed[name]))
        if [(path, id(leaf)) for path, leaf in leaves] != [(path, id(x)) for path, x in others]:
            _broken(f"apply put something else into the {name} that it was given")
    require_same(values, (data, state, params), "what apply was given, before and after")
    if metadata != kept["metadata"]:
        _broken(f"apply returned metadata {metadata!r} for {kept['metadata']!r}")


@property_of("something kept from call to call, the time, or random numbers of Python or NumPy")
def deterministic(trial: Trial) -> None:
    """The same arguments return the same result, whatever was called in between."""
    if trial.config.stochastic:
        one, other = (trial.draw_eagerly(trial.keys(trial.size)) for _ in range(2))
        require_same(one, other, "two draws from the same keys")
    parts = (trial.data, trial.states, trial.params)
    first, last = ([row(tree, at) for tree in parts] for at in (0, -1))
    one, _, other = (
        trial.subject.apply_one(trial.config, *given) for given in (first, last, first)
    )
    require_same(one, other, "two results of the same arguments")


@property_of(
    "arithmetic that widens, such as x * 1.0; end with .astype(image.dtype). If it is on purpose, "
    "pass output_spec or new_fields",
    every_batch=True,
)
def structure_kept(trial: Trial) -> None:
    """Each field keeps its dtype and shape, and none comes or goes, but as is declared."""
    config, subject = trial.config, trial.subject
    params = None
    if config.stochastic:
        params = jax.eval_shape(trial.draw_eagerly, trial.keys(trial.size))
        for path, spec in tree_flatten_with_path(params)[0]:
            if spec.shape[:1] != (trial.size,):
                _broken(f"random_params{keystr(path)} is {show(spec)} for {trial.size} records")
    data, state, params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
        (trial.data, trial.states, params),
    )
    out = jax.eval_shape(lambda *parts: subject.apply_one(config, *parts), data, state, params)
    before, after = by_path(data), by_path(out[0])
    gone = () if getattr(config, "preserve_auxiliary", True) else config.auxiliary_fields or ()
    spec, target = get_field(data, trial.field), trial.target
    made = subject.output_spec
    made = made(spec) if callable(made) else made or spec
    wanted = {**before, target: jax.ShapeDtypeStruct(made.shape, jnp.dtype(made.dtype))}
    for name in {*wanted, *after}:
        if _within(name, (*subject.new_fields, getattr(config, "mask_key", None))):
            continue
        if name not in after and not _within(name, gone):
            _broken(f"there is no field {name!r} in the output")
        if name not in wanted:
            _broken(f"field {name!r} is new in the output; if it should be, name it in new_fields")
        if name in after and show(after[name]) != show(wanted[name]):
            _broken(f"field {name!r} must be {show(wanted[name])}; got {show(after[name])}")
    one, two = (
        jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), tree) for tree in (state, out[1])
    )
    require_same(one, two, "the states before and after")


@property_of(
    "jnp.arange(batch_size), one key for all records, or an axis that mixes records; use "
    "jax.vmap(draw_one)(keys)"
)
def record_depends_on_its_key_alone(trial: Trial) -> None:
    """A record draws the same alone, elsewhere in a batch, and in one of more than 256 records."""
    _require_draw(trial)
    if is_shared(trial.config):
        _not_run("the records share a draw (share_mask)")
    keys, whole = trial.many_keys, jax.tree.map(words_of, trial.many[0])
    turned, _ = trial.draw(trial.config, jnp.roll(keys, 7))
    back = jax.tree.map(lambda leaf: np.roll(words_of(leaf), -7, axis=0), turned)
    require_same(whole, back, "what a record draws at two places of a batch", 4)
    some = np.unique(np.r_[0:8, 120:136, 250:266, MANY - 4 : MANY, len(keys) - 8 : len(keys)])
    draw_one = jax.jit(lambda key: row(trial.draw_eagerly(key[None]), 0))
    alone = jax.lax.map(draw_one, keys[some])
    chosen = jax.tree.map(lambda leaf: leaf[some], whole)
    require_same(chosen, alone, f"what a record draws in a batch of {len(keys)} and alone", 4)


@property_of("Python branches on values, NumPy calls on arrays, or draws that need the whole batch")
def transformations_agree(trial: Trial) -> None:
    """Eager, under jit, under vmap and scan, the result is the same."""
    trial, config, subject = trial.moderate, trial.config, trial.subject
    batch, state = Batch.unchecked(trial.data, trial.states), trial.state()
    run = jax.jit(lambda config, state: subject.apply_batch(config, state, batch)[0])
    vmap, scan = (run(config.replace(batch_strategy=name), state) for name in ("vmap", "scan"))
    results = (vmap.data, vmap.states)
    tolerance = subject.tolerance
    require_same(results, (scan.data, scan.states), "the results under vmap and scan", tolerance)
    params = None
    if config.stochastic:
        keys = batch_keys(state.next_key(), (trial.size,), "check_transform.key")
        params = row(trial.draw_eagerly(keys), 0)
    parts = (row(trial.data, 0), row(trial.states, 0), params)
    eager = subject.apply_one(config, *parts)
    require_same(eager, row(results, 0), "the results with and without jit", tolerance)


@property_of("a static field that changes from call to call (make the rate a dynamic field)")
def one_trace_serves_all(trial: Trial) -> None:
    """Another rate is no new compilation."""
    rates = [other for rate in (0.25, 0.75) if (other := trial.with_rate(rate)) is not None]
    if len(rates) < 2:
        _not_run(f"the config has no {trial.subject.rate_field!r} that can be set")
    traces = []

    @jax.jit
    def run(config: Any) -> Any:
        traces.append(config)
        return jnp.zeros(())

    for other in rates:
        run.eval_shape(other.config)
    if len(traces) > 1:
        _broken(f"{rates[1].config!r} is traced anew after {rates[0].config!r}")
    batch, state = Batch.unchecked(trial.data, trial.states), trial.state()
    jax.eval_shape(trial.subject.apply_batch, rates[0].config, state, batch)


@property_of("arrays that are stored in globals, attributes or caches; return them instead")
def no_tracer_leaks(trial: Trial) -> None:
    """Nothing of a trace is left behind when it ends."""
    batch = Batch.unchecked(trial.data, trial.states)
    try:
        with jax.checking_leaks():
            jax.eval_shape(trial.subject.apply_batch, trial.config, trial.state(), batch)
    except Exception as error:
        text = str(error).partition("\n")[0]
        if not text.startswith("Leaked trace"):
            raise
        raise BrokenError(text.rstrip(".:")) from error


@property_of("one key for two draws; jax.random.split or fold_in it first")
def keys_are_used_once(trial: Trial) -> None:
    """No key is used for two draws, by JAX's own key reuse checker."""
    _require_draw(trial)
    try:
        with jax.debug_key_reuse(True):
            params = row(trial.draw_eagerly(trial.keys(1)), 0)
            trial.subject.apply_one(trial.config, row(trial.data, 0), row(trial.states, 0), params)
    except jax.errors.KeyReuseError as error:
        text = str(error).partition("\n")[0]
        if text.startswith(("In scan", "In while")):  # taken for reuse under vmap
            _not_run(f"JAX's checker does not see through loops: {text}")
        raise BrokenError(f"JAX reports that a key is reused: {text.rstrip('.')}") from error


@property_of("a constant key, a part of the key alone, or randomness not drawn from the keys given")
def keys_matter(trial: Trial) -> None:
    """Different keys draw differently, even if they differ in one bit only."""
    _require_draw(trial)
    leaves = [words_of(leaf) for leaf in jax.tree.leaves(trial.many[0])]
    leaves = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    differ = np.any([(leaf[::2] != leaf[1::2]).any(axis=1) for leaf in leaves], axis=0)
    expected = None if trial.masks is None else trial.expected_fraction()
    if (expected is not None and not 0.01 <= expected <= 0.99) or _is_certain(trial, differ):
        _not_run("the config makes the draw all but certain")
    # If a bit mattered, its pairs would differ at least half as often as those of the bit that
    # matters most, so that all pairs of a bit are hardly ever the same.
    ways = np.arange(len(differ)) % FLIPS
    chance = max(differ[ways == way].mean() for way in range(FLIPS)) / 2
    for way in range(FLIPS):
        pairs = differ[ways == way]
        sure = not chance or (1 - chance) ** len(pairs) * FLIPS < trial.false_alarm
        if not pairs.any() and sure:
            where = f"bit {way} only" if way < 64 else f"bit {way - 64} of both words only"
            _broken(f"{len(pairs)} pairs of keys that differ in {where} gave the same draw")
    for leaf in leaves:  # continuous numbers, of which no two records have the same
        rich = leaf.dtype.kind == "f" and len(np.unique(leaf[0])) >= 12
        if rich and count_different(leaf) < len(leaf):
            _broken(f"{len(leaf)} keys drew only {count_different(leaf)} different arrays")


def _is_certain(trial: Trial, differ: Any) -> bool:
    """Says whether nothing differs, and a number of the config, such as p = 0, may be why."""
    numbers = [getattr(trial.config, field.name) for field in dataclasses.fields(trial.config)]
    sure = any(type(number) in (int, float) and number in (0, 1) for number in numbers)
    return sure and not np.any(differ)


@property_of("one key, or one draw, for two things that should be independent")
def entries_are_independent(trial: Trial) -> None:
    """No entry of the params tells another of the same record."""
    _require_draw(trial)
    fault = entries_fault(trial.many[0])
    if fault is not None:
        _broken(fault)


@property_of("params that apply does not read, or reads only in part")
def draw_matters(trial: Trial) -> None:
    """Different draws of one record lead to different results."""
    _require_draw(trial)
    params = jax.tree.map(lambda leaf: leaf[:64], trial.many[0])
    drawn = [words_of(leaf) for leaf in jax.tree.leaves(params)]
    if trial.masks is not None or not any((leaf != leaf[:1]).any() for leaf in drawn):
        _not_run("drops_where_the_mask_says says more, or all draws are the same")
    one = jax.tree.map(
        lambda leaf: np.repeat(leaf[:1], len(drawn[0]), axis=0), (trial.moderate.data, trial.states)
    )
    out = trial.subject.apply_each(trial.config, *one, params)[0]
    differ = [(words_of(leaf) != words_of(leaf)[:1]).any() for leaf in jax.tree.leaves(out)]
    if not any(differ) and not _is_certain(trial, differ):
        _broken("64 different draws of one record all gave the same result")


@property_of("an apply that writes to fields which nothing declares; name them in new_fields")
def other_fields_stay(trial: Trial) -> None:
    """Fields that no argument declares stay bit for bit."""
    config = trial.config
    named = (trial.target, getattr(config, "mask_key", None), *trial.subject.new_fields)
    named += tuple(getattr(config, "auxiliary_fields", None) or ())
    before, after = by_path(trial.data), by_path(trial.output[0])
    paths = [path for path in before if path in after and not _within(path, named)]
    if not paths:
        _not_run("every field is declared")
    for path in paths:
        require_same(before[path], after[path], f"field {path!r} before and after")


@property_of("a wrong formula, order of operations, rounding or clip", every_batch=True)
def result_is_as_the_reference(trial: Trial) -> None:
    """The result is what the caller's own `reference` computes."""
    subject = trial.subject
    if subject.reference is None:
        _not_run("no reference is given")
    for each in (trial, trial.moderate):
        out = by_path(each.output[0])
        for at in range(each.size):
            data, params = (jax.tree.map(_writable, row(x, at)) for x in (each.data, each.params))
            wanted = subject.reference(each.config, copy.deepcopy(data), params)
            wanted = wanted[0] if isinstance(wanted, tuple) else wanted
            wanted = wanted if isinstance(wanted, dict) else set_field({}, each.target, wanted)
            for path, value in by_path(wanted).items():
                if path not in out:
                    _broken(f"there is no field {path!r} in the output")
                got = np.asarray(out[path][at])
                value = np.asarray(value).astype(got.dtype)
                fault = value_fault(got, value, tolerance=subject.tolerance)
                if fault is not None:
                    _broken(f"of record {at}, in field {path!r}, {fault}")


@property_of(
    "a mask that is not the one drawn, a product instead of jnp.where, or fill, clip and rescale "
    "in the wrong order. If kept values change on purpose, pass kept_value; if the fill is "
    "computed from the image, pass fill_reads",
    every_batch=True,
)
def drops_where_the_mask_says(trial: Trial) -> None:
    """The output is `where(keep_mask, kept_value, fill)`, clipped, in every field that drops."""
    _require_masks(trial)
    moderate, dtype = trial.moderate, trial.images.dtype
    trials = [trial, moderate]
    if jnp.issubdtype(dtype, jnp.floating) and trial.fill_reads == "nothing":
        # Whatever is under what drops, NaN and infinities too, must leave no trace.
        odd = np.resize(np.array([np.nan, np.inf, -np.inf, -1.0], dtype), trial.images.shape)
        trials.append(moderate.with_images(np.where(trial.masks, moderate.images, odd)))
    for each in (*trials, *moderate.other_fills()):
        _require_dropped(each, each.output[0], slice(None))
    # XLA may turn a product with a mask into a select here and now, but promises no such thing.
    last, at = trials[-1], int(np.argmin(trial.masks.reshape(trial.size, -1).sum(axis=1)))
    parts = (row(tree, at) for tree in (last.data, last.states, last.params))
    alone = jax.tree.map(
        lambda leaf: np.asarray(leaf)[None], last.subject.apply_one(last.config, *parts)
    )
    _require_dropped(last, alone[0], slice(at, at + 1))
    _require_independent(moderate)


def _require_dropped(trial: Trial, out: Any, at: slice) -> None:
    """Compares the output of the records at some places with the reference."""
    reference = (*trial.reference(), trial.masks, trial.images)
    wanted, exact, known, masks, before = (np.asarray(part)[at] for part in reference)
    result = np.asarray(get_field(out, trial.target))
    fields: list[Any] = [(trial.target, result, wanted, exact, known, masks, before)]
    mask_key = getattr(trial.config, "mask_key", None)
    if mask_key is not None:
        require_same(masks, get_field(out, mask_key), f"the mask and field {mask_key!r}")
    if getattr(trial.config, "preserve_auxiliary", True):
        for name, masks, fill in trial.followers():
            before, after = get_field(trial.data, name), np.asarray(get_field(out, name))
            values = np.asarray(0 if fill is None else fill).astype(before.dtype)
            wanted = np.where(masks, before, values)[at]
            known = (masks | (fill is not None))[at]
            fields.append((name, after, wanted, True, known, masks[at], before[at]))
    for name, got, wanted, exact, known, masks, before in fields:
        fault = value_fault(
            got,
            wanted.astype(got.dtype) if trial.subject.output_spec else wanted,
            exact=exact,
            known=known,
            tolerance=trial.subject.tolerance,
            masks=masks,
            before=before,
        )
        if fault is not None:
            _broken(f"in field {name!r}, {fault}")


def _require_independent(trial: Trial) -> None:
    """Compares outputs of images that differ only under what is dropped, and of other draws."""
    masks, rng = trial.masks, np.random.default_rng(trial.seed + 1)
    computed = trial.fill_reads == "statistics"
    if trial.fill_reads == "image":
        return
    # The order of a channel's values changes no statistics of it.
    other = trial.turned() if computed else np.where(masks, trial.images, varied(trial.images, rng))
    changed = trial.with_images(other)
    for name, field_masks, fill in trial.followers():
        if fill is None:
            field = get_field(trial.data, name)
            field = np.where(field_masks, field, varied(field, rng))
            vars(changed)["data"] = set_field(changed.data, name, field)
    what = "of two images that differ only under what is dropped"
    one, two = by_path(trial.output[0]), by_path(changed.output[0])
    for path in {*one} - ({trial.field} - {trial.target}):
        a, b, tolerance = one[path], two[path], None
        if path == trial.target and computed and a.shape == masks.shape:
            a, b = (np.where(masks, 0, x).astype(np.float32) for x in (a, b))
            unit = float(jnp.finfo(one[path].dtype).eps) if one[path].dtype.kind not in "iub" else 1
            tolerance = 64 * unit / float(np.finfo(np.float32).eps)
        require_same(a, b, f"{what}, fields {path!r}", tolerance)
    require_same(trial.output[1], changed.output[1], f"{what}, the states")


@property_of(
    "a gradient that flows through the fill or a product with the mask, or a division by what can "
    "be 0, such as 1 - rate, even in a branch not taken"
)
def gradient_is_that_of_the_reference(trial: Trial) -> None:
    """The gradient is that of the kept value where kept, and 0 under what is dropped."""
    _require_masks(trial)
    out = np.asarray(get_field(trial.output[0], trial.target))
    for dtype in (trial.images.dtype, out.dtype):
        if not jnp.issubdtype(dtype, jnp.floating):
            _not_run(f"values of dtype {dtype} have no gradient")
    for each in (trial, trial.at_rate(0.0), trial.at_rate(1.0)):
        if each is not None:
            try:
                _require_gradient(each.moderate, np.random.default_rng(trial.seed))
            except BrokenError as broken:
                rate = getattr(each.config, trial.subject.rate_field, None)
                raise BrokenError(f"at rate {rate}, {broken}") from None


def _require_gradient(trial: Trial, rng: np.random.Generator) -> None:
    masks, dtype, images = trial.masks, trial.images.dtype, trial.images
    weights = rng.integers(1, 4, masks.shape).astype(np.float32)
    given = [images]
    if trial.fill_reads == "nothing":
        given.append(np.where(masks, images, np.asarray(np.nan, dtype)))
    for shown in given:
        data = set_field(trial.data, trial.field, shown)
        got = np.asarray(trial.gradient(weights, data)).astype(np.float64)
        for what, off in (
            ("must be finite", ~np.isfinite(got)),
            ("under a dropped value must be 0", ~masks & (got != 0)),
        ):
            if off.any() and (trial.fill_reads != "image" or what == "must be finite"):
                at = tuple(np.argwhere(off)[0].tolist())
                _broken(f"the gradient {what}; at {list(at)} it is {got[at]}")
    wanted = trial.kept_gradient(weights)
    if wanted is None or trial.fill_reads == "image":
        return
    known, clip = masks, getattr(trial.config, "clip_range", None)
    if clip is not None:
        out = np.asarray(get_field(trial.output[0], trial.target))
        known = known & (out > clip[0]) & (out < clip[1])
    tolerance = 4 * trial.subject.tolerance
    fault = value_fault(got.astype(dtype), wanted, known=known, tolerance=tolerance, masks=masks)
    if fault is not None:
        _broken(f"in the gradient, {fault}")


@property_of("a state that apply computes from the image or from the random params")
def state_is_independent(trial: Trial) -> None:
    """The state that comes back is the same for every image and every draw."""
    _require_masks(trial)
    if not jax.tree.leaves(trial.states):
        _not_run("there are no states")
    drawn = trial.replace(seed=(trial.seed + 1) % 2**32)
    vars(drawn)["draw"] = trial.draw
    for other, what in ((trial.moderate, "images"), (drawn, "keys")):
        require_same(trial.output[1], other.output[1], f"the states of other {what}")


@property_of("apply writing to field_key although target_key is set, or not at all")
def target_key_is_honored(trial: Trial) -> None:
    """The result goes to target_key, and field_key stays as it was."""
    if trial.field != getattr(trial.config, "field_key", None):
        _not_run("the config has no target_key, or its field_key is not the field")
    results = []
    for key in ("result of.check_transform", None):
        other = trial.with_config(target_key=key)
        try:
            results.append(get_field(other.output[0], other.target))
        except KeyError as error:
            raise BrokenError(f"with target_key={key!r}, {error.args[0]}") from error
        if key is not None:
            kept = get_field(other.output[0], trial.field)
            require_same(trial.images, kept, "with a target_key, the field before and after")
    what = "the results with and without a target_key"
    require_same(results[0], results[1], what, trial.subject.tolerance)


@property_of(
    "a rate that is the fraction kept, uniform <= rate, a rate kept off 0 or 1, borders, overlaps "
    "and rounding that are not counted; if less should drop, pass expected_fraction"
)
def dropped_fraction_is_the_rate(trial: Trial) -> None:
    """The rate is the dropped fraction in expectation, at every rate, and exactly at 0 and 1."""
    _require_masks(trial)
    if trial.expected_fraction() is None:
        _not_run(f"the config has no {trial.subject.rate_field!r}; there is no expected_fraction")
    rates = map(trial.at_rate, (0.0, 0.05, 0.3, 0.5, 0.8, 0.95, 1.0))
    trials = [trial, *(each for each in rates if each is not None)]
    for each in trials:
        expected = each.expected_fraction()
        expected = round(expected) if abs(expected - round(expected)) < 1e-7 else expected
        masks, free = np.asarray(each.many[1]), each.independent
        drops = ~masks.reshape(len(masks), -1)
        draws = drops.ravel() if free else drops.mean(axis=1)
        alarm = each.false_alarm / len(trials)
        fault = fraction_fault(draws, expected, alarm, variance_known=free)
        if fault is not None:
            _broken(f"at rate {getattr(each.config, each.subject.rate_field, None)}, {fault}")


@property_of(
    "one draw for several rows, columns or channels, a key used twice, an index that is off by "
    "one, or a generator of few bits"
)
def masks_are_random(trial: Trial) -> None:
    """Masks reach every border, and, if they are `independent`, are so in every respect."""
    _require_masks(trial)
    for each in (trial, trial.at_rate(0.3), trial.at_rate(0.5)):
        if each is not None:
            masks, expected = np.asarray(each.many[1]), each.expected_fraction()
            alarm, free = each.false_alarm / 3, each.independent
            fault = mask_fault(masks, expected, independent=free, false_alarm=alarm)
            if fault is not None:
                _broken(fault)


@property_of(
    "an apply_batch that keeps its state, drops metadata, ids or statistics, or does not do what "
    "generate_random_params and apply do"
)
def operator_runs_its_methods(trial: Trial) -> None:
    """`apply_batch` of the operator draws and applies as its methods do, and keeps count."""
    subject, config, trial = trial.subject, trial.config, trial.moderate
    if subject.operator is None:
        _not_run("no operator is checked; see check_operator")
    rngs = trial.seed if config.stochastic else None
    operator, stats = subject.operator(config, rngs=rngs), subject.stats_of(config)
    names = [{"name": number} for number in range(trial.size)]
    batch = Batch.from_parts(trial.data, trial.states, names)
    ids = {"record_ids": np.arange(7, 7 + trial.size, dtype=np.uint32)}
    calls: list[dict[str, Any]] = [{}, {}]
    if config.stochastic and not is_shared(config):
        calls += [{**ids, "epoch": 0}, {**ids, "epoch": 1}]
    state = operator.state
    for number, call in enumerate(calls, 1):
        wanted, state = subject.apply_batch(config, state, batch, stats, **call)
        got = operator.apply_batch(batch, stats, **call)
        what = f"in call {number}, with {[*call]}, the results of apply_batch and of the methods"
        one, two = (wanted.data, wanted.states), (got.data, got.states)
        require_same(one, two, what, subject.tolerance)
        if got.metadata_list != names:
            _broken(f"apply_batch returned metadata {got.metadata_list!r} of {names!r}")
        if int(operator.state.step) != int(state.step):
            _broken(f"after call {number} the step must be {state.step}; got {operator.state.step}")
    counts = sum(operator.get_operation_stats().values())
    if counts != len(calls) * trial.size:
        _broken(f"after {len(calls)} batches of {trial.size} records, {counts} are counted")
    plain = operator.apply_batch(trial.data, stats)
    if not isinstance(plain, dict):
        _broken(f"apply_batch of a dict returned a {type(plain).__name__}")
