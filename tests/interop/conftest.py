"""Recipes run under JAX's own defaults, as their readers would run them."""

import pathlib
from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is no part of the package, so its place is told."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2]))


@pytest.fixture(autouse=True)
def usual_promotion() -> Iterator[None]:
    """Takes back the strictness that the other tests ask for: other libraries rely on promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
