"""SGLang by the contract that its documentation states: `/generate` with ids, weights read from a folder.

Seeds of single requests count only where it was started with `--enable-deterministic-inference`; else the
answers are as good, and other ones each time.
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

LORA = "expected SGLang started with --enable-lora, and a --max-lora-rank that is no smaller than lora_rank"


class SglangServer:
    """One SGLang server."""

    def __init__(self, transport: Transport):
        self.line, self.url = transport, transport.url
        self._run, self._adapter, self._loaded = uuid.uuid4().hex[:8], "", ""

    def facts(self) -> Facts:
        """What it serves."""
        about = self._about()
        context, version = None, ""
        with contextlib.suppress(Refused):
            more = self.line.get("/get_server_info")
            if isinstance(more, dict):
                found = (
                    more.get("context_length") or more.get("max_context_len") or more.get("max_req_input_len")
                )
                context = found if isinstance(found, int) else None
                version = f" {more['version']}" if more.get("version") else ""
        return Facts("SGLang" + version, str(about.get("model_path", "")), context)

    def spelt(self, text: str) -> list[int] | None:
        """Ids of a text by its tokenizer; None if it has no such endpoint."""
        try:
            found = self.line.post("/tokenize", {"prompt": text, "add_special_tokens": False})
        except Refused:
            return None
        return found.get("tokens") if isinstance(found, dict) else None

    def say(self, ask: Ask) -> Answer:
        """Sample one utterance."""
        body: dict[str, Any] = {
            "input_ids": list(ask.ids),
            "sampling_params": {
                **sampling(ask),
                "max_new_tokens": ask.most,
                "sampling_seed": ask.seed % 2**31,
                "top_k": ask.decoding.top_k or -1,
                "no_stop_trim": True,
            },
            "return_logprob": True,
            "logprob_start_len": -1,
        }
        if self._adapter:
            body["lora_path"] = self._adapter
        try:
            found = self.line.post("/generate", body)
        except Refused as e:
            if self._adapter and "lora" in e.words.lower():
                self._loaded = ""
                raise Unavailable("it has lost the adapter, as after a new start") from e
            raise
        meta = found.get("meta_info") if isinstance(found, dict) else None
        if not isinstance(meta, dict):
            raise InputError(f"{self.url}: its answer is none of /generate")
        if (meta.get("finish_reason") or {}).get("type") == "abort":
            raise Unavailable("it has broken off an answer")
        pairs = meta.get("output_token_logprobs")
        ids = [x[1] for x in pairs] if pairs else found.get("output_ids")
        label = meta.get("weight_version")
        return sound(self.url, ask, ids, [x[0] for x in pairs] if pairs else None, label)

    def label(self) -> str | None:
        """The label of its weights."""
        return self._about().get("weight_version")

    def mark(self, label: str) -> None:
        """Give its weights a label, if it keeps labels."""
        with contextlib.suppress(Refused):
            self.line.post("/update_weight_version", {"new_version": label, "abort_all_requests": False})

    def close(self) -> None:
        """Let its connections go."""
        self.line.close()

    def load(self, weights: Weights) -> None:
        """Replace the weights, or put a new adapter in the old one's place."""
        if weights.adapter:
            self._load_adapter(weights)
            return
        self.mark(LOADING)
        body = {"model_path": str(weights.folder), "weight_version": weights.label, "flush_cache": True}
        try:
            found = self.line.post("/update_weights_from_disk", body, timeout=LOADS)
        except Refused as e:
            raise InputError(f"{self.url}: cannot replace its weights ({e.words})") from e
        self._expect_success(found, "cannot replace its weights")

    def _load_adapter(self, weights: Weights) -> None:
        name = "" if weights.folder is None else f"turnwise-{self._run}-{weights.version}"
        self._adapter = name
        if name in ("", self._loaded):
            return
        try:
            found = self.line.post(
                "/load_lora_adapter", {"lora_name": name, "lora_path": str(weights.folder)}, timeout=LOADS
            )
        except Refused as e:
            raise InputError(f"{self.url}: cannot load the adapter ({e.words}); {LORA}") from e
        self._expect_success(found, "cannot load the adapter")
        if self._loaded:
            with contextlib.suppress(Refused):
                self.line.post("/unload_lora_adapter", {"lora_name": self._loaded})
        self._loaded = name

    def _expect_success(self, found: Any, what: str) -> None:
        if isinstance(found, dict) and found.get("success") is False:
            words = found.get("message") or found.get("error_message") or "no reason given"
            raise InputError(f"{self.url}: {what} ({words})")

    def _about(self) -> dict[str, Any]:
        for path in ("/get_model_info", "/model_info"):  # the older name, and the newer one
            with contextlib.suppress(Refused):
                found = self.line.get(path)
                if isinstance(found, dict):
                    return found
        raise InputError(f"{self.url}: says nothing of its model; expected a vLLM or SGLang server")
