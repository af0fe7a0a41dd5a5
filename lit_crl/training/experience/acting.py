"""Who acts in the environments, and how: one operation at a time, or as one graph."""

from functools import partial

from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.envs import LevelEnv
from lit_crl.envs.batched import has_pure_step
from lit_crl.training.agent import Agent
from lit_crl.training.experience.rollout import Actor, Play


def actor(agent: Agent, explores: Tensor | None, memory: Tensor | None = None) -> Actor:
    """Acts as the agent does and, where ``explores [N]``, as its explorer.

    A ``memory [N, H]`` of the running episodes is kept up to date, in place.
    """
    if memory is not None:
        return remembering(agent, memory)
    return agent.act if explores is None else partial(agent.act, explores=explores)


def remembering(agent: Agent, memory: Tensor) -> Actor:
    """Acts with a ``memory [N, H]`` of the running episodes, which is kept up to date, in place."""

    def act(obs: Tensor, epsilon: Tensor) -> Tensor:
        action, after = agent.act_remembering(obs, memory, epsilon)
        memory.copy_(after)
        return action

    return act


def compiled_play(
    agent: Agent, env: LevelEnv, explores: Tensor | None, clock: Stopwatch
) -> Play | None:
    """Acting and stepping as one graph, if updates are compiled and the environment can.

    Args:
        agent: Acts.
        env: Is stepped.
        explores: In which environments the explorer acts, bool ``[N]``; None: in none.
        clock: Times the compiling.
    """
    if not agent.compile_updates or not has_pure_step(env):
        return None
    flat = agent.flat_networks[agent.q_network]
    from lit_crl.training.compiled.play import CompiledPlay, Explorer  # imports the compiler

    explorer = None
    if explores is not None and agent.explorer is not None:
        explorer = Explorer(agent.flat_networks[agent.explorer], explores)
    play = CompiledPlay(agent.toss, agent.acting_noise, env, flat, explorer, clock)
    return lambda act, obs, epsilon: play(obs, epsilon)
