"""Atari games against the emulator itself, and one vectorization against the other."""

import threading
from typing import Any

import gymnasium
import pytest
import torch
from extras import STACK, Player, atari, made, preprocessing, same

from lit_crl.core.checks import ConfigError
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.gym import atari_states
from lit_crl.envs.gym.vector_entry import within

pytest.importorskip("ale_py", reason="its extra is atari")

#: Every setting of the vector environment of the emulator.
VECTOR = {
    "frameskip": 4, "repeat_action_probability": 0.0, "full_action_space": False,
    "max_num_frames_per_episode": 108_000, "img_height": 84, "img_width": 84, "grayscale": True,
    "stack_num": 4, "maxpool": True, "noop_max": 0, "episodic_life": False,
    "life_loss_info": False, "reward_clipping": False, "use_fire_reset": False,
}  # fmt: skip


CART = {"sutton_barto_reward": False, "max_episode_steps": 500}


def vector(num_envs: int, kwargs: dict[str, Any] = VECTOR, **changes: Any) -> GymnasiumEnv:
    settings = {"image_layout": "HW", "vectorization": "vector_entry_point", **changes}
    return GymnasiumEnv(num_envs, id="ale_py:ALE/Breakout-v5", env_kwargs=kwargs, **settings)


def emulators(env: GymnasiumEnv) -> list[Any]:
    return [copy.unwrapped.ale for copy in env.envs.envs]


def test_lost_lives_reset_nothing_and_every_step_takes_four_frames() -> None:
    env = made(1, atari(terminal_on_life_loss=True, sticky=False))
    (ale,) = emulators(env)
    env.reset(seed=0)
    frames, ends, steps = ale.getEpisodeFrameNumber(), 0, 0
    for step in range(3_000):
        # FIRE now and then, and never move: each ball is lost.
        _, _, terminated, _, info = env.step(torch.tensor([int(step % 20 == 0)]))
        ends += int(info["replay_terminated"])
        steps += 1
        if terminated:
            break
        frames += 4
        assert ale.getEpisodeFrameNumber() == frames  # a reset would begin anew
    assert terminated and ends == 5 and steps > 100
    env.reset(options={"reset_mask": torch.tensor([True])})
    assert ale.lives() == 5


ONE, SKIPS = {"frameskip": 1}, {"noop_max": 0}


