"""Operators as objects: the pure functions, call by call, with a memory."""

import chex
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import ONES as IMAGES, both_kinds, config_of, det, equal, make, run, sto
from dropax import Block, DropoutOperator, Element, FromField, OperatorConfig, Rngs, apply_batch


@pytest.mark.parametrize(("mode", "strategy"), [("pixel", "vmap"), ("channel", "scan")])
def test_each_call_is_the_pure_function_and_the_next_state(mode, strategy, key):
    config = config_of(mode, batch_strategy=strategy)
    operator, state = DropoutOperator(config, rngs=lambda: key), dropax.init_state(config, key)
    for _ in range(3):
        expected, state = apply_batch(config, state, {"image": IMAGES})
        np.testing.assert_array_equal(run(operator), expected["image"])
    assert operator.get_operation_stats() == {"applied_count": 24, "skipped_count": 0}
    assert int(operator.state.step) == 3


def test_the_fixed_pattern_of_the_default_rate_spares_most_channels():
    for channels in (1, 3):
        operator = det(mode="channel", dropout_rate=0.1)
        out = run(operator, np.ones((1, 4, 4, channels), np.float32))
        assert equal(out, np.ones_like(out))
    kept = run(det(mode="channel"), np.ones((1, 1, 1, 400), np.float32))
    assert 0.375 < kept.mean() < 0.625  # five standard deviations


def test_a_deterministic_operator_that_was_given_rngs_says_once_that_it_draws_nothing():
    config = det().config
    silent = [
        lambda: run(DropoutOperator(config, rngs=None)),
        lambda: run(DropoutOperator(config, rngs=0), IMAGES[:1]),
        lambda: run(DropoutOperator(config.replace(share_mask=True), rngs=0)),
        lambda: run(DropoutOperator(config.replace(stochastic=True), rngs=0)),
        lambda: DropoutOperator(config, rngs=0).apply({"image": IMAGES[0]}, {}, {}),
    ]
    for call in silent:
        call()
    operator = DropoutOperator(config, rngs=Rngs(0))
    with pytest.warns(UserWarning, match=r"the same pattern .* Pass stochastic=True") as caught:
        assert equal(run(operator), run(operator), run(det()))
    assert len(caught) == 1
    assert ", deterministic, state=" in repr(operator)
    params = {"keep_mask": np.zeros(IMAGES[0].shape, bool)}  # which it does not look at
    out, _, _ = operator.apply({"image": IMAGES[0]}, {}, {}, params)
    assert equal(out["image"], run(det())[0])


@both_kinds
def test_the_output_spec_is_that_of_what_apply_returns(stochastic):
    others = {"other": np.ones(3, np.uint8), "may": {"drop": np.ones((4, 4), bool)}}
    added = {"fill": FromField("other"), "where_key": "may.drop", "mask_key": "masks.kept"}
    operator = make(stochastic, mode="channel", target_key="t", **added)
    element = {"image": IMAGES[0].astype(np.uint8), **others}
    spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), element)
    expected = operator.output_spec(spec)
    assert set(expected) == {*element, "t", "masks"}
    out = operator.apply(element, {}, {})[0]
    assert jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), out) == expected
    told = operator.output_spec(Element(spec, {"seen": 1}, "m"))
    assert (told.data, told.state, told.metadata) == (expected, {"seen": 1}, "m")
    structure, _ = operator.get_output_structure(spec, {})
    assert structure == jax.tree.map(lambda _: None, expected)


def test_streams_cannot_be_drawn_from_under_jit():
    rngs = Rngs(0)
    with pytest.raises(ValueError, match=r"Rngs must be drawn from outside of jit, .*outside and"):
        jax.jit(lambda x: x + jax.random.uniform(rngs()))(1.0)
    assert repr(rngs) == "Rngs(default: 0 drawn)"
    inside = jax.jit(lambda seed: jax.random.uniform(Rngs(jax.random.key(seed))()))
    assert float(inside(0)) != float(inside(1))


def test_as_an_argument_of_jit_the_operator_comes_back_advanced_and_gradients_draw_once():
    operator, twin = sto(), sto()
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=2)  # a rate that was a Python float comes back as an array
    def train_step(operator, images):
        out = operator.apply_batch({"image": images})["image"]
        return out, jax.grad(lambda x: drop(operator, x).sum())(images), operator

    for _ in range(3):
        out, gradient, operator = train_step(operator, IMAGES)
        np.testing.assert_array_equal(out, run(twin))
        np.testing.assert_array_equal(gradient != 0, run(twin) != 0)
    assert operator.get_operation_stats() == twin.get_operation_stats()
    assert operator.rngs is None


