"""A server in the partner's place: any that answers `/v1/chat/completions` as OpenAI's does.

It is asked with the whole conversation as the partner has it. A lane whose server does not answer, or answers
without words, cannot go on: its conversation fails, and counts for nothing.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from turnwise.data.dialogue import chat_message
from turnwise.envs.dialogue import Message
from turnwise.rollout.engines.servers.transport import Refused, Transport, Unavailable
from turnwise.run.errors import InputError, SettingError

AT_ONCE = 16
"""requests under way at a time"""
TRIES, WAIT = 3, 0.5
"""how often a busy or absent server is asked, and the seconds before the second try; then twice those"""


class SpeakingServer:
    """A `Speaker` elsewhere. The key of the server is read from TURNWISE_ENGINE_KEY, if it asks for one."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        instructions: str | None = None,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        timeout: float = 60.0,
    ) -> None:
        """`model`: None is the first that the server lists. `instructions`: a system message of its own.

        SettingError for an address that is none.
        """
        if not url.startswith(("http://", "https://")):
            raise SettingError("partner", url, "an address, as http://127.0.0.1:8000/v1")
        self._line = Transport(url, timeout)
        self.instructions, self.temperature, self.max_tokens = instructions, temperature, max_tokens
        self._model = model
        self._seeds: dict[int, int] = {}
        # One pool for all turns: each of its threads keeps a connection of its own.
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._let_go = weakref.finalize(self, _close, self._pool, self._line)

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Servers that sample by a seed are given that of the lane."""
        self._seeds |= dict(zip(lanes, seeds, strict=True))

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What the server says in each lane after `seen`; None if there is nothing to be had.

        InputError if no model was named and the server lists none.
        """
        self._model = self._model or self._first_model()
        return list(self._pool.map(self._ask, lanes, seen))

    def close(self) -> None:
        """Let go of the server; nobody has to, as it happens with the last mention of the speaker."""
        self._let_go()

    def _ask(self, lane: int, seen: Sequence[Message]) -> str | None:
        told = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        body = {
            "model": self._model,
            "messages": [*told, *map(chat_message, seen)],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": (self._seeds[lane] + len(seen)) % 2**31,
        }
        for attempt in range(TRIES):
            try:
                return _words(self._line.post("/v1/chat/completions", body))
            except Unavailable:
                if attempt + 1 < TRIES:
                    time.sleep(WAIT * 2**attempt)
            except Refused:
                return None
        return None

    def _first_model(self) -> str:
        try:
            found = self._line.get("/v1/models")
            return str(found["data"][0]["id"])
        except (Unavailable, Refused) as e:
            raise InputError(f"partner {self._line.url}: its models cannot be listed ({e})") from e
        except (LookupError, TypeError) as e:
            raise InputError(f"partner {self._line.url}: expected a list of models; found {found!r}") from e


def _close(pool: ThreadPoolExecutor, line: Transport) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    line.close()


def _words(answer: Any) -> str | None:
    """The text of a chat completion; None for anything else, and for one that was cut by its limit."""
    try:
        choice: Mapping[str, Any] = answer["choices"][0]
        text = choice["message"]["content"]
    except (LookupError, TypeError):
        return None
    if not isinstance(text, str) or not text.strip() or choice.get("finish_reason") == "length":
        return None
    return text.strip()
