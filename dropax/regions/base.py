"""What a mode is: the protocol of regions."""

from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class Region(Protocol):
    """Which values drop together: anything frozen and hashable by value with `sample` is a mode."""

    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: the element's shape, channels last: `(..., channels)`.
          rate: expected fraction dropped, a float or a scalar array that may be traced.

        Returns:
          Keep mask, bool, True where kept, of a shape that broadcasts to `element_shape`.
        """
        ...
