"""The check of a whole transform.

Given two functions, or an operator, runs every property on examples, and says which one does not
hold, on what, what to look for, and how to run it again.
"""

import dataclasses
import functools
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
from dropax.kit.operator import ModalityOperator
from dropax.kit.trees import summarize
from dropax.testing.drops import TOLERANCE
from dropax.testing.properties import PROPERTIES, BrokenError, NotRunError, by_path
from dropax.testing.strategies import batches
from dropax.testing.trials import Subject, Trial

_SHOWN = 24  # values of a batch that is shown whole
_DRAWN, _BATCHES = 8, 4  # how many batches of an example are drawn, and how many of them are used


class PropertyError(AssertionError):
    """A transform lacks a property.

    Attributes:
      property: the name of the property.

    Example:
      >>> raise PropertyError("deterministic", "It is not.")
      Traceback (most recent call last):
      dropax.testing.transforms.PropertyError: It is not.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.property = name

    def __str__(self) -> str:
        return str(self.args[1])


@dataclasses.dataclass(frozen=True)
class Report:
    """What was checked, and what was not. Iterates over the names of the properties that held.

    Attributes:
      held: the names of the properties that held on at least one example.
      not_run: why each of the others was not run.
      warnings: what looks like a mistake in the call.

    Example:
      >>> print(Report(("deterministic",), {"keys_matter": "nothing is drawn"}, ()))
      held: deterministic
      not run: keys_matter (nothing is drawn)
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

    `dropax/docs/testing.md` lists the properties. They are checked on configs and batches of the
    strategies given, and on nothing else: on the dtypes, shapes and ranges of values that these
    draw. Only under what is dropped other values are tried, NaN among them.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, as for `dropax.batched`.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)`, on
        one record.
      config: an `OperatorConfig`, or a Hypothesis strategy of them.
      batch: a `Batch`, a dict of arrays of shape (B, ...), or a strategy of either. None for what
        `batches(config)` draws, which the config must have a `field_key` for.
      field: the field that is worked on. None for the config's `field_key`, or the only one.
      rate_field: the config's field that holds the rate.
      keep_mask: `(config, random_params) -> mask`, of one record: what is kept, a mask of any shape
        that fits the image. None for the entry "keep_mask"; if there is none, nothing counts as
        dropped.
      kept_value: `(config, image, random_params) -> image`, of one record: what kept values become
        if they change on purpose, up to rounding.
      fill: what dropped values become: a number, an array that broadcasts to the images, or
        `(config, data, random_params) -> values` of one record. None for the config's `fill`; if it
        has none, anything that `fill_reads` allows.
      fill_reads: what the fill is computed from: "nothing" of the image; "statistics" of each
        channel, which do not depend on the order of its values; or the whole "image". None for what
        the config's `fill` says, or "nothing".
      expected_fraction: `(config, element_shape) -> fraction`: how much drops in expectation. None
        for `dropax.expected_dropped_fraction`, or the rate of a config of another type.
      independent: whether each value of a mask, as it is drawn, drops on its own at the rate.
      reference: `(config, data, random_params) -> data`, of one record in NumPy: what should come,
        a dict of the fields that change, or the result alone.
      output_spec: the result's shape and dtype if they change: a `jax.ShapeDtypeStruct` of one
        record, or a function from the field's to it.
      new_fields: names of fields that `apply` adds, changes or removes, beside those that the
        config names (`target_key`, `mask_key`, `auxiliary_fields`).
      channel_axis: of an element, if the config does not say: an axis, None, or "auto".
      stats: what `apply` gets. None for the config's `precomputed_stats`.
      tolerance: how far computed values may be off, in units in the last place.
      only: names of properties; None for all.
      skip: names of properties that are not checked.
      max_examples: how many configs are checked, each on up to four batches.
      seed: of the examples. A failure says which one shows it again.
      false_alarm: the probability that a right transform fails, over the choice of the seed.
      operator: a subclass of `ModalityOperator` that the functions are the methods of.

    Returns:
      A `Report` of what held and what was not run, and why.

    Raises:
      PropertyError: if a property does not hold, or one of the functions raises; it is an
        AssertionError. The message says what is wrong, names the property, shows the example, and
        says what to look for.
      TypeError: if an argument is of the wrong type.
      ValueError: if a name is that of no property, or in `only` of one that was not run, an
        argument is out of range, or there is no batch to draw.

    Example:
      >>> import dropax
      >>> config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> def multiply(config, data, state, metadata, random_params=None, stats=None):
      ...     image, mask = data["image"], random_params["keep_mask"]
      ...     return {"image": image * mask.astype(image.dtype)}, state, metadata
      >>> check_transform(
      ...     dropax.generate_random_params, multiply, config, batch=batch, max_examples=1
      ... )  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      dropax.testing.transforms.PropertyError: drops_where_the_mask_says does not hold: ...
    """
    owner = "check_transform"
    for name, value in (("generate_random_params", generate_random_params), ("apply", apply)):
        if not callable(value):
            raise TypeError(must(f"{owner}.{name}", "be a function", value))
    if fill_reads is not None:
        require_choice(f"{owner}.fill_reads", fill_reads, ("nothing", "statistics", "image"))
    require_kind(f"{owner}.independent", independent, bool, "a bool")
    require_number(f"{owner}.tolerance", tolerance)
    require_whole(f"{owner}.max_examples", max_examples, 1)
    require_whole(f"{owner}.seed", seed, 0, 2**32)
    require_kind(f"{owner}.false_alarm", false_alarm, float, "a float")
    if not 0 < false_alarm < 1:
        raise ValueError(must(f"{owner}.false_alarm", "be in (0, 1)", false_alarm))
    subject = Subject(
        _named(generate_random_params, "generate_random_params"),
        _named(apply, "apply"),
        operator=operator,
        keep_mask=keep_mask,
        kept_value=kept_value,
        expected_fraction=expected_fraction,
        fill=fill,
        fill_reads=fill_reads,
        reference=reference,
        output_spec=output_spec,
        independent=independent,
        field=field,
        rate_field=rate_field,
        channel_axis=channel_axis,
        stats=stats,
        new_fields=tuple(_names("new_fields", new_fields, None)),
        tolerance=float(tolerance),
    )
    wanted = _names("only", PROPERTIES if only is None else only, PROPERTIES)
    skipped = _names("skip", skip, PROPERTIES)
    names = [name for name in PROPERTIES if name in wanted and name not in skipped]
    if not isinstance(config, st.SearchStrategy):
        _require_config(config)
    held: set[str] = set()
    not_run = {name: "skipped by the caller" for name in PROPERTIES if name not in names}
    notes: set[str] = set()
    # Three of the properties are statistical.
    each = false_alarm / (3 * max_examples)
    for number in range(seed, seed + max_examples):
        trials = _example(subject, config, batch, number, each)
        for name in names:
            try:
                _run(name, trials, number)
                held.add(name)
            except NotRunError as not_applicable:
                not_run[name] = str(not_applicable)
        notes |= set(_suspicions(trials[0]))
    report = Report(
        tuple(name for name in names if name in held),
        {name: reason for name, reason in not_run.items() if name not in held},
        tuple(sorted(notes)),
    )
    for text in report.warnings:
        warnings.warn(text, stacklevel=2)
    passed_over = [name for name in names if name not in held]
    if only is not None and passed_over:
        reason = f"It was not run, as {report.not_run[passed_over[0]]}."
        constraint = "name properties that can be run on an example"
        raise ValueError(must(f"{owner}.only", constraint, passed_over, reason))
    return report


def check_operator(operator: Any, config: Any, **options: Any) -> Report:
    """Checks that an operator class is a sound transform, by the properties of `check_transform`.

    An operator is made for each config that is checked, also while a transformation is traced, by
    `operator(config, rngs=0)`. Its `generate_random_params` and `apply` are checked as two
    functions, and its `apply_batch` against them: steps, ids, epochs, states, statistics, metadata.

    Args:
      operator: a subclass of `ModalityOperator`.
      config: a config of the type that it takes, or a Hypothesis strategy of them.
      **options: the keyword arguments of `check_transform`.

    Returns:
      A `Report`, as `check_transform`.

    Raises:
      PropertyError: as `check_transform`.
      TypeError: if `operator` is no such class, or as `check_transform`.
      ValueError: as `check_transform`.

    Example:
      >>> from dropax import DropoutOperator, DropoutOperatorConfig
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> check_operator(DropoutOperator, config, batch=batch, only=["deterministic"]).held
      ('deterministic',)
    """
    if not (isinstance(operator, type) and issubclass(operator, ModalityOperator)):
        constraint = "be a subclass of dropax.ModalityOperator"
        raise TypeError(must("check_operator.operator", constraint, operator))

    def generate_random_params(config: Any, keys: jax.Array, data_shapes: Any) -> Any:
        return operator(config, rngs=0).generate_random_params(keys, data_shapes)

    def apply(config: Any, *arguments: Any) -> Any:
        return operator(config, rngs=0).apply(*arguments)

    return check_transform(generate_random_params, apply, config, operator=operator, **options)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Returns a function whose errors say that it raised them."""

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            error.add_note(f"{name} raised this.")
            raise

    return run


def _require_config(config: Any) -> None:
    owner = "check_transform.config"
    require_kind(owner, config, OperatorConfig, "a config or a strategy of them")


def _names(argument: str, names: Any, known: Any) -> list[str]:
    owner = f"check_transform.{argument}"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(must(owner, "be a list of names", names))
    listed = list(names)
    for name in listed if known is not None else ():
        require_choice(owner, name, known)
    return listed


def _draw(strategy: Any, seed: int, count: int) -> list[Any]:
    """Returns what a strategy draws from a seed; the simplest first. Of a value, the value."""
    drawn: list[Any] = []
    if not isinstance(strategy, st.SearchStrategy):
        return [strategy]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    return drawn


def _example(
    subject: Subject, config: Any, batch: Any, seed: int, false_alarm: float
) -> list[Trial]:
    """Returns trials of one config on several batches, of as many dtypes as possible.

    The first is the one that most properties are checked on.
    """
    config = _draw(config, seed, 1 + min(seed, 1))[-1]
    _require_config(config)
    if batch is None:
        if getattr(config, "field_key", None) is None:
            cure = "The config has no field_key to make one for."
            raise ValueError(must("check_transform.batch", "be given", batch, cure))
        batch = batches(config, kinds=("Batch",))
    trials = []
    for drawn in _draw(batch, seed, _DRAWN):
        data, states = jax.tree.map(_as_jax_holds, records_of(drawn) or ({}, {}))
        trial = Trial(subject, config, data, states, seed, false_alarm)
        # What is wrong with the arguments is told here, and not as a property that does not hold.
        if not np.shape(trial.images) or trial.size < 1 or not trial.images.size:
            if not isinstance(batch, st.SearchStrategy):
                constraint = "hold a record"
                raise ValueError(must("check_transform.batch", constraint, summarize(data)))
            continue
        trials.append(trial)
    trials.sort(key=_usefulness, reverse=True)
    first_of_dtype = {trial.images.dtype: trial for trial in reversed(trials)}
    others = [trial for trial in first_of_dtype.values() if trial is not trials[0]]
    return [trials[0], *others][:_BATCHES]


def _usefulness(trial: Trial) -> tuple[bool, float]:
    """Ranks batches: of floating point, and of about a thousand values."""
    is_float = jnp.issubdtype(trial.images.dtype, jnp.floating)
    return bool(is_float), -abs(float(np.log(trial.images.size / 1024)))


def _as_jax_holds(leaf: Any) -> np.ndarray:
    """Returns a NumPy array of a dtype that JAX does not change: 64 bits may become 32."""
    return np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype))


def _run(name: str, trials: list[Trial], seed: int) -> None:
    """Runs a property on the trials of an example; raises `PropertyError` or `NotRunError`."""
    check, look_for, every_batch = PROPERTIES[name]
    for trial in trials if every_batch else trials[:1]:
        try:
            check(trial)
            continue
        except NotRunError:
            raise
        except BrokenError as broken:
            text, cause = f"{name} does not hold: {broken}", broken.__cause__
            advice = f"\nLook for: {look_for}."
        except Exception as error:
            text, cause, advice = _raised(name, error), error, ""
        with np.printoptions(threshold=8, edgeitems=2):
            config = repr(trial.config)
        again = f"seed={seed}, max_examples=1, only=[{name!r}]"
        shown = f"  config: {config}\n  batch: {_shown(trial)}\n  run again: {again}"
        raise PropertyError(name, f"{text}\n{shown}{advice}") from cause


def _raised(name: str, error: Exception) -> str:
    """Says what was raised: the error first, then by which function and in which check."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.endswith("raised this.")]
    by = notes[0].removesuffix(" this.") if notes else "dropax.testing raised"
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}\n  {by} this while {name} was checked."


def _shown(trial: Trial) -> str:
    """Shows the values of a small batch, and the shapes of a large one."""
    leaves = jax.tree.leaves((trial.data, trial.states))
    parts = {"data": trial.data, "states": trial.states} if trial.states else trial.data
    if sum(np.size(leaf) for leaf in leaves) > _SHOWN:
        return str(summarize(parts))
    return f"{summarize(parts)} = {jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), parts)}"


def _suspicions(trial: Trial) -> Iterator[str]:
    """Yields what looks like a mask or a rate and is not declared."""
    if not trial.config.stochastic:
        return
    if trial.masks is None:
        params = trial.params if isinstance(trial.params, dict) else {}
        for path, leaf in by_path({} if "record_key" in params else params).items():
            if leaf.dtype == np.bool_ and leaf.ndim > 1 and leaf[0].size > 1:
                yield (
                    f"random_params[{path!r}] looks like a mask, and nothing says so: what it "
                    "drops is not checked. Pass keep_mask=lambda config, params: ..."
                )
        return
    names = [field.name for field in dataclasses.fields(trial.config)]
    rates = [name for name in names if name in ("p", "rate", "prob", "drop_rate", "probability")]
    if trial.expected_fraction() is None and rates:
        yield (
            f"{type(trial.config).__name__}.{rates[0]} looks like a rate, and nothing says so: "
            f"fractions are not checked. Pass rate_field={rates[0]!r}."
        )
