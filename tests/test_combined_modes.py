"""Modes made from others, and whole records.

A statistical assertion fails on a right library with probability 1e-6 at most.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from bounds import assert_counts
from cases import draw_masks, refuses
from dropax import Band, Box, Channel, Inverted, OneOf, Patch, Pixel, Record, Shared
from dropax.bits import split_in_two

RECORDS, SHAPE = 4096, (6, 8, 3)
KEYS = jax.random.split(jax.random.key(9), RECORDS)


def kept(mode, rate, shape=SHAPE, keys=KEYS):
    return np.asarray(draw_masks(mode, shape, keys, rate))


def test_one_of_drops_what_the_mode_that_is_drawn_drops():
    modes = Pixel(per_channel=False), Band(), Channel()
    masks = kept(OneOf(modes, weights=(1, 2, 5)), 0.4)
    assert masks.shape == (RECORDS, *SHAPE)
    mask_keys = jax.vmap(split_in_two)(KEYS)[1]
    each = [np.broadcast_to(kept(mode, 0.4, keys=mask_keys), masks.shape) for mode in modes]
    same = np.stack([(masks == mask).all(axis=(1, 2, 3)) for mask in each])
    assert same.any(axis=0).all()
    clear = same.sum(axis=0) == 1
    assert clear.mean() > 0.9
    # Whether two masks are equal by chance does not depend on which of them is drawn.
    for number, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        assert_counts(same[number, clear].sum(), clear.sum(), share)


@pytest.mark.parametrize("weights", [(1, 0), (1, 0, 0)])
def test_a_mode_of_weight_zero_is_never_drawn(weights, monkeypatch):
    # Not even of the highest word, which is above every bound.
    modes = ("pixel", *[Channel(min_kept=3)] * (len(weights) - 1))
    words = jnp.full((), 2**32 - 1, jnp.uint32)
    monkeypatch.setattr("dropax.modes.one_of.sample_words", lambda *_: words)
    with jax.disable_jit():
        assert not OneOf(modes, weights).sample(jax.random.key(0), SHAPE, 1.0).any()
    assert OneOf(modes, weights).expected_dropped_fraction(SHAPE, 0.5) == 0.5


def test_modes_without_weights_are_equally_likely():
    mode = OneOf((Record(), Channel(min_kept=3), Channel(min_kept=2)))
    dropped = (~kept(mode, 1.0)).sum(axis=(1, 2, 3))  # channels
    for count in (3, 0, 1):
        assert_counts((dropped == count).sum(), RECORDS, 1 / 3)


def test_names_become_objects_and_the_only_mode_is_always_drawn(key):
    mask = Box().sample(split_in_two(key)[1], SHAPE, 0.4)
    np.testing.assert_array_equal(OneOf(("box",), weights=(3,)).sample(key, SHAPE, 0.4), mask)
    assert OneOf(("box", "record")) == OneOf((Box(), Record()))
    assert Shared("box", 0).mode == Inverted("box").mode == Box()


def test_shared_axes_have_the_mask_of_an_element_without_them(key):
    shape = (4, 6, 8, 3)
    cases = [
        (0, (6, 8, 3), (1, 6, 8, 3)),
        ((1, -1), (4, 8, 1), (4, 1, 8, 1)),
        ((2, 0), (6, 3), (1, 6, 1, 3)),
        ((0, 1, 2), (3,), (1, 1, 1, 3)),
    ]
    for axes, inner, outer in cases:
        mask = Shared(Pixel(), axes).sample(key, shape, 0.4)
        assert mask.shape == outer
        expected = Pixel().sample(key, inner, 0.4)
        np.testing.assert_array_equal(mask, expected.reshape(outer))


@pytest.mark.parametrize("mode", [Patch(2, exact=True), Channel(), Pixel()], ids=str)
def test_inverted_drops_all_but_what_the_mode_drops(mode, key):
    for rate in (0.0, 0.25, 0.5, 0.75, 1.0):
        mask = Inverted(mode).sample(key, SHAPE, rate)
        np.testing.assert_array_equal(mask, ~mode.sample(key, SHAPE, 1 - rate))
    for rate in (0.1, 1 / 3, 0.6):
        twice = Inverted(Inverted(mode)).sample(key, SHAPE, rate)
        np.testing.assert_array_equal(twice, mode.sample(key, SHAPE, rate))


def test_inverted_keeps_all_at_rate_0_also_of_a_mode_that_always_keeps_some(key):
    mode = Inverted(Channel(min_kept=1))
    assert mode.sample(key, SHAPE, 0.0).all()
    assert not mode.sample(key, SHAPE, 1.0).any()
    fraction = jax.jit(lambda rate: mode.expected_dropped_fraction(SHAPE, rate))
    assert (float(fraction(0.0)), float(fraction(1.0))) == (0, 1)
    assert float(fraction(0.3)) > 0.3


def test_a_rate_that_is_no_number_drops_all_as_elsewhere(key):
    assert not bool(Inverted("patch").sample(key, SHAPE, jnp.float32(jnp.nan)).any())


def test_a_record_drops_by_the_stream_of_jax():
    masks = kept(Record(), 0.3)
    assert masks.shape == (RECORDS, 1, 1, 1)
    rate = np.float32(1) - np.float32(0.3)
    expected = jax.vmap(lambda key: jax.random.bernoulli(key, rate, (1, 1, 1)))(KEYS)
    np.testing.assert_array_equal(masks, expected)
    assert_counts((~masks).sum(), RECORDS, 0.3)


NESTED = [
    OneOf(("box", Channel(min_kept=1), Record()), weights=(1, 0.5, 2)),
    Shared(Channel(min_kept=1), axes=0),
    Inverted(Channel(min_kept=1)),
    Inverted(OneOf((Shared("pixel", axes=(0, 1)), Patch(size=2)))),
]


GROUPS = ((0, 2), (1,), (3, 4, 5))
CHANNELS = [  # each two of the three options
    *((0, True, None), (0, False, GROUPS), (1, True, GROUPS)),
    *((1, False, None), (2, True, None), (2, False, GROUPS)),
]


@pytest.mark.parametrize(
    ("mode", "shape"),
    [*((mode, SHAPE) for mode in NESTED), *((Channel(*each), (2, 6)) for each in CHANNELS)],
    ids=str,
)
def test_what_is_expected_is_what_drops(mode, shape):
    config = dropax.DropoutOperatorConfig(field_key="image", mode=mode, channel_axis=-1)
    for rate in (0.3, 0.8):
        drops = np.broadcast_to(~kept(mode, rate, shape), (RECORDS, *shape))
        expected = dropax.expected_dropped_fraction(config.replace(dropout_rate=rate), shape)
        assert_counts(drops.reshape(RECORDS, -1).mean(axis=1).sum(), RECORDS, float(expected))


@dataclasses.dataclass(frozen=True)
class Own:
    """A mode of a user's own, which returns what it holds."""

    mask: str = "bool"

    def sample(self, key, element_shape, rate):
        if self.mask == "bool":
            return jnp.arange(element_shape[-1]) > 0
        return jnp.ones(element_shape if self.mask == "float32" else (5, 7, 2), self.mask)


