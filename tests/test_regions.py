"""Which values drop together: the regions one by one, and modes by name or object."""

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
from cases import MODES, REGIONS
from dropax import (
    Band,
    Block,
    Blocks,
    Box,
    Channel,
    Grid,
    Mode,
    OneOf,
    Patch,
    Pixel,
    Record,
    modes,
)
from dropax.modes import as_mode
from dropax.testing import regions

RATES = [0.0, 0.3, 0.5, 1.0]
EVERY_MODE = [as_mode(mode, "a") for mode in MODES.values()]
EVERY_REGION = [as_mode(MODES[name], "a") for name in REGIONS]


def jax_mask(key, rate, shape):
    return jax.random.bernoulli(key, np.float32(1) - np.float32(rate), shape)


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


@pytest.mark.parametrize(
    ("impl", "region", "shape", "drawn"),
    [("threefry2x32", *case) for case in BY_THE_STREAM]
    + [(impl, *case) for impl in ("rbg", "unsafe_rbg") for case in BY_THE_STREAM[:3]],
)
def test_pixels_and_channels_drop_by_the_stream_of_jax(impl, region, shape, drawn):
    key = jax.random.key(11, impl=impl)
    for rate in RATES:
        mask = np.asarray(region.sample(key, shape, rate))
        assert mask.dtype == np.bool_
        assert mask.shape == drawn
        np.testing.assert_array_equal(mask, jax_mask(key, rate, drawn))


def test_a_channel_whose_draw_is_the_very_threshold_drops(key):
    for at, draw in enumerate(np.asarray(jax.random.bits(key, (3,), jnp.uint32)) >> 9):
        rate = np.float32(1) - draw.astype(np.float32) / np.float32(2**23)
        mask = Channel().sample(key, (4, 5, 3), rate)
        np.testing.assert_array_equal(mask, jax_mask(key, rate, (1, 1, 3)))
        assert not mask[0, 0, at]


EVERY = [Pixel(), Pixel(per_channel=False), Channel(), Channel(min_kept=1)]


@pytest.mark.parametrize("region", [Pixel(), Channel(min_kept=1)], ids=repr)
def test_a_rate_may_be_traced_and_saturates(region, key):
    sample = jax.jit(lambda rate: region.sample(key, (6, 5, 3), rate))
    for rate in RATES:
        np.testing.assert_array_equal(sample(rate), region.sample(key, (6, 5, 3), rate))
    assert bool(sample(-0.5).all())
    np.testing.assert_array_equal(sample(2.0), sample(1.0))
    assert sample._cache_size() == 1


draw = jax.jit(lambda region, key, rate: region.sample(key, (4, 3), rate), static_argnums=0)


@pytest.mark.parametrize(
    ("impl", "min_kept"),
    [*(("threefry2x32", least) for least in range(4)), ("rbg", 2), ("unsafe_rbg", 2)],
)
def test_at_least_so_many_channels_are_kept_those_nearest_to_being_kept(impl, min_kept):
    changed = 0
    for seed in range(12):
        key = jax.random.key(seed, impl=impl)
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


def test_all_channels_can_be_kept_and_no_more(key):
    assert bool(Channel(min_kept=3).sample(key, (2, 3), 1.0).all())
    with pytest.raises(ValueError, match="at most") as refused:
        Channel(min_kept=4).sample(key, (2, 3), 0.0)
    assert str(refused.value) == "Channel.min_kept must be at most the 3 channels; got 4."


@pytest.mark.parametrize("region", EVERY_REGION, ids=repr)
def test_a_mask_that_is_drawn_eagerly_is_one_program(region):
    assert hasattr(type(region).sample, "lower")  # as what is jitted has


ELEMENT = (6, 5, 3)


@functools.cache
def sampler(region):
    """A program from a key to a mask: the function, its text, and what is compiled from it."""
    sample = jax.jit(lambda key: region.sample(key, ELEMENT, 0.3))
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


@pytest.mark.parametrize("region", [*EVERY_MODE, Grid(unit=3, rotate=20)], ids=repr)
def test_a_mask_depends_on_its_key_and_on_no_setting_of_jax(region, key):
    sample, program, compiled = sampler(region)
    with other_settings():
        lowered = sample.lower(key)
        # The same program is known to draw the same.
        if lowered.as_text() != program:
            np.testing.assert_array_equal(lowered.compile()(key), compiled(key))


def exported(region, *element_shape):
    """A program that draws masks for any number of keys, and for elements of a symbolic shape."""
    records, *sizes = jax.export.symbolic_shape(f"records, {', '.join(map(str, element_shape))}")

    def draw(words, batch):
        keys = jax.random.wrap_key_data(words)
        return jax.vmap(lambda key: region.sample(key, batch.shape[1:], 0.3))(keys)

    shapes = (records, 2), (records, *sizes)
    dtypes = jnp.uint32, jnp.float32
    return jax.export.export(jax.jit(draw))(*map(jax.ShapeDtypeStruct, shapes, dtypes))


def assert_draws_the_same(program, region, key):
    *_, compiled = sampler(region)
    keys = jax.random.split(key, 3)
    masks = program.call(jax.random.key_data(keys), np.zeros((3, *ELEMENT), np.float32))
    for one, mask in zip(keys, np.asarray(masks), strict=True):
        np.testing.assert_array_equal(mask, compiled(one))


ANY_SIDES = [Pixel(), Channel(min_kept=1), Grid(unit=(2, 4))]


