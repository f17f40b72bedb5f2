"""dropax on batches of a torch DataLoader; without ids, masks follow the place in the batch."""

import jax
import numpy as np
import pytest

import dropax

torch = pytest.importorskip("torch", reason="torch is not installed: it is in no extra but bench")

CONFIG = dropax.DropoutOperatorConfig(field_key="image", dropout_rate=0.5, stochastic=True)
IMAGES = np.arange(1, 12 * 48 + 1, dtype=np.float32).reshape(12, 4, 4, 3)


class Images(torch.utils.data.Dataset):
    """Returns the record's own number along with its image."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, row):
        return {"image": IMAGES[row], "id": row}


def dropped_by_id(state, order_seed, batch_size, epoch, workers=0):
    loader = torch.utils.data.DataLoader(
        Images(),
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(order_seed),
        num_workers=workers,
        # JAX hangs in a forked process.
        multiprocessing_context="spawn" if workers else None,
    )
    order, dropped = [], {}
    for batch in loader:
        batch = {name: values.numpy() for name, values in batch.items()}
        ids = batch.pop("id")  # int64, as torch collates them
        out, state = dropax.apply_batch(CONFIG, state, batch, record_ids=ids, epoch=epoch)
        order += ids.tolist()
        dropped |= dict(zip(ids.tolist(), np.asarray(out["image"]), strict=True))
    return order, dropped


def test_masks_belong_to_records_however_they_are_shuffled(key):
    state = dropax.init_state(CONFIG, key)
    first_order, first = dropped_by_id(state, 1, batch_size=4, epoch=0)
    other_order, other = dropped_by_id(state, 2, batch_size=5, epoch=0)
    assert first_order != other_order
    assert sorted(first) == sorted(other) == list(range(12))
    for record in range(12):
        np.testing.assert_array_equal(first[record], other[record])
    _, later = dropped_by_id(state, 1, batch_size=4, epoch=1)
    assert all((first[record] != later[record]).any() for record in range(12))


def test_workers_load_and_the_step_drops(key):
    state = dropax.init_state(CONFIG, key)
    _, alone = dropped_by_id(state, 1, batch_size=4, epoch=0)
    _, loaded = dropped_by_id(state, 1, batch_size=4, epoch=0, workers=2)
    jax.tree.map(np.testing.assert_array_equal, loaded, alone)


def test_without_ids_masks_follow_the_place_in_the_batch(key):
    batch = torch.utils.data.default_collate([Images()[row] for row in range(4)])
    out, _ = dropax.apply_batch(
        CONFIG, dropax.init_state(CONFIG, key), {"image": batch["image"].numpy()}
    )
    call_key = jax.random.fold_in(key, 0)
    for place in range(4):
        record_key = jax.random.fold_in(call_key, place)
        kept = jax.random.bernoulli(record_key, np.float32(0.5), (4, 4, 3))
        np.testing.assert_array_equal(out["image"][place], np.where(kept, IMAGES[place], 0))
