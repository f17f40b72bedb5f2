"""Compiled before it is called, written to a file, kept from one process to the next."""

import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES, REPRESENTATIVES, config_of, image_of
from dropax import Batch, Element, apply_batch, init_state

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = image_of((4, 6, 5, 3))
modes = pytest.mark.parametrize("mode", ["pixel", "block", "box"])


def scheduled(config):
    """A step whose rate is an argument."""

    def step(rate, state, batch):
        return apply_batch(config.replace(dropout_rate=rate), state, batch)

    return jax.jit(step)


@modes
def test_a_step_compiled_ahead_of_time_serves_every_rate_and_no_other_shape(mode, key):
    step, state = scheduled(config_of(MODES[mode])), init_state(config_of("pixel"), key)
    like = {"image": jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)}
    ahead = step.lower(jax.ShapeDtypeStruct((), jnp.float32), state, like).compile()
    for rate in (0.1, 0.6):
        arguments = jnp.float32(rate), state, {"image": IMAGES}
        chex.assert_trees_all_equal(ahead(*arguments), step(*arguments))
    with pytest.raises(TypeError, match="compiled"):
        ahead(jnp.float32(0.1), state, {"image": IMAGES[:2]})


@modes
def test_a_step_exported_for_several_platforms_is_the_step(mode, key):
    pytest.importorskip("flatbuffers")
    step, state = scheduled(config_of(MODES[mode])), init_state(config_of("pixel"), key)
    arguments = jnp.float32(0.4), state, {"image": IMAGES}
    written = jax.export.export(step, platforms=["cpu", "cuda", "tpu"])(*arguments).serialize()
    again = jax.export.deserialize(written)
    out, after = again.call(*arguments)
    expected, expected_after = step(*arguments)
    chex.assert_trees_all_equal(out, expected)
    assert str(after) == str(expected_after)
    second, _ = again.call(jnp.float32(0.2), after, {"image": IMAGES})
    chex.assert_trees_all_equal(second, step(jnp.float32(0.2), expected_after, arguments[2])[0])


def test_an_exported_step_takes_batches_with_ids_and_elements_too(key):
    pytest.importorskip("flatbuffers")
    config = config_of("pixel")
    batch = Batch.from_parts(
        {"image": IMAGES}, record_ids=[1, 2, 3, 2**40], valid_mask=np.ones(4, bool)
    )
    step = jax.jit(lambda state, batch, epoch: apply_batch(config, state, batch, epoch=epoch))
    arguments = init_state(config, key), batch, np.uint32(3)
    again = jax.export.deserialize(jax.export.export(step)(*arguments).serialize())
    out, expected = again.call(*arguments)[0], step(*arguments)[0]
    chex.assert_trees_all_equal(out, expected)
    assert isinstance(out, Batch)
    brighter = jax.jit(lambda element: element.apply_to_data(lambda x: x + 1))
    element = Element({"image": IMAGES[0]})
    again = jax.export.deserialize(jax.export.export(brighter)(element).serialize())
    chex.assert_trees_all_equal(again.call(element), brighter(element))


@pytest.mark.parametrize("mode", REPRESENTATIVES)
def test_an_exported_step_takes_batches_of_any_size(mode, key):
    pytest.importorskip("flatbuffers")
    config = config_of(MODES[mode], apply_probability=0.5)
    (size,) = jax.export.symbolic_shape("batch")
    like = {"image": jax.ShapeDtypeStruct((size, *IMAGES.shape[1:]), IMAGES.dtype)}
    state = init_state(config, key)
    step = jax.jit(lambda state, batch: apply_batch(config, state, batch))
    exported = jax.export.export(step)(state, like)
    for count in (1, 4):
        batch = {"image": IMAGES[:count]}
        out, after = exported.call(state, batch)
        expected, expected_after = step(state, batch)
        chex.assert_trees_all_equal(out, expected)
        assert str(after) == str(expected_after)


@pytest.mark.parametrize("mode", ["pixel", "whole pixel", "channel", "grid"])
def test_an_exported_step_takes_images_of_any_size_if_the_mode_needs_no_table(mode, key):
    pytest.importorskip("flatbuffers")
    config, state = config_of(MODES[mode]), init_state(config_of("pixel"), key)
    shape = (*jax.export.symbolic_shape("batch, height, width"), 3)
    step = jax.jit(lambda state, batch: apply_batch(config, state, batch))
    exported = jax.export.export(step)(state, {"image": jax.ShapeDtypeStruct(shape, jnp.float32)})
    batch = {"image": image_of((2, 7, 9, 3))}
    chex.assert_trees_all_equal(exported.call(state, batch)[0], step(state, batch)[0])


COUNTS_HITS = """
import sys
import jax
import jax.numpy as jnp

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import dropax

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True, mode="box")
state = dropax.init_state(config, jax.random.key(int(sys.argv[2])))
step = jax.jit(dropax.apply_batch).lower(config, state, {"image": jnp.ones((4, 6, 5, 3))})
events.clear()
step.compile()
print(events.count("/jax/compilation_cache/cache_hits"))
print(events.count("/jax/compilation_cache/cache_misses"))
"""


def test_another_process_finds_the_compiled_step_in_the_cache(tmp_path):
    def run(seed):
        command = [sys.executable, "-c", COUNTS_HITS, str(tmp_path), str(seed)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
        return list(map(int, done.stdout.split()))

    assert run(0) == [0, 1]
    assert run(1) == [1, 0]
