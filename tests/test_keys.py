"""Where keys come from, and one for each record."""

import copy
import itertools
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import equal, refuses, run, sto, through_pickle
from dropax import DropoutOperator, Rngs
from dropax.kit import keys
from dropax.kit.rngs import draw_key

CURE = "Make one with jax.random.key(0), or pass legacy keys."


def words(typed):
    return np.asarray(jax.random.key_data(typed))


def same(first, second):
    assert first.dtype == second.dtype
    np.testing.assert_array_equal(words(first), words(second))


def hashed(words):
    """The Threefry key of another key's words: each is folded into what came before."""
    salt = np.array([0x64726F70, len(words)], np.uint32)
    key = jax.random.wrap_key_data(salt, impl="threefry2x32")
    for word in words:
        key = jax.random.fold_in(key, word)
    return key


OTHERS = ["rbg", "unsafe_rbg", "threefry4x32", "philox2x32", "philox4x32"]


def key_of(seed, impl):
    try:
        return jax.random.key(seed, impl=impl)
    except ValueError:
        pytest.skip(f"this JAX has no {impl} keys")


@pytest.mark.parametrize("impl", OTHERS)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["eager", "jit", "vmap"])
def test_a_key_of_another_implementation_becomes_the_hash_of_its_words(impl, wrap):
    several = jnp.stack([key_of(seed, impl) for seed in range(4)]).reshape(2, 2)
    typed = wrap(keys.threefry_key)(several)
    assert typed.shape == (2, 2)
    for at in np.ndindex(2, 2):
        same(typed[at], hashed(words(several[at])))
        same(keys.as_key(several[at], "a"), typed[at])


def test_the_key_of_a_seed_is_that_of_threefry_whatever_jax_is_set_to():
    for seed in (0, 7, 2**31, 2**32 - 1):
        expected = words(jax.random.key(seed, impl="threefry2x32"))
        with jax.default_prng_impl("rbg"):
            np.testing.assert_array_equal(words(keys.seed_key(seed)), expected)
        jax.config.update("jax_random_seed_offset", 3)
        try:
            np.testing.assert_array_equal(words(keys.seed_key(seed)), expected)
        finally:
            jax.config.update("jax_random_seed_offset", 0)


@pytest.mark.parametrize("library", [np, jnp])
@pytest.mark.parametrize("shape", [(), (2, 3)], ids=str)
def test_threefry_keys_stay_as_they_are_and_legacy_ones_become_typed(shape, library):
    typed = jax.random.split(jax.random.key(5), shape) if shape else jax.random.key(5)
    assert keys.as_keys(typed, "a") is typed
    same(keys.as_keys(library.asarray(words(typed)), "a"), typed)
    same(keys.as_keys(jax.random.PRNGKey(5), "a"), jax.random.key(5))


def test_legacy_keys_are_of_the_implementation_that_jax_is_set_to():
    with jax.default_prng_impl("rbg"):
        legacy = jax.random.PRNGKey(5)
        same(keys.as_keys(legacy, "a"), hashed(np.asarray(legacy)))


NO_KEYS = {
    "an int": (3, "3"),
    "None": (None, "None"),
    "a list": ([0, 0], "[0, 0]"),
    "floats": (np.zeros(2), "an array of shape (2,) and dtype float64"),
    "signed words": (jnp.zeros(2, jnp.int32), "an array of shape (2,) and dtype int32"),
    "one word": (np.zeros(1, np.uint32), "an array of shape (1,) and dtype uint32"),
    "three words": (jnp.zeros((2, 3), jnp.uint32), "an array of shape (2, 3) and dtype uint32"),
    "a word alone": (np.uint32(3), "np.uint32(3)"),
    "streams": (Rngs(0), "Rngs(default: 0 drawn)"),
}
no_keys = pytest.mark.parametrize(("value", "shown"), NO_KEYS.values(), ids=NO_KEYS)


@no_keys
def test_what_is_no_key_is_refused(value, shown):
    with refuses(TypeError, f"init_state.key must be a PRNG key; got {shown}. {CURE}"):
        keys.as_keys(value, "init_state.key")


