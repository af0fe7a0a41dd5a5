"""The begin of dreaming: dreams are joined to the real experience that they start from."""

from torch import Tensor

from lit_crl.core.seeding import stream_seed
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.dreams.level_starts import LevelStarts
from lit_crl.training.experience.interface import Experience
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.settings import DataSettings
from lit_crl.world.transition_gan import TransitionGan


def begin_to_dream(
    settings: DataSettings,
    world: TransitionGan,
    experience: Experience,
    curriculum: Curriculum | None,
    explores: Tensor | None,
    at_once: bool,
    seed: int,
    rank: int,
    capture: Capture | None,
    clock: Stopwatch,
) -> Dreaming:
    """Dreams that start where real episodes start and pass, and at proposed levels.

    Args:
        settings: All of the data.
        world: Imagines; the learner trains it.
        experience: Real transitions; tells of first observations from now on, and has the explorer
            act.
        curriculum: Proposes levels; None: there are none.
        explores: In which environments the explorer acts, bool ``[N]``; None: in none.
        at_once: Whether all experience is there from the beginning, as in a log.
        seed: The seed of the run.
        rank: Of this process, whose random streams are its own.
        capture: Records dreams as graphs, on a GPU; None: they run one operation at a time.
        clock: Times the recording.

    Raises:
        ConfigError: If other settings do not go with a world, or dreams do not fit.
    """
    dreaming = Dreaming(
        settings.world,
        world,
        experience.env,
        experience.replay,
        settings.collect.gamma,
        stream_seed(seed, "dreams", rank) % 2**31,
        clock,
        level_starts=LevelStarts(curriculum, settings.world.dreams) if curriculum else None,
        at_once=at_once,
        explores=explores,
        capture=capture,
    )
    dreaming.starts.first.add(experience.first_observations())
    experience.tell_starts = dreaming.starts.first.add
    if explores is not None:
        experience.explores = explores
    return dreaming
