"""Printed lines and progress bars, in terminals and in notebooks."""

from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn

#: Characters of a line in a notebook, which does not report its width.
WIDE = 110


def line_console() -> Console:
    """A console that prints to standard output, in notebooks as plain text.

    There, rich would turn each line into a block of HTML, or take the notebook for a terminal,
    because kernels ask for colours.
    """
    if not in_notebook():
        return Console(highlight=False, soft_wrap=True)
    return Console(
        highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False, width=WIDE
    )


def in_notebook() -> bool:
    """Whether this process displays in a notebook."""
    return Console().is_jupyter


class Bar(Progress):
    """A progress bar that only ``refresh`` redraws, and that disappears at the end.

    Without a terminal or notebook it is not drawn. In a notebook it updates one display: rich's own
    display needs ipywidgets, and a saved notebook would show it broken.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        """Prepare a bar with ``columns``."""
        super().__init__(
            *columns,
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._display: Any = None

    def start(self) -> None:
        """Show the bar."""
        super().start()
        if in_notebook():
            display = import_module("IPython.display").display
            self._display = display(self, display_id=True)

    def stop(self) -> None:
        """Remove the bar."""
        super().stop()
        if self._display is not None:
            self._display.update({"text/plain": ""}, raw=True)
            self._display = None

    def refresh(self) -> None:
        """Redraw the bar."""
        super().refresh()
        if self._display is not None:
            self._display.update(self)