@pytest.mark.parametrize(
    "region", [region for region in EVERY_REGION if region not in ANY_SIDES], ids=repr
)
def test_a_program_is_exported_for_any_number_of_records(region, key):
    assert_draws_the_same(exported(region, *ELEMENT), region, key)


@pytest.mark.parametrize("region", ANY_SIDES, ids=repr)
def test_a_region_without_a_table_is_exported_for_any_number_of_records_and_any_sides(region, key):
    assert_draws_the_same(exported(region, "height", "width", 3), region, key)


@pytest.mark.parametrize("region", [Block(), Patch(), Blocks(), Box(), Band()], ids=repr)
def test_a_region_with_a_table_for_its_sides_refuses_symbolic_ones(region):
    owner = f"the spatial axes of {type(region).__name__} must have known sizes; got"
    with pytest.raises(ValueError, match=owner):
        exported(region, "height", "width", 3)


OPTIONS = {
    "per_channel": (lambda: Pixel(1), TypeError, "Pixel.per_channel must be a bool; got 1."),
    "min_kept": (lambda: Channel(-1), ValueError, "Channel.min_kept must be at least 0; got -1."),
    "a bool": (lambda: Channel(True), TypeError, "Channel.min_kept must be an int; got True."),
    "a float": (lambda: Channel(1.0), TypeError, "Channel.min_kept must be an int; got 1.0."),
}


@pytest.mark.parametrize(("make", "error", "text"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_of_another_kind_or_range_is_refused(make, error, text):
    with pytest.raises(error) as refused:
        make()
    assert str(refused.value) == text


@pytest.mark.parametrize("region", EVERY, ids=repr)
def test_regions_are_frozen_and_compare_and_hash_by_value(region):
    twin = dataclasses.replace(region)
    assert twin is not region
    assert (twin, hash(twin)) == (region, hash(region))
    assert [other for other in EVERY if other == region] == [region]
    name = dataclasses.fields(region)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(region, name, 5)


# Modes.


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
    assert {type(region).__name__.lower(): region for region in defaults} == modes.MODES
    for name, region in modes.MODES.items():
        assert as_mode(name, "a") is region
        assert as_mode(region, "a") is region


@dataclasses.dataclass(frozen=True)
class Corner:
    """A region of a user's own: the first so many rows, whatever the key."""

    rows: int = 1

    def sample(self, key, element_shape, rate):
        rows = jnp.arange(element_shape[0]).reshape(-1, *[1] * (len(element_shape) - 1))
        return (rows >= self.rows) | (jnp.asarray(rate) <= 0)


def test_any_frozen_object_with_sample_is_a_mode(key):
    assert isinstance(Corner(), Mode)
    region = as_mode(Corner(2), "a")
    assert region == Corner(2)
    np.testing.assert_array_equal(region.sample(key, (3, 2), 0.5), [[False], [False], [True]])


def test_a_new_mode_is_one_row_of_the_table(key, monkeypatch):
    monkeypatch.setitem(modes.MODES, "corner", None)  # what the row adds is taken back
    monkeypatch.setitem(modes.TYPES, "Corner", None)
    modes.add_mode(Corner, "corner")
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
    find(regions(modes=["corner"]), lambda mode: mode == Corner())


@dataclasses.dataclass
class Thawed(Corner.__mro__[1]):
    """Not frozen, so it has no hash."""

    def sample(self, key, element_shape, rate):
        raise NotImplementedError

    def __repr__(self):
        return "Thawed()"


LISTED = f"must be one of {', '.join(map(repr, modes.MODES))}; got"
TEXT = "Or write it as in Python, such as 'Box(count=3)'."
OBJECT = "must be a mode's name or a mode object such as Pixel(); got"
NO_MODES = {
    "a misspelt name": ("pixle", ValueError, f"{LISTED} 'pixle'. Did you mean 'pixel'? {TEXT}"),
    "a class by name": (
        "Channel",
        ValueError,
        f"{LISTED} 'Channel'. Did you mean 'channel'? Or write it as in Python, such as "
        "'Channel()'.",
    ),
    "an unknown name": ("zzz", ValueError, f"{LISTED} 'zzz'. {TEXT}"),
    "nothing": ("", ValueError, f"{LISTED} ''. {TEXT}"),
    "None": (None, TypeError, f"{OBJECT} None."),
    "a number": (3, TypeError, f"{OBJECT} 3."),
    "a class": (Pixel, TypeError, f"{OBJECT} the class Pixel."),
    "a function": (len, TypeError, f"{OBJECT} <built-in function len>."),
    "unhashable": (
        Thawed(),
        TypeError,
        "must be hashable by value; got Thawed(). Make its class a frozen dataclass.",
    ),
}


@pytest.mark.parametrize(("mode", "error", "text"), NO_MODES.values(), ids=NO_MODES)
def test_what_is_no_mode_is_refused(mode, error, text):
    with pytest.raises(error) as refused:
        as_mode(mode, "Config.mode")
    assert str(refused.value) == f"Config.mode {text}"


@dataclasses.dataclass(frozen=True)
class Floats:
    """A region of a user's that returns numbers."""

    def sample(self, key, element_shape, rate):
        return jnp.ones(element_shape)


def test_a_region_that_returns_anything_but_bools_is_refused(key):
    with pytest.raises(
        TypeError, match="sample returns must be an array of bools, True where kept"
    ):
        dropax.dropout(key, jnp.ones((2, 4, 4, 3)), mode=Floats())


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
