"""What others offer for the same: each optional, each used as its own documentation says.

A peer keeps its own rules: most of them rescale what is kept, and some give another dtype.
"""

import functools
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Contender, compiled_contender

# (mode, rate, images) -> a contender, or None where the peer has no such mode.
Make = Callable[[str, float, jax.Array], Contender | None]


class Peer(NamedTuple):
    """Another library that drops.

    Attributes:
      name: in the report.
      package: whose version is recorded.
      make: makes the contender of a mode.
    """

    name: str
    package: str
    make: Make

    @property
    def version(self) -> str:
        """The version of the installed package."""
        return importlib.metadata.version(self.package)


def load_peers() -> tuple[list[Peer], list[str]]:
    """Imports the peers.

    Returns:
      (peers, missing): those that are there, and the names of those that are not.
    """
    peers, missing = [], []
    for name, (package, load) in _LOADERS.items():
        try:
            peers.append(Peer(name, package, load()))
        except ImportError:
            missing.append(name)
    return peers, missing


def peer_contenders(
    peers: Sequence[Peer], mode: str, rate: float, images: jax.Array
) -> list[Contender]:
    """Makes the contenders of a mode, each called once to see what it gives."""
    contenders = []
    for peer in peers:
        try:
            contender = peer.make(mode, rate, images)
            if contender is None:
                continue
            given = str(jax.block_until_ready(contender.call()).dtype).removeprefix("torch.")
        except Exception as error:  # peers refuse a dtype in ways of their own
            refusal = {"note": f"refuses ({type(error).__name__})"}
            contenders.append(Contender(peer.name, mode, None, refusal, mode))
            continue
        notes = [f"gives {given}"] if given != images.dtype.name else []
        notes += ["in turn, not interleaved"] if contender.in_turn else []
        facts = {**contender.facts, **({"note": "; ".join(notes)} if notes else {})}
        contenders.append(contender._replace(facts=facts))
    return contenders


