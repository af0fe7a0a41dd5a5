"""Maps whose tiles are drawn independently, as often as given maps have them at each place.

Maps ``[n, C, H, W]`` in {0, 1} show walls, starts (C − 2 of them, one for each way to face) and the
goal.
"""

import torch
from torch import Tensor

from lit_crl.core.categorical import one_hot
from lit_crl.curriculum.rejection import valid_levels
from lit_crl.curriculum.sources import SourceContext
from lit_crl.envs import LevelEnv
from lit_crl.envs.given_levels import given_levels

#: How many maps are drawn at most in search of valid ones.
MOST = 2**18


def drawn_walls(given: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Walls ``[n, H, W]``, each independent of the others: P(wall) is its share of ``given``."""
    chance = given[:, 0].mean(dim=0)
    return (torch.rand(n, *chance.shape, generator=rng, device=rng.device) < chance).float()


def drawn_ends(given: Tensor, walls: Tensor, rng: torch.Generator) -> Tensor:
    """Maps of ``walls [n, H, W]`` with starts and goals on free cells, as ``given`` has them.

    P(goal in cell c | walls) ∝ (1 + number of given goals in c) if c is free, else 0; then the
    start alike, in another cell. The 1 is Laplace's rule of succession: few given maps leave most
    cells without a goal, but not for ever. A map with fewer than two free cells is not valid.
    """
    n, cells = len(walls), walls.shape[1:].numel()
    counts = 1 + given[:, 1:].sum(dim=0).flatten(1)
    free = 1 - walls.flatten(1)
    goal = torch.multinomial(counts[-1] * free + 1e-9, 1, generator=rng)[:, 0]
    at_goal = one_hot(goal, cells)
    possible = (free * (1 - at_goal))[:, None] * counts[:-1] + 1e-9
    start = torch.multinomial(possible.flatten(1), 1, generator=rng)[:, 0]
    starts = one_hot(start, possible.shape[1:].numel()).view(possible.shape)
    maps = torch.cat([walls.flatten(1)[:, None], starts, at_goal[:, None]], dim=1)
    return maps.view(n, *given.shape[1:])


def tiles(n: int, curriculum: SourceContext, teacher: object) -> Tensor:
    """The arm ``tiles``: valid maps ``[n, d]`` of independent tiles, as often as the given ones.

    Raises:
        ConfigError: If hardly any such map is valid.
    """
    env, rng = curriculum.env, curriculum.rng
    given = given_maps(env)

    def draw(k: int) -> Tensor:
        return drawn_ends(given, drawn_walls(given, k, rng), rng).flatten(1)

    return valid_levels(draw, n, env, MOST, "tiles", "use data.curriculum.arm edits or gan")


def with_new_ends(levels: Tensor, env: LevelEnv, rng: torch.Generator) -> Tensor:
    """Maps ``[n, d]`` with starts and goals drawn anew, as the given ones have them."""
    given = given_maps(env)
    walls = levels.view(-1, *given.shape[1:])[:, 0]
    return drawn_ends(given, (walls > 0.5).float(), rng).flatten(1)


def given_maps(env: LevelEnv) -> Tensor:
    """The given levels of an environment as maps ``[K, C, H, W]`` in {0, 1}."""
    shape: tuple[int, int, int] = getattr(env, "level_shape", (0, 0, 0))
    return (given_levels(env).view(-1, *shape) > 0.5).float()
