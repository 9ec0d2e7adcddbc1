"""What people read on a terminal. Text of data and of paths is shown, and nothing in it is obeyed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but tab and line feed (an ESC moves the cursor, sets titles, answers for the person),
# marks that turn the direction of text, and halves of characters, which no encoding can write.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with what a terminal would obey written out, as \x1b."""
    return _UNSEEN.sub(lambda m: ascii(m[0])[1:-1], text)


def visible_json(text: str) -> str:
    r"""The same for JSON, which stays JSON: a character that JSON itself lets stand becomes \u009b."""
    return _UNSEEN.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def say(text: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(f"{visible(text)}\n")  # one write, or other threads print between words and line's end
    sys.stderr.flush()


def console(**settings: Any) -> Console:
    """A console of rich that takes no text for markup or for emoji, and shows what `visible` shows.

    What is to be coloured is a `rich.text.Text`.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        """Everything that is printed passes `render`: texts, tables, bars."""

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process here, with another code than `main`

    return Plain(markup=False, emoji=False, highlight=False, **settings)
