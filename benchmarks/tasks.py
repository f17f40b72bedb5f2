"""Two small tasks on real images that a package ships: to tell digits, and to clean photographs.

Given no network access and two cores, this is what can be learned many times over: scikit-learn's
digits and its two photographs, and convolutional networks of a few thousand weights in plain JAX.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

OCCLUDED = 0.25  # of the area, in both kinds of occlusion
NOISE = 0.1  # standard deviation, of photographs in [0, 1]
CROP = 16  # side of a piece of a photograph

Weights = dict[str, jax.Array]
Hide = Callable[[jax.Array], jax.Array]
"""Drops values of images or feature maps (B, H, W, C)."""


class Data(NamedTuple):
    """Images (N, H, W, C), float32 in [0, 1], and what is to be learned of each.

    Attributes:
      images: of which each seed draws its training set; the others are its validation set.
      targets: theirs.
      tests: images of the test set, clean and occluded, by the name of the condition.
      test_targets: of all of them.
    """

    images: jax.Array
    targets: jax.Array
    tests: Mapping[str, jax.Array]
    test_targets: jax.Array


class Task(NamedTuple):
    """Something to learn.

    Attributes:
      name: for the report.
      unit: of the score; more is better.
      load: reads the data.
      init: makes the weights of a network.
      forward: (weights, images, hide) -> outputs; `hide` is given the first feature map.
      loss: (outputs, targets) -> scalar to be made small.
      score: (outputs, targets) -> scalar, of a whole set.
      train_size: how many images a seed trains on.
      batch_size: how many of them a step does.
      learning_rate: of Adam.
    """

    name: str
    unit: str
    load: Callable[[], Data]
    init: Callable[[jax.Array], Weights]
    forward: Callable[[Weights, jax.Array, Hide], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    score: Callable[[jax.Array, jax.Array], jax.Array]
    train_size: int
    batch_size: int
    learning_rate: float


def require_packages() -> None:
    """Checks that the images and the optimizer are there.

    Raises:
      ImportError: if scikit-learn is not installed, Pillow, with which it reads photographs, or
        optax.
    """
    try:
        import optax  # noqa: F401
        import PIL.Image  # noqa: F401
        import sklearn.datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "this needs optax, scikit-learn and pillow: pip install optax scikit-learn pillow"
        ) from error


# What is occluded is drawn in NumPy, by other shapes than dropax has: nobody trains on the disc.


def occlude_disc(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blackens a disc of a quarter of the area, anywhere inside each image."""
    height, width = images.shape[1:3]
    radius = (OCCLUDED * height * width / np.pi) ** 0.5
    low, high = radius - 0.5, np.array([height, width]) - radius - 0.5
    centres = rng.uniform(low, high, (len(images), 2))[:, :, None, None]
    distances = (np.mgrid[:height, :width] - centres) ** 2
    return np.where((distances.sum(1) < radius**2)[..., None], np.float32(0), images)


