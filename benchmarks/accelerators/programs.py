"""The programs that are compiled or timed: each mode of dropax, and what one writes in plain JAX.

All are steps `(first, images, ...) -> (images, ...)`; `first` is a key, or the state of dropax.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import dropax
from benchmarks.accelerators import model
from benchmarks.cases import MODES, RATE, Shape, make_step
from benchmarks.timing import FLOORS

IMAGES, FEATURES = (256, 224, 224, 3), (256, 14, 14, 1024)
DTYPES = ("float32", "bfloat16", "uint8")
_PER_CHANNEL = ("pixel", "channel", "channel, exact")  # an auxiliary field needs channels too
_QUICK = ("pixel", "whole pixel", "patch, exact", "`bernoulli`, a key for each record")


class Program(NamedTuple):
    """A row of a table.

    Attributes:
      name: of the row.
      step: a function.
      make: makes its arguments.
      facts: returns what is known without compiling.
      quick: whether it is part of a quick run.
    """

    name: str
    step: Callable[..., Any]
    make: Callable[[], tuple[Any, ...]]
    facts: Callable[[], dict[str, Any]] = dict
    quick: bool = False


class Table(NamedTuple):
    """Programs that are compared.

    Attributes:
      name: of the table.
      programs: of its rows.
      unit: the program whose cycles the others' are divided by.
      in_units: how the quotient is called.
    """

    name: str
    programs: list[Program]
    unit: Program
    in_units: str = "copies"


def tables() -> Iterator[Table]:
    """Yields the tables of compiled programs."""
    for title, shape in (("images", IMAGES), ("feature maps", FEATURES)):
        for dtype in DTYPES:
            yield make_table(f"{title}, {dtype}", shape, dtype)
    for impl in ("rbg", "unsafe_rbg"):
        yield make_table(f"images, float32, {impl} keys", IMAGES, "float32", impl=impl)
    yield make_table("images, float32, gradient", IMAGES, "float32", change=_gradient)
    yield _table_of_users(IMAGES, "float32")
    yield _table_of_extents(IMAGES, "float32")
    yield _table_of_models()


def make_table(
    name: str,
    shape: Shape,
    dtype: str,
    *,
    impl: str = "threefry2x32",
    change: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda step: step,
) -> Table:
    """Makes the table of all modes, beside plain JAX.

    Args:
      name: of the table.
      shape: of the images.
      dtype: of the images.
      impl: of the key.
      change: what each step becomes.
    """
    make_key = functools.partial(jax.random.key, 0, impl=impl)

    def make(config: Any = None) -> tuple[Any, jax.Array]:
        first = make_key() if config is None else dropax.init_state(config, make_key())
        return first, jnp.ones(shape, dtype)

    steps = {step: (function, make) for step, function in plain_steps(shape, dtype).items()}
    for label, mode in modes_of(shape).items():
        config = _config(mode)
        steps[label] = (make_step(config), functools.partial(make, config))
    programs = [
        Program(step, change(function), make, quick=name == "images, float32" and step in _QUICK)
        for step, (function, make) in steps.items()
    ]
    return Table(f"{name} {shape}", programs, _copy(shape, dtype))


def modes_of(shape: Shape) -> dict[str, Any]:
    """Returns every mode, with cells that suit images or feature maps of that shape."""
    cell = 16 if shape[1] >= 64 else 2
    return MODES | {
        "channel, exact": dropax.Channel(exact=True),
        "patch": dropax.Patch(cell),
        "patch, exact": dropax.Patch(cell, exact=True),
        "blocks": dropax.Blocks(cell),
        "shared along channels": dropax.Shared("pixel", axes=-1),
    }


def plain_steps(shape: Shape, dtype: str) -> dict[str, Callable[[Any, jax.Array], Any]]:
    """Returns what one writes without dropax, by name: (key, images) -> (images,)."""
    side = modes_of(shape)["patch"].size
    cells = shape[1] // side, shape[2] // side
    count = cells[0] * cells[1]

    def keep(key: Any, images: jax.Array, mask_shape: Shape) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 1 - RATE, mask_shape), images, _zero(images))

    def exact_patches(key: Any, image: jax.Array) -> jax.Array:
        order = jnp.argsort(jnp.argsort(jax.random.uniform(key, (count,))))
        kept = (order >= round(RATE * count)).reshape(*cells, 1)
        kept = kept.repeat(side, 0).repeat(side, 1)
        return jnp.where(kept, image, _zero(image))

    def each(step: Callable[[Any, jax.Array], jax.Array]) -> Callable[[Any, jax.Array], Any]:
        def steps(key: Any, images: jax.Array) -> Any:
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(images)))
            return (jax.vmap(step)(keys, images),)

        return steps

    steps = {
        "`bernoulli`, one key": lambda key, images: (keep(key, images, images.shape),),
        "`bernoulli`, a key for each record": each(lambda key, x: keep(key, x, x.shape)),
        "the same, whole pixels": each(lambda key, x: keep(key, x, (*x.shape[:2], 1))),
        "`argsort`, exact patches": each(exact_patches),
    }
    if importlib.util.find_spec("flax") and jnp.issubdtype(dtype, jnp.floating):
        steps["`flax.linen.Dropout`"] = lambda key, images: (model.flax_dropout(key, images),)
    return steps


def _zero(images: jax.Array) -> jax.Array:
    return jnp.zeros((), images.dtype)


def _config(mode: Any, **options: Any) -> dropax.DropoutOperatorConfig:
    return dropax.DropoutOperatorConfig(
        field_key="image", stochastic=True, dropout_rate=RATE, mode=mode, **options
    )


def _copy(shape: Shape, dtype: str) -> Program:
    name = "where(x > 2, 0, x)"
    return Program(name, FLOORS[name], lambda: (jnp.ones(shape, dtype),))


def _gradient(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the gradient of the sum of squares of the images that a step returns."""

    def gradient(first: Any, images: jax.Array) -> Any:
        def loss(images: jax.Array) -> Any:
            dropped, *rest = step(first, images)
            return jnp.sum(jnp.square(dropped)), rest

        return jax.grad(loss, has_aux=True)(images)

    return gradient


