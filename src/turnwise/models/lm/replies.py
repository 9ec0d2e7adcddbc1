"""Log-probabilities of replies: a prompt that rows share is read once, logits never exist all at once.

Rows of a group (the G replies that were sampled for a prompt, or a pair) begin with the same ids. Their keys
and values are computed once, with gradient, and expanded over the group; the batch itself does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.tokens import Tokens
from turnwise.losses.policy import entropy
from turnwise.models.chunks import MOST, in_chunks, logp_of_linear, with_own_gradients
from turnwise.models.decisions import at_decisions
from turnwise.models.lm.encoder_decoder.trunk import EncoderDecoder
from turnwise.models.lm.learning.recompute import recomputes
from turnwise.models.lm.parts import features_at, lm_head_of, trunk_of, window_of


class Scored(NamedTuple):
    """Log-probability of the action and entropy of the policy at each decision [B, A], 0 where masked."""

    logp: Tensor
    entropy: Tensor


def score_replies(lm: Any, batch: Batch, *, group: int = 1, most_logits: int = MOST) -> Scored:
    """What a language model gives the actions of a batch; with `group` G, rows pG .. pG+G-1 share a prompt.

    Logits are formed at decisions, `most_logits` numbers at a time, and formed again when gradients come
    back, so that memory does not grow with B A V.
    """
    mask = batch.mask
    features = features_at_decisions(trunk_of(lm), batch.inputs, batch.decisions, group)  # [B, A, D]
    counted, chosen = features[mask], batch.actions[mask]  # [n, D], [n]: padding has no logits
    head = lm_head_of(lm)
    found = in_chunks(partial(_scores, head), lm.config.vocab_size, counted, chosen, most=most_logits)
    nothing = found[0].new_zeros(mask.shape)
    return Scored(*(nothing.masked_scatter(mask, x) for x in found))


def actions_logp(lm: Any, batch: Batch, *, group: int = 1, most_logits: int = MOST) -> Float[Tensor, "B A"]:
    """The log-probabilities alone, 0 where masked. Where the output layer does not learn, as below adapters,
    no logit is formed twice.
    """
    mask = batch.mask
    features = features_at_decisions(trunk_of(lm), batch.inputs, batch.decisions, group)  # [B, A, D]
    logp = token_logp(lm, features[mask], batch.actions[mask], most_logits=most_logits)
    return logp.new_zeros(mask.shape).masked_scatter(mask, logp)


def token_logp(
    lm: Any, features: Float[Tensor, "n D"], tokens: Int[Tensor, "n"], *, most_logits: int = MOST
) -> Float[Tensor, "n"]:
    """Log-probability of one token for each feature of the trunk."""
    head = partial(_logp, lm_head_of(lm))
    vocab = lm.config.vocab_size
    if any(p.requires_grad for p in lm.get_output_embeddings().parameters()):
        return in_chunks(lambda *x: (head(*x),), vocab, features, tokens, most=most_logits)[0]
    layer = lm_head_of(lm)
    if type(layer) is nn.Linear and features.dtype is torch.promote_types(features.dtype, layer.weight.dtype):
        return logp_of_linear(features, tokens, layer.weight, layer.bias, most=most_logits)
    return with_own_gradients(head, vocab, features, tokens, most=most_logits)


@runtime_checkable
class Scores(Protocol):
    """Something that scores replies: a policy, or one that is spread over processes."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        ...

    @property
    def context(self) -> int:
        """Tokens of a row at most."""
        ...

    def score(self, batch: Batch, group: int = 1) -> Scored:
        """`score_replies`."""
        ...

    def logp(self, batch: Batch, group: int = 1) -> Tensor:
        """`actions_logp`."""
        ...


class Scorer(nn.Module):
    """A policy's scores as a module's forward pass, so that it may be spread over processes.

    If `apart`, each row is read by itself. What a group shares is handed on in a cache, by which gradients
    come back behind the back of layers that are put together for each reading.
    """

    def __init__(self, policy: Any, apart: bool = False):
        super().__init__()
        self.policy, self.apart = policy, apart

    def forward(self, batch: Batch, group: int = 1, logp_alone: bool = False) -> Any:
        """`score_replies`; or, with less to compute, `actions_logp`."""
        scores = actions_logp if logp_alone else score_replies
        return scores(self.policy.lm, batch, group=1 if self.apart else group)


