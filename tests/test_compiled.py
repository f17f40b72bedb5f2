"""What the compiler makes of it: nothing drawn twice, nothing stored that need not be.

Times are for benchmarks. Here the compiled program is read: how many operations an element it does,
how many bytes it keeps aside, and what shares a loop with a draw. A Threefry block is about 120
operations, so a program that draws a mask again, or once for each value that shares a draw, shows
at once. On CPU every mask is stored, a byte a value of its own, by a loop that does nothing else;
one that also reads and writes images is up to six times slower (`dropax.bits.materialize`).
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import AS_USERS, MODES, collectives, config_of, every_class, mesh_of
from dropax import Pixel, apply_batch, init_state

BLOCK = 125  # operations of one draw, its counter, compare and select
SELECT = 6  # operations of a select by bits, and what little comes with it
STORED = 1.05  # bytes an element that a mask takes


def cost_of(program, size):
    """Returns (operations, bytes kept aside), each for one of so many values."""
    stored = program.memory_analysis().temp_size_in_bytes
    return program.cost_analysis()["flops"] / size, stored / size


def compiled(function, *arguments):
    size = max(np.size(leaf) for leaf in jax.tree.leaves(arguments) if hasattr(leaf, "shape"))
    return cost_of(jax.jit(function).lower(*arguments).compile(AS_USERS), size)


def drop(config, state, images):
    return apply_batch(config, state, {"image": images})


def arguments_of(mode, shape, dtype=jnp.float32, **options):
    config = config_of(mode, **options)
    state = init_state(config, jax.random.key(0) if config.stochastic else None)
    return config, state, jax.ShapeDtypeStruct(shape, dtype)


# Off the CPU each step of a loop launches kernels, and a conditional makes the host of a GPU wait.
SORTED = ("channel, one kept",)


def lowered(function, *arguments, platforms):
    """The programs that XLA is given for other platforms, which need not be there."""
    traced = jax.jit(function).trace(*arguments)
    return [traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms]


def conditionals(text):
    """The `case` operations of a lowered program whose index is not constant.

    What depends on the platform is a case of the platform's index, and that one of a constant.
    """
    assert "stablehlo.if" not in text
    found, constants = [], set()
    for line in text.splitlines():
        if "func.func" in line:
            constants = set()  # names are those of one function
        name, _, operation = line.strip().partition(" = ")
        index = re.match(r'"stablehlo.case"\((%\w+)\)', operation)
        if operation.startswith("stablehlo.constant") or (index and index[1] in constants):
            constants.add(name)
        elif index:
            found.append(index[1])
    return found


@pytest.mark.parametrize("extent_key", [None, "size"])
@pytest.mark.parametrize("mode", MODES)
def test_off_the_cpu_there_is_no_loop_and_no_conditional(mode, extent_key):
    sizes = np.array([[16, 16], [1, 16], [9, 7], [0, 3]])

    def step(images, config, state):
        batch, state = apply_batch(config, state, {"image": images, "size": sizes})
        return (batch["image"] ** 2).sum(), (batch, state)

    options = {"mask_key": "mask", "extent_key": extent_key}
    config, state, images = arguments_of(MODES[mode], (4, 16, 16, 3), **options)
    gradient = jax.value_and_grad(step, has_aux=True)
    platforms = ("cuda", "tpu") if "block" in mode else ("cuda",)  # alike but for `Block`
    for program in lowered(gradient, images, config, state, platforms=platforms):
        assert "stablehlo.while" not in program
        assert conditionals(program) == []
        assert ("stablehlo.sort" in program) is (mode in SORTED)


def test_on_the_cpu_there_is_a_conditional_which_these_tests_would_see():
    (program,) = lowered(drop, *arguments_of("box", (4, 32, 32, 3)), platforms=("cpu",))
    assert conditionals(program)


@pytest.mark.parametrize("units", [256, 257])
def test_off_the_cpu_many_units_are_sorted_and_few_compared(units):
    arguments = arguments_of(dropax.Channel(exact=True), (4, 2, 2, units))
    (program,) = lowered(drop, *arguments, platforms=("cuda",))
    assert "stablehlo.while" not in program
    assert ("stablehlo.sort" in program) is (units > 256)


def draws(text):
    """The computations of a compiled program that hold a draw: (xors, type of the result)."""
    for body in re.split(r"\n(?=%|ENTRY)", text):
        xors = len(re.findall(r" xor\(", body))
        if xors >= 20:  # rounds of one draw
            yield xors, re.search(r"ROOT \S+ = (\w+)\[", body).group(1)


@functools.cache
def sharded(mode):
    """The program of a batch of images of bytes, of which each of eight devices has 32."""
    over = jax.NamedSharding(mesh_of(8), jax.P("x"))
    config, state, images = arguments_of(mode, (8 * 32, 64, 64, 3), jnp.uint8)
    program = jax.jit(drop).lower(config, state, images.update(sharding=over)).compile(AS_USERS)
    assert program.output_shardings[0]["image"].is_equivalent_to(over, 4)
    return program


@every_class
def test_the_loop_that_writes_the_images_only_selects_and_devices_exchange_nothing(mode):
    assert collectives(sharded(mode)) == []
    text = sharded(mode).as_text()
    assert "[256," not in text  # each device's own records, and no whole image or mask
    written = "u8[32,64,64,3]"
    bodies = re.split(r"\n(?=%|ENTRY)", text)
    loops = [body for body in bodies if f"-> {written}" in body.partition("\n")[0]]
    assert len(loops) == 1
    operations = set(re.findall(r" = \S+ ([\w-]+)\(", loops[0]))
    # A select by bits of images and a mask that was stored, or that repeats stored draws. A copy
    # moves the mask's last axis, of size 1.
    assert operations <= {
        *("parameter", "constant", "broadcast", "bitcast", "reshape", "slice", "copy"),
        *("convert", "negate", "not", "and", "xor"),
    }


COSTS = {  # of each value: operations, bytes
    "pixel": (BLOCK * 1.05, STORED),
    "channel, one kept": (SELECT, 0.05),
    "channel, exact": (SELECT, 0.05),
    "block": (BLOCK * 1.05 / 3 + SELECT + 3, 1.2 / 3),  # seeds, drawn once for all channels
    "patch": (BLOCK * 1.05 / 12 + SELECT, 1.2 / 12),
    "boxes, clipped": (SELECT + 2, STORED / 3),
    "grid, units": (SELECT + 2, STORED / 3),
    "bands": (SELECT + 2, 0.05),
    "inverted": (SELECT + 2, STORED / 3),
}


@pytest.mark.parametrize("mode", COSTS)
def test_a_mask_is_drawn_once_and_stored_as_far_as_values_differ_in_it(mode):
    operations, stored = cost_of(sharded(MODES[mode]), 32 * 64 * 64 * 3)
    assert operations < COSTS[mode][0]
    assert stored < COSTS[mode][1]


BATCH, ONE = (32, 64, 64, 3), BLOCK * 1.05 / 32 + SELECT
LEFT = {"dropout_rate": (0.1, 0.3), "apply_probability": 0.5}
# Arguments, and what a value costs at most: operations, bytes.
OPTIONS = {
    "one image": (("pixel", (1, 255, 33, 3)), {}, BLOCK * 1.05, STORED + 0.16),
    "volumes": (("pixel", (16, 4, 16, 16, 3)), {}, BLOCK * 1.05, STORED + 0.08),
    "signals": (("pixel", (8, 4001)), {}, BLOCK * 1.05, STORED + 0.12),
    "a narrow float": (("pixel", BATCH, jnp.bfloat16), {}, BLOCK * 1.05, STORED),
    "channels share": ((Pixel(per_channel=False), BATCH), {}, BLOCK * 1.05 / 3 + SELECT, 1.05 / 3),
    "records left alone, and a rate of their own": (("pixel", BATCH), LEFT, BLOCK * 1.05, STORED),
    "records share": (("pixel", BATCH), {"share_mask": True}, ONE, 1.05 / 32),
    "the fixed pattern": (("pixel", BATCH), {"stochastic": False}, ONE, 1.05 / 32),
    "a scan": (("pixel", (64, 64, 64, 3)), {"batch_strategy": "scan"}, np.inf, 1.5 / 64),
    "bands on a long axis": ((dropax.Band(count=8), (16, 10**5, 1)), {}, np.inf, STORED),
}


@pytest.mark.parametrize(("arguments", "options", "most", "bytes_"), OPTIONS.values(), ids=OPTIONS)
def test_what_shares_a_mask_draws_and_stores_it_once(arguments, options, most, bytes_):
    operations, stored = compiled(drop, *arguments_of(*arguments, **options))
    assert 100 * (most == BLOCK * 1.05) <= operations < most
    assert stored < bytes_


def test_a_gradient_draws_no_mask_again():
    config, state, images = arguments_of("pixel", (32, 64, 64, 3))

    def loss(images, config, state):
        return (drop(config, state, images)[0]["image"] ** 2).sum()

    operations, _ = compiled(jax.value_and_grad(loss), images, config, state)
    assert operations < BLOCK * 1.05 + 10


CHAIN = dropax.chain(*map(config_of, ("pixel", "channel", Pixel(per_channel=False))))


def test_a_chain_draws_each_mask_once_and_off_the_cpu_has_no_loop_and_no_conditional():
    images = {"image": jax.ShapeDtypeStruct((32, 64, 64, 3), jnp.float32)}
    states = CHAIN.init_state(jax.random.key(0))
    operations, _ = compiled(CHAIN.apply_batch, states, images)
    assert operations < BLOCK * 1.05 * (1 + 1 / 3) + 6
    for program in lowered(CHAIN.apply_batch, states, images, platforms=("cuda", "tpu")):
        assert "stablehlo.while" not in program
        assert conditionals(program) == []


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_no_draw_shares_its_loop_with_another_or_with_images(strategy):
    config, state, images = arguments_of("pixel", (32, 64, 64, 3), batch_strategy=strategy)

    def step(config, state, images):
        images = (images - 0.5) / 0.25
        for _ in range(2):
            batch, state = drop(config, state, images)
            images = jax.nn.gelu(batch["image"])
        return images.sum(axis=(1, 2)), state

    text = jax.jit(step).lower(config, state, images).compile(AS_USERS).as_text()
    masks = [(xors, dtype) for xors, dtype in draws(text) if dtype != "u32"]  # u32: keys
    assert masks == [(xors, "pred") for xors, _ in masks]
    assert len(masks) == 2
    assert all(xors < 30 for xors, _ in masks)


def test_the_one_liner_compiles_to_the_same():
    images = jax.ShapeDtypeStruct((32, 64, 64, 3), jnp.float32)
    operations, stored = compiled(lambda key, x: dropax.dropout(key, x), jax.random.key(0), images)
    assert operations < BLOCK * 1.05
    assert stored < STORED
