"""What a chat template writes around messages, as text: headers, ends, and what it adds of its own.

Templates differ in more than their markers. Some write an empty block of reasoning before a reply and take
it out of earlier ones, some end the last message in another way than those before, some want contents in
parts. All of it is found by rendering a few short conversations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from turnwise.data.chat.calls import CALL, FORMS, RESULT, WITH_WORDS, Call, as_dict, holds
from turnwise.data.dialogue import spoken
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
        special = tokenizer.added_tokens_decoder.values()
        self.markers = tuple(t.content for t in special if t.special and t.content.strip())
        self._parts, self._form = False, None
        self._parts = self._wants_parts()
        self._prompt, self._before, self.tail = self._around_a_reply()
        self.lead = _lead(self._prompt, self._before)
        self.header = self._header_if_messages_are_independent()
        self.grows = self.header is not None or self._only_grows()
        self._form = self._form_of_calls()

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

    def taken(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template can write them: what it would lose is put in words (`spoken`)."""
        if all(m.name is None and m.tool_calls is None and m.role != "tool" for m in messages):
            return list(messages)
        found, called = list[Message](), False
        for m in messages:
            if m.role == "assistant":
                called = m.tool_calls is not None and self.call(m) is not None
            whole = called if m.role == "assistant" else called and self._takes_results
            if not (whole and m.role in ("assistant", "tool")):
                role = "user" if m.role == "tool" and not self._takes_tools else m.role
                m = Message(role, spoken(m))
            found.append(m)
        return found

    def call(self, m: Message) -> Call | None:
        """How the template writes a message with calls; None if it would lose any of it, or make a marker of
        it.
        """
        said = [m.content, *(text for c in m.tool_calls or () for text in (c.name, c.arguments))]
        if self._form is None or any(marker in text for marker in self.markers for text in said):
            return None
        try:
            rest = self.render([EXCHANGE[0], m], False).partition(QUESTION)[2]
        except InputError:
            return None
        lead = rest.startswith(self._before)
        if not lead and not rest.startswith(self._prompt):
            return None
        text = rest[len(self._before if lead else self._prompt) :]
        found = Call(text.removesuffix(self.tail), lead, text.endswith(self.tail))
        if not holds(found.text, m) or (m.content and m is not WITH_WORDS and not self._keeps_words):
            return None
        return found

    def render(self, messages: Sequence[Message], prompt: bool) -> str:
        """The text of a conversation; with `prompt`, up to where the agent speaks next.

        InputError for roles that the template does not take in this order.
        """
        try:
            chat = [self._as_template_takes_it(m) for m in messages]
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
        except Exception as e:  # templates raise whatever they like on role orders they do not take
            roles = ", ".join(m.role for m in messages) or "no message before the agent's"
            raise InputError(f"the tokenizer's chat template does not take {roles} ({e})") from e

    def after_the_last_reply(self, messages: Sequence[Message]) -> str:
        """What stands behind the agent's last message and its end, up to where it speaks next.

        Whatever the template makes of earlier messages, what it adds behind them is found here.
        """
        last = max(i for i, m in enumerate(messages) if m.role == "assistant")
        call = self.call(messages[last]) if messages[last].tool_calls else None
        words, spoken_of = WORDS, list(messages)
        if call is not None:
            words = call.text
        else:
            while any(words in m.content for m in messages):
                words += "."
            spoken_of[last] = Message("assistant", words)
        _, found, text = self.render(spoken_of, True).rpartition(words)
        if not found:
            raise InputError("the tokenizer's chat template does not write what the agent says")
        if call is not None and not call.ended:
            return text
        if self.grows:
            return text.removeprefix(self.tail)
        # In the middle of a conversation a message may end in another way than at the end of all.
        if not any(marker in self.tail for marker in self.markers):
            return text
        text = text.lstrip()
        return text.removeprefix(next((m for m in self.markers if text.startswith(m)), ""))

    def _as_template_takes_it(self, m: Message) -> dict[str, Any]:
        content: Any = [{"type": "text", "text": m.content}] if self._parts else m.content
        row: dict[str, Any] = {"role": m.role, "content": content}
        if m.tool_calls is not None:
            parsed, none = self._form or FORMS[0]
            row["content"] = None if none and not m.content else content
            row["tool_calls"] = [as_dict(call, parsed) for call in m.tool_calls]
        named = {"name": m.name, "tool_call_id": m.tool_call_id}
        return row | {key: value for key, value in named.items() if value is not None}

    def _form_of_calls(self) -> tuple[bool, bool] | None:
        """The first of `FORMS` in which the template writes a call whole; None if there is none."""
        for form in FORMS:
            self._form = form
            if self.call(CALL) is not None:
                return form
        return None

    @cached_property
    def _keeps_words(self) -> bool:
        """Whether words beside a call stay where they were once the tool has answered."""
        call = self.call(WITH_WORDS)
        return call is not None and self._writes(call.text, [EXCHANGE[0], WITH_WORDS, RESULT])

    @cached_property
    def _takes_results(self) -> bool:
        """Whether it writes what a tool answers to a call that it wrote."""
        return self._writes(RESULT.content, [EXCHANGE[0], CALL, RESULT])

    @cached_property
    def _takes_tools(self) -> bool:
        """Whether it writes a tool's message wherever it stands."""
        return self._writes(RESULT.content, [*EXCHANGE, Message("tool", RESULT.content)])

    def _writes(self, text: str, messages: Sequence[Message]) -> bool:
        try:
            return text in self.render(messages, True)
        except InputError:
            return False

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

    def _around_a_reply(self) -> tuple[str, str, str]:
        asked, answered = self.render(EXCHANGE[:1], True), self.render(EXCHANGE, False)
        if QUESTION not in asked or WORDS not in answered:
            raise InputError("the tokenizer's chat template does not write what messages say")
        before, _, tail = answered.rpartition(WORDS)
        # Behind the question, which a template may write in another way once it is answered.
        prompt, before = asked.rpartition(QUESTION)[2], before.rpartition(QUESTION)[2]
        return prompt, before, tail

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
    rest = before[shared_beginning(prompt, before) :]
    if prompt.rfind(THINK) > prompt.rfind(THOUGHT) and THOUGHT not in rest:
        return f"\n{THOUGHT}\n\n"
    return rest if rest.strip() else ""  # space before the words is the tokenizer's business


def shared_beginning(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How long the beginning is that two texts, or lists of ids, have in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def suffix(text: str, prefix: str) -> str:
    """What `text` has beyond `prefix`; InputError if it does not begin with it."""
    if not text.startswith(prefix):
        raise InputError(
            "the tokenizer's chat template rewrites earlier messages when later ones are added; expected a "
            "template whose text only grows"
        )
    return text[len(prefix) :]
