"""Which values drop together: the modes one by one, and modes by name or object."""

import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find

import dropax
from cases import CLASSES, MODES, every_class, refuses
from dropax import Band, Block, Blocks, Box, Channel, Grid, Mode, OneOf, Patch, Pixel, Record, modes
from dropax.modes import as_mode
from dropax.modes.base import BuiltIn
from dropax.testing import modes as drawn_modes

RATES = [0.0, 0.3, 0.5, 1.0]
EVERY_MODE = [as_mode(mode, "a") for mode in MODES.values()]
EVERY_OBJECT = [as_mode(MODES[name], "a") for name in CLASSES]


BY_THE_STREAM = [
    (Pixel(), (4, 5, 3), (4, 5, 3)),
    (Pixel(per_channel=False), (4, 5, 3), (4, 5, 1)),
    (Channel(), (4, 5, 3), (1, 1, 3)),
    (Pixel(per_channel=False), (2, 3, 4, 2), (2, 3, 4, 1)),
    (Channel(), (7, 1), (1, 1)),
    (Pixel(), (1,), (1,)),
    (Pixel(), (0, 3), (0, 3)),
    (Channel(), (5, 0), (1, 0)),
]


@pytest.mark.parametrize(("mode", "shape", "drawn"), BY_THE_STREAM)
def test_pixels_and_channels_drop_by_the_stream_of_jax(mode, shape, drawn, key):
    for rate in RATES:
        mask = np.asarray(mode.sample(key, shape, rate))
        assert mask.dtype == np.bool_
        assert mask.shape == drawn
        expected = jax.random.bernoulli(key, np.float32(1) - np.float32(rate), drawn)
        np.testing.assert_array_equal(mask, expected)


@every_class
def test_a_mode_draws_the_same_without_jit(mode, key):
    mode = as_mode(mode, "a")
    mask = mode.sample(key, (40, 30, 3), 0.4)
    with jax.disable_jit():
        np.testing.assert_array_equal(mode.sample(key, (40, 30, 3), 0.4), mask)


draw = jax.jit(lambda mode, key, rate: mode.sample(key, (4, 3), rate), static_argnums=0)


@pytest.mark.parametrize("min_kept", range(4))
def test_at_least_so_many_channels_are_kept_those_nearest_to_being_kept(min_kept):
    changed = 0
    for seed in range(12):
        key = jax.random.key(seed)
        # How many of the rates drop a channel: it comes back first if it drops last.
        drops = np.sum([~np.asarray(draw(Channel(), key, n / 32)) for n in range(33)], axis=0)
        for rate in RATES:
            plain = np.asarray(draw(Channel(), key, rate))
            mask = np.asarray(draw(Channel(min_kept=min_kept), key, rate))
            assert mask.sum() == max(plain.sum(), min_kept)
            assert (mask >= plain).all()
            assert drops[mask].max(initial=0) <= drops[~mask].min(initial=33)
            changed += int((mask != plain).any())
    assert (changed > 0) == (min_kept > 0)


def test_a_mask_that_is_drawn_eagerly_is_one_program():
    assert {type(mode).sample for mode in EVERY_OBJECT} == {BuiltIn.sample}
    assert hasattr(BuiltIn._sample, "lower")  # as what is jitted has


ELEMENT = (6, 5, 3)


@functools.cache
def sampler(mode):
    """A program from a key to a mask: the function, its text, and what is compiled from it."""
    sample = jax.jit(lambda key: mode.sample(key, ELEMENT, 0.3))
    lowered = sample.lower(jax.random.key(0))
    return sample, lowered.as_text(), lowered.compile()


