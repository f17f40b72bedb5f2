"""The faults of the reference implementation, by number: none of them may come back.

The comment above each test says what broke there. Those under jit and on meshes, 30 to 35, are in
test_faults_under_jax.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from dropax import (
    Batch,
    DropoutOperator,
    DropoutOperatorConfig,
    Element,
    Rngs,
)
from reference import ONES, det, equal, make, run, sto

MODES, STRATEGIES, KINDS = ("pixel", "channel"), ("vmap", "scan"), (False, True)


# copy(), copy(config=) and copy(rngs=) were a TypeError.
def test_fault_01_copy_takes_nothing_a_config_or_rngs():
    operator, rngs = sto(), Rngs(5)
    run(operator)
    assert equal(run(operator.copy()), run(operator.copy()), run(operator))
    assert operator.copy(config=det().config).config == det().config
    redrawn = operator.copy(rngs=rngs)
    assert redrawn.rngs is rngs
    assert equal(run(redrawn), run(sto(seed=5)))


# copy(name=) was the same TypeError.
def test_fault_02_copy_takes_a_name():
    operator = det(name="a")
    assert (operator.copy(name="b").name, operator.name) == ("b", "a")


# The stream was not restored: neither its count, nor its key in an operator of another seed.
def test_fault_03_a_restored_operator_draws_the_masks_it_would_have_drawn():
    operator = sto()
    run(operator)
    saved = operator.get_state()
    onwards = [run(operator), run(operator)]
    assert not equal(*onwards)
    for other in (operator, sto(seed=7)):
        other.set_state(saved)
        assert equal(onwards, [run(other), run(other)])


# A stream's part of the state was not looked at: {"nonsense": 1} was accepted for it.
@pytest.mark.parametrize("entry", ["version", "key_data", "key_impl", "step", "applied_count"])
def test_fault_04_nonsense_in_a_state_is_refused_by_name(entry):
    operator = sto()
    before = operator.get_state()
    with pytest.raises(ValueError, match=entry):
        operator.set_state({**before, entry: {"nonsense": 1}})
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        operator.set_state({**before, "nonsense": 1})
    jax.tree.map(np.testing.assert_array_equal, operator.get_state(), before)


# That the statistics were reset was no part of the state.
def test_fault_05_a_reset_of_the_statistics_is_saved_and_restored():
    operator, fresh = (det(precomputed_stats={"a": 1}) for _ in range(2))
    operator.reset_statistics()
    fresh.set_state(operator.get_state())
    assert fresh.get_statistics() is None


# After a reset, computed statistics did not show.
def test_fault_06_statistics_computed_after_a_reset_show():
    operator = det(batch_stats_fn=lambda data: {"mean": 2})
    operator.reset_statistics()
    assert operator.compute_statistics(ONES) == operator.get_statistics() == {"mean": 2}


# Precomputed statistics hid the ones that were set; and the config's own dict was handed out.
def test_fault_07_statistics_that_are_set_win_and_no_one_can_change_the_config():
    operator = det(precomputed_stats={"m": 1})
    operator.get_statistics()["m"] = 5
    operator.config.precomputed_stats["m"] = 5
    assert operator.get_statistics() == operator.config.precomputed_stats == {"m": 1}
    operator.set_statistics({"m": 2})
    assert operator.get_statistics() == {"m": 2}
    operator.reset_statistics()
    operator.set_statistics({"m": 3})
    assert operator.get_statistics() == {"m": 3}


# At rate 0 the input dict itself came back, without the target.
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_08_the_target_is_written_at_rate_zero_too(stochastic):
    data = {"image": ONES}
    out = make(stochastic, dropout_rate=0.0, target_key="t").apply_batch(data)
    assert list(data) == ["image"]
    assert equal(out["image"], out["t"], ONES)


# At rate 0 nothing was clipped.
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_09_the_result_is_clipped_at_rate_zero_too(stochastic):
    operator = make(stochastic, dropout_rate=0.0, clip_range=(0.0, 0.5))
    assert equal(run(operator), ONES / 2)


# Dropping was a product, so NaN and infinity stayed: in channel mode always, in pixel mode
# depending on what XLA fused.
@pytest.mark.parametrize("mode", MODES, ids=["fault_11", "fault_10"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stochastic", KINDS)
def test_no_nan_or_infinity_survives_where_it_is_dropped(mode, dtype, strategy, stochastic):
    operator = make(stochastic, mode=mode, batch_strategy=strategy, dropout_rate=1.0)
    for value in (jnp.nan, jnp.inf):
        out = operator.apply_batch({"image": jnp.full(ONES.shape, value, dtype)})["image"]
        assert not out.any()


# A deterministic operator in channel mode made float32 of every dtype.
@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_12_the_dtype_stays(dtype, mode, stochastic):
    operator, images = make(stochastic, mode=mode), jnp.ones(ONES.shape, dtype)
    assert operator.apply_batch({"image": images})["image"].dtype == dtype
    assert operator.apply({"image": images[0]}, {}, {})[0]["image"].dtype == dtype


# Clipping an integer image to float bounds made float32 of it; complex gave an obscure error.
def test_fault_13_an_integer_image_is_clipped_to_the_integers_within_float_bounds():
    images = np.arange(ONES.size, dtype=np.uint8).reshape(ONES.shape)
    out = run(det(dropout_rate=0.0, clip_range=(0.5, 99.5)), images)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, images.clip(1, 99))
    with pytest.raises(TypeError, match="clip_range must be None for dtype complex64"):
        run(det(clip_range=(0.0, 1.0)), ONES.astype(np.complex64))


# The fixed pattern blanked every one-channel image, and two of three channels, at the default rate.
def test_fault_14_the_fixed_pattern_of_the_default_rate_spares_most_channels():
    for channels in (1, 3):
        operator = det(mode="channel", dropout_rate=0.1)
        out = run(operator, np.ones((1, 4, 4, channels), np.float32))
        assert equal(out, np.ones_like(out))
    seeds = [det(mode="channel", seed=seed).config.replace(seed=seed) for seed in range(40)]
    images = {"image": jnp.ones((1, 1, 3))}
    kept = [float(dropax.apply(config, images, {}, {})[0]["image"].mean()) for config in seeds]
    assert 0.25 < np.mean(kept) < 0.75  # five standard deviations


# The stream was never named, so a missing one passed.
def test_fault_15_a_stochastic_operator_requires_its_stream():
    operator = sto(stream_name="augment")
    assert operator.requires_rng_streams() == ["augment"]
    with pytest.raises(ValueError, match="RNG stream 'augment' is required"):
        operator.ensure_rng_streams([])
    assert det().requires_rng_streams() is None
    det().ensure_rng_streams([])


# Nothing was ever counted.
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_16_records_are_counted(stochastic):
    operator, idle = make(stochastic), make(stochastic, dropout_rate=0.0)
    for each in (operator, operator, idle):
        run(each)
    assert operator.get_operation_stats() == {"applied_count": 16, "skipped_count": 0}
    assert idle.get_operation_stats() == {"applied_count": 0, "skipped_count": 8}
    operator.reset_operation_stats()
    assert operator.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


# The output structure was cached by the data's structure alone, and did not fit other states.
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fault_17_the_states_may_change_their_structure_between_calls(strategy):
    operator = det(batch_strategy=strategy)
    for states in ({}, {"c": np.arange(8)}, {"d": {"e": np.ones(8)}}):
        out = operator.apply_batch(Batch.from_parts({"image": ONES}, states))
        jax.tree.map(np.testing.assert_array_equal, out.states, states)


# A dotted field was not found in apply_batch.
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_18_a_dotted_path_works_in_a_batch(stochastic):
    data = {"a": {"image": ONES, "depth": ONES}}
    operator = make(stochastic, field_key="a.image", target_key="b.c")
    out = operator.apply_batch(data)
    assert equal(out["a"]["image"], out["a"]["depth"], ONES)
    assert equal(out["b"]["c"], run(make(stochastic)))


# The page's stochastic config was refused for want of a stream's name.
def test_fault_19_a_stochastic_config_needs_no_stream_name():
    config = DropoutOperatorConfig(
        field_key="image", dropout_rate=0.2, mode="channel", stochastic=True
    )
    assert DropoutOperator(config, rngs=Rngs(0)).requires_rng_streams() == ["default"]


# apply_batch took neither three arguments nor a dict.
def test_fault_20_a_batch_may_be_a_batch_a_dict_or_three_arguments():
    states, metadata = {"n": np.arange(8)}, [{"file": "a.png"}]
    dropped, same_states, same_metadata = sto().apply_batch({"image": ONES}, states, metadata)
    assert equal(dropped["image"], run(sto()))
    assert equal(sto().apply_batch(Batch.from_parts({"image": ONES}))["image"], run(sto()))
    assert equal(same_states["n"], states["n"])
    assert same_metadata is metadata
    assert sto().apply_batch({"image": ONES}, None, None)[1:] == (None, None)
    with pytest.raises(TypeError, match=r"must be a dropax\.Batch or a dict"):
        sto().apply_batch(ONES)


AWKWARD = {"precomputed_stats": {"m": np.arange(3.0)}, "auxiliary_fields": ["a", "b"]}


# A config with lists, dicts or arrays could not be hashed, nor be a static argument.
@pytest.mark.parametrize("options", [{}, {"clip_range": (0, 1)}, AWKWARD], ids=str)
def test_fault_21_a_config_is_a_static_argument_whatever_it_holds(options):
    traces = []

    def rate_of(config):
        traces.append(1)
        return jnp.float32(config.dropout_rate)

    jitted = jax.jit(rate_of, static_argnums=0)
    first, second = (DropoutOperatorConfig(field_key="image", **options) for _ in range(2))
    assert hash(first) == hash(second)
    assert jitted(first) == jitted(second)
    assert len(traces) == 1


# Comparing configs with arrays in their statistics was a ValueError.
def test_fault_22_configs_with_arrays_compare_by_value():
    first, second = (DropoutOperatorConfig(field_key="image", **AWKWARD) for _ in range(2))
    assert first == second
    other = {**AWKWARD, "precomputed_stats": {"m": np.arange(3.0) + 1}}
    assert first != DropoutOperatorConfig(field_key="image", **other)
    assert first != first.replace(dropout_rate=0.2)


# Rates that were NumPy or JAX scalars were refused.
def test_fault_23_a_rate_may_be_any_real_scalar():
    rates = [np.float64(0.5), np.float32(0.5), np.array(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)]
    for rate in rates:
        assert equal(run(det(dropout_rate=rate)), run(det()))
    for rate in (np.int64(1), jnp.int32(1)):
        assert not run(det(dropout_rate=rate)).any()
    for rate in (np.nan, np.inf, np.float32(-1), np.array(2)):
        with pytest.raises(ValueError, match=r"dropout_rate must be in \[0.0, 1.0\]"):
            det(dropout_rate=rate)


# Bounds that are no pair of numbers were accepted.
def test_fault_24_clip_range_is_two_numbers_in_order():
    for bounds in ("ab", ("0", "1"), [0, 1], (0, None), 1.0):
        with pytest.raises(TypeError, match="clip_range must be a tuple of two numbers or None"):
            det(clip_range=bounds)
    for bounds in ((0, np.nan), (np.nan, 1), (1, 1), (1, 0), (0,), (0, 1, 2), ()):
        with pytest.raises(ValueError, match=r"clip_range must be \(low, high\) with low < high"):
            det(clip_range=bounds)


# A mask with more axes than the image gave the image more axes.
def test_fault_25_a_mask_never_changes_the_shape_of_the_image():
    for shape in ((2, 4, 4, 3), (1, 4, 4, 3), (4, 4, 2), (2,)):
        params = {"keep_mask": np.ones(shape, bool)}
        with pytest.raises(ValueError, match=r"broadcast to the element's shape \(4, 4, 3\)"):
            sto().apply({"image": ONES[0]}, {}, {}, params)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 1\)"):
        sto().apply({"image": ONES[0, :, :, :1]}, {}, {}, {"keep_mask": np.ones(3, bool)})


# A mask of twos doubled the image.
def test_fault_26_a_mask_of_numbers_counts_as_true_and_false():
    mask = np.arange(ONES[0].size).reshape(ONES[0].shape) % 3
    out = sto().apply({"image": ONES[0]}, {}, {}, {"keep_mask": mask})[0]["image"]
    np.testing.assert_array_equal(out, mask != 0)


# Without random_params, a stochastic apply fell back to a fixed pattern in silence.
def test_fault_27_a_stochastic_apply_draws_from_its_state_or_refuses():
    operator, data = sto(), {"image": ONES[0]}
    first, second = (operator.apply(data, {}, {})[0]["image"] for _ in range(2))
    batches = sto()
    assert equal([first, second], [run(batches)[0], run(batches)[0]])
    assert not equal(first, second)
    with pytest.raises(ValueError, match="generate_random_params"):
        dropax.apply(operator.config, data, {}, {})


# NumPy arrays were not seen as arrays, so their sizes were not checked either.
def test_fault_28_a_batch_may_be_made_of_numpy_arrays_of_one_length():
    assert Batch.from_parts({"image": ONES}, {"n": np.arange(8)}).batch_size == 8
    for parts in ({"data": {"image": ONES, "n": np.arange(7)}}, {"states": {"n": np.arange(7)}}):
        with pytest.raises(ValueError, match="must have 8 records along its leading axis"):
            Batch.from_parts(**{"data": {"image": ONES}, **parts})


# The output's spec was the input's: without the target, and with a dtype that apply changed.
@pytest.mark.parametrize("stochastic", KINDS)
def test_fault_29_the_output_spec_is_that_of_what_apply_returns(stochastic):
    operator = make(stochastic, mode="channel", target_key="t")
    spec = {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8)}
    expected = {name: jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8) for name in ("image", "t")}
    assert operator.output_spec(spec) == expected
    assert list(spec) == ["image"]
    out = operator.apply({"image": ONES[0].astype(np.uint8)}, {}, {})[0]
    assert jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), out) == expected


# A clone shared the cache of its original.
def test_fault_36_a_clone_has_a_cache_of_its_own():
    operator = det(cacheable=True)
    expected = run(operator)
    kept = dict(operator._cache)
    assert kept
    operator.clone().reset_cache()
    operator.copy().reset_cache()
    assert operator._cache == kept
    clone = operator.clone()
    operator.reset_cache()
    assert not operator._cache
    assert equal(run(clone), run(operator), expected)


# A string was accepted for a count, and broke get_operation_stats later.
def test_fault_37_a_count_that_is_no_number_is_refused():
    operator = det()
    run(operator)
    for count in ("3", 1.5, True, -1, np.arange(2), None):
        with pytest.raises(ValueError, match="'applied_count' must be an int in"):
            operator.set_state({**operator.get_state(), "applied_count": count})
    assert operator.get_operation_stats() == {"applied_count": 8, "skipped_count": 0}


# On elements that are no images of three axes, channel mode dropped single values.
@pytest.mark.parametrize("stochastic", KINDS)
@pytest.mark.parametrize("shape", [(2, 4, 5, 8), (4, 5, 8), (4, 5), (6,)])
def test_fault_38_channel_mode_drops_whole_channels_of_elements_of_any_rank(stochastic, shape):
    images = np.ones((64, *shape), np.float32)
    out = run(make(stochastic, mode="channel"), images)
    channels = out.reshape(64, -1, shape[-1] if len(shape) > 2 else 1)
    assert (channels == channels[:, :1]).all()
    if stochastic or len(shape) > 2:
        assert 0 < channels.mean() < 1


# A stream that was not there showed only in apply_batch.
def test_fault_39_a_missing_stream_shows_when_the_operator_is_made():
    config = sto(stream_name="augment").config
    with pytest.raises(KeyError, match="RNG stream 'augment' not found, nor a default one"):
        DropoutOperator(config, rngs=Rngs(params=0))
    assert equal(run(DropoutOperator(config, rngs=Rngs(0))), run(sto()))


# States given as a list, one a record, broke apply_batch.
def test_fault_40_states_record_by_record_are_refused_with_the_cure():
    states = [{"i": number} for number in range(8)]
    with pytest.raises(TypeError, match=r"Build the batch of records instead: Batch\(\[Element"):
        Batch.from_parts({"image": ONES}, states)
    batch = Batch(
        [Element({"image": image}, state) for image, state in zip(ONES, states, strict=True)]
    )
    out = det().apply_batch(batch)
    np.testing.assert_array_equal(out.states["i"], np.arange(8))