def test_in_a_closure_of_jit_a_deterministic_operator_works_and_does_not_count():
    operator = det(cacheable=True)
    out = jax.jit(lambda images: operator.apply_batch({"image": images})["image"])(IMAGES)
    assert operator.get_operation_stats()["applied_count"] == 0
    np.testing.assert_array_equal(out, run(operator))
    one = jax.jit(lambda: operator.apply({"image": IMAGES[0]}, {}, {})[0]["image"])()
    np.testing.assert_array_equal(one, out[0])
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(vars(operator)))


def test_params_given_from_outside_work_in_a_closure_of_jit(key):
    operator = sto()
    params = operator.generate_random_params(key, {"image": IMAGES.shape})

    def run(image, params):
        return operator.apply({"image": image}, {}, {}, params)[0]["image"]

    out = jax.jit(jax.vmap(run))(IMAGES, params)
    assert 0 < int((out == 0).sum()) < out.size
    assert not jax.tree.leaves(operator.state.statistics)


def test_under_grad_and_eager_vmap_nothing_is_baked():
    operator, twin = sto(), sto()
    gradient = jax.grad(lambda x: operator.apply_batch({"image": x})["image"].sum())(IMAGES)
    np.testing.assert_array_equal(gradient != 0, run(twin) != 0)
    stacked = jnp.stack([IMAGES, IMAGES])
    both = jax.vmap(lambda x: operator.apply_batch({"image": x})["image"])(stacked)
    np.testing.assert_array_equal(both[0], run(twin))
    np.testing.assert_array_equal(run(operator), run(twin))


@pytest.mark.parametrize("method", ["get_operation_stats", "get_state"])
def test_counts_and_states_are_not_read_under_jit(method):
    with pytest.raises(ValueError, match=rf"^{method} must be called outside of jit"):
        jax.jit(lambda operator: getattr(operator, method)())(sto())


def test_donating_an_operator_deletes_nothing_that_a_caller_or_another_operator_holds():
    mean, rate = jnp.arange(3.0), jnp.float32(0.3)
    config = config_of("pixel", fill="stats_mean", dropout_rate=rate)
    one, other = (DropoutOperator(config, rngs=seed) for seed in range(2))
    one.set_statistics({"mean": mean})
    other.set_statistics({"mean": mean})
    held = [mean, rate, one.get_statistics(), one.state]
    batch = {"image": IMAGES}
    step = jax.jit(lambda one, batch: (one.apply_batch(batch), one), donate_argnums=0)
    _, one = step(one, batch)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(held))
    jax.jit(lambda state: state.advance(), donate_argnums=0)(one.state)
    one.apply_batch(batch)
    other.apply_batch(batch)
    assert one.copy(config=config.replace(precomputed_stats={"mean": mean})).state is not None


def test_the_examples_of_copy_on_the_page_run():
    module = dropax.ModalityOperator(OperatorConfig(), name="old_name")
    new_config = OperatorConfig(cacheable=True)
    new_module = module.copy(config=new_config)
    renamed = module.copy(name="new_name")
    assert (new_module.config, new_module.name) == (new_config, "old_name")
    assert (renamed.config, renamed.name) == (module.config, "new_name")
    assert module.config == OperatorConfig()


def test_a_copy_that_becomes_stochastic_needs_a_key():
    fixed = det()
    with pytest.raises(ValueError, match=r"DropoutOperator\.rngs must be given if the"):
        fixed.copy(config=config_of("pixel"))
    drawing = fixed.copy(config=config_of("pixel"), rngs=3)
    assert not np.array_equal(run(drawing), run(drawing))


def test_statistics_are_the_operators_own_set_computed_or_reset():
    operator, fresh = (sto(precomputed_stats={"mean": 0.5}) for _ in range(2))
    operator.get_statistics()["mean"] = 7
    assert operator.get_statistics() == {"mean": 0.5}
    given = {"mean": np.zeros(3)}
    operator.set_statistics(given)
    given["mean"][0] = operator.get_statistics()["mean"][0] = 9
    np.testing.assert_array_equal(operator.get_statistics()["mean"], np.zeros(3))
    operator.reset_statistics()
    fresh.set_state(operator.get_state())
    assert operator.get_statistics() is fresh.get_statistics() is None
    computing = sto(batch_stats_fn=lambda data: {"mean": data.mean()})
    run(computing)
    assert computing.get_statistics() is None  # until they are asked for
    for images in (IMAGES, 2 * IMAGES):
        found = float(computing.compute_statistics(images)["mean"])
        assert found == float(computing.get_statistics()["mean"]) == float(images.mean())


def test_no_traced_statistics_stay_in_an_operator():
    operator = sto(batch_stats_fn=lambda data: {"mean": data.mean()})
    with pytest.raises(ValueError, match=r"must not be traced; .*Compute them outside of jit"):
        jax.jit(lambda x: operator.compute_statistics(x)["mean"])(IMAGES)
    with pytest.raises(ValueError, match=r"set_statistics\.stats must not be traced"):
        jax.jit(lambda x: operator.set_statistics({"mean": x}))(IMAGES)
    assert operator.get_statistics() is None


