"""What stands for an evaluation where there is no environment: nothing is measured."""

from lit_crl.evaluation.protocol import Learner


class NoEvaluation:
    """An evaluation without episodes: its numbers are absent, and not 0."""

    def run(self, learner: Learner, has_gan: bool) -> dict[str, float]:
        """No metrics."""
        return {}
