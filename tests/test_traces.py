"""Operators inside transformations inside transformations: no mask is repeated, no tracer stays.

And outside of them all: what is called eagerly is compiled once.
"""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from cases import SHAPE, config_of, image_of
from dropax import (
    Block,
    DropoutOperator,
    apply,
    apply_batch,
    dropout,
    generate_random_params,
    init_state,
)

IMAGES = image_of(SHAPE)
REFUSED = r"was called under jit, scan or the like on a stochastic operator from outside"


def operator_of(**options):
    return DropoutOperator(config_of("pixel", **options), rngs=0)


def drop(operator, images):
    return operator.apply_batch({"image": images})["image"]


def in_scan(operator, images):
    return jax.lax.scan(lambda carry, x: (carry, drop(operator, x)), None, images[None])[1]


def in_cond(operator, images):
    return jax.lax.cond(images.sum() > 0, lambda x: drop(operator, x), lambda x: x, images)


def in_checkpoint(operator, images):
    return jax.checkpoint(lambda x: drop(operator, x))(images)


@pytest.mark.parametrize("inner", [in_scan, in_cond, in_checkpoint])
def test_a_traced_operator_is_refused_in_the_closure_of_an_inner_transformation(inner):
    with pytest.raises(ValueError, match=REFUSED):
        jax.jit(inner)(operator_of(), IMAGES)
    operator = operator_of()
    with pytest.raises(ValueError, match=REFUSED):
        inner(operator, IMAGES)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operator))


def test_an_operator_as_the_carry_of_a_scan_draws_anew_at_each_step():
    def step(operator, images):
        return operator, drop(operator, images)

    twin = operator_of()
    steps = jnp.stack([IMAGES] * 3)
    # A carry keeps its types, so the rate is an array from the start.
    first = operator_of(dropout_rate=jnp.float32(0.4))
    advanced, out = jax.jit(lambda op, xs: jax.lax.scan(step, op, xs))(first, steps)
    for images in out:
        np.testing.assert_array_equal(images, drop(twin, IMAGES))
    assert int(advanced.state.step) == 3


def test_gradients_and_maps_inside_jit_draw_once_a_call():
    operator, twin = operator_of(), operator_of()

    @jax.jit
    def step(operator, images):
        return jax.grad(lambda x: drop(operator, x).sum())(images), operator

    for _ in range(2):
        gradient, operator = step(operator, IMAGES)
        np.testing.assert_array_equal(gradient != 0, drop(twin, IMAGES) != 0)


def test_specs_are_told_under_jit():
    operator = operator_of(target_key="out")

    def told(operator, images):
        spec = operator.output_spec({"image": images[0]})
        return jnp.zeros(spec["out"].shape), operator

    out, _ = jax.jit(told)(operator, IMAGES)
    assert out.shape == (6, 5, 3)


def test_params_that_a_subclass_draws_are_used():
    class Inverted(DropoutOperator):
        def generate_random_params(self, rng, data_shapes):
            params = super().generate_random_params(rng, data_shapes)
            return {"keep_mask": ~params["keep_mask"]}

    expected = drop(operator_of(), IMAGES)
    inverted = drop(Inverted(config_of("pixel"), rngs=0), IMAGES)
    np.testing.assert_array_equal((inverted == 0), (expected != 0))


def test_the_one_liner_refuses_to_give_every_shard_the_same_mask(key):
    mesh = jax.make_mesh((4,), ("shard",), axis_types=(jax.sharding.AxisType.Auto,))
    over, images = jax.P("shard"), image_of((8, 6, 5, 3))

    mapped = jax.shard_map(dropout, mesh=mesh, in_specs=(jax.P(), over), out_specs=over)
    with pytest.raises(ValueError, match=r"dropout\.key must vary over the manual axis 'shard'"):
        mapped(key, images)


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
    batch, ids = {"image": np.asarray(IMAGES)}, np.arange(4, dtype=np.uint32)
    ids = None if config.share_mask else ids

    def call(seed):
        key = jax.random.key(seed, impl=impl)
        operator = DropoutOperator(config.replace(dropout_rate=seed / 10), rngs=lambda: key)
        _, state = apply_batch(config, init_state(config, key), batch)
        apply_batch(config, state, batch, record_ids=ids, epoch=None if ids is None else seed)
        params = generate_random_params(config, key, {"image": SHAPE})
        first = jax.tree.map(lambda leaf: leaf[0], params)
        apply(config, {"image": IMAGES[0]}, {}, {}, first)
        dropout(key, IMAGES, rate=0.3, mode=config.mode)
        operator.apply_batch(batch)
        operator.apply({"image": IMAGES[0]}, {}, {})

    call(0)
    COMPILED.clear()
    call(1)
    assert COMPILED == []
    jax.jit(lambda: 0)()
    assert len(COMPILED) == 1, "compilations are seen"


class Summed(DropoutOperator):
    """A dropout with an `apply` of its own."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        data, state, metadata = super().apply(data, state, metadata, random_params, stats)
        return {**data, "sum": data["image"].sum()}, state, metadata


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_an_eager_call_of_a_users_operator_is_compiled_once_for_each_shape(strategy):
    operator = Summed(config_of("pixel", batch_strategy=strategy), rngs=0)
    operator.apply_batch({"image": IMAGES})
    COMPILED.clear()
    operator.apply_batch({"image": IMAGES})
    assert not COMPILED
    operator.apply_batch({"image": IMAGES[:2]})
    assert COMPILED
