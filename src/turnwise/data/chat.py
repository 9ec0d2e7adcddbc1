"""Messages to token ids and back, through a tokenizer's chat template.

The ids of a logged conversation must equal the ids of the same conversation as it is played: a policy acts on
what it was trained on. So every message is encoded by itself, in both places, and never across the border of
two messages, where a tokenizer might merge their edges.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from turnwise.data.dialogue import Dialogue
from turnwise.data.encoder import REMEMBERED, Remembered, TextEncoder
from turnwise.data.template import THINK, THOUGHT, Template, suffix
from turnwise.data.tokens import Tokens, TokenWriter, Written
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Used for tokenizers that bring no chat template of their own."""


class ChatFormat:
    """How messages become token ids and back, by the chat template of a `transformers` tokenizer.

    A template renders a conversation as its messages' pieces, one after the other:

        <|user|> It is dark. <|end|> <|assistant|> The fuse? <|end|> <|user|> ...
        [ a partner's piece        ] [ header    ] [ words ] [stop ] [ piece

    The agent chooses its words and the stop token, and everything else is read. If the template puts
    something between the header and the words of a reply (an empty block of reasoning, the name of a
    channel), the agent has to say that first, since it acts from the header. InputError if nothing ends a
    message.

    A conversation is read as it is spoken, message after message: what was read before does not change. Some
    templates rewrite earlier messages when later ones are added (they take out reasoning, or end the last
    message differently); then a conversation of several turns differs from their text (see `notes_on`). A
    prompt and one reply to it are always the template's own text.

    The agent's first word is chosen from a position before it. If it speaks first and the template has no
    header, that is the tokenizer's bos token; InputError if it has none.
    """

    stop: int
    """The token that ends a message of the agent, an action like any other."""
    lead: list[int]
    """Ids that begin a reply, before its words: what the template puts there."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE  # saved with it, so that others render what was learnt
        self._encoder = TextEncoder(tokenizer)
        self._texts = Remembered[str, str](REMEMBERED)
        special = tokenizer.added_tokens_decoder.values()
        self._markers = tuple(t.content for t in special if t.special and t.content.strip())
        self._template = Template(tokenizer)
        self.lead = self._encode(self._template.lead)
        self.stop, self._after_stop, self._ends_itself = self._end_of_a_message()

    def notes_on(self, dialogues: Iterable[Dialogue]) -> list[str]:
        """What a person should know of these conversations in this format."""
        if self._template.grows or all(len(d.turns) == 1 for d in dialogues):
            return []
        return [
            "the chat template rewrites earlier messages when later ones are added, so conversations of "
            "several turns are read as they were spoken, message after message; what serves the policy "
            "should render them so too"
        ]

    def encode(self, dialogues: Iterable[Dialogue], longest_wait: int | None = None) -> list[Tokens]:
        """Token records of logged conversations.

        If partners say more than `longest_wait` ids between two turns of the agent, the last ones are kept.
        InputError names the conversation whose roles the template does not take.
        """
        return [written.tokens() for written in self.write(dialogues, longest_wait)]

    def write(self, dialogues: Iterable[Dialogue], longest_wait: int | None = None) -> Iterator[Written]:
        """The same one after the other, and not made into arrays yet."""
        for d in dialogues:
            try:
                yield self._write_one(d, longest_wait)
            except InputError as e:
                raise InputError(f"conversation {d.id!r}: {e}") from e

    def reply(self, prompt: Sequence[Message], text: str, reward: float = 0.0, id: str = "") -> Tokens:
        """A prompt and one reply to it: the reply's tokens and its stop token are the only actions.

        What the agent said in the prompt is only read: it was not chosen here.
        """
        row = TokenWriter()
        row.read(self.opening(prompt))
        row.act(self._said(text), reward, None)
        return row.tokens(terminated=True, next_known=True, id=id)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids that precede the agent's first token."""
        if not self._template.grows:
            return self._begun(self._spelt(self._template.render(messages, True), messages))
        return self._begun(self._read(list(messages), 0))

    def continuation(self, history: Sequence[Message], new: Sequence[Message]) -> list[int]:
        """Ids between the agent's stop token and its next turn; `history` ends with the agent's message."""
        if not self._template.grows:
            return self._rest([*history, *new], new)
        return self._after_stop + self._read([*history, *new], len(history))

    def text(self, ids: Sequence[int]) -> str:
        """What the agent said, as a partner would read it: without the reasoning that it closed before."""
        said, template = list(ids), self._template
        for end in (self.lead, self._encode(THOUGHT) if template.thinks else []):
            said = said[_behind(said, end) :]
        words = self.tokenizer.decode(said, skip_special_tokens=True)
        # A tokenizer may merge the end of reasoning with what surrounds it, so it is looked for as text too.
        return (words.rpartition(THOUGHT)[2] if template.thinks else words).strip()

    def pieces(self, ids: Iterable[Any]) -> list[str]:
        """The text of each token by itself, special tokens included (for display)."""
        return [self.tokenizer.decode([int(i)]) for i in ids]

    def _write_one(self, d: Dialogue, longest_wait: int | None) -> Written:
        row, heard = TokenWriter(), list[int]()
        # The model speaks as the assistant, whatever role the agent has in the log: if people are to be
        # imitated (agent "user"), the two sides swap.
        partner = {"assistant": "user"}
        roles = ["assistant" if m.role == d.agent_role else partner.get(m.role, m.role) for m in d.messages]
        messages = [Message(role, m.content) for role, m in zip(roles, d.messages, strict=True)]
        grows, turn = self._template.grows, 0
        for i, m in enumerate(d.messages):
            if m.role == d.agent_role:
                # The header is never cut: its last token is the position from which the first word is chosen.
                if grows:
                    row.read_last(heard, longest_wait)
                    row.read(self._encode(self._header_after(messages[:i])))
                else:
                    row.read(self._rest(messages[:i], messages[turn:i]))
                row.read([] if row.ids else self._begun([]))
                row.act(self._said(m.content), m.reward, m.behavior_logp)
                row.read(self._after_stop)
                heard, turn = [], i + 1
            elif grows:
                heard += self._encode_piece(messages, i)
        spoke_last = d.messages[-1].role == d.agent_role
        if not grows and not spoke_last:
            row.read(self._rest(messages, messages[turn:]))
        row.read_last(heard, longest_wait)
        if grows and not d.terminated and not spoke_last:
            # A cut conversation goes on: with the header its last position is the state of the next decision,
            # whose value the last action bootstraps from. If the agent spoke last, the partner's answer was
            # never logged, so that this state is unknown.
            row.read(self._encode(self._header_after(messages)))
        return row.written(terminated=d.terminated, next_known=d.terminated or not spoke_last, id=d.id)

    def _end_of_a_message(self) -> tuple[int, list[int], bool]:
        """The stop token, the ids between it and the next piece (a newline, say), and whether the template
        writes the stop token itself.
        """
        tail = self._encode(self._template.tail)
        # Text that may stand in a message as well (a space, a newline) cannot be what ends it.
        ends = [i for i, token in enumerate(tail) if token in _special(self.tokenizer)]
        if ends:
            # If the template rewrites what stands before, the next piece holds all that follows the words.
            return tail[ends[0]], tail[ends[0] + 1 :] if self._template.grows else [], True
        if self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has neither an end in its chat template nor an eos token")
        return self.tokenizer.eos_token_id, tail if self._template.grows else [], False

    def _said(self, text: str) -> list[int]:
        """Ids of the agent's turn: what the template leads in with, its words, and the stop token."""
        if not self._template.thinks or THOUGHT not in text:
            return [*self.lead, *self._encode(text, literally=True), self.stop]
        # The reply brings reasoning of its own, and the header may have opened it.
        opened = self._template.lead.lstrip().startswith(THOUGHT)
        text = text.removeprefix(THINK).removeprefix("\n") if opened else text
        parts = [p for p in re.split(f"({THINK}|{THOUGHT})", text) if p]
        ids = [self._encode(p, literally=p not in (THINK, THOUGHT)) for p in parts]
        return [*itertools.chain(*ids), self.stop]

    def _rest(self, messages: Sequence[Message], new: Sequence[Message]) -> list[int]:
        """Ids that follow the agent's stop token, up to where it speaks next: `new` are the messages there.

        For templates that rewrite what stands before: all that matters is what they add.
        """
        if len(new) == len(messages):
            return self._spelt(self._template.render(messages, True), messages)
        text = self._template.after_the_last_reply(messages)
        if self._ends_itself:  # in the middle of a conversation it may be another token than at its end
            marker = next((m for m in self._markers if text.lstrip().startswith(m)), "")
            text = text.lstrip().removeprefix(marker)
        return self._spelt(text, new)

    def _spelt(self, text: str, messages: Sequence[Message]) -> list[int]:
        """Ids of a text that holds these messages; markers that stand in them are encoded as plain text."""
        parts, at = list[tuple[str, bool]](), 0
        for m in messages:
            content = m.content.strip()
            if any(marker in content for marker in self._markers):
                found = text.find(content, at)
                if found < 0:
                    raise InputError(
                        "a message holds a marker of the chat template and cannot be told from it: "
                        f"{content!r}"
                    )
                parts += [(text[at:found], False), (content, True)]
                at = found + len(content)
        return [i for part, literally in [*parts, (text[at:], False)] for i in self._encode(part, literally)]

    def _begun(self, ids: list[int]) -> list[int]:
        """What is read before the agent's first token, which has to be one token at least."""
        if not ids and self.tokenizer.bos_token_id is None:
            raise InputError(
                "the agent speaks first, and no token stands before its first word; expected a chat template "
                "with a header, a tokenizer with a bos token, or a message before the agent's"
            )
        return ids or [self.tokenizer.bos_token_id]

    def _read(self, messages: list[Message], first: int) -> list[int]:
        """Ids of the partners' messages from `first` on, each encoded alone as in a log, and the header."""
        pieces = [self._encode_piece(messages, i) for i in range(first, len(messages))]
        return [i for ids in [*pieces, self._encode(self._header_after(messages))] for i in ids]

    def _encode_piece(self, messages: list[Message], i: int) -> list[int]:
        """Ids of a partner's message with its markers; those typed by the partner are encoded as plain text.

        Otherwise a partner who writes "<|end|><|assistant|>Yes." would speak in the agent's name.
        """
        # Some templates strip what they quote, so the content is looked for without spaces around it.
        return self._spelt(self._partner_piece(messages, i), messages[i : i + 1])

    def _encode(self, text: str, literally: bool = False) -> list[int]:
        """Ids of a text; with `literally`, special tokens (the stop, say) are encoded as plain text."""
        return self._encoder.encode(text, literally)

    def _header_after(self, messages: list[Message]) -> str:
        """The text that opens the agent's turn."""
        template = self._template
        if template.header is not None:
            return template.header
        return suffix(self._render(messages, True), self._render(messages, False))

    def _partner_piece(self, messages: list[Message], i: int) -> str:
        if self._template.header is not None:
            return self._alone(messages[i])
        return suffix(self._render(messages[: i + 1], False), self._render(messages[:i], False))

    def _alone(self, message: Message) -> str:
        """A message's own text, remembered if it takes time: scripted partners repeat themselves."""
        frame = self._template.frame(message.role)
        if frame is not None:
            return frame[0] + message.content + frame[1]
        return self._texts.of(message.content, message.role, lambda: self._template.render([message], False))

    def _render(self, messages: list[Message], prompt: bool) -> str:
        return self._template.render(messages, prompt) if messages or prompt else ""


def _special(tokenizer: Any) -> set[int]:
    """Tokens that no text of a message encodes to."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _behind(ids: Sequence[int], part: Sequence[int]) -> int:
    """Where the last occurrence of `part` ends; 0 if there is none."""
    n = len(part)
    return next((i for i in range(len(ids), n - 1, -1) if n and list(ids[i - n : i]) == list(part)), 0)
