"""A Q-network with memory: updates, acting, evaluation, resume, export, and a task that asks it.

Oracles: naive loops over single sequences, steps and episodes; a task with a known answer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ShortCar
from crashes import interrupted, uninterrupted
from graph_stand_in import StandIn
from gymnasium.spaces import Box
from random_logs import random_log
from recalling import DELAY, Recall, Uneven
from test_updates import GradientDescent
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam

import lit_crl
from lit_crl import Policy
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.memory import Sequences, begins_after
from lit_crl.dqn.networks import RecurrentQNetwork
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.envs.episodes import run_episodes
from lit_crl.evaluation.protocol import greedy
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.training.batches import SequenceMinibatch
from lit_crl.training.updates import recurrent_update

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]
NETWORK = {"hidden": (12,), "memory": 6}
#: Short sequences, so that the first batch comes soon.
SHORT: dict[str, Any] = {
    "replay": {"burn_in": 2, "sequence_length": 4, "n_steps": 2, "capacity": 2_000,
               "batch_size": 8, "updates_per_batch": 2},
    "arm": "target", "gan_updates": 0,
}  # fmt: skip


def short(**changes: Any) -> dict[str, Any]:
    """Settings of a short run with memory."""
    return {**SHORT, "learner": {"network": NETWORK}, **changes}


def network(seed: int, **settings: Any) -> RecurrentQNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RecurrentQNetwork(5, Box(-9.0, 9.0, (3,)), 4, (7,), **settings)


BURN_IN, LENGTH, N = 3, 5, 2


def some_sequences(batch: int) -> Sequences:
    """Random ones: episodes end in every part of them."""
    rng = torch.Generator().manual_seed(3)
    rows = BURN_IN + LENGTH + N
    boundary = torch.rand(batch, rows, generator=rng) < 0.25
    obs = torch.randn(batch, rows, 3, generator=rng)
    steps = torch.arange(LENGTH)
    return Sequences(
        torch.rand(batch, 5, generator=rng), obs[:, :BURN_IN], obs[:, BURN_IN:],
        begins_after(boundary), torch.randint(4, (batch, LENGTH), generator=rng),
        torch.randn(batch, LENGTH, generator=rng),
        0.9 * (torch.rand(batch, LENGTH, generator=rng) > 0.2),
        steps + torch.randint(1, N + 1, (batch, LENGTH), generator=rng),
        ~boundary[:, BURN_IN : BURN_IN + LENGTH],
    )  # fmt: skip


def along(net: RecurrentQNetwork, memory: Tensor, obs: Tensor, begins: Tensor) -> tuple[Any, Any]:
    """Values of each row of a single sequence ``[T, ...]``, one row after another."""
    values = []
    for row, begin in zip(obs, begins, strict=True):
        if begin:
            memory = torch.zeros_like(memory)
        memory = net.cell(net.torso(row[None])[0], memory)
        advantage = net.advantage(memory)
        value = 0 if net.value is None else net.value(memory) - advantage.mean()
        values.append(value + advantage)
    return values, memory


@pytest.mark.parametrize(("double", "dueling"), [(True, False), (False, True)])
@pytest.mark.parametrize("clipped", [False, True])
def test_an_update_equals_a_loop_over_single_sequences(
    double: bool, dueling: bool, clipped: bool
) -> None:
    """Burn-in without a gradient, memories of either network, cuts at ends, steps that count."""
    online, target = network(1, dueling=dueling), network(2, dueling=dueling)
    seen, returns = some_sequences(9), torch.tensor([-0.5, 0.5]) if clipped else None
    assert int((~seen.counts).sum()) > 0
    losses, values, impossible = [], [], []
    for memory, burn_in, obs, begins, *steps in zip(*seen, strict=True):
        with torch.no_grad():
            _, mine = along(online, memory, burn_in, begins[:BURN_IN])
            _, theirs = along(target, memory, burn_in, begins[:BURN_IN])
            next_q, _ = along(target, theirs, obs, begins[BURN_IN:])
        q, _ = along(online, mine, obs, begins[BURN_IN:])
        for t, (action, reward, discount, after, counts) in enumerate(zip(*steps, strict=True)):
            if not counts:
                continue
            best = (q if double else next_q)[after].argmax()
            y = reward + discount * next_q[after][best]
            if returns is not None:
                impossible.append(bool(abs(y) > 0.5 + 0.05))
                y = y.clamp(-0.5, 0.5)
            losses.append(F.huber_loss(q[t][action], y))
            values.append(q[t][action].item())
    loss = torch.stack(losses).mean()
    by_hand = torch.autograd.grad(loss, list(online.parameters()))
    engine, settings = GradientDescent(rate=0.0), DqnSettings(double=double, max_grad_norm=3.0)
    batch = SequenceMinibatch(seen, returns)
    report = recurrent_update(online, target, settings, engine, batch, 0.25)
    assert report["dqn/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert report["dqn/q_mean"].item() == pytest.approx(np.mean(values), rel=1e-4)
    if clipped:
        assert report["dqn/impossible_targets"].item() == pytest.approx(np.mean(impossible))
    for found, expected in zip(engine.gradient[online], by_hand, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert engine.calls == [(online, "dqn/gradient_norm", 3.0), (target, online, 0.25)]


def test_the_stored_memory_is_the_one_at_the_time_of_acting(make_run: Make) -> None:
    """Weights that stay make it the memory of each episode's observations so far, from 0 on."""
    run = make_run(Uneven, **short(learner=STILL, env_steps=400, validate=False)).fit()
    assert remembered_rows(run) > 300


