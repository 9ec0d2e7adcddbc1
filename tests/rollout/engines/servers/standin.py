"""A small server in the dialects of vLLM and SGLang, with a tiny model of ours, which can fail in many ways.

It keeps what makes the real ones hard: prefixes are remembered by their salt, whatever happens to the
weights; a second adapter of a name is refused unless it takes the first one's place; a new start forgets
everything.
"""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.engines.decoding import Decoding, distribution, sample


class StandIn:
    """One server; its faults are attributes, to be set at any time."""

    def __init__(self, lm: Any, tokenizer: Any, kind: str = "vllm", context: int = 128):
        self.started_with, self.tokenizer, self.kind, self.context = lm, tokenizer, kind, context
        self.dev_mode = self.lora = self.logprobs = self.seeded = True
        self.processed = True
        """whether log-probabilities are of the distribution that was sampled from"""
        self.deaf = False
        """says that it has loaded weights, and has not"""
        self.delay = 0.0
        self.full = 0
        """answers 503 so many times"""
        self.spoil: Callable[[dict[str, Any]], None] = lambda answer: None
        """what is done to every answer before it is sent"""
        self.before: Callable[[dict[str, Any]], None] = lambda body: None
        """what happens when an utterance is asked for, before it is spoken"""
        self.said = 0
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Begin, or begin anew: with the weights of the first time and nothing else."""
        self.lm, self.label, self.paused = self.started_with, "default", False
        self.salts: dict[str, Any] = {}
        self.adapters: dict[str, Any] = {}
        self._sockets: set[socket.socket] = set()
        self._http = _Http(("127.0.0.1", self._port), _handler(self))
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """End as a killed process does: whoever waits for an answer gets none."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        path = path.partition("?")[0]
        self.calls.append(path)
        if path in ("/v1/completions", "/generate"):
            if self.full:
                self.full -= 1
                return 503, {"error": {"message": "The server is full", "code": 503}}
            self.before(body)
            time.sleep(self.delay)
        routes = {"vllm": _VLLM, "sglang": _SGLANG}.get(self.kind, {})
        if path not in routes or (path in _DEV and not self.dev_mode) or (path in _LORA and not self.lora):
            return 404, {"detail": "Not Found"}
        with self._lock, torch.inference_mode():
            return routes[path](self, body)

    # What both have

    def speak(
        self, lm: Any, ids: list[int], most: int, seed: int, stop: int, how: Decoding
    ) -> tuple[list[int], list[float]]:
        """Ids and log-probabilities, by a pass over everything for each token."""
        self.said += 1
        policy, rng = LmPolicy(lm), np.random.default_rng(seed if self.seeded else self.said)
        said, logp = list[int](), list[float]()
        while len(said) < most and stop not in said:
            read = torch.tensor([[*ids, *said]])
            last = torch.full((1, 2), read.shape[1] - 1)
            logits = policy(read, last)[0]  # [1, V]
            p = distribution(logits, how)
            token = int(sample(p, torch.tensor([rng.random()], dtype=p.dtype)))
            said.append(token)
            table = p.log() if self.processed else logits.log_softmax(-1)
            logp.append(float(table[0, token]))
        return said, logp

    def loaded(self, folder: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def adapted(self, folder: str) -> Any:
        with torch.inference_mode(False):
            return PeftModel.from_pretrained(copy.deepcopy(self.started_with), folder).merge_and_unload()

    def tokens(self, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"tokens": self.tokenizer.encode(body["prompt"], add_special_tokens=False)}

    def marked(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.label = body["new_version"]
        return 200, {"success": True}

    # vLLM

    def models(self, body: Any) -> tuple[int, Any]:
        base = {"id": "tiny", "owned_by": "vllm", "parent": None, "max_model_len": self.context}
        return 200, {"data": [{"id": x, "parent": "tiny"} for x in self.adapters] + [base]}

    def completion(self, b: dict[str, Any]) -> tuple[int, Any]:
        if b["model"] not in ("tiny", *self.adapters):
            return 404, {"error": {"message": f"The model `{b['model']}` does not exist.", "code": 404}}
        wrong = self._wrong(b["prompt"], b["max_tokens"])
        if wrong:
            return 400, {"error": {"message": wrong, "type": "BadRequestError", "param": None, "code": 400}}
        lm = self.adapters.get(b["model"], self.lm)
        lm = self.salts.setdefault(b["cache_salt"], lm)  # prefixes are those of the weights that read them
        (stop,) = b["stop_token_ids"]
        assert b["ignore_eos"] and b["min_p"] == 0 and b["repetition_penalty"] == 1
        how = Decoding(b["temperature"], b["top_k"] or None, b["top_p"])
        ids, logp = self.speak(lm, b["prompt"], b["max_tokens"], b["seed"], stop, how)
        choice: dict[str, Any] = {"token_ids": ids, "prompt_token_ids": b["prompt"], "logprobs": None}
        if self.logprobs:
            choice["logprobs"] = {"token_logprobs": logp}
        answer = {"choices": [choice]}
        self.spoil(answer)
        return 200, answer

    def reload(self, b: dict[str, Any]) -> tuple[int, Any]:
        assert b["method"] == "reload_weights" and self.paused
        if not self.deaf:
            self.lm = self.loaded(b["kwargs"]["weights_path"])
        return 200, {"results": [None]}

    def pause(self, b: Any) -> tuple[int, Any]:
        self.paused = True
        return 200, {"status": "paused"}

    def resume(self, b: Any) -> tuple[int, Any]:
        self.paused = False
        return 200, {"status": "resumed"}

    def load_adapter(self, b: dict[str, Any]) -> tuple[int, Any]:
        name = b["lora_name"]
        if name in self.adapters and not b.get("load_inplace"):
            words = f"The lora adapter '{name}' has already been loaded."
            return 400, {"error": {"message": words, "code": 400}}
        self.adapters[name] = self.adapted(b["lora_path"])
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _wrong(self, ids: list[int], most: int) -> str:
        if max(ids) >= self.lm.config.vocab_size:
            return f"Token id {max(ids)} is out of vocabulary"
        if len(ids) + most > self.context:
            return f"This model's maximum context length is {self.context} tokens."
        return ""

    # SGLang

    def about(self, b: Any) -> tuple[int, Any]:
        return 200, {"model_path": "tiny", "is_generation": True, "weight_version": self.label}

    def generate(self, b: dict[str, Any]) -> tuple[int, Any]:
        p = b["sampling_params"]
        wrong = self._wrong(b["input_ids"], p["max_new_tokens"])
        name = b.get("lora_path")
        if name and name not in self.adapters:
            wrong = f"LoRA adapter {name} is not loaded"
        if wrong:
            return 400, {"error": {"message": wrong}}
        how = Decoding(p["temperature"], None if p["top_k"] == -1 else p["top_k"], p["top_p"])
        (stop,) = p["stop_token_ids"]
        assert p["ignore_eos"] and p["no_stop_trim"] and b["return_logprob"]
        lm = self.adapters.get(name, self.lm)
        seed = p["sampling_seed"]
        ids, logp = self.speak(lm, b["input_ids"], p["max_new_tokens"], seed, stop, how)
        ended = (
            {"type": "stop", "matched": stop} if ids[-1] == stop else {"type": "length", "length": len(ids)}
        )
        meta = {"finish_reason": ended, "weight_version": self.label, "completion_tokens": len(ids)}
        if self.logprobs:
            meta["output_token_logprobs"] = [[x, i, None] for x, i in zip(logp, ids, strict=True)]
        answer = {"text": "", "output_ids": ids, "meta_info": meta}
        self.spoil(answer)
        return 200, answer

    def update(self, b: dict[str, Any]) -> tuple[int, Any]:
        if not self.deaf:
            self.lm = self.loaded(b["model_path"])
        self.label = b["weight_version"]
        return 200, {
            "success": True,
            "message": "Succeeded to update model weights.",
            "num_paused_requests": 0,
        }

    def load_named(self, b: dict[str, Any]) -> tuple[int, Any]:
        if b["lora_name"] in self.adapters:
            return 400, {"success": False, "error_message": "already loaded"}
        self.adapters[b["lora_name"]] = self.adapted(b["lora_path"])
        return 200, {"success": True}

    def unload(self, b: dict[str, Any]) -> tuple[int, Any]:
        del self.adapters[b["lora_name"]]
        return 200, {"success": True}


_VLLM: dict[str, Callable[[StandIn, Any], tuple[int, Any]]] = {
    "/v1/models": StandIn.models,
    "/version": lambda s, b: (200, {"version": "0.32.0"}),
    "/tokenize": StandIn.tokens,
    "/v1/completions": StandIn.completion,
    "/weight_info": lambda s, b: (200, {"weight_version": s.label}),
    "/update_weight_version": StandIn.marked,
    "/pause": StandIn.pause,
    "/resume": StandIn.resume,
    "/reset_prefix_cache": lambda s, b: (200, {"success": True}),
    "/collective_rpc": StandIn.reload,
    "/v1/load_lora_adapter": StandIn.load_adapter,
}
_SGLANG: dict[str, Callable[[StandIn, Any], tuple[int, Any]]] = {
    "/v1/models": lambda s, b: (200, {"data": [{"id": "tiny", "owned_by": "sglang", "parent": None}]}),
    "/get_model_info": StandIn.about,
    "/get_server_info": lambda s, b: (200, {"version": "0.5.6", "context_length": s.context}),
    "/tokenize": StandIn.tokens,
    "/generate": StandIn.generate,
    "/update_weight_version": StandIn.marked,
    "/update_weights_from_disk": StandIn.update,
    "/load_lora_adapter": StandIn.load_named,
    "/unload_lora_adapter": StandIn.unload,
}
_DEV = ("/weight_info", "/update_weight_version", "/pause", "/resume", "/collective_rpc")
_LORA = ("/v1/load_lora_adapter", "/load_lora_adapter")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends is no news."""


def _handler(standin: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            standin._sockets.add(self.connection)

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()
            standin._sockets.discard(self.connection)

        def do_GET(self) -> None:
            self._give("GET", {})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._give("POST", json.loads(raw) if raw else {})

        def _give(self, method: str, body: dict[str, Any]) -> None:
            status, found = standin.answer(method, self.path, body)
            raw = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is shown."""

    return Handler
