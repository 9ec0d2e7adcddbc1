"""Messages to token ids and back, through a tokenizer's chat template.

The ids of a logged conversation must equal the ids of the same conversation as it is played: a policy acts on
what it was trained on. So every message is encoded by itself, in both places, and never across the border of
two messages, where a tokenizer might merge their edges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens, TokenWriter, segments
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Used for tokenizers that bring no chat template of their own."""
REMEMBERED = 1_000_000
"""characters of text whose ids, or whose rendered text, are kept: at most about 12 MB of each"""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ChatFormat:
    """How messages become token ids and back, by the chat template of a `transformers` tokenizer.

    A template renders a conversation as its messages' pieces, one after the other:

        <|user|> It is dark. <|end|> <|assistant|> The fuse? <|end|> <|user|> ...
        [ a partner's piece        ] [ header    ] [ words ] [stop ] [ piece

    The agent chooses its words and the stop token, and everything else is read. The template must be
    prefix-stable (the text of a conversation begins with the text of its beginning), or a message that is
    added later would change what was read before; InputError if it is not, or if nothing ends a message.

    The agent's first word is chosen from a position before it. If it speaks first and the template has no
    header, that is the tokenizer's bos token; InputError if it has none.
    """

    stop: int
    """The token that ends a message of the agent, an action like any other."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE  # saved with it, so that others render what was learnt
        self._ids = _Remembered[bool, list[int]]()
        self._texts = _Remembered[str, str]()
        special = tokenizer.added_tokens_decoder.values()
        self._markers = tuple(t.content for t in special if t.special and t.content.strip())
        self._header: str | None = self._header_if_messages_are_independent()
        self.stop, self._after_stop = self._end_of_a_message()

    def encode(self, dialogues: Iterable[Dialogue], longest_wait: int | None = None) -> list[Tokens]:
        """Token records of logged conversations.

        If partners say more than `longest_wait` ids between two turns of the agent, the last ones are kept.
        InputError names the conversation whose roles the template does not take.
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

        What the agent said in the prompt is only read: it was not chosen here.
        """
        row = TokenWriter()
        row.read(self.opening(prompt))
        row.act([*self._encode(text, literally=True), self.stop], reward, None)
        return row.tokens(terminated=True, next_known=True, id=id)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids that precede the agent's first token."""
        return self._begun(self._read(list(messages), 0))

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
        # The model speaks as the assistant, whatever role the agent has in the log: if people are to be
        # imitated (agent "user"), the two sides swap.
        partner = {"assistant": "user"}
        roles = ["assistant" if m.role == d.agent_role else partner.get(m.role, m.role) for m in d.messages]
        messages = [Message(role, m.content) for role, m in zip(roles, d.messages, strict=True)]
        kept = slice(-longest_wait if longest_wait else None, None)
        for i, m in enumerate(d.messages):
            if m.role == d.agent_role:
                # The header is never cut: its last token is the position from which the first word is chosen.
                read = heard[kept] + self._encode(self._header_after(messages[:i]))
                row.read(read if row.ids else self._begun(read))
                ids = self._encode(m.content, literally=True)
                row.act([*ids, self.stop], m.reward, m.behavior_logp)
                row.read(self._after_stop)
                heard = []
            else:
                heard += self._encode_piece(messages, i)
        row.read(heard[kept])
        spoke_last = d.messages[-1].role == d.agent_role
        if not d.terminated and not spoke_last:
            # A cut conversation goes on: with the header its last position is the state of the next decision,
            # whose value the last action bootstraps from. If the agent spoke last, the partner's answer was
            # never logged, so that this state is unknown.
            row.read(self._encode(self._header_after(messages)))
        return row.tokens(terminated=d.terminated, next_known=d.terminated or not spoke_last, id=d.id)

    def _end_of_a_message(self) -> tuple[int, list[int]]:
        """The stop token, and the ids between it and the next piece (a newline, say)."""
        words = "Words."
        talk = [Message("user", "y"), Message("assistant", words), Message("user", "z")]
        self._partner_piece(talk, 2)  # refuses a template that rewrites what stands before
        body = _suffix(self._render(talk[:2], False), self._render(talk[:1], True))
        tail = self._encode(body[body.index(words) + len(words) :])
        # Text that may stand in a message as well (a space, a newline) cannot be what ends it.
        ends = [i for i, token in enumerate(tail) if token in _special(self.tokenizer)]
        if not ends:
            if self.tokenizer.eos_token_id is None:
                raise InputError("the tokenizer has neither an end in its chat template nor an eos token")
            tail, ends = [self.tokenizer.eos_token_id, *tail], [0]
        return tail[ends[0]], tail[ends[0] + 1 :]

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
        """Ids of a text; with `literally`, special tokens (the stop, say) are encoded as plain text."""

        def encoded() -> list[int]:
            # Not verbose: it would warn of texts longer than the context, which `segments` sees to.
            options = {"add_special_tokens": False, "split_special_tokens": literally, "verbose": False}
            return self.tokenizer.encode(text, **options) if text else []

        return self._ids.of(text, literally, encoded)

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
        """A message's own text, remembered: scripted partners repeat themselves."""
        return self._texts.of(message.content, message.role, lambda: self._apply([message], False))

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

        If it is, a message is rendered once instead of with everything before it, and encoding a conversation
        takes time linear in its length and not quadratic. Templates that depend on neighbouring
        messages (one that writes a date before the first message, or refuses two users in a row) are rendered
        in full.
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


class _Remembered(Generic[K, V]):
    """What was made of texts, each for a purpose; once they are `REMEMBERED` characters it begins anew.

    Without a bound, the texts of large logs would stay in memory as long as their format.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, K], V] = {}
        self._size = 0

    def of(self, text: str, purpose: K, make: Callable[[], V]) -> V:
        """What `make` makes of the text, from memory if it was made before."""
        key = (text, purpose)
        found = self._made.get(key)
        if found is None:
            if self._size > REMEMBERED:
                self._made.clear()
                self._size = 0
            found = self._made[key] = make()
            self._size += len(text) + 100  # characters, and about as much for the entry itself
        return found


def token_rows(dialogues: Sequence[Dialogue], chat: ChatFormat, context: int) -> list[Tokens]:
    """Rows of at most `context` positions; a longer conversation becomes several neighbouring rows."""
    # Half the context for what partners say between two turns leaves room for the turn itself.
    return [row for t in chat.encode(dialogues, context // 2) for row in segments(t, context)]


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
