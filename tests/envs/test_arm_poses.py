"""The arm against a loop over its links, and its symmetry against mirrored episodes."""

import math

import pytest
import torch
from torch import Tensor

from lit_crl.envs import ArmPoses
from lit_crl.envs.arm_poses import LIMITS, LINKS, RADIUS, TURN, farthest, places


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walked(angles: list[float]) -> list[float]:
    """Where the links end, one step after the other."""
    x = y = heading = 0.0
    found = []
    for angle, length in zip(angles, LINKS, strict=True):
        heading += angle
        x, y = x + length * math.sin(heading), y + length * math.cos(heading)
        found += [x, y]
    return found


def test_places_are_those_of_a_walk_along_the_links() -> None:
    angles = 4 * torch.rand(50, 3, generator=rng()) - 2
    expected = torch.tensor([walked(row) for row in angles.tolist()])
    torch.testing.assert_close(places(angles, torch.tensor(LINKS)), expected)
    goal = expected.flip(0)
    for here, there, found in zip(expected, goal, farthest(expected, goal), strict=True):
        pairs = zip(here.view(3, 2), there.view(3, 2), strict=True)
        assert float(found) == pytest.approx(max(math.dist(a, b) for a, b in pairs), abs=1e-6)


def test_an_episode_is_that_of_a_loop() -> None:
    env, generator = ArmPoses(20), rng(1)
    obs, _ = env.reset(options={"levels": env.target_levels(20, generator)})
    angles = [[0.0] * 3 for _ in range(20)]
    for _ in range(30):
        actions = torch.randint(6, (20,), generator=generator)
        obs, reward, terminated, _, info = env.step(actions)
        for i, action in enumerate(actions.tolist()):
            joint, back = divmod(action, 2)
            turned = angles[i][joint] + (-TURN if back else TURN)
            angles[i][joint] = min(max(turned, -LIMITS[joint]), LIMITS[joint])
            here, goal = torch.tensor(walked(angles[i])), env.levels[i]
            torch.testing.assert_close(obs[i], torch.cat([here, goal]), atol=1e-5, rtol=0)
            there = max(
                math.dist(a, b) for a, b in zip(here.view(3, 2), goal.view(3, 2), strict=True)
            )
            if abs(there - RADIUS) > 1e-5:
                assert (
                    bool(terminated[i])
                    == bool(reward[i])
                    == bool(info["success"][i])
                    == (there <= RADIUS)
                )


def turns_to(angles: Tensor) -> list[int]:
    """Actions that bring every joint as near to its angle as turns of equal size can."""
    actions: list[int] = []
    for joint, angle in enumerate(angles.tolist()):
        count = round(angle / TURN)
        actions += [2 * joint + (count < 0)] * abs(count)
    return actions


def test_every_target_pose_can_be_taken_in_time() -> None:
    env = ArmPoses(1)
    unit = 2 * torch.rand(200, 3, generator=rng(2)) - 1
    for angles in unit * env.limits:
        env.reset(options={"levels": places(angles, env.links)[None]})
        actions = turns_to(angles)
        assert len(actions) < env.max_episode_steps
        reached = [bool(env.step(torch.tensor([action]))[2]) for action in actions]
        assert any(reached) or not actions


def test_hardly_any_reference_level_is_a_pose() -> None:
    env = ArmPoses(1)
    turns = [TURN * torch.arange(-round(limit / TURN), round(limit / TURN) + 1) for limit in LIMITS]
    poses = places(torch.cartesian_prod(*turns), env.links)

    def can_be_taken(levels: Tensor) -> float:
        near = [bool((farthest(poses, level) <= RADIUS).any()) for level in levels]
        return sum(near) / len(near)

    assert can_be_taken(env.target_levels(200, rng(3))) == 1
    assert can_be_taken(env.reference_levels(1_000, rng(3))) < 0.03


def test_a_mirrored_pose_is_taken_by_mirrored_turns() -> None:
    env, mirrored = ArmPoses(30), ArmPoses(30)
    levels = env.target_levels(30, rng(4))
    same, other = env.symmetries(levels)
    assert torch.equal(same, levels)
    torch.testing.assert_close(other[:, ::2], -levels[:, ::2])
    torch.testing.assert_close(other[:, 1::2], levels[:, 1::2])
    env.reset(options={"levels": levels})
    mirrored.reset(options={"levels": other})
    generator = rng(5)
    for _ in range(40):
        actions = torch.randint(6, (30,), generator=generator)
        one, two = env.step(actions), mirrored.step(actions ^ 1)  # 2k and 2k + 1 change places
        torch.testing.assert_close(two[0], env.symmetries(one[0].view(-1, 6))[1].view(30, 12))
        assert torch.equal(one[1], two[1])


def test_a_visited_pose_is_a_level_that_can_be_taken() -> None:
    env = ArmPoses(4)
    env.reset()
    for action in (0, 2, 4, 0):
        env.step(torch.full((4,), action))
    levels = env.current_levels()
    env.reset(options={"levels": levels})
    ends = [env.step(torch.full((4,), action))[2] for action in (0, 2, 4, 0)]
    assert torch.stack(ends).any(0).all()
