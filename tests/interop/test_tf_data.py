"""dropax on batches of tf.data."""

import jax
import numpy as np
import pytest

import dropax

tf = pytest.importorskip("tensorflow", reason="tensorflow is missing: pip install '.[interop]'")

CONFIG = dropax.DropoutOperatorConfig(
    field_key="image", dropout_rate=0.5, mode=dropax.Patch(size=2), stochastic=True
)
IMAGES = np.arange(1, 12 * 48 + 1, dtype=np.float32).reshape(12, 4, 4, 3)


def test_batches_of_tf_data_come_as_numpy_and_go_as_jax_arrays(key):
    dataset = tf.data.Dataset.from_tensor_slices({"image": IMAGES, "row": np.arange(12)})
    dataset = dataset.shuffle(12, seed=1).batch(4)
    state, rows_seen = dropax.init_state(CONFIG, key), []
    for number, batch in enumerate(dataset.as_numpy_iterator()):
        rows = batch["row"]
        rows_seen += rows.tolist()
        dropped, state = dropax.apply_batch(CONFIG, state, {"image": batch["image"]})
        call_key = jax.random.fold_in(key, number)
        for place, row in enumerate(rows):
            cells = jax.random.bernoulli(
                jax.random.fold_in(call_key, place), np.float32(0.5), (2, 2, 1)
            )
            kept = np.asarray(cells).repeat(2, 0).repeat(2, 1)
            np.testing.assert_array_equal(dropped["image"][place], np.where(kept, IMAGES[row], 0))
    assert sorted(rows_seen) == list(range(12))
    assert rows_seen != list(range(12))