def test_modes_of_users_can_be_combined(key):
    first = np.broadcast_to([False, True, True], (1, 1, 3))
    np.testing.assert_array_equal(OneOf((Own(),)).sample(key, SHAPE, 0.5), first)
    np.testing.assert_array_equal(Inverted(Own()).sample(key, SHAPE, 0.5), ~first)
    np.testing.assert_array_equal(Shared(Own(), 0).sample(key, SHAPE, 0.5), first)


def drawn(mode):
    return mode.sample(KEYS[0], SHAPE, 0.5)


MASK = "the mask that a mode's sample returns must"
KIND = "must be a mode's name or a mode object such as Pixel(); got "
WRONG = [
    (lambda: OneOf("box"), TypeError, "OneOf.modes must be a tuple of modes; got 'box'."),
    (lambda: OneOf(()), ValueError, "OneOf.modes must hold a mode; got ()."),
    (lambda: OneOf(("box", 3)), TypeError, f"OneOf.modes[1] {KIND}3."),
    *(
        (lambda weights=weights: OneOf(("box", "grid"), weights), error, f"OneOf.weights{text}")
        for weights, error, text in (
            (1, TypeError, " must be a tuple of numbers or None; got 1."),
            ((1,), ValueError, " must have one number for each of 2 modes; got (1,)."),
            ((1, -1), ValueError, "[1] must be from 0 to 1e9; got -1."),
            ((0, 0.0), ValueError, " must not all be 0; got (0, 0.0)."),
            ((float("inf"), 1), ValueError, "[0] must be finite; got inf."),
            (("1", 1), TypeError, "[0] must be a number; got '1'."),
        )
    ),
    (lambda: Shared(None, 0), TypeError, f"Shared.mode {KIND}None."),
    (lambda: Shared("box", 0.5), TypeError, "Shared.axes must be an int; got 0.5."),
    (lambda: Shared("box", (0, "1")), TypeError, "Shared.axes[1] must be an int; got '1'."),
    *(
        (
            lambda axes=axes: Shared("box", axes),
            ValueError,
            f"Shared.axes must name one axis or several, once; got {axes}.",
        )
        for axes in ((), (0, 0))
    ),
    *(
        (
            lambda axes=axes: drawn(Shared("pixel", axes)),
            ValueError,
            f"Shared.axes must name axes of an element of shape (6, 8, 3), each once; got {axes}",
        )
        for axes in (3, -4, (0, -3))
    ),
    (
        lambda: drawn(Shared("box", (0, 1))),
        ValueError,
        "the element that Box drops from must have a spatial axis beside the channels; got (3,)",
    ),
    (lambda: Inverted(len), TypeError, f"Inverted.mode {KIND}<built-in function len>."),
    (lambda: drawn(Inverted(Own("float32"))), TypeError, f"{MASK} be an array of bools, True w"),
    (lambda: drawn(Shared(Own("bool_"), 0)), ValueError, f"{MASK} broadcast to the element's sh"),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG, ids=[text for *_, text in WRONG])
def test_what_does_not_fit_is_refused(make, error, text):
    with refuses(error, text):
        make()
