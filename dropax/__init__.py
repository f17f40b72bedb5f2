"""dropax: drop pixels, channels or regions of images inside JAX programs.

The library is four pure functions, `init_state`, `generate_random_params`, `apply` and
`apply_batch`, that thread explicit keys and state through frozen configs. `DropoutOperator` is the
same as an object, and `dropout` the same in one line:

    >>> import dropax, jax, jax.numpy as jnp
    >>> images = jnp.ones((8, 32, 32, 3))
    >>> dropax.dropout(jax.random.key(0), images, rate=0.2).shape
    (8, 32, 32, 3)

A keep mask is True where kept. A rate is the fraction dropped. Arrays are (height, width,
channels).
"""

from dropax import presets
from dropax.batching import batched
from dropax.bits import STREAM_VERSION
from dropax.config import DropoutOperatorConfig
from dropax.containers import Batch, Element
from dropax.ids import as_record_ids
from dropax.keys import Rngs
from dropax.measures import (
    dropped_fraction,
    expected_dropped_fraction,
    visible_fraction,
    visible_points,
)
from dropax.operator_config import ModalityOperatorConfig, OperatorConfig
from dropax.operators import DropoutOperator, ModalityOperator
from dropax.regions import Band, Block, Box, Channel, Grid, Patch, Pixel, Region
from dropax.state import OperatorState
from dropax.transform import apply, apply_batch, dropout, generate_random_params, init_state

__version__ = "0.1.0"

__all__ = [
    "STREAM_VERSION",
    "Band",
    "Batch",
    "Block",
    "Box",
    "Channel",
    "DropoutOperator",
    "DropoutOperatorConfig",
    "Element",
    "Grid",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "OperatorConfig",
    "OperatorState",
    "Patch",
    "Pixel",
    "Region",
    "Rngs",
    "apply",
    "apply_batch",
    "as_record_ids",
    "batched",
    "dropout",
    "dropped_fraction",
    "expected_dropped_fraction",
    "generate_random_params",
    "init_state",
    "presets",
    "visible_fraction",
    "visible_points",
]
