"""What is carried from call to call, saved and restored."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from jax.tree_util import keystr

import dropax
from cases import refuses, through_pickle
from dropax import OperatorConfig
from dropax.kit.batching import count_records
from dropax.kit.state import load_state, new_state, save_state, word_count

WORD = 2**32


def words_of(number):
    return jnp.asarray([number >> 32, number % WORD], jnp.uint32)


def state_at(step=0, applied=0, skipped=0, statistics=None, impl="threefry2x32"):
    state = new_state(jax.random.key(4, impl=impl), statistics)
    return state.replace(
        step=jnp.asarray(step, jnp.uint32),
        applied_count=words_of(applied),
        skipped_count=words_of(skipped),
    )


def plain(state):
    """A state as Python and NumPy values that compare."""
    leaves, structure = jax.tree.flatten(state.replace(key=jax.random.key_data(state.key)))
    return [(np.asarray(x).dtype, np.asarray(x).tolist()) for x in leaves], structure


def counted(state, applied, skipped):
    for size, active in ((applied, True), (skipped, False)):
        state = count_records(state, size, active, None, frozenset())
    return state


@example(start=WORD - 2, added=[1, 1, 1])
@example(start=WORD - 1, added=[WORD - 1])
@example(start=2 * WORD - 1, added=[0, 1])
@given(start=st.integers(0, 2**64 - 1), added=st.lists(st.integers(0, WORD - 1), max_size=5))
def test_records_are_counted_in_two_words_of_which_the_low_one_carries(start, added):
    state = state_at(applied=start, skipped=2**40)
    for number in added:
        state = counted(state, np.uint32(number), np.uint32(WORD - 1 - number))
    assert word_count(state.applied_count) == (start + sum(added)) % 2**64
    assert word_count(state.skipped_count) == 2**40 + len(added) * (WORD - 1) - sum(added)
    assert state.applied_count.dtype == state.skipped_count.dtype == jnp.uint32


def test_each_step_has_its_key_and_the_last_is_followed_by_the_first():
    state = state_at()
    for step in range(3):
        assert state.next_key() == jax.random.fold_in(jax.random.key(4), step)
        state = state.advance()
    assert int(state.step) == 3
    assert int(state_at(step=WORD - 1).advance().step) == 0


def test_a_new_state_has_drawn_and_counted_nothing():
    state = new_state(jax.random.key(4), {"mean": np.ones(3)})
    assert state.step.dtype == state.applied_count.dtype == state.skipped_count.dtype == jnp.uint32
    assert (int(state.step), word_count(state.applied_count)) == (0, 0)
    assert word_count(state.skipped_count) == 0
    paths = [keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    assert paths == [".key", ".step", ".applied_count", ".skipped_count", ".statistics['mean']"]
    assert len(jax.tree.leaves(new_state(jax.random.key(4)))) == 4


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_state_is_shown_by_what_it_holds(impl):
    state = state_at(3, WORD + 5, 7, {"mean": jnp.ones(2)}, impl)
    words = np.asarray(jax.random.key_data(state.key))
    assert repr(state) == (
        f"OperatorState(key='{impl}{words}', step=3, applied_count={WORD + 5}, skipped_count=7, "
        "statistics={'mean': float32[2]})"
    )


SHAPES = "key=key<fry>[], step=uint32[], applied_count=uint32[2], skipped_count=uint32[2], stati"
ODD = {
    "traced": (lambda state: jax.eval_shape(lambda s: s, state), SHAPES),
    "mapped over": (
        lambda state: jax.vmap(lambda n: counted(state, n, n))(jnp.arange(3, dtype=jnp.uint32)),
        "step=uint32[3]",
    ),
    "without leaves": (lambda state: jax.tree.map(lambda _: None, state), "step=None"),
    "of axes": (lambda state: jax.tree.map(lambda _: 0, state), "step=0"),
}


def test_a_state_can_be_shown_whatever_its_leaves_while_it_is_traced_and_after_it_was_donated():
    for make, shown in ODD.values():
        assert shown in repr(make(state_at()))
    state, seen = state_at(), []
    jax.jit(lambda s: seen.append(repr(s)) or s)(state)
    assert SHAPES in seen[0]
    jax.tree.map(lambda x: x.delete(), state)
    assert "OperatorState(" in repr(state)


def through_npz(saved):
    file = io.BytesIO()
    np.savez(file, **saved)
    file.seek(0)
    return dict(np.load(file, allow_pickle=True))


@pytest.mark.parametrize("stored", [lambda saved: saved, through_pickle, through_npz])
def test_a_state_that_was_saved_and_loaded_is_the_same(stored):
    state = state_at(WORD - 1, 2**64 - 1, WORD)
    loaded = load_state(stored(save_state(state)))
    assert plain(loaded) == plain(state)
    assert loaded.statistics is None
    statistics = {"mean": jnp.arange(3.0), "nested": {"n": 5, "name": "x"}}
    loaded = load_state(stored(save_state(state_at(statistics=statistics))))
    assert loaded.statistics["mean"].tolist() == [0, 1, 2]
    assert loaded.statistics["nested"] == {"n": 5, "name": "x"}


def test_what_is_saved_is_plain_and_the_callers_own():
    statistics = {"mean": jnp.ones(2)}
    saved = save_state(state_at(3, WORD + 1, 4, statistics))
    assert {name: type(value) for name, value in saved.items()} == {
        "version": int,
        "key_data": np.ndarray,
        "key_impl": str,
        "step": int,
        "applied_count": int,
        "skipped_count": int,
        "statistics": dict,
    }
    assert (saved["step"], saved["applied_count"], saved["skipped_count"]) == (3, WORD + 1, 4)
    loaded = load_state(saved)
    saved["key_data"][:] = 0
    saved["statistics"]["mean"][:] = 0
    assert jax.random.key_data(loaded.key).tolist() == [0, 4]
    assert loaded.statistics["mean"].tolist() == [1, 1]


def test_a_traced_state_cannot_be_saved():
    with pytest.raises(ValueError, match=r"^save_state must be called outside of jit; the state"):
        jax.jit(lambda s: save_state(s)["step"])(state_at())


@pytest.mark.parametrize("value", [None, [1], "state", state_at()], ids=lambda v: type(v).__name__)
def test_what_is_no_dict_cannot_be_loaded(value):
    with pytest.raises(TypeError, match=r"^load_state\.saved must be a dict as save_state retur"):
        load_state(value)


ENTRIES = ["version", "key_data", "key_impl", "step", "applied_count", "skipped_count"]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_missing_entry_is_named(name):
    saved = save_state(state_at())
    del saved[name]
    listed = ", ".join(repr(entry) for entry in ENTRIES if entry != name)
    with refuses(ValueError, f"state entry {name!r} not found: the state has {listed}."):
        load_state(saved)


SMALL, LARGE = "be an int in [0, 2^32)", "be an int in [0, 2^64)"
ARRAY = "be an array of dtype uint32"
WRONG = [
    *(
        (name, value, SMALL if name in ("version", "step") else LARGE, repr(value))
        for name in ("version", "step", "applied_count", "skipped_count")
        for value in (-1, 1.0, True, None, "1", [1])
    ),
    ("version", 2, "be 1", "2"),
    ("version", np.int64(0), "be 1", "0"),
    ("step", WORD, SMALL, str(WORD)),
    ("step", np.zeros(2, int), SMALL, "an array of shape (2,) and dtype int64"),
    ("step", np.float32(1), SMALL, "np.float32(1.0)"),
    ("applied_count", 2**64, LARGE, str(2**64)),
    ("key_data", [0, 1], ARRAY, "[0, 1]"),
    ("key_data", None, ARRAY, "None"),
    ("key_data", np.zeros(2), ARRAY, "an array of shape (2,) and dtype float64"),
    ("statistics", [1], "be a dict or None", "[1]"),
]


@pytest.mark.parametrize(("name", "value", "constraint", "shown"), WRONG)
def test_a_wrong_entry_is_named_with_what_was_expected(name, value, constraint, shown):
    with refuses(ValueError, f"state entry {name!r} must {constraint}; got {shown}."):
        load_state({**save_state(state_at()), name: value})


NO_KEYS = {
    "an unknown implementation": {"key_impl": "mersenne"},
    "none": {"key_impl": None},
    "bytes": {"key_impl": b"threefry2x32"},
    "several": {"key_impl": ["rbg", "rbg"]},
    "too few words": {"key_impl": "rbg"},
    "too many words": {"key_data": np.zeros(4, np.uint32)},
    "no axis": {"key_data": np.zeros((), np.uint32)},
    "several keys": {"key_data": np.zeros((3, 2), np.uint32)},
}


@pytest.mark.parametrize("changes", NO_KEYS.values(), ids=NO_KEYS)
def test_words_and_an_implementation_that_make_no_key_are_refused(changes):
    text = r"^state entries 'key_impl' and 'key_data' must make one key; got \("
    with pytest.raises(ValueError, match=text):
        load_state({**save_state(state_at()), **changes})


def test_a_key_for_a_deterministic_config_warns(key):
    with pytest.warns(UserWarning, match="given a key for a deterministic config"):
        dropax.init_state(OperatorConfig(), key)
