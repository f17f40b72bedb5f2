"""Operators on small images, and how to compare what they return."""

import numpy as np
import pytest

from cases import config_of
from dropax import DropoutOperator, Rngs

ONES = np.ones((8, 4, 4, 3), np.float32)

both_kinds = pytest.mark.parametrize("stochastic", [False, True])
both_strategies = pytest.mark.parametrize("strategy", ["vmap", "scan"])


def make(stochastic, *, seed=0, name=None, **options):
    options = {"mode": "pixel", "dropout_rate": 0.5, "stochastic": stochastic, **options}
    return DropoutOperator(config_of(**options), rngs=Rngs(seed) if stochastic else None, name=name)


def det(**options):
    """A deterministic operator."""
    return make(False, **options)


def sto(**options):
    """A stochastic operator."""
    return make(True, **options)


def run(operator, images=ONES):
    """Returns the operator's output for images, as a NumPy array."""
    return np.asarray(operator.apply_batch({"image": images})["image"])


def equal(*runs):
    return all(np.array_equal(runs[0], other) for other in runs[1:])
