"""Records that are smaller than their arrays: `extent_key`, and exact numbers of what may drop."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import dropax
from bounds import assert_counts
from cases import MODES, assert_refused, collectives, config_of, mesh_of
from dropax import Block, Blocks, Box, Channel, Patch, apply_batch, dropped_fraction, init_state
from dropax.modes.base import positions_within
from dropax.testing.masks import mean_bound

CANVAS = (8, 9)
# From one pixel to the canvas, odd and even, 1,024 records each.
EXTENTS = np.array([(h, w) for h in (1, 2, 5, 8) for w in (1, 4, 7, 9)], np.int32)
RECORDS = 1024
MANY = np.tile(EXTENTS, (RECORDS, 1))


@dataclasses.dataclass(frozen=True)
class Own:
    """A mode of a user's own, with holes of several pixels."""

    def sample(self, key, element_shape, rate):
        return Box(count=2).sample(key, element_shape, rate)


def drop(config, key=0, **fields):
    """The batch that `apply_batch` returns, as NumPy."""
    state = init_state(config, jax.random.key(key) if config.stochastic else None)
    return jax.tree.map(np.asarray, apply_batch(config, state, fields)[0])


def images_of(records, shape=(*CANVAS, 2)):
    return np.ones((records, *shape), np.float32)


def inside_of(extents, shape):
    """Which positions are real, bool of shape (B, *shape)."""
    inside = True
    for axis, lengths in enumerate(np.reshape(extents, (len(extents), -1)).T):
        each = np.arange(shape[axis]) < lengths[:, None]
        inside = inside & np.expand_dims(each, [1 + at for at in range(len(shape)) if at != axis])
    return np.broadcast_to(inside, (len(extents), *shape))


CASES = MODES | {"own": Own(), "blocks, cut": Blocks(1)}
CASES["one of own"] = dropax.OneOf((Own(), Patch(size=3)))


@pytest.mark.parametrize("mode", CASES.values(), ids=CASES)
def test_the_rate_is_that_of_what_is_real_and_nothing_else_drops(mode):
    config = config_of(mode, extent_key="size", mask_key="kept", dropout_rate=0.3)
    out = drop(config, image=images_of(len(MANY)), size=MANY)
    kept = out["kept"]
    assert kept[~inside_of(MANY, CANVAS)].all()
    np.testing.assert_array_equal(out["image"] == 1, kept)
    fractions = np.asarray(dropped_fraction(jnp.asarray(kept), extents=MANY))
    expected = float(dropax.expected_dropped_fraction(config, (*CANVAS, 2)))
    sums = fractions.reshape(RECORDS, len(EXTENTS)).sum(axis=0)
    assert_counts(sums, RECORDS, np.full(len(EXTENTS), expected))
    # A whole extent is the mask without one.
    plain = drop(config.replace(extent_key=None), image=images_of(len(MANY)))["kept"]
    whole = (MANY == CANVAS).all(axis=1)
    np.testing.assert_array_equal(kept[whole], plain[whole])


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["block", "box", Blocks(1), Patch(4, exact=True)], ids=str)
def test_nothing_drops_at_rate_0_and_all_that_is_real_at_rate_1(mode, rate):
    config = config_of(mode, extent_key="size", mask_key="kept", dropout_rate=rate)
    kept = drop(config, image=images_of(len(EXTENTS)), size=EXTENTS)["kept"]
    dropped = inside_of(EXTENTS, CANVAS)[..., None] & (rate == 1)
    np.testing.assert_array_equal(~kept, np.broadcast_to(dropped, kept.shape))


def test_a_patch_stays_on_its_grid_and_holes_shrink_with_the_record():
    fields = {"image": images_of(256, (16, 16, 1)), "size": np.full((256, 2), 8)}
    config = config_of(Patch(size=4), extent_key="size", mask_key="kept")
    cells = drop(config, **fields)["kept"][:, :8, :8, 0].reshape(256, 2, 4, 2, 4)
    assert (cells == cells[:, :, :1, :, :1]).all()
    config = config_of("box", dropout_rate=0.25, extent_key="size", mask_key="kept")
    holes = ~drop(config, **fields)["kept"][..., 0]
    # Of 16 pixels a hole has 8 on each side, so of 8 it has 4; and nothing else.
    assert set(holes.any(axis=2).sum(axis=1)) == set(holes.any(axis=1).sum(axis=1)) == {4}
    assert set(holes.sum(axis=(1, 2))) == {16}


