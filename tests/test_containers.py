"""One record and many."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_equal as same
from hypothesis import given, strategies as st
from jax.tree_util import keystr

import dropax
from cases import assert_refused, config_of, refuses
from dropax import Batch, Element


def records(count, **data):
    """Records of which each holds its number in data and state, and its name as metadata."""
    return [
        Element({"image": np.full((2, 3), n, np.float32), **data}, {"n": np.int32(n)}, f"r{n}")
        for n in range(count)
    ]


NESTED, STATED = Element({"b": {"c": 2}}), {"s": 3}
CHANGES = {
    "replace": (lambda e: e.replace(metadata=5, state={}), {"a": 1, "b": 2}, {}, 5),
    "update_data": (lambda e: e.update_data({"a": 8, "c": 9}), {"a": 8, "b": 2, "c": 9}, STATED, 4),
    "update_state": (lambda e: e.update_state({"t": 9}), {"a": 1, "b": 2}, {"s": 3, "t": 9}, 4),
    "with_metadata": (lambda e: e.with_metadata("m"), {"a": 1, "b": 2}, {"s": 3}, "m"),
    "apply_to_data": (lambda e: e.apply_to_data(lambda x: -x), {"a": -1, "b": -2}, STATED, 4),
    "nested": (lambda e: NESTED.apply_to_data(lambda x: -x), {"b": {"c": -2}}, {}, None),
    "transform": (lambda e: e.transform(lambda x: -x), {"a": -1, "b": -2}, {"s": 3}, 4),
}


@pytest.mark.parametrize(("change", "data", "state", "metadata"), CHANGES.values(), ids=CHANGES)
def test_an_element_is_changed_into_another(change, data, state, metadata):
    element = Element({"a": 1, "b": 2}, {"s": 3}, 4)
    changed = change(element)
    assert (changed.data, changed.state, changed.metadata) == (data, state, metadata)
    assert (element.data, element.state, element.metadata) == ({"a": 1, "b": 2}, {"s": 3}, 4)


FROZEN = [
    (Element(), ["data", "state", "metadata"]),
    (Batch([]), ["data", "states", "batch_state", "batch_metadata", "other"]),
    *(
        (value, [field.name for field in dataclasses.fields(value)])
        for value in (config_of("pixel"), dropax.init_state(dropax.OperatorConfig()))
    ),
    *((mode, ["sample"]) for mode in (dropax.Pixel(), dropax.Box(), dropax.OneOf(("box",)))),
]


@pytest.mark.parametrize(("frozen", "names"), FROZEN, ids=lambda x: type(x).__name__)
def test_nothing_can_be_set_or_deleted(frozen, names):
    for name in names:
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to .*{name}"):
            setattr(frozen, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete .*{name}"):
            delattr(frozen, name)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_stacks_each_leaf_of_its_records_and_gives_them_back(count):
    batch = Batch(iter(records(count, depth={"near": np.ones((2,), np.uint8)})))
    assert len(batch) == batch.batch_size == count
    assert batch["image"].shape == (count, 2, 3)
    assert isinstance(batch["image"], jax.Array)
    assert batch.data["depth"]["near"].dtype == jnp.uint8
    assert batch.metadata_list == [f"r{n}" for n in range(count)]
    assert batch.get_data() is batch.data
    for n, element in enumerate(batch):
        assert type(element) is Element
        same(element, records(count, depth={"near": np.ones((2,), np.uint8)})[n])
        assert element.metadata == f"r{n}"


def test_an_element_is_read_at_any_position_and_at_no_other():
    batch = Batch(records(3))
    read = [batch.get_element(n).metadata for n in (0, 2, -1, np.int64(1))]
    assert read == ["r0", "r2", "r2", "r1"]
    assert int(batch.get_element(-2).state["n"]) == 1
    assert "image" in batch
    assert "n" not in batch
    for position in (3, -4):
        with pytest.raises(IndexError, match=r"the batch has \d records; got index -?\d+\."):
            batch.get_element(position)
    names = np.array(["r0", "r1", "r2"])
    for indices in ([2, 0, 2], slice(1, None), slice(None, None, -1), np.array([1])):
        assert [each.metadata for each in batch.get_elements(indices)] == [*names[indices]]
    assert batch.get_elements([]) == []


@given(start=st.integers(-5, 5), end=st.integers(-5, 5))
def test_a_slice_of_a_batch_is_the_batch_of_the_sliced_records(start, end):
    batch = Batch.from_parts(
        {"n": np.arange(4)}, {"s": np.arange(4)}, list("abcd"), "whole", {"of": "all"}
    ).slice(start, end)
    assert batch["n"].tolist() == batch.states["s"].tolist() == [*range(4)][start:end]
    assert batch.metadata_list == [*"abcd"][start:end]
    assert len(batch) == len([*range(4)][start:end])
    assert (batch.batch_metadata, batch.batch_state) == ("whole", {"of": "all"})


def test_a_batch_of_nothing_is_empty():
    batch = Batch([])
    assert (len(batch), [*batch], batch.data, batch.states) == (0, [], {}, {})
    assert batch.metadata_list == batch.get_elements(slice(None)) == []
    assert len(batch.slice(0, 3)) == 0
    assert repr(batch) == "Batch(batch_size=0, data={}, states={})"
    for each, held in ((batch, "nothing"), (Batch(records(2, label=1)), "'image', 'label'")):
        with refuses(KeyError, f"field 'rgb' not found: the batch has {held}."):
            each["rgb"]
    assert len(Batch([Element(metadata="a"), Element()])) == 2  # counted by their metadata
    no_records = Batch.from_parts({"image": np.zeros((0, 4, 5), np.uint8)})
    assert (len(no_records), [*no_records], no_records.metadata_list) == (0, [], [])
    assert jax.jit(lambda b: b)(no_records)["image"].shape == (0, 4, 5)


TWO, SAME = np.ones(2), "must have the structure of the first, PyTreeDef({'a': *}); got PyTreeDef("
FIRST = Element({"a": TWO})
WRONG_RECORDS = [
    ([Element(), {}], TypeError, "[1] must be a dropax.Element; got {}."),
    ({"image": 1}, TypeError, "[0] must be a dropax.Element; got 'image'."),
    ([Element({"a": {"b": "c"}})], TypeError, "[0].data['a']['b'] must be an array or a number; g"),
    ([Element({}, {"a": "c"})], TypeError, "[0].state['a'] must be an array or a number; got 'c'."),
    ([FIRST, Element({"b": 1})], ValueError, f"[1].data {SAME}{{'b': *}})."),
    ([Element({}, {"a": 1}), Element({}, {"a": [1]})], ValueError, f"[1].state {SAME}{{'a': [*"),
    ([FIRST] * 2 + [Element({"a": np.ones(3)})], ValueError, "[2].data['a'] must have the first'"),
    ([FIRST, Element({"a": TWO > 0})], ValueError, "[1].data['a'] must have the first's dtype flo"),
    ([FIRST, Element({"a": 1.0})], ValueError, "[1].data['a'] must have the first's"),
]


@pytest.mark.parametrize(("elements", "error", "text"), WRONG_RECORDS)
def test_records_that_do_not_stack_are_refused_by_position_and_path(elements, error, text):
    assert_refused(Batch, {"elements": elements}, error, f"elements{text}")


@pytest.mark.parametrize("library", [np, jnp])
def test_arrays_that_are_stacked_already_are_kept_as_they_are(library):
    image, number = library.ones((2, 3), library.uint8), library.zeros(2)
    metadata = ["a", "b"]
    batch = Batch.from_parts({"image": image}, {"n": number}, metadata, "whole", {"mean": 1})
    metadata.append("z")
    batch.metadata_list.append("z")
    assert batch["image"] is image
    assert batch.states["n"] is number
    assert (batch.metadata_list, batch.batch_metadata) == (["a", "b"], "whole")
    assert batch.batch_state == {"mean": 1}
    assert batch.get_element(1).data["image"].shape == (3,)
    left_out = Batch.from_parts({"image": image})
    assert (left_out.states, left_out.metadata_list) == ({}, [None, None])
    assert (left_out.batch_state, left_out.batch_metadata) == (None, None)
    assert len(Batch.from_parts({}, {"n": number})) == 2


WRONG_PARTS = [
    ({"data": [1]}, TypeError, ".data must be a dict of arrays; got [1]. Build the batch of rec"),
    ({"states": [{}]}, TypeError, ".states must be a dict of arrays; got"),
    ({"data": {"a": {"b": 1}}}, TypeError, "leaf 'data.a.b' must be an array; got 1."),
    ({"data": {}, "states": {}}, ValueError, "a batch must hold at least one array; got none."),
    ({"states": {"n": np.float32(1)}}, ValueError, "leaf 'states.n' must have a leading batch ax"),
    ({"states": {"n": np.ones((3, 2))}}, ValueError, "leaf 'states.n' must have 2 records along "),
    ({"metadata_list": ["x"]}, ValueError, ".metadata_list must have 2 en"),
    ({"record_ids": np.arange(3)}, ValueError, ".record_ids must have 2 ent"),
    ({"valid_mask": TWO}, TypeError, ".valid_mask must be an array"),
    ({"valid_mask": [True] * 2}, TypeError, ".valid_mask must be an array"),
    ({"valid_mask": np.ones(3, bool)}, ValueError, ".valid_mask must have 2"),
    ({"valid_mask": np.ones((2, 3), bool)}, ValueError, ".valid_mask must have sha"),
]


@pytest.mark.parametrize(("parts", "error", "text"), WRONG_PARTS)
def test_parts_that_do_not_fit_are_refused(parts, error, text):
    owner = "Batch.from_parts" if text.startswith(".") else ""
    with refuses(error, owner + text):
        Batch.from_parts(**{"data": {"a": TWO}, **parts})


PARTS = {"a": jnp.ones((2, 3))}, {"s": jnp.zeros(2)}
TREES = [
    (Element(*PARTS, "here"), [".data['a']", ".state['s']"], ["metadata"]),
    (
        Batch.from_parts(*PARTS, ["x", "y"], "whole", {"mean": jnp.ones(())}),
        [".data['a']", ".states['s']", ".batch_state['mean']"],
        ["metadata_list", "batch_metadata"],
    ),
]


@pytest.mark.parametrize(("value", "paths", "on_the_host"), TREES, ids=["element", "batch"])
def test_records_and_batches_are_trees_and_their_metadata_no_part_of_it(value, paths, on_the_host):
    found = jax.tree_util.tree_flatten_with_path(value)[0]
    assert [keystr(path) for path, _ in found] == paths
    for passed in (jax.jit(lambda x: x)(value), jax.tree.map(lambda x: x, value)):
        assert type(passed) is type(value)
        same(passed, value)
        for name in on_the_host:
            assert getattr(value, name)
            assert getattr(passed, name) in (None, [None, None])


def test_a_compiled_function_takes_batches_with_any_metadata_without_a_new_trace():
    traces = []
    count = jax.jit(lambda b: traces.append(1) or b)
    for metadata in (["x", "y"], [{"file": 1}, None], None):
        count(Batch.from_parts({"a": np.ones((2, 3), np.float32)}, None, metadata))
    assert len(traces) == 1


def test_records_and_batches_are_shown_by_dtype_and_shape():
    element = Element({"image": np.ones((4, 5), np.uint8), "n": 3}, {"k": "v"}, {"file": "a.png"})
    assert repr(element) == (
        "Element(data={'image': uint8[4,5], 'n': 3}, state={'k': 'v'}, metadata={'file': 'a.png'})"
    )
    batch = Batch([Element({"image": np.ones((4, 5), np.uint8)}, {"s": jax.random.key(0)})] * 2)
    assert repr(batch) == (
        "Batch(batch_size=2, data={'image': uint8[2,4,5]}, states={'s': key<fry>[2]})"
    )
    seen = []
    jax.jit(lambda b: seen.append(repr(b)) or b)(batch)
    assert seen == [repr(batch)]
    # With odd leaves too.
    batch = Batch.from_parts({"a": jnp.ones((2, 3))})
    for function, shown in ((jnp.sum, "float32[]"), (lambda _: None, "None"), (lambda _: 0, "0")):
        assert f"data={{'a': {shown}}}" in repr(jax.tree.map(function, batch))


class Tensor:
    """An array of another library: not NumPy's, with dtypes of its own, read by DLPack."""

    def __init__(self, array):
        self.array, self.shape, self.ndim = array, array.shape, array.ndim
        self.dtype = f"other.{array.dtype}"

    def __getitem__(self, index):
        return Tensor(self.array[index])

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


