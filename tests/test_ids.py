"""Which record is which: with ids and an epoch, masks depend on these and the key alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import dropax
from cases import config_of, image_of, mesh_of, refuses, representatives
from dropax import Batch, DropoutOperator, apply_batch, as_record_ids, dropout, init_state
from dropax.kit.ids import as_epoch

IDS = np.array([3, 2**40 + 3, 2**63, 2**32 - 1], np.uint64)
IMAGES = image_of((len(IDS), 6, 5, 3))


def run(config, key, images, ids, epoch=1, **options):
    batch, _ = apply_batch(
        config, init_state(config, key), {"image": images}, record_ids=ids, epoch=epoch, **options
    )
    return np.asarray(batch["image"])


@representatives
def test_masks_follow_ids_through_batches_orders_and_strategies(mode, key):
    config = config_of(mode)
    whole = run(config, key, IMAGES, IDS)
    images, order = np.asarray(IMAGES), np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(run(config, key, images[order], IDS[order]), whole[order])
    np.testing.assert_array_equal(run(config, key, images[1:3], IDS[1:3]), whole[1:3])
    scanned = config.replace(batch_strategy="scan")
    np.testing.assert_array_equal(run(scanned, key, IMAGES, IDS), whole)
    twice = run(config, key, np.repeat(images[:2], 2, axis=0), np.repeat(IDS[:2], 2))
    np.testing.assert_array_equal(twice, np.repeat(whole[:2], 2, axis=0))


@representatives
def test_a_mask_is_that_of_the_key_of_its_id(mode, key):
    config = config_of(mode)
    words = [(2**32 - 1, 1, *divmod(int(number), 2**32)) for number in IDS]
    folds = (map(np.uint32, each) for each in words)
    keys = jnp.stack([functools.reduce(jax.random.fold_in, each, key) for each in folds])
    drawn = dropax.generate_random_params(config, keys, {"image": IMAGES.shape})["keep_mask"]
    drawn = drawn[:, None, None] if drawn.ndim == 2 else drawn
    expected = np.broadcast_to(drawn, IMAGES.shape)
    np.testing.assert_array_equal(run(config, key, IMAGES, IDS) != 0, expected)


def test_every_call_path_meets_the_same_masks(key):
    config = config_of("pixel")
    state, words = init_state(config, key), as_record_ids(IDS)
    expected, data = run(config, key, IMAGES, IDS), {"image": IMAGES}
    batch = Batch.from_parts(data, record_ids=IDS)
    operator = DropoutOperator(config, rngs=lambda: key)

    class Plain(DropoutOperator):
        """Runs by the general path, as every subclass with an `apply` of its own does."""

        def apply(self, *arguments):
            return super().apply(*arguments)

    outs = [
        jax.jit(apply_batch)(config, state, data, record_ids=words, epoch=np.uint32(1))[0],
        apply_batch(config, state, batch, epoch=1)[0],
        jax.jit(lambda s, b: apply_batch(config, s, b, epoch=jnp.int32(1)))(state, batch)[0],
        operator.apply_batch(batch, epoch=1),
        operator.apply_batch({"image": IMAGES}, record_ids=list(map(int, IDS)), epoch=np.int64(1)),
        Plain(config, rngs=lambda: key).apply_batch(batch, epoch=1),
    ]
    outs.append(operator.apply_batch({"image": IMAGES}, {}, None, record_ids=IDS, epoch=1)[0])
    for out in outs:
        np.testing.assert_array_equal(out["image"], expected)
    other = Batch.from_parts({"image": IMAGES}, record_ids=np.arange(4))
    out, _ = apply_batch(config, state, other, record_ids=IDS, epoch=1)
    np.testing.assert_array_equal(out["image"], expected, "the keyword wins")


def test_an_id_is_the_same_in_every_form(key):
    config = config_of("pixel")
    expected = run(config, key, IMAGES, np.arange(4, dtype=np.uint32))
    for ids in (
        np.arange(4, dtype=np.uint8),
        np.arange(4),
        range(4),
        [0, 1, 2, 3],
        jnp.arange(4, dtype=jnp.uint16),
        np.stack([np.arange(4), np.zeros(4)], axis=1).astype(np.uint32),
    ):
        np.testing.assert_array_equal(run(config, key, IMAGES, ids), expected)
    with jax.enable_x64(True):
        wide = run(config, key, IMAGES, jnp.asarray(IDS))
    np.testing.assert_array_equal(wide, run(config, key, IMAGES, IDS))


def test_a_deterministic_operator_draws_for_no_id():
    operator = DropoutOperator(config_of("pixel", stochastic=False), rngs=None)
    batch = Batch.from_parts({"image": IMAGES}, record_ids=IDS)
    plain = operator.apply_batch({"image": IMAGES})
    np.testing.assert_array_equal(operator.apply_batch(batch)["image"], plain["image"])
    out, _ = apply_batch(operator.config, operator.state, batch)
    np.testing.assert_array_equal(out["image"], plain["image"])


@pytest.mark.parametrize("mode", ["pixel", "box"])
def test_a_layer_that_is_given_keys_of_records_drops_as_apply_batch_does(mode, key):
    expected = run(config_of(mode, dropout_rate=0.3), key, IMAGES, IDS, epoch=5)
    layer = jax.jit(lambda keys, x: dropout(keys, x, mode=mode, rate=0.3))
    keys = dropax.record_keys(key, IDS, 5)
    assert keys.shape == (4,)
    np.testing.assert_array_equal(layer(keys, IMAGES), expected)
    legacy = dropax.record_keys(jax.random.key_data(key), as_record_ids(IDS), jnp.uint32(5))
    np.testing.assert_array_equal(layer(jax.random.key_data(legacy), IMAGES), expected)
    # In micro-batches of another order, over more axes, and one record alone.
    for part in ([2, 0], [3, 1]):
        np.testing.assert_array_equal(
            layer(keys[np.array(part)], IMAGES[jnp.array(part)]), expected[np.array(part)]
        )
    folded = IMAGES.reshape(2, 2, *IMAGES.shape[1:])
    np.testing.assert_array_equal(layer(keys.reshape(2, 2), folded).reshape(IMAGES.shape), expected)
    np.testing.assert_array_equal(layer(keys[3], IMAGES[3]), expected[3])


def test_one_key_stands_for_a_key_folded_for_each_record(key):
    folded = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(4, dtype=jnp.uint32))
    np.testing.assert_array_equal(dropout(folded, IMAGES), dropout(key, IMAGES))


def test_keys_of_records_are_taken_in_shards(key):
    def layer(keys, images):
        return dropout(keys, images, mode="band")

    keys, over = dropax.record_keys(key, IDS, 1), jax.P("x")
    expected = layer(keys, IMAGES)
    for kind in AxisType.Auto, AxisType.Explicit:
        laid = jax.device_put((keys, IMAGES), jax.NamedSharding(mesh_of(4, kind), over))
        np.testing.assert_array_equal(jax.jit(layer)(*laid), expected)
    mapped = jax.shard_map(layer, mesh=mesh_of(4), in_specs=over, out_specs=over)
    np.testing.assert_array_equal(jax.jit(mapped)(keys, IMAGES), expected)


def test_a_layer_refuses_keys_that_are_not_one_for_each_record(key):
    text = "dropout.key must have shape () or (4,), one per record; got an array of shape (2,)"
    with refuses(ValueError, text):
        dropout(jax.random.split(key), IMAGES)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout_rate": 0.0},
        {"apply_probability": 0.5},
        {"apply_probability": 0.5, "batch_strategy": "scan"},
    ],
)
def test_rows_that_pad_a_batch_are_not_counted(options, key):
    config = config_of("pixel", **options)
    valid = np.array([True, False, True, True])
    batch = Batch.from_parts({"image": IMAGES}, record_ids=IDS, valid_mask=valid)
    out, state = apply_batch(config, init_state(config, key), batch, epoch=1)
    whole = run(config, key, IMAGES, IDS)[valid]
    np.testing.assert_array_equal(np.asarray(out["image"])[valid], whole)
    applied = (whole == 0).any(axis=(1, 2, 3)).sum()
    assert (int(state.applied_count[1]), int(state.skipped_count[1])) == (applied, 3 - applied)
    operator = DropoutOperator(config, rngs=lambda: key)
    out = operator.apply_batch(batch, epoch=0)
    assert sum(operator.get_operation_stats().values()) == 3
    np.testing.assert_array_equal(out.valid_mask, valid)
    np.testing.assert_array_equal(out.record_ids, batch.record_ids)


def test_ids_and_padding_stay_with_their_records():
    valid = np.array([True, False, True, True])
    batch = Batch.from_parts({"image": IMAGES}, record_ids=IDS, valid_mask=valid)
    part = jax.jit(lambda batch: batch)(batch).slice(1, 3)
    np.testing.assert_array_equal(part.record_ids, as_record_ids(IDS)[1:3])
    np.testing.assert_array_equal(part.valid_mask, valid[1:3])
    assert Batch.from_parts({"image": IMAGES}).record_ids is None


IS = "record_ids must be integers of up to 64 bits; got an "
REFUSED = [
    ({"epoch": None}, ValueError, "apply_batch.epoch must be given if record_ids are; got None. W"),
    ({"record_ids": None}, ValueError, "apply_batch.record_ids must be given if epoch is; got Non"),
    ({"record_ids": IDS[:2]}, ValueError, "apply_batch.record_ids must have 4 ids, one per record"),
    ({"record_ids": np.arange(-2, 2)}, ValueError, "record_ids must not be negative; got -2."),
    ({"record_ids": np.arange(4.0)}, TypeError, IS + "array of shape (4,) and dtype float64."),
    ({"record_ids": [2**70] * 4}, TypeError, IS + "object of type list."),
    ({"record_ids": jnp.arange(4)}, TypeError, "record_ids must be unsigned if they are a JAX arr"),
    (
        {"record_ids": np.int64(3)},
        ValueError,
        "record_ids must have shape (B,), or (B, 2)",
    ),
    ({"record_ids": np.zeros((4, 3), np.uint32)}, ValueError, "record_ids must have shape (B,), o"),
    *(
        ({"epoch": kind(number)}, ValueError, "epoch must be ")
        for kind in (int, np.int64, np.array)
        for number in (-1, 2**32)
    ),
    ({"epoch": 1.0}, TypeError, "epoch must be an int; got 1.0."),
    ({"epoch": jnp.float32(1)}, TypeError, "epoch must be an int; got an array of shape () and dt"),
    ({"epoch": np.arange(2)}, ValueError, "epoch must be one number, of shape (); got an array of"),
]


@pytest.mark.parametrize(("given", "error", "text"), REFUSED, ids=[text for *_, text in REFUSED])
def test_wrong_ids_and_epochs_are_refused_and_nothing_changes(given, error, text):
    operator = DropoutOperator(config_of("pixel"), rngs=0)
    given = {"batch": {"image": IMAGES}, "record_ids": IDS, "epoch": 0, **given}
    before = operator.get_state()
    for call in (
        operator.apply_batch,
        functools.partial(apply_batch, operator.config, operator.state),
    ):
        with refuses(error, text):
            call(**given)
    assert str(operator.get_state()) == str(before)


def test_ids_have_no_part_in_a_shared_mask(key):
    text = "record_ids must be None if all records share a draw"
    with pytest.raises(ValueError, match=text):
        run(config_of("pixel", share_mask=True), key, IMAGES, IDS)


def test_an_epoch_may_be_any_whole_scalar():
    for epoch in (7, np.int8(7), np.array(7), jnp.uint32(7), jnp.int16(7)):
        assert as_epoch(epoch) == 7
        assert as_epoch(epoch).dtype == jnp.uint32
