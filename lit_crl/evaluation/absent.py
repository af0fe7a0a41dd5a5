"""What stands for an evaluation where there is no environment: nothing is measured."""

from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation, Learner
from lit_crl.evaluation.settings import EvaluationSettings


class NoEvaluation:
    """An evaluation without episodes: its numbers are absent, and not 0."""

    def run(self, learner: Learner, has_gan: bool) -> dict[str, float]:
        """No metrics."""
        return {}


def evaluation_of(
    kind: type[Evaluation],
    envs: EvaluationEnvs,
    settings: EvaluationSettings,
    episodes: int,
    env_steps: int,
    seed: int,
) -> Evaluation | NoEvaluation:
    """An evaluation of a ``kind``; one without episodes where there is a log alone.

    Args:
        kind: Validation or test.
        envs: The environments that it plays in.
        settings: How many generated levels it examines, and its share of env steps.
        episodes: Target episodes, at most.
        env_steps: Of the part of training that it evaluates.
        seed: Seed of its random streams.
    """
    if isinstance(envs.example, LoggedTask):
        return NoEvaluation()
    # One step at least for each of the parts, whose shares are halves of halves.
    allowed = max(2**4, int(settings.share * env_steps))
    return kind(envs, episodes, settings.generated_levels, allowed, seed)
