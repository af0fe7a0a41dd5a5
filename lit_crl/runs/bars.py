"""Lines and bars that a person watches, in terminals and in notebooks."""

from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn

#: Characters of a line in a notebook, whose width nobody tells.
WIDE = 110


def line_console() -> Console:
    """Where lines and tables go: to standard output, in notebooks as plain text.

    Rich would make a block of HTML of each line there, or, as kernels ask for colours, take it for
    a terminal.
    """
    if in_notebook():
        return Console(
            highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False, width=WIDE
        )
    return Console(highlight=False, soft_wrap=True)


def in_notebook() -> bool:
    """Whether a notebook shows what this process displays."""
    return Console().is_jupyter


class Bar(Progress):
    """A bar that is drawn anew on ``refresh`` alone, and goes away at its end.

    Where nobody can see it there is none. In a notebook it is a display that is updated: rich's own
    would need ipywidgets, and leave a broken one where the notebook is saved.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        """Prepare a bar of these columns."""
        super().__init__(
            *columns,
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._display: Any = None

    def start(self) -> None:
        """Begin to show it."""
        super().start()
        if in_notebook():
            display = import_module("IPython.display").display
            self._display = display(self, display_id=True)

    def stop(self) -> None:
        """Take it away."""
        super().stop()
        if self._display is not None:
            self._display.update({"text/plain": ""}, raw=True)
            self._display = None

    def refresh(self) -> None:
        """Show how it is now."""
        super().refresh()
        if self._display is not None:
            self._display.update(self)
