"""Prompts from anyone's files or from memory, for algorithms that learn from replies of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turnwise.data.dataset import PromptRow, Prompts
from turnwise.data.feedback import Prompt
from turnwise.data.files.faults import Faults, parsed
from turnwise.data.files.feedback import prompt_of
from turnwise.data.files.fields import unexpected
from turnwise.data.files.formats import Row
from turnwise.data.files.messages import MapRole, Roles
from turnwise.data.files.sources import Source, name_of, read_rows

REPLIES = ("prompt", "chosen", "rejected", "completion", "completions", "completion_ids")
"""Columns of feedback that no reward function gets: it gets the policy's replies."""
_TAKEN = ("prompts", "self")  # a reward function is called by keyword, and these keywords have a meaning


def read_prompts(
    source: Source, *, map_role: MapRole = (), skip_bad: bool = False, quiet: bool = False
) -> Prompts:
    """All prompts of a path, or of rows in memory, each once.

    A row has `prompt`: text, or messages that end with the user's. A row of feedback without one has what its
    replies begin with. Other columns are kept for reward functions. In memory a row may also be a text or a
    list of messages by itself. If rows repeat a prompt, the first one's columns count. `map_role`,
    `skip_bad`, `quiet` and everything that is wrong are as of `read_feedback`.
    """
    if isinstance(source, Prompts):
        return source
    columns: dict[Prompt, Mapping[str, Any]] = {}
    text, repeated, good = True, 0, 0
    roles, faults = Roles(map_role), Faults(name_of(source), "prompt")

    def parse(row: Row) -> tuple[dict[str, Any], Prompt]:
        value = _row(row)
        return value, prompt_of(value, row.where, roles)

    for value, prompt in parsed(read_rows(source, quiet=quiet), parse, faults):
        good += 1
        text &= isinstance(value.get("prompt"), str) and len(prompt) == 1  # a transcript is a chat
        others = {k: v for k, v in value.items() if k not in REPLIES}
        repeated += columns.setdefault(prompt, others) != others
    faults.judge(good, skip_bad)
    rows = tuple(PromptRow(*item) for item in columns.items())
    return Prompts(rows, faults.name, faults.reading(source), text=text, repeated=repeated)


def _row(row: Row) -> dict[str, Any]:
    value = row.value
    if isinstance(value, str | list):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise unexpected(row.where, "", "a text, a list of messages or a dict with a prompt", value)
    if clash := sorted(set(_TAKEN) & value.keys()):
        expected = "another name (reward functions are given it already)"
        raise unexpected(row.where, clash[0], expected, value[clash[0]])
    return value
