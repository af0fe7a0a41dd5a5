"""Every setting of a world does something: another value changes what is learnt, or is refused."""

import dataclasses
import functools
from typing import Any

import pytest
import torch
from dreamers import DREAMS, LEVELS, WORLD, fitted
from torch import Tensor
from torch.optim import Adam

from lit_crl.core.checks import ConfigError
from lit_crl.training.settings import DreamSettings
from lit_crl.world.settings import WorldSettings

#: What all runs here have; the level GAN is there so that dreams can start at its levels.
BASE: dict[str, Any] = {"gate": 0.9, "held_back": 0.2, "level_states": 0.25}
OTHER_WORLDS: dict[str, Any] = {
    "loss": "gan",
    "lambda_gan": 0.5,
    "members": 3,
    "noise_dim": 2,
    "hidden": (9,),
    "head_hidden": (9,),
    "r1": 1.0,
    "r2": 1.0,
    "generator_optimizer": functools.partial(Adam, lr=1e-2),
    "discriminator_optimizer": functools.partial(Adam, lr=1e-2),
}
OTHER_DREAMS: dict[str, Any] = {
    "every": 100,
    "updates": 3,
    "first_updates": 4,
    "batch_size": 17,
    "rare": 0,
    "member_share": 0.5,
    "held_back": 0.4,
    "dreams": 9,
    "horizon": 4,
    "first_states": 0.75,
    "level_states": 0.75,
    "dynamics": "perfect",
    "error_bound": 1e-9,
    "gate": 0.2,
    "share": 0.4,
    "judge_share": 0.25,
    "curiosity": -0.3,
    "explorers": 0.25,
}


@functools.cache
def learnt(group: str = "", name: str = "") -> tuple[Tensor, ...]:
    """All weights and units after a tiny run in which one setting has another value."""
    world = {name: OTHER_WORLDS[name]} if group == "world" else {}
    dreams = {name: OTHER_DREAMS[name]} if group == "dreams" else {}
    learner, _ = fitted(world=world, dreams=BASE | dreams, **LEVELS | {"env_steps": 500})
    parts = (learner.q_network, learner.explorer, learner.world_gan)
    assert all(part is not None for part in parts)
    return tuple(
        w.clone() for part in parts if part is not None for w in part.state_dict().values()
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(WorldSettings)])
def test_every_setting_of_the_world_changes_what_is_learnt(name: str) -> None:
    assert OTHER_WORLDS[name] != WORLD.get(name, getattr(WorldSettings(), name))
    assert differs(learnt("world", name), learnt())


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DreamSettings)])
def test_every_setting_of_dreams_changes_what_is_learnt(name: str) -> None:
    assert OTHER_DREAMS[name] != (DREAMS | BASE).get(name, getattr(DreamSettings(), name))
    assert differs(learnt("dreams", name), learnt())


def differs(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    shapes = [[w.shape for w in weights] for weights in (one, other)]
    return shapes[0] != shapes[1] or not all(map(torch.equal, one, other))


def test_the_same_settings_learn_the_same() -> None:
    assert not differs(learnt(), learnt.__wrapped__())


@pytest.mark.parametrize(
    ("dreams", "says"),
    [
        ({"curiosity": float("nan")}, "data.world.curiosity is nan: give a finite number"),
        ({"error_bound": 0.0}, "data.world.error_bound is 0.0: give a number above 0"),
        ({"dynamics": "true"}, "data.world.dynamics is 'true': use one of learnt, perfect"),
        ({"judge_share": 1.5}, "data.world.judge_share is 1.5: give a number from 0 to 1"),
        ({"gate": 0.0}, "data.world.gate is 0.0: give a number above 0"),
    ],
)
def test_values_that_make_no_sense_are_sentences(dreams: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DreamSettings(**dreams)
