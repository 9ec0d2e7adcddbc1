"""The 41 chat templates that TRL 1.16 ships, each with one reply and with a talk of several turns.

TRL writes a preference's reply as the template renders it behind the prompt. So do we: the same ids, up to
the stop token (TRL also learns the newline behind it), and the same log-probabilities. The exception are
templates whose prompt for a reply opens a block of reasoning that their replies do not have, or have
otherwise. There TRL cuts the prompt where the two part, and warns that it learns from a prompt that nobody
will see. Here the prompt stays whole, and the reply closes the block first.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.replies import score_replies

trl: Any = pytest.importorskip("trl")
FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(p.stem for p in FOLDER.glob("*.jinja") if not p.stem.endswith("_training"))
MARKER = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜]+｜>|<\|?(?:turn|channel)\|?>|<(?:start|end)_of_[a-z]+>|</?s>")
ALSO = ("[gMASK]", "<sop>", "<image>")
CLOSES = {  # what a reply begins with where the prompt for it opens a block that the template's replies lack
    "deepseek_r1_distill": "\n</think>\n\n",
    "deepseekv3": "\n</think>\n\n",
    "nemotron_3_5_lightning": "</think>",
    "nemotron_3_nano": "</think>",
    "nemotron_3_super": "</think>",
    "nemotron_3_ultra": "</think>",
}
PARTS = ("idefics3", "llava_next", "smolvlm")
"""templates of models that see pictures, which lose contents that are plain text"""
ENDLESS = ("glm4moe",)
"""templates that write no end behind a reply: there it is the eos token"""
PROMPT = (Message("user", "Does it work?"),)
REPLIES = ("It does, my friend.", "No.")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_with: Any) -> Any:
    """One for all templates: every marker of theirs is a special token."""
    markers = {m for name in NAMES for m in MARKER.findall((FOLDER / f"{name}.jinja").read_text("utf-8"))}
    return tokenizer_with(None, sorted({*markers, *ALSO, "<s>", "</s>"}), "</s>")


@pytest.fixture(scope="module")
def lm(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return llama(len(tokenizer), width=16, layers=1, heads=2, context=4096, eos=0, pad=0).eval()


def set_template(tokenizer: Any, name: str) -> ChatFormat:
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text("utf-8")
    return ChatFormat(tokenizer)


def as_dicts(name: str, *messages: Message) -> list[dict[str, Any]]:
    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if name in PARTS else text

    return [{"role": m.role, "content": content(m.content)} for m in messages]


def trls_rows(tokenizer: Any, name: str) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) of each reply, as `DPOTrainer` writes a pair of them."""
    from trl.data_utils import common_prefix_length

    def ids(*messages: Message, **options: Any) -> list[int]:
        chat = as_dicts(name, *messages)
        return tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, **options)

    asked = ids(*PROMPT, add_generation_prompt=True)
    answered = [ids(*PROMPT, Message("assistant", reply)) for reply in REPLIES]
    n = min(common_prefix_length(asked, whole) for whole in answered)
    return [(asked[:n], whole[n:]) for whole in answered]


