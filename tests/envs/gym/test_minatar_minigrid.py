"""MinAtar and MiniGrid: what is played, what networks see, and games that are restored."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from extras import STICKY, Player, made, minatar, minigrid, same

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import QNetwork
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.images import space_of
from lit_crl.world.making import world_of
from lit_crl.world.map_gan import MapGan
from lit_crl.world.settings import WorldSettings

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
GRIDS = (
    "MiniGrid-DoorKey-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-LavaGapS6-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
)
OUT_OF_DATE = "ignore:.*out of date"


@pytest.mark.parametrize(("version", "actions"), [("v0", 6), ("v1", 3)])
@pytest.mark.filterwarnings(OUT_OF_DATE)
def test_minatar_says_how_many_actions_and_whether_it_ramps(version: str, actions: int) -> None:
    env = made(1, minatar(f"Breakout-{version}"))
    words = f"{actions} actions, sticky actions 0.1, difficulty that does not ramp, MinAtar 1"
    assert env.single_action_space.n == actions and words in env.game_in_words
    assert "difficulty that ramps" in made(1, minatar("Seaquest-v1")).game_in_words
    assert "an end after 2,500 steps" in made(1, minatar("Freeway-v1")).game_in_words


@pytest.mark.parametrize(
    "settings",
    [*(minatar(f"{game}-v1") for game in GAMES), *(minigrid(id, "ImgObsWrapper") for id in GRIDS)],
    ids=[*GAMES, *GRIDS],
)
def test_restored_games_go_on_as_before(settings: dict[str, Any], tmp_path: Any) -> None:
    env, other = (made(2, settings, max_episode_steps=90) for _ in range(2))
    assert env.resumable, env.why_not_resumable
    env.reset(seed=1)
    other.reset(seed=2)
    player, states = Player(env), []
    for _ in range(4):
        player.play(23)
        torch.save(env.state_dict(), tmp_path / "env.pt")
        saved = torch.load(tmp_path / "env.pt", weights_only=True)
        states.append((saved, player.rng.get_state(), player.done, player.play(60)))
    for restored in (env, other, env):
        again = Player(restored)
        for saved, rng, done, expected in states:
            restored.load_state_dict(saved)
            again.rng.set_state(rng)
            again.done = done
            assert same(again.play(60), expected)


def test_a_picture_hides_what_a_restored_game_keeps() -> None:
    """The same picture with another timer goes on differently: a state is not its picture."""
    env = made(1, minatar("Seaquest-v1"))
    env.reset(seed=3)
    Player(env).play(30)
    game = env.envs.envs[0].unwrapped.game.env
    before, timer, saved = game.state(), game.e_spawn_timer, env.state_dict()
    game.e_spawn_timer += 1
    assert np.array_equal(game.state(), before)
    env.load_state_dict(saved)
    restored = env.envs.envs[0].unwrapped.game
    assert restored.env.e_spawn_timer == timer
    assert restored.random is restored.env.random  # one stream for sticky actions and the game


def test_no_state_is_taken_for_another_ones_objects() -> None:
    """What two places hold is one object again: the ball in the grid is the list's own."""
    env = made(1, minigrid("MiniGrid-Dynamic-Obstacles-6x6-v0", "ImgObsWrapper"))
    env.reset(seed=0)
    env.load_state_dict(env.state_dict())
    inner = env.envs.envs[0].unwrapped
    for ball in inner.obstacles:
        assert inner.grid.get(*ball.cur_pos) is ball


SEEN = {
    "MinAtar": minatar(),
    "MiniGrid, one-hot": minigrid(),
    "MiniGrid": minigrid("MiniGrid-DoorKey-6x6-v0", "ImgObsWrapper"),
    "MiniGrid, whole": minigrid("MiniGrid-DoorKey-6x6-v0", "FullyObsWrapper", "ImgObsWrapper"),
    "MiniGrid, flat": minigrid("MiniGrid-DoorKey-6x6-v0", "FlatObsWrapper"),
}


@pytest.mark.parametrize("name", SEEN)
def test_networks_see_numbers_from_the_whole_of_their_range(name: str) -> None:
    env = made(4, SEEN[name])
    env.reset(seed=0)
    seen: list[torch.Tensor] = []
    Player(env).play(200, lambda: seen.append(env.current_observations()))
    space = env.single_observation_space
    scale = QNetwork(space, 2, hidden=(8,)).torso[0]
    scaled = scale(torch.cat(seen))
    low = -1 if name.endswith("flat") else 0  # vectors are scaled to [−1, 1]
    assert scaled.min() == low and 0.7 <= scaled.max() <= 1
    assert space.contains(seen[0][0].numpy())


def test_colours_keep_their_bounds() -> None:
    env = made(1, minigrid("MiniGrid-DoorKey-6x6-v0", "RGBImgPartialObsWrapper", "ImgObsWrapper"))
    assert env.single_observation_space.high.max() == 255
    assert env.game_in_words.endswith("at most 360 steps.")


def test_missions_are_not_dropped_in_silence() -> None:
    unread = "a mission that changes and is not observed"
    fetch = "MiniGrid-Fetch-6x6-N2-v0"
    assert unread in made(1, minigrid(fetch, "ImgObsWrapper")).game_in_words
    assert unread not in made(1, minigrid(fetch, "FlatObsWrapper")).game_in_words
    assert unread not in made(1, minigrid()).game_in_words  # always the same one
    babyai = made(1, minigrid("BabyAI-GoToObj-v0", "ImgObsWrapper"))
    assert unread in babyai.game_in_words and babyai.max_episode_steps is None


def test_a_dict_is_answered_with_minigrids_own_wrappers() -> None:
    settings = {"id": "minigrid:MiniGrid-DoorKey-6x6-v0"}
    sentence = (
        r"part 'mission' is a MissionSpace.*add \{class_path: minigrid.wrappers.ImgObsWrapper\} "
        r"to wrappers \(data.env.init_args.wrappers in YAML\).*FlatObsWrapper"
    )
    with pytest.raises(ConfigError, match=sentence):
        made(1, settings)


def test_wrappers_around_a_game_are_seeded_with_it() -> None:
    sticky = {"wrappers": [STICKY]}
    one, other = (made(2, minatar() | sticky) for _ in range(2))
    assert torch.equal(one.reset(seed=4)[0], other.reset(seed=4)[0])
    assert same(Player(one).play(60), Player(other).play(60))


def test_what_cannot_be_saved_is_said() -> None:
    pytest.importorskip("Box2D", reason="its extra is box2d")
    lander = GymnasiumEnv(1, id="LunarLander-v3")
    assert lander.why_not_resumable == "LunarLander has no way to save its state"
    wrapped = made(1, minatar(), wrappers=[gymnasium.wrappers.RecordEpisodeStatistics])
    assert wrapped.why_not_resumable == (
        "nothing is known of the state of its wrapper RecordEpisodeStatistics"
    )


def test_a_world_takes_maps_of_bits_and_no_other_images() -> None:
    one_hot = ("OneHotPartialObsWrapper", "ImgObsWrapper")
    settings = WorldSettings(loss="likelihood", members=1, head_hidden=(8,))
    for game in (minatar("Breakout-v1"), minigrid(GRIDS[0], *one_hot)):
        assert isinstance(world_of(space_of(made(1, game)), 3, settings), MapGan)
    with pytest.raises(ConfigError, match="no vectors and no maps of bits"):
        world_of(space_of(made(1, minigrid(GRIDS[0], "ImgObsWrapper"))), 3, settings)