@pytest.mark.parametrize("legacy", [False, True])
def test_one_key_is_taken_and_several_are_refused_where_one_is_due(legacy):
    several = jax.random.split(jax.random.key(1), 3)
    same(keys.as_key(words(several[0]) if legacy else several[0], "a"), several[0])
    shown = "an array of shape (3,) and dtype key<fry>"
    with refuses(ValueError, f"a must be one key, of shape (); got {shown}."):
        keys.as_key(words(several) if legacy else several, "a")


@pytest.mark.parametrize(("impl", "size"), [("threefry2x32", 4), ("rbg", 4), ("threefry2x32", 0)])
def test_record_i_gets_the_key_with_i_folded_in(impl, size):
    key = jax.random.key(9, impl=impl)
    several = keys.batch_keys(key, (size,), "a")
    assert several.shape == (size,)
    key = keys.threefry_key(key)
    expected = [words(jax.random.fold_in(key, position)).tolist() for position in range(size)]
    assert words(several).tolist() == expected
    assert keys.batch_keys(several, (size,), "a") is several
    if several.size and several.dtype == jax.random.key(0).dtype:
        same(keys.batch_keys(words(several), (size,), "a"), several)
        same(keys.batch_keys(words(several[:2]), (2,), "a"), several[:2])
        same(keys.batch_keys(words(several[0]), (2,), "a")[1], jax.random.fold_in(several[0], 1))


def test_records_in_several_axes_get_keys_by_row_major_position():
    key = jax.random.key(9)
    same(keys.batch_keys(key, (2, 3), "a").reshape(6), keys.batch_keys(key, (6,), "a"))
    same(keys.batch_keys(key, (), "a"), key)


def named(key, name="augment"):
    """The key of a named stream."""
    return jax.random.fold_in(keys.threefry_key(key), np.uint32(zlib.crc32(name.encode())))


def test_a_stream_gives_its_key_with_the_count_folded_in():
    rngs, key = Rngs(3, augment=4), named(jax.random.key(4))
    same(Rngs(2**32 - 1)(), jax.random.fold_in(jax.random.key(2**32 - 1), 0))
    for count in range(3):
        same(rngs(), jax.random.fold_in(jax.random.key(3), count))
        same(rngs.augment(), jax.random.fold_in(key, 2 * count))
        same(rngs["augment"](), jax.random.fold_in(key, 2 * count + 1))
    # An unknown stream is the default one.
    for count, draw in enumerate((rngs.dropout, rngs["dropout"], rngs["default"], rngs.default)):
        same(draw(), jax.random.fold_in(jax.random.key(3), 3 + count))
    assert "dropout" in rngs
    assert "augment" in rngs
    assert repr(rngs) == "Rngs(default: 7 drawn, augment: 6 drawn)"


@pytest.mark.parametrize("seed", [0, 1, jax.random.key(0)])
def test_no_key_is_given_twice_also_by_streams_of_one_seed(seed):
    rngs = Rngs(0, augment=seed, dropout=seed)
    drawn = [tuple(words(draw())) for draw in [rngs, rngs.augment, rngs.dropout, rngs.other] * 4]
    assert len(set(drawn)) == len(drawn) == 16


def test_without_a_default_stream_only_the_named_ones_are_there():
    rngs = Rngs(augment=1)
    text = "RNG stream 'dropout' not found, nor a default one: Rngs has 'augment'."
    with refuses(KeyError, text):
        rngs["dropout"]
    with refuses(AttributeError, text):
        rngs.dropout  # noqa: B018
    with pytest.raises(KeyError, match="RNG stream 'default' not found"):
        rngs()
    assert "dropout" not in rngs
    assert not hasattr(rngs, "dropout")
    with pytest.raises(KeyError, match="RNG stream 'dropout' not found, nor a default one"):
        draw_key(rngs, "dropout", "a")
    with pytest.raises(ValueError, match=r"^Rngs must have a stream; got none\. Pass a seed: R"):
        Rngs()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_stream_may_start_from_a_key_of_any_implementation(impl):
    key = jax.random.key(3, impl=impl)
    first = jax.random.fold_in(keys.threefry_key(key), 0)
    same(Rngs(key)(), first)
    same(Rngs(augment=key).augment(), jax.random.fold_in(named(key), 0))
    same(Rngs(default=words(jax.random.key(3)))(), Rngs(3)())


