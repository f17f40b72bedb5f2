"""Kept and dropped tokens: ids of a static number, and tokens taken out and put back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.sharding import AxisType

from cases import assert_refused, collectives, mesh_of
from dropax import Tokens, gather_tokens, keep_tokens, patch_mask, scatter_tokens


def slow_ids(mask, count):
    """(kept, dropped, restore) of one record, in a loop."""
    order = [at for at in range(len(mask)) if mask[at]]
    order += [at for at in range(len(mask)) if not mask[at]]
    kept, dropped = sorted(order[:count]), sorted(order[count:])
    return kept, dropped, [[*kept, *dropped].index(at) for at in range(len(mask))]


# Of a mask that cannot be looked at, what is missing is made up.
ANY_TOKENS = jax.jit(keep_tokens, static_argnums=1)


@settings(max_examples=25)
@given(st.data())
def test_ids_are_those_of_a_loop_for_every_mask_and_count(data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=7, max_size=7)))
    count = data.draw(st.sampled_from([1, 3, 7]))
    *ids, real = ANY_TOKENS(mask, count)
    for found, expected in zip(ids, slow_ids(mask, count), strict=True):
        assert found.dtype == jnp.int32
        assert found.tolist() == expected
    assert real.tolist() == mask[ids[0]].tolist()


def test_a_mask_that_keeps_too_few_is_refused_where_it_can_be_seen():
    masks = np.array([[True, True, False], [True, False, False]])
    for mask in (masks, jnp.asarray(masks)):
        with pytest.raises(ValueError, match=r"^keep_tokens.count must be at most 1, .* got 2\."):
            keep_tokens(mask, 2)
    assert jax.vmap(lambda mask: keep_tokens(mask, 2))(masks).mask.tolist() == [[1, 1], [1, 0]]


def test_leading_axes_are_records_of_their_own(rng):
    masks = rng.random((2, 3, 9)) < 0.5
    with jax.enable_x64(True):  # ids have 32 bits all the same
        together = [*map(np.asarray, ANY_TOKENS(masks, 4)[:3])]
    assert {ids.dtype for ids in together} == {np.dtype(np.int32)}
    # A number counts as kept if it is not zero.
    numbers = np.array([0, -1, 0.5, np.nan, -0.0], np.float32)
    assert keep_tokens(numbers, 3).kept.tolist() == [1, 2, 3]
    for at in np.ndindex(2, 3):
        for found, expected in zip(together, slow_ids(masks[at], 4), strict=True):
            assert found[at].tolist() == expected


def test_a_python_number_fills_under_jit_as_without_it():
    tokens = keep_tokens(jnp.array([True, False, True]), 2)
    kept = jnp.ones((2, 3), jnp.bfloat16)
    out = jax.jit(lambda fill: scatter_tokens(kept, tokens, fill))(0.5)
    np.testing.assert_array_equal(out, scatter_tokens(kept, tokens, 0.5))
    assert out.dtype == jnp.bfloat16


def test_jit_and_vmap_change_nothing(rng):
    masks = jnp.asarray(rng.random((5, 9)).argsort(axis=1) < 5)
    x = jnp.asarray(rng.random((5, 9, 2), np.float32))

    def both(mask, x):
        tokens = keep_tokens(mask, 4)
        kept = gather_tokens(x, tokens.kept)
        return tokens, kept, scatter_tokens(kept, tokens, -1.0)

    eager = both(masks, x)
    assert len(jax.tree.leaves(eager[0])) == 4
    for other in (jax.jit(both)(masks, x), jax.vmap(both)(masks, x)):
        assert isinstance(other[0], Tokens)
        jax.tree.map(np.testing.assert_array_equal, eager, other)


@pytest.mark.parametrize(("shape", "size"), [((4, 6), 2), ((4, 6), (2, 3)), ((2, 4, 6), (1, 2, 3))])
def test_a_patch_is_kept_if_all_of_it_is(shape, size, rng):
    sizes = size if isinstance(size, tuple) else (size, size)
    mask = rng.random((3, *shape, 2)) < 0.95
    expected = []
    for record in mask:
        for corner in np.ndindex(*(full // each for full, each in zip(shape, sizes, strict=True))):
            ends = zip(corner, sizes, strict=True)
            expected.append(record[tuple(slice(a * s, a * s + s) for a, s in ends)].all())
    found = patch_mask(mask, size)
    assert 0 < found.sum() < found.size
    np.testing.assert_array_equal(found, np.reshape(expected, (3, -1)))


def test_channels_may_be_anywhere_or_missing(rng):
    mask = rng.random((3, 4, 6, 2)) < 0.9
    expected = patch_mask(mask, 2)
    np.testing.assert_array_equal(patch_mask(np.moveaxis(mask, -1, 1), 2, channel_axis=1), expected)
    np.testing.assert_array_equal(patch_mask(mask.all(-1), 2, channel_axis=None), expected)
    assert patch_mask(mask[:0], 2).shape == (0, 6)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "bool"])
def test_kept_tokens_come_back_in_place_and_the_others_are_filled(dtype, rng):
    tokens = ANY_TOKENS(rng.random((3, 9)) < 0.5, 4)
    x = rng.integers(0, 2, (3, 9, 5)).astype(jnp.dtype(dtype))
    kept = gather_tokens(x, tokens.kept)
    assert (kept.shape, kept.dtype) == ((3, 4, 5), x.dtype)
    back = np.asarray(scatter_tokens(kept, tokens, 1))
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    for record, ids in enumerate(np.asarray(tokens.kept)):
        others = np.setdiff1d(np.arange(9), ids)
        np.testing.assert_array_equal(back[record, ids], x[record, ids])
        np.testing.assert_array_equal(back[record, others], np.ones((5, 5), x.dtype))


def test_all_tokens_may_be_kept():
    tokens = ANY_TOKENS(np.array([False, True, False]), 3)
    assert tokens.dropped.shape == (0,)
    x = jnp.arange(6.0).reshape(3, 2)
    assert gather_tokens(x, tokens.dropped).shape == (0, 2)
    np.testing.assert_array_equal(scatter_tokens(gather_tokens(x, tokens.kept), tokens, 0), x)
    # Ids out of range are clipped.
    np.testing.assert_array_equal(gather_tokens(x, np.array([-7, 9])), x[np.array([0, 2])])


def test_gradients_reach_kept_tokens_and_the_fill_and_nothing_else():
    tokens = keep_tokens(np.array([True, False, True, False, False]), 2)
    weights = np.arange(1, 6, dtype=np.float32)[:, None] * np.ones((5, 2), np.float32)

    def loss(x, fill):
        return (scatter_tokens(gather_tokens(x, tokens.kept), tokens, fill) * weights).sum()

    x = np.ones((5, 2), np.float32)
    x[[1, 3, 4]] = np.nan
    of_x, of_fill = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, np.ones(2, np.float32))
    np.testing.assert_array_equal(of_x, weights * np.float32([1, 0, 1, 0, 0])[:, None])
    np.testing.assert_array_equal(of_fill, [2 + 4 + 5] * 2)


def test_numbers_of_64_bits_are_read_in_their_own_dtype():
    assert keep_tokens(np.array([2**32, 0, 2**40, 0]), 2).kept.tolist() == [0, 2]
    assert keep_tokens(np.array([0, 1e-50]), 1).kept.tolist() == [1]
    assert patch_mask(np.full((2, 2), 2**32), 1, channel_axis=None).all()
    x = jnp.arange(8.0).reshape(4, 2)
    ids = np.array([2**32 + 1, -(2**32) + 1])  # clipped
    np.testing.assert_array_equal(gather_tokens(x, ids), x[jnp.array([3, 0])])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_a_sharded_batch_needs_no_collectives_gradients_included(kind):
    def lying(shape, dtype):
        sharding = jax.NamedSharding(mesh_of(8, kind), jax.P("x"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def loss(x, fill, mask):
        tokens = keep_tokens(patch_mask(mask, 2), 4)
        kept = gather_tokens(x, tokens.kept)
        out = scatter_tokens(kept * kept, tokens, fill)
        return out.sum(axis=(1, 2)), (tokens, kept, out)

    def step(x, fill, mask):
        _, backwards, made = jax.vjp(lambda x: loss(x, fill, mask), x, has_aux=True)
        return made, backwards(jnp.ones_like(made[2][:, 0, 0]))

    given_ = lying((40, 6, 7), jnp.float32), jnp.ones(7), lying((40, 4, 6, 1), jnp.bool_)
    compiled = jax.jit(step).lower(*given_).compile()
    assert collectives(compiled) == []
    for sharding in jax.tree.leaves(compiled.output_shardings):
        assert sharding.spec[0] == "x"


MASK = np.ones((3, 9), bool)
TOKENS = keep_tokens(MASK, 4)
X = np.ones((3, 9, 2), np.float32)
KEPT = np.ones((3, 4, 2), np.float32)
PLACES = np.ones((4, 6, 3), bool)


WRONG = [
    (keep_tokens, {"count": 0}, ValueError, "count must be in [1, 10)"),
    (keep_tokens, {"count": 10}, ValueError, "count must be in [1, 10)"),
    (keep_tokens, {"count": 0.25}, TypeError, "count must be an int"),
    (keep_tokens, {"keep_mask": np.bool_(1)}, ValueError, "keep_mask must have"),
    (keep_tokens, {"keep_mask": [True]}, TypeError, "keep_mask must be an array"),
    (keep_tokens, {"keep_mask": MASK * 1j}, TypeError, "keep_mask must be an array of real num"),
    (gather_tokens, {"x": [1]}, TypeError, "x must be"),
    (gather_tokens, {"ids": MASK}, TypeError, "ids must be an array of int"),
    (gather_tokens, {"ids": TOKENS}, TypeError, "ids must be an array of int"),
    (gather_tokens, {"x": X[0]}, ValueError, "ids must have shape ('count',)"),
    (gather_tokens, {"x": X[:2]}, ValueError, "ids must have shape (2, 'count')"),
    (gather_tokens, {"x": X[:, :0]}, ValueError, "x must have"),
    (scatter_tokens, {"kept": None}, TypeError, "kept must be"),
    (scatter_tokens, {"kept": X}, ValueError, "kept must have shape (3, 4, 'features')"),
    (scatter_tokens, {"tokens": TOKENS.kept}, TypeError, "tokens must be what keep_tokens returns"),
    (scatter_tokens, {"fill": np.ones(2)}, TypeError, "fill must be a number, or an array of dt"),
    (scatter_tokens, {"fill": 1e39}, ValueError, "fill must be within the range"),
    (scatter_tokens, {"fill": -(10**400)}, ValueError, "fill must be within the range"),
    (scatter_tokens, {"fill": "mean"}, TypeError, "fill must be a number, or an array"),
    (scatter_tokens, {"fill": KEPT}, ValueError, "fill must broad"),
    (scatter_tokens, {"kept": KEPT.astype("i4"), "fill": 0.5}, ValueError, "fill must"),
    (patch_mask, {"size": 4}, ValueError, "keep_mask must have"),
    (patch_mask, {"keep_mask": PLACES[0]}, ValueError, "keep_mask must have 2 spatial axes"),
    (patch_mask, {"size": 0}, ValueError, "size must be at least 1"),
    (patch_mask, {"size": 2.0}, TypeError, "size must be an int"),
    (patch_mask, {"size": ()}, ValueError, "size must not be empty"),
    (patch_mask, {"channel_axis": 3}, ValueError, "keep_mask must have a channel axis 3"),
    (patch_mask, {"channel_axis": "last"}, TypeError, "channel_axis must be an int or None"),
]
SOUND = {
    keep_tokens: {"keep_mask": MASK, "count": 1},
    gather_tokens: {"x": X, "ids": TOKENS.kept},
    scatter_tokens: {"kept": KEPT, "tokens": TOKENS, "fill": 0},
    patch_mask: {"keep_mask": PLACES, "size": (2, 2)},
}


@pytest.mark.parametrize(("function", "given", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_by_name(function, given, error, text):
    assert_refused(function, SOUND[function] | given, error, text)
