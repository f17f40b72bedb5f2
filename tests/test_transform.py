"""The pure functions: what each guarantees by itself."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import MODES, SHAPE, assert_refused, config_of, image_of
from dropax import Batch, Element, Pixel, apply, apply_batch, generate_random_params, init_state


def dropped(config, image, mask, **fields):
    return apply(config, {"image": image, **fields}, {}, {}, {"keep_mask": jnp.asarray(mask)})[0]


@pytest.mark.parametrize(
    ("mode", "element", "shape"),
    [
        ("pixel", (8, 6, 3), (8, 6, 3)),
        ("pixel", (8, 6), (8, 6)),
        ("pixel", (8,), (8,)),
        ("pixel", (1, 1, 3), (1, 1, 3)),
        ("pixel", (), ()),
        (Pixel(per_channel=False), (8, 6, 3), (8, 6, 1)),
        (Pixel(per_channel=False), (8, 6), (8, 6)),
        ("channel", (8, 6, 3), (3,)),
        ("channel", (2, 8, 6, 3), (3,)),
        ("channel", (8, 6), (1,)),
    ],
)
def test_masks_have_their_documented_shapes(mode, element, shape, key):
    config = config_of(mode, stochastic=False)  # drawing does not look at `stochastic`
    drawn = jax.eval_shape(lambda: generate_random_params(config, key, {"image": (4, *element)}))
    mask = drawn["keep_mask"]
    assert mask.shape == (4, *shape)
    assert mask.dtype == jnp.bool_


def test_a_record_draws_from_the_batch_key_folded_with_its_position(key):
    shapes = {"image": (3, 4, 5, 2)}
    masks = generate_random_params(config_of("pixel"), key, shapes)["keep_mask"]
    channels = generate_random_params(config_of("channel"), key, shapes)["keep_mask"]
    keep = np.float32(1) - np.float32(0.4)
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(3, dtype="u4"))
    one_by_one = generate_random_params(config_of("pixel"), keys, shapes)["keep_mask"]
    np.testing.assert_array_equal(one_by_one, masks)
    with pytest.raises(ValueError, match=r"\.key must have shape \(\) or \(4,\), one per record"):
        generate_random_params(config_of("pixel"), keys, {"image": (4, 4, 5, 2)})
    for position in range(3):
        record = jax.random.fold_in(key, position)
        for drawn, shape in ((masks, (4, 5, 2)), (channels, (2,))):
            expected = jax.random.bernoulli(record, keep, shape)
            np.testing.assert_array_equal(drawn[position], expected)


def test_shapes_are_found_by_dotted_path_nested_or_flat(key):
    config = config_of("channel", field_key="camera.rgb")
    nested = generate_random_params(config, key, {"camera": {"rgb": (2, 4, 4, 3)}})
    flat = generate_random_params(config, key, {"camera.rgb": (2, 4, 4, 3)})
    np.testing.assert_array_equal(nested["keep_mask"], flat["keep_mask"])


def test_apply_replaces_dropped_values_and_nothing_else():
    image = image_of((2, 3, 2))
    mask = np.array([[[1, 0], [0, 1], [1, 1]], [[0, 0], [1, 1], [0, 1]]], bool)
    config = config_of("pixel", fill=-1.5)
    out = dropped(config, image, mask)["image"]
    np.testing.assert_array_equal(out, np.where(mask, image, -1.5))


NO_PARAMS = [
    (None, ValueError, " must hold 'keep_mask' if the"),
    ({"mask": True}, KeyError, " must hold 'keep_mask'; got 'mask'."),
    (3, TypeError, " must be a dict with 'keep_mask'"),
    (
        {"keep_mask": True},
        TypeError,
        "['keep_mask'] must be an array of real numbers or bools; got True.",
    ),
    *(
        ({"keep_mask": np.ones(shape)}, ValueError, "['keep_mask'] must")
        for shape in ((2, 4, 5, 3), (4, 5, 2), (4,), (5, 5))
    ),
]


@pytest.mark.parametrize("mode", ["pixel", "channel"])
@pytest.mark.parametrize(("params", "error", "text"), NO_PARAMS)
def test_what_is_no_mask_of_the_image_is_refused(params, error, text, mode):
    with pytest.raises(error, match=re.escape(f"apply.random_params{text}")):
        apply(config_of(mode), {"image": image_of((4, 5, 3))}, {}, {}, params)


@pytest.mark.parametrize("mode", ["pixel", MODES["block"]], ids=["pixel", "block"])
@pytest.mark.filterwarnings("ignore:init_state was given a key for a deterministic config")
def test_the_fixed_pattern_ignores_random_params_keys_and_batches(mode):
    config = config_of(mode, stochastic=False)
    image = image_of((6, 5, 3))
    alone, state, metadata = apply(config, {"image": image}, {"a": 1}, "meta")
    assert (state, metadata) == ({"a": 1}, "meta")
    given, _, _ = apply(config, {"image": image}, {}, {}, {"keep_mask": np.zeros((6, 5, 3))})
    np.testing.assert_array_equal(alone["image"], given["image"])
    for key, strategy in ((None, "vmap"), (jax.random.key(5), "scan")):
        now = config.replace(batch_strategy=strategy)
        batch, state = apply_batch(now, init_state(now, key), {"image": np.stack([image] * 4)})
        np.testing.assert_array_equal(batch["image"], np.stack([alone["image"]] * 4))
        assert int(state.step) == 0
    if mode == "pixel":
        other, _, _ = apply(config.replace(seed=8), {"image": image}, {}, {})
        assert not np.array_equal(other["image"], alone["image"])


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_target_and_clip_hold_at_every_rate_and_the_source_stays(rate, key):
    config = config_of("pixel", dropout_rate=rate, target_key="out.view", clip_range=(0.25, 2.0))
    image = np.linspace(-3, 3, 4 * 6 * 5 * 3, dtype=np.float32).reshape(SHAPE)
    batch, _ = apply_batch(config, init_state(config, key), {"image": image})
    np.testing.assert_array_equal(batch["image"], image)
    view = np.asarray(batch["out"]["view"])
    assert view.min() == 0.25
    assert view.max() == (2.0 if rate < 1 else 0.25)


def test_inputs_are_never_modified(key):
    image = np.ones(SHAPE, np.float32)
    image.setflags(write=False)
    data = {"camera": {"rgb": image, "depth": image}, "label": np.arange(4)}
    config = config_of("pixel", field_key="camera.rgb", auxiliary_fields=["camera.depth"])
    out, _ = apply_batch(config, init_state(config, key), data)
    assert data["camera"]["rgb"] is image
    assert list(data["camera"]) == ["rgb", "depth"]
    assert out["camera"].keys() == data["camera"].keys()


def test_a_batch_comes_back_as_the_kind_it_was(key):
    config = config_of("pixel")
    state = init_state(config, key)
    elements = [Element({"image": image_of((6, 5, 3))}, {"n": i}, f"m{i}") for i in range(3)]
    batch, _ = apply_batch(config, state, Batch(elements))
    assert isinstance(batch, Batch)
    assert batch.metadata_list == ["m0", "m1", "m2"]
    np.testing.assert_array_equal(batch.states["n"], [0, 1, 2])
    data, _ = apply_batch(config, state, {"image": np.stack([image_of((6, 5, 3))] * 3)})
    np.testing.assert_array_equal(data["image"], batch["image"])


EMPTY = [{}, {"batch_strategy": "scan"}, {"stochastic": False}, {"share_mask": True}]


@pytest.mark.parametrize("options", EMPTY, ids=str)
def test_an_empty_batch_has_the_fields_of_a_full_one(options, key):
    config = config_of("pixel", target_key="out", **options)
    state = init_state(config, key if config.stochastic else None)
    out, _ = apply_batch(config, state, {"image": jnp.ones((0, 6, 5, 3)), "label": jnp.ones(0)})
    shapes = {name: leaf.shape for name, leaf in out.items()}
    assert shapes == {"image": (0, 6, 5, 3), "label": (0,), "out": (0, 6, 5, 3)}
    nothing = Batch([])
    assert apply_batch(config, state, nothing)[0] is nothing
    with pytest.raises(KeyError, match="field 'image' not found"):
        apply_batch(config, state, {"x": jnp.ones((0, 3))})


def test_records_are_counted_as_applied_or_skipped(key):
    for rate, expected in ((0.5, (12, 0)), (0.0, (0, 12)), (-1.0, (0, 12))):
        config = config_of("pixel").replace(dropout_rate=jnp.float32(rate))
        state = init_state(config, key)
        for _ in range(3):
            _, state = apply_batch(config, state, {"image": image_of(SHAPE)})
        assert (int(state.applied_count[1]), int(state.skipped_count[1])) == expected


def test_one_image_draws_from_the_key_itself(key):
    image = image_of((6, 5, 3))
    mask = jax.random.bernoulli(key, np.float32(1) - np.float32(0.3), (6, 5, 3))
    out = dropax.dropout(key, image, rate=0.3)
    np.testing.assert_array_equal(out, np.where(mask, image, 0))


def test_elements_can_have_other_axes_than_three(key):
    video = image_of((2, 3, 6, 5, 3))
    out = dropax.dropout(key, video, rate=0.5, mode="channel", element_ndim=4)
    whole = (np.asarray(out) == 0).all(axis=(1, 2, 3))
    np.testing.assert_array_equal((np.asarray(out) == 0).any(axis=(1, 2, 3)), whole)
    signal = dropax.dropout(key, image_of((7, 11)), rate=0.5, element_ndim=1, fill=2.0)
    assert signal.shape == (7, 11)
    assert bool((signal == 2.0).any())


KEY, MANY, CONFIG = jax.random.key(0), jax.random.split(jax.random.key(0)), config_of("pixel")
IMAGES = {"image": image_of(SHAPE)}
SOUND = {
    init_state: {"config": CONFIG, "key": KEY},
    generate_random_params: {"config": CONFIG, "key": KEY, "data_shapes": {}},
    apply_batch: {"config": CONFIG, "op_state": init_state(CONFIG, KEY), "batch": IMAGES},
    dropax.dropout: {"key": KEY, "images": IMAGES["image"]},
}
SHAPES, BATCH = "data_shapes['image'] must ", "batch must be a dropax.Batch or a dict of arrays"
WRONG = [
    (init_state, {"key": None}, TypeError, "key must be a PRNG key; got None. Make one"),
    (init_state, {"key": MANY}, ValueError, "key must be one key, of shape (); got"),
    (init_state, {"config": 3}, TypeError, "config must be a config; got 3."),
    *(
        (generate_random_params, {"data_shapes": {"image": shape}}, error, SHAPES + text)
        for shape, error, text in (
            (3, TypeError, "be a shape; got 3."),
            ((), ValueError, "have a leading batch axis"),
            ((2, -1, 4, 1), ValueError, "have no negative size"),
        )
    ),
    (apply_batch, {"batch": IMAGES["image"]}, TypeError, BATCH),
    (apply_batch, {"op_state": None}, TypeError, "op_state must be an OperatorState; got None."),
    (dropax.dropout, {"images": 3}, TypeError, "images must be an array of numbers or bools; got"),
    (dropax.dropout, {"rate": 2.0}, ValueError, "rate must be in [0.0, 1.0]; got 2.0."),
    (dropax.dropout, {"element_ndim": -1}, ValueError, "element_ndim must be at least 0; got -1."),
    (dropax.dropout, {"key": 0}, TypeError, "key must be a PRNG key; got 0. Make one"),
]


@pytest.mark.parametrize(("function", "given", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_by_name(function, given, error, text):
    assert_refused(function, SOUND[function] | given, error, text)


@pytest.mark.parametrize("mode", ["record", "Inverted('record')"])
def test_what_drops_whole_records_drops_their_fields_of_any_shape(mode, key):
    batch = {
        "image": jnp.ones((64, 7, 6)),
        "label": jnp.ones(64, jnp.int32),
        "tokens": jnp.ones((64, 77, 16)),
        "maps": jnp.ones((64, 3, 2, 5, 4)),
    }
    fields = [name for name in batch if name != "image"]
    for fill in (-1, "mean"):
        config = config_of(mode, dropout_rate=0.5, auxiliary_fields=fields, auxiliary_fill=fill)
        out, _ = apply_batch(config, init_state(config, key), batch)
        dropped = np.asarray(out["image"] == 0)
        assert 0 < dropped[:, 0, 0].sum() < 64
        for name in fields if fill == -1 else ():
            hidden = np.asarray(out[name] == -1).reshape(64, -1)
            np.testing.assert_array_equal(hidden, dropped[:, :1, 0].repeat(hidden.shape[1], 1))


@pytest.mark.parametrize("shape", [(64, 16, 32), (64, 32), (64,)])
@pytest.mark.parametrize("mode", ["record", "Inverted('record')", "OneOf(('box', 'record'))"])
def test_records_without_a_batch_axis_are_refused_with_the_cure(shape, mode, key):
    text = rf"batch axis before the 3 axes of a record; .* Pass element_ndim={len(shape) - 1} if"
    with pytest.raises(ValueError, match=r"^dropout\.images must have a " + text):
        dropax.dropout(key, jnp.ones(shape), mode=mode)
    if mode == "record":
        given = {"rate": 0.5, "mode": mode, "rescale": True, "element_ndim": len(shape) - 1}
        out = np.asarray(dropax.dropout(key, jnp.ones(shape), **given)).reshape(64, -1)
        assert set(out.sum(1) / out.shape[1]) == {0.0, 2.0}
