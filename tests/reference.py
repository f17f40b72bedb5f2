"""Operators to hold against the reference implementation's behaviour, and how to compare them."""

import numpy as np

from dropax import DropoutOperator, DropoutOperatorConfig, Rngs

ONES = np.ones((8, 4, 4, 3), np.float32)


def make(stochastic, *, seed=0, name=None, **options):
    options = {"field_key": "image", "dropout_rate": 0.5, "stochastic": stochastic, **options}
    return DropoutOperator(DropoutOperatorConfig(**options), rngs=Rngs(seed), name=name)


def det(**options):
    """A deterministic operator."""
    return make(False, **options)


def sto(**options):
    """A stochastic operator."""
    return make(True, **options)


def run(operator, images=ONES):
    """What the operator makes of images, as a NumPy array."""
    return np.asarray(operator.apply_batch({"image": images})["image"])


def equal(*runs):
    return all(np.array_equal(runs[0], other) for other in runs[1:])
