"""Settings of validation, final test and prediction."""

from dataclasses import dataclass

from lit_crl.core.checks import ConfigError, Fields


@dataclass(frozen=True)
class EvaluationSettings:
    """When and how long the policy and the generator are examined.

    Args:
        every: Env steps from one validation to the next.
        episodes: Target episodes of a validation, at most.
        test_episodes: Target episodes of the final test, at most.
        generated_levels: Generated levels that an evaluation examines. It plays each of them four
            times, as far as ``share`` allows.
        share: Env steps that a validation may take, as a share of those from one validation to
            the next; for the final test, as a share of the budget. Where that is too little, fewer
            episodes are played, and those that do not end in time count as not solved.
        difficulty: p̂ of the levels that ``predict`` writes; null: as training plays them.
    """

    every: int = 10_000
    episodes: int = 20
    test_episodes: int = 100
    generated_levels: int = 64
    share: float = 1.0
    difficulty: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, limit in (
            ("episodes", "limit_val_batches"),
            ("test_episodes", "limit_test_batches"),
        ):
            if getattr(self, name) == 0:
                raise ConfigError(
                    f"data.evaluation.{name} is 0: give a number above 0, or leave the evaluation "
                    f"out with --trainer.{limit} 0"
                )
        fields = Fields("data.evaluation", self)
        fields.positive("every", "episodes", "test_episodes", "share")
        fields.non_negative("generated_levels")
        if self.difficulty is not None:
            fields.unit_interval("difficulty")
