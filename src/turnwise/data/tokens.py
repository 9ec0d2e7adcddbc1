"""Conversations as token ids: which tokens are the agent's actions, where turns end, what they earned.

Ids are the record and text is a view of them: what a policy sampled is stored as sampled and never
encoded again. The stop token that ends an agent's message is an action like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Used for tokenizers that bring no chat template of their own."""


@dataclass(frozen=True)
class Tokens:
    """One conversation, or a segment of one, as a model reads it; all arrays have length T.

    `ids`: token ids. `action`: the agent chose this token. `turn_end`: last token of an agent's turn.
    `rewards`: what followed the token (non-zero at turn ends only). `message_logp`: at turn ends, the
    log-probability under the logged behaviour of the whole message; `token_logp`: at actions, that of the
    token under the distribution it was sampled from; NaN where unknown. `terminated`: a true end follows
    the last action. `learn_from`: first position whose decision is learnt from (burn-in before it).
    `next_known`: the state after the last action is in `ids` (False where a log was cut right after the
    agent's own words: that action is read but not learnt from). `continues`: cut from a longer conversation
    that goes on in the next row.
    """

    ids: np.ndarray
    action: np.ndarray
    turn_end: np.ndarray
    rewards: np.ndarray
    message_logp: np.ndarray
    token_logp: np.ndarray
    terminated: bool
    learn_from: int = 0
    next_known: bool = True
    continues: bool = False
    id: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def decisions(self) -> np.ndarray:
        """Positions from which an action is taken: the ones before the action tokens. Shape [A]."""
        return np.flatnonzero(self.action[1:])

    def window(self, start: int, stop: int) -> Tokens:
        """Positions start..stop-1 as a row of its own, cut (not ended) unless it reaches the last one."""
        arrays = ("ids", "action", "turn_end", "rewards", "message_logp", "token_logp")
        last = stop == len(self)
        return replace(
            self,
            **{name: getattr(self, name)[start:stop] for name in arrays},
            terminated=self.terminated and last,
            next_known=self.next_known or not last,
            learn_from=max(0, self.learn_from - start),
        )


