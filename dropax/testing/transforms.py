"""Runs every property of a transform on examples; says which does not hold, on what, and why."""

import dataclasses
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from dropax.kit.batching import records_of
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must, require_choice, require_kind, require_number, require_whole
from dropax.kit.fields import by_path
from dropax.kit.operator import ModalityOperator
from dropax.kit.trees import summarize
from dropax.testing.drops import TOLERANCE
from dropax.testing.masks import require_probability
from dropax.testing.properties import COMMON, PROPERTIES, BrokenError, NotRunError
from dropax.testing.strategies import batches
from dropax.testing.trials import Subject, Trial

_EVERY_BATCH = "result_is_as_the_reference"  # the others are checked on one
_SHOWN = 24  # values of a batch that is shown whole
_RUNS, _BATCHES = 24, 7  # how often batches of an example are drawn, and how many are used


class PropertyError(AssertionError):
    """A transform lacks a property, whose name is the attribute `property`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.property = name

    def __str__(self) -> str:
        return str(self.args[1])


@dataclasses.dataclass(frozen=True)
class Report:
    """What was checked. Iterates over the names of the properties that held.

    Attributes:
      held: the names of the properties that held on at least one example.
      not_run: why each of the others was not run.
      warnings: what looks like a mistake in the call.

    Example:
      >>> print(Report(("calls_agree",), {"draws_matter": "nothing is drawn"}, ()))
      held: calls_agree
      not run: draws_matter (nothing is drawn)
    """

    held: tuple[str, ...]
    not_run: dict[str, str]
    warnings: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def __str__(self) -> str:
        lines = [f"held: {', '.join(self.held)}"]
        lines += [f"not run: {name} ({reason})" for name, reason in self.not_run.items()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def check_transform(
    generate_random_params: Callable[..., Any],
    apply: Callable[..., Any],
    config: Any,
    *,
    batch: Any = None,
    field: str | None = None,
    rate_field: str = "dropout_rate",
    keep_mask: Callable[[Any, Any], Any] | None = None,
    kept_value: Callable[[Any, Any, Any], Any] | None = None,
    fill: Any = None,
    fill_reads: str | None = None,
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None,
    independent: bool = False,
    reference: Callable[[Any, Any, Any], Any] | None = None,
    output_spec: Any = None,
    new_fields: Iterable[str] = (),
    channel_axis: Any = "auto",
    stats: dict[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = 3,
    seed: int = 0,
    false_alarm: float = 1e-6,
    operator: Any = None,
) -> Report:
    """Checks that two functions make a sound transform, in the sense of `dropax.batched`.

    `dropax/docs/testing.md` lists the properties. They are checked on the configs and batches that
    the strategies draw, and on nothing else; only under what is dropped other values are tried.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, as for `dropax.batched`.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)`.
      config: an `OperatorConfig`, or a Hypothesis strategy of them.
      batch: a `Batch`, a dict of arrays, or a strategy of either; None for `batches(config)`.
      field: the field that is worked on. None for the config's `field_key`, or the only one.
      rate_field: the config's field that holds the rate.
      keep_mask: `(config, random_params) -> mask` of any shape that fits the image. None for the
        entry "keep_mask"; if there is none, nothing counts as dropped.
      kept_value: `(config, image, random_params) -> image` if kept values change.
      fill: what dropped values become: a number, an array, or `(config, data, random_params) ->
        values`. None for the config's `fill`; if it has none, anything that `fill_reads` allows.
      fill_reads: what a fill is computed from: "nothing" of the image, "statistics" of a channel,
        which its order does not change, or the whole "image". None for what the config says.
      expected_fraction: `(config, element_shape) -> fraction` that drops, if it is not the rate.
      independent: whether each value of a mask, as it is drawn, drops on its own at the rate.
      reference: `(config, data, random_params) -> data`, in NumPy: what should come of a record,
        a dict of the fields that change, or the result alone.
      output_spec: the result's `jax.ShapeDtypeStruct` if it changes, or a function of the field's.
      new_fields: names of fields that are added, changed or removed and that no config names.
      channel_axis: of an element, if the config does not say: an axis, None, or "auto".
      stats: what `apply` gets. None for the config's `precomputed_stats`.
      tolerance: how far computed values may be off, in units in the last place.
      only: names of properties, all of which must run; None for all that can.
      skip: names of properties that are not checked.
      max_examples: how many configs are checked, each on batches of up to six dtypes.
      seed: of the examples. A failure says which one shows it again.
      false_alarm: the probability that a right transform fails, over the choice of the seed.
      operator: a subclass of `ModalityOperator` that the functions are the methods of.

    Returns:
      A `Report` of what held and what was not run, and why.

    Raises:
      PropertyError: if a property does not hold, or one of the functions raises.
      TypeError, ValueError: if an argument is of the wrong type or out of range, `only` names a
        property that was not run, or there is no batch to draw.

    Example:
      >>> import dropax
      >>> config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> def multiply(config, data, state, metadata, random_params=None, stats=None):
      ...     mask = random_params["keep_mask"].astype(np.float32)
      ...     return {"image": data["image"] * mask}, state, metadata
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> draw = dropax.generate_random_params
      >>> check_transform(draw, multiply, config, batch=batch)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      dropax.testing.transforms.PropertyError: result_is_as_the_reference does not hold: ...
    """
    given = {**locals(), "only": PROPERTIES if only is None else only}
    owner = "check_transform"
    for name in ("generate_random_params", "apply"):
        if not callable(given[name]):
            raise TypeError(must(f"{owner}.{name}", "be a function", given[name]))
    if fill_reads is not None:
        require_choice(f"{owner}.fill_reads", fill_reads, ("nothing", "statistics", "image"))
    require_kind(f"{owner}.independent", independent, bool, "a bool")
    require_number(f"{owner}.tolerance", tolerance)
    require_whole(f"{owner}.max_examples", max_examples, 1)
    require_whole(f"{owner}.seed", seed, 0, 2**32)
    require_probability(f"{owner}.false_alarm", false_alarm)
    for argument, known in (("new_fields", None), ("only", PROPERTIES), ("skip", PROPERTIES)):
        if isinstance(given[argument], str) or not isinstance(given[argument], Iterable):
            raise TypeError(must(f"{owner}.{argument}", "be a list of names", given[argument]))
        given[argument] = tuple(given[argument])
        for name in given[argument] if known else ():
            require_choice(f"{owner}.{argument}", name, PROPERTIES)
    names = [name for name in PROPERTIES if name in given["only"] and name not in given["skip"]]
    not_run = {name: "skipped by the caller" for name in PROPERTIES if name not in names}
    held, notes, subject = set(), set(), Subject(**given)
    # Two of the properties are statistical.
    each = false_alarm / (2 * max_examples)
    for number in range(seed, seed + max_examples):
        trials = _example(subject, config, batch, number, each)
        for name in names:
            try:
                for trial in trials if name == _EVERY_BATCH else trials[:1]:
                    _run(name, trial)
                held.add(name)
            except NotRunError as not_applicable:
                not_run[name] = str(not_applicable)
        notes |= set(_suspicions(trials[0]))
    not_run = {name: reason for name, reason in not_run.items() if name not in held}
    passed_over = [name for name in names if name in not_run]
    if only is not None and passed_over:
        reason = f"It was not run, as {not_run[passed_over[0]]}."
        constraint = "name properties that can be run on an example"
        raise ValueError(must(f"{owner}.only", constraint, passed_over, reason))
    for text in sorted(notes):
        warnings.warn(text, stacklevel=2)
    return Report(tuple(name for name in names if name in held), not_run, tuple(sorted(notes)))


def check_operator(operator: Any, config: Any, **options: Any) -> Report:
    """Checks that an operator class is a sound transform, by the properties of `check_transform`.

    An operator is made by `operator(config, rngs=0)` for each call, also while it is traced. Its
    `generate_random_params` and `apply` are checked as two functions, and its `apply_batch` against
    them: steps, ids, epochs, states, statistics, metadata.

    Args:
      operator: a subclass of `ModalityOperator`; anything else is a TypeError.
      config: a config of the type that it takes, or a Hypothesis strategy of them.
      **options: the keyword arguments of `check_transform`.

    Returns:
      A `Report`, as `check_transform`, which also says what is raised.

    Example:
      >>> from dropax import DropoutOperator, DropoutOperatorConfig
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> check_operator(DropoutOperator, config, batch=batch, only=["calls_agree"]).held
      ('calls_agree',)
    """
    if not (isinstance(operator, type) and issubclass(operator, ModalityOperator)):
        constraint = "be a subclass of dropax.ModalityOperator"
        raise TypeError(must("check_operator.operator", constraint, operator))

    def generate_random_params(config: Any, keys: jax.Array, data_shapes: Any) -> Any:
        return operator(config, rngs=0).generate_random_params(keys, data_shapes)

    def apply(config: Any, *arguments: Any) -> Any:
        return operator(config, rngs=0).apply(*arguments)

    return check_transform(generate_random_params, apply, config, operator=operator, **options)


def _draw(strategy: Any, seed: int, count: int) -> list[Any]:
    """Returns what a strategy draws from a seed; the simplest first. Of a value, the value."""
    if not isinstance(strategy, st.SearchStrategy):
        return [strategy]
    drawn: list[Any] = []
    run = hypothesis.seed(seed)(hypothesis.given(strategy)(lambda value: drawn.append(value)))
    hypothesis.settings(
        max_examples=count,
        phases=[hypothesis.Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(run)()
    return drawn


def _example(
    subject: Subject, config: Any, batch: Any, seed: int, false_alarm: float
) -> list[Trial]:
    """Returns trials of one config on a batch of each dtype drawn, the one that says most first."""
    owner, config = "check_transform.config", _draw(config, seed, 1 + min(seed, 1))[-1]
    require_kind(owner, config, OperatorConfig, "a config or a strategy of them")
    if batch is None:
        if getattr(config, "field_key", None) is None:
            cure = "The config has no field_key to make one for."
            raise ValueError(must("check_transform.batch", "be given", batch, cure))
        batch = batches(config, kinds=("Batch",))

    def as_jax_holds(leaf: Any) -> np.ndarray:  # 64 bits may become 32
        return np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype))

    def usefulness(trial: Trial) -> tuple[bool, bool, bool, float]:
        dtype, size = trial.images.dtype, abs(float(np.log(trial.images[0].size / 128)))
        is_unfit = 1 in trial.shape[:2] or trial.size > 99
        return not jnp.issubdtype(dtype, jnp.floating), dtype not in COMMON, is_unfit, size

    trials = []
    # What one run draws is much alike.
    runs = range(_RUNS if isinstance(batch, st.SearchStrategy) else 1)
    for drawn in itertools.chain(*(_draw(batch, seed + 2**32 * run, 3) for run in runs)):
        data, states = jax.tree.map(as_jax_holds, records_of(drawn) or ({}, {}))
        trials.append(Trial(subject, config, data, states, seed, false_alarm))
    trials.sort(key=usefulness)
    # Of each dtype the most useful batch, of those with NaN or infinities if there are any.
    odd = sorted(trials, key=lambda trial: np.isfinite(trial.images.astype(np.float32)).all())
    first = {trial.images.dtype: trial for trial in odd[::-1]}
    others = sorted(first.values(), key=usefulness)
    return [trials[0], *(trial for trial in others if trial is not trials[0])][:_BATCHES]


def _run(name: str, trial: Trial) -> None:
    """Runs a property on a trial; raises `PropertyError` or `NotRunError`."""
    try:
        return PROPERTIES[name](trial)
    except NotRunError:
        raise
    except BrokenError as broken:
        text, cause = f"{name} does not hold: {broken}", broken.__cause__
        _, _, look_for = (PROPERTIES[name].__doc__ or "").partition("\n\n")
        advice = f"\nLook for: {inspect.cleandoc(look_for)}"
    except Exception as error:
        text, cause, advice = f"{type(error).__name__}: {error}".partition("\n")[0], error, ""
        text += f"\n  was raised while {name} was checked."
    parts = {"data": trial.data, "states": trial.states} if trial.states else trial.data
    batch = summarize(parts)
    if sum(np.size(leaf) for leaf in jax.tree.leaves(parts)) <= _SHOWN:
        batch = f"{batch} = {jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), parts)}"
    again = f"seed={trial.seed}, max_examples=1, only=[{name!r}]"
    with np.printoptions(threshold=8, edgeitems=2):
        shown = f"  config: {trial.config!r}\n  batch: {batch}\n  run again: {again}"
    raise PropertyError(name, f"{text}\n{shown}{advice}") from cause


def _suspicions(trial: Trial) -> Iterator[str]:
    """Yields what looks like a mask or a rate and is not declared."""
    text = "{} looks like a {}, and nothing says so: {} not checked. Pass {}"
    if trial.masks is None:
        for path, leaf in by_path(trial.params):
            if leaf.dtype == np.bool_ and leaf.ndim > 1 and leaf[0].size > 1:
                how = "keep_mask=lambda config, params: ..."
                what = f"random_params[{path!r}]"
                yield text.format(what, "mask", "what it drops is", how)
    elif trial.expected_fraction() is None:
        names = {field.name for field in dataclasses.fields(trial.config)}
        for name in names & {"p", "rate", "prob", "drop_rate", "probability"}:
            what, how = f"{type(trial.config).__name__}.{name}", f"rate_field={name!r}."
            yield text.format(what, "rate", "fractions are", how)
