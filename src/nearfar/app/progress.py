"""Progress on standard error: a bar on a terminal, plain lines elsewhere, nothing when asked."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Tells a person how far a run is.

    Args:
        shown: False for silence.

    Example:
        >>> from nearfar.app.progress import Reporter
        >>> with Reporter(shown=False) as report:
        ...     report.say("nobody hears this")
    """

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not shown, highlight=False, markup=False)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def say(self, text: str) -> None:
        """Write one line, above the bar if there is one."""
        self._console.print(text, soft_wrap=True)

    def start(self, done: int, total: int, text: str) -> None:
        """Show a bar, on a terminal only."""
        self.stop()
        if self._console.is_terminal and not self._console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(text, completed=done, total=total)
            self._bar.start()

    def advance(self) -> None:
        """Move the bar by one step."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
