"""dropax: drop pixels, channels or regions of images inside JAX programs.

    >>> import dropax, jax, jax.numpy as jnp
    >>> images = jnp.ones((8, 32, 32, 3))
    >>> dropax.dropout(jax.random.key(0), images, rate=0.2).shape
    (8, 32, 32, 3)

A keep mask is True where kept. A rate is the fraction dropped, in expectation, in every mode.
Arrays are (height, width, channels). `help(dropax.dropout)` and the like say more.

One line:
    dropout                    bare arrays, with any leading batch axes

Pure functions, for a jitted step of your own:
    DropoutOperatorConfig      what drops, how much of it, what takes its place; frozen
    init_state                 a config and a key make an `OperatorState`
    apply_batch                drops from a batch, and returns it with the next state
    generate_random_params     draws the keep masks of a batch, and does nothing else
    apply                      drops from one element what its params say; no randomness
    chain                      several configs as one, with one state
    batched                    makes an `apply_batch` of two functions of your own
    as_record_ids              ids of up to 64 bits, for masks that follow a record anywhere
    record_keys                the keys of records, from their ids and an epoch

The same as an object:
    DropoutOperator            holds config and state; a pytree
    Rngs                       named streams of keys
    ModalityOperator           the class to derive an operator of your own from
    OperatorConfig             its config
    ModalityOperatorConfig     its config where it works on a named field

Modes, which say what drops together:
    Pixel                      each value, or each whole pixel
    Channel                    whole channels, or groups of them
    Block                      overlapping blocks around random seeds (DropBlock)
    Patch                      cells of a fixed grid (Hide-and-Seek, MAE)
    Blocks                     an exact number of cells, in rectangles (BEiT)
    Box                        rectangles (Cutout, Random Erasing)
    Grid                       a lattice of squares (GridMask)
    Band                       strips across an axis (SpecAugment)
    Record                     whole records (DropPath)
    OneOf                      what one of several modes drops
    Shared                     the same along some axes (tubes)
    Inverted                   all but what a mode would drop
    Mode                     the protocol of a mode of your own
    presets                    papers' own parameters, each as a config

What goes in and out:
    Batch                      records, stacked
    Element                    one record: data, state, metadata
    OperatorState              key, step, counts, statistics; a pytree
    save_state                 a state as plain arrays, numbers and strings, for a checkpoint
    load_state                 the state back

Where values may drop, and kept tokens:
    box_mask                   True inside boxes, for `where_key`
    length_mask                True before a length, for `where_key`
    FromField                  a fill that is read from another field
    Mean                       a fill by the mean of each channel
    Noise                      a fill by noise of each channel's mean and spread
    StatsMean                  a fill by the mean of the statistics
    Fill                       the protocol of a fill of your own
    patch_mask                 an image's mask as one of its patches
    keep_tokens                a mask of tokens as ids, a static number of them kept
    gather_tokens              the tokens with these ids
    scatter_tokens             kept tokens back in place, the others filled
    Tokens                     ids of kept and dropped tokens, and how to put them back

Measuring and seeing:
    expected_dropped_fraction  what a config drops on average
    dropped_fraction           what a mask drops
    visible_fraction           how much of a box a mask keeps
    visible_points             which points a mask keeps
    images                     contact sheets and overlays, as plain arrays
    STREAM_VERSION             of the masks that a key gives

For your own tests: `dropax.testing`. On pictures, from a shell: `python -m dropax --help`.
"""

from dropax import images, presets
from dropax.bits import STREAM_VERSION
from dropax.chaining import chain
from dropax.config import DropoutOperatorConfig
from dropax.fills import Fill, FromField, Mean, Noise, StatsMean
from dropax.functional import apply, apply_batch, dropout, generate_random_params
from dropax.kit.batch import Batch, Element
from dropax.kit.batching import batched
from dropax.kit.config import ModalityOperatorConfig, OperatorConfig
from dropax.kit.ids import as_record_ids, record_keys
from dropax.kit.operator import ModalityOperator
from dropax.kit.rngs import Rngs
from dropax.kit.state import OperatorState, init_state, load_state, save_state
from dropax.masks import box_mask, length_mask
from dropax.measures import (
    dropped_fraction,
    expected_dropped_fraction,
    visible_fraction,
    visible_points,
)
from dropax.modes import (
    Band,
    Block,
    Blocks,
    Box,
    Channel,
    Grid,
    Inverted,
    Mode,
    OneOf,
    Patch,
    Pixel,
    Record,
    Shared,
)
from dropax.operator import DropoutOperator
from dropax.tokens import Tokens, gather_tokens, keep_tokens, patch_mask, scatter_tokens

__version__ = "0.1.0"

__all__ = [
    "STREAM_VERSION",
    "Band",
    "Batch",
    "Block",
    "Blocks",
    "Box",
    "Channel",
    "DropoutOperator",
    "DropoutOperatorConfig",
    "Element",
    "Fill",
    "FromField",
    "Grid",
    "Inverted",
    "Mean",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "Mode",
    "Noise",
    "OneOf",
    "OperatorConfig",
    "OperatorState",
    "Patch",
    "Pixel",
    "Record",
    "Rngs",
    "Shared",
    "StatsMean",
    "Tokens",
    "apply",
    "apply_batch",
    "as_record_ids",
    "batched",
    "box_mask",
    "chain",
    "dropout",
    "dropped_fraction",
    "expected_dropped_fraction",
    "gather_tokens",
    "generate_random_params",
    "images",
    "init_state",
    "keep_tokens",
    "length_mask",
    "load_state",
    "patch_mask",
    "presets",
    "record_keys",
    "save_state",
    "scatter_tokens",
    "visible_fraction",
    "visible_points",
]
