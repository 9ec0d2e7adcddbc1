"""Logs or feedback from any form into ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turnwise.data.dataset import FeedbackSet, Logs
from turnwise.data.files.feedback import holds_feedback, read_feedback, write_feedback
from turnwise.data.files.logs import read_logs, write_logs
from turnwise.data.files.sources import Source
from turnwise.run.errors import SettingError


def convert(
    source: Source, out: str | Path, *, overwrite: bool = False, **reading: Any
) -> Logs | FeedbackSet:
    """Read what `read_logs` or `read_feedback` reads, write it to `out` as JSONL, and return it.

    Its first row tells logs from feedback. `reading`: settings of the one that reads it. SettingError if
    `out` does not end in .jsonl or .jsonl.gz; InputError for what is wrong with the source, or if `out`
    exists and `overwrite` is not set.
    """
    if not Path(out).name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingError("out", str(out), "a name that ends in .jsonl or .jsonl.gz")
    if isinstance(source, Iterator):  # whose first row could be read but once
        source = list(source)
    if "kind" in reading or holds_feedback(source):
        feedback = read_feedback(source, **reading)
        write_feedback(out, feedback, overwrite=overwrite)
        return feedback
    logs = read_logs(source, **reading)
    write_logs(out, logs, overwrite=overwrite)
    return logs
