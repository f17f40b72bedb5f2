"""What is kept of the reference implementation, and where the page decides against it."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import config_of
from dropax import Batch, DropoutOperator, Element, ModalityOperator, OperatorConfig, Rngs
from reference import ONES, det, equal, make, run, sto

SHAPES = {"image": ONES.shape}
every_mode = pytest.mark.parametrize("mode", ["pixel", "channel"])
every_kind = pytest.mark.parametrize("stochastic", [False, True])
every_strategy = pytest.mark.parametrize("strategy", ["vmap", "scan"])


# Where the page contradicts itself or the reference implementation, the page holds.


def test_contradiction_1_channel_masks_have_shape_batch_by_channels_and_apply_takes_both_forms():
    operator = sto(mode="channel")
    mask = operator.generate_random_params(jax.random.key(0), SHAPES)["keep_mask"]
    assert mask.shape == (8, 3)
    assert 0 < mask.mean() < 1
    data = {"image": ONES[0]}
    for row in mask:
        for form in (row, row[None, None]):
            out = operator.apply(data, {}, {}, {"keep_mask": form})[0]["image"]
            np.testing.assert_array_equal(out, np.broadcast_to(row, (4, 4, 3)))


def test_contradiction_2_only_a_deterministic_config_refuses_a_stream_name():
    assert run(sto()).any()
    with pytest.raises(ValueError, match="stream_name must be None if stochastic is False"):
        det(stream_name="augment")


@every_kind
def test_contradiction_3_apply_batch_takes_one_argument_or_three(stochastic):
    data, states, metadata = make(stochastic).apply_batch({"image": ONES}, {}, {})
    assert equal(data["image"], run(make(stochastic)))
    assert states == metadata == {}


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


@every_strategy
def test_contradiction_4_the_override_of_get_output_structure_on_the_page_works(strategy):
    operator = Scored(dropax.ModalityOperatorConfig(field_key="image", batch_strategy=strategy))
    sample = {"image": ONES[0]}
    declared = operator.get_output_structure(sample, {})
    assert declared == ({"image": None, "score": None, "alignment": None}, {})
    assert ModalityOperator.get_output_structure(operator, sample, {}) == declared
    out = operator.apply_batch(Batch.from_parts({"image": ONES}))
    np.testing.assert_array_equal(out["score"], np.ones(8))
    np.testing.assert_array_equal(out["alignment"], np.full(8, 2))


def test_contradiction_5_the_examples_of_copy_on_the_page_run():
    module = ModalityOperator(OperatorConfig(), name="old_name")
    new_config = OperatorConfig(cacheable=True)
    new_module = module.copy(config=new_config)
    renamed = module.copy(name="new_name")
    assert (new_module.config, new_module.name) == (new_config, "old_name")
    assert (renamed.config, renamed.name) == (module.config, "new_name")
    assert module.config == OperatorConfig()


def test_contradiction_6_statistics_that_are_set_after_a_reset_show():
    operator = det(precomputed_stats={"a": 1})
    operator.reset_statistics()
    assert operator.get_statistics() is None
    operator.set_statistics({"a": 3})
    assert operator.get_statistics() == {"a": 3}


@every_mode
def test_contradiction_7_every_call_of_apply_batch_draws_new_masks(mode):
    operator = sto(mode=mode)
    assert not equal(run(operator), run(operator))
    assert equal(run(det(mode=mode)), run(det(mode=mode)))


# Options that had no effect at all.


def test_auxiliary_fields_are_dropped_by_the_same_mask_kept_or_left_out():
    data = {"image": ONES, "depth": ONES * 2, "other": np.arange(8)}
    out = sto(auxiliary_fields=["depth"]).apply_batch(data)
    np.testing.assert_array_equal(out["depth"], out["image"] * 2)
    assert out["other"] is data["other"]
    without = sto(auxiliary_fields=["depth"], preserve_auxiliary=False)
    assert sorted(without.apply_batch(data)) == ["image", "other"]


def test_the_check_of_the_domain_can_be_switched_off():
    with pytest.raises(ValueError, match="fill must be within the range of dtype float16"):
        run(det(fill=1e5), ONES.astype(np.float16))
    unchecked = det(fill=1e5, validate_domain_constraints=False)
    assert np.isinf(run(unchecked, ONES.astype(np.float16))).any()


@every_strategy
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


# What dropout does.


@every_mode
@every_kind
def test_shape_and_kept_values_stay_and_rates_of_zero_and_one_are_exact(mode, stochastic):
    images = np.arange(1, 1537, dtype=np.float32).reshape(8, 4, 4, 12)
    out = run(make(stochastic, mode=mode), images)
    assert ((out == 0) | (out == images)).all()
    assert 0 < (out == 0).mean() < 1
    assert equal(run(make(stochastic, mode=mode, dropout_rate=0.0), images), images)
    assert not run(make(stochastic, mode=mode, dropout_rate=1.0), images).any()


@every_mode
def test_the_rate_is_the_fraction_that_drops(mode):
    out = run(sto(mode=mode, dropout_rate=0.3), np.ones((4096, 2, 2, 3), np.float32))
    assert abs((out == 0).mean() - 0.3) < 0.021  # five standard deviations of 12288 channels


@every_mode
def test_records_of_a_stochastic_batch_differ_and_those_of_a_deterministic_one_do_not(mode):
    assert len({record.tobytes() for record in run(sto(mode=mode))}) > 1
    assert len({record.tobytes() for record in run(det(mode=mode))}) == 1


def test_a_deterministic_operator_ignores_rngs_and_random_params():
    params = {"keep_mask": np.zeros(ONES[0].shape, bool)}
    out = det().apply({"image": ONES[0]}, {}, {}, params)[0]["image"]
    assert equal(out, run(det())[0], run(det(seed=9))[0])
    assert equal(run(DropoutOperator(det().config, rngs=None)), run(det()))


def test_other_fields_are_kept_and_a_target_leaves_its_source():
    data = {"photo": ONES[0], "label": np.int32(3), "text": "cat"}
    operator = det(field_key="photo", target_key="dropped")
    out, state, metadata = operator.apply(data, {"n": 1}, "a.png")
    assert (out["label"], out["text"], state, metadata) == (3, "cat", {"n": 1}, "a.png")
    assert out["photo"] is data["photo"]
    assert equal(out["dropped"], run(det())[0])
    assert sorted(data) == ["label", "photo", "text"]


@every_kind
def test_a_missing_field_is_a_key_error_at_rate_zero_too(stochastic):
    operator = make(stochastic, dropout_rate=0.0)
    with pytest.raises(KeyError, match="field 'image' not found"):
        operator.apply({"depth": ONES[0]}, {}, {})
    with pytest.raises(KeyError, match="field 'image' not found"):
        operator.apply_batch({"depth": ONES})


def test_clipping_follows_dropping():
    out = run(sto(clip_range=(0.2, 0.9)))
    np.testing.assert_array_equal(np.unique(out), np.float32([0.2, 0.9]))


@every_mode
@every_kind
def test_sizes_of_zero_are_no_trouble(mode, stochastic):
    for shape in ((2, 4, 4, 0), (2, 0, 4, 3), (0, 4, 4, 3)):
        assert run(make(stochastic, mode=mode), np.ones(shape, np.float32)).shape == shape


def test_the_gradient_is_the_mask():
    def total(images, rate):
        return (det(dropout_rate=rate).apply({"image": images}, {}, {})[0]["image"] ** 2).sum()

    images = jnp.asarray(ONES[0] * 3)
    assert equal(jax.grad(total)(images, 0.0), images * 2)
    gradient = jax.grad(total)(images, 0.5)
    assert equal(gradient, run(det(dropout_rate=0.5))[0] * 6)
    assert 0 < (gradient == 0).mean() < 1


# Randomness.


@every_mode
@every_kind
def test_scan_and_vmap_agree_bit_for_bit_for_any_batch_size(mode, stochastic):
    expected = run(make(stochastic, mode=mode))
    for size in (1, 2, 8):
        for strategy in ("vmap", "scan"):
            out = run(make(stochastic, mode=mode, batch_strategy=strategy), ONES[:size])
            assert equal(out, expected[:size])


@every_mode
def test_the_same_key_draws_the_same_masks_and_another_key_others(mode):
    def draw(key):
        return sto(mode=mode).generate_random_params(key, SHAPES)["keep_mask"]

    legacy = jax.random.key_data(jax.random.key(0))
    first = draw(jax.random.key(0))
    assert equal(first, draw(jax.random.key(0)), draw(legacy))
    assert not equal(first, draw(jax.random.key(1)))
    assert 0 < draw(jax.random.key(0, impl="rbg")).mean() < 1


def test_streams_count_their_draws_and_a_missing_one_falls_back_to_the_default():
    def data(key):
        return jax.random.key_data(key).tolist()

    rngs, seed = Rngs(3), jax.random.key(3)
    assert data(rngs()) == data(jax.random.fold_in(seed, 0))
    assert data(rngs.augment()) == data(jax.random.fold_in(seed, 1))
    assert data(Rngs(0, augment=3).augment()) == data(jax.random.fold_in(seed, 0))
    shared = Rngs(0)
    first, second = (DropoutOperator(sto().config, rngs=shared) for _ in range(2))
    assert not equal(run(first), run(second))


TWINS = {
    "clone": lambda operator: operator.clone(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda operator: pickle.loads(pickle.dumps(operator)),
}


@pytest.mark.parametrize("way", TWINS)
def test_a_twin_goes_on_with_the_same_masks_and_is_then_independent(way):
    operator = sto()
    run(operator)
    twin = TWINS[way](operator)
    assert twin != operator
    expected = run(operator)
    run(operator)
    assert equal(run(twin), expected)
    assert twin.get_operation_stats()["applied_count"] == 16
    assert operator.get_operation_stats()["applied_count"] == 24


# Operators, configs, elements and batches.


def test_operators_call_as_they_apply_and_chain():
    first, second = sto(), sto(mode="channel")
    chained = second(first({"image": ONES}))["image"]
    assert equal(chained, run(sto(mode="channel"), run(sto())))
    batch = Batch.from_parts({"image": ONES})
    assert equal(sto()(batch)["image"], sto()(batch, {"unused": 1})["image"], run(sto()))


def test_the_base_operator_says_what_a_subclass_must_define():
    stochastic = ModalityOperator(OperatorConfig(stochastic=True), rngs=0)
    plain = ModalityOperator(OperatorConfig())
    with pytest.raises(NotImplementedError, match="ModalityOperator must define apply"):
        plain.apply({}, {}, {})
    with pytest.raises(NotImplementedError, match="must define generate_random_params"):
        stochastic.generate_random_params(jax.random.key(0), SHAPES)
    assert plain.generate_random_params(jax.random.key(0), SHAPES) is None


@every_strategy
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


def test_a_batch_of_nothing_is_returned_as_it_is():
    batch = Batch([])
    assert sto().apply_batch(batch) is batch


def test_a_state_with_statistics_is_restored_and_one_that_does_not_fit_changes_nothing():
    saved = det(precomputed_stats={"mean": np.ones(3)}).get_state()
    operator = det()
    for broken in ({"key_data": np.zeros(3, np.uint32)}, {"key_data": np.zeros(2)}, {"step": 1.5}):
        with pytest.raises(ValueError, match=f"state entr.*{next(iter(broken))}"):
            operator.set_state({**saved, **broken})
    assert operator.get_statistics() is None
    operator.set_state(saved)
    np.testing.assert_array_equal(operator.get_statistics()["mean"], np.ones(3))


def test_the_function_for_statistics_is_called_only_by_compute_statistics():
    calls = []
    operator = det(batch_stats_fn=lambda data: calls.append(1) or {"n": len(calls)})
    run(operator)
    assert operator.get_statistics() is None
    assert operator.compute_statistics(ONES) == {"n": 1}
    run(operator)
    assert operator.get_statistics() == {"n": 1}
    with pytest.raises(ValueError, match="precomputed_stats must be None if batch_stats_fn"):
        det(batch_stats_fn=len, precomputed_stats={})


def test_configs_are_frozen_and_checked_from_the_base_on():
    config = config_of("pixel", field_key=" ", auxiliary_fields=[])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dropout_rate = 0.2
    assert "dropout_rate=0.3" in repr(config.replace(dropout_rate=0.3))
    for options, name in (
        ({"field_key": "", "stochastic": False, "stream_name": "a"}, "stream_name"),
        ({"field_key": "", "dropout_rate": 2}, "field_key"),
    ):
        with pytest.raises(ValueError, match=rf"DropoutOperatorConfig\.{name} must"):
            config_of("pixel", **options)
    with pytest.raises(TypeError, match="field_key must be a string; got None"):
        config_of("pixel", field_key=None)


def test_a_config_derived_as_any_dataclass_is_hashed_and_compared_by_value_too():
    @dataclasses.dataclass(frozen=True)
    class Child(dropax.DropoutOperatorConfig):
        strength: float = dataclasses.field(default=1.0, kw_only=True)

    options = {"field_key": "image", "precomputed_stats": {"m": np.ones(2)}}
    config = Child(**options, strength=2.0)
    assert "strength=2.0" in repr(config)
    assert config == Child(**options, strength=2.0)
    assert config != Child(**options)
    assert hash(config) == hash(Child(**options, strength=2.0))


def test_gradients_flow_through_elements():
    total = jax.grad(lambda one: (one.transform(jnp.square).data["image"]).sum())
    assert equal(total(Element({"image": jnp.asarray(ONES[0])})).data["image"], ONES[0] * 2)


def test_batches_stack_what_elements_hold_and_give_it_back():
    elements = [Element({"a": {"b": ONES[i] * i}}, {"n": i}, f"{i}.png") for i in range(4)]
    batch = Batch(elements)
    assert (batch.batch_size, len(batch), batch.metadata_list[1]) == (4, 4, "1.png")
    assert equal(batch.get_element(2).data["a"]["b"], ONES[2] * 2)
    assert [one.metadata for one in batch.get_elements([3, 0])] == ["3.png", "0.png"]
    assert batch.slice(1, 3).states["n"].tolist() == [1, 2]
    assert Batch.from_parts({"image": ONES}).metadata_list == [None] * 8
    assert equal(jax.jit(dropax.Batch.get_data)(batch)["a"]["b"], batch.data["a"]["b"])
