"""What a chat template writes around messages, as text: headers, ends, and what it adds of its own.

Templates differ in more than their markers. Some write an empty block of reasoning before a reply and take
it out of earlier ones, some end the last message in another way than those before, some want contents in
parts. All of it is found by rendering a few short conversations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

QUESTION, WORDS = "Question?", "Words."
EXCHANGE = (Message("user", QUESTION), Message("assistant", WORDS))
"""what is said in the conversations that are rendered to look at a template"""
THINK, THOUGHT = "<think>", "</think>"
"""what opens and closes the reasoning before a reply, in every family that writes it as text"""


class Template:
    """The chat template of a `transformers` tokenizer.

    `header`: the text that opens the agent's turn, if every conversation is its messages' texts in a row,
    each rendered alone; else None. Then messages are rendered one by one, which takes time linear in a
    conversation's length and not quadratic.
    `grows`: the text of a conversation begins with the text of its beginning.
    `lead`: what the template puts between the prompt for a reply and the reply's words: an empty block of
    reasoning, say, or the name of a channel. An agent that acts from the prompt has to say it first.
    `tail`: what follows the words of a reply that stands last.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._frames: dict[str, tuple[str, str] | None] = {}
        self._parts = False
        self._parts = self._wants_parts()
        self.lead, self.tail = self._around_a_reply()
        self.header = self._header_if_messages_are_independent()
        self.grows = self.header is not None or self._only_grows()

    def frame(self, role: str) -> tuple[str, str] | None:
        """What stands before and behind a message of this role, if its content is put between as it is.

        None if messages depend on each other, or if the template may look at what they say. Rendering takes
        some twenty microseconds a message.
        """
        if role not in self._frames:
            found = None
            if self.header is not None and not self._parts and copies_contents(self.tokenizer.chat_template):
                before, words, after = self.render([Message(role, WORDS)], False).partition(WORDS)
                found = (before, after) if words else None
            self._frames[role] = found
        return self._frames[role]

    @property
    def thinks(self) -> bool:
        """Whether a reply follows a block of reasoning, be it an empty one."""
        return THOUGHT in self.lead

    def render(self, messages: Sequence[Message], prompt: bool) -> str:
        """The text of a conversation; with `prompt`, up to where the agent speaks next.

        InputError for roles that the template does not take in this order.
        """
        chat = [self._as_template_takes_it(m) for m in messages]
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
        except Exception as e:  # templates raise whatever they like on role orders they do not take
            roles = ", ".join(m.role for m in messages) or "no message before the agent's"
            raise InputError(f"the tokenizer's chat template does not take {roles} ({e})") from e

    def after_the_last_reply(self, messages: Sequence[Message]) -> str:
        """What stands behind the agent's last words, up to where it speaks next.

        Whatever the template makes of earlier messages, what it adds behind them is found here.
        """
        last = max(i for i, m in enumerate(messages) if m.role == "assistant")
        words = WORDS
        while any(words in m.content for m in messages):
            words += "."
        spoken = [*messages[:last], Message("assistant", words), *messages[last + 1 :]]
        _, found, text = self.render(spoken, True).rpartition(words)
        if not found:
            raise InputError("the tokenizer's chat template does not write what the agent says")
        return text

    def _as_template_takes_it(self, m: Message) -> dict[str, Any]:
        content = [{"type": "text", "text": m.content}] if self._parts else m.content
        return {"role": m.role, "content": content}

    def _wants_parts(self) -> bool:
        """Templates of models that see pictures may lose a content that is plain text."""
        if self._writes_both():
            return False
        self._parts = True
        return self._writes_both()

    def _writes_both(self) -> bool:
        try:
            text = self.render(EXCHANGE, False)
        except InputError:
            return False
        return QUESTION in text and WORDS in text

    def _around_a_reply(self) -> tuple[str, str]:
        asked, answered = self.render(EXCHANGE[:1], True), self.render(EXCHANGE, False)
        if QUESTION not in asked or WORDS not in answered:
            raise InputError("the tokenizer's chat template does not write what messages say")
        before, _, tail = answered.rpartition(WORDS)
        # Behind the question, which a template may write in another way once it is answered.
        prompt, before = asked.rpartition(QUESTION)[2], before.rpartition(QUESTION)[2]
        return _lead(prompt, before), tail

    def _only_grows(self) -> bool:
        """Whether some conversations are rendered as their beginnings were, and on."""
        s, (u, a) = Message("system", "s"), EXCHANGE
        grown = False
        for talk in ([u, a, u, a, u], [s, u, a, u, a, u]):
            try:
                before = self.render(talk[:1], False) if talk[0] is u else ""
                for n in range(1 if talk[0] is u else 2, len(talk) + 1):
                    text = self.render(talk[:n], False)
                    if not text.startswith(before) or not self.render(talk[:n], True).startswith(text):
                        return False
                    before, grown = text, True
            except InputError:  # it takes no system message
                continue
        return grown

    def _header_if_messages_are_independent(self) -> str | None:
        """The agent's header, if a conversation's text is its messages' texts in a row, else None.

        Templates that depend on neighbouring messages (one that writes a date before the first message, or
        refuses two users in a row) are rendered in full.
        """
        s, u, a = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
        try:
            alone = {m.role: self.render([m], False) for m in (s, u, a)}
            header = suffix(self.render([u], True), alone["user"])
            for talk in ([s, u, a, u, a], [u, a, a, u], [a, u]):
                text = "".join(alone[m.role] for m in talk)
                if self.render(talk, False) != text or self.render(talk, True) != text + header:
                    return None
        except InputError:  # roles in an order that it refuses
            return None
        return header if alone["assistant"].startswith(header) else None