def trls_logp(lm: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Log-probability of each token of a completion, by TRL's function on the model's own logits."""
    from trl.trainer.utils import selective_log_softmax

    ids = torch.tensor([prompt + completion])
    logits = lm(input_ids=ids).logits[:, :-1]
    return selective_log_softmax(logits, ids[:, 1:])[0, len(prompt) - 1 :]


def rows_of(chat: ChatFormat) -> list[Tokens]:
    return [chat.reply(PROMPT, reply) for reply in REPLIES]


def test_there_are_41() -> None:
    assert len(NAMES) == 41, "TRL ships other templates now: look at the new ones"


@pytest.mark.parametrize("name", NAMES)
def test_a_reply_has_trls_ids_and_log_probabilities(tokenizer: Any, lm: Any, name: str) -> None:
    chat = set_template(tokenizer, name)
    rows, stop = rows_of(chat), chat.stop
    assert tokenizer.decode([stop]) == "</s>" or name not in ENDLESS
    batch = pack_tokens(rows, gamma=1.0)
    with torch.no_grad():
        ours = score_replies(lm, batch).logp
        for i, (prompt, completion) in enumerate(trls_rows(tokenizer, name)):
            if name in ENDLESS:
                completion = [*completion, tokenizer.eos_token_id]
            completion = completion[: completion.index(stop) + 1]
            if name in CLOSES:
                prompt = tokenizer.apply_chat_template(
                    as_dicts(name, *PROMPT), tokenize=True, return_dict=False, add_generation_prompt=True
                )
                said = CLOSES[name] + REPLIES[i]
                completion = [*tokenizer.encode(said, add_special_tokens=False), stop]
            if name in PARTS:  # the space before the words is no token of its own here
                completion = [*tokenizer.encode(REPLIES[i], add_special_tokens=False), stop]
            row = rows[i]
            assert row.ids[~row.action].tolist() == prompt
            assert row.ids[row.action].tolist() == completion
            assert_close(ours[i, : len(completion)], trls_logp(lm, prompt, completion))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_as_said(tokenizer: Any, name: str) -> None:
    """A partner reads the words alone, without what the template leads in with, and after any reasoning."""
    chat = set_template(tokenizer, name)
    for row, reply in zip(rows_of(chat), REPLIES, strict=True):
        assert chat.text(row.ids[row.action].tolist()) == reply
    if chat._template.thinks:
        row = chat.reply(PROMPT, "<think>\nIt might.\n</think>\n\nYes.")
        said = row.ids[row.action].tolist()
        assert chat.text(said) == "Yes." and said.count(chat.stop) == 1
        assert tokenizer.decode(row.ids).count("<think>") == tokenizer.decode(row.ids).count("</think>") == 1


TALK = (*PROMPT, Message("assistant", "It does."), Message("user", "And now?"), Message("assistant", "No."))


@pytest.mark.parametrize("name", NAMES)
def test_several_turns_are_read_as_they_are_played(tokenizer: Any, name: str) -> None:
    """The first turn is the template's own text; each later message follows, and no marker is lost."""
    chat = set_template(tokenizer, name)
    (row,) = chat.encode([Dialogue((*TALK, Message("user", "Why?")), terminated=False)])
    played = chat.opening(TALK[:1])
    for n in (2, 4):
        words = chat.reply(PROMPT, TALK[n - 1].content)
        played += words.ids[words.action].tolist()
        new = TALK[n : n + 1] or (Message("user", "Why?"),)
        played += chat.continuation(TALK[:n], new)
    assert row.ids.tolist() == played
    first = rows_of(chat)[0]
    assert row.ids[: int(row.action.argmax())].tolist() == first.ids[~first.action].tolist()
    asked = tokenizer.apply_chat_template(as_dicts(name, *PROMPT), tokenize=False, add_generation_prompt=True)
    header = asked.rpartition("Does it work?")[2]
    assert tokenizer.decode(row.ids).count(header) == 3
    assert tokenizer.decode(row.ids).endswith("Why?" + header)


ARGUMENTS = '{"place": "Paris", "days": 3}'
CALLED = Message("assistant", "", tool_calls=(ToolCall("call00001", "forecast", ARGUMENTS),))
ANSWERED = Message("tool", "Sunny.", name="forecast", tool_call_id="call00001")
TALK_WITH_TOOLS = (
    Message("user", "What weather?"),
    CALLED,
    ANSWERED,
    Message("assistant", "It is sunny."),
    Message("user", "Thanks."),
    Message("assistant", "Bye."),
)
PLAIN_CALLS = {
    *("cohere", "cohere2", "gemma", "gemma3", "idefics3", "lfm2", "llama3", "llava_next", "phi3", "phi3_5"),
    *("deepseek_r1_distill", "qwen2_5_vl", "smolvlm"),
}
"""templates that know of no calls, or lose a part of them"""


@pytest.mark.parametrize("name", NAMES)
def test_calls_of_functions_and_their_results_are_not_lost(tokenizer: Any, name: str) -> None:
    """The agent's first action has the call's name and arguments, and what is read next the tool's answer, in
    the template's own form or else in a plain one. A talk that is played reads the same ids, whether the call
    is known as one or is text."""
    chat = set_template(tokenizer, name)
    (row,) = chat.encode([Dialogue((*TALK_WITH_TOOLS, Message("user", "Bye.")), terminated=False)])
    ends = np.flatnonzero(row.turn_end)
    acts = [tokenizer.decode(row.ids[: end + 1][row.action[: end + 1]]) for end in ends]
    assert all(word in acts[0] for word in ("forecast", "place", "Paris", "days", "3"))
    assert "It is sunny." in acts[1] and "Bye." in acts[2]
    begins = ends[0] + 1 + int(row.action[ends[0] + 1 :].argmax())
    assert "Sunny." in tokenizer.decode(row.ids[ends[0] + 1 : begins])
    assert ("call forecast(" + ARGUMENTS in acts[0]) == (name in PLAIN_CALLS)
    played = chat.opening(TALK_WITH_TOOLS[:1])
    for turn, until in ((1, 3), (3, 5), (5, 6)):
        played += row.ids[len(played) : ends[(turn - 1) // 2] + 1].tolist()
        new = TALK_WITH_TOOLS[turn + 1 : until] or (Message("user", "Bye."),)
        played += chat.continuation(TALK_WITH_TOOLS[: turn + 1], new)
    assert row.ids.tolist() == played
    assert played_as_text(chat, row, TALK_WITH_TOOLS) == row.ids.tolist()[: ends[1] + 1]


def played_as_text(chat: ChatFormat, row: Tokens, talk: tuple[Message, ...]) -> list[int]:
    """Ids up to the end of the agent's second turn, if what it said first is known as text alone."""
    first, second = np.flatnonzero(row.turn_end)[:2]
    said = chat.text(row.ids[: first + 1][row.action[: first + 1]][:-1])
    ids = row.ids[: first + 1].tolist() + chat.continuation([talk[0], Message("assistant", said)], [talk[2]])
    return ids + row.ids[len(ids) : second + 1].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_words_beside_a_call_are_not_lost(tokenizer: Any, name: str) -> None:
    """Some templates lose them, some write them behind the call or behind what the tool answers."""
    chat = set_template(tokenizer, name)
    talk = (TALK_WITH_TOOLS[0], replace(CALLED, content="Let me see."), *TALK_WITH_TOOLS[2:])
    (row,) = chat.encode([Dialogue(talk)])
    first = np.flatnonzero(row.turn_end)[0]
    said = tokenizer.decode(row.ids[: first + 1][row.action[: first + 1]])
    assert all(word in said for word in ("Let me see.", "forecast", "Paris", "3"))
    assert "Sunny." in tokenizer.decode(row.ids[first:][~row.action[first:]])
    assert played_as_text(chat, row, talk) == row.ids.tolist()[: np.flatnonzero(row.turn_end)[1] + 1]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_instruct_2507", "llama3", "gptoss"])
def test_a_call_that_a_template_cannot_write_is_written_plainly(tokenizer: Any, name: str) -> None:
    """Arguments that are no object, two calls where a template writes one, and a marker in an argument."""
    chat = set_template(tokenizer, name)
    odd = [
        (ToolCall(None, "look", "Paris, 3"),),
        (ToolCall("a", "look", "{}"), ToolCall("b", "forecast", ARGUMENTS)),
        (ToolCall("a", "look", '{"place": "<|im_end|><|end|><|eot_id|>"}'),),
    ]
    for calls in odd:
        talk = (PROMPT[0], Message("assistant", "", tool_calls=calls), replace(ANSWERED, tool_call_id="a"))
        (row,) = chat.encode([Dialogue((*talk, Message("assistant", "Done.")))])
        said = tokenizer.decode(row.ids[row.action])
        assert all(c.name in said for c in calls) and all(c.arguments in said or "{" in said for c in calls)
        assert (row.ids[row.action] == chat.stop).sum() == 2
        assert "Sunny." in tokenizer.decode(row.ids[~row.action])
