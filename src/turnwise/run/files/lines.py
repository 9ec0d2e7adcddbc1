"""metrics.jsonl after a stop: lines of steps that will be done again go."""

from __future__ import annotations

import json
from pathlib import Path

from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file


def keep_lines_before(path: Path, step: int) -> None:
    """Drop metrics of steps that will be done again, and a last line that was not written to its end.

    InputError, naming the line, for a file that no run wrote.
    """
    if not path.exists():
        return
    kept = []
    for i, line in enumerate(path.read_bytes().splitlines(True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"{path}:{i}: expected a line that a run wrote") from e
    with whole_file(path) as part:
        part.write_bytes(b"".join(kept))
