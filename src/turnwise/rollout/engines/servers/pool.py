"""Several servers as one: whoever is free answers, whoever fails is looked after, and nothing is lost.

What is said is a function of what was asked (each utterance has a seed of its own), so it does not matter who
says it. A server that fails is left alone until it answers again; if it was started anew meanwhile, it gets
the weights first. An answer is handed out only once its server is known to have had the right weights
throughout.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from turnwise.rollout.engines.servers.contract import Answer, Ask, Server, Weights
from turnwise.rollout.engines.servers.transport import Refused, Unavailable
from turnwise.run.errors import InputError

Key = tuple[int, int]
"""a lane, and the number of what was asked"""
AT_ONCE = 256
"""utterances that one server is asked for at a time; it queues what it cannot hold"""
LONGEST_REST = 10.0
"""seconds between looks at a server that does not answer, at most"""
SURPRISES = 8
"""how often somebody else's weights are found in a server before the run gives up"""


@dataclass
class _Member:
    """A server and how it is doing."""

    server: Server
    resting: bool = False
    why: str = ""
    """why it rests, or did last"""
    busy: int = 0
    life: int = 0
    """how often it was found with other weights than it should have"""


@dataclass
class Box:
    """Where the answers of one caller go."""

    wanted: set[Key] = field(default_factory=set)
    ready: deque[tuple[Key, Ask, Answer, _Member, int]] = field(default_factory=deque)
    """with who answered, and in which of its lives"""


