"""Settings of the replay: what is kept, and how minibatches are drawn from it."""

from dataclasses import dataclass

from lit_crl.core.checks import ConfigError, Fields


@dataclass(frozen=True)
class ReplaySettings:
    """What the replay keeps, and the minibatches that the DQN learns from.

    Args:
        capacity: Rows of the buffer: one a step, and one more an episode.
        n_steps: Steps folded into one transition.
        batch_size: Transitions in one update of the DQN, in each process; with
            ``model.network.memory`` sequences of them, so give a smaller number.
        log_updates: Budget of a run from a log (``data.transitions``), in updates of the DQN.
        updates_per_batch: K, updates of the DQN in one batch (one ``training_step``).
        frame_stack: Frames on the first axis of an observation (the ``stack_size`` of
            ``FrameStackObservation``), newest last. The replay keeps each frame once.
        hindsight: Share of transitions relabelled with a goal reached later (goal tasks).
        priority_exponent: α of prioritized replay; 0: transitions are drawn uniformly.
        importance_exponent: β of its importance weights at the start; at the end it is 1.
        burn_in: Rows that a network with memory sees before the steps that it learns from, so that
            its memory is one of its present weights.
        sequence_length: Rows after these, in each of which a network with memory learns from the
            step that begins there. A row holds a step or the end of an episode.
    """

    capacity: int = 100_000
    n_steps: int = 3
    batch_size: int = 256
    log_updates: int = 20_000
    updates_per_batch: int = 16
    frame_stack: int = 1
    hindsight: float = 0.0
    priority_exponent: float = 0.0
    importance_exponent: float = 0.4
    burn_in: int = 10
    sequence_length: int = 20

    def __post_init__(self) -> None:
        """Check the numbers, alone and together."""
        fields = Fields("data.replay", self)
        fields.positive("capacity", "n_steps", "batch_size", "log_updates", "updates_per_batch")
        fields.positive("frame_stack", "sequence_length")
        fields.non_negative("priority_exponent", "burn_in")
        fields.unit_interval("hindsight", "importance_exponent")
        if self.sequence_length == 1:
            raise ConfigError(
                "data.replay.sequence_length is 1, and that one row may be the end of an episode, "
                "which is no step: give 2 or more"
            )
        if self.batch_size > self.capacity:
            raise ConfigError(
                f"data.replay.batch_size is {self.batch_size}, more than data.replay.capacity "
                f"({self.capacity}): give a smaller batch or a larger buffer"
            )

    @property
    def rows_of_a_sequence(self) -> int:
        """Rows of a sequence, with those that its last targets need."""
        return self.burn_in + self.sequence_length + self.n_steps
