"""What stands for an evaluation where there is no environment: nothing is measured."""

from lit_crl.core.global_streams import global_streams_kept
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation, Learner, More
from lit_crl.evaluation.settings import EvaluationSettings


class NoEvaluation:
    """An evaluation without episodes: their numbers are absent, and not 0."""

    def __init__(self, more: More) -> None:
        """Measure nothing but ``more``."""
        self.more = more

    def run(self, learner: Learner, has_gan: bool) -> dict[str, float]:
        """What can be measured without episodes."""
        with global_streams_kept():
            return self.more(learner, None)


def evaluation_of(
    kind: type[Evaluation],
    envs: EvaluationEnvs,
    settings: EvaluationSettings,
    episodes: int,
    env_steps: int,
    seed: int,
    more: More,
) -> Evaluation | NoEvaluation:
    """An evaluation of a ``kind``; one without episodes where there is a log alone.

    Args:
        kind: Validation or test.
        envs: The environments that it plays in.
        settings: How many generated levels it examines, and its share of env steps.
        episodes: Target episodes, at most.
        env_steps: Of the part of training that it evaluates.
        seed: Seed of its random streams.
        more: Measures more than episodes.
    """
    if isinstance(envs.example, LoggedTask):
        return NoEvaluation(more)
    # One step at least for each of the parts, whose shares are halves of halves.
    allowed = max(2**4, int(settings.share * env_steps))
    return kind(envs, episodes, settings.generated_levels, allowed, seed, more)
