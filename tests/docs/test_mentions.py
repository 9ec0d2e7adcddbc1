"""Commands that a sentence mentions, as `turnwise evaluate --betas 8`, exist with the flags they name."""

from __future__ import annotations

import shlex

import pytest
from pages import PAGES, mentions_of, name_of

from turnwise.cli import main

MENTIONS: dict[str, str] = {}
"""each command once, with a page that mentions it"""
for page in PAGES:
    for text in mentions_of(page):
        MENTIONS.setdefault(text, name_of(page))


@pytest.mark.parametrize("text", MENTIONS)
def test_a_mentioned_command_exists(text, capsys):
    """Its help can be read, and has every flag. Words in capitals stand for something that the reader has."""
    words = [word for word in shlex.split(text)[1:] if not word.isupper()]
    flags = [word for word in words if word.startswith("--")]
    place = words[: words.index(flags[0])] if flags else words
    try:
        code = main([*place, "--help"])
    except SystemExit as end:
        code = end.code or 0
    help_text = capsys.readouterr().out
    assert code == 0, MENTIONS[text]
    assert [flag for flag in flags if flag not in help_text and flag != "--help"] == [], MENTIONS[text]