@pytest.mark.parametrize(
    ("id", "kwargs", "wrappers", "words"),
    [
        ("ALE/Pong-v5", {}, [], "4 frames a step, sticky actions 0.25, 6 actions (the minimal set)"
         ", no no-ops at a reset"),
        ("ALE/Pong-v5", {"full_action_space": True}, [], "18 actions (the full set)"),
        ("ALE/Breakout-v5", ONE, [preprocessing()], "4 frames a step, sticky actions 0.25, 4 "
         "actions (the minimal set), 1 to 30 no-ops at a reset"),
        ("ALE/Breakout-v5", {}, [], "rewards not clipped, a lost life ends nothing"),
        ("PongNoFrameskip-v4", {}, [], "no sticky actions, 6 actions"),
        ("PongNoFrameskip-v4", {}, [preprocessing(**SKIPS)], "4 frames a step, no sticky actions"),
        ("Pong-v4", {}, [], "a random number of frames a step, no sticky actions"),
        ("Pong-v0", {}, [], "a random number of frames a step, sticky actions 0.25"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_what_an_id_sets_is_said(
    id: str, kwargs: dict[str, Any], wrappers: list[Any], words: str
) -> None:
    settings = {"id": f"ale_py:{id}", "env_kwargs": kwargs, "wrappers": wrappers}
    env = GymnasiumEnv(1, **settings, image_layout=None if wrappers else "HWC")
    assert words in env.game_in_words
    (ale,) = emulators(env)
    env.reset(seed=0)
    before, steps = ale.getFrameNumber(), 12
    for _ in range(steps):
        env.step(torch.zeros(1, dtype=torch.long))
    frames = ale.getFrameNumber() - before
    if env.game.frames_per_step is None:
        assert 2 * steps <= frames <= 4 * steps
    else:
        assert frames == env.game.frames(steps)
    limit = env.max_episode_steps
    assert limit is not None and limit * (env.game.frames_per_step or 2) == 108_000


def test_frames_are_not_skipped_twice_and_games_not_restarted_at_lost_lives() -> None:
    with pytest.raises(ConfigError, match=r"skipped twice: set env_kwargs.frameskip to 1"):
        made(1, {"id": "ale_py:ALE/Pong-v5", "wrappers": [preprocessing()]})
    settings = atari() | {"wrappers": [preprocessing(terminal_on_life_loss=True)]}
    sentence = "AtariPreprocessing with terminal_on_life_loss, which starts a new game at each"
    with pytest.raises(ConfigError, match=sentence):
        made(1, settings)


# States


def test_restored_games_go_on_as_before() -> None:
    env = made(1, atari("Breakout"), max_episode_steps=150)
    assert env.resumable
    env.reset(seed=1)
    player = Player(env)
    states = []
    for _ in range(4):
        player.play(29)
        states.append((env.state_dict(), player.rng.get_state(), player.done))
        states[-1] += (player.play(25),)
    for state, rng, done, expected in states * 2:
        env.load_state_dict(state)
        player.rng.set_state(rng)
        player.done = done
        assert same(player.play(25), expected)
        assert env.envs.envs[0]._elapsed_steps <= 150  # type: ignore[attr-defined]


def test_another_emulator_goes_on_from_a_file(tmp_path: Any) -> None:
    env, other = (made(2, atari("Pong")) for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=2)
    player = Player(env)
    player.play(30)
    torch.save(env.state_dict(), tmp_path / "env.pt")
    rng, done = player.rng.get_state(), player.done
    expected = player.play(60)
    other.load_state_dict(torch.load(tmp_path / "env.pt", weights_only=True))
    again = Player(other)
    again.rng.set_state(rng)
    again.done = done
    assert same(again.play(60), expected)


def test_games_that_are_not_restored_faithfully_are_refused() -> None:
    assert atari_states.why_not_restored("breakout", 0, 0) is None
    why = str(atari_states.why_not_restored("tetris", 0, 0))
    assert "tetris went on differently after" in why and "of 3,000 restored states" in why
    env = made(1, atari("Tetris"))
    assert not env.resumable and "tetris" in str(env.why_not_resumable)
    assert "is no game" in str(atari_states.why_not_restored("no_such", 0, 0))


def test_sticky_actions_of_the_emulator_are_not_restored() -> None:
    settings = atari(sticky=False)
    settings["env_kwargs"] |= {"repeat_action_probability": 0.25}
    why = str(made(1, settings).why_not_resumable)
    assert "does not save which action sticks" in why and "StickyAction first in wrappers" in why


# The emulator's own vector environment


def test_the_vector_environment_plays_the_same_games() -> None:
    wrappers = [preprocessing(noop_max=0), STACK]
    single = made(2, atari() | {"wrappers": wrappers}, terminal_on_life_loss=True)
    batch = vector(2, terminal_on_life_loss=True)
    assert batch.game.frames_per_step == 4 and batch.max_episode_steps == 27_000
    assert torch.equal(single.reset(seed=5)[0], batch.reset(seed=5)[0])
    assert same(Player(single).play(400), Player(batch).play(400))


def test_the_vector_environment_resets_alone_what_it_is_asked_to() -> None:
    env = vector(4)
    first, _ = env.reset(seed=0)
    for _ in range(9):
        now = env.step(torch.tensor([1, 2, 3, 1]))[0]
    mask = torch.tensor([False, True, False, False])
    after, _ = env.reset(options={"reset_mask": mask})
    assert torch.equal(after[~mask], now[~mask]) and torch.equal(after[1], first[1])
    # The first picture of a game stands for those before it, as in Gymnasium's wrapper.
    assert all(torch.equal(after[1, 0], after[1, k]) for k in range(4))
    assert not env.resumable and "no way to save" in str(env.why_not_resumable)
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "changes", "sentence"),
    [
        ({}, {}, r"choose by itself what is played \(.*reward_clipping: True, use_fire_reset: True"
         r"\): give each of these in env_kwargs"),
        (VECTOR | {"reward_clipping": True}, {}, "reward_clipping is True.*clip_rewards"),
        (VECTOR | {"episodic_life": True}, {}, "episodic_life is True.*terminal_on_life_loss"),
        (VECTOR, {"wrappers": [STACK]}, "wrappers is given, which go around single environments"),
        (VECTOR, {"max_episode_steps": 9}, "max_episode_steps is given"),
        (VECTOR | {"img_height": "tall"}, {}, "cannot be made: TypeError"),
        (VECTOR, {"image_layout": None}, "nothing says how the axes .* lie"),
    ],
)  # fmt: skip
def test_what_a_vector_environment_cannot_do_is_refused(
    kwargs: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        vector(2, kwargs, **changes)


def test_vector_environments_that_reset_by_themselves_are_refused() -> None:
    settings = {"vectorization": "vector_entry_point", "env_kwargs": CART}
    with pytest.raises(ConfigError, match=r"resets copies by itself .*use vectorization sync or"):
        GymnasiumEnv(2, id="CartPole-v1", **settings)
    with pytest.raises(ConfigError, match="'FrozenLake-v1' has none: use sync or async"):
        GymnasiumEnv(2, id="FrozenLake-v1", vectorization="vector_entry_point")
    with pytest.raises(ConfigError, match="make is given, which makes single environments"):
        GymnasiumEnv(2, make=gymnasium.Env, vectorization="vector_entry_point")


def test_a_reset_that_hangs_becomes_an_error() -> None:
    release = threading.Event()
    with pytest.raises(
        ConfigError, match=r"within 0.1 seconds: update its package .*ale-py to 0.12"
    ):
        within(0.1, lambda: release.wait() and None, "Pong")
    release.set()
    with pytest.raises(ZeroDivisionError):
        within(9, lambda: 1 // 0 and None, "Pong")