@pytest.mark.parametrize("shape", [(33,), (6, 5, 7)], ids=str)
@pytest.mark.parametrize("mode", ["band", "box", Block(size=3), Blocks(1)], ids=str)
def test_signals_and_volumes_have_extents_too(mode, shape):
    channels = () if len(shape) == 1 else (1,)
    extents = np.tile(np.array([[n - 2 for n in shape], [1] * len(shape)]), (2048, 1))
    config = config_of(mode, extent_key="size", mask_key="kept", dropout_rate=0.3)
    kept = drop(config, image=images_of(4096, (*shape, *channels)), size=extents)["kept"]
    fractions = np.asarray(dropped_fraction(kept, extents=extents)).reshape(-1, 2)
    assert_counts(fractions.sum(axis=0), 2048, np.full(2, 0.3))


def test_one_number_is_for_the_first_axis():
    lengths = np.array([3, 8, 0, 11, -1], np.int8)
    config = config_of("pixel", extent_key="length", mask_key="kept", dropout_rate=1.0)
    found = ~drop(config, image=images_of(5), length=lengths)["kept"]
    expected = inside_of(np.clip(lengths, 0, 8), CANVAS)[..., None]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    first = config_of("pixel", extent_key="length", channel_axis=0, dropout_rate=1.0)
    out = drop(first, image=images_of(1, (2, 8, 9)), length=np.array([[3, 4]]))["image"]
    assert (out == 0).sum() == 2 * 3 * 4


SIZES = [(1, 1), (7, 3), (224, 224), (224, 1), (2**15, 77), (65_536, 65_535), (2**17, 2**17)]
SIZES += [(2**17, 99_991), (2**17, 1), (16_000 * 60, 735_001), (2**22 + 1, 2**22)]


