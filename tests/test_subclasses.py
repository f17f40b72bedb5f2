"""Operators of a user's own: two methods, and what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from dropax import (
    Batch,
    Element,
    ModalityOperator,
    OperatorConfig,
    Rngs,
)
from small import ONES, both_strategies, equal, run


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
    given = Scale(config).apply_batch({"image": ONES}, {"gain": np.float32(3)})
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


class Scored(ModalityOperator):
    """Adds keys, and declares them in the words of the page."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        score = data["image"].mean()
        return {**data, "score": score, "alignment": score * 2}, state, metadata

    def get_output_structure(self, sample_data, sample_state):
        out_data = {
            **jax.tree.map(lambda _: None, sample_data),
            "score": None,
            "alignment": None,
        }
        return out_data, sample_state


@both_strategies
def test_the_override_of_get_output_structure_on_the_page_works(strategy):
    operator = Scored(dropax.ModalityOperatorConfig(field_key="image", batch_strategy=strategy))
    sample = {"image": ONES[0]}
    declared = operator.get_output_structure(sample, {})
    assert declared == ({"image": None, "score": None, "alignment": None}, {})
    assert ModalityOperator.get_output_structure(operator, sample, {}) == declared
    out = operator.apply_batch(Batch.from_parts({"image": ONES}))
    np.testing.assert_array_equal(out["score"], np.ones(8))
    np.testing.assert_array_equal(out["alignment"], np.full(8, 2))
