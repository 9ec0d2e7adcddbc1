"""Whether a server belongs to a policy: what it says, beside what the policy itself makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.engines.decoding import Decoding, distribution
from turnwise.rollout.engines.servers.contract import Answer, Ask, Server
from turnwise.rollout.engines.servers.transport import Refused
from turnwise.run.errors import InputError

PROBE = (Message("user", "Why does it not work? I have tried it 3 times."),)
"""what every server is asked first"""
SPOKEN = 8
"""tokens of its answer"""
FLOAT32 = 1e-4
"""largest difference between two log-probabilities of one model that float32 explains, in nats"""
OTHER = 0.1
"""differences beyond this share of the spread of log-probabilities are another model's, in any precision"""
OTHER_MEAN = 0.2
"""mean difference of a batch, in nats, that no precision explains"""
ROWS = 256
"""rows scored at a time"""


@dataclass(frozen=True)
class Beside:
    """A server's log-probabilities beside the policy's own, of the same tokens."""

    error: float
    """largest difference, in nats, of the distribution that was to be sampled from"""
    error_raw: float
    """the same of the policy's distribution before temperature, top-k and top-p"""
    spread: float
    """standard deviation of the policy's log-probabilities over its vocabulary, in nats"""

    @property
    def same(self) -> bool:
        """Whether one model gives both."""
        return self.error <= max(FLOAT32, OTHER * self.spread)


def probe(chat: ChatFormat, decoding: Decoding, context: int) -> Ask:
    """What a server is asked to see whether it belongs to a policy."""
    ids = chat.opening(PROBE)[-(context - 1) :]
    return Ask(tuple(ids), min(SPOKEN, context - len(ids)), 0, chat.stop, decoding)


@torch.inference_mode()
def beside(policy: LmPolicy, ask: Ask, answer: Answer) -> Beside:
    """The answer's log-probabilities, and the policy's own of the same tokens."""
    read, n = len(ask.ids), len(answer.ids)
    ids = torch.tensor([[*ask.ids, *answer.ids]], device=policy.device)  # [1, T]
    decisions = torch.arange(read - 1, read + n, device=policy.device).unsqueeze(0)  # [1, n + 1]
    logits = policy(ids, decisions)[0].double()  # [n, V]
    raw, chosen = logits.log_softmax(-1), ids[0, read:].unsqueeze(-1)
    wanted = distribution(logits, ask.decoding).log()
    said = torch.tensor(answer.logp, dtype=torch.float64, device=policy.device)
    errors = [float((x.gather(-1, chosen).squeeze(-1) - said).abs().max()) for x in (wanted, raw)]
    return Beside(errors[0], errors[1], float(raw.std(-1).mean()))


def expect_same(
    server: Server, policy: LmPolicy, ask: Ask, tell: Callable[[str], None] | None = None
) -> Beside:
    """Ask, compare, and warn of less precision. InputError for another model or another distribution."""
    vocabulary = policy.lm.get_input_embeddings().num_embeddings
    answer = server.say(ask)
    if max(answer.ids) >= vocabulary:
        raise InputError(
            f"{server.url}: says token {max(answer.ids)}; the policy's vocabulary has {vocabulary:,}: "
            "expected a server of the same model"
        )
    found = beside(policy, ask, answer)
    if not found.same:
        raw = Beside(found.error_raw, found.error_raw, found.spread)
        if raw.same:
            raise InputError(
                f"{server.url}: its log-probabilities are those before temperature, top_k and top_p, and not "
                "of what it samples from; expected vLLM started with --logprobs-mode processed_logprobs"
            )
        raise InputError(
            f"{server.url}: its log-probabilities differ from the policy's by up to {found.error:.3g} nats a "
            "token on the same words: it has another model or other weights; expected a server of the policy"
        )
    if found.error > FLOAT32 and tell is not None:
        tell(precision_in_words(server.url, found.error))
    return found


def expect_same_tokens(server: Server, chat: ChatFormat, ask: Ask) -> None:
    """InputError for a server with another tokenizer, or a smaller vocabulary."""
    text = PROBE[0].content
    spelt, own = server.spelt(text), chat.tokenizer.encode(text, add_special_tokens=False)
    if spelt is not None and list(spelt) != list(own):
        raise InputError(
            f"{server.url}: its tokenizer makes {list(spelt)[:6]}... of {text!r}, the policy's {own[:6]}...; "
            "expected a server with the same tokenizer"
        )
    last = _last_of(chat.tokenizer)
    try:
        server.say(Ask((last, *ask.ids[1:]), 1, 0, ask.stop, ask.decoding))
    except Refused as e:
        raise InputError(
            f"{server.url}: does not take token {last}, the last of the policy's vocabulary ({e}); expected "
            "a server with the same tokenizer and model"
        ) from e


def precision_in_words(who: str, largest: float) -> str:
    """What a person should know of a server that is close, and not as close as float32 is."""
    return (
        f"{who}: its log-probabilities differ from the policy's own by up to {largest:.2g} nats a token, "
        f"more than float32 explains ({FLOAT32:g}): it computes with less precision (its dtype), or its "
        "weights are not quite these; importance ratios use the server's, which are those of what was sampled"
    )


@torch.inference_mode()
def own_logp(policy: LmPolicy, rows: Sequence[Tokens], group: int) -> list[np.ndarray]:
    """What the policy itself gives the tokens chosen, by row; rows of a group share their prompt."""
    found = []
    for part in chunks(list(rows), group * max(1, ROWS // group)):
        batch = pack_tokens(part, gamma=1.0).to(policy.device)
        logp, mask = score_replies(policy.lm, batch, group=group).logp.double().cpu(), batch.mask.cpu()
        found += [x[m].numpy() for x, m in zip(logp, mask, strict=True)]
    return found


def _last_of(tokenizer: Any) -> int:
    """The largest id that a word has."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return max(i for i in tokenizer.get_vocab().values() if i not in special)