def test_episodes_that_a_resume_cuts_off_are_forgotten(make_run: Make, tmp_path: Path) -> None:
    """An environment that cannot be saved starts new episodes, whose memory is 0."""

    class Lost(Uneven):
        resumable = False

    settings = short(learner=STILL, env_steps=1_200)
    checkpoint = interrupted(lambda **given: make_run(Lost, **given), tmp_path, 25, **settings)
    run = make_run(Lost, callbacks=[RunCheckpoint(tmp_path)], **settings).fit(checkpoint)
    assert remembered_rows(run) > 1_000


#: Weights that stay as they are.
STILL = {"network": NETWORK, "dqn": {"optimizer": lambda params: SGD(params, lr=0.0)}}


def remembered_rows(run: Any) -> int:
    """How many rows of the replay have the memory of their episode's observations so far."""
    replay, net = run.data.replay, run.learner.q_network
    written, compared = int(replay.cursor.min()), 0
    for column in range(replay.num_envs):
        memory = net.no_memory(1)
        for row in range(column, written * replay.num_envs, replay.num_envs):
            if replay.boundary[row]:
                memory = net.no_memory(1)
                continue
            torch.testing.assert_close(replay.memory[row], memory[0])
            with torch.no_grad():
                _, memory = net.step(replay.obs[row][None], memory)
            compared += 1
    assert replay.memory.abs().max() > 0.01
    return compared


def remembering_much(env: Recall, **network: Any) -> lit_crl.CreativeLearner:
    """A learner whose actions depend on what it has seen before: it has large weights."""
    learner = lit_crl.CreativeLearner(network={**NETWORK, **network}).build(env)
    with torch.no_grad():
        for parameter in learner.target_network.cell.parameters():
            parameter.mul_(4)
        learner.target_network.advantage.bias.zero_()
    return learner


def test_evaluated_episodes_each_have_a_memory_of_their_own() -> None:
    """Of episodes with different lengths, against one at a time, through a policy as users do."""
    env = Uneven(32)
    learner = remembering_much(env)
    levels = env.reference_levels(32, torch.Generator().manual_seed(0))
    together = run_episodes(env, greedy(learner, env.device), seed=0, levels=levels)
    policy, alone = Policy.of(learner), Uneven(1)
    for i in range(32):
        obs, _ = alone.reset(options={"levels": levels[i : i + 1]})
        policy.reset()
        total, length, ends = 0.0, 0, False
        while not ends:
            obs, reward, terminated, truncated, _ = alone.step(policy(obs))
            total, length = total + float(reward), length + 1
            ends = bool(terminated | truncated)
        assert (float(together.returns[i]), int(together.lengths[i])) == (total, length)
    assert len(together.lengths.unique()) > 1


def solve(make_run: Make, memory: int) -> Any:
    """A short training in the task that asks for memory."""
    learner = {
        "network": {"hidden": (32,), "memory": memory},
        "dqn": {"optimizer": lambda params: Adam(params, lr=3e-3), "target_rate": 0.05},
    }
    replay = {"n_steps": 2, "capacity": 8_000, "batch_size": 128, "updates_per_batch": 4}
    if memory:
        replay |= {"burn_in": 0, "sequence_length": 6, "batch_size": 32}
    return make_run(
        Recall, learner=learner, replay=replay, arm="target", gan_updates=0, warmup=400,
        env_steps=6_000, num_envs=16, validate_every=6_000, validation_episodes=100,
        evaluation_share=1.0,
    ).fit()  # fmt: skip