class Pool:
    """Threads that ask servers, as many at a time as these take."""

    def __init__(
        self, servers: Sequence[Server], *, wait: float, tell: Callable[[str], None], at_once: int = AT_ONCE
    ):
        self.wait, self.tell, self.at_once = wait, tell, at_once
        self.members = [_Member(s) for s in servers]
        self.weights: Weights | None = None
        """what each server should have loaded; None: what it was started with"""
        self.labels: dict[str, str | None] = {}
        """by address: the label of the right weights; None if the server has no labels"""
        self._jobs: queue.SimpleQueue[tuple[Box, Key, Ask] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._error: BaseException | None = None
        self._surprises = 0
        self._closed = False

    def put(self, box: Box, key: Key, ask: Ask) -> None:
        """Ask for an utterance; its answer comes into `box` under `key`."""
        with self._changed:
            box.wanted.add(key)
            most = self.at_once * len(self.members)
            self._idle -= 1
            if self._idle < 0 and self._threads < most:
                self._threads += 1
                self._idle += 1
                threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put((box, key, ask))

    def drop(self, box: Box, key: Key) -> None:
        """An answer that nobody wants any more."""
        with self._changed:
            box.wanted.discard(key)

    def take(self, box: Box, at_least: int) -> list[tuple[Key, Answer]]:
        """Answers that have come: `at_least` many, or all that are wanted. InputError if none can."""
        found: list[tuple[Key, Answer]] = []
        while True:
            with self._changed:
                while self._error is None and len(box.ready) < min(at_least - len(found), len(box.wanted)):
                    self._changed.wait()
                if self._error is not None:
                    raise self._error
                come = [x for x in box.ready if x[0] in box.wanted]
                box.ready.clear()
            sure = self._sure({id(m): m for _, _, _, m, _ in come}.values())
            for key, ask, answer, member, life in come:
                expected = self.labels.get(member.server.url)
                said = None in (answer.label, expected) or answer.label == expected
                if id(member) in sure and life == member.life and said:
                    found.append((key, answer))
                    self.drop(box, key)
                else:  # said with other weights, or nobody knows: asked again
                    self.put(box, key, ask)
            if len(found) >= at_least or not box.wanted:
                return found

    def load(self, weights: Weights) -> None:
        """Let all servers have these weights, while nothing is being said. Those that fail get them later."""
        self.weights = weights
        for member in self.members:
            if not member.resting:
                try:
                    self._give(member)
                except Unavailable as e:
                    self._rest(member, str(e))

    def close(self) -> None:
        """End the threads."""
        with self._changed:
            self._closed = True
            threads = self._threads
            self._changed.notify_all()
        for _ in range(threads):
            self._jobs.put(None)

    def _give(self, member: _Member) -> Weights | None:
        """Load the weights of now into a server; these weights."""
        weights, url = self.weights, member.server.url
        if weights is None:
            return None
        member.server.load(weights)
        label = member.server.label()
        # A server without labels cannot be told from one that was started anew.
        self.labels[url] = label if weights.adapter or label == weights.label else None
        return weights

    def _sure(self, members: Iterable[_Member]) -> set[int]:
        """Ids of the members that have the right weights now. The others rest, and are given them."""
        sure = set()
        for member in members:
            try:
                if self._right(member):
                    sure.add(id(member))
            except Unavailable as e:
                self._rest(member, str(e))
        return sure

    def _right(self, member: _Member) -> bool:
        """Whether a server has the right weights; if it has others, it is taken out of service first."""
        expected = self.labels.get(member.server.url)
        if expected is None or (found := member.server.label()) == expected:
            return True
        with self._changed:
            member.life += 1
            self._surprises += 1
            often = self._surprises > SURPRISES
        if often:
            raise InputError(
                f"{member.server.url}: its weights are replaced again and again by somebody else; expected a "
                "server of one's own"
            )
        self._rest(member, f"it has other weights ({found}), as after a new start; they are loaded again")
        return False

    def _work(self) -> None:
        """One thread: an utterance after the other."""
        while (job := self._jobs.get()) is not None:
            try:
                self._answer(*job)
            except BaseException as e:  # whoever waits for the answer shall know
                with self._changed:
                    self._error = self._error or e
                    self._changed.notify_all()
            with self._changed:
                self._idle += 1

    def _answer(self, box: Box, key: Key, ask: Ask) -> None:
        began, last = time.monotonic(), ""
        while key in box.wanted and not self._closed:
            member = self._free(began, last)
            if member is None:
                return
            life = member.life
            try:
                answer = member.server.say(ask)
            except Unavailable as e:
                last = f"{member.server.url}: {e}"
                self._rest(member, str(e))
                continue
            except Refused as e:
                raise InputError(f"{member.server.url}: refuses to answer: {e}") from e
            finally:
                with self._changed:
                    member.busy -= 1
                    self._changed.notify_all()
            with self._changed:
                box.ready.append((key, ask, answer, member, life))
                self._changed.notify_all()
            return

    def _free(self, began: float, last: str) -> _Member | None:
        """The least busy of the servers that answer, taken; None after the end. InputError after too long."""
        with self._changed:
            while not self._closed and self._error is None:
                up = [m for m in self.members if not m.resting and m.busy < self.at_once]
                late = time.monotonic() - began - self.wait
                if late > 0 and (last or not up):
                    raise InputError(
                        f"no server has answered for {self.wait:g} seconds ({last or self._down()}); "
                        "expected one that is running, and that answers within engine_timeout"
                    )
                if up:
                    member = min(up, key=lambda m: m.busy)
                    member.busy += 1
                    return member
                self._changed.wait(min(1.0, max(0.01, -late)))
        return None

    def _down(self) -> str:
        return "; ".join(f"{m.server.url}: {m.why}" for m in self.members if m.resting)

    def _rest(self, member: _Member, why: str) -> None:
        """Take a server out of service, and look after it until it answers again."""
        with self._changed:
            if member.resting:
                return
            member.resting, member.why = True, why
            others = sum(not m.resting for m in self.members)
        if others:
            words = "the other servers do its part"
        else:
            words = f"waiting up to {self.wait:g} seconds for a server"
        self.tell(f"{member.server.url}: {why}; {words}")
        threading.Thread(target=self._look_after, args=(member,), daemon=True).start()

    def _look_after(self, member: _Member) -> None:
        pause = 0.1
        while not self._closed and self._error is None:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_REST)
            try:
                member.server.facts()
                given = self._refreshed(member)
            except Unavailable:
                continue
            except BaseException as e:
                with self._changed:
                    self._error = self._error or (e if isinstance(e, InputError) else InputError(str(e)))
                    self._changed.notify_all()
                return
            with self._changed:
                if given is not self.weights:  # newer ones have come meanwhile
                    continue
                member.resting = False
                self._changed.notify_all()
            self.tell(f"{member.server.url}: answers again")
            return

    def _refreshed(self, member: _Member) -> Weights | None:
        """The weights that a server has which answers again; it is given them, if it may have lost them."""
        weights, expected = self.weights, self.labels.get(member.server.url)
        found = member.server.label()
        if weights is not None and not weights.adapter and found == expected == weights.label:
            return weights
        if expected is not None and found != expected:
            with self._changed:
                member.life += 1
            if weights is None or weights.adapter:
                raise InputError(
                    f"{member.server.url}: was {expected}, and is {found}; expected the weights that it had"
                )
        return self._give(member)
