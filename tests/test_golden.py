"""Masks pinned as they are: a change here is a change of the stream, and a breaking release.

If one of these fails, decide: either mend the code, or raise `STREAM_VERSION`, say so in the
changelog, and bless the new masks with `python tests/test_golden.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import AS_USERS, MODES, config_of
from dropax import STREAM_VERSION, Blocks, Box, apply_batch, generate_random_params, init_state

# The masks of two records of shape (2, 5, 3) at rate 0.4 from key(42), packed, in hexadecimal.
GOLDEN = {
    "pixel": "c1b7aa84ffd6eb10",
    "whole pixel": "c18ff0",
    "channel": "c4",
    "channel, one kept": "c4",
    "block": "840210",
    "block, per channel": "a5b74b6d0b221640",
    "patch": "f78210",
    "box": "ce6730",
    "boxes, clipped": "ad4ff0",
    "grid": "fc8840",
    "grid, units": "fc98c0",
    "band": "90",
    "bands": "e1c0",
    "channel, exact": "ac",
    "patch, exact": "ce4e70",
    "blocks": "6b43f0",
    "record": "80",
    "one of": "03fe07fff03fe070",
    "shared": "c1b67fe8",
    "inverted": "31b180",
}


def drawn(mode):
    def draw(key):
        return generate_random_params(config_of(MODES[mode]), key, {"image": (2, 2, 5, 3)})

    return jax.jit(draw, compiler_options=AS_USERS)(jax.random.key(42))["keep_mask"]


def packed(mask):
    return np.packbits(np.asarray(mask).reshape(-1)).tobytes().hex()


@pytest.mark.parametrize("mode", MODES)
def test_masks_are_those_of_the_first_release(mode):
    assert packed(drawn(mode)) == GOLDEN[mode]


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_masks_of_keys_of_another_implementation_are_pinned_too(impl):
    key = jax.random.key(42, impl=impl)
    params = generate_random_params(config_of("pixel"), key, {"image": (2, 2, 5, 3)})
    assert packed(params["keep_mask"]) == "b7a3967a3744dc00"


def test_the_masks_of_three_steps_are_those_of_the_first_release():
    config = config_of("pixel")
    state = init_state(config, jax.random.key(7))
    shown = []
    for _ in range(3):
        batch, state = apply_batch(config, state, {"image": jnp.ones((1, 2, 4, 1))})
        shown.append(packed(batch["image"] != 0))
    assert shown == ["b1", "8e", "7d"]
    assert STREAM_VERSION == 3


def test_the_fixed_pattern_is_that_of_the_first_release():
    config = config_of("pixel", stochastic=False)
    batch, _ = apply_batch(config, init_state(config), {"image": jnp.ones((1, 4, 4, 1))})
    assert packed(batch["image"] != 0) == "feae"


def test_masks_within_extents_and_of_a_drawn_number_of_boxes_are_pinned():
    shown = []
    for mode in ("box", "block", Box(count=(1, 3)), Blocks(size=1, min_cells=2)):
        config = config_of(mode, extent_key="size", mask_key="kept")
        data = {"image": jnp.ones((2, 6, 5, 1)), "size": np.array([[6, 4], [3, 5]])}
        batch, _ = apply_batch(config, init_state(config, jax.random.key(42)), data)
        shown.append(packed(batch["kept"]))
    assert shown == ["8c631ffc63fffff0", "084210840007fff0", "ce739ffc03fffff0", "dfe318ff3ce7fff0"]


def test_what_is_drawn_beside_the_mask_is_that_of_the_first_release():
    key = jax.random.key(42)
    config = config_of("pixel", dropout_rate=(0.2, 0.8), apply_probability=0.5, fill="noise")
    params = generate_random_params(config, key, {"image": (8, 2, 2, 1)})
    assert packed(params["applied"]) == "52"
    np.testing.assert_allclose(params["rate"][:3], [0.48961937, 0.49978209, 0.33192492], atol=1e-6)
    assert jax.random.key_data(params["fill_key"])[0].tolist() == [3850275111, 3226433142]


if __name__ == "__main__":
    for name in MODES:
        print(f'    "{name}": "{packed(drawn(name))}",')
