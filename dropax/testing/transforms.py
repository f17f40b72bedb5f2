"""The check of a whole transform.

Given anybody's two functions, runs every property on examples that Hypothesis draws and shrinks,
and says which one does not hold, on what, and what to look for.
"""

from collections.abc import Callable, Iterable
from typing import Any

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st

from dropax.kit.batching import records_of
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must, require_choice, require_kind, require_whole
from dropax.kit.trees import summarize
from dropax.testing.arrays import batches
from dropax.testing.dropping_properties import DROPPING
from dropax.testing.properties import GENERAL, BrokenError, Property
from dropax.testing.trials import Transform, Trial

PROPERTIES: dict[str, Property] = {each.name: each for each in (*GENERAL, *DROPPING)}
_SHOWN = 24


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
    expected_fraction: Callable[[Any, tuple[int, ...]], Any] | None = None,
    stats: dict[str, Any] | None = None,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = 5,
    false_alarm: float = 1e-6,
) -> tuple[str, ...]:
    """Checks that two functions make a sound transform, in the sense of `dropax.batched`.

    For any transform: `input_untouched`, `deterministic`, `record_depends_on_its_key_alone`,
    `transformations_agree` (eager, jit, vmap, scan), `dtype_and_structure_kept`,
    `no_tracer_leaks`, `keys_matter`, `one_trace_serves_all`. For those that drop values:
    `nothing_is_left_under_a_dropped_value`, `rate_0_keeps_all`, `rate_1_drops_all`,
    `gradient_is_finite`, `kept_values_are_used`, `target_key_is_honoured`,
    `dropped_fraction_is_the_rate`, `channels_are_uncorrelated`. They are checked in this order,
    each on examples of its own, and the first that does not hold is reported on an example that was
    made as small as it goes. A property that makes no sense for an example, such as one on rates
    where there is none, is passed over. Examples are the same in every run.

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
        broadcasts to the image. None for the entry "keep_mask" where there is one; where there is
        none, nothing counts as dropped.
      expected_fraction: `(config, element_shape) -> fraction`: how much drops in expectation. None
        for `dropax.expected_dropped_fraction`, or the rate of a config of another kind.
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
        AssertionError. The message names the property, shows the example, and says what to look
        for.
      TypeError: if an argument is of another kind.
      ValueError: if a name is that of no property, or in `only` of one that made no sense for any
        example, an argument is out of range, or there is no batch to draw.

    Example:
      >>> import dropax
      >>> config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> batch = {"image": np.ones((8, 6, 6, 1), np.float32)}
      >>> names = check_transform(dropax.generate_random_params, dropax.apply, config, batch=batch)
      >>> "keys_matter" in names
      True
      >>> def multiply(config, data, state, metadata, random_params=None, stats=None):
      ...     return {"image": data["image"] * random_params["keep_mask"]}, state, metadata
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
    owner = "check_transform"
    for name, value in (("generate_random_params", generate_random_params), ("apply", apply)):
        if not callable(value):
            raise TypeError(must(f"{owner}.{name}", "be a function", value))
    require_whole(f"{owner}.max_examples", max_examples, 1)
    require_kind(f"{owner}.false_alarm", false_alarm, float, "a float")
    if not 0 < false_alarm < 1:
        raise ValueError(must(f"{owner}.false_alarm", "be in (0, 1)", false_alarm))
    chosen = _names("only", PROPERTIES if only is None else only)
    skipped = _names("skip", skip)
    if not isinstance(config, st.SearchStrategy):
        require_kind(f"{owner}.config", config, OperatorConfig, "a config or a strategy of them")
    transform = Transform(
        generate_random_params, apply, keep_mask, expected_fraction, field, rate_field, stats
    )
    # Each statistical property is one assertion an example.
    share = false_alarm / (2 * max_examples)
    trials = _trials(transform, config, batch, share)
    names = [name for name in chosen if name not in skipped]
    held = tuple(name for name in names if _holds(PROPERTIES[name], trials, max_examples))
    if only is not None and len(held) < len(names):
        passed_over = [name for name in names if name not in held]
        constraint = "name properties that make sense for an example"
        raise ValueError(must(f"{owner}.only", constraint, passed_over))
    return held


def _names(argument: str, names: Iterable[str]) -> list[str]:
    owner = f"check_transform.{argument}"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(must(owner, "be a list of names", names))
    listed = list(names)
    for name in listed:
        require_choice(owner, name, PROPERTIES)
    return listed


@st.composite
def _trials(
    draw: st.DrawFn, transform: Transform, config: Any, batch: Any, false_alarm: float
) -> Trial:
    owner = "check_transform"
    if isinstance(config, st.SearchStrategy):
        config = draw(config, label="config")
        require_kind(f"{owner}.config", config, OperatorConfig, "a config or a strategy of them")
    if batch is None:
        if getattr(config, "field_key", None) is None:
            cure = "The config has no field_key to make one for."
            raise ValueError(must(f"{owner}.batch", "be given", batch, cure))
        batch = batches(config)
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


def _holds(each: Property, trials: st.SearchStrategy[Trial], max_examples: int) -> bool:
    """Runs a property on examples; says whether it made sense for any."""
    seen: list[bool] = []
    failures: list[PropertyError] = []

    @hypothesis.settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(trials)
    def run(trial: Trial) -> None:
        failure = None
        try:
            applies = each.applies(trial)
            seen.append(applies)
            if applies:
                each.check(trial)
        except BrokenError as broken:
            failure = _error(each, trial, f"{broken}.")
        except Exception as error:
            text = f"it raised {type(error).__name__}: {error}".partition("\n")[0]
            failure = _error(each, trial, text)
            failure.__cause__ = error
        # Raised here, because Hypothesis shrinks only what was raised for the same reason.
        if failure is not None:
            failures.append(failure)
            raise failure

    try:
        run()
    except hypothesis.errors.Flaky:
        # A transform with a memory may fail and then not fail on the same example.
        raise failures[-1] from None
    return any(seen)


def _error(each: Property, trial: Trial, text: str) -> PropertyError:
    return PropertyError(
        each.name,
        f"{each.name} does not hold: {text}\n"
        f"  config: {trial.config!r}\n"
        f"  batch: {_shown(trial)}\n"
        f"  key: jax.random.key({trial.seed})\n"
        f"Look for: {each.look_for}.",
    )


def _shown(trial: Trial) -> str:
    """Shows the values of a small batch, and the shapes of a large one."""
    leaves = jax.tree.leaves((trial.data, trial.states))
    parts = {"data": trial.data, "states": trial.states} if trial.states else trial.data
    if sum(np.size(leaf) for leaf in leaves) > _SHOWN:
        return str(summarize(parts))
    return f"{summarize(parts)} = {jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), parts)}"
