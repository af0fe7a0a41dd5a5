"""Wrappers from a list, and the wrappers that are refused."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.wrappers import ClipReward, NormalizeObservation, NormalizeReward, TimeLimit
from lives import ThreeLives

from lit_crl.core.checks import ConfigError
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.gym.guard import layers

STACK = "gymnasium.wrappers.FrameStackObservation"


class EpisodicLifeEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """As Stable-Baselines3 calls its own."""


def test_wrappers_are_put_around_each_other_in_order() -> None:
    doubled = lambda env: gymnasium.wrappers.TransformReward(env, lambda r: 2 * r)  # noqa: E731
    env = GymnasiumEnv(
        2,
        id="CartPole-v1",
        wrappers=[{"class_path": STACK, "init_args": {"stack_size": 3}}, doubled],
        max_episode_steps=7,
    )
    kinds = [type(layer).__name__ for layer in layers(env.envs.envs[1])]
    assert kinds[:3] == ["TimeLimit", "TransformReward", "FrameStackObservation"]
    assert "TimeLimit" not in kinds[3:]  # the given limit takes the place of the id's own
    assert env.single_observation_space.shape == (3, 4) and env.max_episode_steps == 7


def test_a_time_limit_counts_the_steps_of_the_outermost_wrapper() -> None:
    skip = {"class_path": "gymnasium.wrappers.MaxAndSkipObservation", "init_args": {"skip": 4}}
    above = GymnasiumEnv(1, id="CartPole-v1", wrappers=[skip], max_episode_steps=10)
    below = GymnasiumEnv(1, id="CartPole-v1", wrappers=[skip])
    assert (above.max_episode_steps, below.max_episode_steps) == (10, 125)
    assert above.game.frames_per_step == below.game.frames_per_step == 4
    assert "4 frames a step, 2 actions, at most 125 steps" in below.game_in_words


@pytest.mark.parametrize(
    ("wrap", "sentence"),
    [
        (
            partial(ClipReward, min_reward=-1, max_reward=1),
            "clips the rewards that evaluation reports, too: .*set clip_rewards to 1.0",
        ),
        (NormalizeReward, "changes the rewards that evaluation reports.*clip_rewards"),
        (NormalizeObservation, "evaluation would see other observations: leave it out"),
        (EpisodicLifeEnv, "ends episodes at lost lives in evaluation.*terminal_on_life_loss"),
    ],
)
def test_wrappers_that_would_spoil_the_score_are_refused(wrap: Any, sentence: str) -> None:
    def inside() -> gymnasium.Env[Any, Any]:
        return TimeLimit(wrap(gymnasium.make("CartPole-v1")), 9)

    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, id="CartPole-v1", wrappers=[wrap])
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, make=inside)


class NoWrapper:
    def __init__(self, env: Any) -> None: ...


@pytest.mark.parametrize(
    ("wrapper", "sentence"),
    [
        ({"class_path": "no_such.Wrapper"}, r"wrappers\[0\].class_path is 'no_such.Wrapper', which "
         "cannot be imported.*give module.Class"),
        ({"class_path": "gymnasium.wrappers.NoSuch"}, "'gymnasium.wrappers.NoSuch', which cannot"),
        ({"class_path": "Wrapper"}, "'Wrapper', which cannot be imported"),
        ({"class_path": "numpy.pi"}, "'numpy.pi', which is 3.14.*no class"),
        ({"init_args": {}}, r"wrappers\[0\] is a dict: give class_path"),
        ("gymnasium.wrappers.ClipReward", r"wrappers\[0\] is the string .*: give class_path"),
        ({"class_path": STACK, "stack_size": 4}, "has the key 'stack_size', but .*init_args"),
        ({"class_path": STACK, "init_args": {"size": 4}},
         "FrameStackObservation, cannot be put around 'CartPole-v1' with the arguments "
         r"{'size': 4}: it raised TypeError.*'size'"),
        (NoWrapper, r"NoWrapper, gave a NoWrapper, but must give a gymnasium.Env"),
    ],
)  # fmt: skip
def test_mistakes_in_the_list_get_a_sentence(wrapper: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, id="CartPole-v1", wrappers=[wrapper])


def test_a_text_is_answered_with_the_wrapper_to_add() -> None:
    class Told(ThreeLives):
        observation_space: Any = gymnasium.spaces.Dict(
            image=Box(0, 255, (8, 9), np.uint8), text=gymnasium.spaces.Text(5)
        )

    sentence = r"'text' is a Text.*add \{class_path: gymnasium.wrappers.FilterObservation\} to wrap"
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, make=Told)


def test_whole_numbers_beyond_their_bounds_are_named() -> None:
    class Bright(ThreeLives):
        observation_space: Any = Box(0, 1, (8, 9), np.uint8)

        def picture(self) -> Any:
            return np.full((8, 9), 3, np.uint8)

    with pytest.raises(ConfigError, match=r"values from 3 to 3, but its .* bounds 0 and 1"):
        GymnasiumEnv(1, make=Bright)


def test_stacks_and_skips_keep_their_layout() -> None:
    env = GymnasiumEnv(
        1,
        make=ThreeLives,
        wrappers=[
            {"class_path": STACK, "init_args": {"stack_size": 2}},
            lambda env: TimeLimit(env, 9),
        ],
    )
    assert env.image_layout == "HW" and env.single_observation_space.shape == (2, 8, 9)