def _bernoulli(one_key: bool = False) -> Make:
    """`jax.random.bernoulli` and `where`, as a user would write it.

    A key for each record is what dropax promises. `one_key` draws all masks from one key, so that
    a record's mask depends on its place in the batch.
    """

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        height, width, channels = images.shape[1:]
        shape = {
            "pixel": (height, width, channels),
            "whole pixel": (height, width, 1),
            "channel": (1, 1, channels),
            "patch": (-(-height // 16), -(-width // 16), 1),
            "record": (1, 1, 1),
        }.get(mode)
        if shape is None or (one_key and mode == "patch"):
            return None

        def mask(key: jax.Array) -> jax.Array:
            kept = jax.random.bernoulli(key, 1 - rate, shape)
            if mode == "patch":
                kept = kept.repeat(16, 0).repeat(16, 1)[:height, :width]
            return kept

        def drop(key: jax.Array, images: jax.Array) -> jax.Array:
            if one_key:
                kept = jax.random.bernoulli(key, 1 - rate, (images.shape[0], *shape))
            else:
                kept = jax.vmap(mask)(jax.random.split(key, images.shape[0]))
            return jnp.where(kept, images, jnp.zeros((), images.dtype))

        key, name = jax.random.key(0), "bernoulli, one key" if one_key else "bernoulli"
        return compiled_contender(name, mode, drop, key, images, images=images, mode=mode)

    return make


def _argsort() -> Make:
    """The random masking of MAE, as JAX code bases write it: ranks by `argsort` of noise, twice."""

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        if mode != "patch, exact":
            return None
        records, height, width, _ = images.shape
        cells = -(-height // 16), -(-width // 16)
        dropped = round(rate * cells[0] * cells[1])

        def drop(key: jax.Array, images: jax.Array) -> jax.Array:
            noise = jax.random.uniform(key, (records, cells[0] * cells[1]))
            ranks = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
            kept = (ranks >= dropped).reshape(records, *cells, 1)
            kept = kept.repeat(16, 1).repeat(16, 2)[:, :height, :width]
            return jnp.where(kept, images, jnp.zeros((), images.dtype))

        key = jax.random.key(0)
        return compiled_contender("argsort", mode, drop, key, images, images=images, mode=mode)

    return make


def _flax() -> Make:
    from flax import linen

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        shared = {"pixel": (), "whole pixel": (-1,), "channel": (1, 2)}.get(mode)
        if shared is None:
            return None
        layer = linen.Dropout(rate, broadcast_dims=shared, deterministic=False)

        def drop(key: jax.Array, images: jax.Array) -> jax.Array:
            return layer.apply({}, images, rngs={"dropout": key})

        key = jax.random.key(0)
        return compiled_contender("flax", mode, drop, key, images, images=images, mode=mode)

    return make


def _equinox() -> Make:
    import equinox

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        if mode != "pixel":
            return None
        layer = equinox.nn.Dropout(rate)

        def drop(key: jax.Array, images: jax.Array) -> jax.Array:
            return layer(images, key=key)

        key = jax.random.key(0)
        return compiled_contender("equinox", mode, drop, key, images, images=images, mode=mode)

    return make


def _datarax() -> Make:
    from datarax.core.element_batch import Batch
    from datarax.operators.modality import image
    from flax import nnx

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        options = {"field_key": "image", "stochastic": True, "stream_name": "augment"}
        rngs = nnx.Rngs(0, augment=1)
        operator: Any
        if mode in ("pixel", "channel"):
            config = image.DropoutOperatorConfig(dropout_rate=rate, mode=mode, **options)
            operator = image.DropoutOperator(config, rngs=rngs)
        elif mode == "box":
            side = round((rate * images.shape[1] * images.shape[2]) ** 0.5)
            config = image.PatchDropoutOperatorConfig(
                num_patches=1, patch_size=(side, side), **options
            )
            operator = image.PatchDropoutOperator(config, rngs=rngs)
        else:
            return None
        batch = Batch.from_parts(data={"image": images}, states={}, validate=False)

        @nnx.jit
        def drop(operator: Any, batch: Batch) -> jax.Array:
            return operator.apply_batch(batch).data.get_value()["image"]

        return Contender("datarax", mode, lambda: drop(operator, batch), mode=mode)

    return make


def _torch() -> Make:
    import torch

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        if mode not in ("pixel", "channel"):
            return None
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        dtype = getattr(torch, images.dtype.name)
        values = np.asarray(images.astype(jnp.float32))
        tensor = torch.from_numpy(values.transpose(0, 3, 1, 2).copy())
        tensor = tensor.to(dtype).to("cuda" if on_gpu else "cpu")
        function = torch.nn.functional.dropout if mode == "pixel" else torch.nn.functional.dropout2d

        def drop() -> Any:
            with torch.no_grad():
                dropped = function(tensor, rate, training=True)
            if on_gpu:
                torch.cuda.synchronize()
            return dropped

        # Its threads spin on for a while after each call, at the cost of whoever comes next.
        return Contender("torch", mode, drop, mode=mode, in_turn=True)

    return make


def _albumentations() -> Make:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        side = rate**0.5
        transforms = {
            "channel": lambda: albumentations.ChannelDropout(p=1.0),
            "pixel": lambda: albumentations.PixelDropout(rate, per_channel=True, p=1.0),
            "whole pixel": lambda: albumentations.PixelDropout(rate, per_channel=False, p=1.0),
            "box": lambda: albumentations.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(side, side),
                hole_width_range=(side, side),
                p=1.0,
            ),
            "grid": lambda: albumentations.GridDropout(ratio=side, p=1.0),
        }
        if mode not in transforms:
            return None
        transform = transforms[mode]()
        on_host = np.array(images)

        def drop() -> np.ndarray:
            return [transform(image=image)["image"] for image in on_host][-1]

        # Its loop leaves caches cold and OpenCV's threads awake for whoever comes next.
        return Contender("albumentations", mode, drop, mode=mode, in_turn=True)

    return make


def _keras() -> Make:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    def make(mode: str, rate: float, images: jax.Array) -> Contender | None:
        if mode != "box" or keras.backend.backend() != "jax":
            return None
        highest = 255 if images.dtype == jnp.uint8 else 1
        layer = keras.layers.RandomErasing(
            factor=(1.0, 1.0), scale=(rate, rate), fill_value=0.0, value_range=(0, highest)
        )
        return Contender("keras", mode, lambda: layer(images, training=True), mode=mode)

    return make


_LOADERS: dict[str, tuple[str, Callable[[], Make]]] = {
    "bernoulli": ("jax", _bernoulli),
    "bernoulli, one key": ("jax", functools.partial(_bernoulli, one_key=True)),
    "argsort": ("jax", _argsort),
    "flax": ("flax", _flax),
    "equinox": ("equinox", _equinox),
    "datarax": ("datarax", _datarax),
    "torch": ("torch", _torch),
    "albumentations": ("albumentations", _albumentations),
    "keras": ("keras", _keras),
}
