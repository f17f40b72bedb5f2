"""Papers' own parameters, as configs, and rates for holes of a side in pixels.

Each preset takes what its paper takes and returns a config whose `dropout_rate` and mode do the
same; `spec_augment` returns a chain of several. They are stochastic unless told otherwise.
`PRESETS` holds each by its name.

    cutout, random_erasing, coarse_dropout,
    gridmask, dropblock                             augmentation and regularization
    mae, simmim, beit, videomae                     masked image and video modeling
    drop_path, spec_augment                         residual branches, spectrograms

Hide-and-Seek is `mode="patch"`, SpatialDropout `mode="channel"` with `rescale=True`.

Arguments that they share; one of the wrong type is a TypeError, one out of range a ValueError:

    field_key      the field of the images, videos or features
    image_shape    the spatial shape of the images, (height, width)
    rate           the fraction that drops in expectation, or (least, largest); may be traced
    probability    how likely a record is worked on
    patch_size     the side of a patch in pixels, or one for each axis
    options        every other option of `DropoutOperatorConfig`
"""

import inspect
import math
from typing import Any

import numpy as np

from dropax.chaining import Chain, chain
from dropax.config import DropoutOperatorConfig, checked_rate, checked_rates
from dropax.kit.errors import is_number, must, require_kind, require_number, require_whole
from dropax.kit.serialization import plain, takes_plain
from dropax.modes import Band, Block, Blocks, Box, Grid, Patch, Record, Shared, as_mode
from dropax.modes.base import require_aspect_ratio, require_sizes, spatial_shape
from dropax.modes.calibration import Border, box_fractions, largest_side
from dropax.modes.rectangles import require_count

Sizes = int | tuple[int, ...]


@takes_plain
def cutout(
    field_key: str,
    *,
    image_shape: tuple[int, ...],
    length: int = 16,
    holes: int = 1,
    **options: Any,
) -> DropoutOperatorConfig:
    """Cutout: squares centered on any pixel, cut off at the border.

    DeVries and Taylor, 2017, arXiv:1708.04552; 16 pixels is their length for CIFAR-10, 8 that for
    CIFAR-100 and 20 that for SVHN. Squares of this length are what the rate comes to on images of
    `image_shape`; on others the rate stays and the length adapts. Even lengths reach half their
    length up and left of the centre, one pixel less down and right, as in the paper's code.

    Args:
      length: side of a square, in pixels.
      holes: how many squares.

    Example:
      >>> config = cutout("image", image_shape=(32, 32))
      >>> config.mode, round(config.dropout_rate, 4)
      (Box(count=1, aspect_ratio=(1, 1), border='clip'), 0.1914)
    """
    require_whole("cutout.length", length, 1)
    require_whole("cutout.holes", holes, 1, 65)
    _require_shape("cutout.image_shape", image_shape, "a tuple of sizes")
    if not image_shape:
        raise ValueError(must("cutout.image_shape", "have an axis", image_shape))
    sides = [[min(length, 2 * size - 1) for size in image_shape]]
    rate = float(box_fractions(np.array(sides), image_shape, holes, "clip")[0])
    return _config(field_key, rate, Box(count=holes, border="clip"), options)


@takes_plain
def random_erasing(
    field_key: str,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    probability: float = 0.5,
    **options: Any,
) -> DropoutOperatorConfig:
    """Random Erasing: one rectangle of random area and aspect ratio, inside the image.

    Zhong et al., 2017, arXiv:1708.04896, with the defaults that came into use. Differs: the
    paper draws again when a rectangle does not fit; here its aspect ratio is reduced. The paper
    fills with random values or the mean: pass `fill="noise"` or `fill="mean"`.

    Args:
      scale: (least, largest) area as a fraction of the image's, uniform.
      ratio: (lowest, highest) height / width, log-uniform.

    Example:
      >>> random_erasing("image").dropout_rate
      (0.02, 0.33)
    """
    checked_rates(scale, "random_erasing.scale")
    require_aspect_ratio("random_erasing.ratio", ratio)
    checked_rate(probability, "random_erasing.probability")
    options = {"apply_probability": probability, **options}
    return _config(field_key, scale, Box(aspect_ratio=ratio), options)


