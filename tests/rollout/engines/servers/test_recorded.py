"""What vLLM answered, word for word, as it is understood here; of SGLang, what its documentation shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.servers.contract import Ask
from turnwise.rollout.engines.servers.sglang import SglangServer
from turnwise.rollout.engines.servers.transport import Refused, Transport, Unavailable
from turnwise.rollout.engines.servers.vllm import VllmServer

from .standin import StandIn

ASK = Ask((5, 6, 7, 8), 5, 4611686018427387000, 0, POLICYS_OWN)
VLLM = {
    "id": "cmpl-a8c1456403c6116c",
    "object": "text_completion",
    "created": 1796043264,
    "model": "tiny",
    "choices": [
        {
            "index": 0,
            "text": " fantastic snow sister cheers",
            "logprobs": {
                "text_offset": [0, 10, 15, 22, 29],
                "token_logprobs": [
                    -4.2724528312683105,
                    -2.6402242183685303,
                    -3.778123617172241,
                    -3.189497232437134,
                    -0.002888675546273589,
                ],
                "tokens": [" fantastic", " snow", " sister", " cheers", "<|end|>"],
                "top_logprobs": [
                    {" fantastic": -4.2724528312683105},
                    {" snow": -2.6402242183685303},
                    {" sister": -3.778123617172241},
                    {" cheers": -3.189497232437134},
                    {"<|end|>": -0.002888675546273589},
                ],
            },
            "finish_reason": "stop",
            "stop_reason": 0,
            "token_ids": [394, 472, 342, 409, 0],
            "prompt_logprobs": None,
            "prompt_token_ids": [5, 6, 7, 8],
            "routed_experts": None,
        }
    ],
    "system_fingerprint": "vllm-0.32.0-43ef68ea",
    "usage": {"prompt_tokens": 4, "total_tokens": 9, "completion_tokens": 5},
}
MODELS = {
    "object": "list",
    "data": [
        {"id": "tiny", "owned_by": "vllm", "root": "served", "parent": None, "max_model_len": 256},
    ],
}
SGLANG = {
    "text": " fantastic snow",
    "output_ids": [394, 0],
    "meta_info": {
        "id": "6f9d",
        "finish_reason": {"type": "stop", "matched": 0},
        "prompt_tokens": 4,
        "weight_version": "turnwise:1",
        "completion_tokens": 2,
        "input_token_logprobs": [],
        "output_token_logprobs": [[-4.27, 394, None], [-0.003, 0, None]],
        "e2e_latency": 0.02,
    },
}
FAILED = {
    "error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}
}


class Replay(StandIn):
    """Answers what was recorded, and keeps what it was asked."""

    def __init__(self, answers: dict[str, tuple[int, Any]]):
        self.answers, self.asked = answers, dict[str, Any]()
        super().__init__(None, None)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked[path] = body
        return self.answers.get(path, (404, {"detail": "Not Found"}))


@pytest.fixture
def replay() -> Iterator[Any]:
    opened: list[Any] = []

    def start(**answers: Any) -> tuple[Replay, Transport]:
        server = Replay({"/" + path.replace("__", "/"): found for path, found in answers.items()})
        line = Transport(server.url, 5)
        opened.extend((server, line))
        return server, line

    yield start
    for server, line in zip(opened[::2], opened[1::2], strict=True):
        line.close()
        server.kill()


def test_a_completion_of_vllm(replay: Any) -> None:
    """Every number of sampling is sent, since the model's own defaults would hold otherwise."""
    server, line = replay(
        v1__completions=(200, VLLM), v1__models=(200, MODELS), version=(200, {"version": "0.32.0"})
    )
    vllm = VllmServer(line)
    assert vars(vllm.facts()) == {"engine": "vLLM 0.32.0", "model": "tiny", "context": 256}
    found = vllm.say(ASK)
    assert found.ids == (394, 472, 342, 409, 0)
    assert found.logp == tuple(VLLM["choices"][0]["logprobs"]["token_logprobs"])  # type: ignore[index]
    sent = server.asked["/v1/completions"]
    assert (sent["temperature"], sent["top_k"], sent["top_p"], sent["min_p"]) == (1.0, 0, 1.0, 0.0)
    assert (sent["seed"], sent["max_tokens"], sent["prompt"]) == (4611686018427387000, 5, [5, 6, 7, 8])
    assert sent["ignore_eos"] and sent["stop_token_ids"] == [0] and sent["logprobs"] == 0
    vllm.say(Ask((5, 6, 7, 8), 5, 1, 0, Decoding(0.5, 7, 0.9)))
    sent = server.asked["/v1/completions"]
    assert (sent["temperature"], sent["top_k"], sent["top_p"]) == (0.5, 7, 0.9)
    assert vllm.label() is None and vllm.spelt("hello") is None  # endpoints that it does not have


def test_refusals_and_failures_of_vllm(replay: Any) -> None:
    """Of a vocabulary, a model, a path: said as they are. A server that has broken down may come back."""
    words = "Token id 99999 is out of vocabulary"
    wrong = {"error": {"message": words, "type": "BadRequestError", "param": None, "code": 400}}
    for status, answer, kind in (
        (400, wrong, Refused),
        (500, FAILED, Unavailable),
        (503, "", Unavailable),
        (429, {"detail": "Too many requests"}, Unavailable),
    ):
        _, line = replay(v1__completions=(status, answer))
        with pytest.raises(kind) as error:
            VllmServer(line).say(ASK)
        assert str(status) in str(error.value)
        assert status != 400 or words in str(error.value)


def test_an_answer_of_sglang(replay: Any) -> None:
    server, line = replay(
        generate=(200, SGLANG),
        get_model_info=(200, {"model_path": "served", "is_generation": True, "weight_version": "default"}),
        get_server_info=(200, {"version": "0.5.6", "context_length": 4096}),
    )
    sglang = SglangServer(line)
    assert vars(sglang.facts()) == {"engine": "SGLang 0.5.6", "model": "served", "context": 4096}
    assert sglang.label() == "default"
    found = sglang.say(ASK)
    assert (found.ids, found.logp, found.label) == ((394, 0), (-4.27, -0.003), "turnwise:1")
    sent = server.asked["/generate"]
    assert sent["input_ids"] == [5, 6, 7, 8] and sent["return_logprob"]
    how = sent["sampling_params"]
    assert (how["temperature"], how["top_k"], how["top_p"], how["max_new_tokens"]) == (1.0, -1, 1.0, 5)
    assert how["stop_token_ids"] == [0] and how["no_stop_trim"] and how["sampling_seed"] < 2**31


def test_an_answer_that_sglang_broke_off_is_asked_for_again(replay: Any) -> None:
    meta = {**SGLANG["meta_info"], "finish_reason": {"type": "abort", "message": "paused"}}  # type: ignore[dict-item]
    _, line = replay(generate=(200, {**SGLANG, "meta_info": meta}))
    with pytest.raises(Unavailable, match="broken off"):
        SglangServer(line).say(ASK)
