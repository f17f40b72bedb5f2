"""Calls that a strict type checker must refuse, each with the name of its error. None is run."""

import jax
import jax.numpy as jnp

import dropax
from dropax import images, presets

key = jax.random.key(0)
batch = {"image": jnp.ones((4, 8, 8, 3))}
config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)


class NoRegion:
    """Has no `sample`."""


class OtherRegion:
    """Has another `sample`."""

    def sample(self, element_shape: tuple[int, ...]) -> jax.Array:
        return jnp.ones(element_shape, bool)


def functions() -> None:
    dropax.dropout(0, batch["image"])  # error: arg-type
    dropax.dropout(key, "image")  # error: arg-type
    dropax.dropout(key, batch["image"], 0.2)  # error: call-arg
    dropax.dropout(key, batch["image"], rate="0.2")  # error: arg-type
    dropax.dropout(key, batch["image"], mode=dropax.Pixel)  # error: arg-type
    dropax.dropout(key, batch["image"], fill=b"median")  # error: arg-type
    dropax.dropout(key, batch["image"], p=0.2)  # error: call-arg
    dropax.init_state("image", key)  # error: arg-type
    dropax.apply_batch(config, key, batch)  # error: arg-type
    dropax.apply_batch(config, dropax.init_state(config, key), [1])  # error: type-var
    dropax.generate_random_params(config, key, batch["image"].shape)  # error: arg-type
    dropax.apply(config, batch["image"], {}, {})  # error: arg-type
    _ = dropax.dropout(key, batch["image"]).keep_mask  # error: attr-defined
    dropax.drop(key, batch["image"])  # error: attr-defined


def configs() -> None:
    dropax.DropoutOperatorConfig()  # error: call-arg
    dropax.DropoutOperatorConfig(field_key=None)  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", rate=0.2)  # error: call-arg
    dropax.DropoutOperatorConfig(field_key="image", mode=None)  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", mode=NoRegion())  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", mode=OtherRegion())  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", batch_strategy="loop")  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", auxiliary_fields="mask")  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", clip_range=1.0)  # error: arg-type
    config.dropout_rate = 0.3  # error: misc
    presets.cutout("image")  # error: call-arg
    presets.gridmask("image", unit="96")  # error: arg-type


def regions() -> None:
    dropax.Pixel(per_channel="yes")  # error: arg-type
    dropax.Box(border="outside")  # error: arg-type
    dropax.Grid(spacing=3)  # error: call-arg
    dropax.Pixel().sample(key, 16, 0.5)  # error: arg-type
    dropax.Block().sample(key, (16, 16, 3))  # error: call-arg


def operators() -> None:
    operator = dropax.DropoutOperator(config, rngs=dropax.Rngs(0))
    dropax.DropoutOperator(config)  # error: call-arg
    dropax.DropoutOperator(dropax.OperatorConfig(), rngs=0)  # error: arg-type
    operator.apply_batch(batch["image"])  # error: call-overload
    _ = operator.apply_batch(batch).batch_size  # error: attr-defined
    operator.apply_batch(batch, epochs=1)  # error: call-overload
    operator([batch])  # error: type-var
    operator.set_state("state")  # error: arg-type


def seeing() -> None:
    images.contact_sheet(batch["image"], columns="3")  # error: arg-type
    images.mask_overlay(batch["image"][0])  # error: call-arg
    images.mask_overlay(batch["image"][0], True, color="red")  # error: arg-type


def where_and_tokens() -> None:
    tokens = dropax.keep_tokens(jnp.ones((4, 16), bool), 9)
    dropax.DropoutOperatorConfig(field_key="image", where_key=["mask"])  # error: arg-type
    dropax.DropoutOperatorConfig(field_key="image", fill=dropax.FromField(3))  # error: arg-type
    dropax.box_mask(jnp.ones((4, 2, 4)), 8)  # error: arg-type
    dropax.length_mask(jnp.ones(4, int), 8.0)  # error: arg-type
    dropax.keep_tokens(jnp.ones((4, 16), bool), 0.25)  # error: arg-type
    dropax.scatter_tokens(jnp.ones((4, 9, 5)), tokens.kept, 0.0)  # error: arg-type
    dropax.patch_mask(jnp.ones((4, 8, 8, 1), bool), 2, -1)  # error: call-arg
