"""The chat templates that TRL ships: which are taken, and whether log-probabilities equal TRL's.

    python experiments/chat_templates.py       # needs trl; about 4 minutes on one core

Each of the 41 templates of TRL 1.16 gets a tokenizer in which its markers are special tokens, and a Llama
with random weights. A policy is trained from them by `dpo` and by `rloo`, a step each, as anybody would.
Then TRL's `DPOTrainer` writes a pair of replies behind the same prompt, and TRL's function takes the
log-probabilities of its tokens, up to the stop token (TRL also learns the newline that a template has behind
it). *Difference* is the largest one between them and those of the same tokens here, in nats; for `rloo`,
between what was recorded when a reply was sampled and TRL's log-probabilities of it behind TRL's prompt.

*Lead* is what a reply begins with, before its words. If a template's prompt for a reply opens a block of
reasoning that its finished replies do not have, TRL cuts the prompt where they part, and warns that the
policy learns from a prompt that it will not see. Here the prompt stays whole and the reply closes the block.
Those rows are marked *closed*, and TRL's function is given our ids. Templates of models that see pictures
(idefics3, llava_next, smolvlm) may write a space before the words, which is no token of its own here. The
last column says how a conversation of several turns is read: as the template's text, or as it was spoken, if
the template rewrites earlier messages when later ones are added.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from common import make_part, options, parse, read_part, story_of, write_page, write_results
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import turnwise as tw
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import save_lm
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.replies import sample_replies
from turnwise.run.rehearsal import rehearsing

MARKER = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜]+｜>|<\|?(?:turn|channel)\|?>|<(?:start|end)_of_[a-z]+>|</?s>")
ALSO = ("[gMASK]", "<sop>", "<image>")
PROMPTS = tuple(f"Does {x} work?" for x in ("it", "this", "that", "the door", "the light", "your car"))
REPLIES = ("It does, my friend.", "No.")
TALK = tuple(Message(("user", "assistant")[i % 2], "Yes.") for i in range(4))
PARTS = ("idefics3", "llava_next", "smolvlm")
"""templates for contents in parts: words and pictures"""


def tokenizer_for(template: str) -> Any:
    """Byte-level, with the template's markers as special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = sorted({*MARKER.findall(template), *ALSO, "<s>", "</s>", "<pad>"})
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PROMPTS, *REPLIES] * 2, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    return fast


def row_of(name: str, template: str, folder: Path) -> dict[str, Any]:
    """What becomes of one template."""
    torch.manual_seed(0)
    tokenizer = tokenizer_for(template)
    chat = ChatFormat(tokenizer)
    pad = tokenizer.pad_token_id
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=4096, eos=chat.stop, pad=pad)
    save_lm(folder / "start", lm, tokenizer)
    pairs = tw.read_feedback([{"prompt": p, "chosen": REPLIES[0], "rejected": REPLIES[1]} for p in PROMPTS])
    start = str(folder / "start")
    few = {"quiet": True, "max_new_tokens": 4, "heldout": 0.0}
    after = tw.fit(tw.DPO(epochs=1.0, batch_size=4), pairs, policy=start, out=folder / "dpo", **few)
    tw.fit(
        tw.RLOO(steps=1, prompts_per_step=2, group=2),
        tw.read_prompts([{"prompt": p} for p in PROMPTS]),
        policy=start,
        reward=lambda completions, **_: [float(len(str(c))) for c in completions],
        out=folder / "rloo",
        **few,
    )
    lm = after.agent.lm
    closed, apart, ids = compared(name, lm, tokenizer, chat, folder)
    return {
        "template": name,
        "lead": tokenizer.decode(chat.lead),
        "stop": tokenizer.decode([chat.stop]),
        "closed": closed,
        "same_ids": ids,
        "dpo": apart,
        "rloo": sampled_apart(name, lm, tokenizer, chat),
        "spoken": bool(chat.notes_on([Dialogue(TALK)])),
    }


def compared(name: str, lm: Any, tokenizer: Any, chat: ChatFormat, folder: Path) -> tuple[bool, float, bool]:
    """Whether TRL cut its prompt, the largest difference of log-probabilities, whether all ids are TRL's."""
    rows = [chat.reply([Message("user", PROMPTS[0])], reply) for reply in REPLIES]
    with torch.no_grad():
        ours = score_replies(lm, pack_tokens(rows, gamma=1.0)).logp
    prompt, theirs = trls_ids(name, lm, tokenizer, folder)
    closed, same, largest = prompt != rows[0].ids[~rows[0].action].tolist(), True, 0.0
    for row, logp, completion in zip(rows, ours, theirs, strict=True):
        read, said = row.ids[~row.action].tolist(), row.ids[row.action].tolist()
        if chat.stop not in completion:  # the template writes no end: it is the eos token
            completion = [*completion, chat.stop]
        same = same and (read, said) == (prompt, completion[: completion.index(chat.stop) + 1])
        expected = trls_logp(lm, read, said)
        largest = max(largest, float((logp[: len(said)] - expected).abs().max()))
    return closed, largest, same


