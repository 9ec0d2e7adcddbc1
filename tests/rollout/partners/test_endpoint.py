"""A server in the partner's place, over a real socket: what it is asked, and how it fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.task import Negotiation
from turnwise.recipes.tasks import task_called
from turnwise.rollout.partners import endpoint
from turnwise.rollout.partners.endpoint import SpeakingServer
from turnwise.run.errors import InputError, SettingError


class Server:
    """Answers by a script; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.busy, self.reason, self.text, self.status = 0, "stop", "i agree", 200
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(200, {"data": [{"id": "first"}, {"id": "second"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(body)
                    outer.headers.append(self.headers)
                    busy, outer.busy = outer.busy, max(0, outer.busy - 1)
                if busy:
                    return self.reply(503, {"error": "busy"})
                if outer.status != 200:
                    return self.reply(outer.status, {"error": {"message": "no"}})
                choice = {
                    "message": {"role": "assistant", "content": outer.text},
                    "finish_reason": outer.reason,
                }
                return self.reply(200, {"choices": [choice]})

            def reply(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "WAIT", 0.01)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


TALK = (Message("system", "you sell"), Message("user", "how much?"))


def test_it_is_asked_as_the_interface_says(server: Server, monkeypatch: pytest.MonkeyPatch):
    """Its own instructions come first, then the talk as it has it; a lane's seed moves on with the talk."""
    monkeypatch.setenv("TURNWISE_ENGINE_KEY", "secret")
    speaker = SpeakingServer(server.url, instructions="be mean", temperature=0.5, max_tokens=7)
    speaker.reset([3], [100])
    assert speaker.answer([3], [TALK]) == ["i agree"]
    (asked,) = server.asked
    assert asked == {
        "model": "first",
        "messages": [
            {"role": "system", "content": "be mean"},
            {"role": "system", "content": "you sell"},
            {"role": "user", "content": "how much?"},
        ],
        "temperature": 0.5,
        "max_tokens": 7,
        "seed": 102,
    }
    assert server.headers[0]["Authorization"] == "Bearer secret"
    speaker.close()


def test_lanes_are_asked_side_by_side_and_answered_in_order(server: Server):
    speaker = SpeakingServer(server.url, "second")
    speaker.reset(range(30), range(30))
    assert speaker.answer(range(30), [TALK] * 30) == ["i agree"] * 30
    assert sorted(a["seed"] for a in server.asked) == [i + 2 for i in range(30)]
    assert {a["model"] for a in server.asked} == {"second"}


def test_a_busy_server_is_asked_again(server: Server):
    server.busy = 2
    speaker = SpeakingServer(server.url, "m")
    speaker.reset([0], [0])
    assert speaker.answer([0], [TALK]) == ["i agree"] and len(server.asked) == 3


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"busy": 9}, 3),
        ({"status": 400}, 1),
        ({"text": "  "}, 1),
        ({"text": None}, 1),
        ({"reason": "length"}, 1),
    ],
    ids=["always busy", "refuses", "says nothing", "no words", "cut short"],
)
def test_what_is_no_answer_fails_the_talk(server: Server, change: dict[str, Any], asked: int):
    """The negotiation ends without a reward: cut and failed, so that it counts for nothing."""
    vars(server).update(change)
    task = Negotiation(partner=SpeakingServer(server.url, "m"))
    task.reset([0], [1])
    (response,) = task.step([0], ["you take the hats"])
    assert response.failed and response.truncated and not response.terminated and response.reward == 0
    assert len(server.asked) == asked


def test_a_whole_negotiation_by_its_address(server: Server):
    """At the command line a partner is named by its address; who takes what it said is paid by the rules."""
    words = f"negotiation partner={server.url} partner_model=m partner_instructions='want hats'"
    task = task_called(words)
    assert task_called(task.words).words == task.words
    live = task.live()
    live.reset([0], [1])
    for _ in range(20):
        (response,) = live.step([0], ["i would like the hats"])
        if response.terminated:
            break
    assert response.terminated and not response.failed and response.reward == 0  # nobody ever closed it
    assert all(a["messages"][0] == {"role": "system", "content": "want hats"} for a in server.asked)


def test_wrong_addresses_and_servers_without_models_are_said(server: Server):
    with pytest.raises(SettingError, match="partner is 'ftp://x'; expected an address"):
        SpeakingServer("ftp://x")
    with pytest.raises(SettingError, match="a server's address as the partner beside it"):
        task_called("negotiation partner_model=m").live()
    speaker = SpeakingServer("http://127.0.0.1:9")  # nobody listens there
    speaker.reset([0], [0])
    with pytest.raises(InputError, match=r"its models cannot be listed .*refused"):
        speaker.answer([0], [TALK])