_BLOCKS = re.compile(r"{%-?(.*?)-?%}|{{-?(.*?)-?}}|{#.*?#}", re.DOTALL)
_STATEMENT = re.compile(r"for \w+ in messages|endfor|if [^|(]*|elif [^|(]*|else|endif")
_TERM = re.compile(r"""'[^']*'|"[^"]*"|\w+|\w+(\['\w+'\]|\["\w+"\]|\.\w+)""")


def copies_contents(template: Any) -> bool:
    """Whether a template surely writes contents as they are, and asks nothing of them.

    It does if it has only loops over the messages and conditions that name no content, and if all that it
    writes are texts, names and fields in a row. Other templates may do so too: this looks at no more.
    """
    if not isinstance(template, str):
        return False
    for statement, expression in _BLOCKS.findall(template):
        statement = statement.strip()
        if statement and ("content" in statement or not _STATEMENT.fullmatch(statement)):
            return False
        terms = [term.strip() for term in expression.split("+")] if expression else []
        if not all(_TERM.fullmatch(term) for term in terms):
            return False
    return True


def _lead(prompt: str, before: str) -> str:
    """What a reply begins with after `prompt`, in a template that writes `before` where it gave the prompt.

    prompt                before                            lead
    ..assistant           ..assistant<think></think>        <think></think>
    ..assistant<think>    ..assistant<think></think>        </think>
    ..assistant<think>    ..assistant                       </think>, or the words would be reasoning
    """
    shared = next((i for i, (x, y) in enumerate(zip(prompt, before, strict=False)) if x != y), len(prompt))
    rest = before[shared:]
    if prompt.rfind(THINK) > prompt.rfind(THOUGHT) and THOUGHT not in rest:
        return f"\n{THOUGHT}\n\n"
    return rest if rest.strip() else ""  # space before the words is the tokenizer's business


def suffix(text: str, prefix: str) -> str:
    """What `text` has beyond `prefix`; InputError if it does not begin with it."""
    if not text.startswith(prefix):
        raise InputError(
            "the tokenizer's chat template rewrites earlier messages when later ones are added; expected a "
            "template whose text only grows"
        )
    return text[len(prefix) :]