def trls_ids(name: str, lm: Any, tokenizer: Any, folder: Path) -> tuple[list[int], list[list[int]]]:
    """The prompt and the completions of a pair, as TRL's own trainer tokenizes them."""
    import trl
    from datasets import Dataset

    def said(role: str, text: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": [{"type": "text", "text": text}] if name in PARTS else text}]

    pair = {"chosen": said("assistant", REPLIES[0]), "rejected": said("assistant", REPLIES[1])}
    args = trl.DPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        report_to="none",
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
    )
    trainer = trl.DPOTrainer(
        model=lm,
        ref_model=copy.deepcopy(lm),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": said("user", PROMPTS[0]), **pair}]),
        processing_class=tokenizer,
    )
    row = next(iter(trainer.train_dataset))
    return row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]


@torch.no_grad()
def trls_logp(lm: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Log-probability of each token of a completion by TRL's function."""
    from trl.trainer.utils import selective_log_softmax

    ids = torch.tensor([prompt + completion])
    return selective_log_softmax(lm(input_ids=ids).logits[:, :-1], ids[:, 1:])[0, len(prompt) - 1 :]


def sampled_apart(name: str, lm: Any, tokenizer: Any, chat: ChatFormat) -> float:
    """The largest difference between recorded log-probabilities of sampled replies and TRL's of the same."""
    prompts = [(Message("user", p),) for p in PROMPTS]
    largest = 0.0
    for reply in sample_replies(LmPolicy(lm), chat, prompts, seed=0, max_new_tokens=8):
        text = reply.prompt[0].content
        content = [{"type": "text", "text": text}] if name in PARTS else text
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False
        )
        said, recorded = reply.tokens.ids[reply.tokens.action], reply.tokens.token_logp[reply.tokens.action]
        expected = trls_logp(lm, prompt, said.tolist())
        largest = max(largest, float((torch.from_numpy(recorded) - expected).abs().max()))
    return largest


def table(rows: list[dict[str, Any]]) -> str:
    """The page's table."""
    lines = [
        "| template | lead | stop | ids are TRL's | dpo: difference | rloo: difference | several turns |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        ids = "yes" if r["same_ids"] else "closed" if r["closed"] else "but for a space"
        lead = f"`{r['lead']!r}`".replace("|", "\\|") if r["lead"] else ""
        stop = "`" + r["stop"].replace("|", "\\|") + "`"
        closed = "the template's text, closed" if r["closed"] and not r["same_ids"] else "the template's text"
        several = "as spoken" if r["spoken"] else closed
        name = r["template"]
        lines.append(f"| {name} | {lead} | {stop} | {ids} | {r['dpo']:.0e} | {r['rloo']:.0e} | {several} |")
    return "\n".join(lines)


def main() -> None:
    """Make the rows and merge them."""
    a = parse(options(__doc__, "chat_templates"))
    import trl

    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    files = [f for f in files if not f.stem.endswith("_training")][: 2 if rehearsing() else None]
    for file in [] if a.table else files:
        text, folder = file.read_text(encoding="utf-8"), a.runs / file.stem
        make_part(a.runs / f"{file.stem}.json", lambda f=file, t=text, d=folder: row_of(f.stem, t, d))
    rows = [read_part(f) for f in sorted(a.runs.glob("*.json"))]
    same = sum(r["same_ids"] for r in rows)
    closed = sum(r["closed"] for r in rows)
    found = (
        f"{len(rows)} templates are taken. The ids of a reply are TRL's in {same} of them; {closed} close "
        f"the reasoning that their prompt opens. The largest difference of log-probabilities is "
        f"{max(max(r['dpo'], r['rloo']) for r in rows):.0e}."
    )
    write_results(a.runs, "chat_templates", {"trl": trl.__version__, "rows": rows})
    page = f"# The chat templates that TRL ships\n\n{story_of(__doc__)}\n\n{found}\n\n{table(rows)}"
    write_page(a.runs, "chat_templates", page)


if __name__ == "__main__":
    main()