@takes_plain
def coarse_dropout(
    field_key: str,
    *,
    image_shape: tuple[int, int],
    num_holes_range: tuple[int, int] = (1, 2),
    hole_height_range: tuple[float, float] = (0.1, 0.2),
    hole_width_range: tuple[float, float] = (0.1, 0.2),
    probability: float = 0.5,
    **options: Any,
) -> DropoutOperatorConfig:
    """CoarseDropout of albumentations 2: a few rectangles, inside the image.

    The number of holes is theirs. So is the fraction that drops, exactly on average over images of
    `image_shape` and about in its spread, and the mean and the spread of the logarithm of
    height / width. Differs: all holes of an image have one size, and many holes are smaller than
    few, where there each hole has a size of its own and more holes drop more. On images of another
    shape the rate stays, and the sides adapt.

    Args:
      num_holes_range: (fewest, most) holes, 1 to 64, each number equally likely.
      hole_height_range: (least, largest) height of a hole: ints in pixels, or fractions of the
        image's. Both are drawn from, uniformly.
      hole_width_range: the same for its width.

    Example:
      >>> config = coarse_dropout("image", image_shape=(32, 32), hole_width_range=(0.25, 0.5))
      >>> config.mode.count, [round(rate, 3) for rate in config.dropout_rate]
      ((1, 2), [0.02, 0.122])
    """
    _require_shape("coarse_dropout.image_shape", image_shape, "a tuple of two sizes")
    if len(image_shape) != 2:
        raise ValueError(must("coarse_dropout.image_shape", "be (height, width)", image_shape))
    require_kind("coarse_dropout.num_holes_range", num_holes_range, tuple, "a tuple (fewest, most)")
    require_count("coarse_dropout.num_holes_range", num_holes_range, may_vary=True)
    counts = np.arange(num_holes_range[0], num_holes_range[1] + 1)
    checked_rate(probability, "coarse_dropout.probability")
    hits, means, squares, logs, spread = [], [], [], [], 0.0
    for name, bounds, size in zip(
        ("height", "width"), (hole_height_range, hole_width_range), image_shape, strict=True
    ):
        sides, shares = _hole_sides(f"coarse_dropout.hole_{name}_range", bounds, size)
        # How likely a hole of a random side and place covers each position.
        at, starts = np.arange(size), size - sides[:, None] + 1
        covering = np.minimum(np.minimum(at, at[::-1]) + 1, np.minimum(sides[:, None], starts))
        hits.append(shares @ (covering / starts))
        means.append(shares @ sides / size)
        squares.append(shares @ sides**2 / size**2)
        log = np.log(np.maximum(sides, 1))
        logs.append(shares @ log)
        spread += shares @ (log - logs[-1]) ** 2
    missed = 1 - np.outer(*hits)
    rate = float(np.mean([1 - (missed**count).mean() for count in counts]))
    # A uniform draw has half the width sqrt(3) * deviation. That of the area of all holes shrinks,
    # as each covers only what the others miss.
    mean = math.prod(means)
    variance = counts.mean() * (math.prod(squares) - mean**2) + counts.var() * mean**2
    shrunk = math.sqrt(3 * max(round(variance, 12), 0)) * (1 - rate) / max(1 - mean, 1e-9)
    reach = min(shrunk, rate, 1 - rate)
    width = math.sqrt(3 * round(spread, 12))
    center = logs[0] - logs[1]
    mode = Box(num_holes_range, (math.exp(center - width), math.exp(center + width)))
    options = {"apply_probability": probability, **options}
    return _config(field_key, (rate - reach, rate + reach) if reach else rate, mode, options)


