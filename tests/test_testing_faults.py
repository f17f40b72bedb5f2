"""The check of transforms catches what it should, and passes what is sound."""

import faulty
import jax
import numpy as np
import pytest

from cases import config_of, image_of, modes_by_turns
from dropax import apply, generate_random_params
from dropax.testing import PropertyError, check_transform
from dropax.testing.dropping_properties import DROPPING
from dropax.testing.properties import GENERAL
from dropax.testing.transforms import PROPERTIES

BATCH = {"image": np.asarray(image_of((3, 4, 3, 2))), "label": np.arange(3, dtype=np.int32)}
CONFIG = faulty.DropConfig(field_key="image", stochastic=True)


def check(draw, apply, config=CONFIG, **options):
    options = {"batch": BATCH, "rate_field": "rate", "max_examples": 2, **options}
    return check_transform(draw, apply, config, **options)


def test_a_sound_transform_has_every_property():
    assert check(faulty.sound_draw, faulty.sound_apply) == tuple(PROPERTIES)


@pytest.mark.parametrize("name", faulty.FAULTS)
def test_a_fault_is_caught_by_the_property_it_breaks(name):
    draw, apply, lacking = faulty.FAULTS[name]
    # Of those that any transform has, or of those that dropping ones have, it is the first to fail.
    kind = next(kind for kind in (GENERAL, DROPPING) if lacking in {each.name for each in kind})
    with pytest.raises(PropertyError) as caught:
        check(draw, apply, only=[each.name for each in kind])
    assert caught.value.property == lacking
    message = str(caught.value)
    assert message.startswith(f"{lacking} does not hold: ")
    for part in ("config: DropConfig(", "batch: {'image':", "key: jax.random.key(", "Look for: "):
        assert part in message


def test_every_property_is_broken_by_some_fault():
    broken = {lacking for _, _, lacking in faulty.FAULTS.values()}
    assert broken == set(PROPERTIES) - {"one_trace_serves_all"}


def test_a_rate_that_is_compiled_in_is_caught():
    with pytest.raises(PropertyError, match="was traced anew") as caught:
        check(
            faulty.sound_draw,
            faulty.sound_apply,
            faulty.StaticConfig(field_key="image", stochastic=True),
            only=["one_trace_serves_all"],
        )
    assert caught.value.property == "one_trace_serves_all"


def test_a_rate_that_is_read_under_jit_is_caught():
    with pytest.raises(PropertyError, match="it raised ConcretizationTypeError") as caught:
        check(faulty.sound_draw, faulty.reads_the_rate)
    assert isinstance(caught.value.__cause__, jax.errors.ConcretizationTypeError)


@modes_by_turns
def test_every_mode_has_every_property_that_makes_sense_for_it(mode):
    batch = {"image": BATCH["image"]}
    held = check_transform(
        generate_random_params, apply, config_of(mode), batch=batch, max_examples=1
    )
    missing = set(PROPERTIES) - set(held)
    alone = mode in ("pixel", "channel") or getattr(mode, "per_channel", False)
    assert missing == (set() if alone else {"channels_are_uncorrelated"})
