"""The faults of the reference implementation under jit and on meshes, by number.

The comment above each test says what broke there.
"""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import dropax
from dropax import Batch
from reference import ONES, det, equal, make, run, sto


# In a closure under jit it failed obscurely; as an argument it gave equal masks at each call.
def test_fault_30_under_jit_a_stochastic_operator_is_an_argument_and_comes_back_advanced():
    operator = sto()
    with pytest.raises(ValueError, match="Pass the operator as an argument and return it"):
        jax.jit(lambda images: operator.apply_batch({"image": images}))(ONES)
    step = jax.jit(lambda operator, data: (operator.apply_batch(data)["image"], operator))
    first, advanced = step(operator, {"image": ONES})
    second, advanced = step(advanced, {"image": ONES})
    assert equal([first, second], [run(operator), run(operator)])
    assert not equal(first, second)
    assert advanced.get_operation_stats() == {"applied_count": 16, "skipped_count": 0}
    assert equal(
        jax.jit(lambda images: det().apply_batch({"image": images})["image"])(ONES), run(det())
    )


# Each operator had an identity of its own, so each was compiled anew. (There is no nnx.jit here.)
def test_fault_31_equal_operators_share_one_trace():
    traces = []

    @jax.jit
    def step(operator, data):
        traces.append(1)
        return operator.apply_batch(data), operator

    for seed in range(3):
        step(sto(seed=seed, dropout_rate=0.1 * seed), {"image": ONES})
    assert len(traces) == 1
    step(sto(), {"image": ONES[:2]})
    assert len(traces) == 2  # another size, another trace


# Metadata of strings could not enter a compiled function. (There is no nnx.jit here.)
def test_fault_32_metadata_of_strings_is_no_obstacle_to_jit():
    names = [f"{number}.png" for number in range(8)]
    batch = Batch.from_parts({"image": ONES}, metadata_list=names, batch_metadata="train")
    out = sto().apply_batch(batch)
    assert (out.metadata_list, out.batch_metadata) == (names, "train")
    jitted = jax.jit(lambda operator, batch: operator.apply_batch(batch))(sto(), batch)
    assert equal(jitted["image"], out["image"])
    assert jitted.metadata_list == [None] * 8


# An empty batch came back without its target, and without looking for the field.
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_fault_33_an_empty_batch_has_the_fields_of_a_full_one(stochastic, strategy):
    operator = make(stochastic, batch_strategy=strategy, target_key="t")
    out = operator.apply_batch(Batch.from_parts({"image": ONES[:0]}))
    assert {name: field.shape for name, field in out.data.items()} == {
        "image": (0, 4, 4, 3),
        "t": (0, 4, 4, 3),
    }
    with pytest.raises(KeyError, match="field 'image' not found"):
        operator.apply_batch({"depth": ONES[:0]})


# A batch sharded over an explicit mesh was a ShardingTypeError.
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto], ids=str)
@pytest.mark.parametrize("mode", ["pixel", "channel"])
@pytest.mark.parametrize("stochastic", [False, True])
def test_fault_34_a_sharded_batch_meets_the_same_masks_and_stays_sharded(
    axis_type, mode, stochastic
):
    mesh = jax.make_mesh((8,), ("b",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, PartitionSpec("b"))
    expected = run(make(stochastic, mode=mode))
    with jax.set_mesh(mesh):
        images = jax.device_put(ONES, sharding)
        out = make(stochastic, mode=mode).apply_batch({"image": images})["image"]
    assert equal(out, expected)
    assert out.sharding.is_equivalent_to(sharding, out.ndim)


# Around shard_map every shard got the same masks in silence.
@pytest.mark.filterwarnings("ignore:a concrete op_state was captured under jit")
def test_fault_35_shards_draw_masks_of_their_own_or_none():
    mesh, over = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,)), PartitionSpec("b")
    config, op_state = sto().config, sto().state

    def shared(data):
        return dropax.apply_batch(config, op_state, data)[0]

    def own(data):
        key = jax.random.fold_in(op_state.key, jax.lax.axis_index("b"))
        return dropax.apply_batch(config, op_state.replace(key=key), data)[0]

    def mapped(function):
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=over, out_specs=over))

    with pytest.raises(ValueError, match="must vary over the manual axis 'b' as the data does"):
        mapped(shared)({"image": ONES})
    out = np.asarray(mapped(own)({"image": ONES})["image"])
    assert len({record.tobytes() for record in out}) == 8
    fixed = mapped(lambda data: dropax.apply_batch(det().config, det().state, data)[0])
    assert equal(fixed({"image": ONES})["image"], run(det()))