def test_memory_solves_a_task_in_which_nothing_else_is_better_than_a_guess(make_run: Make) -> None:
    run = solve(make_run, memory=16)
    assert run.trainer.callback_metrics["target_return_mean"] == 1.0
    # As the best policy is measured, from its file.
    policy = Policy.of(run.learner)
    measured = run.data.test_dataloader().batch.target_alone(policy, has_gan=False)
    assert measured["target_return_mean"] == 1.0
    # By hand, with each cue.
    for cue in (-1.0, 1.0):
        obs, _ = (env := Recall(1)).reset(options={"levels": torch.tensor([[cue]])})
        policy.reset()
        rewards = []
        for _ in range(DELAY + 1):
            obs, reward, *_ = env.step(policy(obs))
            rewards.append(float(reward))
        assert rewards == [0.0] * DELAY + [1.0]


def test_without_memory_nothing_is_better_than_a_guess(make_run: Make) -> None:
    run = solve(make_run, memory=0)
    policy, total = Policy.of(run.learner), 0.0
    for cue in (-1.0, 1.0):
        obs, _ = (env := Recall(1)).reset(options={"levels": torch.tensor([[cue]])})
        for _ in range(DELAY + 1):
            obs, reward, *_ = env.step(policy(obs))
            total += float(reward)
    assert total == 0.0, "it answers both cues alike"


def test_a_resumed_run_equals_the_uninterrupted_one(
    make_run: Make, difference: Difference, tmp_path: Path
) -> None:
    settings = short(env_steps=1_200)
    whole, checkpoint = uninterrupted(make_run, tmp_path, 25, **settings)
    callbacks = [RunCheckpoint(checkpoint.parent)]
    resumed = make_run(ShortCar, callbacks=callbacks, **settings).fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None
    assert resumed.data.rollout.memory.abs().max() > 0


def test_mixed_precision_learns_and_keeps_memories_in_float32(make_run: Make) -> None:
    run = make_run(ShortCar, trainer={"precision": "bf16-mixed"}, **short(env_steps=400)).fit()
    before = run.learner.blueprint.q_network().state_dict()
    assert run.learner.updates > 0 and run.data.replay.memory.dtype == torch.float32
    assert any(not torch.equal(before[k], v) for k, v in run.learner.q_network.state_dict().items())


def test_on_a_gpu_a_run_with_memory_is_no_graphs(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs = StandIn()
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: graphs)
    run = make_run(ShortCar, **short(env_steps=400, validate=False)).fit()
    assert run.learner.updates > 0 and not graphs.recorded
    assert "one operation at a time: minibatches of sequences" in capsys.readouterr().out


def test_a_network_without_memory_is_the_one_it_was() -> None:
    """The setting adds nothing to a replay, a rollout or a checkpoint's networks."""
    learner = lit_crl.CreativeLearner(network={"hidden": (12,)}).build(Recall(1))
    assert not any("cell" in name for name in learner.state_dict())
    assert learner.memory_size == learner.q_network.memory_size == 0


def policy_and_episodes() -> tuple[Policy, Tensor]:
    """A policy, and the observations of three episodes, ``[T, 3, 2]``."""
    learner = remembering_much(Recall(1), dueling=True)
    return Policy.of(learner), torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))


def test_a_policy_remembers_until_it_is_reset() -> None:
    policy, episodes = policy_and_episodes()
    expected = []
    for column in range(3):
        memory = torch.zeros(1, 6)
        for t in range(6):
            if t == 4 and column == 1:
                memory = torch.zeros(1, 6)
            values, memory = policy.remembering_values(episodes[t, column : column + 1], memory)
            expected.append(values[0])
    expected_values = torch.stack(expected).view(3, 6, 2).transpose(0, 1)
    begins = torch.tensor([False, True, False])
    for _ in range(2):
        policy.reset()
        found = []
        for t in range(6):
            if t == 4:
                policy.reset(begins)
            found.append(policy.action_values(episodes[t]))
        torch.testing.assert_close(torch.stack(found), expected_values)
    # As Stable-Baselines3 does it: the state goes through the caller's hands.
    state: Any = None
    for t in range(6):
        start = begins.numpy() if t == 4 else np.full(3, t == 0)
        actions, state = policy.predict(episodes[t].numpy(), state=state, episode_start=start)
        assert actions.tolist() == expected_values[t].argmax(1).tolist()
    assert isinstance(state, np.ndarray) and state.shape == (3, 6)
    with pytest.raises(ConfigError, match="2 observations, but 3 episodes are remembered"):
        policy(episodes[0, :2])
    with pytest.raises(ConfigError, match=r"give \[3\]"):
        policy.reset([True])
    policy.reset()
    assert policy(episodes[0, 0]).shape == ()


