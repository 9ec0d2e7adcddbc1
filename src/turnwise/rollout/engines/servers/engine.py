"""Servers that speak for a policy: compared with it first, and given its weights whenever they change."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.served import is_adapted, version_of, write_served
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.servers.contract import OURS, Ask, Facts, Server, Weights
from turnwise.rollout.engines.servers.handshake import (
    FLOAT32,
    OTHER_MEAN,
    Beside,
    expect_same,
    expect_same_tokens,
    precision_in_words,
    probe,
)
from turnwise.rollout.engines.servers.lanes import EngineLanes
from turnwise.rollout.engines.servers.pool import Pool
from turnwise.rollout.engines.servers.sglang import SglangServer
from turnwise.rollout.engines.servers.transport import Refused, Transport, Unavailable, addresses
from turnwise.rollout.engines.servers.vllm import VllmServer, owner
from turnwise.run.errors import InputError


class Engine:
    """One or more servers that have the weights of a policy, as they are when something is sampled.

    `folder`: where weights are written for the servers to read; it must be the same place for them. `tell`
    hears one line of whatever a person should know.
    """

    def __init__(self, servers: Sequence[Server], folder: Path, *, wait: float, tell: Callable[[str], None]):
        self.servers, self.folder, self.tell = list(servers), folder.absolute(), tell
        self.pool = Pool(servers, wait=wait, tell=tell)
        self.facts: list[Facts] = []
        self.version = ""
        """of the weights that the servers have"""
        self._written: dict[str, Weights] = {}
        self._chat: ChatFormat | None = None
        self._decoding = POLICYS_OWN
        self._warned = False
        self._error = 0.0  # largest of the handshake, in nats

    @property
    def context(self) -> int | None:
        """The longest history that all servers read, with its answer; None if none of them says."""
        return min((f.context for f in self.facts if f.context is not None), default=None)

    @property
    def kind(self) -> str:
        """What the servers are, as a run records it."""
        return ", ".join(sorted({f.engine for f in self.facts}))

    def meet(
        self,
        policy: LmPolicy,
        chat: ChatFormat,
        decoding: Decoding = POLICYS_OWN,
        *,
        before: Any = None,
    ) -> None:
        """Compare every server with the policy, before anything is sampled. InputError for a stranger.

        `before`: the policy below its adapters, if it has any and they are fresh. A server whose weights an
        earlier run has loaded is given the policy's. Any other has to have them.
        """
        self._chat, self._decoding = chat, decoding
        for server in self.servers:
            with _plainly(server):
                self.facts.append(server.facts())
        self.version = version_of(policy.lm if before is None else before)
        if is_adapted(policy.lm):
            self._written[self.version] = Weights(self.version, None, adapter=True)
        ask = self._probe(policy)
        for server in self.servers:
            with _plainly(server):
                label = server.label()
                if label is not None and label.startswith(OURS):
                    self._expect_whole(server, policy)
                    self.pool.weights = self._weights(policy)
                    server.load(self.pool.weights)
                expect_same_tokens(server, chat, ask)
                self._error = max(self._error, expect_same(server, policy, ask, self.tell).error)
                self.pool.labels[server.url] = server.label()

    def follow(self, policy: LmPolicy) -> None:
        """Let the servers have the policy's weights as they are now; after a change they are compared."""
        version = version_of(policy.lm)
        if version == self.version:
            return
        before, weights = self.version, self._weights(policy)
        self.pool.load(weights)
        self.version = version
        ask = self._probe(policy)
        for member in self.pool.members:
            with contextlib.suppress(Unavailable):  # it rests, and will be given them
                if not member.resting:
                    self._expect_loaded(member.server, expect_same(member.server, policy, ask))
        self._forget(before)

    def folded(self, lm: Any) -> None:
        """Let the adapters that the servers have stand for `lm`, the model that they were folded into."""
        self._written[version_of(lm)] = replace(self._written[self.version], version=version_of(lm))
        self.version = version_of(lm)

    def lanes(
        self,
        policy: LmPolicy,
        *,
        lanes: int,
        stop: int,
        context: int | None = None,
        decoding: Decoding = POLICYS_OWN,
        max_new_tokens: int = 64,
        at_least: int | None = None,
    ) -> EngineLanes:
        """Lanes that the policy, as it is now, speaks in through the servers."""
        self.follow(policy)
        longest = min(x for x in (context, self.context, context_of(policy.lm)) if x is not None)
        return EngineLanes(
            self.pool,
            self.version,
            vocabulary=policy.lm.get_input_embeddings().num_embeddings,
            context=longest,
            stop=stop,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            at_least=max(1, lanes // 8) if at_least is None else at_least,
        )

    def compared(self, said: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> dict[str, float]:
        """How far the servers' log-probabilities are from the policy's own, of the same tokens, as metrics.

        A person is told once if that is more than float32 explains. InputError if no precision explains it.
        """
        errors = np.abs(np.concatenate(said) - np.concatenate(own))
        largest, mean = float(errors.max()), float(errors.mean())
        if mean > OTHER_MEAN:
            raise InputError(
                f"the servers' log-probabilities differ from the policy's own by {mean:.2g} nats a token on "
                "average: at least one of them does not have its weights; expected servers that nobody else "
                "loads weights into"
            )
        if largest > FLOAT32 and not self._warned:
            self._warned = True
            self.tell(precision_in_words("the engine", largest))
        return {"engine/logp_error_max": largest, "engine/logp_error_mean": mean}

    def close(self) -> None:
        """End the threads, and take the weights that were written away."""
        self.pool.close()
        for server in self.servers:
            server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _weights(self, policy: LmPolicy) -> Weights:
        """The policy's weights in a folder of their own."""
        version = version_of(policy.lm)
        if version not in self._written:
            folder = self.folder / version
            write_served(folder, policy.lm)
            self._written[version] = Weights(version, folder, is_adapted(policy.lm))
        return self._written[version]

    def _expect_loaded(self, server: Server, found: Beside) -> None:
        if found.error > max(FLOAT32, 4 * self._error):
            raise InputError(
                f"{server.url}: says that it has loaded the weights, but its log-probabilities differ from "
                f"theirs by {found.error:.2g} nats a token; expected a server that reads {self.folder}, and "
                "on CPUs one that was started from what export writes, with an output layer of its own"
            )

    def _forget(self, version: str) -> None:
        """Take away what no server will ask for any more."""
        old = self._written.get(version)
        if old is not None and old.folder is not None and not self._shared(old):
            del self._written[version]
            shutil.rmtree(old.folder, ignore_errors=True)

    def _shared(self, weights: Weights) -> bool:
        """Whether other versions lie in the same folder, as folded adapters do."""
        return sum(w.folder == weights.folder for w in self._written.values()) > 1

    def _probe(self, policy: LmPolicy) -> Ask:
        assert self._chat is not None
        own = context_of(policy.lm)
        return probe(self._chat, self._decoding, min(self.context or own, own))

    def _expect_whole(self, server: Server, policy: LmPolicy) -> None:
        if is_adapted(policy.lm):
            raise InputError(
                f"{server.url}: an earlier run has replaced the weights below the adapters; expected a "
                "server that was started anew from the base model"
            )


def open_engine(
    urls: str, folder: Path, *, timeout: float, wait: float, tell: Callable[[str], None]
) -> Engine:
    """An engine of the servers at `urls`, separated by commas. InputError for one that does not answer."""
    return Engine([_server(url, timeout) for url in addresses(urls)], folder, wait=wait, tell=tell)


def _server(url: str, timeout: float) -> Server:
    line = Transport(url, timeout)
    try:
        kind = owner(line)
        if kind == "sglang" or (kind is None and _is_sglang(line)):
            return SglangServer(line)
    except Unavailable as e:
        line.close()
        raise _silent(line.url, e) from e
    return VllmServer(line)


def _is_sglang(line: Transport) -> bool:
    with contextlib.suppress(Refused):
        found: Any = line.get("/get_model_info")
        return isinstance(found, dict) and "model_path" in found
    return False


@contextlib.contextmanager
def _plainly(server: Server) -> Any:
    """Refusals and silence at the start, in words."""
    try:
        yield
    except Unavailable as e:
        raise _silent(server.url, e) from e
    except Refused as e:
        raise InputError(f"{server.url}: refuses to answer: {e}") from e


def _silent(url: str, e: Unavailable) -> InputError:
    return InputError(f"{url}: no server answers there ({e}); expected a running vLLM or SGLang server")