ONE = np.array([[0, 0, 4, 4], [2, 2, 8, 8]])
MASK = np.eye(8, dtype=bool)[None, ..., None]
TOKENS = dropax.keep_tokens(MASK[0, ..., 0], 1)
WHERE = config_of("pixel", where_key="where", dropout_rate=1.0, stochastic=False)
MEAN = config_of("pixel", fill="stats_mean", dropout_rate=1.0)
KEPT = {"keep_mask": MASK[0]}
KEY, IMAGE = jax.random.key(0), np.ones((8, 8, 1), np.float32)
STATE, OPERATOR = dropax.init_state(MEAN, KEY), dropax.DropoutOperator(config_of("box"), rngs=0)
ELEMENT, BATCHED = {"image": IMAGE}, {"image": np.ones((2, 4, 4, 1), np.float32)}


def batch_of(image=BATCHED["image"], **given):
    return dropax.apply_batch(MEAN, STATE, {"image": image}, {"mean": 0}, **given)[0]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (lambda x: dropax.box_mask(x, (8, 8)), ONE),
        (lambda x: dropax.length_mask(x, 4), ONE),
        (lambda x: dropax.visible_fraction(x, ONE[None]), MASK),
        (lambda x: dropax.visible_fraction(MASK, x), ONE[None]),
        (lambda x: dropax.visible_points(MASK, x), ONE[None, :, :2]),
        (lambda x: dropax.dropped_fraction(x), MASK),
        (lambda x: dropax.patch_mask(x, 2), MASK),
        (lambda x: dropax.keep_tokens(x, 1), MASK[0, ..., 0]),
        (lambda x: dropax.gather_tokens(x, TOKENS.kept), ONE[None].repeat(8, 0)),
        (lambda x: dropax.gather_tokens(ONE, x), np.array([1])),
        (lambda x: dropax.scatter_tokens(x, TOKENS, 0), np.ones((8, 1, 3))),
        (lambda x: dropax.scatter_tokens(np.ones((8, 1, 3), "f4"), TOKENS, x), np.ones(3, "f4")),
        (lambda x: dropax.as_record_ids(x), np.array([7, 2**40])),
        (lambda x: Batch.from_parts(BATCHED, record_ids=x).record_ids, np.array([7, 2**40])),
        (lambda x: Batch.from_parts(BATCHED, valid_mask=x).valid_mask, np.array([True, False])),
        (lambda x: batch_of(record_ids=x, epoch=0), np.array([7, 8])),
        (lambda x: batch_of(record_ids=[1, 2], epoch=x), np.array(3)),
        (lambda x: batch_of(x), BATCHED["image"]),
        (lambda x: dropax.dropout(KEY, x), BATCHED["image"]),
        (lambda x: dropax.apply(WHERE, {"image": x, "where": MASK[0]}, {}, {})[0]["image"], IMAGE),
        (lambda x: OPERATOR.copy().apply_batch({"image": x})["image"], BATCHED["image"]),
        (lambda x: OPERATOR.copy().apply({"image": x}, {}, {})[0]["image"], IMAGE),
        (lambda x: Batch.from_parts({"image": x}).get_data()["image"], BATCHED["image"]),
        (lambda x: Batch([Element({"image": x})] * 2)["image"], IMAGE),
        (lambda x: dropax.apply(WHERE, {**ELEMENT, "where": x}, {}, {})[0]["image"], MASK[0]),
        (lambda x: dropax.apply(MEAN, ELEMENT, {}, {}, {"keep_mask": x}, {"mean": 2})[0], MASK[0]),
        (lambda x: dropax.apply(MEAN, ELEMENT, {}, {}, KEPT, {"mean": x})[0], np.array([3])),
        (lambda x: dropax.images.to_display(x), ONE),
        (lambda x: dropax.images.mask_overlay(ONE, x), ONE > 2),
    ],
)
def test_every_argument_that_is_an_array_may_be_of_another_library(call, given):
    jax.tree.map(np.testing.assert_array_equal, call(Tensor(given)), call(given))
    with pytest.raises(TypeError, match=r"must be one that JAX takes; got an array of shape"):
        call(Unreadable(given))


class Elsewhere(Tensor):
    """One that lies where NumPy cannot read it."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("not on this device")


class Unreadable(Elsewhere):
    def __dlpack__(self, **options):
        raise BufferError("not on any device")


def test_an_array_that_numpy_cannot_read_is_read_by_dlpack_or_refused(key):
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    dropped = dropax.dropout(key, images)
    np.testing.assert_array_equal(dropax.dropout(key, Elsewhere(images)), dropped)