def test_a_saved_policy_remembers_alike(tmp_path: Path) -> None:
    policy, episodes = policy_and_episodes()
    policy.save(tmp_path / "policy.ckpt")
    loaded = lit_crl.load(tmp_path / "policy.ckpt")
    for obs in episodes:
        assert torch.equal(policy.action_values(obs), loaded.action_values(obs))


def exported(policy: Policy, folder: Path, ending: str) -> Callable[..., Any]:
    """Takes observations and memory; gives actions, values and the next memory."""
    path = folder / f"policy.{ending}"
    if ending == "pt2":
        policy.export(path)
        module = torch.export.load(path).module()
        return lambda obs, memory: [x.numpy() for x in module(obs, torch.from_numpy(memory))]
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy.export(path)
    session = runtime.InferenceSession(path)
    names = ["action", "action_value", "next_memory"]
    return lambda obs, memory: session.run(names, {"obs": obs.numpy(), "memory": memory})


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_an_exported_policy_carries_its_memory(tmp_path: Path, ending: str) -> None:
    policy, episodes = policy_and_episodes()
    call = exported(policy, tmp_path, ending)
    for n in (3, 1):
        memory = np.zeros((n, 6), np.float32)
        policy.reset()
        for obs in episodes[:, :n]:
            actions, values, memory = call(obs, memory)
            expected = policy.action_values(obs)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(actions, expected.argmax(1))


def test_values_of_single_observations_are_refused() -> None:
    learner = lit_crl.CreativeLearner(network=NETWORK).build(Recall(1))
    with pytest.raises(ConfigError, match=r"model\.network\.memory is 6.*remembering_values"):
        learner.action_values(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"atoms": 51}, r"model\.network\.atoms is 51.*model\.network\.memory 8"),
        ({"noise": 0.5}, r"model\.network\.noise is 0\.5.*model\.network\.memory 8"),
        ({"planning_steps": 5}, r"planning_steps is 5.*no memory"),
        ({"memory": -1}, r"model\.network\.memory is -1"),
    ],
)
def test_networks_that_have_no_memory_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkSettings(**{"memory": 8, **settings})


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ({"world": {"loss": "gan"}}, r"model\.world\.loss is 'gan'.*model\.network\.memory 6"),
        ({"compile": True}, r"model\.compile is on.*model\.network\.memory 6"),
    ],
)
def test_learners_that_have_no_memory_are_refused(learner: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        lit_crl.CreativeLearner(network=NETWORK, **learner)


@pytest.mark.parametrize(
    ("replay", "others", "words"),
    [
        ({"priority_exponent": 0.5}, {}, r"data\.replay\.priority_exponent is 0\.5.*set it to 0"),
        ({"hindsight": 0.5}, {}, r"data\.replay\.hindsight is 0\.5.*set it to 0"),
        ({}, {"arm": "plr"}, r"data\.curriculum\.arm 'plr'.*use target"),
        ({}, {"arm": "sfl"}, r"data\.curriculum\.arm 'sfl'.*use target"),
        ({"burn_in": 300}, {}, r"data\.replay\.capacity is 2000.*give at least 2448"),
        ({"burn_in": 50}, {}, r"data\.collect\.warmup is 200.*give at least 416"),
    ],
)
def test_what_does_not_go_with_memory_is_refused(
    make_run: Make, replay: dict[str, Any], others: dict[str, Any], words: str
) -> None:
    settings = short(replay={**SHORT["replay"], **replay}, **others)
    with pytest.raises(ConfigError, match=words):
        make_run(ShortCar, steps_per_batch=4, **settings).fit()


@pytest.mark.parametrize("name", ["burn_in", "sequence_length"])
def test_settings_of_sequences_are_refused_where_there_are_none(make_run: Make, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.replay\.{name} is 7.*model\.network\.memory 0"):
        make_run(ShortCar, replay={name: 7}, arm="target").fit()


def test_a_log_is_refused(make_run: Make, tmp_path: Path) -> None:
    log = random_log(tmp_path / "log.npz", "CartPole-v1")
    data = {"env": "CartPole-v1", "transitions": str(log), "arm": "target"}
    with pytest.raises(ConfigError, match=r"data\.transitions is a log.*model\.network\.memory"):
        make_run(learner={"network": NETWORK}, **data).fit()


def test_a_sequence_of_one_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.replay\.sequence_length is 1"):
        lit_crl.ReplaySettings(sequence_length=1)
