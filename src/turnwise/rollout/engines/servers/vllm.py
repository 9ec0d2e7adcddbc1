"""vLLM, or whatever speaks its dialect of the completions API: token ids in and out.

Its sampling defaults come from the model's `generation_config.json`, so that every number is sent. Prefixes
that it remembers belong to the weights that read them: each loading of weights has a salt of its own, so that
none is read with another's. `/collective_rpc`, `/pause`, `/weight_info` need VLLM_SERVER_DEV_MODE=1, and
adapters VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from turnwise.rollout.engines.servers.contract import (
    LOADING,
    LOADS,
    Answer,
    Ask,
    Facts,
    Weights,
    sampling,
    sound,
)
from turnwise.rollout.engines.servers.transport import Refused, Transport, Unavailable
from turnwise.run.errors import InputError

DEV_MODE = "expected vLLM started with VLLM_SERVER_DEV_MODE=1, so that its weights can be replaced"
LORA = (
    "expected vLLM started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a --max-lora-rank "
    "that is no smaller than lora_rank"
)


class VllmServer:
    """One vLLM server."""

    def __init__(self, transport: Transport):
        self.line, self.url = transport, transport.url
        self.adapter = f"turnwise-{uuid.uuid4().hex[:8]}"  # two runs on one server have one each
        self._model = ""
        self._adapted = False
        self._salt = "as-started"

    def facts(self) -> Facts:
        """What it serves: the first model that is no adapter."""
        found = _listed(self.line)
        if found is None:
            raise InputError(f"{self.url}: lists no models; expected a vLLM or SGLang server")
        self._model = str(found["id"])
        version = ""
        with contextlib.suppress(Refused):
            answer = self.line.get("/version")
            version = f" {answer['version']}" if isinstance(answer, dict) and "version" in answer else ""
        context = found.get("max_model_len")
        engine = "vLLM" if found.get("owned_by", "vllm") == "vllm" else "completions server"
        return Facts(engine + version, self._model, context if isinstance(context, int) else None)

    def spelt(self, text: str) -> list[int] | None:
        """Ids of a text by its tokenizer; None if it has no such endpoint."""
        try:
            found = self.line.post(
                "/tokenize", {"model": self._model, "prompt": text, "add_special_tokens": False}
            )
        except Refused:
            return None
        return found.get("tokens") if isinstance(found, dict) else None

    def say(self, ask: Ask) -> Answer:
        """Sample one utterance."""
        try:
            found = self.line.post("/v1/completions", self._request(ask))
        except Refused as e:
            if self._adapted and e.status == 404:
                raise Unavailable("it has lost the adapter, as after a new start") from e
            raise
        try:
            choice = found["choices"][0]
            ids, logprobs = choice.get("token_ids"), choice.get("logprobs") or {}
            read = choice.get("prompt_token_ids")
        except (TypeError, KeyError, IndexError, AttributeError) as e:
            raise InputError(f"{self.url}: its answer is none of the completions API") from e
        if read is not None and tuple(read) != ask.ids:
            raise InputError(
                f"{self.url}: has read {len(read)} tokens that are not the {len(ask.ids)} it was asked with"
            )
        return sound(self.url, ask, ids, logprobs.get("token_logprobs"))

    def label(self) -> str | None:
        """The label of its weights."""
        try:
            found = self.line.get("/weight_info")
        except Refused:
            return None
        return found.get("weight_version") if isinstance(found, dict) else None

    def mark(self, label: str) -> None:
        """Give its weights a label, if it keeps labels."""
        with contextlib.suppress(Refused):
            self.line.post("/update_weight_version", {"new_version": label})

    def close(self) -> None:
        """Let its connections go."""
        self.line.close()

    def load(self, weights: Weights) -> None:
        """Replace the weights, while nothing is being said."""
        self._adapted = weights.adapter and weights.folder is not None
        if self._adapted:
            self._load_adapter(weights)
        elif weights.folder is not None:
            self._reload(weights)
        self._salt = uuid.uuid4().hex  # not the version: before this, a new start may have read with others

    def _reload(self, weights: Weights) -> None:
        try:
            self.line.post("/pause?mode=wait", timeout=LOADS)
        except Refused as e:
            raise InputError(f"{self.url}: {DEV_MODE}") from e
        try:
            self.mark(LOADING)
            call = {"method": "reload_weights", "kwargs": {"weights_path": str(weights.folder)}}
            try:
                self.line.post("/collective_rpc", call, timeout=LOADS)
            except Refused as e:
                raise InputError(f"{self.url}: cannot replace its weights ({e}); {DEV_MODE}") from e
            with contextlib.suppress(Refused):
                self.line.post("/reset_prefix_cache")
            self.mark(weights.label)
        finally:
            with contextlib.suppress(Refused):
                self.line.post("/resume")

    def _load_adapter(self, weights: Weights) -> None:
        body = {"lora_name": self.adapter, "lora_path": str(weights.folder), "load_inplace": True}
        try:
            self.line.post("/v1/load_lora_adapter", body, timeout=LOADS)
        except Refused as e:
            raise InputError(f"{self.url}: cannot load the adapter ({e.words}); {LORA}") from e

    def _request(self, ask: Ask) -> dict[str, Any]:
        return {
            **sampling(ask),
            "model": self.adapter if self._adapted else self._model,
            "prompt": list(ask.ids),
            "max_tokens": ask.most,
            "seed": ask.seed,
            "top_k": ask.decoding.top_k or 0,
            "logprobs": 0,
            "return_token_ids": True,
            "cache_salt": self._salt,
        }


def _listed(line: Transport) -> dict[str, Any] | None:
    """The first model that a server lists and that is no adapter of another; None if it lists none."""
    try:
        found = line.get("/v1/models")
    except Refused:
        return None
    models = found.get("data") if isinstance(found, dict) else None
    return next(
        (m for m in models or [] if isinstance(m, dict) and m.get("id") and not m.get("parent")), None
    )


def owner(line: Transport) -> str | None:
    """Who serves the models: `vllm`, `sglang`; None if the server does not say."""
    found = _listed(line)
    return None if found is None else found.get("owned_by")
