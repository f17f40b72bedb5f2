"""Operators of a user's own: two methods, and what they are given."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import ONES, both_strategies, config_of, det, equal, run, sto
from dropax import Batch, Element, ModalityOperator, OperatorConfig, Rngs


class Brighten(ModalityOperator):
    """Adds a random number, and says so in a field of its own."""

    def generate_random_params(self, rng, data_shapes):
        count = data_shapes["image"][0]
        keys = rng if rng.ndim else jax.random.split(rng, count)
        return {"gain": jax.vmap(jax.random.uniform)(keys)}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        gain = jnp.float32(1.0) if random_params is None else random_params["gain"]
        return {**data, "image": data["image"] + gain, "gain": gain}, state, metadata


@both_strategies
def test_another_operator_is_two_methods(strategy):
    config = OperatorConfig(stochastic=True, batch_strategy=strategy)
    operator = Brighten(config, rngs=Rngs(0))
    batch = Batch([Element({"image": jnp.zeros((2, 2))}, metadata=i) for i in range(3)])
    out = operator(batch)
    np.testing.assert_array_equal(out["image"][:, 0, 0], out["gain"])
    assert len(np.unique(out["gain"])) == 3
    assert out.metadata_list == [0, 1, 2]
    structure, _ = operator.get_output_structure({"image": jnp.zeros((2, 2))}, {})
    assert structure == {"image": None, "gain": None}
    jitted = jax.jit(lambda op, batch: (op.apply_batch(batch), op))
    again, operator = jitted(operator, batch)
    assert not np.isin(again["gain"], out["gain"]).any()
    assert isinstance(operator, Brighten)


def test_what_a_subclass_leaves_out_is_named():
    class Nothing(ModalityOperator):
        pass

    fixed = Nothing(OperatorConfig())
    assert fixed.generate_random_params(jax.random.key(0), {}) is None
    with pytest.raises(NotImplementedError, match=r"Nothing must define apply\."):
        fixed.apply({}, {}, {})
    drawing = Nothing(OperatorConfig(stochastic=True), rngs=0)
    with pytest.raises(NotImplementedError, match=r"it must define generate_random_params\."):
        drawing.apply_batch({"image": ONES})


@both_strategies
def test_the_stats_of_apply_batch_reach_apply_and_default_to_the_operators_own(strategy):
    class Scale(ModalityOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {"image": data["image"] * stats["gain"]}, state, metadata

    config = dropax.ModalityOperatorConfig(
        field_key="image", batch_strategy=strategy, precomputed_stats={"gain": np.float32(2)}
    )
    assert equal(run(Scale(config)), ONES * 2)
    for call in (Scale(config), Scale(config).apply_batch):
        given = call({"image": ONES}, {"gain": np.float32(3)})
        assert equal(given["image"], ONES * 3)


@both_strategies
def test_an_operator_may_add_to_states_of_any_structure(strategy):
    class Count(ModalityOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, {**state, "sum": data["image"].sum()}, metadata

    operator = Count(dropax.ModalityOperatorConfig(field_key="image", batch_strategy=strategy))
    for states in ({}, {"a": {"b": np.arange(8)}, "c": {}}):
        out = operator.apply_batch(Batch.from_parts({"image": ONES}, states, batch_state={"s": 1}))
        assert equal(out.states["sum"], np.full(8, 48))
        jax.tree.map(np.testing.assert_array_equal, {**out.states, "sum": 0}, {**states, "sum": 0})
        assert out.batch_state == {"s": 1}
    assert operator.get_output_structure({"image": ONES[0]}, {}) == ({"image": None}, {"sum": None})


class Scale(ModalityOperator):
    """Multiplies by attributes of its own, and counts how often it is traced."""

    traces = 0

    def __init__(self, config, **attributes):
        super().__init__(config, rngs=0)
        vars(self).update(attributes)

    def generate_random_params(self, rng, data_shapes):
        return {"gain": jax.vmap(jax.random.uniform)(rng)}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        type(self).traces += 1
        image = data["image"]
        for part in jax.tree.leaves({n: p for n, p in vars(self).items() if n in self.factors}):
            image = image * jnp.reshape(part, (1, 1, -1))
        return {"image": image}, state, metadata

    factors = ("gain", "table", "parts", "times")


NUMBERS = itertools.count()


def scale(strategy="vmap", kind=Scale, **attributes):
    """An operator whose programs are its own, unless it is given a label."""
    kind.traces = 0
    attributes = {"label": next(NUMBERS), **attributes}
    return kind(OperatorConfig(batch_strategy=strategy), **attributes)


@both_strategies
def test_an_array_that_is_changed_in_place_is_seen_by_the_next_call(strategy):
    operator = scale(strategy, table=np.ones(3, np.float32))
    assert equal(run(operator), ONES)
    operator.table[0] = 5.0
    assert equal(run(operator), ONES * np.array([5, 1, 1], np.float32))
    assert operator.traces == 1


@both_strategies
def test_twenty_changes_of_a_number_compile_once(strategy):
    operator = scale(strategy, gain=1.0, parts=[np.float32(1), {"a": jnp.ones(3)}])
    for number in range(20):
        operator.gain = number / 2
        operator.parts = [np.float32(number), {"a": jnp.full(3, 0.5)}]
        assert equal(run(operator), ONES * (number / 2 * number * 0.5))
    assert operator.traces == 1


def test_equal_operators_share_one_program_and_their_arrays_are_their_own():
    operators = [scale(label="equal", table=np.full(3, number, np.float32)) for number in range(3)]
    for number, operator in enumerate(operators):
        assert equal(run(operator), ONES * number)
    assert Scale.traces == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(2, 3), (True, 2), (np.int64(2), np.int64(3)), ((2, 1), (3, 1)), ([2, 1.0], [3, 1.0])],
    ids=str,
)
def test_what_may_be_a_shape_is_static_and_seen_by_value(first, second):
    class Shaped(Scale):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            type(self).traces += 1
            count = jax.tree.leaves(self.times)[0]
            image = jnp.broadcast_to(data["image"], (int(count), *data["image"].shape)).sum(0)
            return {"image": image}, state, metadata

    operator = scale(kind=Shaped, times=first)
    for times in (first, second, first):
        operator.times = times
        assert equal(run(operator), ONES * int(jax.tree.leaves(times)[0]))
    assert operator.traces == 2


def test_attributes_go_through_jit_and_come_back():
    @jax.jit
    def step(operator, images):
        out = operator.apply_batch({"image": images})["image"]
        operator.gain = operator.gain + 1
        return out, operator

    operator = scale(gain=2.0, label="a", table=np.ones(3, np.float32))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(operator)[0]]
    assert [jax.tree_util.keystr(path) for path in paths][-2:] == [".gain", ".table"]
    out, operator = step(operator, ONES)
    assert equal(out, ONES * 2)
    assert (type(operator), operator.label, float(operator.gain)) == (Scale, "a", 3.0)
    assert equal(run(operator), ONES * 3)
    axes = jax.tree.map(lambda _: None, operator)
    axes.gain = 0
    many = operator.copy()
    many.gain = jnp.arange(3.0)
    out = jax.vmap(lambda op: op.apply_batch({"image": ONES})["image"], in_axes=(axes,))(many)
    assert equal(out[:, 0, 0, 0, 0], np.arange(3))


def test_donating_an_operator_deletes_no_array_that_a_caller_holds():
    table = jnp.full(3, 2.0)
    operator = jax.jit(lambda operator: operator, donate_argnums=0)(scale(table=table))
    assert equal(run(operator), ONES * np.asarray(table))


@pytest.mark.parametrize(
    "part",
    [object(), {1, 2}, np.array(["a"]), np.random.default_rng(0), Rngs(0)],
    ids=lambda part: type(part).__name__,
)
def test_an_attribute_that_is_neither_an_array_nor_a_value_is_refused_with_the_cure(part):
    text = r"^Scale\.parts\.0 must be an array, a number, or hashable by value; got .* Put it into "
    with pytest.raises(TypeError, match=text):
        run(scale(parts=[part]))


def test_functions_and_classes_are_static():
    operator = scale(function=jnp.sin, dtype=np.float32, gain=2.0)
    assert equal(run(operator), ONES * 2)
    run(operator)
    assert operator.traces == 1


class Holder(ModalityOperator):
    """Applies another operator, which draws from a state of its own."""

    def __init__(self, inner, stochastic=False):
        super().__init__(OperatorConfig(stochastic=stochastic), rngs=0)
        self.inner = inner

    def generate_random_params(self, rng, data_shapes):
        self.inner.apply({"image": jnp.ones((4, 4, 3))}, {}, {})
        return {}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return self.inner.apply(data, state, metadata)


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_an_operator_that_draws_within_another_is_refused_however_deep(depth, stochastic):
    drawing, fixed = sto(), det()
    for _ in range(depth):
        drawing, fixed = Holder(drawing, stochastic), Holder(fixed)
    text = r"^DropoutOperator\.apply was called under jit, scan or the like on a stochastic"
    with pytest.raises(ValueError, match=text):
        run(drawing)
    assert equal(run(fixed), run(det()))
    assert fixed.inner.get_operation_stats()["applied_count"] == 0


class Keeping(ModalityOperator):
    """Keeps what it has seen, and draws from both words of its key."""

    def generate_random_params(self, rng, data_shapes):
        return {"words": jax.random.key_data(rng).reshape(-1, 2)}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        self.last = data["image"].mean()
        return data, state, metadata


def test_describing_what_apply_returns_leaves_nothing_traced_in_the_operator():
    operator = Keeping(OperatorConfig(stochastic=True), rngs=0)
    with jax.default_prng_impl("rbg"):
        operator.output_spec({"image": jax.ShapeDtypeStruct((4, 4, 3), np.float32)})
    operator.apply_batch({"image": np.ones((1, 4, 4, 3), np.float32)})
    assert not hasattr(operator, "last")


class Tagged(dropax.DropoutOperator):
    """Dropout with an apply of its own."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return super().apply(data, state, metadata, random_params, stats)