def occlude_pixels(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blackens a quarter of the pixels of each image, each on its own."""
    lost = rng.random(images.shape[:3]) < OCCLUDED
    return np.where(lost[..., None], np.float32(0), images)


def _data(images: np.ndarray, targets: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> Data:
    rng = np.random.default_rng(0)
    tests = {
        "clean": test,
        "disc": occlude_disc(test, rng),
        "pixels": occlude_pixels(test, rng),
    }
    return Data(*jax.tree.map(jnp.asarray, (images, targets, tests, wanted)))


# Layers. A convolution is a product of matrices here: on CPUs XLA has no fast one for several seeds
# at once, and the product takes a fifteenth of the time.


def convolve(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves (B, H, W, C) with a kernel (side, side, C, features), padded with zeros."""
    side, height, width = kernel.shape[0], *images.shape[1:3]
    border = (side // 2, side // 2)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
    shifted = [
        padded[:, down : down + height : stride, right : right + width : stride]
        for down in range(side)
        for right in range(side)
    ]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _make_weights(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    keys = jax.random.split(key, len(shapes))
    weights = {}
    for key, (name, shape) in zip(keys, shapes.items(), strict=True):
        spread = (2 / np.prod(shape[:-1])) ** 0.5
        weights[name] = jnp.float32(spread) * jax.random.normal(key, shape)
        weights[f"{name} bias"] = jnp.zeros(shape[-1])
    return weights


def _layer(weights: Weights, name: str, images: jax.Array, stride: int = 1) -> jax.Array:
    return convolve(images, weights[name], stride) + weights[f"{name} bias"]


# Digits.


def load_digits() -> Data:
    """Reads 1,797 digits of 8x8 grey values; the second half is for testing."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = (bunch.images / 16).astype(np.float32)[..., None]
    targets = bunch.target.astype(np.int32)
    half = len(images) // 2
    return _data(images[:half], targets[:half], images[half:], targets[half:])


def init_digits(key: jax.Array) -> Weights:
    """Makes 9,930 weights: two convolutions and a dense layer."""
    return _make_weights(key, {"a": (3, 3, 1, 16), "b": (3, 3, 16, 32), "c": (512, 10)})


def tell_digits(weights: Weights, images: jax.Array, hide: Hide) -> jax.Array:
    """Returns logits (B, 10)."""
    features = hide(jax.nn.relu(_layer(weights, "a", images)))
    features = jax.nn.relu(_layer(weights, "b", features, stride=2))
    return features.reshape(len(features), -1) @ weights["c"] + weights["c bias"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns how many of a hundred are told right."""
    return 100 * (logits.argmax(-1) == labels).mean()


# Photographs.


def load_photographs() -> Data:
    """Cuts pieces out of two photographs and adds noise; those to the right are for testing."""
    from sklearn import datasets

    rng = np.random.default_rng(0)
    photographs = np.array(datasets.load_sample_images().images, np.float32) / 255
    middle = int(0.6 * photographs.shape[2])
    left, right = photographs[:, :, :middle], photographs[:, :, middle:]
    pieces, tests = _cut(left, 256, rng), _cut(right, 128, rng)
    noisy = [
        np.clip(clean + NOISE * rng.standard_normal(clean.shape, np.float32), 0, 1)
        for clean in (pieces, tests)
    ]
    return _data(noisy[0], pieces, noisy[1], tests)


def _cut(photographs: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts pieces from random places, half of them from each photograph."""
    height, width = photographs.shape[1:3]
    tops = rng.integers(0, height - CROP + 1, count)
    lefts = rng.integers(0, width - CROP + 1, count)
    return np.stack(
        [
            photographs[n % len(photographs), top : top + CROP, left : left + CROP]
            for n, (top, left) in enumerate(zip(tops, lefts, strict=True))
        ]
    )


def init_photographs(key: jax.Array) -> Weights:
    """Makes 6,828 weights: four convolutions, from the second on at half the size."""
    shapes = {"a": (3, 3, 3, 16), "b": (3, 3, 16, 16), "c": (3, 3, 16, 16), "d": (3, 3, 16, 12)}
    return _make_weights(key, shapes)


def clean_photographs(weights: Weights, images: jax.Array, hide: Hide) -> jax.Array:
    """Returns the images without noise, (B, H, W, 3)."""
    features = hide(jax.nn.relu(_layer(weights, "a", images)))
    features = jax.nn.relu(_layer(weights, "b", features, stride=2))
    features = jax.nn.relu(_layer(weights, "c", features))
    count, height, width, _ = images.shape
    pixels = _layer(weights, "d", features).reshape(count, height // 2, width // 2, 2, 2, 3)
    return pixels.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean squared error."""
    return ((outputs - targets) ** 2).mean()


def signal_to_noise(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the peak signal-to-noise ratio in decibels, the mean over images."""
    errors = ((outputs - targets) ** 2).mean((1, 2, 3))
    return -10 * jnp.log10(errors).mean()


DIGITS = Task(
    name="digits",
    unit="% right",
    load=load_digits,
    init=init_digits,
    forward=tell_digits,
    loss=cross_entropy,
    score=accuracy,
    train_size=200,
    batch_size=50,
    learning_rate=3e-3,
)
PHOTOGRAPHS = Task(
    name="photographs",
    unit="dB",
    load=load_photographs,
    init=init_photographs,
    forward=clean_photographs,
    loss=squared_error,
    score=signal_to_noise,
    train_size=48,
    batch_size=8,
    learning_rate=3e-3,
)
