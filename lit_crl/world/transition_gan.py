"""The GAN of transitions: its networks, its units, and what it imagines."""

import torch
from torch import Tensor, nn

from lit_crl.core import categorical
from lit_crl.core.distributed import largest, mean_of_rows, smallest
from lit_crl.world import equations
from lit_crl.world.batch import RealSteps
from lit_crl.world.interface import Imagined
from lit_crl.world.networks import Generators, Networks, vector_networks
from lit_crl.world.rewards import reward_atoms
from lit_crl.world.settings import WorldSettings

#: How far imagined observations may go beyond the real ones, as a share of their range.
MARGIN = 0.25
#: Members are asked about so many rows at a time. What they compute on the way then stays in the
#: processor's cache, and takes little memory however many rows there are. On a GPU each part is
#: launched by itself, and only memory counts.
ROWS_AT_ONCE, ROWS_ON_GPU = 512, 16_384
#: Disagreement below this, in units of targets, is rounding.
LEAST_DISAGREEMENT = 1e-6


def floored(spread: Tensor, values: Tensor) -> Tensor:
    """A spread in float32, 0 where it is no more than the rounding of float32 ``values [n, d]``.

    The values are those of all processes.

    >>> floored(torch.tensor([0.01, 0.01]), torch.tensor([[1.0, 1e6]]))
    tensor([0.0100, 0.0000])
    """
    resolution = torch.finfo(torch.float32).eps * largest(values.abs().amax(0))
    return torch.where(spread > resolution, spread, 0.0).float()


def standard_deviation(values: Tensor, mean: Tensor) -> Tensor:
    """Of the rows ``values [n, ...]`` of all processes, whose ``mean`` is known; in float64.

    >>> standard_deviation(torch.tensor([1.0, 3.0]), torch.tensor(2.0))
    tensor(1., dtype=torch.float64)
    """
    return mean_of_rows((values - mean).square()).sqrt()


def one_or(scale: Tensor) -> Tensor:
    """The scale, and 1 where it is 0."""
    return torch.where(scale > 0, scale, 1.0)


def rescaling(old: Tensor, new: Tensor) -> Tensor:
    """Factor of numbers whose unit was ``old`` and is ``new``; 1 where there was or is no unit.

    >>> rescaling(torch.tensor([3.0, 0.0, 3.0]), torch.tensor([1.5, 7.0, 0.0]))
    tensor([2., 1., 1.])
    """
    return torch.where((old > 0) & (new > 0), old / new, 1.0)


def in_parts(rows: Tensor) -> tuple[Tensor, ...]:
    """As many of the rows ``[N, ...]`` at a time as members are asked about."""
    return torch.split(rows, ROWS_ON_GPU if rows.is_cuda else ROWS_AT_ONCE)


