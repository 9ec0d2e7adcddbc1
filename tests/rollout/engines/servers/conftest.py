"""A tiny policy, and servers that stand in for vLLM and SGLang with its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.engines.servers.engine import Engine, open_engine

from .standin import StandIn


@pytest.fixture
def policy(chat: Any) -> LmPolicy:
    """In float32, as servers compute, with weights large enough that what was read decides what is said."""
    torch.manual_seed(0)
    V, pad = len(chat.tokenizer), chat.tokenizer.pad_token_id
    lm = llama(V, width=32, layers=1, heads=2, context=128, eos=chat.stop, pad=pad)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(1.5)
    return LmPolicy(lm)


@pytest.fixture
def serve(policy: LmPolicy, chat: Any) -> Iterator[Callable[..., StandIn]]:
    """A function that starts a server of the policy, or of another model."""
    servers: list[StandIn] = []

    def start(lm: Any = None, kind: str = "vllm", tokenizer: Any = None, context: int = 128) -> StandIn:
        found = StandIn(copy.deepcopy(lm or policy.lm), tokenizer or chat.tokenizer, kind, context)
        servers.append(found)
        return found

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def told() -> list[str]:
    """What people were told."""
    return []


@pytest.fixture
def connect(tmp_path: Path, told: list[str]) -> Iterator[Callable[..., Engine]]:
    """A function that makes an engine of servers."""
    engines: list[Engine] = []

    def engine(*servers: StandIn, timeout: float = 60.0, wait: float = 60.0) -> Engine:
        urls = ",".join(s.url for s in servers)
        engines.append(open_engine(urls, tmp_path / "weights", timeout=timeout, wait=wait, tell=told.append))
        return engines[-1]

    yield engine
    for engine_ in engines:
        engine_.close()
