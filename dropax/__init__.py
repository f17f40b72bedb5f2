"""dropax: drop pixels or channels of images inside JAX programs.

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

from dropax.batching import batched
from dropax.bits import STREAM_VERSION
from dropax.config import DropoutOperatorConfig, ModalityOperatorConfig, OperatorConfig
from dropax.containers import Batch, Element
from dropax.keys import Rngs
from dropax.operators import DropoutOperator, ModalityOperator
from dropax.regions import Channel, Pixel, Region
from dropax.state import OperatorState
from dropax.transform import apply, apply_batch, dropout, generate_random_params, init_state

__version__ = "0.1.0"

__all__ = [
    "STREAM_VERSION",
    "Batch",
    "Channel",
    "DropoutOperator",
    "DropoutOperatorConfig",
    "Element",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "OperatorConfig",
    "OperatorState",
    "Pixel",
    "Region",
    "Rngs",
    "apply",
    "apply_batch",
    "batched",
    "dropout",
    "generate_random_params",
    "init_state",
]
