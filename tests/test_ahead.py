"""Compiled before it is called, written to a file, kept from one process to the next."""

import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import MODES, SHAPE, config_of, image_of
from dropax import Batch, apply, apply_batch, generate_random_params, init_state

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = image_of(SHAPE)


def scheduled(config):
    """A step whose rate is an argument."""

    def step(rate, state, batch):
        return apply_batch(config.replace(dropout_rate=rate), state, batch)

    return jax.jit(step)


def test_a_step_compiled_ahead_of_time_serves_every_rate_and_no_other_shape(key):
    config = config_of("pixel")
    state = init_state(config, key)
    like = {"image": jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)}
    ahead = scheduled(config).lower(jax.ShapeDtypeStruct((), jnp.float32), state, like).compile()
    for rate in (0.1, 0.6):
        expected = apply_batch(config.replace(dropout_rate=rate), state, {"image": IMAGES})
        chex.assert_trees_all_equal(ahead(jnp.float32(rate), state, {"image": IMAGES}), expected)
    with pytest.raises(TypeError, match="compiled"):
        ahead(jnp.float32(0.1), state, {"image": IMAGES[:2]})


def exported(function, *arguments, **options):
    """A program that was written and read again."""
    exporting = jax.export.export(jax.jit(function), **options)(*arguments)
    return jax.export.deserialize(exporting.serialize())


@pytest.mark.parametrize("mode", ["pixel", "box"])
def test_a_step_exported_for_several_platforms_is_the_step(mode, key):
    config = config_of(MODES[mode])
    state, batch = init_state(config, key), {"image": IMAGES}
    step, platforms = scheduled(config), ["cpu", "cuda", "tpu"]
    again = exported(step, jnp.float32(0.4), state, batch, platforms=platforms)
    for rate in (0.4, 0.2):
        expected = apply_batch(config.replace(dropout_rate=rate), state, batch)
        out, state = again.call(jnp.float32(rate), state, batch)
        chex.assert_trees_all_equal((out, state), expected)


def test_an_exported_step_takes_batches_with_ids_too(key):
    config = config_of("pixel")
    marks = {"record_ids": [1, 2, 3, 2**40], "valid_mask": np.ones(4, bool)}
    batch = Batch.from_parts({"image": IMAGES}, **marks)
    arguments = init_state(config, key), batch, np.uint32(3)
    step = exported(lambda *given: apply_batch(config, *given[:2], epoch=given[2]), *arguments)
    out = step.call(*arguments)[0]
    chex.assert_trees_all_equal(out, apply_batch(config, *arguments[:2], epoch=3)[0])
    assert isinstance(out, Batch)


def with_any_batch(like):
    """The shape of arrays such as this one, of any number of records."""
    shape = (*jax.export.symbolic_shape("batch"), *like.shape[1:])
    return jax.ShapeDtypeStruct(shape, like.dtype)


@pytest.mark.parametrize(("mode", "sizes"), [("channel, one kept", (1, 4)), ("block", (4,))])
def test_an_exported_step_takes_batches_of_any_size(mode, sizes, key):
    config = config_of(MODES[mode], apply_probability=0.5)
    state = init_state(config, key)
    like = {"image": with_any_batch(IMAGES)}
    step = exported(lambda state, batch: apply_batch(config, state, batch), state, like)
    for size in sizes:
        batch = {"image": np.asarray(IMAGES)[:size]}
        chex.assert_trees_all_equal(step.call(state, batch), apply_batch(config, state, batch))


CONFIG = config_of(MODES["channel, one kept"], fill="noise", dropout_rate=(0.2, 0.6))
KEY, TOKENS = jax.random.key(0), dropax.keep_tokens
KEPT = {"keep_mask": np.ones(IMAGES.shape[1:], bool), "rate": 0.5, "fill_key": jax.random.key(1)}


@pytest.mark.parametrize(
    ("call", "like"),
    [
        (lambda x: dropax.dropout(KEY, x, rate=0.5), IMAGES),
        (lambda x: generate_random_params(CONFIG, KEY, {"image": x.shape})["keep_mask"], IMAGES),
        (lambda x: jax.vmap(lambda x: apply(CONFIG, {"image": x}, {}, {}, KEPT)[0])(x), IMAGES),
        (lambda x: dropax.box_mask(x, (6, 5)), np.ones((4, 2, 4), np.float32)),
        (lambda x: dropax.length_mask(x, 5), np.arange(4, dtype=np.int32)),
        (lambda x: dropax.dropped_fraction(x), np.ones((4, 6, 5, 3), bool)),
        (lambda x: dropax.visible_fraction(x, jnp.ones((*x.shape[:1], 2, 4))), IMAGES > 3),
        (lambda x: dropax.visible_points(x, jnp.ones((*x.shape[:1], 2, 2))), IMAGES > 3),
        (lambda x: dropax.patch_mask(x, 1), IMAGES > 3),
        (lambda x: TOKENS(x, 2), IMAGES[:, :, 0, 0] > 3),
        (lambda x: dropax.gather_tokens(x, jnp.ones((*x.shape[:2], 1), int)), IMAGES),
        (lambda x: dropax.scatter_tokens(x, TOKENS(x[..., 0] > -9, 3), 0), IMAGES[:, :3, 0]),
    ],
)
def test_what_is_public_exports_with_a_batch_of_any_size(call, like):
    program = jax.export.export(jax.jit(call))(with_any_batch(like))
    for size in (2, 4):
        x = jnp.asarray(like)[:size]
        chex.assert_trees_all_close(program.call(x), call(x))


def test_only_the_batch_axis_of_an_exported_step_may_be_symbolic(key):
    config = config_of("pixel")
    shape = (*jax.export.symbolic_shape("batch, height, width"), 3)
    text = r"shape of an element must be known; .* Only the batch axis may be symbolic\."
    images = jax.ShapeDtypeStruct(shape, IMAGES.dtype)
    with pytest.raises(ValueError, match=text):
        jax.jit(apply_batch).trace(config, init_state(config, key), {"image": images})


COUNTS_HITS = """
import sys
import jax
import jax.numpy as jnp

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import dropax

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
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


def test_ids_of_a_batch_that_is_made_within_an_exported_step_are_of_any_number(key):
    config = config_of("pixel")
    state, ids = init_state(config, key), np.arange(4, dtype=np.uint32)

    def step(images, ids):
        batch = Batch.from_parts({"image": images}, record_ids=ids, valid_mask=ids < 9)
        assert "image" in repr(batch)
        return apply_batch(config, state, batch, epoch=0)[0]["image"]

    of_any = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((*of_any, *IMAGES.shape[1:]), IMAGES.dtype)
    program = jax.export.export(jax.jit(step))(images, jax.ShapeDtypeStruct(of_any, ids.dtype))
    np.testing.assert_array_equal(program.call(IMAGES, ids), step(IMAGES, ids))


def test_an_exported_program_that_returns_tokens_is_written_and_read():
    mask = np.array([[True, False, True]])
    program = jax.export.export(jax.jit(lambda mask: TOKENS(mask, 2)))(mask)
    read = jax.export.deserialize(program.serialize())
    chex.assert_trees_all_equal(read.call(mask), TOKENS(mask, 2))
