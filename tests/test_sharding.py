"""What each device does, read from the compiled program: its own part, and nothing goes around.

Work is counted per device by the compiler. It must be the same on one device and on eight that have
eight times the records (weak scaling), and a device's temporaries must shrink with its part. That
no record of any mode goes around is read where loops are (`test_compiled.py`). Work is split
among devices before anything that conftest.py leaves out.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from cases import MODES, REPRESENTATIVES, collectives, config_of, mesh_of
from dropax import Batch, apply_batch, init_state

EACH = 5  # records of a device; with those of eight, 40, no other axis is as long


@functools.cache
def program(mode, devices, spec, shape, kind=AxisType.Auto, ids=False, **options):
    """Compiles a step for a batch that lies over a mesh, its ids and its valid mask with it."""
    config = config_of(MODES[mode], **options)
    mesh = mesh_of(devices, kind)

    def lying(spec, shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec))

    marks = {}
    if ids:
        marks["record_ids"] = lying(jax.P("x"), (shape[0], 2), jnp.uint32)
        marks["valid_mask"] = lying(jax.P("x"), shape[:1], jnp.bool_)
    batch = Batch.unchecked({"image": lying(spec, shape, jnp.float32)}, {}, **marks)
    state = init_state(config, jax.random.key(0))
    epoch = jnp.uint32(1) if ids else None
    compiled = jax.jit(apply_batch).lower(config, state, batch, epoch=epoch).compile()
    out, _ = compiled.output_shardings
    kept = jax.NamedSharding(mesh, spec)
    assert all(one.is_equivalent_to(kept, len(shape)) for one in out.data.values())
    return compiled


def work(compiled):
    """(operations, bytes set aside) of one device."""
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("mode", REPRESENTATIVES)
def test_ids_and_padding_take_one_scalar_and_work_does_not_grow_with_devices(mode):
    alone = program(mode, 1, jax.P("x"), (EACH, 32, 32, 3), ids=True)
    spread = program(mode, 8, jax.P("x"), (8 * EACH, 32, 32, 3), ids=True)
    assert collectives(alone) == []
    assert collectives(spread) in (["u32[]"], ["(u32[], u32[])"])  # records, and those applied to
    (operations, stored), (least, needed) = work(spread), work(alone)
    assert least <= operations <= least + 20  # of some ten thousand: the place of the shard
    assert stored <= needed + 128


def test_counting_records_over_devices_takes_one_scalar():
    options = {"apply_probability": 0.5, "dropout_rate": (0.1, 0.3)}
    spread = program("pixel", 8, jax.P("x"), (8 * EACH, 32, 32, 3), **options)
    assert collectives(spread) == ["u32[]"]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, AxisType.Auto) for mode in ("pixel", "whole pixel", "channel")),
        ("pixel", AxisType.Explicit),
    ],
)
def test_sharded_heights_are_their_devices_own_work_and_nothing_goes_around(mode, kind):
    alone = program(mode, 1, jax.P(), (EACH, 32, 64, 3))
    spread = program(mode, 8, jax.P(None, "x"), (EACH, 32 * 8, 64, 3), kind)
    assert collectives(spread) == []
    (operations, stored), (least, needed) = work(spread), work(alone)
    # The place of a shard is added to each coordinate.
    assert operations < least * 1.02 + 100
    assert stored < needed * 1.02 + 512


def test_blocks_over_heights_exchange_edges_of_masks_and_no_image():
    spread = program("block", 8, jax.P(None, "x"), (EACH, 256, 64, 3))
    assert all(kind.startswith("pred[") for kind in collectives(spread))
