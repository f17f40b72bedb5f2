"""Several configs, one after the other: `chain`."""

import jax
import numpy as np
import pytest
from chex import assert_trees_all_equal as assert_same
from jax.random import fold_in

from cases import SHAPE, assert_refused, config_of, image_of, refuses
from dropax import Batch, apply_batch, chain, init_state

IMAGES = {"image": np.asarray(image_of(SHAPE))}
BOX, PIXEL = config_of("box", fill=-1.0), config_of("pixel", fill=-2.0)
BOTH = chain(BOX, PIXEL)
IDS = np.arange(4, dtype=np.uint32) + 7


def by_hand(key, batch=IMAGES, **given):
    """What the configs return one after the other, with states of their own."""
    states = [init_state(config, fold_in(key, n)) for n, config in enumerate(BOTH.configs)]
    for n, config in enumerate(BOTH.configs):
        batch, states[n] = apply_batch(config, states[n], batch, **given)
    return batch, tuple(states)


def test_it_is_its_configs_one_after_the_other_with_keys_of_their_own(key):
    states, batch = BOTH.init_state(key), IMAGES
    step = jax.jit(BOTH.apply_batch)
    for run in (BOTH.apply_batch, step):
        assert_same(run(states, batch), by_hand(key))
        given = {"record_ids": IDS, "epoch": np.uint32(3)}
        assert_same(run(states, batch, **given), by_hand(key, **given))
    out, states = BOTH.apply_batch(states, Batch.from_parts(IMAGES, record_ids=IDS), epoch=3)
    assert_same(out.data, by_hand(key, **given)[0])
    assert [int(state.applied_count[1]) for state in states] == [4, 4]
    assert [int(state.step) for state in states] == [1, 1]
    same = chain(PIXEL, PIXEL)
    masks, _ = same.apply_batch(same.init_state(key), IMAGES)
    once, _ = apply_batch(PIXEL, init_state(PIXEL, fold_in(key, 0)), IMAGES)
    assert (np.asarray(masks["image"]) == -2).sum() > (np.asarray(once["image"]) == -2).sum()


def test_one_mask_is_written_of_what_any_config_dropped(key):
    masked = chain(*(config.replace(mask_key="out.kept") for config in BOTH.configs))
    data = {**IMAGES, "out": {}}
    for batch in (data, Batch.from_parts(data)):
        out, _ = masked.apply_batch(masked.init_state(key), batch)
        kept = np.asarray(out["out"]["kept"])
        np.testing.assert_array_equal(kept, np.asarray(out["image"]) > 0)
    apart = chain(BOX.replace(mask_key="a"), PIXEL.replace(mask_key="b"))
    out, _ = apart.apply_batch(apart.init_state(key), IMAGES)
    np.testing.assert_array_equal(np.asarray(out["a"]) & np.asarray(out["b"]), kept)


def test_chains_lie_flat_and_compare_by_value_and_may_be_empty(key):
    assert chain(chain(BOX), PIXEL) == BOTH
    assert hash(chain(BOX, PIXEL)) == hash(BOTH) != hash(chain(PIXEL, BOX))
    assert chain().apply_batch(chain().init_state(), IMAGES) == (IMAGES, ())


def test_rates_may_be_traced_and_nothing_is_compiled_again(key):
    traces = []

    @jax.jit
    def step(configs, states, batch):
        traces.append(1)
        return configs.apply_batch(states, batch)

    states = BOTH.init_state(key)
    for rate in (0.1, 0.7):
        scheduled = chain(*(config.replace(dropout_rate=rate) for config in BOTH.configs))
        assert_same(step(scheduled, states, IMAGES), scheduled.apply_batch(states, IMAGES))
    assert len(traces) == 1


def test_a_deterministic_config_needs_no_key(key):
    fixed = BOX.replace(stochastic=False)
    out, _ = chain(fixed).apply_batch(chain(fixed).init_state(), IMAGES)
    assert_same(out, apply_batch(fixed, init_state(fixed), IMAGES)[0])
    states = chain(fixed, PIXEL).init_state(key)
    _, states = chain(fixed, PIXEL).apply_batch(states, IMAGES)
    assert [int(state.step) for state in states] == [0, 1]
    with pytest.raises(TypeError, match=r"init_state\.key must be a PRNG key; got None"):
        BOTH.init_state()


def test_states_that_are_captured_under_jit_warn(key):
    states = BOTH.init_state(key)
    with pytest.warns(UserWarning, match="captured under jit"):
        jax.jit(lambda batch: BOTH.apply_batch(states, batch))(IMAGES)


def test_what_is_no_config_and_states_of_others_are_refused(key):
    with refuses(TypeError, "chain.configs[1] must be a DropoutOperatorConfig or a"):
        chain(BOX, "pixel")
    for states in (BOTH.init_state(key)[:1], BOTH.init_state(key)[0], None):
        given = {"states": states, "batch": IMAGES}
        assert_refused(BOTH.apply_batch, given, ValueError, "states must hold the states of 2 conf")


def test_an_empty_batch_has_no_masks_to_join(key):
    both = chain(BOX.replace(mask_key="kept"), PIXEL.replace(mask_key="kept"))
    batch, _ = both.apply_batch(both.init_state(key), Batch([]))
    assert len(batch) == 0


def test_masks_of_different_shapes_are_not_joined(key):
    fields = IMAGES | {"other": IMAGES["image"][:, :2]}
    both = chain(BOX.replace(mask_key="kept"), BOX.replace(mask_key="kept", field_key="other"))
    with refuses(ValueError, "DropoutOperatorConfig.mask_key must name a field of its own"):
        both.apply_batch(both.init_state(key), fields)
