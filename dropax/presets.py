"""Four papers' own parameters, as configs.

Each function takes what its paper takes and returns a config whose `dropout_rate` and mode do the
same. They are stochastic unless told otherwise, and take every other option of
`DropoutOperatorConfig` as well.
"""

from typing import Any

import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.kit.errors import is_number, must, require_kind, require_whole
from dropax.regions import Block, Box, Grid
from dropax.regions.calibration import box_fractions


def cutout(
    field_key: str,
    *,
    image_shape: tuple[int, ...],
    length: int = 16,
    holes: int = 1,
    **options: Any,
) -> DropoutOperatorConfig:
    """Cutout: squares centred on any pixel, cut off at the border.

    DeVries and Taylor, 2017, arXiv:1708.04552; 16 pixels is their length for CIFAR-10, 8 that for
    CIFAR-100 and 20 that for SVHN. Squares of this length are what the rate comes to on images of
    `image_shape`; on others the rate stays and the length adapts. Even lengths reach half their
    length up and left of the centre, one pixel less down and right, as in the paper's code.

    Args:
      field_key: the image's field.
      image_shape: its spatial shape, (height, width).
      length: side of a square, in pixels.
      holes: how many squares.
      **options: further options of the config.

    Returns:
      A stochastic config in `Box` mode.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if an argument is out of range.

    Example:
      >>> config = cutout("image", image_shape=(32, 32))
      >>> config.mode, round(config.dropout_rate, 4)
      (Box(count=1, aspect_ratio=(1, 1), border='clip'), 0.1914)
    """
    require_whole("cutout.length", length, 1)
    require_whole("cutout.holes", holes, 1, 65)
    require_kind("cutout.image_shape", image_shape, tuple, "a tuple of sizes")
    for position, size in enumerate(image_shape):
        require_whole(f"cutout.image_shape[{position}]", size, 1)
    if not image_shape:
        raise ValueError(must("cutout.image_shape", "have an axis", image_shape))
    sides = [[min(length, 2 * size - 1) for size in image_shape]]
    rate = float(box_fractions(np.array(sides), image_shape, holes, "clip")[0])
    return _config(field_key, rate, Box(count=holes, border="clip"), options)


def random_erasing(
    field_key: str,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    probability: float = 0.5,
    **options: Any,
) -> DropoutOperatorConfig:
    """Random Erasing: one rectangle of random area and aspect ratio, inside the image.

    Zhong et al., 2017, arXiv:1708.04896, with the defaults that came into use. Differs: where the
    paper draws again when a rectangle does not fit, here its aspect ratio gives way. The paper
    fills with random values or the mean: pass `fill="noise"` or `fill="mean"`.

    Args:
      field_key: the image's field.
      scale: (least, largest) area as a fraction of the image's, uniform.
      ratio: (lowest, highest) height / width, log-uniform.
      probability: how likely an image is worked on.
      **options: further options of the config.

    Returns:
      A stochastic config in `Box` mode.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if an argument is out of range.

    Example:
      >>> random_erasing("image").dropout_rate
      (0.02, 0.33)
    """
    options = {"apply_probability": probability, **options}
    return _config(field_key, scale, Box(aspect_ratio=ratio), options)


def gridmask(
    field_key: str,
    *,
    unit: int | tuple[int, int] = (96, 223),
    ratio: float = 0.6,
    rotate: float = 360,
    probability: float = 0.8,
    **options: Any,
) -> DropoutOperatorConfig:
    """GridMask: a lattice of squares, shifted and turned at random.

    Chen et al., 2020, arXiv:2001.04086, with the parameters of its ImageNet training. Differs: the
    paper rounds the kept bands up to whole pixels, so that a little less drops than
    `(1 - ratio) ** 2`; here just that drops in expectation. `rotate=0` keeps the lattice upright.

    Args:
      field_key: the image's field.
      unit: period of the lattice in pixels, or (least, largest), each equally likely.
      ratio: which part of a period is kept, in [0, 1].
      rotate: the largest angle in degrees.
      probability: how likely an image is worked on. The paper raises it from 0 while training;
        a traced `config.replace(apply_probability=...)` does so without compiling again.
      **options: further options of the config.

    Returns:
      A stochastic config in `Grid` mode.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if an argument is out of range.

    Example:
      >>> round(gridmask("image").dropout_rate, 4)
      0.16
    """
    if not is_number(ratio):
        raise TypeError(must("gridmask.ratio", "be a number", ratio))
    if not 0 <= ratio <= 1:
        raise ValueError(must("gridmask.ratio", "be in [0, 1]", ratio))
    options = {"apply_probability": probability, **options}
    return _config(field_key, (1 - ratio) ** 2, Grid(unit=unit, rotate=rotate), options)


def dropblock(
    field_key: str, *, rate: Any = 0.1, block_size: int = 7, **options: Any
) -> DropoutOperatorConfig:
    """DropBlock: blocks around random seeds, for feature maps.

    Ghiasi et al., 2018, arXiv:1810.12890. Differs: the paper's seed probability neglects that
    blocks overlap, so that less drops than its `1 - keep_prob`; here `rate` drops. The paper
    divides by the fraction that was kept in the batch; here each record by the one that is
    expected, so that no record depends on others.

    Args:
      field_key: the feature map's field.
      rate: fraction dropped in expectation; may be traced, and is raised from 0 in the paper.
      block_size: side of a block.
      **options: further options of the config; `mode=Block(block_size, per_channel=True)` draws
        blocks for every channel on its own.

    Returns:
      A stochastic config in `Block` mode that rescales.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if an argument is out of range.

    Example:
      >>> dropblock("features").rescale
      True
    """
    return _config(field_key, rate, Block(size=block_size), {"rescale": True, **options})


def _config(field_key: str, rate: Any, mode: Any, options: dict[str, Any]) -> DropoutOperatorConfig:
    given = {"stochastic": True, "dropout_rate": rate, "mode": mode, **options}
    return DropoutOperatorConfig(field_key=field_key, **given)