def of_drawn_members(
    generators: Generators, condition: Tensor, z: Tensor, rng: torch.Generator
) -> Tensor:
    """One draw ``[N, d]`` for each row, by a member that is drawn for it.

    Each member is as likely as the others. The rows are dealt out, so that no row is computed by
    members that it does not get.
    """
    rows, members = len(condition), generators.members
    dealt = -(-rows // members)
    slot = torch.randperm(members * dealt, generator=rng, device=rng.device)[:rows]
    slot = slot.to(condition.device)
    row = torch.zeros(members * dealt, dtype=torch.int64, device=condition.device)
    row[slot] = torch.arange(rows, device=condition.device)
    draws: Tensor = generators(*(x[row].view(members, dealt, -1) for x in (condition, z)))
    return draws.flatten(0, 1)[slot]


class TransitionGan(nn.Module):
    """Generators, discriminators and heads of E members; the ``World`` of an imagined environment.

    Methods take observations ``[..., d]`` and actions ``[...]`` as the environment gives them. The
    networks see a *condition* (scaled observation and one-hot action) and a *target*: the change
    of the observation in units of its root mean square or, for bits, the next bits. The world of
    maps of bits is in ``map_gan.py``.

    Attributes:
        generators: Make targets.
        discriminators: Judge targets; None where the loss is a likelihood.
        heads: Tell reward and end from condition and target.
        mean_disagreement: Unit of disagreement; infinite until ``fit_disagreement``, because an
            untrained world knows no novelty.
    """

    generators: Generators
    discriminators: nn.Module | None
    obs_mean: Tensor
    obs_std: Tensor
    delta_scale: Tensor
    obs_low: Tensor
    obs_high: Tensor
    reward_scale: Tensor
    reward_low: Tensor
    reward_high: Tensor
    atoms: Tensor
    end_shift: Tensor
    mean_disagreement: Tensor

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        settings: WorldSettings,
        binary: bool = False,
        networks: Networks | None = None,
    ) -> None:
        """Make the networks that fit the observations.

        Args:
            obs_dim: Length d of an observation.
            num_actions: How many actions there are.
            settings: Loss, number of members, and sizes.
            binary: Whether observations are bits, 0 or 1.
            networks: Networks of another kind; None: fully connected ones.
        """
        super().__init__()
        self.num_actions, self.binary = num_actions, binary
        if networks is None:
            networks = vector_networks(obs_dim, num_actions, settings, binary)
        self.generators, self.discriminators, self.heads = networks
        members, atoms = settings.members, reward_atoms()
        zeros, ones = torch.zeros(obs_dim), torch.ones(obs_dim)
        everywhere = torch.full((obs_dim,), torch.inf)
        for name, start in {
            "obs_mean": zeros,
            "obs_std": ones,
            "delta_scale": zeros,
            "obs_low": -everywhere,
            "obs_high": everywhere,
            "atoms": atoms,
            "reward_scale": torch.tensor(1.0),
            "reward_low": torch.tensor(-torch.inf),
            "reward_high": torch.tensor(torch.inf),
            "end_shift": torch.zeros(members),
            "mean_disagreement": torch.tensor(torch.inf),
        }.items():
            self.register_buffer(name, start.clone())

    @torch.no_grad()
    def fit_normaliser(self, obs: Tensor, reward: Tensor, next_obs: Tensor) -> None:
        """Take units and bounds from real transitions ``[n, ...]``; never give it imagined ones.

        With several processes, each gives its own: units and bounds are those of all of them.
        Statistics are computed in float64. A dimension that never changes has scale 1 as an input,
        and imagined steps leave it exactly as it is. Units stay as they are until the next call.
        Then the last layers of the generators are rescaled, so that what they give in the
        environment's units does not jump. Inputs have new units at once: a world that kept
        those of its first few steps would see all later ones far outside them.
        """
        self._fit_observations(obs, next_obs)
        self._fit_rewards(reward.double())

    def _fit_observations(self, obs: Tensor, next_obs: Tensor) -> None:
        obs, next_obs = obs.double(), next_obs.double()
        delta_scale = floored(mean_of_rows((next_obs - obs).square()).sqrt(), obs)
        if not self.binary:
            self.generators.rescale(rescaling(self.delta_scale, delta_scale))
        self.delta_scale.copy_(delta_scale)
        obs_mean = mean_of_rows(obs)
        self.obs_mean.copy_(obs_mean)
        self.obs_std.copy_(one_or(floored(standard_deviation(obs, obs_mean), obs)))
        low, high = smallest(next_obs.amin(0)), largest(next_obs.amax(0))
        self.obs_low.copy_(low - MARGIN * (high - low))
        self.obs_high.copy_(high + MARGIN * (high - low))

    def _fit_rewards(self, reward: Tensor) -> None:
        largest_reward = largest(reward.abs().max())
        self.reward_scale.copy_(torch.where(largest_reward > 0, largest_reward, 1.0))
        self.reward_low.copy_(smallest(reward.min()))
        self.reward_high.copy_(largest(reward.max()))

    @torch.no_grad()
    def fit_disagreement(self, obs: Tensor, action: Tensor) -> None:
        """Measure disagreement on real transitions ``[n, ...]``: it is the unit from now on.

        With several processes, each gives its own: the unit is the mean over all of them.
        """
        mean = mean_of_rows(self.apart(obs, action))
        self.mean_disagreement.copy_(mean.clamp_min(LEAST_DISAGREEMENT))

    @torch.no_grad()
    def fit_ends(
        self, obs: Tensor, action: Tensor, next_obs: Tensor, weight: Tensor, ended: Tensor
    ) -> None:
        """Let the heads expect as many ends as came in real transitions ``[n, ...]``.

        Args:
            obs: Observations.
            action: Actions.
            next_obs: What followed.
            weight: How many transitions each of them stands for.
            ended: Which ended the task, bool.
        """
        end_logit = self.heads(self.condition(obs, action), self.target(obs, next_obs))[1]
        self.end_shift.copy_(equations.matching_shift(end_logit, weight, (weight * ended).sum()))

    def condition(self, obs: Tensor, action: Tensor) -> Tensor:
        """Scaled observations and one-hot actions, ``[..., c]``."""
        scaled = (obs.float() - self.obs_mean) / self.obs_std
        return torch.cat([scaled, categorical.one_hot(action, self.num_actions)], -1)

    def target(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """What the generators should make, ``[..., d]``."""
        if self.binary:
            return next_obs.float()
        return (next_obs.float() - obs.float()) / one_or(self.delta_scale)

    def learns(self, rows: RealSteps) -> Tensor:
        """Which rows ``[...]`` generators and discriminators learn."""
        return rows.learns_next

    def next_obs(self, obs: Tensor, target: Tensor) -> Tensor:
        """The observation ``[..., d]`` that a target leads to, before any bounds."""
        if self.binary:
            return (target > 0.5).float()
        return obs.float() + self.delta_scale * target

    def reward_target(self, reward: Tensor) -> Tensor:
        """Rewards ``[...]`` as the reward heads should tell them, ``[..., A]``."""
        return categorical.two_hot(reward.float() / self.reward_scale, self.atoms)

    def draw_noise(self, *shape: int, rng: torch.Generator) -> Tensor:
        """Noise z, ``[*shape, noise_dim]``."""
        noise_dim = self.generators.noise_dim
        noise = torch.randn(*shape, noise_dim, generator=rng, device=rng.device)
        return noise.to(self.obs_mean.device)

    @torch.no_grad()
    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        """See ``World``.

        A member that is drawn for each row makes the next observation. Reward and end are the mean
        of all heads, since theirs is no noise to be kept. An end is *drawn* with its probability:
        with a threshold, an end that comes every third time would never come, and dreams would hold
        fewer of the rare ends than real episodes do wherever the heads are in doubt.
        """
        condition = self.condition(obs, action)
        next_obs = self.bounded(self._drawn(condition, obs, rng))
        reward, end = self._predicted(condition, self.target(obs, next_obs))
        reward = reward.clamp(self.reward_low, self.reward_high)
        chance = torch.rand(len(obs), generator=rng, device=rng.device).to(end.device)
        disagreement = self._apart(condition) / self.mean_disagreement
        return Imagined(next_obs, reward, chance < end, disagreement)

    def bounded(self, obs: Tensor) -> Tensor:
        """Imagined observations ``[..., d]`` within a margin around the real ones."""
        return obs.clamp(self.obs_low, self.obs_high)

    @torch.no_grad()
    def draw_next(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Tensor:
        """A next observation for each row, by a member drawn for it; before any bounds."""
        return self._drawn(self.condition(obs, action), obs, rng)

    def _drawn(self, condition: Tensor, obs: Tensor, rng: torch.Generator) -> Tensor:
        z = self.draw_noise(len(obs), rng=rng)
        return self.next_obs(obs, of_drawn_members(self.generators, condition, z, rng))

    @torch.no_grad()
    def judge(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards, within the range of real ones, and probabilities of an end, ``[N]`` each."""
        reward, end = self.predict(obs, action, next_obs)
        return reward.clamp(self.reward_low, self.reward_high), end

    @torch.no_grad()
    def predict(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards, before any bounds, and probabilities of an end, ``[N]`` each."""
        return self._predicted(self.condition(obs, action), self.target(obs, next_obs))

    def _predicted(self, condition: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        rewards, ends = [], []
        for rows in zip(in_parts(condition), in_parts(target), strict=True):
            logits, end_logit = self.heads(*rows)
            rewards.append(categorical.expected(logits, self.atoms).mean(0))
            ends.append(torch.sigmoid(end_logit + self.end_shift[:, None]).mean(0))
        return self.reward_scale * torch.cat(rewards), torch.cat(ends)

    @torch.no_grad()
    def disagreement(self, obs: Tensor, action: Tensor) -> Tensor:
        """How far members are apart, ``[N]``, in units of the mean on real transitions."""
        return self.apart(obs, action) / self.mean_disagreement

    @torch.no_grad()
    def apart(self, obs: Tensor, action: Tensor) -> Tensor:
        """How far members are apart, ``[N]``, in units of targets."""
        return self._apart(self.condition(obs, action))

    def _apart(self, condition: Tensor) -> Tensor:
        return equations.disagreement(self._centre(condition), self.moving)

    @torch.no_grad()
    def one_step_error(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """How wrong the members' mean is on transitions ``[n, ...]``; 1: as "nothing changes"."""
        centre = self._centre(self.condition(obs, action))
        error = equations.one_step_error(self.target(obs, next_obs), centre, self.moving)
        if not self.binary:
            return error
        return error / one_or((next_obs.float() - obs.float()).square().mean().sqrt())

    @property
    def moving(self) -> Tensor:
        """Which dimensions of the observation ever change, bool ``[d]``; of bits, all."""
        return (self.delta_scale > 0) | self.binary

    def _centre(self, condition: Tensor) -> Tensor:
        """What each member expects under conditions ``[N, c]``, ``[E, N, d]``."""
        return torch.cat([self.generators.centre(part) for part in in_parts(condition)], 1)
