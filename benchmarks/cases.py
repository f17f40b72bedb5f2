"""dropax on images, beside a copy and beside its peers: modes, strategies, dtypes and sizes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

import dropax
from benchmarks.peers import Peer, peer_contenders
from benchmarks.timing import (
    Contender,
    Row,
    compile_function,
    compiled_contender,
    floors,
    measure,
    random_images,
)

RATE = 0.1
MODES: dict[str, Any] = {
    "pixel": "pixel",
    "whole pixel": dropax.Pixel(per_channel=False),
    "channel": "channel",
    "block": "block",
    "patch": "patch",
    "box": "box",
    "three boxes": dropax.Box(count=3),
    "grid": "grid",
    "band": "band",
    "record": "record",
    "patch, exact": dropax.Patch(exact=True),
    "blocks": dropax.Blocks(),
    "one of box and grid": dropax.OneOf(("box", "grid")),
}
LARGE, SMALL = (32, 224, 224, 3), (256, 32, 32, 3)
DTYPES = ("float32", "bfloat16", "uint8")
APART = "drawn, then applied"

Shape = tuple[int, ...]


class Experiment(NamedTuple):
    """Contenders that are timed together.

    Attributes:
      name: by which `--only` finds it.
      run: given the peers, returns the rows.
      quick: whether it is part of a quick run.
    """

    name: str
    run: Callable[[Sequence[Peer]], list[Row]]
    quick: bool = False


def make_config(mode: str, strategy: str = "vmap") -> dropax.DropoutOperatorConfig:
    """Returns the config of a stochastic dropout of the field "image"."""
    return dropax.DropoutOperatorConfig(
        field_key="image",
        stochastic=True,
        batch_strategy=strategy,
        dropout_rate=RATE,
        mode=MODES[mode],
    )


def make_step(config: dropax.DropoutOperatorConfig) -> Callable[..., Any]:
    """Returns `apply_batch` as a step on bare images: (state, images) -> (images, state)."""

    def step(state: dropax.OperatorState, images: jax.Array) -> Any:
        batch, state = dropax.apply_batch(config, state, {"image": images})
        return batch["image"], state

    return step


def dropax_contender(mode: str, strategy: str, images: jax.Array) -> Contender:
    """Makes the contender that is jitted `apply_batch`."""
    config = make_config(mode, strategy)
    state = dropax.init_state(config, jax.random.key(0))
    case = f"{mode}, {strategy}"
    step = make_step(config)
    return compiled_contender("dropax", case, step, state, images, images=images, mode=mode)


def run_modes(shape: Shape, dtype: str, peers: Sequence[Peer]) -> list[Row]:
    """Times each mode by each strategy, and the peers."""
    images = random_images(shape, dtype)
    contenders = floors(images)
    for mode in MODES:
        contenders += [dropax_contender(mode, strategy, images) for strategy in ("vmap", "scan")]
        contenders.append(_apart_contender(mode, images))
        contenders += peer_contenders(peers, mode, RATE, images)
    rows = measure(contenders, shape, dtype)
    _compare_with_apart(rows)
    return rows


def _apart_contender(mode: str, images: jax.Array) -> Contender:
    """Makes the contender that draws the masks in one compiled function and applies in another."""
    config = make_config(mode)
    key, shapes = jax.random.key(0), {"image": images.shape}
    draw, _ = compile_function(
        lambda key: dropax.generate_random_params(config, key, shapes), key, elements=images.size
    )

    def apply_all(images: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        def one(image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
            return dropax.apply(config, {"image": image}, {}, {}, params)[0]["image"]

        return jax.vmap(one)(images, params)

    apply_params, _ = compile_function(apply_all, images, draw(key), elements=images.size)
    return Contender("dropax", f"{mode}, {APART}", lambda: apply_params(images, draw(key)))


def _compare_with_apart(rows: list[Row]) -> None:
    """Adds the ratio of `apply_batch` to drawing and applying apart."""
    times = {row["case"]: row["median_ms"] for row in rows if row["contender"] == "dropax"}
    for row in rows:
        if row["case"].endswith(", vmap"):
            row["ratio_to_apart"] = row["median_ms"] / times[f"{row['mode']}, {APART}"]


def run_sizes(shape: Shape, peers: Sequence[Peer]) -> list[Row]:
    """Times each mode on one size, without peers."""
    del peers
    images = random_images(shape, "float32")
    modes = [mode for mode in MODES if mode != "blocks"]  # its cells must divide the image
    return measure(
        [*floors(images), *(dropax_contender(mode, "vmap", images) for mode in modes)],
        shape,
        "float32",
    )


def run_chain(shape: Shape, peers: Sequence[Peer]) -> list[Row]:
    """Times two drops under one jit, and the same two under a jit each."""
    del peers
    images = random_images(shape, "float32")
    contenders = floors(images)
    for modes in (("pixel", "channel"), ("pixel", "pixel")):
        contenders += _chain_contenders(modes, images)
    rows = measure(contenders, shape, "float32")
    for apart, together in zip(rows[2::2], rows[3::2], strict=True):
        together["ratio_to_apart"] = together["median_ms"] / apart["median_ms"]
    return rows


def _chain_contenders(modes: tuple[str, str], images: jax.Array) -> list[Contender]:
    first, second = (make_step(make_config(mode)) for mode in modes)
    states = [
        dropax.init_state(make_config(mode), jax.random.key(n)) for n, mode in enumerate(modes)
    ]

    def both(states: Any, images: jax.Array) -> Any:
        images, first_state = first(states[0], images)
        images, second_state = second(states[1], images)
        return images, [first_state, second_state]

    compiled = [
        compile_function(step, state, images, elements=images.size)
        for step, state in zip((first, second), states, strict=True)
    ]
    (run_first, _), (run_second, _) = compiled
    facts = {name: sum(facts[name] for _, facts in compiled) for name in compiled[0][1]}

    def apart() -> Any:
        dropped, first_state = run_first(states[0], images)
        return run_second(states[1], dropped), first_state

    case = " then ".join(modes)
    return [
        Contender("dropax", f"{case}, a jit each", apart, facts),
        compiled_contender("dropax", f"{case}, one jit", both, states, images, images=images),
    ]


def sizes() -> Iterator[tuple[str, Shape, bool]]:
    """Yields what is scaled, the shape, and whether it is part of a quick run.

    None needs more than 2 GiB for the images, the result and the result before it.
    """
    for power in range(5, 9):
        side = round((10**power / (32 * 3)) ** 0.5)
        yield "elements", (32, side, side, 3), power == 6
    for batch in (1, 4, 16, 64, 256, 1024, 4096):
        yield "batch", (batch, 32, 32, 3), batch == 1
    for side in (8, 16, 32, 64, 128, 256, 512, 1024):
        yield "side", (8, side, side, 3), side == 256


def experiments() -> Iterator[Experiment]:
    """Yields the experiments of this file."""
    for shape in (LARGE, SMALL):
        for dtype in DTYPES:
            run = functools.partial(run_modes, shape, dtype)
            yield Experiment(f"modes/{dtype}/{shape_name(shape)}", run, quick=dtype == "float32")
    for shape in (LARGE, SMALL):
        run = functools.partial(run_chain, shape)
        yield Experiment(f"chain/{shape_name(shape)}", run, quick=shape == SMALL)
    for what, shape, quick in sizes():
        run = functools.partial(run_sizes, shape)
        yield Experiment(f"scaling/{what}/{shape_name(shape)}", run, quick)


def shape_name(shape: Sequence[int]) -> str:
    """Returns a shape as 32x224x224x3."""
    return "x".join(map(str, shape))
