"""Batches for ``training_step``, the minibatches in them, and the iterables that hand them out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, NamedTuple, Protocol, Self

from torch import Tensor

from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.memory import Sequences
from lit_crl.gan.batch import GanBatch
from lit_crl.world.batch import RealSteps


class Minibatch(Protocol):
    """What an update takes: tensors ``[B, ...]``. K of them are a stack ``[K, B, ...]``."""

    def unstack(self) -> Iterator[Self]:
        """The K minibatches of a stack."""

    def chunk(self, rows: slice) -> Self:
        """A smaller stack."""


class DqnMinibatch(NamedTuple):
    """What a DQN update learns from."""

    transitions: Transitions
    #: Importance weights, where the transitions were drawn by priority.
    weight: Tensor | None = None
    #: The lowest and the highest possible return ``[2]``, to which targets are clipped.
    returns: Tensor | None = None
    #: The noise of the Q-network and of the target network ``[2, noise_size]``, if they are noisy.
    noise: Tensor | None = None

    def unstack(self) -> Iterator["DqnMinibatch"]:
        """See ``Minibatch``."""
        transitions, *others = self
        steps = map(Transitions, *(field.unbind() for field in transitions))
        each = (repeat(None) if field is None else field.unbind() for field in others)
        return map(DqnMinibatch, steps, *each)

    def chunk(self, rows: slice) -> "DqnMinibatch":
        """See ``Minibatch``."""
        transitions, *others = self
        steps = Transitions(*(field[rows] for field in transitions))
        return DqnMinibatch(steps, *(None if field is None else field[rows] for field in others))


class SequenceMinibatch(NamedTuple):
    """What an update of a DQN with memory learns from."""

    sequences: Sequences
    #: See ``DqnMinibatch``.
    returns: Tensor | None = None

    def unstack(self) -> Iterator["SequenceMinibatch"]:
        """See ``Minibatch``."""
        each = map(Sequences, *(field.unbind() for field in self.sequences))
        returns = repeat(None) if self.returns is None else self.returns.unbind()
        return map(SequenceMinibatch, each, returns)

    def chunk(self, rows: slice) -> "SequenceMinibatch":
        """See ``Minibatch``."""
        sequences = Sequences(*(field[rows] for field in self.sequences))
        return SequenceMinibatch(sequences, None if self.returns is None else self.returns[rows])


class GanMinibatch(NamedTuple):
    """What a GAN update learns from: the generator's noise, and levels."""

    z: Tensor
    levels: GanBatch

    def unstack(self) -> Iterator["GanMinibatch"]:
        """See ``Minibatch``."""
        fields = self.levels.map(Tensor.unbind)
        levels = map(GanBatch, *(repeat(None) if field is None else field for field in fields))
        return map(GanMinibatch, self.z.unbind(), levels)

    def chunk(self, rows: slice) -> "GanMinibatch":
        """See ``Minibatch``."""
        return GanMinibatch(self.z[rows], GanBatch(*self.levels.map(lambda field: field[rows])))


class WorldMinibatch(NamedTuple):
    """What an update of the world learns from: each member has real steps and noise of its own."""

    #: Steps as they came, ``[E, B, ...]``.
    rows: RealSteps
    #: Ends and rare rewards, ``[E, R, ...]``, that the heads alone learn from besides; R may be 0.
    rare: RealSteps
    #: By how much ``rare`` raises the log odds of an end (``end_log_odds``), ``[E]``.
    end_log_odds: Tensor
    #: Draws of the generators' noise for each of ``rows``, ``[E, B, draws, noise_dim]``: two, or
    #: none where a likelihood has no use for them.
    z: Tensor

    def unstack(self) -> Iterator["WorldMinibatch"]:
        """See ``Minibatch``."""
        rows, rare = (
            map(RealSteps, *(field.unbind() for field in steps)) for steps in (self.rows, self.rare)
        )
        return map(WorldMinibatch, rows, rare, self.end_log_odds.unbind(), self.z.unbind())

    def chunk(self, rows: slice) -> "WorldMinibatch":
        """See ``Minibatch``."""
        drawn, rare = (
            RealSteps(*(field[rows] for field in steps)) for steps in (self.rows, self.rare)
        )
        return WorldMinibatch(drawn, rare, self.end_log_odds[rows], self.z[rows])


def tensors_of(stack: Any) -> Iterator[Tensor]:
    """The tensors of minibatches, which are tuples of tensors, of tuples, and of Nones."""
    if isinstance(stack, Tensor):
        yield stack
    elif stack is not None:
        for part in stack:
            yield from tensors_of(part)


def like(minibatch: Any, tensors: Iterable[Tensor]) -> Any:
    """A minibatch of the same kind with other tensors, in the order of ``tensors_of``."""
    given = iter(tensors)

    def filled(part: Any) -> Any:
        if part is None or isinstance(part, Tensor):
            return None if part is None else next(given)
        return type(part)(*map(filled, part))

    return filled(minibatch)


def shapes(stack: Any) -> object:
    """What minibatches must have in common to be learnt from by one graph."""
    if isinstance(stack, Tensor):
        return stack.shape, stack.dtype
    return None if stack is None else tuple(map(shapes, stack))


class Batch(NamedTuple):
    """The argument of one ``training_step``; without ``gan`` only the DQN phase runs."""

    #: Transitions or, for a Q-network with memory, sequences of them.
    dqn: Transitions | Sequences
    gan: GanBatch | None
    #: Share of the budget that is spent.
    progress: float
    #: Importance weights ``[K, B]`` of the transitions, where they were drawn by priority.
    weight: Tensor | None = None
    #: The possible returns ``[K, 2]``: see ``DqnMinibatch``.
    returns: Tensor | None = None
    #: What the explorer learns from besides, where there is one.
    explorer: DqnMinibatch | None = None
    #: The mean bonus in each of its minibatches ``[K]``, which is part of their rewards.
    bonus: Tensor | None = None
    #: Where a world phase is due.
    world: WorldMinibatch | None = None
    #: Takes the TD errors ``[K, B]`` that the updates found, where priorities depend on them.
    reprioritize: Callable[[Tensor], None] | None = None


class ReplayLoader:
    """A plain sized iterable: Lightning neither prefetches from it nor touches its batches."""

    def __init__(self, batches: Callable[[], Iterator[Batch]], length: int) -> None:
        """An epoch has ``length`` of the ``batches``."""
        self._batches = batches
        self._length = length

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """Batches until the budget is spent; the Trainer takes ``len`` of them an epoch."""
        return self._batches()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the DataModule keeps what a resume needs, but Lightning asks the loader."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class SingleBatch:
    """An epoch of one batch."""

    def __init__(self, batch: Any) -> None:
        """Hand out ``batch`` once an epoch."""
        self.batch = batch

    def __len__(self) -> int:
        """One."""
        return 1

    def __iter__(self) -> Iterator[Any]:
        """The batch."""
        yield self.batch
