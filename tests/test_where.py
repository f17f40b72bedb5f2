"""Where values may drop: `where_key`, and the masks that people make for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cases import MODES, SHAPE, assert_refused, config_of, image_of
from dropax import FromField, Pixel, apply, apply_batch, box_mask, init_state, length_mask

RNG = np.random.default_rng(0)
WHERE = RNG.random(SHAPE[:3]) < 0.5
STATE = init_state(config_of("pixel"), jax.random.key(0))
BATCH = {
    "image": np.asarray(image_of(SHAPE)),
    "labels": np.arange(120, dtype=np.int32).reshape(SHAPE[:3]),
    "other": -np.asarray(image_of(SHAPE)),
    "may": {"drop": WHERE},
}


def dropped(config, batch=BATCH):
    return jax.tree.map(np.asarray, apply_batch(config, STATE, batch)[0])


# What it does. The same drop without it is what to compare with: it differs by one select.


EDITED = {"rescale": True, "clip_range": (3.0, 60.0), "apply_probability": 0.5}
LABELLED = {"auxiliary_fields": ["labels"], "auxiliary_fill": 255}
FILLED = {"fill": FromField("other"), "clip_range": (-50.0, 50.0)}


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("whole pixel", {"fill": 7.0, **EDITED, **LABELLED}),
        ("pixel", {"batch_strategy": "scan", "dropout_rate": (0.2, 0.8)}),
        ("channel", {"share_mask": True, "target_key": "result", **FILLED}),
        ("patch", {"stochastic": False, "fill": (1.0, 2.0, 3.0), "rescale": True}),
    ],
)
def test_nothing_changes_where_nothing_may_drop_and_nothing_else_is_spared(mode, options):
    config = config_of(MODES[mode], mask_key="kept", **options)
    plain, found = dropped(config), dropped(config.replace(where_key="may.drop"))
    target = config.target_key or "image"
    where = WHERE[..., None]
    assert (plain[target] != BATCH["image"])[np.broadcast_to(where, SHAPE)].any()
    # A fill's and a quotient's last bit may differ from program to program.
    expected = np.where(where, plain[target], BATCH["image"])
    np.testing.assert_allclose(found[target], expected, rtol=1e-6)
    spared = np.broadcast_to(~where, SHAPE)
    np.testing.assert_array_equal(found[target][spared], BATCH["image"][spared])
    np.testing.assert_array_equal(found["kept"], plain["kept"] | ~where)
    labels = np.where(WHERE, plain["labels"], BATCH["labels"])
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_array_equal(found["may"]["drop"], WHERE)


def test_nan_and_infinity_stay_where_nothing_may_drop_and_gradients_are_finite():
    config = config_of("pixel", where_key="where", rescale=True, clip_range=(0.0, 3.0))
    where = np.zeros((1, 4, 4), bool)
    where[:, :2] = True
    image = np.ones((1, 4, 4, 1), np.float32)
    image[:, 2], image[:, 3] = np.nan, -np.inf

    def loss(image):
        out = apply_batch(config, STATE, {"image": image, "where": where})[0]["image"]
        return jnp.where(where[..., None], out, 0).sum(), out

    gradient, out = jax.grad(loss, has_aux=True)(image)
    np.testing.assert_array_equal(out[:, 2:], image[:, 2:])
    assert np.isfinite(gradient).all()
    assert not gradient[:, 2:].any()


@pytest.mark.parametrize(
    ("shape", "axis", "of_where"),
    [
        ((6, 5, 3), "auto", (6, 5)),
        ((6, 5, 3), "auto", (6, 5, 3)),
        ((6, 5, 3), "auto", (6, 1)),
        ((3, 6, 5), 0, (6, 5)),
        ((3, 6, 5), 0, (1, 6, 5)),
        ((6, 5), "auto", (6, 5)),
        ((7,), "auto", (7,)),
        ((2, 6, 5, 3), "auto", (2, 1, 5)),
    ],
    ids=str,
)
def test_it_has_the_spatial_axes_with_or_without_channels(shape, axis, of_where, rng):
    options = {"stochastic": False, "dropout_rate": 1.0, "channel_axis": axis}
    config = config_of("pixel", where_key="where", **options)
    where = rng.random(of_where) < 0.5
    data = {"image": image_of(shape), "where": where}
    out = apply(config, data, {}, {})[0]["image"]
    spread = where
    if axis is not None and len(shape) > 2 and where.ndim < len(shape):
        spread = np.expand_dims(where, axis if axis == 0 else -1)
    np.testing.assert_array_equal(out == 0, np.broadcast_to(spread, shape))


@pytest.mark.parametrize("dtype", ["uint8", "bfloat16"])
def test_zero_spares_and_all_else_does_not_whatever_the_dtype(dtype):
    values = jnp.asarray([0, 1, 2]).astype(dtype)
    expected = [False, True, True]
    if jnp.issubdtype(dtype, jnp.floating):
        values = jnp.asarray([-0.0, -1, jnp.nan]).astype(dtype)
    config = config_of("pixel", where_key="where", stochastic=False, dropout_rate=1.0)
    data = {"image": jnp.ones(3), "where": values}
    assert (apply(config, data, {}, {})[0]["image"] == 0).tolist() == expected


@pytest.mark.parametrize(
    ("field", "error", "text"),
    [
        (np.ones((4, 5, 6)), ValueError, r"field 'may.drop', the where_key, must have the image's"),
        (np.ones((4, 6)), ValueError, r"spatial axes \(6, 5\), with or without its channel axis"),
        (np.ones((4, 6, 5, 2)), ValueError, r"got an array of shape \(6, 5, 2\)"),
        (np.ones((4, 6, 5), complex), TypeError, "must be an array of real numbers or bools"),
        (np.full((4, 6, 5), "x"), TypeError, "field 'may.drop', the where_key, must be an array"),
        (np.ones((3, 6, 5)), ValueError, "must have 4 records along its leading axis"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_a_field_that_does_not_fit_is_refused_by_name(field, error, text):
    with pytest.raises(error, match=text):
        dropped(config_of("pixel", where_key="may.drop"), {**BATCH, "may": {"drop": field}})


@pytest.mark.parametrize("number", [2**32, -(2**40), 1e-50])
def test_what_is_not_zero_in_64_bits_is_not(number):
    config = config_of("pixel", where_key="may.drop", mask_key="kept")
    numbers = {**BATCH, "may": {"drop": WHERE * np.array(number)}}
    np.testing.assert_array_equal(dropped(config, numbers)["kept"], dropped(config)["kept"])


def test_with_channels_it_is_named_as_what_keeps_a_label_map_from_following():
    config = config_of(Pixel(per_channel=False), where_key="where", auxiliary_fields=["labels"])
    batch = {**BATCH, "where": jnp.ones(SHAPE, jnp.bool_)}
    with pytest.raises(ValueError, match="Pass field 'where', the where_key, without channels"):
        apply_batch(config, STATE, batch)


NUMBERS = [-2.0, 0.0, 0.5, 1.0, 2.25, 3.0, 4.0, 7.0, np.nan, np.inf, -np.inf, 1e30, -1e30]
WIDE = [1e-50, -1e-50, 1 + 1e-12, 2 - 1e-12, 1e300, -1e300]


def slow_box_mask(boxes, shape):
    """The mask of some boxes, pixel by pixel."""
    covered = np.zeros(shape, bool)
    for box in boxes:
        starts, ends = box[: len(shape)], box[len(shape) :]
        for at in np.ndindex(shape):
            sides = zip(starts, ends, at, strict=True)
            overlaps = all(min(end, i + 1) > max(start, i) for start, end, i in sides)
            covered[at] |= overlaps and (starts < ends).all()
    return covered


@settings(max_examples=60)
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_a_pixel_is_inside_if_any_box_covers_some_of_it(data, dtype):
    number = st.sampled_from(NUMBERS if dtype == np.float32 else NUMBERS + WIDE)
    boxes = data.draw(st.lists(st.tuples(*[number] * 4), min_size=2, max_size=2))
    boxes = np.array(boxes, dtype)
    np.testing.assert_array_equal(box_mask(boxes, (3, 4)), slow_box_mask(boxes, (3, 4)))


@pytest.mark.parametrize(("axes", "lead"), [(1, ()), (2, (4,)), (3, (2, 3))], ids=str)
def test_boxes_have_any_leading_axes_and_any_number_of_spatial_axes(axes, lead, rng):
    boxes = rng.uniform(-1, 5, (*lead, 2, 2 * axes)).astype(np.float32)
    shape = (3, 4, 5)[:axes]
    assert not box_mask(boxes[..., :0, :], shape).any()
    found = np.asarray(box_mask(boxes, shape))
    assert found.shape == (*lead, *shape)
    for at in np.ndindex(lead):
        np.testing.assert_array_equal(found[at], slow_box_mask(boxes[at], shape))


@pytest.mark.parametrize("dtype", ["int8", "uint32"])
def test_positions_before_a_length_are_true(dtype):
    lengths = np.array([[0, 1, 5], [4, 100, 127]], dtype)
    expected = np.arange(4) < lengths[..., None].astype(np.int64)
    np.testing.assert_array_equal(length_mask(lengths, 4), expected)
    assert length_mask(lengths, 300).sum(-1).tolist() == lengths.tolist()
    assert length_mask(np.int32(2), 0).shape == (0,)
    assert not length_mask(np.int32(-1), 3).any()
    assert length_mask(np.uint32(2**32 - 1), 3).all()


def test_integers_are_read_in_their_own_dtype():
    lengths = np.array([2**32, 2**63, 1, 0], np.uint64)
    assert length_mask(lengths, 3).sum(-1).tolist() == [3, 3, 1, 0]
    assert length_mask(np.array([-(2**32), 2**32 + 1]), 3).sum(-1).tolist() == [0, 3]
    boxes = np.array([[0, 2, 2**32, 2**40], [-(2**40), -(2**32), 1, 1]])
    assert box_mask(boxes, (2, 4)).tolist() == [[1, 0, 1, 1], [0, 0, 1, 1]]
    far = 2**24
    for box in (np.array, jnp.array):  # float32 has no odd number there
        covered = box_mask(box([[far + 1, far + 3]]), (far + 84,))
        assert np.flatnonzero(covered).tolist() == [far + 1, far + 2]


REAL, SHAPED = "boxes must be an array of real numbers", "boxes must have shape (..., n, "
WRONG = [
    (box_mask, {"boxes": [[0, 0, 1, 1]]}, TypeError, "boxes must be an array"),
    (box_mask, {"boxes": np.ones((1, 4), bool)}, TypeError, REAL),
    (box_mask, {"boxes": np.ones(4)}, ValueError, f"{SHAPED}4)"),
    (box_mask, {"shape": (4,)}, ValueError, f"{SHAPED}2)"),
    (box_mask, {"shape": ()}, ValueError, "boxes must have shape"),
    (box_mask, {"shape": (4, -4)}, ValueError, "shape must have no negative size"),
    (box_mask, {"shape": 4}, TypeError, "shape must be a tuple"),
    (box_mask, {"shape": (4, 4.0)}, TypeError, "shape must be a tup"),
    (length_mask, {"lengths": [2]}, TypeError, "lengths must be an array of int"),
    (length_mask, {"lengths": np.ones(2)}, TypeError, "lengths must be an array of int"),
    (length_mask, {"size": -1}, ValueError, "size must be at least 0"),
    (length_mask, {"size": 4.0}, TypeError, "size must be an int"),
]
SOUND = {
    box_mask: {"boxes": np.ones((2, 4)), "shape": (4, 4)},
    length_mask: {"lengths": np.int32(2), "size": 4},
}


@pytest.mark.parametrize(("function", "given", "error", "text"), WRONG)
def test_wrong_boxes_and_lengths_are_refused_by_name(function, given, error, text):
    assert_refused(function, SOUND[function] | given, error, text)