@takes_plain
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
      unit: period of the lattice in pixels, or (least, largest), each equally likely.
      ratio: which part of a period is kept, in [0, 1].
      rotate: the largest angle in degrees.
      probability: how likely an image is worked on. The paper raises it from 0 while training;
        a traced `config.replace(apply_probability=...)` does so without compiling again.

    Example:
      >>> round(gridmask("image").dropout_rate, 4)
      0.16
    """
    if not is_number(ratio):
        raise TypeError(must("gridmask.ratio", "be a number", ratio))
    if not 0 <= ratio <= 1:
        raise ValueError(must("gridmask.ratio", "be in [0, 1]", ratio))
    checked_rate(probability, "gridmask.probability")
    options = {"apply_probability": probability, **options}
    return _config(field_key, (1 - ratio) ** 2, Grid(unit=unit, rotate=rotate), options)


@takes_plain
def dropblock(
    field_key: str,
    *,
    rate: Any = 0.1,
    block_size: Sizes = Block.size,
    **options: Any,
) -> DropoutOperatorConfig:
    """DropBlock: blocks around random seeds, for feature maps.

    Ghiasi et al., 2018, arXiv:1810.12890. Differs: the paper's seed probability neglects that
    blocks overlap, so that less drops than its `1 - keep_prob`; here `rate` drops. The paper
    divides by the fraction that was kept in the batch; here each record by the one that is
    expected, so that no record depends on others.

    Args:
      rate: fraction dropped in expectation; may be traced, and is raised from 0 in the paper.
      block_size: side of a block.
      **options: further options of the config; `mode=Block(block_size, per_channel=True)` draws
        blocks for every channel on its own.

    Example:
      >>> dropblock("features").rescale
      True
    """
    checked_rates(rate, "dropblock.rate")
    require_sizes("dropblock.block_size", block_size)
    return _config(field_key, rate, Block(size=block_size), {"rescale": True, **options})


@takes_plain
def mae(
    field_key: str,
    *,
    rate: Any = 0.75,
    patch_size: Sizes = Patch.size,
    **options: Any,
) -> DropoutOperatorConfig:
    """Masked autoencoders: an exact number of patches, chosen at random.

    He et al., 2021, arXiv:2111.06377. Differs: the paper's code keeps
    `int(patches * (1 - rate))` patches; here, if that is not whole, a record keeps the next lower
    or higher number, such that `rate` drops in expectation. (Its masks are 1 for removed patches.)

    Example:
      >>> mae("image").mode, mae("image").dropout_rate
      (Patch(size=16, exact=True), 0.75)
    """
    checked_rates(rate, "mae.rate")
    require_sizes("mae.patch_size", patch_size)
    return _config(field_key, rate, Patch(size=patch_size, exact=True), options)


@takes_plain
def simmim(
    field_key: str, *, rate: Any = 0.6, patch_size: Sizes = 32, **options: Any
) -> DropoutOperatorConfig:
    """SimMIM: an exact number of large patches, chosen at random.

    Xie et al., 2021, arXiv:2111.09886. Differs: the paper's code drops `ceil(patches * rate)`
    patches; here, if that is not whole, a record drops the next lower or higher number, such that
    `rate` drops in expectation. The paper puts a learned token in their place, after the embedding.

    Example:
      >>> simmim("image").mode, simmim("image").dropout_rate
      (Patch(size=32, exact=True), 0.6)
    """
    checked_rates(rate, "simmim.rate")
    require_sizes("simmim.patch_size", patch_size)
    return _config(field_key, rate, Patch(size=patch_size, exact=True), options)


@takes_plain
def beit(
    field_key: str,
    *,
    rate: Any = 0.4,
    patch_size: Sizes = Blocks.size,
    min_patches: int = 16,
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    **options: Any,
) -> DropoutOperatorConfig:
    """BEiT: patches in rectangles, about 40 percent of them.

    Bao et al., 2021, arXiv:2106.08254. iBOT (arXiv:2111.07832) and DINOv2 (arXiv:2304.07193) hide
    patches by the same rule, with `min_patches=4` and a rate from (0.1, 0.5). Differs: the paper's
    code hides at most 75 of 196 patches, and now and then fewer; here just the rate drops. What
    else differs is said at `Blocks`.

    Args:
      rate: fraction of the patches that drops, or (least, largest); may be traced.
      patch_size: side of a patch, in pixels. It must divide the image.
      min_patches: least area of a rectangle, as long as so many patches are missing.
      ratio: (lowest, highest) height / width of a rectangle, log-uniform.

    Example:
      >>> beit("image", ratio=(0.3, 3.3)).mode
      Blocks(size=16, aspect_ratio=(0.3, 3.3), min_cells=16)
    """
    checked_rates(rate, "beit.rate")
    require_sizes("beit.patch_size", patch_size)
    require_whole("beit.min_patches", min_patches, 1)
    require_aspect_ratio("beit.ratio", ratio)
    mode = Blocks(size=patch_size, aspect_ratio=ratio, min_cells=min_patches)
    return _config(field_key, rate, mode, options)


@takes_plain
def videomae(
    field_key: str,
    *,
    rate: Any = 0.9,
    patch_size: Sizes = Patch.size,
    **options: Any,
) -> DropoutOperatorConfig:
    """VideoMAE: tubes, an exact number of patches that is the same in every frame.

    Tong et al., 2022, arXiv:2203.12602. Videos are (time, height, width, channels). Differs: the
    paper's code drops `int(patches * rate)` patches of a frame; here, if that is not whole, a
    record drops the next lower or higher number, such that `rate` drops in expectation.

    Example:
      >>> videomae("video").mode
      Shared(mode=Patch(size=16, exact=True), axes=0)
    """
    checked_rates(rate, "videomae.rate")
    require_sizes("videomae.patch_size", patch_size)
    return _config(field_key, rate, Shared(Patch(size=patch_size, exact=True), axes=0), options)


@takes_plain
def drop_path(field_key: str, *, rate: Any = 0.1, **options: Any) -> DropoutOperatorConfig:
    """DropPath: whole records of a residual branch, the others divided by what is kept.

    Larsson et al., 2016, arXiv:1605.07648; as stochastic depth, Huang et al., 2016,
    arXiv:1603.09382. Differs: stochastic depth draws once for a batch (pass `share_mask=True`) and
    rescales when evaluating; here each record draws, and rescaling is done while training.

    Args:
      rate: fraction of the records that drops; may be traced, and grows with the layer in the
        paper.

    Example:
      >>> drop_path("branch").mode, drop_path("branch").rescale
      (Record(), True)
    """
    checked_rates(rate, "drop_path.rate")
    return _config(field_key, rate, Record(), {"rescale": True, **options})


@takes_plain
def spec_augment(
    field_key: str,
    *,
    spectrogram_shape: tuple[int, int],
    freq_mask_count: int = 2,
    freq_mask_max_bins: int = 27,
    time_mask_count: int = 2,
    time_mask_max_frames: int = 100,
    time_mask_max_share: float = 1.0,
    time_axis: int = 0,
    **options: Any,
) -> Chain:
    """SpecAugment: bands of frequency and of time, each of a width of its own.

    Park et al., 2019, arXiv:1904.08779, with the parameters of its "LD" policy: 27 bins (F), twice,
    and 100 frames (T), twice. Bands are of these widths on spectrograms of `spectrogram_shape`; on
    others they grow with the axis.

    Differs: time is not warped. A width is uniform on the real numbers from 0 to F and then rounded
    at random, so that widths of 0 and F come half as often as those in between. With `where_key`
    a band may lie in padding, where it drops nothing.

    Args:
      field_key: the field of the spectrogram, (time, frequency) or (time, frequency, channels).
      spectrogram_shape: its size, (frames, bins).
      freq_mask_count: how many bands of frequency, 0 to 64.
      freq_mask_max_bins: largest width of one, in bins; that of all of them if there are fewer.
      time_mask_count: how many bands of time, 0 to 64.
      time_mask_max_frames: largest width of one, in frames.
      time_mask_max_share: no band of time is wider than this part of all frames, in [0, 1].
      time_axis: which of the two axes is time; 1 for spectrograms that are (frequency, time), of
        which `spectrogram_shape` then is (bins, frames).
      **options: further options of the configs, such as `where_key` for padding or `fill="mean"`.
        With a `target_key` the first config writes it, and the others work on it.

    Returns:
      A `chain` of stochastic configs in `Band` mode, as many as bands.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range, or a band of time may take all frames.

    Example:
      >>> import jax
      >>> augment = spec_augment("audio", spectrogram_shape=(400, 80))
      >>> states = augment.init_state(jax.random.key(0))
      >>> batch, states = augment.apply_batch(states, {"audio": jax.numpy.ones((8, 400, 80))})
      >>> [config.mode for config in augment.configs[::2]]
      [Band(axis=1, count=1), Band(axis=0, count=1)]
    """
    shape: tuple[int, ...] = spectrogram_shape
    _require_shape("spec_augment.spectrogram_shape", shape, "a tuple of two sizes")
    if len(shape) != 2:
        raise ValueError(must("spec_augment.spectrogram_shape", "be (frames, bins)", shape))
    require_whole("spec_augment.freq_mask_count", freq_mask_count, 0, 65)
    require_whole("spec_augment.freq_mask_max_bins", freq_mask_max_bins, 0)
    require_whole("spec_augment.time_mask_count", time_mask_count, 0, 65)
    require_whole("spec_augment.time_mask_max_frames", time_mask_max_frames, 0)
    require_number("spec_augment.time_mask_max_share", time_mask_max_share)
    if not 0 <= time_mask_max_share <= 1:
        constraint = "be in [0, 1]"
        raise ValueError(must("spec_augment.time_mask_max_share", constraint, time_mask_max_share))
    require_whole("spec_augment.time_axis", time_axis, 0, 2)
    frames, bins = shape[time_axis], shape[1 - time_axis]
    widest = min(freq_mask_max_bins, bins) / bins
    bands = [(Band(axis=1 - time_axis), widest)] * freq_mask_count
    widest = min(min(time_mask_max_frames, frames) / frames, time_mask_max_share)
    if widest == 1 and time_mask_count:
        constraint = f"be below the {frames} frames of axis {time_axis}, or all of them may drop"
        cure = (
            f"Pass time_axis={1 - time_axis} if the other axis is time, or a time_mask_max_share."
        )
        value = time_mask_max_frames
        raise ValueError(must("spec_augment.time_mask_max_frames", constraint, value, cure))
    bands += [(Band(axis=time_axis), widest)] * time_mask_count
    configs = []
    for number, (band, widest) in enumerate(bands, 1):
        # Auxiliary fields that are to be left out are needed up to the last config.
        last = {} if number == len(bands) else {"preserve_auxiliary": True}
        configs.append(_config(field_key, (0.0, widest), band, {**options, **last}))
        # What one config wrote is what the next one works on.
        field_key = options.get("target_key") or field_key
        options = {**options, "target_key": None}
    return chain(*configs)


# Every function up to here is a preset.
PRESETS = {
    name: function
    for name, function in dict(vars()).items()
    if inspect.isfunction(function) and function.__module__ == __name__
}


@takes_plain
def rate_for_side(
    mode: Any, side: int | tuple[int, int], element_shape: tuple[int, ...]
) -> float | tuple[float, float]:
    """Returns the rate at which holes have a side in pixels, for those who think in pixels.

    At this rate all holes have just that side. It is a rate as any other: on elements of another
    size it stays, and the side adapts.

    Args:
      mode: "box", "grid" or "band", or such a mode: a `Box` with `aspect_ratio=(1, 1)`, of which
        the side is that of a square, a `Grid` of one `unit`, or a `Band`, of which it is the width.
      side: in pixels; or (least, largest), for a range of rates.
      element_shape: the element's, with its channels last: `(..., channels)`.

    Returns:
      The rate, or the range of rates, for `dropout_rate`. Within a range rates are uniform, so that
      areas are, not sides.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if the mode is another, has holes of several shapes, or none with that side.

    Example:
      >>> round(rate_for_side("box", 8, (32, 32, 3)), 4)
      0.0625
      >>> rate_for_side("band", (0, 8), (32, 32, 3))
      (0.0, 0.25)
    """
    mode = as_mode(mode, "rate_for_side.mode")
    _require_shape("rate_for_side.element_shape", element_shape, "a shape")
    sides: Any = side
    if isinstance(sides, tuple):
        if len(sides) != 2:
            raise ValueError(must("rate_for_side.side", "be a number or (least, largest)", sides))
        least, largest = (
            _rate_for_side(mode, each, element_shape, f"rate_for_side.side[{n}]")
            for n, each in enumerate(sides)
        )
        return least, largest
    return _rate_for_side(mode, sides, element_shape, "rate_for_side.side")


def _rate_for_side(mode: Any, side: int, element_shape: tuple[int, ...], name: str) -> float:
    spatial, count = spatial_shape(mode, element_shape), 1
    border: Border = "inside"
    if isinstance(mode, Grid):
        unit = mode.unit
        if isinstance(unit, tuple):
            raise ValueError(must("rate_for_side.mode", "have one unit", mode))
        require_whole(name, side, 0, unit + 1)
        return float((side / unit) ** len(spatial))
    if isinstance(mode, Box):
        if set(mode.aspect_ratio) != {1}:
            raise ValueError(must("rate_for_side.mode", "have aspect_ratio=(1, 1)", mode))
        if isinstance(mode.count, tuple):
            raise ValueError(must("rate_for_side.mode", "have one count", mode))
        count, border = mode.count, mode.border
    elif isinstance(mode, Band):
        if not -len(spatial) <= mode.axis < len(spatial):
            constraint = f"have an axis that is one of {len(spatial)}"
            raise ValueError(must("rate_for_side.mode", constraint, mode))
        spatial, count = (spatial[mode.axis],), mode.count
    else:
        cure = "The side of its holes is its size." if hasattr(mode, "size") else ""
        raise ValueError(must("rate_for_side.mode", "be a Box, a Grid or a Band", mode, cure))
    # The largest square that fits, or that an image can be covered by.
    require_whole(name, side, 0, min(largest_side(size, border) for size in spatial) + 1)
    return float(box_fractions(np.array([[side] * len(spatial)]), spatial, count, border)[0])


def _hole_sides(name: str, bounds: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sides in pixels of holes that are drawn uniformly, and how likely each is."""
    bounds = plain(bounds)
    if not isinstance(bounds, tuple) or len(bounds) != 2 or not all(map(is_number, bounds)):
        raise TypeError(must(name, "be a tuple of two numbers", bounds))
    low, high = bounds
    pixels = all(isinstance(bound, int) for bound in bounds)
    if not 0 <= low <= high or low > (size if pixels else 1) or (high > 1 and not pixels):
        constraint = f"be (low, high) in pixels, at most {size}, or in fractions, at most 1.0"
        raise ValueError(must(name, constraint, bounds))
    if pixels:
        sides = np.arange(low, min(high, size) + 1)
        return sides, np.full(len(sides), 1 / len(sides))
    # What is drawn is rounded down.
    low, high = low * size, high * size
    sides = np.arange(math.floor(low), math.floor(high) + 1)
    parts = np.minimum(sides + 1, high) - np.maximum(sides, low)
    return sides, parts / parts.sum() if high > low else np.ones(1)


def _require_shape(name: str, shape: Any, noun: str) -> None:
    require_kind(name, shape, tuple, noun)
    for position, size in enumerate(shape):
        require_whole(f"{name}[{position}]", size, 1)


def _config(field_key: str, rate: Any, mode: Any, options: dict[str, Any]) -> DropoutOperatorConfig:
    given = {"stochastic": True, "dropout_rate": rate, "mode": mode, **options}
    return DropoutOperatorConfig(field_key=field_key, **given)
