"""Property tests for transforms: dropax's own and any other.

Strategies draw configs, keys and data that go together, and shrink to what can be read.
`check_transform` runs two functions, in the sense of `dropax.batched`, through what any sound
transform does; `check_operator` does the same for an operator class. `assert_dropped_fraction` is a
statistical assertion whose false alarms are bounded.

Needs Hypothesis, and is never imported by `import dropax`.
"""

try:
    import hypothesis  # noqa: F401
except ImportError:
    raise ImportError("dropax.testing needs Hypothesis; pip install 'dropax[test]'") from None


from dropax.testing.drops import assert_drops
from dropax.testing.masks import assert_dropped_fraction, assert_masks
from dropax.testing.strategies import (
    batches,
    configs,
    data_shapes,
    elements,
    images,
    keys,
    modes,
    operator_states,
    preset_configs,
)
from dropax.testing.transforms import PropertyError, Report, check_operator, check_transform

__all__ = [
    "PropertyError",
    "Report",
    "assert_dropped_fraction",
    "assert_drops",
    "assert_masks",
    "batches",
    "check_operator",
    "check_transform",
    "configs",
    "data_shapes",
    "elements",
    "images",
    "keys",
    "modes",
    "operator_states",
    "preset_configs",
]
