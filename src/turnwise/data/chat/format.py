"""Messages to token ids and back, through a tokenizer's chat template.

The ids of a logged conversation must equal the ids of the same conversation as it is played: a policy acts on
what it was trained on. So every message is encoded by itself, in both places, and never across the border of
two messages, where a tokenizer might merge their edges.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from turnwise.data.chat.calls import called
from turnwise.data.chat.encoder import REMEMBERED, Remembered, TextEncoder
from turnwise.data.chat.template import THINK, THOUGHT, Template, shared_beginning, suffix
from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens, TokenWriter, Written
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Used for tokenizers that bring no chat template of their own."""

BYTES = 4
"""bytes of a character at most (UTF-8), and so tokens"""


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
        self._texts = Remembered[Message, str](REMEMBERED)
        self._template = Template(tokenizer)
        self.lead = self._encode(self._template.lead)
        self.stop, self._after_stop = self._end_of_a_message()

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
        row.act(self._said(Message("assistant", text)), reward, None)
        return row.tokens(terminated=True, next_known=True, id=id)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids that precede the agent's first token."""
        return self._begun(self._heard(self._template.taken(messages), 0))

    def continuation(self, history: Sequence[Message], new: Sequence[Message]) -> list[int]:
        """Ids between the agent's stop token and its next turn; `history` ends with the agent's message."""
        messages = self._template.taken(called([*history, *new]))
        return self._after_stop + self._heard(messages, len(history))

    def text(self, ids: Sequence[int]) -> str:
        """What the agent said, as a partner would read it: without the reasoning that it closed before."""
        said, template = list(ids), self._template
        for end in (self.lead, self._encode(THOUGHT) if template.thinks else []):
            said = said[_behind(said, end) :]
        words = self.tokenizer.decode(said, skip_special_tokens=True)
        # A tokenizer may merge the end of reasoning with what surrounds it, so it is looked for as text too.
        return (words.rpartition(THOUGHT)[2] if template.thinks else words).strip()

    def pieces(self, ids: Iterable[Any]) -> list[str]:
        """The text of each token by itself, special tokens included (for display).

        If a character is spread over several tokens, it stands with the last of them, and the others are
        empty.
        """
        found, begun = list[str](), list[int]()
        for i in ids:
            begun.append(int(i))
            text = self.tokenizer.decode(begun)
            whole = not text.endswith("\ufffd") or len(begun) == BYTES
            found.append(text if whole else "")
            begun = [] if whole else begun
        if begun:  # cut within a character
            found[-1] = self.tokenizer.decode(begun)
        return found

    def _write_one(self, d: Dialogue, longest_wait: int | None) -> Written:
        row, turn = TokenWriter(), 0
        messages = self._template.taken(_as_the_assistant(d))
        for i, m in enumerate(d.messages):
            if m.role == d.agent_role:
                read = self._at_most(messages, turn, i, longest_wait, row)
                row.read(read if row.ids else self._begun(read))
                row.act(self._said(messages[i]), m.reward, m.behavior_logp)
                row.read(self._after_stop)
                turn = i + 1
        spoke_last = turn == len(messages)
        if not spoke_last:
            # A cut conversation goes on: with the header its last position is the state of the next decision,
            # whose value the last action bootstraps from. If the agent spoke last, the partner's answer was
            # never logged, so that this state is unknown.
            row.read(self._at_most(messages, turn, len(messages), longest_wait, row, not d.terminated))
        if longest_wait and len(row.ids) > longest_wait:  # it may become several rows
            row.opening = self._system_ids(messages, row.ids)
        return row.written(terminated=d.terminated, next_known=d.terminated or not spoke_last, id=d.id)

    def _system_ids(self, messages: list[Message], ids: list[int]) -> int:
        """How many of the first `ids` are the opening system messages."""
        others = (i for i, m in enumerate(messages) if m.role != "system")
        system = messages[: next(others)]
        if not system:
            return 0
        first = next(i for i, m in enumerate(messages) if m.role == "assistant")
        text = self._template.render(messages[:first], True)
        end = text.find(system[-1].content.strip()) + len(system[-1].content.strip())
        # With what the template closes them by, if it renders them alone.
        with contextlib.suppress(InputError):
            end = max(end, shared_beginning(text, self._template.render(system, False)))
        return shared_beginning(self._spelt(text[:end], system), ids)

    def _at_most(
        self,
        messages: list[Message],
        turn: int,
        end: int,
        limit: int | None,
        row: TokenWriter,
        header: bool = True,
    ) -> list[int]:
        """Ids of the messages from `turn` to `end`, shortened in place until they are `limit` at most.

        The oldest lose their first words first, and system messages their last words last of all. Markers
        stay: who says what is left remains known.
        """
        ids = self._heard(messages[:end], turn, header)
        over = len(ids) - (limit or len(ids))
        row.waited(len(ids))
        if over <= 0:
            return ids
        whole, shortened = len(ids), 0
        for i in sorted(range(turn, end), key=lambda i: (messages[i].role == "system", i)):
            content, cut = self._encode(messages[i].content, literally=True), 0
            while over > 0 and cut < len(content):
                cut = min(len(content), cut + over)
                kept = content[: len(content) - cut] if messages[i].role == "system" else content[cut:]
                # A character of several bytes may be torn apart, and is gone then.
                text = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False).strip("\ufffd")
                messages[i] = replace(messages[i], content=text)
                ids = self._heard(messages[:end], turn, header)
                over = len(ids) - (limit or 0)
            shortened += cut > 0
        row.leave_out(whole - len(ids), shortened)
        return ids

    def _end_of_a_message(self) -> tuple[int, list[int]]:
        """The stop token, and the ids between it and the next piece (a newline, say)."""
        tail = self._encode(self._template.tail)
        # Text that may stand in a message as well (a space, a newline) cannot be what ends it.
        ends = [i for i, token in enumerate(tail) if token in _special(self.tokenizer)]
        if not ends and self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has neither an end in its chat template nor an eos token")
        stop, after = (tail[ends[0]], tail[ends[0] + 1 :]) if ends else (self.tokenizer.eos_token_id, tail)
        # If the template rewrites what stands before, the next piece holds all that follows the words.
        return stop, after if self._template.grows else []

    def _said(self, m: Message) -> list[int]:
        """Ids of the agent's turn: what the template leads in with, words or calls, and the stop token."""
        call = self._template.call(m) if m.tool_calls else None
        if call is not None:
            return [*(self.lead if call.lead else ()), *self._encode(call.text), self.stop]
        text = m.content
        if not self._template.thinks or THOUGHT not in text:
            return [*self.lead, *self._encode(text, literally=True), self.stop]
        # The reply brings reasoning of its own, and the header may have opened it.
        opened = self._template.lead.lstrip().startswith(THOUGHT)
        text = text.removeprefix(THINK).removeprefix("\n") if opened else text
        parts = [p for p in re.split(f"({THINK}|{THOUGHT})", text) if p]
        ids = [self._encode(p, literally=p not in (THINK, THOUGHT)) for p in parts]
        return [*itertools.chain(*ids), self.stop]

    def _heard(self, messages: list[Message], turn: int, header: bool = True) -> list[int]:
        """Ids of the messages from `turn` on, which follow the agent's stop token, and of its header."""
        template = self._template
        # Templates may write the results of several calls as one block, which has no pieces.
        if template.grows and not any(m.tool_calls for m in messages):
            pieces = [self._encode_piece(messages, i) for i in range(turn, len(messages))]
            if header:
                pieces.append(self._encode(self._header_after(messages)))
            return [i for ids in pieces for i in ids]
        if turn == 0:
            return self._spelt(template.render(messages, True), messages)
        return self._spelt(template.after_the_last_reply(messages), messages[turn:])

    def _spelt(self, text: str, messages: Sequence[Message]) -> list[int]:
        """Ids of a text that holds these messages; markers that stand in them are encoded as plain text."""
        parts, at = list[tuple[str, bool]](), 0
        for m in messages:
            content = m.content.strip()
            if any(marker in content for marker in self._template.markers):
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
        frame = None if message.tool_calls else self._template.frame(message.role)
        if frame is not None:
            return frame[0] + message.content + frame[1]
        same = Message(message.role, "", 0.0, None, message.name, message.tool_calls, message.tool_call_id)
        return self._texts.of(message.content, same, lambda: self._template.render([message], False))

    def _render(self, messages: list[Message], prompt: bool) -> str:
        return self._template.render(messages, prompt) if messages or prompt else ""


def _as_the_assistant(d: Dialogue) -> Sequence[Message]:
    """The model speaks as the assistant, whatever role the agent has in the log: if people are to be imitated
    (agent "user"), the two sides swap.
    """
    if d.agent_role == "assistant":
        return d.messages
    roles = {d.agent_role: "assistant", "assistant": "user"}
    return [replace(m, role=roles.get(m.role, m.role)) for m in d.messages]


def _special(tokenizer: Any) -> set[int]:
    """Tokens that no text of a message encodes to."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _behind(ids: Sequence[int], part: Sequence[int]) -> int:
    """Where the last occurrence of `part` ends; 0 if there is none."""
    n = len(part)
    return next((i for i in range(len(ids), n - 1, -1) if n and list(ids[i - n : i]) == list(part)), 0)
