"""Ctrl-C and SIGTERM while steps are under way."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopSignal:
    """The first Ctrl-C (or SIGTERM) stops training after the step; the second one stops it at once."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere nobody can press Ctrl-C
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is signal.SIG_IGN:  # a job in the background of a script
                    continue
                self._before[number] = signal.signal(number, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _press(self, number: int, frame: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
