"""dropax with grain: as a random map over elements, and on shuffled batches by record id."""

import jax
import numpy as np
import pytest

import dropax

absl_flags = pytest.importorskip("absl.flags", reason="grain brings absl along")
grain = pytest.importorskip("grain", reason="grain is not installed: pip install '.[interop]'")

RATE, SHAPE = 0.5, (4, 4, 3)
CONFIG = dropax.DropoutOperatorConfig(field_key="image", dropout_rate=RATE, stochastic=True)
IMAGES = np.arange(1, 12 * 48 + 1, dtype=np.float32).reshape(12, *SHAPE)


class Drop(grain.transforms.RandomMap):
    """Drops on the host, element by element, from grain's own randomness."""

    def random_map(self, element, rng):
        key = jax.random.key(int(rng.integers(2**32)))
        return {**element, "image": np.asarray(dropax.dropout(key, element["image"], rate=RATE))}


class Seed(grain.transforms.RandomMap):
    """Tells what `Drop` in its place is given."""

    def random_map(self, element, rng):
        return {**element, "seed": int(rng.integers(2**32))}


def elements():
    return grain.MapDataset.range(12).map(lambda row: {"row": row, "image": IMAGES[row]})


def test_a_random_map_drops_by_the_seed_of_the_dataset():
    shuffled = elements().seed(3).shuffle()
    dropped = list(shuffled.random_map(Drop()).repeat(2))
    seeds = list(shuffled.random_map(Seed()).repeat(2))
    assert len(dropped) == 24
    for element, seed in zip(dropped, seeds, strict=True):
        keep_rate = np.float32(1 - RATE)
        kept = jax.random.bernoulli(jax.random.key(seed["seed"]), keep_rate, SHAPE)
        assert element["row"] == seed["row"]
        np.testing.assert_array_equal(element["image"], np.where(kept, IMAGES[seed["row"]], 0))
    assert len({seed["seed"] for seed in seeds}) == 24  # another mask in the next epoch
    again = list(shuffled.random_map(Drop()).repeat(2))
    jax.tree.map(np.testing.assert_array_equal, again, dropped)


def dropped_by_id(state, dataset, epoch):
    order, dropped = [], {}
    for batch in dataset:
        ids = batch.pop("row").astype(np.uint32)
        out, state = dropax.apply_batch(CONFIG, state, batch, record_ids=ids, epoch=epoch)
        order += ids.tolist()
        dropped |= dict(zip(ids.tolist(), np.asarray(out["image"]), strict=True))
    return order, dropped


def test_masks_belong_to_records_however_they_are_shuffled_and_spread(key):
    state = dropax.init_state(CONFIG, key)
    first_order, first = dropped_by_id(state, elements().shuffle(seed=1).batch(4), epoch=0)
    other_order, other = dropped_by_id(state, elements().shuffle(seed=2).batch(5), epoch=0)
    assert first_order != other_order
    halves = {}
    for host in range(2):  # each host has every other record
        halves |= dropped_by_id(state, elements()[host::2].batch(3), epoch=0)[1]
    assert sorted(first) == sorted(other) == sorted(halves) == list(range(12))
    for record in range(12):
        np.testing.assert_array_equal(first[record], other[record])
        np.testing.assert_array_equal(first[record], halves[record])
    _, later = dropped_by_id(state, elements().shuffle(seed=1).batch(4), epoch=1)
    assert all((first[record] != later[record]).any() for record in range(12))


def test_a_run_resumed_in_the_middle_of_an_epoch_meets_the_same_masks(key):
    state = dropax.init_state(CONFIG, key)
    dataset = elements().seed(3).shuffle().batch(3).to_iter_dataset()
    iterator = iter(dataset)
    next(iterator)
    saved = iterator.get_state()
    _, rest = dropped_by_id(state, iterator, epoch=0)
    resumed = iter(dataset)
    resumed.set_state(saved)
    _, again = dropped_by_id(state, resumed, epoch=0)
    assert len(rest) == 9
    jax.tree.map(np.testing.assert_array_equal, again, rest)


class Source:
    """Random access; each record holds its own number.

    Without a `__repr__` that names no address, grain refuses to resume from its own checkpoint.
    """

    def __repr__(self):
        return "Source()"

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, row):
        return {"row": np.uint32(row), "image": IMAGES[row]}


def loader(operations, workers, seed=1):
    # Outside of absl's `app.run`, grain's workers do not start until its flags count as parsed.
    absl_flags.FLAGS.mark_as_parsed()
    sampler = grain.samplers.IndexSampler(
        num_records=12,
        shuffle=True,
        seed=seed,
        num_epochs=1,
        shard_options=grain.sharding.NoSharding(),
    )
    return grain.DataLoader(
        data_source=Source(), sampler=sampler, operations=operations, worker_count=workers
    )


class DropInWorker(grain.transforms.Map):
    """Without ids, the copies of the operator in all workers would draw the same masks."""

    def __init__(self, operator):
        self.operator = operator

    def map(self, batch):
        image = {"image": batch["image"]}
        dropped = self.operator.apply_batch(image, record_ids=batch["row"], epoch=0)
        return {**batch, "image": np.asarray(dropped["image"])}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_operator_in_each_worker_drops_by_id(key, workers):
    operator = dropax.DropoutOperator(CONFIG, rngs=key)
    operations = [grain.transforms.Batch(3), DropInWorker(operator)]
    got = {}
    for batch in loader(operations, workers):
        got |= dict(zip(batch["row"].tolist(), batch["image"], strict=True))
    _, expected = dropped_by_id(operator.state, elements().batch(12), epoch=0)
    assert sorted(got) == sorted(expected)
    for record, image in expected.items():
        np.testing.assert_array_equal(got[record], image)
