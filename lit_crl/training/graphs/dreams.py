"""Dreams by launches: one step of all of them is one graph, which is launched for each step.

A graph of the whole horizon would take as long to record as three horizons one operation at a time,
and a launch more for each step costs next to nothing. Nothing in it depends on how many dreams are
over: masks say which are. Their new starts were drawn before, all that could be needed, into the
very rows that are then overwritten with what was seen. To draw them within the graph would be a
quarter more kernels in each step, and a table of its own would take memory.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.dreams.step import ImaginedSteps, imagine_step
from lit_crl.training.graphs.capture import Capture, Rows
from lit_crl.world.imagined_env import ImaginedEnv

#: So many starts are drawn at a time: what is computed on the way takes little memory.
STARTS_AT_ONCE = 2**16
#: What dreams replace at every step, and a graph changes in place; and the gate, which it reads.
OF_DREAMS = ("obs", "elapsed", "gate")


class StartsAhead(Protocol):
    """Where dreams start, see ``lit_crl.world.starts.Starts``."""

    def ahead(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Observations ``[n, ...]`` and their sources ``[n]``."""

    def count(self, source: Tensor, started: Tensor) -> None:
        """Count the dreams that ``started [n]`` at states of a ``source [n]``."""


class GraphedDreams:
    """Plays the steps of dreams with one launch for each step of all of them."""

    def __init__(
        self,
        env: ImaginedEnv,
        starts: StartsAhead,
        gamma: float,
        rng: Generator,
        world: nn.Module,
        capture: Capture,
        clock: Stopwatch,
    ) -> None:
        """Record nothing yet.

        Args:
            env: The dreams.
            starts: Where they start.
            gamma: Discount factor of one step.
            rng: Draws random actions.
            world: What the dreams are computed with.
            capture: Records.
            clock: Times the recording.
        """
        self._env, self._starts, self._gamma, self._rng = env, starts, gamma, rng
        self._world, self._capture, self._clock = world, capture, clock
        n, device = env.num_envs, env.device
        # In places of their own: what the dreams have there now may be somebody else's, too.
        self._held: dict[str, Tensor] = {name: getattr(env, name).clone() for name in OF_DREAMS}
        self._epsilon = torch.zeros(n, device=device)
        self._over = torch.zeros(n, dtype=torch.bool, device=device)
        #: The step that comes next, ``[1]``, and at which steps which dreams began.
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._began = torch.zeros(env.max_episode_steps, n, dtype=torch.bool, device=device)
        self._graphs: dict[tuple[int, ...], Callable[[], object]] = {}

    @torch.no_grad()
    def __call__(self, policy: nn.Module, epsilon: Tensor, rows: ImaginedSteps) -> None:
        """Write as many steps of all dreams as there are ``rows``.

        Only the starts make the program wait for the GPU, once for all steps.

        Args:
            policy: Gives action values, ``[N, ...] -> [N, A]``.
            epsilon: ε of each dream, ``[N]``.
            rows: Are overwritten, ``[T, N, ...]``; always at the same place.
        """
        self._bind()
        source = self._draw_starts(rows.obs.flatten(0, 1))
        self._epsilon.copy_(epsilon)
        self._over.fill_(True)
        self._at.zero_()
        step = self._step_of(policy, rows)
        for _ in range(len(rows.reward)):
            step()
        self._starts.count(source, self._began.flatten())

    def _bind(self) -> None:
        """See that the dreams have their numbers where the graph has them; they may be new ones."""
        for name, mine in self._held.items():
            if (theirs := getattr(self._env, name)) is not mine:
                mine.copy_(theirs)
                setattr(self._env, name, mine)

    def _draw_starts(self, obs: Tensor) -> Tensor:
        """Write a start into each row ``[T · N, ...]``; gives the sources ``[T · N]``."""
        sources = []
        for part in torch.split(obs, STARTS_AT_ONCE):
            drawn, source = self._starts.ahead(len(part), self._env.rng)
            part.copy_(drawn)
            sources.append(source)
        return torch.cat(sources)

    def _step_of(self, policy: nn.Module, rows: ImaginedSteps) -> Callable[[], object]:
        # Who puts other tensors in the place of weights gets a graph that dreams with those.
        key = (rows.obs.data_ptr(), *(weight.data_ptr() for weight in self._weights(policy)))
        if key not in self._graphs:
            first = torch.zeros_like(self._at)
            held = [*self._held.values(), self._over, self._at]
            held_rows = [Rows(field, first) for field in (*rows, self._began)]
            with self._clock("compile"):
                self._graphs[key] = self._capture(
                    lambda: self._step(policy, rows),
                    [*held, *held_rows],
                    [self._rng, self._env.rng],
                    "steps of dreams",
                )
        return self._graphs[key]

    def _weights(self, policy: nn.Module) -> Iterator[Tensor]:
        for network in (policy, self._world):
            yield from network.parameters()
            yield from network.buffers()

    @torch.no_grad()
    def _step(self, policy: nn.Module, rows: ImaginedSteps) -> Tensor:
        """The next step of all dreams; where one is over, that of a new one."""
        env, over = self._env, self._over
        fresh = over.view(-1, *[1] * (env.obs.ndim - 1))
        start = rows.obs.index_select(0, self._at).squeeze(0)
        env.obs.copy_(torch.where(fresh, start, env.obs))
        env.elapsed.masked_fill_(over, 0)
        self._began.index_copy_(0, self._at, over[None])
        step, after = imagine_step(env, policy, self._epsilon, self._gamma, self._rng)
        rows.put(self._at, step)
        env.obs.copy_(after.obs)
        env.elapsed.copy_(after.elapsed)
        over.copy_(after.terminated | after.truncated)
        self._at += 1
        return over
