"""The check of a whole transform.

Given two functions, or an operator, runs every property on planned examples, and says which one
does not hold, on what, and what to look for. A failure is then sought on examples that Hypothesis
draws and shrinks, so that the one reported is small.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st

from dropax.kit.batching import records_of
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must, require_choice, require_kind, require_whole
from dropax.kit.operator import ModalityOperator
from dropax.kit.trees import summarize
from dropax.testing.properties import DROPPING, GENERAL, BrokenError, Property
from dropax.testing.strategies import batches, fixed_plan
from dropax.testing.trials import Transform, Trial

PROPERTIES: dict[str, Property] = {each.name: each for each in (*GENERAL, *DROPPING)}
_SHOWN = 24  # values of a batch that is shown whole
_TRIES = 6  # for each example, to find a smaller one


class PropertyError(AssertionError):
    """A transform lacks a property.

    Attributes:
      property: the name of the property.

    Example:
      >>> raise PropertyError("rate_0_keeps_all", "Values drop.")
      Traceback (most recent call last):
      dropax.testing.transforms.PropertyError: Values drop.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.property = name

    def __str__(self) -> str:
        return str(self.args[1])


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
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None,
    fill_reads: str | None = None,
    new_fields: Iterable[str] = (),
    stats: dict[str, Any] | None = None,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = 6,
    false_alarm: float = 1e-6,
) -> tuple[str, ...]:
    """Checks that two functions make a sound transform, in the sense of `dropax.batched`.

    For any transform: `input_untouched`, `deterministic`, `record_depends_on_its_key_alone`,
    `transformations_agree` (eager, jit, vmap, scan), `dtype_and_structure_kept`,
    `no_tracer_leaks`, `keys_matter`, `one_trace_serves_all`. For those that drop values:

    * `nothing_is_left_under_a_dropped_value`: images that differ only under what is dropped give
      the same fields and the same state, bit for bit.
    * `kept_values_stay`: kept values stay bit for bit, or become what the config says: divided by
      the expected kept fraction (`rescale`), clipped (`clip_range`).
    * `other_fields_stay`: fields that nothing names stay bit for bit.
    * `state_is_independent`: the state depends neither on the image nor on the draw.
    * `rate_0_keeps_all`, `rate_1_drops_all`, `dropped_fraction_is_the_rate`.
    * `values_are_uncorrelated`: along the channels of a mask that has all of them, and along every
      axis in pixel mode. `mask_is_drawn_along_each_axis`: a mask that never varies along an axis
      has size 1 there.
    * `gradient_is_finite`, `target_key_is_honored`.

    They are checked in this order, on the same examples in every run: batches of one to ten records
    with odd and even sides, one to five channels and several dtypes, as far as `batch` leaves that
    open. Values are of the dtype's whole range, NaN included. If a property does not hold, it is
    reported on a smaller example if one is found. A property that makes no sense for an example,
    such as one on rates if there is none, is passed over.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, as for `dropax.batched`.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)`, on
        one record.
      config: an `OperatorConfig`, or a Hypothesis strategy of them.
      batch: a `Batch`, a dict of arrays of shape (B, ...), or a strategy of either. None for what
        `batches(config)` draws, which the config must have a `field_key` for.
      field: the field that is worked on. None for the config's `field_key`, or the only one.
      rate_field: the config's field that holds the rate.
      keep_mask: `(config, random_params) -> mask`, of one record: what is kept, a mask that
        broadcasts to the image. None for the entry "keep_mask"; if there is none, nothing counts as
        dropped.
      kept_value: `(config, image, random_params) -> image`, of one record: what kept values become
        if they change on purpose, up to rounding.
      expected_fraction: `(config, element_shape) -> fraction`: how much drops in expectation. None
        for `dropax.expected_dropped_fraction`, or the rate of a config of another type.
      fill_reads: what the fill is computed from. "nothing" of the image's dropped values;
        "statistics" of each channel, such as its mean, which do not depend on the order of its
        values; or the whole "image". Kept values, other fields and the state must not depend on
        dropped values either way. None for "statistics" if the config's `fill` is "mean" or
        "noise", else "nothing".
      new_fields: names of fields that `apply` adds, or changes, beside those that the config names
        (`target_key`, `mask_key`, `auxiliary_fields`).
      stats: what `apply` gets. None for the config's `precomputed_stats`.
      only: names of properties; None for all.
      skip: names of properties that are not checked.
      max_examples: how many examples each property is checked on. New shapes, dtypes and configs
        compile anew.
      false_alarm: the probability that a right transform fails, over the choice of its keys.

    Returns:
      The names of the properties that held on at least one example.

    Raises:
      PropertyError: if a property does not hold, or one of the functions raises; it is an
        AssertionError. The message says what is wrong, names the property, shows the example, and
        says what to look for.
      TypeError: if an argument is of the wrong type.
      ValueError: if a name is that of no property, or in `only` of one that made no sense for any
        example, an argument is out of range, or there is no batch to draw.

    Example:
      >>> import dropax
      >>> config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> names = check_transform(
      ...     dropax.generate_random_params, dropax.apply, config, batch=batch, max_examples=1
      ... )
      >>> "keys_matter" in names
      True
      >>> def multiply(config, data, state, metadata, random_params=None, stats=None):
      ...     image, mask = data["image"], random_params["keep_mask"]
      ...     return {"image": image * mask.astype(image.dtype)}, state, metadata
      >>> check_transform(
      ...     dropax.generate_random_params,
      ...     multiply,
      ...     config,
      ...     batch=batch,
      ...     only=["nothing_is_left_under_a_dropped_value"],
      ... )  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      dropax.testing.transforms.PropertyError: nothing_is_left_under_a_dropped_value does not...
    """
    for name, value in (("generate_random_params", generate_random_params), ("apply", apply)):
        if not callable(value):
            raise TypeError(must(f"check_transform.{name}", "be a function", value))
    if fill_reads is not None:
        require_choice("check_transform.fill_reads", fill_reads, ("nothing", "statistics", "image"))
    transform = Transform(
        _named(generate_random_params, "generate_random_params"),
        _named(apply, "apply"),
        keep_mask=keep_mask,
        kept_value=kept_value,
        expected_fraction=expected_fraction,
        field=field,
        rate_field=rate_field,
        stats=stats,
        fill_reads=fill_reads,
        new_fields=tuple(_listed("new_fields", new_fields)),
    )
    require_whole("check_transform.max_examples", max_examples, 1)
    require_kind("check_transform.false_alarm", false_alarm, float, "a float")
    if not 0 < false_alarm < 1:
        raise ValueError(must("check_transform.false_alarm", "be in (0, 1)", false_alarm))
    chosen = _names("only", PROPERTIES if only is None else only)
    skipped = _names("skip", skip)
    if not isinstance(config, st.SearchStrategy):
        _require_config(config)
    # Three of the properties are statistical.
    trials = _trials(transform, config, batch, false_alarm / (3 * max_examples))
    names = [name for name in chosen if name not in skipped]
    # Of a given config and batch there is no smaller example to look for.
    drawn = batch is None or any(isinstance(each, st.SearchStrategy) for each in (config, batch))
    examples = functools.cache(functools.partial(_example, trials))

    def holds(each: Property) -> bool:
        """Runs a property on the planned examples; says whether it made sense for any."""
        made_sense = []
        for plan in range(max_examples):
            applied, failure = _try(each, examples(plan))
            if failure is not None:
                if drawn:
                    failure = _smaller(each, trials, 2 * max_examples) or failure
                # Anew, without the notes of Hypothesis, which hold the arrays.
                raise PropertyError(failure.property, str(failure)) from failure.__cause__
            made_sense.append(applied)
        return any(made_sense)

    held = tuple(name for name in names if holds(PROPERTIES[name]))
    if only is not None and len(held) < len(names):
        passed_over = [name for name in names if name not in held]
        constraint = "name properties that make sense for an example"
        raise ValueError(must("check_transform.only", constraint, passed_over))
    return held


