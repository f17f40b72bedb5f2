"""Recipes run under JAX's own defaults, as their readers would run them."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def usual_promotion() -> Iterator[None]:
    """Takes back the strictness that the other tests ask for: other libraries rely on promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