@pytest.mark.parametrize(("size", "extent"), SIZES)
def test_positions_are_divided_as_by_integers_of_any_size(size, extent):
    for shift in {0, size // 2, size - 1}:
        found = positions_within(size, jnp.uint32(extent), jnp.uint32(shift))
        expected = (np.arange(extent, dtype=np.int64) * size + shift) // extent
        np.testing.assert_array_equal(found[:extent], expected)
        assert int(found.max()) < size
        if extent == size:
            np.testing.assert_array_equal(found, np.arange(size))


SOME = {
    "box": Box(count=(1, 3)),
    "block": Block(size=3),
    "blocks": Blocks(1),
    "patch": Patch(size=2, exact=True),
    "own": Own(),
}
BATCH = {"image": images_of(16), "size": EXTENTS}


@pytest.mark.parametrize("mode", SOME.values(), ids=SOME)
def test_masks_are_the_same_in_a_scan_by_the_operator_and_record_by_record(mode):
    config = config_of(mode, extent_key="size", mask_key="kept", apply_probability=0.9)
    expected = drop(config, **BATCH)
    state = init_state(config, jax.random.key(0))
    scanned, _ = jax.jit(apply_batch)(config.replace(batch_strategy="scan"), state, BATCH)
    operator = dropax.DropoutOperator(config, rngs=lambda: jax.random.key(0))
    for out in (scanned, operator.apply_batch(BATCH)):
        jax.tree.map(np.testing.assert_array_equal, out, expected)
    key = jax.random.fold_in(state.key, state.step)
    params = dropax.generate_random_params(config, key, {"image": (16, *CANVAS, 2)})
    apply = jax.vmap(lambda data, params: dropax.apply(config, data, {}, {}, params)[0])
    each = apply(BATCH, params)
    jax.tree.map(np.testing.assert_array_equal, each, expected)


# Within a call all axes are automatic, so one mode shows what explicit ones do.
@pytest.mark.parametrize(
    ("mode", "kind"),
    [*((mode, AxisType.Auto) for mode in SOME.values()), (SOME["box"], AxisType.Explicit)],
    ids=str,
)
def test_masks_are_the_same_over_devices_which_exchange_nothing(mode, kind):
    config = config_of(mode, extent_key="size", mask_key="kept")
    laid = jax.device_put(BATCH, jax.NamedSharding(mesh_of(8, kind), jax.P("x")))
    step = jax.jit(lambda state, batch: apply_batch(config, state, batch)[0])
    compiled = step.lower(init_state(config, jax.random.key(0)), laid).compile()
    assert collectives(compiled) == []
    out = step(init_state(config, jax.random.key(0)), laid)
    jax.tree.map(np.testing.assert_array_equal, out, drop(config, **BATCH))


@pytest.mark.parametrize("mode", [SOME["box"], SOME["patch"]], ids=str)
def test_a_shared_mask_and_a_fixed_pattern_lie_within_each_record(mode):
    for options in ({"share_mask": True}, {"stochastic": False}):
        config = config_of(mode, extent_key="size", mask_key="kept", dropout_rate=0.5, **options)
        sizes = np.concatenate([EXTENTS, EXTENTS])
        kept = drop(config, image=images_of(32), size=sizes)["kept"]
        np.testing.assert_array_equal(kept[:16], kept[16:])
        assert kept[~inside_of(sizes, CANVAS)].all()
        assert not kept.all()
    operator = dropax.DropoutOperator(config.replace(cacheable=True), rngs=None)
    for _ in range(2):
        np.testing.assert_array_equal(operator(BATCH)["kept"], kept[:16])


def test_fills_are_computed_from_what_is_real_and_nothing_else_changes():
    image = np.full((2, *CANVAS, 1), np.nan, np.float32)
    image[:, :4, :5] = 3.0
    sizes = np.array([[4, 5], [4, 5]])
    labels = np.zeros((2, *CANVAS), np.uint8)
    options = {"fill": "mean", "rescale": True, "clip_range": (0.0, 4.0), "dropout_rate": 0.5}
    options |= {"auxiliary_fields": ["labels"], "auxiliary_fill": 255}
    config = config_of("box", extent_key="size", mask_key="kept", **options)
    out = drop(config, image=image, labels=labels, size=sizes)
    inside = inside_of(sizes, CANVAS)
    assert np.isnan(out["image"][~inside]).all()
    expected = np.where(out["kept"], 4, 3)  # 6, clipped
    np.testing.assert_array_equal(out["image"][inside], expected[inside])
    np.testing.assert_array_equal(out["labels"], np.where(out["kept"][..., 0], 0, 255))
    np.testing.assert_array_equal(out["size"], sizes)


def test_where_key_goes_beside_it():
    where = np.random.default_rng(0).random((16, *CANVAS)) < 0.5
    config = config_of("box", extent_key="size", mask_key="kept", dropout_rate=0.5)
    plain = drop(config, **BATCH)["kept"]
    found = drop(config.replace(where_key="where"), **BATCH, where=where)["kept"]
    np.testing.assert_array_equal(found, plain | ~where[..., None])


def test_an_exact_number_of_the_tokens_that_may_drop_does():
    # Of 8 valid tokens of 16 at 0.75, six: always, each equally often, and never padding.
    config = config_of(Patch(size=1, exact=True), dropout_rate=0.75, mask_key="kept")
    tokens, lengths = images_of(4096, (16, 1, 1)), np.full(4096, 8)
    valid = np.broadcast_to(np.arange(16) < 8, (4096, 16))[..., None]
    by_where = drop(config.replace(where_key="valid"), image=tokens, valid=valid)["kept"]
    by_extent = drop(config.replace(extent_key="length"), image=tokens, length=lengths)["kept"]
    np.testing.assert_array_equal(by_where, by_extent)
    dropped = ~by_where.reshape(4096, 16)
    assert set(dropped.sum(axis=1)) == {6}
    assert not dropped[:, 8:].any()
    assert_counts(dropped[:, :8].sum(axis=0), 4096, 0.75)
    pairs = (dropped[:, :7] & dropped[:, 1:8]).sum(axis=0)
    assert_counts(pairs, 4096, 6 * 5 / (8 * 7))


@pytest.mark.parametrize(
    ("mode", "axes"),
    [
        (Patch(size=2, exact=True), (0, 1, 2)),
        (Blocks(size=2), (0, 1, 2)),
        (dropax.Shared(Patch(size=2, exact=True), axes=0), (1, 2)),
        (dropax.OneOf((Patch(size=2, exact=True), Blocks(size=2))), (0, 1, 2)),
    ],
    ids=str,
)
def test_cells_are_counted_if_any_of_their_values_may_drop(mode, axes):
    # One pixel of each of some cells may drop, of one channel.
    rng = np.random.default_rng(1)
    cells = rng.random((64, 1, 4, 4)) < 0.6
    where = np.zeros((64, 1, 8, 8, 3), bool)
    where[:, :, ::2, 1::2, 2] = cells
    shape = (1, 8, 8, 3)
    if not isinstance(mode, dropax.Shared):
        where, shape = where[:, 0], shape[1:]
    config = config_of(mode, where_key="where", mask_key="kept", dropout_rate=0.5)
    kept = drop(config, image=images_of(64, shape), where=where)["kept"]
    assert kept[~where].all()
    counts, dropped = cells.sum(axis=(1, 2, 3)), (~kept).sum(axis=tuple(range(1, kept.ndim)))
    assert (np.abs(dropped - counts / 2) <= 0.5).all()
    even = counts % 2 == 0
    np.testing.assert_array_equal(dropped[even], counts[even] // 2)


@pytest.mark.parametrize("groups", [None, ((0, 3), (1,), (2, 4))], ids=str)
def test_channels_are_counted_if_any_of_their_values_may_drop(groups):
    mode = Channel(exact=True, groups=groups)
    where = np.zeros((256, 2, 2, 5), bool)
    where[:, 1, 0, :3] = True
    config = config_of(mode, where_key="where", mask_key="kept", dropout_rate=2 / 3)
    dropped = ~drop(config, image=images_of(256, (2, 2, 5)), where=where)["kept"]
    found = dropped.any(axis=(1, 2))
    assert set(found.sum(axis=1)) == {2}
    assert_counts(found[:, :3].sum(axis=0), 256, 2 / 3)


def test_all_that_may_drop_is_the_mask_without_a_field():
    for mode in (Patch(size=2, exact=True), Channel(exact=True, min_kept=1), Blocks(size=1)):
        config = config_of(mode, mask_key="kept")
        where = np.ones((16, *CANVAS), bool)
        found = drop(config.replace(where_key="where"), image=images_of(16), where=where)["kept"]
        np.testing.assert_array_equal(found, drop(config, image=images_of(16))["kept"])
        none = drop(config.replace(where_key="where"), image=images_of(16), where=~where)["kept"]
        assert none.all()


def test_blocks_lie_in_one_piece_within_the_record():
    config = config_of(Blocks(size=1), extent_key="size", mask_key="kept", dropout_rate=0.25)
    fields = {"image": images_of(512, (16, 16, 1)), "size": np.full((512, 2), 8)}
    dropped = ~drop(config, **fields)["kept"][:, :8, :8, 0]
    assert set(dropped.sum(axis=(1, 2))) == {16}
    borders = np.diff(dropped, axis=1).sum(axis=(1, 2)) + np.diff(dropped, axis=2).sum(axis=(1, 2))
    # 16 cells at random would have some 42 borders.
    assert borders.mean() < 26


def test_a_dropped_fraction_is_that_within_extents():
    mask = np.random.default_rng(0).random((5, 6, 7, 2)) < 0.5
    extents = np.array([[6, 7], [3, 2], [1, 1], [0, 4], [9, 5]])
    inside = inside_of(extents, (6, 7))
    expected = [(~m[i]).mean() if i.any() else 0 for m, i in zip(mask, inside, strict=True)]
    np.testing.assert_allclose(dropped_fraction(mask, extents=extents), expected, rtol=1e-6)
    beyond = np.where(extents == 9, 2**32, extents)  # 0 in 32 bits
    np.testing.assert_allclose(dropped_fraction(mask, extents=beyond), expected, rtol=1e-6)
    each = dropped_fraction(mask, extents=extents, per_channel=True)
    np.testing.assert_allclose(np.mean(each, axis=1), expected, rtol=1e-6)
    rows = dropped_fraction(mask[:, :, :1], extents=extents)
    expected = [(~m[: e[0] or 1, 0]).mean() * e.all() for m, e in zip(mask, extents, strict=True)]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


EXTENT = "field 'size', the extent_key, must "
WRONG = [
    ({"size": np.ones(16)}, TypeError, EXTENT + "be an array of integers"),
    ({"size": np.ones((16, 3), int)}, ValueError, EXTENT + "have shape () or (n,), for"),
    ({"size": np.ones((16, 0), int)}, ValueError, EXTENT + "have shape () or (n,)"),
    ({"size": np.ones((16, 1, 1), int)}, ValueError, "of 2 spatial axes; got an array of shape"),
    ({"size": np.ones((15, 2), int)}, ValueError, "must have 16 records along its leading axis"),
    ({}, KeyError, "field 'size' not found"),
]


@pytest.mark.parametrize(("field", "error", "text"), WRONG)
def test_a_field_that_is_no_extent_is_refused_by_name(field, error, text):
    with pytest.raises(error, match=re.escape(text)):
        drop(config_of("box", extent_key="size"), image=images_of(16), **field)


def test_it_is_a_field_of_its_own_and_its_key_is_asked_for():
    with pytest.raises(ValueError, match=r"Config\.extent_key must name a field of its own"):
        config_of("box", extent_key="kept", mask_key="kept")
    config = config_of("box", extent_key="size")
    one = {"image": images_of(1)[0], "size": np.array([3, 3])}
    text = "must hold 'record_key' if the mask depends on an extent_key"
    with pytest.raises(KeyError, match=text):
        dropax.apply(config, one, {}, {}, {"keep_mask": np.ones((*CANVAS, 1), bool)})
    wrong = {"keep_mask": np.ones((4, 6), bool), "extents": np.ones((4, 2), int)}
    assert_refused(dropped_fraction, wrong, ValueError, "extents must have shape (B,) or (B, n) f")
    wrong["extents"] = [2, 2, 2, 2]
    assert_refused(dropped_fraction, wrong, TypeError, "extents must be an array of integers")


def test_short_utterances_lose_as_much_as_long_ones():
    # As of spec_augment: widths up to a quarter of what is real, once.
    config = config_of("band", extent_key="frames", dropout_rate=(0.0, 0.25), mask_key="kept")
    frames = np.tile([10, 43, 100], 2048)
    kept = drop(config, image=images_of(3 * 2048, (100, 1)), frames=frames)["kept"]
    fractions = np.asarray(dropped_fraction(kept, extents=frames)).reshape(2048, 3)
    assert_counts(fractions.sum(axis=0), 2048, np.full(3, 0.125))


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_cells_of_blocks_that_are_cut_count_by_what_of_them_is_real(rate):
    # Cells at the edges drop less often: counted as whole ones, too much of the rest would drop.
    config = config_of(Blocks(size=8), extent_key="size", mask_key="kept", dropout_rate=rate)
    for size in ((33, 33), (60, 20), (8, 5)):
        fields = {"image": images_of(2048, (64, 64, 1)), "size": np.full((2048, 2), size)}
        fractions = dropax.dropped_fraction(drop(config, **fields)["kept"], extents=fields["size"])
        # A false alarm of 1e-6.
        assert abs(float(fractions.mean()) - rate) <= mean_bound(np.asarray(fractions), 1e-6)