def segments(tokens: Tokens, context: int) -> list[Tokens]:
    """Chain a conversation that is longer than `context` tokens into rows that fit.

    Each row ends at the state from which the next row's first decision is taken, so its value bootstraps
    across the cut and no reward is lost; it begins up to a quarter of the context earlier (the first row at
    the very beginning, if its turn fits then), read but not learnt from. Turns are cut only where they must.
    """
    if len(tokens) <= context:
        return [tokens]
    states = np.append(tokens.decisions, len(tokens) - 1)
    opens_turn = np.append((~tokens.action | tokens.turn_end)[states[:-1]], True)
    first_turn_ends = int(states[1 + int(opens_turn[1:].argmax())])
    rows, first = [], 0
    while first < len(states) - 1:
        start = max(0, int(states[first]) + 1 - context // 4)
        if not rows and first_turn_ends < context:
            start = 0
        start = max(start, int(states[first + 1]) + 1 - context)
        if start > states[first]:
            raise InputError(
                f"conversation {tokens.id!r}: {int(states[first + 1] - states[first])} tokens lie between "
                f"two decisions, more than the context of {context} can hold; expected a larger --context"
            )
        fits = int(np.searchsorted(states, start + context, side="left")) - 1
        between_turns = [k for k in range(first + 1, fits + 1) if opens_turn[k]]
        cut = between_turns[-1] if between_turns else fits
        row = tokens.window(start, int(states[cut]) + 1)
        rows.append(replace(row, learn_from=int(states[first]) - start, continues=cut < len(states) - 1))
        first = cut
    return rows


class ChatFormat:
    """Messages to token ids and back, through the chat template of a `transformers` tokenizer.

    The template must be prefix-stable: the text of a conversation begins with the text of its beginning.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE  # saved with it, so that others render what was learnt
        self._ids: dict[tuple[str, bool], list[int]] = {}
        self._texts: dict[tuple[str, str], str] = {}
        special = tokenizer.added_tokens_decoder.values()
        self._markers = tuple(t.content for t in special if t.special and t.content.strip())
        self._header: str | None = self._header_if_messages_are_independent()
        marker = "Words."
        talk = [Message("user", "y"), Message("assistant", marker), Message("user", "z")]
        self._partner_piece(talk, 2)  # refuses a template that rewrites what stands before
        body = _suffix(self._render(talk[:2], False), self._render(talk[:1], True))
        tail = self._encode(body[body.index(marker) + len(marker) :])
        # Text that may stand in a message as well (a space, a newline) cannot be what ends it.
        ends = [i for i, token in enumerate(tail) if token in _special(tokenizer)]
        if not ends:
            if tokenizer.eos_token_id is None:
                raise InputError("the tokenizer has neither an end in its chat template nor an eos token")
            tail, ends = [tokenizer.eos_token_id, *tail], [0]
        self.stop: int = tail[ends[0]]
        self._after_stop: list[int] = tail[ends[0] + 1 :]

    def encode(self, dialogues: Iterable[Dialogue], longest_wait: int | None = None) -> list[Tokens]:
        """Token records of logged conversations.

        Of what partners say between two turns of the agent, the last `longest_wait` ids are kept.
        """
        rows = []
        for d in dialogues:
            try:
                rows.append(self._encode_one(d, longest_wait))
            except InputError as e:
                raise InputError(f"conversation {d.id!r}: {e}") from e
        return rows

    def reply(self, prompt: Sequence[Message], text: str, reward: float = 0.0, id: str = "") -> Tokens:
        """A prompt and one reply to it: the reply's tokens and its stop token are the only actions.

        Whatever the agent said in the prompt is read, as it was not chosen here.
        """
        row = TokenWriter()
        row.read(self.opening(prompt))
        row.act([*self._encode(text, literally=True), self.stop], reward, None)
        return row.tokens(True, next_known=True, id=id)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids that precede the agent's first token."""
        return self._read(list(messages), 0)

    def continuation(self, history: Sequence[Message], new: Sequence[Message]) -> list[int]:
        """Ids between the agent's stop token and its next turn; `history` ends with the agent's message."""
        return self._after_stop + self._read([*history, *new], len(history))

    def text(self, ids: Sequence[int]) -> str:
        """What the agent said, as a partner would read it."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def pieces(self, ids: Iterable[Any]) -> list[str]:
        """The text of each token by itself, special tokens included (for display)."""
        return [self.tokenizer.decode([int(i)]) for i in ids]

    def _encode_one(self, d: Dialogue, longest_wait: int | None) -> Tokens:
        row, heard = TokenWriter(), list[int]()
        # Whoever is not the agent is read in the partner's place (an agent that is "user" swaps the two).
        partner = {"assistant": "user"}
        roles = ["assistant" if m.role == d.agent_role else partner.get(m.role, m.role) for m in d.messages]
        messages = [Message(role, m.content) for role, m in zip(roles, d.messages, strict=True)]
        kept = slice(-longest_wait if longest_wait else None, None)
        for i, m in enumerate(d.messages):
            if m.role == d.agent_role:
                row.read(heard[kept] + self._encode(self._header_after(messages[:i])))
                ids = self._encode(m.content, literally=True)
                row.act([*ids, self.stop], m.reward, m.behavior_logp)
                row.read(self._after_stop)
                heard = []
            else:
                heard += self._encode_piece(messages, i)
        row.read(heard[kept])
        spoke_last = d.messages[-1].role == d.agent_role
        if not d.terminated and not spoke_last:
            row.read(self._encode(self._header_after(messages)))
        return row.tokens(d.terminated, next_known=d.terminated or not spoke_last, id=d.id)

    def _read(self, messages: list[Message], first: int) -> list[int]:
        """Ids of the partners' messages from `first` on, each encoded alone as in a log, and the header."""
        pieces = [self._encode_piece(messages, i) for i in range(first, len(messages))]
        return [i for ids in [*pieces, self._encode(self._header_after(messages))] for i in ids]

    def _encode_piece(self, messages: list[Message], i: int) -> list[int]:
        """Ids of a partner's message with its markers; markers that he wrote himself are spelt out."""
        piece, content = self._partner_piece(messages, i), messages[i].content.strip()
        if not any(marker in content for marker in self._markers):
            return self._encode(piece)
        before, found, after = piece.partition(content)
        if not found:
            raise InputError(
                f"a message holds a marker of the chat template and cannot be told from it: {content!r}"
            )
        return self._encode(before) + self._encode(content, literally=True) + self._encode(after)

    def _encode(self, text: str, literally: bool = False) -> list[int]:
        """Ids of a text; `literally`, what looks like a special token (the stop, say) is spelt out."""
        ids = self._ids.get((text, literally))
        if ids is None:
            # Not verbose: it would warn of texts longer than the model's context, which is our business.
            options = {"add_special_tokens": False, "split_special_tokens": literally, "verbose": False}
            ids = self._ids[text, literally] = self.tokenizer.encode(text, **options) if text else []
        return ids

    def _header_after(self, messages: list[Message]) -> str:
        """The text that opens the agent's turn."""
        if self._header is not None:
            return self._header
        return _suffix(self._render(messages, True), self._render(messages, False))

    def _partner_piece(self, messages: list[Message], i: int) -> str:
        if self._header is not None:
            return self._alone(messages[i])
        return _suffix(self._render(messages[: i + 1], False), self._render(messages[:i], False))

    def _alone(self, message: Message) -> str:
        """A message's own text, remembered: templated partners repeat themselves."""
        key = (message.role, message.content)
        if key not in self._texts:
            self._texts[key] = self._apply([message], False)
        return self._texts[key]

    def _render(self, messages: list[Message], prompt: bool) -> str:
        if self._header is not None:
            return "".join(map(self._alone, messages)) + (self._header if prompt else "")
        return self._apply(messages, prompt) if messages or prompt else ""

    def _apply(self, messages: list[Message], prompt: bool) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
        except Exception as e:  # templates raise whatever they like on role orders they do not take
            roles = ", ".join(m.role for m in messages) or "no message before the agent's"
            raise InputError(f"the tokenizer's chat template does not take {roles} ({e})") from e

    def _header_if_messages_are_independent(self) -> str | None:
        """The agent's header, if a conversation's text is its messages' texts in a row, else None.

        Then each message is rendered once and remembered instead of once per prefix.
        """
        s, u, a = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
        try:
            alone = {m.role: self._apply([m], False) for m in (s, u, a)}
            header = _suffix(self._apply([u], True), alone["user"])
            for talk in ([s, u, a, u, a], [u, a, a, u], [a, u]):
                text = "".join(alone[m.role] for m in talk)
                if self._apply(talk, False) != text or self._apply(talk, True) != text + header:
                    return None
        except InputError:  # roles in an order that it refuses
            return None
        return header if alone["assistant"].startswith(header) else None


def token_rows(dialogues: Sequence[Dialogue], chat: ChatFormat, context: int) -> list[Tokens]:
    """Rows of at most `context` positions; a longer conversation becomes several neighbouring rows."""
    # Half the context for what partners say between two turns leaves room for the turn itself.
    return [row for t in chat.encode(dialogues, context // 2) for row in segments(t, context)]


class TokenWriter:
    """Token arrays being written."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.marks: list[tuple[bool, bool, float, float, float]] = []

    def read(self, ids: Sequence[int]) -> None:
        """Tokens that the agent did not choose."""
        self.ids += ids
        self.marks += [(False, False, 0.0, np.nan, np.nan)] * len(ids)

    def act(
        self,
        ids: Sequence[int],
        reward: float,
        message_logp: float | None,
        token_logp: Sequence[float] | None = None,
        complete: bool = True,
    ) -> None:
        """Tokens that the agent chose; unless `complete`, the turn was cut before its end."""
        logps = [np.nan] * len(ids) if token_logp is None else token_logp
        self.ids += ids
        self.marks += [(True, False, 0.0, np.nan, p) for p in logps[:-1]]
        self.marks.append(
            (True, complete, reward, np.nan if message_logp is None else message_logp, logps[-1])
        )

    def tokens(self, terminated: bool, next_known: bool, id: str) -> Tokens:
        """The conversation as written so far."""
        action, turn_end, rewards, message_logp, token_logp = zip(*self.marks, strict=True)
        return Tokens(
            ids=np.array(self.ids, np.int64),
            action=np.array(action, bool),
            turn_end=np.array(turn_end, bool),
            rewards=np.array(rewards, np.float64),
            message_logp=np.array(message_logp, np.float64),
            token_logp=np.array(token_logp, np.float64),
            terminated=terminated,
            next_known=next_known,
            id=id,
        )


def _special(tokenizer: Any) -> set[int]:
    """Tokens that no text of a message encodes to."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _suffix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise InputError(
            "the tokenizer's chat template rewrites earlier messages when later ones are added; expected a "
            "template whose text only grows"
        )
    return text[len(prefix) :]