@dataclass(frozen=True)
class Spread:
    """A policy by way of the `Scorer` around it, which training has wrapped."""

    policy: Any
    scorer: nn.Module

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.policy.device

    @property
    def context(self) -> int:
        """Tokens of a row at most."""
        return self.policy.context

    def score(self, batch: Batch, group: int = 1) -> Scored:
        """`score_replies`, by way of what exchanges gradients."""
        return self.scorer(batch, group)

    def logp(self, batch: Batch, group: int = 1) -> Tensor:
        """`actions_logp`, by way of the same."""
        return self.scorer(batch, group, True)


def mean_logp(policy: Scores, rows: Sequence[Tokens], group: int = 1) -> Float[Tensor, "B"]:
    """Log-probability of each reply per token, in nats, with gradient; rows of a group share their prompt."""
    batch = pack_tokens(rows, gamma=1.0).to(policy.device)
    return policy.logp(batch, group).sum(1) / batch.mask.sum(1)


def _scores(
    head: Callable[[Tensor], Tensor], features: Float[Tensor, "n D"], actions: Int[Tensor, "n"]
) -> tuple[Tensor, Tensor]:
    logits = _wide(head, features)
    return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1), entropy(logits)


def _logp(
    head: Callable[[Tensor], Tensor], features: Float[Tensor, "n D"], actions: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    logits = _wide(head, features)
    return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def _wide(head: Callable[[Tensor], Tensor], features: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
    """Logits in float32 at least: a logarithm of a sum over the vocabulary wants more than eight bits."""
    logits = head(features)
    return logits if logits.dtype == torch.float64 else logits.float()


def features_at_decisions(
    trunk: Any, ids: Int[Tensor, "B T"], decisions: Int[Tensor, "B A1"], group: int = 1
) -> Float[Tensor, "B A D"]:
    """Features from which actions are taken; with `group` > 1 what its rows share is read once.

    A trunk with layers that do not see as far back as rows are long reads every row by itself: the masks
    and caches of such layers are its own business. So does one whose layers are formed again, as a second
    reading would add to a cache. ValueError where rows of a group differ before their
    first decision.
    """
    if isinstance(trunk, EncoderDecoder):
        if group > 1:
            _expect_shared(ids, decisions[:, 0], group)
        return trunk(ids, decisions, group)[:, :-1]
    window = window_of(trunk)
    short_sighted = window is not None and window < ids.shape[1]
    if group == 1 or short_sighted or recomputes(trunk):
        return features_at(trunk, ids, decisions[:, :-1])
    first = decisions[:, 0]
    lead = first[::group]
    _expect_shared(ids, first, group)
    shared = int(lead.max())
    if not shared:  # a prompt of one token: nothing stands before the decision
        return features_at_decisions(trunk, ids, decisions)
    cache = DynamicCache(config=trunk.config)
    trunk(input_ids=ids[::group, :shared], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(group)
    last = int((decisions[:, -2] - first).max()) + 1  # the position of the last action is not read
    own = (first.unsqueeze(1) + torch.arange(last, device=ids.device)).clamp(max=ids.shape[1] - 1)
    features = trunk(
        input_ids=ids.gather(1, own),
        position_ids=own,
        attention_mask=_seen(first, shared, last, cache),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return at_decisions(features, (decisions[:, :-1] - first.unsqueeze(1)).clamp(max=last - 1))


def _expect_shared(ids: Tensor, first: Tensor, group: int) -> None:
    """Refuse groups whose prompts differ."""
    same_length = (first.view(-1, group) == first[::group].unsqueeze(1)).all()
    leaders = ids[::group].repeat_interleave(group, 0)
    before = torch.arange(ids.shape[1], device=ids.device) <= first.unsqueeze(1)
    if not same_length or ((ids != leaders) & before).any():
        raise ValueError(
            f"rows of a group of {group} differ before their first decision; expected one prompt"
        )


def _seen(first: Int[Tensor, "B"], shared: int, own: int, cache: DynamicCache) -> Tensor | None:
    """[B, 1, own, shared + own], added to attention scores: the prompt less its padding, then causal.

    None if no prompt is padded: the trunk's own causal mask says the same.
    """
    if bool((first == shared).all()):
        return None
    layer: Any = cache.layers[0]
    key = torch.arange(shared, device=first.device)
    prompt = (key < first.unsqueeze(1))[:, None, None].expand(-1, 1, own, -1)
    causal = (
        torch.ones(own, own, dtype=torch.bool, device=first.device).tril().expand(len(first), 1, own, own)
    )
    hidden = ~torch.cat([prompt, causal], -1)
    dtype = layer.keys.dtype
    return torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
