"""Values in dreams that can be written down: 2.71 with an end at the third step, 10 without one.

The world is a ring of three cells, written by hand, and pays 1 for each step. The project's own
rollout and replay collect the transitions; a table is fitted to them by the project's own targets.
"""

import io

import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.dqn.equations import Transitions, td_target
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.experience.rollout import Rollout
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined

CELLS, ACTIONS, GAMMA, ENVS = 3, 2, 0.9, 4
SPACE = Box(0.0, CELLS, (1,))
#: 1 + .9 + .81, and the sum without an end.
ENDED, ENDLESS = 2.71, 10.0


class Ring:
    """Cells 0, 1, 2, and 0 again; the step out of the last one ends, if ``ends``."""

    def __init__(self, *, ends: bool, doubted: int = -1) -> None:
        self.ends, self.doubted = ends, doubted

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        cell = obs[:, 0]
        terminated = (cell == CELLS - 1) & self.ends
        disagreement = torch.where(cell == self.doubted, 9.0, 1.0)
        return Imagined((obs + 1) % CELLS, torch.ones_like(cell), terminated, disagreement)


class AtZero:
    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.zeros(n, 1)


class Anywhere:
    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randint(CELLS, (n, 1), generator=rng).float()


class Player:
    """Random actions in dreams, by the project's own rollout."""

    def __init__(
        self, world: Ring, starts: AtZero | Anywhere, horizon: int, gate: float | None = None
    ) -> None:
        env = ImaginedEnv(
            ENVS,
            world,
            starts,
            observation_space=SPACE,
            action_space=Discrete(ACTIONS),
            horizon=horizon,
        )
        if gate is not None:
            env.gate = torch.tensor(gate)
        self.replay = ReplayBuffer(4_000, ENVS, SPACE)
        self.rollout = Rollout(env, self.replay, None, gamma=GAMMA, label_epsilon=1.0, seed=0)
        self.rng = torch.Generator().manual_seed(0)

    def act(self, obs: Tensor, epsilon: Tensor) -> Tensor:
        return torch.randint(ACTIONS, (len(obs),), generator=self.rng)

    def no_levels(self, n: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("dreams take no levels")

    def play(self, steps: int) -> None:
        for _ in range(steps):
            self.rollout.step(self.act, torch.ones(ENVS), self.no_levels)


def dream(
    world: Ring, starts: AtZero | Anywhere, horizon: int, steps: int, gate: float | None = None
) -> tuple[Transitions, ReplayBuffer]:
    """What the rollout stores of dreams."""
    player = Player(world, starts, horizon, gate)
    player.play(steps)
    replay = player.replay
    return replay.gather(replay.startable.nonzero().squeeze(1)), replay


def fitted(rows: Transitions) -> Tensor:
    """Tabular fitted Q iteration, ``[cells, actions]``: each entry is the mean of its targets."""
    cell, after = rows.obs[:, 0].long(), rows.next_obs[:, 0].long()
    entry = cell * ACTIONS + rows.action
    count = torch.bincount(entry, minlength=CELLS * ACTIONS)
    assert (count > 0).all()
    q = torch.zeros(CELLS, ACTIONS)
    for _ in range(300):  # .9³⁰⁰ is nothing
        target = td_target(rows.reward, rows.discount, q[after])
        q = (torch.zeros(CELLS * ACTIONS).index_add(0, entry, target) / count).view(q.shape)
    return q


def assert_equal(q: Tensor, value: float) -> None:
    torch.testing.assert_close(q, torch.full_like(q, value), atol=1e-4, rtol=0)


def test_an_end_at_the_third_step_leaves_three_rewards():
    rows, replay = dream(Ring(ends=True), AtZero(), horizon=100, steps=60)

    assert_equal(fitted(rows)[0], ENDED)
    # 20 dreams of three rows and a final observation each: nothing follows the end.
    assert len(rows.reward) == 60 * ENVS
    assert replay.cursor.tolist() == [80] * ENVS
    assert (rows.discount == 0).sum() == 20 * ENVS
    assert rows.obs[rows.discount == 0].eq(CELLS - 1).all()


def test_a_cut_at_the_third_step_counts_what_would_follow():
    rows, replay = dream(Ring(ends=False), AtZero(), horizon=3, steps=60)

    assert_equal(fitted(rows), ENDLESS)
    assert replay.cursor.tolist() == [80] * ENVS  # dreams are as long as before
    assert (rows.discount == torch.tensor(GAMMA)).all()


def test_the_gate_cuts_and_does_not_end():
    rows, replay = dream(Ring(ends=False, doubted=1), Anywhere(), horizon=100, steps=60, gate=5.0)

    assert_equal(fitted(rows), ENDLESS)
    assert (rows.discount == torch.tensor(GAMMA)).all()
    # Every step out of the doubted cell is the last of its dream.
    assert replay.boundary.sum() == (rows.obs == 1).sum()


def test_an_end_where_the_gate_cuts_is_an_end():
    doubted = Ring(ends=True, doubted=CELLS - 1)
    rows, _ = dream(doubted, AtZero(), horizon=3, steps=60, gate=5.0)

    assert_equal(fitted(rows)[0], ENDED)


def test_a_rollout_in_dreams_that_was_saved_goes_on_bit_for_bit():
    whole, first, second = (Player(Ring(ends=True), Anywhere(), horizon=2) for _ in range(3))
    whole.play(50)
    first.play(20)
    file = io.BytesIO()
    torch.save([first.rollout.state_dict(), first.replay.state_dict(), first.rng.get_state()], file)
    file.seek(0)
    rollout, replay, rng = torch.load(file, weights_only=True)
    second.rollout.load_state_dict(rollout)
    second.replay.load_state_dict(replay)
    second.rng.set_state(rng)
    second.play(30)
    for name, expected in whole.replay.state_dict().items():
        assert torch.equal(second.replay.state_dict()[name], expected), name