@both_strategies
def test_dropout_with_an_apply_of_its_own_shares_masks_and_counts_as_dropout_does(strategy):
    config = config_of("box", share_mask=True, batch_strategy=strategy)
    one, other = (kind(config, rngs=0) for kind in (dropax.DropoutOperator, Tagged))
    np.testing.assert_array_equal(one({"image": ONES})["image"], other({"image": ONES})["image"])
    with pytest.raises(ValueError, match="must be None if all records share a draw"):
        other({"image": ONES}, record_ids=range(8), epoch=0)
    for changes in ({"dropout_rate": 0.0}, {"apply_probability": 0.5}):
        config = config_of("box", batch_strategy=strategy, **changes)
        one, other = (kind(config, rngs=0) for kind in (dropax.DropoutOperator, Tagged))
        one({"image": ONES})
        other({"image": ONES})
        assert one.get_operation_stats() == other.get_operation_stats()


def test_an_operator_is_an_operand_of_conditionals_and_of_an_exported_step():
    drop, skip = lambda o: (o({"image": ONES})["image"], o), lambda o: (jnp.asarray(ONES), o)
    for make in (sto, lambda: scale(gain=np.float32(2))):
        expected = make()({"image": ONES})["image"]
        for call in (
            jax.jit(lambda o: jax.lax.cond(True, drop, skip, o)),
            lambda o: jax.lax.switch(1, [skip, drop], o),
        ):
            out, after = call(make())
            np.testing.assert_array_equal(out, expected)
            assert sum(after.get_operation_stats().values()) == len(ONES)
    jax.export.export(jax.jit(lambda o: drop(o)[0]))(sto())


@pytest.mark.parametrize("method", ["copy", "clone"])
def test_a_copy_has_attributes_of_its_own(method):
    operator = scale(table=np.ones(3, np.float32), parts={"a": np.float32(1)})
    operator.inner = det()
    twin = getattr(operator, method)()
    twin.table *= 0
    twin.parts["a"] = np.float32(0)
    twin.inner.set_statistics({"mean": 9.0})
    assert equal(run(operator), ONES)
    assert operator.inner.get_statistics() is None
    assert run(twin).max() == 0