def check_operator(operator: Any, config: Any, **options: Any) -> tuple[str, ...]:
    """Checks that an operator class is a sound transform, by the properties of `check_transform`.

    An operator is made for each config that is checked, also while a transformation is traced, by
    `operator(config, rngs=0)`. Its `generate_random_params` and `apply` are what is checked.

    Args:
      operator: a subclass of `ModalityOperator`.
      config: a config of the type that it takes, or a Hypothesis strategy of them.
      **options: the keyword arguments of `check_transform`.

    Returns:
      The names of the properties that held on at least one example.

    Raises:
      PropertyError: as `check_transform`.
      TypeError: if `operator` is no such class, or as `check_transform`.
      ValueError: as `check_transform`.

    Example:
      >>> from dropax import DropoutOperator, DropoutOperatorConfig
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> check_operator(DropoutOperator, config, batch=batch, only=["kept_values_stay"])
      ('kept_values_stay',)
    """
    if not (isinstance(operator, type) and issubclass(operator, ModalityOperator)):
        constraint = "be a subclass of dropax.ModalityOperator"
        raise TypeError(must("check_operator.operator", constraint, operator))

    def generate_random_params(config: Any, keys: jax.Array, data_shapes: Any) -> Any:
        return operator(config, rngs=0).generate_random_params(keys, data_shapes)

    def apply(config: Any, *arguments: Any) -> Any:
        return operator(config, rngs=0).apply(*arguments)

    return check_transform(generate_random_params, apply, config, **options)


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