def _table_of_users(shape: Shape, dtype: str) -> Table:
    """Makes the table of masks that images, a label map and the field of the mask share."""
    programs = []
    for label, mode in modes_of(shape).items():
        config = _config(mode, auxiliary_fields=["labels"], mask_key="kept")
        labels = shape if label in _PER_CHANNEL else shape[:-1]

        def make(config: Any = config, labels: Shape = labels) -> tuple[Any, Any]:
            batch = {"image": jnp.ones(shape, dtype), "labels": jnp.ones(labels, "uint8")}
            return dropax.init_state(config, jax.random.key(0)), batch

        programs.append(Program(label, functools.partial(dropax.apply_batch, config), make))
    name = f"images, {dtype}, a label map and `mask_key` {shape}"
    return Table(name, programs, _copy(shape, dtype))


def _table_of_extents(shape: Shape, dtype: str) -> Table:
    """Makes the table of padded records, and of chains, whose masks share one pass."""
    programs = []
    for label, mode in modes_of(shape).items():
        config = _config(mode, extent_key="size")

        def make(config: Any = config) -> tuple[Any, Any]:
            batch = {"image": jnp.ones(shape, dtype), "size": jnp.ones((shape[0], 2), "int32")}
            return dropax.init_state(config, jax.random.key(0)), batch

        programs.append(Program(label, functools.partial(dropax.apply_batch, config), make))
    for names in (("box", "whole pixel"), ("box", "channel", "whole pixel", "grid")):
        chain = dropax.chain(*(_config(MODES[name]) for name in names))

        def make_chain(chain: Any = chain) -> tuple[Any, Any]:
            return chain.init_state(jax.random.key(0)), {"image": jnp.ones(shape, dtype)}

        programs.append(Program(f"chain: {', '.join(names)}", chain.apply_batch, make_chain))
    return Table(
        f"images, {dtype}, `extent_key`, and chains {shape}", programs, _copy(shape, dtype)
    )


def _table_of_models() -> Table:
    """Makes the table of training steps."""
    programs = []
    for name, drop in model.DROPS.items():
        for checkpoint in (False, True):
            step = functools.partial(model.gradients, drop, checkpoint)
            suffix = ", `jax.checkpoint`" if checkpoint else ""
            facts = functools.partial(model.residuals, drop, checkpoint)
            programs.append(Program(name + suffix, step, model.make_arguments, facts))
    name = "ViT, two blocks, nine dropouts, loss and gradients, bfloat16"
    return Table(name, programs, programs[0], "steps without dropout")
