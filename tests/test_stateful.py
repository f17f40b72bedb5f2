"""Any sequence of calls on operators, beside a model made of the pure functions.

The model of an operator is its config, its name and an `OperatorState`. Whatever is called, and
whatever fails in between, the operator must be in the state of its model.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings, stateful, strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, multiple, rule

import dropax
from cases import SHAPE, config_of, image_of
from dropax import Batch, DropoutOperator, apply, apply_batch, as_record_ids, generate_random_params
from dropax.kit.batching import count_records
from dropax.kit.keys import threefry_key
from dropax.kit.state import save_state, word_count
from dropax.testing import operator_states

IMAGES = np.asarray(image_of(SHAPE))
STATS = {"mean": np.float32(0.5)}


def mean_of(data):
    return {"mean": jnp.mean(data)}


CONFIGS = {
    "pixel": config_of("pixel"),
    "scan": config_of("pixel", batch_strategy="scan", apply_probability=0.5),
    "range": config_of("channel", dropout_rate=(0.0, 1.0), rescale=True),
    "idle": config_of("pixel", dropout_rate=0.0),
    "fixed": config_of("pixel", stochastic=False, cacheable=True),
    "given statistics": config_of("pixel", fill="stats_mean", precomputed_stats=STATS),
    "own statistics": config_of("pixel", fill="stats_mean", batch_stats_fn=mean_of),
}

# The operators and the model call with one shape, so that they share their programs.
step_operator = jax.jit(lambda operator, batch: (operator.apply_batch(batch), operator))


def lacks_statistics(model):
    return model.config.fill == "stats_mean" and model.state.statistics is None


class Model:
    """What an operator should be."""

    def __init__(self, config, state, name=None):
        self.config, self.state, self.name = config, state, name

    @classmethod
    def of_seed(cls, config, seed, name=None):
        key = jax.random.fold_in(jax.random.key(seed), 0) if config.stochastic else None
        return cls(config, dropax.init_state(config, key), name)

    def run(self, images, ids=None, epoch=None):
        batch, self.state = apply_batch(
            self.config, self.state, {"image": images}, record_ids=ids, epoch=epoch
        )
        return np.asarray(batch["image"])

    def run_one(self, image, params=None):
        if self.config.stochastic and params is None:
            keys = jax.random.fold_in(self.state.next_key(), 0)[None]
            drawn = generate_random_params(self.config, keys, {"image": (1, *image.shape)})
            params = {name: np.asarray(leaf)[0] for name, leaf in drawn.items()}
            self.state = self.state.advance()
        held = params or {}
        active = held.get("rate", self.config.dropout_rate) > 0 and held.get("applied", True)
        out, _, _ = apply(self.config, {"image": image}, {}, {}, params, self.state.statistics)
        self.state = count_records(self.state, 1, active, None, frozenset())
        return np.asarray(out["image"])

    def copied(self, **changes):
        parts = {"config": self.config, "state": self.state, "name": self.name, **changes}
        return Model(**parts)


# A few seeds and numbers: what matters is the order of calls.
seeds = st.integers(0, 3)
batches = st.sampled_from([IMAGES, IMAGES[::-1]])
statistics = st.integers(0, 3).map(lambda number: {"mean": np.array(number, np.float32)})


class Operators(stateful.RuleBasedStateMachine):
    """Operators and their models, in pairs."""

    pairs = Bundle("pairs")
    checkpoints = Bundle("checkpoints")

    def __init__(self):
        super().__init__()
        self.all = []

    def together(self, operator, model):
        self.all.append((operator, model))
        return operator, model

    # How operators come about.

    @initialize(target=pairs, seed=seeds)
    def one_of_each_config(self, seed):
        made = []
        for kind, config in CONFIGS.items():
            operator = DropoutOperator(config, rngs=seed, name=kind)
            made.append(self.together(operator, Model.of_seed(config, seed, kind)))
        return multiple(*made)

    @rule(target=pairs, pair=pairs, cloned=st.booleans())
    def copy(self, pair, cloned):
        operator, model = pair
        return self.together(operator.clone() if cloned else operator.copy(), model.copied())

    @rule(target=pairs, pair=pairs, seed=seeds)
    def copy_with_another_seed(self, pair, seed):
        operator, model = pair
        anew = model.copied(name="copy")
        if model.config.stochastic:
            fresh = Model.of_seed(model.config, seed).state
            anew.state = fresh.replace(statistics=model.state.statistics)
        return self.together(operator.copy(rngs=seed, name="copy"), anew)

    @rule(target=pairs, pair=pairs)
    def copy_with_another_rate(self, pair):
        operator, model = pair
        config = model.config.replace(dropout_rate=0.75)
        return self.together(operator.copy(config=config), model.copied(config=config))

    @rule(target=pairs, pair=pairs)
    def copy_with_other_statistics(self, pair):
        operator, model = pair
        other = {"mean": np.float32(7.0)}
        config = model.config.replace(batch_stats_fn=None, precomputed_stats=other)
        operator = operator.copy(config=config)
        state = model.state
        if not model.config.same_statistics(config):
            state = state.replace(statistics=other)
        return self.together(operator, model.copied(config=config, state=state))

    @rule(target=pairs, pair=pairs)
    def through_a_pytree(self, pair):
        operator, model = pair
        leaves, structure = jax.tree.flatten(operator)
        return self.together(jax.tree.unflatten(structure, leaves), model.copied())

    @rule(target=pairs, pair=pairs, images=batches)
    def through_jit(self, pair, images):
        operator, model = pair
        if lacks_statistics(model):
            return self.together(operator.copy(), model.copied())
        advanced = model.copied()
        expected = advanced.run(images)
        out, operator = step_operator(operator, {"image": images})
        np.testing.assert_array_equal(out["image"], expected)
        # Rates come back as arrays.
        rates = (jax.tree.leaves(config) for config in (operator.config, model.config))
        np.testing.assert_array_equal(*(np.asarray(each, np.float32) for each in rates))
        advanced.config = operator.config
        return self.together(operator, advanced)

    # Batches and elements.

    @rule(pair=pairs, images=batches, kind=st.sampled_from(["dict", "Batch", "three", "call"]))
    def apply_batch(self, pair, images, kind):
        operator, model = pair
        if lacks_statistics(model):
            with pytest.raises(KeyError, match="must hold 'mean'"):
                operator.apply_batch({"image": images})
            return
        expected = model.run(images)
        if kind == "Batch":
            batch = Batch.from_parts({"image": images}, metadata_list=list(range(len(images))))
            out = operator.apply_batch(batch)
            assert out.metadata_list == list(range(len(images)))
        elif kind == "three":
            out, states, metadata = operator.apply_batch({"image": images}, {}, "about it")
            assert (states, metadata) == ({}, "about it")
        else:
            run = operator if kind == "call" else operator.apply_batch
            out = run({"image": images})
        np.testing.assert_array_equal(out["image"], expected)

    @rule(pair=pairs, images=batches, first=st.integers(0, 3), epoch=st.integers(0, 2))
    def apply_batch_with_ids(self, pair, images, first, epoch):
        operator, model = pair
        if lacks_statistics(model):
            return
        ids = np.arange(first, first + len(images), dtype=np.uint64)
        batch = Batch.from_parts({"image": images}, record_ids=ids)
        expected = model.run(images, as_record_ids(ids), epoch)
        np.testing.assert_array_equal(operator.apply_batch(batch, epoch=epoch)["image"], expected)

    @rule(pair=pairs, images=batches)
    def apply(self, pair, images):
        operator, model = pair
        if lacks_statistics(model):
            with pytest.raises(KeyError, match="must hold 'mean'"):
                operator.apply({"image": images[0]}, {}, {})
            return
        out, state, metadata = operator.apply({"image": images[0]}, {}, {"at": 0})
        # Rescaled floats are divided under jit here and without it there.
        expected = model.run_one(images[0])
        np.testing.assert_allclose(out["image"], expected, rtol=1e-6)
        assert (state, metadata) == ({}, {"at": 0})

    @rule(pair=pairs, kept=st.booleans(), applied=st.booleans())
    def apply_with_params(self, pair, kept, applied):
        operator, model = pair
        if lacks_statistics(model):
            return
        params = {
            "keep_mask": np.full((6, 5, 3), kept),
            "applied": np.bool_(applied),
            "rate": np.float32(0.5),
        }
        out, _, _ = operator.apply({"image": IMAGES[0]}, {}, {}, params)
        # A deterministic operator looks at none of them.
        expected = model.run_one(IMAGES[0], params if model.config.stochastic else None)
        np.testing.assert_allclose(out["image"], expected, rtol=1e-6)

    # Statistics, counts and caches.

    @rule(pair=pairs, stats=statistics)
    def set_statistics(self, pair, stats):
        operator, model = pair
        operator.set_statistics(stats)
        model.state = model.state.replace(statistics={"mean": stats["mean"].copy()})
        stats["mean"][...] = stats["more"] = -1  # the operator has a dict and arrays of its own

    @rule(pair=pairs, images=batches)
    def compute_statistics(self, pair, images):
        operator, model = pair
        computed = operator.compute_statistics(images)
        if model.config.batch_stats_fn is None:
            assert computed is None
        else:
            model.state = model.state.replace(statistics=mean_of(images))
            computed["mean"] = None

    @rule(pair=pairs)
    def reset_statistics(self, pair):
        operator, model = pair
        operator.reset_statistics()
        model.state = model.state.replace(statistics=None)

    @rule(pair=pairs)
    def reset_operation_stats(self, pair):
        operator, model = pair
        operator.reset_operation_stats()
        zero = jnp.zeros(2, jnp.uint32)
        model.state = model.state.replace(applied_count=zero, skipped_count=zero)

    @rule(pair=pairs)
    def reset_cache(self, pair):
        pair[0].reset_cache()

    # Checkpoints.

    @rule(target=checkpoints, pair=pairs)
    def get_state(self, pair):
        operator, model = pair
        return operator.get_state(), model.state

    @rule(target=checkpoints, state=operator_states())
    def somebody_elses_state(self, state):
        # Of whatever implementation its key is: what is loaded draws from the one stream.
        return save_state(state), state.replace(key=threefry_key(state.key))

    @rule(pair=pairs, checkpoint=consumes(checkpoints))
    def set_state(self, pair, checkpoint):
        operator, model = pair
        saved, model.state = checkpoint
        operator.set_state(saved)
        saved["key_data"][...] = 0  # the operator has arrays of its own

    # What fails, and must leave everything as it was. Other values are in test_hostile.py.

    @rule(pair=pairs)
    def what_is_wrong(self, pair):
        operator, model = pair
        with pytest.raises(ValueError, match=r"leaf 'data\.label' must have 4 records along"):
            operator.apply_batch({"image": IMAGES, "label": np.arange(2)})
        with pytest.raises(KeyError, match="field 'image' not found"):
            operator.apply({"picture": IMAGES[0]}, {}, {})
        with pytest.raises(ValueError, match="must be an int"):
            operator.set_state({**operator.get_state(), "applied_count": -1})
        with pytest.raises(TypeError, match="must be a dict"):
            operator.set_statistics([0.5])
        if not lacks_statistics(model) and model.config.stochastic:
            with pytest.raises(ValueError, match="was called under jit, scan or the like"):
                jax.jit(lambda images: operator.apply_batch({"image": images}))(IMAGES)

    # What holds after every call, of every operator: none shares anything with another.

    @invariant()
    def every_operator_is_as_its_model(self):
        for operator, model in self.all:
            state, expected = operator.state, model.state
            assert (operator.config, operator.name) == (model.config, model.name)
            assert int(state.step) == int(expected.step)
            assert state.key.dtype == expected.key.dtype
            np.testing.assert_array_equal(*map(jax.random.key_data, (state.key, expected.key)))
            assert operator.get_operation_stats() == {
                "applied_count": word_count(expected.applied_count),
                "skipped_count": word_count(expected.skipped_count),
            }
            got, wanted = operator.get_statistics(), expected.statistics
            assert (got is None) == (wanted is None)
            if got is not None:
                np.testing.assert_array_equal(got["mean"], wanted["mean"])
                got["mean"] = None  # a copy
            assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(operator))


Operators.TestCase.settings = settings(max_examples=10, stateful_step_count=25)
TestOperators = pytest.mark.filterwarnings("ignore:a deterministic operator was given rngs")(
    Operators.TestCase
)