def _listed(argument: str, names: Any) -> list[str]:
    owner = f"check_transform.{argument}"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(must(owner, "be a list of names", names))
    return list(names)


def _names(argument: str, names: Any) -> list[str]:
    listed = _listed(argument, names)
    for name in listed:
        require_choice(f"check_transform.{argument}", name, PROPERTIES)
    return listed


@st.composite
def _trials(
    draw: st.DrawFn, transform: Transform, config: Any, batch: Any, false_alarm: float
) -> Trial:
    owner = "check_transform"
    if isinstance(config, st.SearchStrategy):
        config = draw(config, label="config")
        _require_config(config)
    if batch is None:
        if getattr(config, "field_key", None) is None:
            cure = "The config has no field_key to make one for."
            raise ValueError(must(f"{owner}.batch", "be given", batch, cure))
        batch = batches(config, kinds=("Batch",))
    if isinstance(batch, st.SearchStrategy):
        batch = draw(batch, label="batch")
    data, states = jax.tree.map(_as_jax_holds, records_of(batch) or ({}, {}))
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    trial = Trial(transform, config, data, states, seed, false_alarm)
    # What is wrong with the arguments is told here, and not as a property that does not hold.
    if trial.size < 1 or not np.shape(trial.images):
        raise ValueError(must(f"{owner}.batch", "hold a record", summarize(data)))
    return trial


def _as_jax_holds(leaf: Any) -> np.ndarray:
    """Returns a NumPy array of a dtype that JAX does not change: 64 bits may become 32."""
    return np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype))


def _settings(examples: int, *phases: hypothesis.Phase) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def _example(trials: st.SearchStrategy[Trial], plan: int) -> Trial:
    """Returns the example of a plan: all properties share it, and what it drew."""
    drawn: list[Trial] = []

    # Hypothesis begins with the simplest config and seed. Later plans take what it draws next.
    @hypothesis.seed(plan)
    @_settings(min(plan, 1) + 1, hypothesis.Phase.generate)
    @hypothesis.given(trials)
    def draw(trial: Trial) -> None:
        drawn.append(trial)

    with fixed_plan(plan):
        draw()
    return drawn[-1]


def _try(each: Property, trial: Trial) -> tuple[bool, PropertyError | None]:
    """Runs a property on an example; says whether it made sense, and how it failed, or None."""
    try:
        if not each.applies(trial):
            return False, None
        each.check(trial)
    except BrokenError as broken:
        text = f"{each.name} does not hold: {broken}."
        return True, _error(each, trial, text, f"\nLook for: {each.look_for}.")
    except Exception as error:
        failure = _error(each, trial, _raised(each, error), "")
        failure.__cause__ = error
        return True, failure
    return True, None


def _smaller(
    each: Property, trials: st.SearchStrategy[Trial], examples: int
) -> PropertyError | None:
    """Returns how a property fails on the smallest example that Hypothesis finds, or None."""
    failures: list[PropertyError] = []
    # Each new shape compiles: shrinking ends after some tries, with the smallest that failed.
    tries = iter(range(_TRIES * examples))

    @hypothesis.seed(0)
    @_settings(examples, hypothesis.Phase.generate, hypothesis.Phase.shrink)
    @hypothesis.given(trials)
    def run(trial: Trial) -> None:
        if next(tries, None) is None:
            return
        _, failure = _try(each, trial)
        # Raised here, because Hypothesis shrinks only what was raised for the same reason.
        if failure is not None:
            failures.append(failure)
            raise failure

    with fixed_plan(None):
        try:
            run()
        except (PropertyError, hypothesis.errors.Flaky):
            # A transform with a memory may fail and then not fail on the same example.
            return failures[-1]
    return None


def _raised(each: Property, error: Exception) -> str:
    """Says what was raised: the error first, then by which function and in which check."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.endswith("raised this.")]
    by = notes[0].removesuffix(" this.") if notes else "dropax.testing raised"
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}\n  {by} this while {each.name} was checked."


def _error(each: Property, trial: Trial, text: str, advice: str) -> PropertyError:
    with np.printoptions(threshold=8, edgeitems=2):
        config = repr(trial.config)
    return PropertyError(
        each.name,
        f"{text}\n"
        f"  config: {config}\n"
        f"  batch: {_shown(trial)}\n"
        f"  key: jax.random.key({trial.seed}){advice}",
    )


def _shown(trial: Trial) -> str:
    """Shows the values of a small batch, and the shapes of a large one."""
    leaves = jax.tree.leaves((trial.data, trial.states))
    parts = {"data": trial.data, "states": trial.states} if trial.states else trial.data
    if sum(np.size(leaf) for leaf in leaves) > _SHOWN:
        return str(summarize(parts))
    return f"{summarize(parts)} = {jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), parts)}"
