"""Dotted paths into nested dicts: reading, writing and leaving out, and nothing changed."""

import collections
import copy
import types

import pytest
from hypothesis import given, strategies as st

from cases import refuses
from dropax.kit.fields import get_field, remove_field, set_field

LETTERS = st.sampled_from(["a", "b"])
PATHS = st.lists(LETTERS, min_size=1, max_size=3).map(".".join)
NAMES = PATHS | LETTERS
TREES = st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(NAMES, inner, max_size=3))
DATA = st.dictionaries(NAMES, TREES, max_size=4)


def split(data, path):
    return [path] if path in data else path.split(".")


def walk(data, names):
    for name in names:
        if not isinstance(data, dict) or name not in data:
            return ...
        data = data[name]
    return data


def read(data, path):
    """What lies at a path, or `...`: the rule of the module, in a few lines."""
    return walk(data, split(data, path))


@given(data=DATA, path=PATHS)
def test_reading_follows_the_path_or_refuses(data, path):
    expected = read(data, path)
    if expected is ...:
        with pytest.raises(KeyError, match="not found"):
            get_field(data, path)
    else:
        assert get_field(data, path) is expected


@given(data=DATA, path=PATHS)
def test_what_was_written_is_read_back_and_nothing_else_has_changed(data, path):
    before = copy.deepcopy(data)
    names = split(data, path)
    ways = [walk(data, names[:depth]) for depth in range(1, len(names))]
    if not all(way is ... or isinstance(way, dict) for way in ways):
        text = rf"^field '{path}' must lead through dicts only; got \d\.$"
        with pytest.raises(TypeError, match=text):
            set_field(data, path, "new")
    elif isinstance(read(data, path), dict) and read(data, path):
        with pytest.raises(ValueError, match="must not take the place of a dict with"):
            set_field(data, path, "new")
    else:
        changed = set_field(data, path, "new")
        assert read(changed, path) == "new"
        assert {**changed, names[0]: 0} == {**data, names[0]: 0}
        if read(data, path) is not ...:
            assert set_field(changed, path, read(data, path)) == data
    assert data == before


@given(data=DATA, path=PATHS)
def test_leaving_out_is_the_inverse_of_writing(data, path):
    before = copy.deepcopy(data)
    if read(data, path) is ...:
        with pytest.raises(KeyError, match="not found"):
            remove_field(data, path)
    else:
        without = remove_field(data, path)
        if path in data:
            assert without == {name: data[name] for name in data if name != path}
        else:
            assert read(without, path) is ...
            assert set_field(without, path, read(data, path)) == data
    assert data == before


NOT_FOUND = {
    "at the top": ({"b": 1, "c": 2}, "a", "field 'a' not found: the data has 'b', 'c'."),
    "in nothing": ({}, "a.b", "field 'a.b' not found: the data has nothing."),
    "further in": (
        {"camera": {"depth": 1, "pose": 2}},
        "camera.rgb",
        "field 'camera.rgb' not found: 'camera' has 'depth', 'pose'.",
    ),
    "deep": ({"a": {"b": {}}}, "a.b.c", "field 'a.b.c' not found: 'a.b' has nothing."),
    "in no dict": ({"a": {"b": 1}}, "a.b.c", "field 'a.b.c' not found: 'a.b' is not a dict."),
    "an empty path": ({"a": 1}, "", "field '' not found: the data has 'a'."),
    "no data": (None, "a", "field 'a' not found: the data is not a dict."),
}


@pytest.mark.parametrize("use", [get_field, remove_field])
@pytest.mark.parametrize(("data", "path", "text"), NOT_FOUND.values(), ids=NOT_FOUND)
def test_a_path_that_leads_nowhere_says_what_is_there(use, data, path, text):
    with refuses(KeyError, text):
        use(data, path)


def test_writing_copies_the_dicts_on_the_way_and_shares_the_others():
    data = {"a": {"b": {"x": 1}, "c": {}}, "d": {}}
    changed = set_field(data, "a.b.y", 2)
    assert changed == {"a": {"b": {"x": 1, "y": 2}, "c": {}}, "d": {}}
    assert data == {"a": {"b": {"x": 1}, "c": {}}, "d": {}}
    assert changed["a"]["c"] is data["a"]["c"]
    assert changed["d"] is data["d"]


def test_dicts_keep_their_type_and_order_and_reading_adds_no_key():
    given = types.MappingProxyType({"a": types.MappingProxyType({"b": 5})})
    assert get_field(given, "a.b") == 5
    with pytest.raises(KeyError, match=r"field 'a' not found: the data has nothing\."):
        get_field(collections.defaultdict(dict), "a")
    data = collections.OrderedDict(b=collections.OrderedDict(z=1, y=2), a=3)
    changed = set_field(data, "b.z", 4)
    assert changed == collections.OrderedDict(b=collections.OrderedDict(z=4, y=2), a=3)
    assert type(changed) is type(changed["b"]) is collections.OrderedDict
    assert type(remove_field(data, "b.z")["b"]) is collections.OrderedDict
