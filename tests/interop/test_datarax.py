"""dropax with datarax: around a pipeline's batches, and as a stage inside of it."""

import jax
import numpy as np
import pytest

import dropax

pytest.importorskip("datarax", reason="datarax is missing: pip install '.[interop]'")
from datarax.core.element_batch import Batch
from datarax.pipeline import Pipeline
from datarax.sources.memory_source import MemorySource, MemorySourceConfig
from flax import nnx

CONFIG = dropax.DropoutOperatorConfig(
    field_key="image", dropout_rate=0.5, stochastic=True, stream_name="augment"
)
DATA = {
    "image": np.arange(12 * 48, dtype=np.float32).reshape(12, 4, 4, 3) + 1,
    "label": np.arange(12, dtype=np.int32),
}


class Drop(nnx.Module):
    """A stage: its state is a variable, which the pipeline carries from batch to batch."""

    def __init__(self, config, *, rngs):
        self.config = nnx.static(config)
        self.state = nnx.Variable(dropax.init_state(config, rngs.augment()))

    def __call__(self, batch):
        batch, state = dropax.apply_batch(self.config, self.state.get_value(), batch)
        self.state.set_value(state)
        return batch


def make_pipeline(*stages):
    source = MemorySource(MemorySourceConfig(shuffle=False), DATA, rngs=nnx.Rngs(0))
    return Pipeline(source=source, stages=list(stages), batch_size=4, rngs=nnx.Rngs(0))


def expected_batches():
    state = dropax.init_state(CONFIG, nnx.Rngs(augment=1).augment())
    for start in range(0, 12, 4):
        rows = {name: values[start : start + 4] for name, values in DATA.items()}
        batch, state = dropax.apply_batch(CONFIG, state, rows)
        yield batch


def assert_same(batches):
    for batch, expected in zip(batches, expected_batches(), strict=True):
        assert isinstance(batch, dict)
        jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_an_operator_around_a_pipeline_takes_its_dicts_and_returns_dicts():
    operator = dropax.DropoutOperator(CONFIG, rngs=nnx.Rngs(0, augment=1))
    assert_same(operator(batch) for batch in make_pipeline())
    assert operator.get_operation_stats() == {"applied_count": 12, "skipped_count": 0}


def test_a_stage_draws_new_masks_for_every_batch_inside_the_pipeline():
    stage = Drop(CONFIG, rngs=nnx.Rngs(0, augment=1))
    assert_same(make_pipeline(stage))
    assert int(stage.state.get_value().step) == 3


def test_stepping_a_pipeline_by_hand_is_the_same():
    pipeline = make_pipeline(Drop(CONFIG, rngs=nnx.Rngs(0, augment=1)))
    assert_same(pipeline.step() for _ in range(3))


def test_a_batch_of_datarax_goes_in_by_its_data():
    operator = dropax.DropoutOperator(CONFIG, rngs=nnx.Rngs(0, augment=1))
    first = {name: values[:4] for name, values in DATA.items()}
    batch = Batch.from_parts(data=first, states={}, validate=False)
    expected = next(expected_batches())
    dropped = operator(dict(batch.get_data()))
    jax.tree.map(np.testing.assert_array_equal, dropped, expected)
    with pytest.raises(TypeError, match=r"must be a dropax.Batch or a dict of arrays"):
        operator(batch)


def test_an_operator_as_the_stage_itself_repeats_its_masks():
    # A pipeline carries variables from batch to batch and nothing else, hence `Drop` above.
    operator = dropax.DropoutOperator(CONFIG, rngs=nnx.Rngs(0, augment=1))
    first, *others = (np.asarray(batch["image"]) > 0 for batch in make_pipeline(operator))
    for other in others:
        np.testing.assert_array_equal(other, first)
