"""dropax in a loop over plain NumPy arrays."""

import jax
import numpy as np

import dropax

CONFIG = dropax.DropoutOperatorConfig(field_key="image", dropout_rate=0.25, stochastic=True)


def test_batches_of_numpy_arrays_from_a_shuffled_array(key):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (20, 6, 6, 3), np.uint8)
    before = images.copy()
    state = dropax.init_state(CONFIG, key)
    operator = dropax.DropoutOperator(CONFIG, rngs=0)
    operator.set_state({**operator.get_state(), "key_data": np.asarray(jax.random.key_data(key))})
    for number, rows in enumerate(rng.permutation(20).reshape(4, 5)):
        batch = {"image": images[rows], "row": rows.astype(np.int32)}
        dropped, state = dropax.apply_batch(CONFIG, state, batch)
        as_object = operator(batch)
        call_key = jax.random.fold_in(key, number)
        for place, row in enumerate(rows):
            record_key = jax.random.fold_in(call_key, place)
            kept = jax.random.bernoulli(record_key, np.float32(0.75), (6, 6, 3))
            expected = np.where(kept, images[row], 0)
            np.testing.assert_array_equal(dropped["image"][place], expected)
            np.testing.assert_array_equal(as_object["image"][place], expected)
        assert dropped["image"].dtype == np.uint8
        assert dropped["row"] is batch["row"]
    np.testing.assert_array_equal(images, before)
