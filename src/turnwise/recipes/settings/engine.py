"""Servers that sample for a policy. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turnwise.run.checks import POSITIVE, check
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class EngineSettings:
    """Where a policy's words are sampled, if not in this process."""

    engine: str | None = None
    """Addresses of vLLM or SGLang servers that sample for the policy, separated by commas:
    http://127.0.0.1:8000. They have to have the policy's weights at the start, and are given the new ones
    after each step. none: the policy speaks in this process."""
    engine_folder: Path | None = None
    """Where weights are written for the servers to read, the same place for them as for this process; none: a
    folder beside the run's."""
    engine_timeout: float = 300.0
    """Seconds that a server has for one reply before it is asked of another one."""
    engine_wait: float = 600.0
    """Seconds to wait for a server while none answers, before the run gives up; it can be resumed."""

    def __post_init__(self) -> None:
        check(self, engine_timeout=POSITIVE, engine_wait=POSITIVE)
        if self.engine is not None and not isinstance(self.engine, str):
            raise SettingError("engine", self.engine, "addresses of servers in one text, separated by commas")
