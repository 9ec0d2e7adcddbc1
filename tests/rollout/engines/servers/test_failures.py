"""Servers that are strangers, liars, slow, full or dead: refused in words, or worked around at no loss."""

from __future__ import annotations

import copy
import itertools
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.servers.engine import open_engine
from turnwise.rollout.engines.servers.handshake import own_logp
from turnwise.rollout.engines.servers.transport import Transport
from turnwise.run.errors import InputError, SettingError

from .test_contract import KINDS, moved_, replies, said, worst

Serve, Connect = Callable[..., Any], Callable[..., Any]


def other(policy: LmPolicy, V: int | None = None, seed: int = 9) -> Any:
    """Another model of the same kind."""
    torch.manual_seed(seed)
    V = policy.lm.config.vocab_size if V is None else V
    lm = llama(V, width=32, layers=1, heads=2, context=128, eos=0, pad=1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(1.5)
    return lm


# Strangers, before anything is sampled


@KINDS
def test_a_server_of_another_model_is_refused(
    kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve(other(policy), kind)
    with pytest.raises(InputError, match=rf"{server.url}: its log-probabilities differ .* another model"):
        connect(server).meet(policy, chat)
    assert server.said == 2 and "/collective_rpc" not in server.calls  # its weights are left alone


@KINDS
def test_a_server_with_another_tokenizer_is_refused(
    kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve(kind=kind, tokenizer=train_tokenizer(["quite other words", "and letters"] * 9, 270, 128))
    with pytest.raises(InputError, match=r"its tokenizer makes .* expected a server with the same tokenizer"):
        connect(server).meet(policy, chat)


@KINDS
def test_ids_beyond_a_servers_vocabulary_are_found_before_they_are_needed(
    kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    small = serve(other(policy, policy.lm.config.vocab_size - 1), kind)
    with pytest.raises(InputError, match=r"does not take token 399, .* out of vocabulary"):
        connect(small).meet(policy, chat)
    large = serve(other(policy, 100_000), kind)
    with pytest.raises(InputError, match=r"says token \d+; the policy's vocabulary has 400"):
        connect(large).meet(policy, chat)


def test_a_server_without_log_probabilities_is_refused(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    server.logprobs = False
    with pytest.raises(InputError, match=rf"{server.url}: its answer has no log-probabilities"):
        connect(server).meet(policy, chat)


def test_log_probabilities_of_another_distribution_than_was_sampled_from_are_refused(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    """At temperature 1 both are the same, and the server will do."""
    server = serve()
    server.processed = False
    connect(server).meet(policy, chat)
    with pytest.raises(InputError, match=r"before temperature, top_k and top_p, .* processed_logprobs"):
        connect(server).meet(policy, chat, Decoding(0.5, 5))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: c.pop("token_ids"), "its answer has no token ids"),
        (lambda c: c["token_ids"].append(5), "tokens and"),
        (lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, 0.5), "are no log-probabilities"),
        (lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, -9999.0), "are no log-probabilities"),
        (lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, None), "has no log-probabilities"),
        (lambda c: c.update(prompt_token_ids=[0, *c["prompt_token_ids"]]), "has read .* tokens that are not"),
        (lambda c: (c["token_ids"].pop(), c["logprobs"]["token_logprobs"].pop()), "its answer (ends|has 0)"),
    ],
)
def test_answers_that_cannot_be_true_are_refused(
    spoil: Callable[[Any], Any], words: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    engine = connect(server)
    engine.meet(policy, chat)
    server.spoil = lambda answer: spoil(answer["choices"][0])
    with pytest.raises(InputError, match=words):
        replies(policy, chat, engine)


@pytest.mark.parametrize("engine", ["", "ftp://here", "http://", "http://here:port", "a:1,a:1", "::"])
def test_addresses_that_cannot_be_are_refused(engine: str, tmp_path: Any) -> None:
    with pytest.raises(SettingError, match="engine"):
        open_engine(engine, tmp_path, timeout=1, wait=1, tell=print)


def test_an_address_where_nothing_is_and_one_of_something_else(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    server.kill()
    with pytest.raises(InputError, match=r"no server answers there \(connection refused\)"):
        connect(server)
    server.start()
    server.kind = "a web page"
    with pytest.raises(InputError, match="lists no models; expected a vLLM or SGLang server"):
        connect(server).meet(policy, chat)


def test_addresses_may_be_short_and_of_the_api(serve: Serve) -> None:
    url = serve().url
    assert Transport(url.removeprefix("http://"), 1).url == Transport(url + "/v1/", 1).url == url


# Weights that do not follow


def test_servers_whose_weights_cannot_be_replaced_are_refused_in_words(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    server.dev_mode = server.lora = False
    engine = connect(server)
    engine.meet(policy, chat)  # to be measured they need not be
    assert worst(policy, replies(policy, chat, engine)) < 1e-5
    moved_(policy)
    with pytest.raises(InputError, match="expected vLLM started with VLLM_SERVER_DEV_MODE=1"):
        replies(policy, chat, engine)
    policy = LmPolicy(with_lora(server.loaded(str(_folder(server, engine))), 2))
    engine = connect(server)
    engine.meet(policy, chat, before=server.started_with)
    moved_(policy)
    with pytest.raises(InputError, match="--max-lora-rank"):
        replies(policy, chat, engine)


def _folder(server: Any, engine: Any) -> Any:
    folder = engine.folder / "as-started"
    server.started_with.save_pretrained(folder)
    return folder


@KINDS
def test_a_server_that_only_says_that_it_has_loaded_is_found_out(
    kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve(kind=kind)
    engine = connect(server)
    engine.meet(policy, chat)
    server.deaf = True
    moved_(policy)
    with pytest.raises(InputError, match=r"differ (from|by) .*(expected a server that reads|another model)"):
        replies(policy, chat, engine)


@KINDS
def test_a_run_goes_on_with_a_server_that_an_earlier_one_has_loaded(
    kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    """It has weights that nobody else has, by their label; a stranger's are never overwritten."""
    server = serve(kind=kind)
    engine = connect(server)
    engine.meet(policy, chat)
    moved_(policy)
    engine.follow(policy)
    again = LmPolicy(server.started_with)
    connect(server).meet(again, chat)
    assert worst(again, replies(again, chat, connect_met(connect, server, again, chat))) < 1e-5


def connect_met(connect: Connect, *rest: Any) -> Any:
    *servers, policy, chat = rest
    engine = connect(*servers)
    engine.meet(policy, chat)
    return engine


def test_less_precision_is_told_once_and_used(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect, told: list[str]
) -> None:
    half = copy.deepcopy(policy.lm).bfloat16().float()
    engine = connect(serve(half))
    engine.meet(policy, chat)
    found = replies(policy, chat, engine)
    rows = [r.tokens for r in found]
    metrics = engine.compared([t.token_logp[t.action] for t in rows], own_logp(policy, rows, 3))
    assert 1e-4 < metrics["engine/logp_error_mean"] < metrics["engine/logp_error_max"] < 0.2
    assert all("more than float32 explains" in text for text in told) and len(told) == 2
    engine.compared([t.token_logp[t.action] for t in rows], own_logp(policy, rows, 3))
    assert len(told) == 2


# Trouble while something is said


@KINDS
@pytest.mark.parametrize("servers", [1, 2])
def test_a_server_killed_in_mid_batch_loses_nothing(
    servers: int, kind: str, policy: LmPolicy, chat: Any, serve: Serve, connect: Connect, told: list[str]
) -> None:
    """It dies with weights that it was given, and is back later with those it was started with: the replies
    are what they would have been. With one server the batch waits, with two the other one does its part.
    """
    calm = connect_met(connect, serve(kind=kind), policy, chat)
    stands = [serve(kind=kind) for _ in range(servers)]
    engine = connect_met(connect, *stands, policy, chat)
    for server in stands:
        server.started_with = other(policy)  # what it will have after a new start
    moved_(policy)
    expected = said(replies(policy, chat, calm))
    engine.follow(policy)
    asked = itertools.count(1)

    def die(body: Any) -> None:
        if next(asked) == 3:
            stands[0].kill()
            threading.Timer(0.3, stands[0].start).start()

    stands[0].before = die
    found = replies(policy, chat, engine)
    assert next(asked) > 3 and said(found) == expected
    assert worst(policy, found) < 1e-5
    words = "waiting up to" if servers == 1 else "the other servers do its part"
    assert re.search(words, told[0])


def test_a_server_started_anew_between_two_batches_is_given_the_weights_again(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    """Nothing was under way when it died, so that no connection tells: its label does."""
    server = serve()
    engine = connect_met(connect, server, policy, chat)
    moved_(policy)
    expected = replies(policy, chat, engine)
    server.kill()
    server.start()
    found = replies(policy, chat, engine)
    assert said(found) == said(expected) and worst(policy, found) < 1e-5


def test_an_adapter_that_a_new_start_has_lost_is_loaded_again(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    policy = LmPolicy(with_lora(policy.lm, 2))
    engine = connect(server)
    engine.meet(policy, chat, before=server.started_with)
    moved_(policy)
    expected = replies(policy, chat, engine)
    server.kill()
    server.start()
    assert said(replies(policy, chat, engine)) == said(expected)


def test_weights_that_somebody_else_loads_are_replaced_and_in_the_end_refused(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    server = serve()
    engine = connect_met(connect, server, policy, chat)
    moved_(policy)
    expected = replies(policy, chat, engine)
    stranger = other(policy)

    def once(body: Any) -> None:
        server.before = lambda body: None
        server.lm, server.label, server.salts = stranger, "turnwise:another", {}

    server.before = once
    assert said(replies(policy, chat, engine)) == said(expected)

    def always(body: Any) -> None:
        server.lm, server.label, server.salts = stranger, "turnwise:another", {}

    server.before = always
    with pytest.raises(InputError, match="replaced again and again by somebody else"):
        replies(policy, chat, engine)


def test_a_full_server_is_asked_again(policy: LmPolicy, chat: Any, serve: Serve, connect: Connect) -> None:
    server = serve()
    engine = connect_met(connect, server, policy, chat)
    expected = said(replies(policy, chat, engine))
    server.full = 3
    assert said(replies(policy, chat, engine)) == expected


def test_a_slow_server_costs_time_and_not_the_batch(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect, told: list[str]
) -> None:
    slow, quick = serve(), serve()
    engine = connect(slow, quick, timeout=2.0)
    engine.meet(policy, chat)
    expected = said(replies(policy, chat, engine))
    slow.delay = 60.0
    assert said(replies(policy, chat, engine)) == expected
    assert any("no answer within 2 seconds; the other servers do its part" in text for text in told)


def test_servers_that_stay_away_end_the_run_in_words(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect, told: list[str]
) -> None:
    server = serve()
    engine = connect(server, wait=0.4)
    engine.meet(policy, chat)
    server.kill()
    with pytest.raises(InputError, match=r"answered for 0.4 seconds \(http.*; expected one that is running"):
        replies(policy, chat, engine)
    assert any("waiting up to 0.4 seconds for a server" in text for text in told)


def test_prompts_that_the_servers_cannot_read_are_refused(
    policy: LmPolicy, chat: Any, serve: Serve, connect: Connect
) -> None:
    engine = connect_met(connect, serve(context=40), policy, chat)
    with pytest.raises(InputError, match="do not fit the context of 40 of the engine's servers"):
        replies(policy, chat, engine, max_new_tokens=35)
