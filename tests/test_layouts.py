"""How masks lie on elements: every axis order gives what the channels-last one gives."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from cases import refuses
from dropax.fills import spread_channels
from dropax.layout import Layout

MASK = "apply.random_params['keep_mask']"

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)

FOUND = {
    "auto, an image": ((5, 6, 3), "auto", 2, (5, 6, 3)),
    "auto, a volume with channels": ((2, 5, 6, 3), "auto", 3, (2, 5, 6, 3)),
    "auto, a plane": ((5, 6), "auto", None, (5, 6, 1)),
    "auto, a signal": ((7,), "auto", None, (7, 1)),
    "auto, a scalar": ((), "auto", None, (1,)),
    "none, a volume": ((4, 5, 6), None, None, (4, 5, 6, 1)),
    "first": ((3, 5, 6), 0, 0, (5, 6, 3)),
    "middle": ((5, 3, 6), 1, 1, (5, 6, 3)),
    "counted from the end": ((5, 3, 6), -2, 1, (5, 6, 3)),
    "the first, counted from the end": ((3, 5, 6), -3, 0, (5, 6, 3)),
    "last of a plane": ((5, 6), -1, 1, (5, 6)),
    "only": ((3,), 0, 0, (3,)),
}


@pytest.mark.parametrize(("shape", "given_axis", "axis", "last"), FOUND.values(), ids=FOUND)
def test_the_channel_axis_is_found_and_goes_last_for_modes(shape, given_axis, axis, last):
    layout = Layout.of(list(shape), given_axis)
    assert layout == Layout(shape, axis)
    assert layout.channel_last_shape == last


@pytest.mark.parametrize(("shape", "axis"), [((5, 6), 2), ((5, 6), -3), ((), 0), ((), -1)], ids=str)
def test_an_axis_that_the_element_lacks_is_refused(shape, axis):
    text = f"must name an axis of an element of shape {shape}; got {axis}."
    with refuses(ValueError, f"DropoutOperatorConfig.channel_axis {text}"):
        Layout.of(shape, axis)


@given(shape=st.lists(st.sampled_from([1, 3]), min_size=1, max_size=4).map(tuple), data=st.data())
def test_a_mode_mask_broadcasts_the_same_before_and_after_it_is_placed(shape, data):
    axes = range(len(shape))
    layout = Layout(shape, data.draw(st.none() | st.sampled_from(axes)))
    full = layout.channel_last_shape
    sizes = tuple(data.draw(st.sampled_from(sorted({1, size}))) for size in full)
    values = np.random.RandomState(0).rand(*sizes) < 0.5
    placed = layout.place(jnp.asarray(values))
    assert placed.ndim == len(shape)
    whole = np.broadcast_to(values, full)
    axis = layout.channel_axis
    expected = whole[..., 0] if axis is None else np.moveaxis(whole, -1, axis)
    np.testing.assert_array_equal(np.broadcast_to(placed, shape), expected)


@given(shape=SHAPES, data=st.data())
def test_a_mask_that_broadcasts_to_the_element_fits_and_any_other_is_refused(shape, data):
    mask = np.ones(data.draw(st.lists(st.integers(0, 4), max_size=5)), np.uint8)
    layout = Layout.of(shape, "auto")
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if fits:
        assert np.broadcast_shapes(layout.fit(mask, by_channel=False).shape, shape) == shape
        return
    text = f"{MASK} must broadcast to the element's shape {shape}; got an array of shape "
    with refuses(ValueError, f"{text}{mask.shape} and dtype uint8."):
        layout.fit(mask, by_channel=False)


KINDS = [np.bool_, np.uint8, np.int32, np.float32, jnp.bfloat16]


@pytest.mark.parametrize("dtype", KINDS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("library", [np, jnp])
def test_a_mask_of_any_dtype_keeps_where_it_is_not_zero(library, dtype):
    mask = library.asarray([[2, 0, 1]]).astype(dtype)
    fitted = Layout((4, 3), None).fit(mask, by_channel=False)
    assert fitted.dtype == jnp.bool_
    np.testing.assert_array_equal(fitted, [[True, False, True]])


BY_CHANNEL = {
    "last": (Layout((2, 4, 3), 2), 3, (1, 1, 3)),
    "first": (Layout((3, 2, 4), 0), 3, (3, 1, 1)),
    "middle, and as long as another": (Layout((3, 3, 4), 1), 3, (1, 3, 1)),
    "none": (Layout((3, 4), None), 1, (1, 1)),
    "a scalar": (Layout((), None), 1, ()),
}


@pytest.mark.parametrize(("layout", "channels", "shape"), BY_CHANNEL.values(), ids=BY_CHANNEL)
def test_a_mask_with_one_axis_lies_along_the_channels_in_channel_mode(layout, channels, shape):
    mask = np.arange(channels) % 2
    fitted = layout.fit(mask, by_channel=True)
    assert fitted.shape == shape
    np.testing.assert_array_equal(np.asarray(fitted).ravel(), mask.astype(bool))
    text = f"{MASK} must have shape ({channels},), one per channel; got an array of shape (7,) and "
    with refuses(ValueError, f"{text}dtype float64."):
        layout.fit(np.ones(7), by_channel=True)


# An image, a field, how many pixels there are to a cell along each axis, and the mask's shape.
FOLLOWED = {
    "of the image's size": (Layout((4, 5, 3), 2), (4, 5), (1, 1), (4, 5)),
    "other channels": (Layout((4, 5, 3), 2), (4, 5, 7), (1, 1), (4, 5, 1)),
    "a plane": (Layout((4, 6, 3), 2), (2, 3), (2, 2), (2, 3)),
    "with channels of its own": (Layout((4, 6, 3), 2), (2, 3, 7), (2, 2), (2, 3, 1)),
    "channels first": (Layout((3, 4, 6), 0), (7, 2, 3), (2, 2), (1, 2, 3)),
    "channels in the middle": (Layout((4, 3, 6), 1), (2, 7, 3), (2, 2), (2, 1, 3)),
    "no channels": (Layout((4, 6), None), (2, 3), (2, 2), (2, 3)),
    "a signal": (Layout((6,), None), (2,), (3,), (2,)),
    "a video, fewer frames": (Layout((6, 4, 6, 3), 3), (2, 2, 3, 9), (3, 2, 2), (2, 2, 3, 1)),
}


@pytest.mark.parametrize(("layout", "other", "steps", "shape"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_cell_of_a_field_is_kept_where_every_pixel_under_it_is(layout, other, steps, shape):
    sizes = layout.channel_last_shape[:-1]
    spatial = np.random.RandomState(1).rand(*sizes) < 0.7
    cells = np.ones([size // step for size, step in zip(sizes, steps, strict=True)], bool)
    for place in np.ndindex(sizes):
        if not spatial[place]:
            cells[tuple(at // step for at, step in zip(place, steps, strict=True))] = False
    axis = layout.channel_axis
    mask = jnp.asarray(spatial if axis is None else np.expand_dims(spatial, axis))
    followed = layout.follow(mask, other, "field 'x'")
    assert followed.shape == shape
    np.testing.assert_array_equal(np.asarray(followed).reshape(cells.shape), cells)


FINER = {
    "a plane": (Layout((2, 3, 3), 2), (4, 6), (2, 2)),
    "channels first": (Layout((3, 2, 3), 0), (7, 6, 9), (3, 3)),
    "a video, fewer frames": (Layout((6, 2, 3, 3), 3), (2, 4, 6), (1 / 3, 2, 2)),
}


@pytest.mark.parametrize(("layout", "other", "steps"), FINER.values(), ids=FINER)
def test_a_finer_field_drops_with_the_pixel_that_it_lies_in(layout, other, steps):
    sizes = layout.channel_last_shape[:-1]
    spatial = np.random.RandomState(1).rand(*sizes) < 0.7
    axis = layout.channel_axis
    mask = jnp.asarray(np.expand_dims(spatial, axis))
    followed = np.asarray(layout.follow(mask, other, "field 'x'"))
    expected = spatial.reshape(2, 3, *sizes[1:]).all(axis=1) if steps[0] < 1 else spatial
    for along, step in enumerate(steps):
        expected = expected.repeat(max(int(step), 1), along)
    found = followed if followed.ndim == expected.ndim else followed.squeeze(axis)
    np.testing.assert_array_equal(found, expected)
    rows = layout.follow(jnp.ones((1,) * (len(sizes) + 1), jnp.bool_), other, "field 'x'")
    assert set(rows.shape) == {1}


def test_a_mask_that_is_small_along_an_axis_stays_small_for_a_shorter_field():
    rows = jnp.asarray(np.array([True, True, False, True])[:, None, None])
    layout = Layout((4, 6, 3), 2)
    for other, shape in (((2, 3), (2, 1)), ((2, 3, 7), (2, 1, 1))):
        followed = layout.follow(rows, other, "field 'x'")
        assert followed.shape == shape
        np.testing.assert_array_equal(followed.ravel(), [True, False])


NO_FIELD = [(5, 4), (4,), (4, 5, 3, 1), (1, 4, 5), (), (4, 6, 3), (8, 15), (3, 5), (0, 5), (0, 0)]
# Its axes divide, but not by the same: four boxes, or points.
NO_FIELD += [(2, 5), (4, 1), (2, 1, 3), (8, 5), (2, 10)]


@pytest.mark.parametrize("shape", NO_FIELD, ids=str)
def test_a_field_without_the_spatial_axes_is_refused(shape):
    text = "field 'x' must have the spatial axes (4, 5) of the image it goes along with, or a whole"
    with refuses(ValueError, f"{text} fraction or multiple of them; got {shape}."):
        Layout((4, 5, 3), 2).follow(jnp.ones((1, 1, 3), jnp.bool_), shape, "field 'x'")
    for other in ((2, 2), (0, 2), (1, 4)):  # nothing is a fraction of an axis without pixels
        with pytest.raises(ValueError, match="spatial axes"):
            Layout((0, 4, 3), 2).follow(jnp.ones((0, 4, 1), jnp.bool_), other, "field 'x'")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 7)], ids=str)
def test_a_field_of_another_shape_cannot_follow_a_mask_that_differs_by_channel(shape):
    text = r"^field 'x' must have the image's own shape \(4, 5, 3\), .*: mode=Pixel\(per_channel="
    with pytest.raises(ValueError, match=text):
        Layout((4, 5, 3), 2).follow(jnp.ones((4, 5, 3), jnp.bool_), shape, "field 'x'")


def test_a_field_follows_any_mask_of_an_image_with_a_single_channel():
    mask = jnp.asarray(np.eye(4, dtype=bool)[..., None])
    followed = Layout((4, 4, 1), 2).follow(mask, (4, 4), "field 'x'")
    np.testing.assert_array_equal(followed, np.eye(4, dtype=bool))


def test_numbers_for_channels_lie_along_their_axis():
    numbers = np.arange(3)
    assert spread_channels(numbers, (3, 5, 6), 0, "a").tolist() == [[[0]], [[1]], [[2]]]
    assert spread_channels(numbers, (5, 3), -1, "a").tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="a must have one number for each of 3 channels"):
        spread_channels(numbers[:2], (5, 3), 1, "a")


def test_an_element_of_more_values_than_are_counted_in_a_word_is_refused():
    assert Layout.of((2**16, 2**16), "auto").shape == (2**16, 2**16)
    with refuses(ValueError, "an element must have at most 2^32 values; got (65536,"):
        Layout.of((2**16, 2**16, 2), "auto")
