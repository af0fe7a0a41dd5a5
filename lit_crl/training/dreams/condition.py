"""When dreams begin: once the world errs little enough on steps that it did not learn from."""

from lit_crl.core import distributed


class DreamCondition:
    """Waits until the world's error is within a bound, and then never again.

    A policy that learns in the dreams of a world that knows nothing yet learns nonsense first.

    Attributes:
        is_met: Whether dreams have begun.
    """

    def __init__(self, bound: float) -> None:
        """Let dreams begin at an error of at most ``bound``.

        The unit is that of ``lit_crl.world.equations.one_step_error``: at 1 the world is as wrong
        as the guess that nothing changes.
        """
        self.bound, self.is_met = bound, False
        #: The newest error; None: no real step was there to measure it on.
        self._error: float | None = None
        self._said_never = False

    def look(self, error: float | None, when: str) -> None:
        """Judge the newest world; say so once, and ``when`` in words, if dreams begin."""
        self._error = error
        if self.is_met or error is None or not error <= self.bound:  # NaN does not pass
            return
        self.is_met = True
        distributed.print_once(
            f"Dreams begin after {when}: the world's error on held-back steps is "
            f"{error:.2g} (bound {self.bound:g}, data.world.error_bound)."
        )

    def say_if_never(self) -> None:
        """At the end of a run, say once why it had no dreams, if that is so."""
        if self.is_met or self._said_never:
            return
        self._said_never = True
        found = (
            "no held-back step was there to measure the world's error on: give more "
            "data.collect.env_steps, or a smaller data.world.every (from a log, a larger "
            "data.world.held_back)"
            if self._error is None
            else f"the world's error on held-back steps was still {self._error:.2g}, above "
            f"data.world.error_bound {self.bound:g}: give more data.world.updates, or a larger "
            "data.world.error_bound"
        )
        distributed.print_once(f"The run had no dreams, because {found}.")

    def state_dict(self) -> dict[str, float | bool | None]:
        """Whether dreams have begun, and the newest error."""
        return {"is_met": self.is_met, "error": self._error}

    def load_state_dict(self, state: dict[str, float | bool | None]) -> None:
        """Restore what ``state_dict`` gave."""
        self.is_met, self._error = bool(state["is_met"]), state["error"]