@contextlib.contextmanager
def other_settings():
    """Every setting that could reach a draw, otherwise than by default."""
    with (
        jax.threefry_partitionable(False),
        jax.enable_x64(True),
        jax.default_matmul_precision("bfloat16"),
        jax.default_prng_impl("rbg"),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


@pytest.mark.parametrize("mode", [*EVERY_MODE, Grid(unit=3, rotate=20)], ids=repr)
def test_a_mask_depends_on_its_key_and_on_no_setting_of_jax(mode, key):
    sample, program, compiled = sampler(mode)
    with other_settings():
        lowered = sample.lower(key)
        # The same program is known to draw the same.
        if lowered.as_text() != program:
            np.testing.assert_array_equal(lowered.compile()(key), compiled(key))


def exported(mode):
    """A program that draws masks for any number of keys."""
    (records,) = jax.export.symbolic_shape("records")

    def draw(words):
        keys = jax.random.wrap_key_data(words)
        return jax.vmap(lambda key: mode.sample(key, ELEMENT, 0.3))(keys)

    return jax.export.export(jax.jit(draw))(jax.ShapeDtypeStruct((records, 2), jnp.uint32))


@pytest.mark.parametrize("mode", EVERY_OBJECT, ids=repr)
def test_a_program_is_exported_for_any_number_of_records(mode, key):
    *_, compiled = sampler(mode)
    keys = jax.random.split(key, 3)
    masks = exported(mode).call(jax.random.key_data(keys))
    for one, mask in zip(keys, np.asarray(masks), strict=True):
        np.testing.assert_array_equal(mask, compiled(one))


def test_the_defaults_are_the_documented_ones():
    assert Pixel() == Pixel(per_channel=True)
    assert Channel() == Channel(min_kept=0, exact=False, groups=None)
    assert Block() == Block(size=7, per_channel=False)
    assert Patch() == Patch(size=16, exact=False)
    assert Box() == Box(count=1, aspect_ratio=(1, 1), border="inside")
    assert Grid() == Grid(unit=32, rotate=0)
    assert Band() == Band(axis=0, count=1)
    assert Blocks() == Blocks(size=16, aspect_ratio=(0.3, 3.3), min_cells=4)


def test_a_name_stands_for_the_defaults_of_its_object():
    defaults = [Pixel(), Channel(), Block(), Patch(), Box(), Grid(), Band(), Record()]
    assert {type(mode).__name__.lower(): mode for mode in defaults} == modes.MODES
    for name, mode in modes.MODES.items():
        assert as_mode(name, "a") is mode
        assert as_mode(mode, "a") is mode


@dataclasses.dataclass(frozen=True)
class Corner:
    """A mode of a user's own: the first so many rows, whatever the key."""

    rows: int = 1

    def sample(self, key, element_shape, rate):
        rows = jnp.arange(element_shape[0]).reshape(-1, *[1] * (len(element_shape) - 1))
        return (rows >= self.rows) | (jnp.asarray(rate) <= 0)


def test_a_new_mode_is_one_row_of_the_table(key, monkeypatch):
    monkeypatch.setitem(modes.MODES, "corner", None)  # what the row adds is taken back
    monkeypatch.setitem(modes.TYPES, "Corner", None)
    modes.add_mode(Corner, "corner")
    assert isinstance(Corner(), Mode)
    by_name = dropax.DropoutOperatorConfig(field_key="image", mode="corner")
    by_text = by_name.replace(mode="OneOf(('corner', Corner(rows=2)))")
    assert by_text.mode == OneOf((Corner(), Corner(2)))
    assert [config.to_dict()["mode"] for config in (by_name, by_text)] == [
        "corner",
        "OneOf(modes=(Corner(), Corner(rows=2)))",
    ]
    for config in (by_name, by_name.replace(mode=Corner(3)), by_text):
        values = json.loads(json.dumps(config.to_dict()))
        assert dropax.DropoutOperatorConfig.from_dict(values) == config
    out = dropax.dropout(key, jnp.ones((3, 2, 1)), mode="corner", rate=0.5)
    np.testing.assert_array_equal(out[..., 0], [[0, 0], [1, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"got 'cornre'\. Did you mean 'corner'\?"):
        by_name.replace(mode="cornre")
    find(drawn_modes(names=["corner"]), lambda mode: mode == Corner())


@dataclasses.dataclass(frozen=True)
class Counting(Corner):
    """Has an option that modes of the package have as well."""

    counts: bool = True


def test_options_of_a_users_mode_are_its_own(key):
    config = dropax.DropoutOperatorConfig(
        field_key="image", mode=Counting(), where_key="where", dropout_rate=0.5, stochastic=True
    )
    params = dropax.generate_random_params(config, key, {"image": (1, 3, 2, 1)})
    assert set(params) == {"keep_mask"}


class Thawed:
    """Not frozen, so it has no hash."""

    __hash__ = None
    sample = Corner.sample

    def __repr__(self):
        return "Thawed()"


LISTED = f"must be one of {', '.join(map(repr, modes.MODES))}; got"
TEXT = "Or write it as in Python, such as 'Box(count=3)'."
OBJECT = "must be a mode's name or a mode object such as Pixel(); got"
NO_MODES = [
    ("pixle", ValueError, f"{LISTED} 'pixle'. Did you mean 'pixel'?"),
    ("Channel", ValueError, f"{LISTED} 'Channel'. Did you mean 'channel'?"),
    ("zzz", ValueError, f"{LISTED} 'zzz'. {TEXT}"),
    ("", ValueError, f"{LISTED} ''. {TEXT}"),
    (None, TypeError, f"{OBJECT} None."),
    (3, TypeError, f"{OBJECT} 3."),
    (Pixel, TypeError, f"{OBJECT} the class Pixel."),
    (len, TypeError, f"{OBJECT} <built-in function len>."),
    (Thawed(), TypeError, "must be hashable by value; got Thawed(). Make its class a frozen data"),
]


@pytest.mark.parametrize(("mode", "error", "text"), NO_MODES, ids=str)
def test_what_is_no_mode_is_refused(mode, error, text):
    with refuses(error, f"Config.mode {text}"):
        as_mode(mode, "Config.mode")


@dataclasses.dataclass(frozen=True)
class Given:
    """A mode of a user's that returns ones, or a list."""

    shape: tuple[int, ...]
    dtype: type | None = bool

    def sample(self, key, element_shape, rate):
        return jnp.ones(self.shape, self.dtype) if self.dtype else [True]


BOOLS = "a mode's sample returns must be an array of bools, True where kept"
WIDER = r"a mode's sample returns must broadcast to the element's shape \(1, 4, 2\)"


@pytest.mark.parametrize(
    ("mode", "error", "text"),
    [
        (Given((1, 4, 2), float), TypeError, BOOLS),
        (Given((), None), TypeError, BOOLS),
        *((Given(shape), ValueError, WIDER) for shape in ((4, 4, 1), (2, 1, 4, 1), (3,))),
    ],
    ids=str,
)
def test_a_mode_that_returns_anything_but_a_mask_is_refused(mode, error, text, key):
    with pytest.raises(error, match=text):
        dropax.dropout(key, jnp.ones((1, 4, 2)), mode=mode)


def test_channels_that_seem_to_come_first_warn_in_modes_that_treat_them_apart(key):
    def drop(shape, mode, **options):
        # The shape alone says so: nothing is compiled.
        images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        jax.eval_shape(lambda x: dropax.dropout(key, x, mode=mode, **options), images)

    first = (3, 32, 32)
    for shape, mode in (
        *((first, mode) for mode in ("channel", "box", Pixel(per_channel=False))),
        ((1, 16, 40), "channel"),
    ):
        with pytest.warns(UserWarning, match="looks as if its channels came first"):
            drop(shape, mode)
        drop(shape, mode, channel_axis=0)
    for mode in ("pixel", "record"):
        drop(first, mode)
    for other in ((32, 32, 3), (4, 4, 512), (3, 3, 256)):
        drop(other, "channel")