def test_a_cacheable_operator_keeps_one_mask_a_shape_until_it_is_reset():
    operator = det(cacheable=True)
    plain = det()
    np.testing.assert_array_equal(run(operator), run(plain))
    one, _, _ = operator.apply({"image": IMAGES[0]}, {}, {})
    np.testing.assert_array_equal(one["image"], run(plain)[0])
    assert list(operator._cache) == [(4, 4, 3)]
    for twin in (operator.clone(), operator.copy()):
        twin.reset_cache()
        np.testing.assert_array_equal(run(twin), run(plain))
    assert list(operator._cache) == [(4, 4, 3)]
    operator.reset_cache()
    assert operator._cache == {}
    # A config assigned anew forgets the masks of the old one.
    run(operator)
    operator.config = operator.config.replace(seed=5)
    expected = run(DropoutOperator(operator.config, rngs=None))
    np.testing.assert_array_equal(run(operator), expected)
    assert not np.array_equal(run(plain), expected)


def drop(operator, images):
    return operator.apply_batch({"image": images})["image"]


def in_scan(operator, images):
    return jax.lax.scan(lambda carry, x: (carry, drop(operator, x)), None, images[None])[1]


BAKED = {
    "apply_batch": lambda operator: jax.jit(lambda x: drop(operator, x))(IMAGES),
    "apply": lambda operator: jax.jit(lambda x: operator.apply({"image": x}, {}, {}))(IMAGES[0]),
    "scan": lambda operator: in_scan(operator, IMAGES),
    "scan under jit": lambda operator: jax.jit(in_scan)(operator, IMAGES),
}


@pytest.mark.parametrize("way", BAKED)
def test_in_a_closure_a_stochastic_operator_is_refused_and_stays_usable(way):
    operator, twin = sto(), sto()
    method = "apply" if way == "apply" else "apply_batch"
    text = rf"DropoutOperator\.{method} was called under jit, scan or the like on .*Pass the oper"
    with pytest.raises(ValueError, match=text):
        BAKED[way](operator)
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(operator))
    np.testing.assert_array_equal(run(operator), run(twin))


def test_an_operator_as_the_carry_of_a_scan_draws_anew_at_each_step():
    def step(operator, images):
        return operator, drop(operator, images)

    twin = sto()
    steps = jnp.stack([IMAGES] * 3)
    # A carry keeps its types, so the rate is an array from the start.
    first = sto(dropout_rate=jnp.float32(0.5))
    advanced, out = jax.jit(lambda op, xs: jax.lax.scan(step, op, xs))(first, steps)
    for images in out:
        np.testing.assert_array_equal(images, drop(twin, IMAGES))
    assert int(advanced.state.step) == 3


def test_params_that_a_subclass_draws_are_used():
    class Inverted(DropoutOperator):
        def generate_random_params(self, rng, data_shapes):
            params = super().generate_random_params(rng, data_shapes)
            return {"keep_mask": ~params["keep_mask"]}

    expected = drop(sto(), IMAGES)
    inverted = drop(Inverted(sto().config, rngs=0), IMAGES)
    np.testing.assert_array_equal((inverted == 0), (expected != 0))


COMPILED = []


@jax.monitoring.register_event_duration_secs_listener
def note_compilations(event, duration, fun_name="", **rest):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(fun_name)


@pytest.mark.parametrize(
    ("options", "impl"),
    [
        ({"mode": "pixel", "fill": "noise", "apply_probability": 0.5}, "rbg"),
        ({"mode": Block(size=2), "share_mask": True}, "threefry2x32"),
    ],
    ids=str,
)
def test_an_eager_call_compiles_nothing_that_it_has_compiled_before(options, impl):
    config = config_of(**options)
    batch, ids = {"image": np.asarray(IMAGES)}, np.arange(8, dtype=np.uint32)
    ids = None if config.share_mask else ids

    def call(seed):
        key = jax.random.key(seed, impl=impl)
        operator = DropoutOperator(config.replace(dropout_rate=seed / 10), rngs=lambda: key)
        _, state = apply_batch(config, dropax.init_state(config, key), batch)
        apply_batch(config, state, batch, record_ids=ids, epoch=None if ids is None else seed)
        params = dropax.generate_random_params(config, key, {"image": IMAGES.shape})
        first = jax.tree.map(lambda leaf: leaf[0], params)
        dropax.apply(config, {"image": IMAGES[0]}, {}, {}, first)
        dropax.dropout(key, IMAGES, rate=0.3, mode=config.mode)
        operator.apply_batch(batch)
        operator.apply({"image": IMAGES[0]}, {}, {})

    call(0)
    COMPILED.clear()
    call(1)
    assert COMPILED == []
    jax.jit(lambda: 0)()
    assert len(COMPILED) == 1, "compilations are seen"
