"""Where arrays come in from a user: of any library, and read before JAX narrows them.

JAX truncates 64-bit NumPy arrays to 32 bits. What an array means, such as which values are not
zero, is read here in the dtype that it came in.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import must
from dropax.kit.process import Process

_ARRAYS = jax.Array | np.ndarray | np.generic
_KINDS: dict[str, tuple[Any, ...]] = {
    "numbers or bools": (np.number, np.bool_),
    "real numbers or bools": (np.floating, np.integer, np.bool_),
    "real numbers": (np.floating, np.integer),
    "integers": (np.integer,),
    "bools": (np.bool_,),
}


def as_array(array: Any, name: str) -> Any:
    """Returns an array of another library, such as torch, as one of NumPy or JAX.

    Anything else is returned as it is. Nothing is computed, so that loaders may call it anywhere. A
    TypeError if it is on a device or of a dtype that neither NumPy nor JAX reads.
    """
    if isinstance(array, _ARRAYS) or not hasattr(array, "__dlpack__"):
        return array
    try:
        return np.asarray(array)
    except Exception:  # on another device, or of a dtype that NumPy lacks, such as bfloat16
        try:
            return jnp.from_dlpack(array)
        except Exception as error:
            raise TypeError(must(name, "be one that JAX takes", array, str(error))) from error


def as_numbers(array: Any, name: str, kind: str = "numbers or bools") -> Any:
    """Returns an array that JAX takes, of NumPy if it is on the host.

    A TypeError if it is no array of NumPy, JAX or another library, or not of a `kind` in `_KINDS`.
    """
    Process.require_own()
    if not isinstance(array, _ARRAYS):
        array = as_array(array, name)
        if hasattr(array, "__jax_array__"):  # such as a variable of flax
            array = jnp.asarray(array)
    if not isinstance(array, _ARRAYS):
        raise TypeError(must(name, f"be an array of {kind}", array))
    if isinstance(array, np.ma.MaskedArray):
        cure = "Fill what is masked: array.filled(0)."
        raise TypeError(must(name, "not be a masked array", array, cure))
    if not any(jnp.issubdtype(array.dtype, one) for one in _KINDS[kind]):
        raise TypeError(must(name, f"be an array of {kind}", array))
    require_taken(array, name, "Convert it first, such as by array.astype('float32').")
    return np.asarray(array) if isinstance(array, np.generic) else array


def require_taken(array: Any, name: str, cure: str) -> None:
    """Raises a TypeError if an array, such as one of text, does not go through `jit`."""
    try:
        jax.typeof(array)
    except TypeError:
        raise TypeError(must(name, "be an array that JAX takes", array, cure)) from None


def as_bools(array: Any, name: str) -> Any:
    """Returns which values of an array of real numbers or bools are not zero; NaN is not."""
    array = as_numbers(array, name, "real numbers or bools")
    return array.astype(np.bool_) if isinstance(array, np.ndarray) else _not_zero(array)


@functools.partial(jax.jit, inline=True)
def _not_zero(array: jax.Array) -> jax.Array:
    """Returns which values are not zero; XLA on CPU takes subnormal numbers for it."""
    if not jnp.issubdtype(array.dtype, np.floating):
        return array.astype(np.bool_)
    wide = array if array.dtype.itemsize > 1 else array.astype(np.float32)
    words = {2: np.uint16, 4: np.uint32, 8: np.uint64}[wide.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(wide, words)
    return bits << bits.dtype.type(1) != 0  # without the sign


def as_int32(numbers: Any, low: int = -(2**31), high: int = 2**31 - 1) -> Any:
    """Returns integers of any dtype, clipped to [low, high] in their own, as int32."""
    if numbers.dtype.itemsize < 4:
        numbers = numbers.astype(np.int32)
    least, most = int(jnp.iinfo(numbers.dtype).min), int(jnp.iinfo(numbers.dtype).max)
    bounds = (np.asarray(bound, numbers.dtype) for bound in (max(low, least), min(high, most)))
    return numbers.clip(*bounds).astype(np.int32)


def split_places(places: Any) -> tuple[Any, Any]:
    """Returns the whole and the fractional part of coordinates; float32 alone ends at 2^24.

    Args:
      places: real numbers, of NumPy or JAX.

    Returns:
      (whole, part): int32, rounded down and saturated; and float32 in [0, 1], NaN if the place is,
      and at least 2^-24 if it is not whole, so that products of parts do not vanish.
    """
    xp: Any = np if isinstance(places, np.ndarray) else jnp
    if jnp.issubdtype(places.dtype, np.integer):
        return as_int32(places), xp.zeros(places.shape, np.float32)
    wide = places if places.dtype.itemsize >= 4 else places.astype(np.float32)
    # 2^31 - 128 is the largest float32 below 2^31.
    floor = xp.floor(wide)
    whole = xp.where(xp.isnan(wide), 0, floor).clip(-(2.0**31), 2.0**31 - 128).astype(np.int32)
    part = xp.where(xp.isinf(wide), 0, wide - xp.where(xp.isinf(floor), 0, floor))
    narrow = part.astype(np.float32)
    return whole, xp.where(part > 0, xp.maximum(narrow, np.float32(2**-24)), narrow)
