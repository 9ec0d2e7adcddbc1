"""Servers as lanes: what they say is the policy's own, weights follow it, and versions are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.batch import pack_tokens
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.conversations import converse
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.servers.handshake import own_logp
from turnwise.rollout.replies import Reply, sample_replies

PROMPTS = [(Message("user", x),) for x in ("hello", "it works now, my friend", "there")]
KINDS = pytest.mark.parametrize("kind", ["vllm", "sglang"])


def replies(policy: LmPolicy, chat: Any, engine: Any, **options: Any) -> list[Reply]:
    settings = {"group": 3, "seed": 1, "max_new_tokens": 6, **options}
    return sample_replies(policy, chat, PROMPTS, engine=engine, **settings)


def said(found: Sequence[Reply]) -> list[list[int]]:
    return [r.tokens.ids.tolist() for r in found]


def worst(policy: LmPolicy, found: Sequence[Reply]) -> float:
    """Largest difference between recorded log-probabilities and the policy's own."""
    own = own_logp(policy, [r.tokens for r in found], 1)
    recorded = [r.tokens.token_logp[r.tokens.action] for r in found]
    return max(float(np.abs(a - b).max()) for a, b in zip(own, recorded, strict=True))


def moved_(policy: LmPolicy, by: float = 0.1) -> None:
    """Another policy in the same place, as after an update."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn_like(parameter))


@KINDS
def test_recorded_log_probabilities_are_the_policys_own_before_and_after_a_reload(
    kind: str, policy: LmPolicy, chat: Any, serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    engine = connect(serve(kind=kind))
    engine.meet(policy, chat)
    first = replies(policy, chat, engine)
    assert worst(policy, first) < 1e-5
    moved_(policy)
    assert worst(policy, first) > 0.01
    second = replies(policy, chat, engine)
    assert worst(policy, second) < 1e-5
    versions = {span.version for r in first for span in r.spans}, {s.version for r in second for s in r.spans}
    assert versions[0].isdisjoint(versions[1]) and all(len(v) == 1 for v in versions)
    assert all(s.start == 0 and s.stop == r.length for r in second for s in r.spans)


@KINDS
def test_adapters_alone_are_loaded_in_place_of_those_before(
    kind: str, policy: LmPolicy, chat: Any, serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    """And the base below them speaks again when it is asked to."""
    server = serve(kind=kind)
    engine, before = connect(server), LmPolicy(server.started_with)
    policy = LmPolicy(with_lora(policy.lm, 2))
    engine.meet(policy, chat, before=before.lm)
    for _ in range(2):
        moved_(policy, 0.05)
        assert worst(policy, replies(policy, chat, engine)) < 1e-5
        assert [f.name for f in next(engine.folder.iterdir()).glob("*.safetensors")] == [
            "adapter_model.safetensors"
        ]
    assert worst(before, replies(before, chat, engine)) < 1e-5
    assert worst(policy, replies(policy, chat, engine)) < 1e-5
    assert len(server.adapters) == 1 and "/collective_rpc" not in server.calls


@KINDS
def test_the_distribution_that_is_sampled_from_is_the_one_recorded(
    kind: str, policy: LmPolicy, chat: Any, serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    """At temperature .5 and top 5, log-probabilities are of five tokens; greedy ones are 0."""
    how = Decoding(0.5, 5, 0.9)
    engine = connect(serve(kind=kind))
    engine.meet(policy, chat, how)
    local = replies(policy, chat, None, decoding=how)
    found = replies(policy, chat, engine, decoding=how)
    with pytest.raises(AssertionError):
        assert worst(policy, found) < 0.1  # they are not those of the policy at temperature 1
    for r in (*local, *found):
        p = np.exp(r.tokens.token_logp[r.tokens.action])
        assert (p <= 1 + 1e-9).all() and (p > 0).all()
    greedy = replies(policy, chat, engine, decoding=Decoding(0.0))
    assert said(greedy) == said(replies(policy, chat, None, decoding=Decoding(0.0)))
    assert all((r.tokens.token_logp[r.tokens.action] == 0).all() for r in greedy)


@KINDS
def test_what_is_said_does_not_depend_on_how_many_servers_there_are(
    kind: str, policy: LmPolicy, chat: Any, serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    one, three = [serve(kind=kind)], [serve(kind=kind) for _ in range(3)]
    three[0].delay = 0.01
    found = []
    for servers in (one, three):
        engine = connect(*servers)
        engine.meet(policy, chat)
        found.append(said(replies(policy, chat, engine)))
    assert found[0] == found[1]
    assert all(s.said > 2 for s in three)  # the handshake alone takes two
    assert len({tuple(x) for x in found[0]}) > 3


def test_conversations_keep_their_history_and_cut_where_the_sampler_does(
    policy: LmPolicy,
    chat: Any,
    serve: Callable[..., Any],
    connect: Callable[..., Any],
    worst_logp_error: Callable[..., float],
) -> None:
    """Log-probabilities of every turn are those of one pass over the whole conversation, with any number of
    servers; conversations fill the context of 128 and are truncated there.
    """
    held = []
    for count in (1, 2):
        engine = connect(*(serve() for _ in range(count)))
        engine.meet(policy, chat)
        model = engine.lanes(policy, lanes=4, stop=chat.stop, max_new_tokens=9)
        held.append(converse(model, HelpDesk(), chat, episodes=range(8), seed=3, lanes=4))
    ids = [[c.tokens.ids.tolist() for c in conversations if c.tokens] for conversations in held]
    assert ids[0] == ids[1]
    error = worst_logp_error(
        held[0], lambda x: policy.lm(input_ids=x).logits.double().log_softmax(-1), context=128
    )
    assert error < 1e-5
    assert any(not c.dialogue.terminated for c in held[0])
    for c in held[0]:
        assert len(c.spans) == len(c.dialogue.turns) and all(len(spans) == 1 for spans in c.spans if spans)
        assert c.tokens is not None and np.flatnonzero(c.tokens.action)[-1] < 128


def test_a_row_of_two_versions_has_the_log_probabilities_of_the_one_that_spoke(
    policy: LmPolicy, chat: Any, serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    """One conversation, its second turn spoken by newer weights: the ratio of a third policy to what acted is
    that to version 1 in the first turn and to version 2 in the second.
    """
    server = serve()
    engine = connect(server)
    engine.meet(policy, chat)
    moved = LmPolicy(server.loaded(_written(engine, policy)))
    moved_(moved)

    class TwoVersions:
        """Lanes of the first version for one turn, then of the second."""

        def __init__(self) -> None:
            self.first = engine.lanes(policy, lanes=1, stop=chat.stop, max_new_tokens=5)
            self.turn, self.ids = 0, list[int]()

        def reset(self, lane: int, seed: int) -> None:
            self.first.reset(lane, seed)
            self.seed, self.ids, self.turn = seed, [], 0

        def submit(self, lane: int, ids: Sequence[int]) -> None:
            self.ids += ids
            self.now = self.first
            if self.turn:
                self.now = engine.lanes(moved, lanes=1, stop=chat.stop, max_new_tokens=5)
                self.now.reset(lane, self.seed)
            self.now.submit(lane, self.ids)
            self.turn += 1

        def collect(self) -> Any:
            (u,) = self.now.collect()
            self.ids += [*u.ids, *([] if u.stopped else [chat.stop])]
            return [u]

    class Twice:
        """A partner who answers once and leaves."""

        def __init__(self) -> None:
            self.desk, self.turns = HelpDesk(), 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.desk, name)

        def step(self, lanes: Any, texts: Any) -> Any:
            from turnwise.envs.dialogue import Response

            self.turns += 1
            return [Response((Message("user", "and now?"),) * (self.turns < 2), 0.0, self.turns == 2)]

    model: Any = TwoVersions()
    task: Any = Twice()
    (c,) = converse(model, task, chat, episodes=[0], seed=0, lanes=1)
    assert c.tokens is not None and len(c.spans) == 2
    versions = [spans[0].version for spans in c.spans]
    assert versions[0] != versions[1] and all(s[0].start == 0 for s in c.spans)
    batch = pack_tokens([c.tokens], gamma=1.0)
    assert batch.behavior_logp is not None
    first = c.spans[0][0].stop
    with torch.no_grad():
        by = [score_replies(lm, batch).logp[0] for lm in (policy.lm, moved.lm)]
    acted = torch.cat([by[0][:first], by[1][first:]])
    assert (acted - batch.behavior_logp[0]).abs().max() < 1e-5
    assert (by[0] - batch.behavior_logp[0])[first:].abs().max() > 0.01
    assert (by[1] - batch.behavior_logp[0])[:first].abs().max() > 0.01


def _written(engine: Any, policy: LmPolicy) -> str:
    """A folder with the policy's weights, to load a second one from."""
    return str(engine._weights(policy).folder)
