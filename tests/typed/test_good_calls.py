"""Typical calls, which run, and which a strict type checker takes as they stand."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import dropax
from dropax import images, presets

IMAGES = jnp.ones((4, 8, 8, 3))
CONFIG = dropax.DropoutOperatorConfig(field_key="image", dropout_rate=0.2, stochastic=True)


def test_the_one_line() -> None:
    assert_type(dropax.dropout(jax.random.key(0), IMAGES), jax.Array)

    def others(key: jax.Array) -> None:
        dropax.dropout(key, np.ones((8, 8, 3), np.uint8), rate=(0.1, 0.3), fill="mean")
        dropax.dropout(jax.random.PRNGKey(0), IMAGES, mode="channel", channel_axis=0)
        dropax.dropout(key, IMAGES, mode=dropax.Box(count=2), rate=jnp.float32(0.1), element_ndim=4)
        dropax.dropout(key, IMAGES, fill=(0, 1, 2.5), clip_range=(0.0, 1.0), rescale=True)

    jax.eval_shape(others, jax.random.key(0))  # that they run, without a program for each


def test_pure_functions() -> None:
    state = dropax.init_state(CONFIG, jax.random.key(0))
    assert_type(state, dropax.OperatorState)
    batch, state = dropax.apply_batch(CONFIG, state, {"image": IMAGES})
    assert_type(batch, dict[str, Any])
    ids = dropax.as_record_ids([1, 2, 3, 4])
    records = dropax.Batch.from_parts({"image": IMAGES}, metadata_list=["a"] * 4, record_ids=ids)
    records, state = dropax.apply_batch(CONFIG, state, records, epoch=0)
    assert_type(records, dropax.Batch)
    shapes = {"image": IMAGES.shape}
    params = dropax.generate_random_params(CONFIG, jax.random.key(0), shapes)
    assert_type(params, dict[str, jax.Array])
    first = {"keep_mask": params["keep_mask"][0]}
    data, _, _ = dropax.apply(CONFIG, {"image": IMAGES[0]}, {}, {}, first)
    assert_type(data, dict[str, Any])
    assert_type(dropax.dropped_fraction(first["keep_mask"]), jax.Array)
    assert_type(dropax.expected_dropped_fraction(CONFIG, (8, 8, 3)), jax.Array)


def test_a_step_of_the_users_own() -> None:
    @jax.jit
    def step(
        rate: jax.Array, state: dropax.OperatorState, batch: dict[str, jax.Array]
    ) -> tuple[dict[str, Any], dropax.OperatorState]:
        return dropax.apply_batch(CONFIG.replace(dropout_rate=rate), state, batch)

    step(jnp.float32(0.1), dropax.init_state(CONFIG, jax.random.key(0)), {"image": IMAGES})


def test_configs() -> None:
    assert_type(CONFIG.replace(dropout_rate=0.3), dropax.DropoutOperatorConfig)
    again = dropax.DropoutOperatorConfig.from_dict(CONFIG.to_dict())
    assert_type(again, dropax.DropoutOperatorConfig)
    dropax.DropoutOperatorConfig(
        field_key="camera.rgb",
        target_key="camera.view",
        auxiliary_fields=["labels"],
        auxiliary_fill=(255,),
        batch_strategy="scan",
        stochastic=True,
        stream_name="augment",
        mode=dropax.Pixel(per_channel=False),
        fill="noise",
        dropout_rate=(0.1, 0.2),
        apply_probability=0.5,
        mask_key="kept",
        channel_axis=None,
    )
    config = presets.cutout("image", image_shape=(32, 32), length=8, fill="mean")
    assert_type(config, dropax.DropoutOperatorConfig)
    presets.dropblock("features", rate=jnp.float32(0.1))


def test_where_and_fills_from_another_field() -> None:
    config = CONFIG.replace(
        where_key="may_drop", fill=dropax.FromField("other"), mask_key="kept", dropout_rate=1.0
    )
    protected = dropax.box_mask(np.array([[[0, 0, 2, 2.5]]] * 4), (8, 8))
    assert_type(protected, jax.Array)
    batch = {"image": IMAGES, "may_drop": ~protected, "other": jnp.zeros((4, 1, 1, 3))}
    out, _ = dropax.apply_batch(config, dropax.init_state(config, jax.random.key(0)), batch)
    assert out["image"].sum() == 4 * 2 * 3 * 3
    assert_type(dropax.length_mask(jnp.array([1, 2]), 8), jax.Array)


def test_tokens() -> None:
    params = dropax.generate_random_params(
        CONFIG.replace(mode=dropax.Patch(size=2)), jax.random.key(0), {"image": (4, 8, 8, 3)}
    )
    mask = dropax.patch_mask(params["keep_mask"], 2)
    assert_type(mask, jax.Array)
    tokens = dropax.keep_tokens(mask, 9)
    assert_type(tokens, dropax.Tokens)
    assert_type(tokens.kept, jax.Array)
    kept = dropax.gather_tokens(jnp.ones((4, 16, 5)), tokens.kept)
    assert_type(kept, jax.Array)
    assert_type(dropax.scatter_tokens(kept, tokens, 0.0), jax.Array)
    dropax.scatter_tokens(kept, tokens, jnp.zeros(5))
    dropax.patch_mask(np.ones((4, 8, 8), bool), (2, 4), channel_axis=None)


def test_modes() -> None:
    modes: list[dropax.Mode] = [
        dropax.Pixel(),
        dropax.Channel(min_kept=1),
        dropax.Block(size=(3, 5)),
        dropax.Patch(size=4),
        dropax.Box(border="clip"),
        dropax.Grid(unit=(4, 8), rotate=45.0),
        dropax.Band(axis=1),
    ]

    def sample(key: jax.Array) -> None:
        for mode in modes:
            assert_type(mode.sample(key, (16, 16, 3), 0.5), jax.Array)
        assert_type(dropax.Pixel().sample(key, (16, 16, 3), rate=0.5), jax.Array)

    jax.eval_shape(sample, jax.random.key(0))


def test_the_operator() -> None:
    operator = dropax.DropoutOperator(CONFIG, rngs=dropax.Rngs(0, augment=1), name="drop")
    assert_type(operator.apply_batch({"image": IMAGES}), dict[str, Any])
    assert_type(operator({"image": IMAGES}), dict[str, Any])
    elements = [dropax.Element({"image": IMAGES[0]})]
    records = operator.apply_batch(dropax.Batch(elements))
    assert_type(records, dropax.Batch)
    data, _, _ = operator.apply_batch({"image": IMAGES}, {}, {"source": "here"})
    assert_type(data, dict[str, Any])
    operator.apply({"image": IMAGES[0]}, {}, {})
    assert_type(operator.copy(rngs=1), dropax.DropoutOperator)
    assert_type(operator.clone(), dropax.DropoutOperator)
    assert_type(operator.get_operation_stats(), dict[str, int])
    operator.set_state(operator.get_state())


def test_an_operator_of_the_users_own() -> None:
    class Brighten(dropax.ModalityOperator):
        def generate_random_params(
            self, rng: jax.Array, data_shapes: dict[str, Any]
        ) -> dict[str, jax.Array]:
            return {"gain": jax.vmap(jax.random.uniform)(rng)}

        def apply(
            self,
            data: dict[str, Any],
            state: Any,
            metadata: Any,
            random_params: dict[str, Any] | None = None,
            stats: dict[str, Any] | None = None,
        ) -> tuple[dict[str, Any], Any, Any]:
            assert random_params is not None
            return {**data, "image": data["image"] * random_params["gain"]}, state, metadata

    brighten = Brighten(dropax.OperatorConfig(stochastic=True), rngs=dropax.Rngs(0))
    assert_type(brighten({"image": IMAGES}), dict[str, Any])


def test_seeing() -> None:
    assert_type(images.contact_sheet(IMAGES), np.ndarray)
    images.contact_sheet([*np.ones((3, 8, 8))], columns=2, background=(0, 0, 0), span=(0, 1))
    images.mask_overlay(IMAGES[0], np.ones((8, 8, 1), bool), opacity=1, color=(0, 0, 255))
    images.to_display(images.sample_picture(16))