TWO, SPLIT = "an array of shape (2,) and dtype", jax.random.split(jax.random.key(0))
NO_SEEDS = {
    "a string": ("0", TypeError, "must be an int seed or a key; got '0'."),
    "a float": (0.0, TypeError, "must be an int seed or a key; got 0.0."),
    "a bool": (True, TypeError, "must be an int seed or a key; got True."),
    "negative": (-1, ValueError, "must be in [0, 2^32); got -1."),
    "too large": (2**32, ValueError, "must be in [0, 2^32); got 4294967296."),
    "an array": (np.zeros(2), TypeError, f"must be a PRNG key; got {TWO} float64. {CURE}"),
    "several keys": (SPLIT, ValueError, f"must be one key, of shape (); got {TWO} key<fry>."),
}
no_seeds = pytest.mark.parametrize(("seed", "error", "text"), NO_SEEDS.values(), ids=NO_SEEDS)


@no_seeds
def test_a_stream_of_what_is_no_seed_is_refused_by_its_name(seed, error, text):
    for streams in ({"default": seed}, {"default": 0, "augment": seed}):
        with refuses(error, f"Rngs.{[*streams][-1]} {text}"):
            Rngs(**streams)


@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy])
def test_a_copy_draws_on_where_the_streams_were_and_on_its_own(copied):
    rngs = Rngs(0, augment=jax.random.key(1, impl="rbg"))
    rngs(), rngs.augment(), rngs.augment()
    other = copied(rngs)
    assert repr(other) == repr(rngs) == "Rngs(default: 1 drawn, augment: 2 drawn)"
    same(other.augment(), rngs.augment())
    other()
    assert repr(rngs) == "Rngs(default: 1 drawn, augment: 3 drawn)"


class Foreign:
    """Streams of another library: called, or called by name."""

    def __init__(self):
        self.numbers = itertools.count()

    def __call__(self):
        return jax.random.key(100 + next(self.numbers))

    def augment(self):
        return jax.random.key(200 + next(self.numbers))


KEY = jax.random.key(6)
FIRST, FIRST_NAMED = jax.random.fold_in(KEY, 0), jax.random.fold_in(named(KEY), 0)
DRAWN = {
    "an int": (lambda: 6, None, FIRST),
    "an int and a stream": (lambda: 6, "augment", FIRST),
    "a key": (lambda: KEY, "augment", FIRST),
    "a legacy key": (lambda: jax.random.PRNGKey(6), None, FIRST),
    "streams": (lambda: Rngs(6), None, FIRST),
    "streams and a name": (lambda: Rngs(0, augment=6), "augment", FIRST_NAMED),
    "streams and an unknown name": (lambda: Rngs(6), "augment", FIRST),
    "a function": (lambda: lambda: KEY, "augment", KEY),
    "a function of a legacy key": (lambda: lambda: jax.random.PRNGKey(6), None, KEY),
    "a foreign object": (Foreign, None, jax.random.key(100)),
    "a foreign stream": (Foreign, "augment", jax.random.key(200)),
    "an unknown foreign stream": (Foreign, "dropout", jax.random.key(100)),
    "no call": (lambda: types.SimpleNamespace(augment=lambda: KEY), "augment", KEY),
}


@pytest.mark.parametrize(("make", "stream", "expected"), DRAWN.values(), ids=DRAWN)
def test_a_key_is_drawn_from_whatever_gives_one(make, stream, expected):
    same(draw_key(make(), stream, "a"), expected)


@no_seeds
def test_what_gives_no_key_is_refused_by_the_name_of_the_argument(seed, error, text):
    if isinstance(seed, str | float):
        text = text.replace("be an int seed", "be a dropax.Rngs, an int seed")
    with refuses(error, f"Operator.rngs {text}"):
        draw_key(seed, None, "Operator.rngs")


def test_a_callable_that_gives_no_key_is_refused():
    with pytest.raises(TypeError, match=r"^a must be a dropax.Rngs, an int seed or a key; got N"):
        draw_key(None, None, "a")
    with pytest.raises(TypeError, match=r"^a when called must be a PRNG key; got 3\. Make one"):
        draw_key(lambda: 3, "augment", "a")
    with pytest.raises(ValueError, match=r"^a when called must be one key, of shape \(\); got"):
        draw_key(lambda: jax.random.split(KEY), None, "a")


def test_operators_that_share_a_stream_draw_masks_of_their_own():
    shared = Rngs(0)
    first, second = (DropoutOperator(sto().config, rngs=shared) for _ in range(2))
    assert not equal(run(first), run(second))
