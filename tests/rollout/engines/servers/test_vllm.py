"""The real vLLM on CPUs, in an environment of its own: `make test-vllm`. Skipped without it.

TURNWISE_VLLM names the Python of that environment. Two servers are started, which takes a minute or two; one
of them is killed in the middle of a batch and started anew.
"""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import turnwise as tw
from turnwise.data.chat.format import ChatFormat
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.models.lm.served import write_served
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.servers.engine import open_engine

from .test_contract import replies, said, worst

PYTHON = os.environ.get("TURNWISE_VLLM")
pytestmark = [
    pytest.mark.skipif(PYTHON is None, reason="TURNWISE_VLLM names no Python with vLLM"),
    pytest.mark.timeout(1800),
]
OPENED: list[Any] = []
READY = 900.0
"""seconds that a server may take to start"""


class Vllm:
    """One server, which can be killed and started anew on its port."""

    def __init__(self, model: Path, log: Path):
        self.model, self.log = model, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        assert PYTHON is not None
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        }
        flags = "--dtype float32 --enforce-eager --max-model-len 128 --enable-lora --max-lora-rank 8"
        words = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--logprobs-mode", "processed_logprobs"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*words, *flags.split()], env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> None:
        until = time.monotonic() + READY
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2):
                    return
            except OSError:
                time.sleep(1)
        raise TimeoutError(self.log.read_text()[-3000:])

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
    from turnwise.models.lm.fresh import train_tokenizer

    texts = [m["content"] for log in helpdesk_logs(100, 0) for m in log["messages"]]
    return ChatFormat(train_tokenizer(texts, 400, 128))


@pytest.fixture(scope="module")
def model(chat: ChatFormat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 32 features, the fewest that vLLM takes on CPUs."""
    torch.manual_seed(0)
    V, pad = len(chat.tokenizer), chat.tokenizer.pad_token_id
    lm = llama(V, width=64, layers=2, heads=2, context=128, eos=chat.stop, pad=pad)
    folder = tmp_path_factory.mktemp("vllm") / "served"
    write_served(folder, lm, chat.tokenizer)
    return folder


@pytest.fixture(scope="module")
def servers(model: Path) -> Iterator[list[Vllm]]:
    found = [Vllm(model, model.parent / f"{i}.log") for i in range(2)]
    for server in found:
        server.wait()
    yield found
    for server in found:
        server.kill()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def policy(model: Path) -> LmPolicy:
    return LmPolicy(load_lm(str(model))[0])


def engine_of(tmp_path: Path, *servers: Vllm, told: list[str] | None = None) -> Any:
    urls, tell = ",".join(s.url for s in servers), (told if told is not None else []).append
    found = open_engine(urls, tmp_path / "weights", timeout=120, wait=READY, tell=tell)
    OPENED.append(found)
    return found


def moved_(policy: LmPolicy, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03 * torch.randn_like(parameter))


def test_log_probabilities_after_reloads_adapters_and_of_what_is_sampled_from(
    servers: list[Vllm], policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, servers[0])
    base = copy.deepcopy(policy)
    engine.meet(policy, chat)
    errors = [worst(policy, replies(policy, chat, engine))]
    for seed in (1, 2):
        moved_(policy, seed)
        errors.append(worst(policy, replies(policy, chat, engine)))
    errors.append(worst(base, replies(base, chat, engine)))
    print("largest differences before and after reloads:", errors)
    assert max(errors) < 1e-5
    greedy = Decoding(0.0)
    assert said(replies(base, chat, engine, decoding=greedy)) == said(
        replies(base, chat, None, decoding=greedy)
    )
    engine.close()
    engine = engine_of(tmp_path, servers[0])
    engine.meet(base, chat, Decoding(0.5, 5))  # refused unless processed log-probabilities are given
    engine.close()


def test_adapters_are_loaded_in_place(
    servers: list[Vllm], policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """On the second server, whose base nobody has replaced."""
    before = copy.deepcopy(policy.lm)
    policy = LmPolicy(with_lora(policy.lm, 4))
    engine = engine_of(tmp_path, servers[1])
    engine.meet(policy, chat, before=before)
    errors = []
    for seed in (1, 2, 3):
        moved_(policy, seed)
        errors.append(worst(policy, replies(policy, chat, engine)))
    errors.append(worst(LmPolicy(before), replies(LmPolicy(before), chat, engine)))
    print("largest differences of adapters:", errors)
    assert max(errors) < 1e-5
    engine.close()


def test_a_server_killed_in_mid_batch_loses_nothing(
    servers: list[Vllm], policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """The batch is the same with one server, with two, with two of which one dies, and with one that dies and
    comes back with the weights that it was started with.
    """
    options = {"group": 16, "max_new_tokens": 40}
    told: list[str] = []
    one, two = engine_of(tmp_path / "1", servers[0]), engine_of(tmp_path / "2", *servers, told=told)
    one.meet(policy, chat)
    moved_(policy, 5)
    expected = replies(policy, chat, one, **options)
    assert worst(policy, expected) < 1e-5
    two.meet(LmPolicy(load_lm(str(servers[0].model))[0]), chat)
    assert said(replies(policy, chat, two, **options)) == said(expected)
    threading.Timer(0.2, servers[1].kill).start()
    began = time.monotonic()
    assert said(replies(policy, chat, two, **options)) == said(expected)
    print(f"one of two killed: {time.monotonic() - began:.1f} s; told: {told}")
    one.close()
    two.close()

    def again() -> None:
        servers[0].kill()
        servers[0].start()

    told.clear()
    alone = engine_of(tmp_path / "3", servers[0], told=told)
    alone.meet(LmPolicy(load_lm(str(servers[0].model))[0]), chat)
    alone.follow(policy)
    threading.Timer(0.2, again).start()
    began = time.monotonic()
    found = replies(policy, chat, alone, **options)
    print(f"the only one killed: {time.monotonic() - began:.1f} s; told: {told}")
    assert said(found) == said(expected) and worst(policy, found) < 1e-5
    assert any("waiting up to" in text for text in told)
    alone.close()
    servers[1].start()
    servers[1].wait()


def test_a_run_through_it_learns_from_its_own_log_probabilities(
    servers: list[Vllm], model: Path, tmp_path: Path
) -> None:
    def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [-float(len(str(c))) / 10 for c in completions]

    prompts = [[{"role": "user", "content": x}] for x in ("hello", "a fuse", "why not", "no light", "there")]
    made = tw.fit(
        tw.RLOO(steps=3, prompts_per_step=2, group=4),
        [{"prompt": p} for p in prompts],
        policy=model,
        reward=short,
        out=tmp_path / "run",
        engine=servers[1].url,
        max_new_tokens=8,
        log_every=1,
        quiet=True,
    )
    assert made.result["metrics"]["engine/logp_error_max"] < 1e-5
