"""Stopping between two steps: a signal is remembered, the loop leaves when its work is safe."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Stop:
    """Whether the process was asked to stop.

    The second SIGINT does not wait any longer.
    """

    def __init__(self) -> None:
        self.signal = 0

    @property
    def requested(self) -> bool:
        """True after a signal."""
        return self.signal != 0

    def leave(self) -> None:
        """End as the signal asks.

        Raises:
            KeyboardInterrupt: After SIGINT; exit code 130.
            SystemExit: After another signal n; exit code 128 + n.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Remember SIGINT, SIGTERM and SIGHUP inside the block instead of dying of them.

    Signals reach the main thread only; elsewhere nothing changes.

    Yields:
        What was asked.

    Example:
        >>> import os, signal
        >>> from nearfar.app.interrupts import interruptible
        >>> with interruptible() as stop:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     stop.requested
        True
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, stop._remember) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
