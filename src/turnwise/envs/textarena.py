"""A game with TextArena's interface as a dialogue task: the agent has one seat, scripts the others.

    tw.evaluate(policy, TextArenaTask(MyGame, players=2, opponent=my_player))
    turnwise evaluate runs/bc --task turnwise.envs.textarena:TextArenaTask --task-settings env=Wordle-v0

The interface (Guertler et al. 2025, arXiv:2504.11442): `reset(num_players, seed)`, `get_observation()` gives
who is to speak and what that player sees, `step(action)` whether it is over and some info, `close()` what
each player earned. Nothing of the package is needed for games of one's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from turnwise.envs.dialogue import Message, Response
from turnwise.run.errors import SettingError
from turnwise.run.files.modules import function_named

Player = Callable[[str], str]
"""answers what it sees"""
GAME = -1
"""who speaks if it is the game itself"""
OVER = "The game is over."
"""what an agent is told whose game ended before its first turn"""


class Game(Protocol):
    """The interface of TextArena's environments, as far as it is used here."""

    def reset(self, num_players: int, seed: int | None = None) -> Any:
        """Begin anew."""
        ...

    def get_observation(self) -> tuple[int, Any]:
        """(who is to speak, what that player sees): text, or (from, text, kind) of all that is new."""
        ...

    def step(self, action: str) -> tuple[bool, Any]:
        """(whether the game is over, info)."""
        ...

    def close(self) -> Any:
        """(rewards by player, info by player)."""
        ...


@dataclass
class _Lane:
    game: Game
    chance: Any
    """the state of Python's global generator, which these games draw from, as this lane's game left it"""
    seen: dict[int, str] = field(default_factory=dict)
    """all that a player has been shown so far, of games that show everything again"""
    said: str = ""
    over: bool = False


class TextArenaTask:
    """A `DialogueTask` from a game of text. All rewards come at the end, which is a termination.

    Games of TextArena draw from Python's global generator. Each lane gets it back as its own game left it,
    and what others draw from it is not disturbed, so that a conversation depends on its seed alone.
    """

    name = "textarena"

    def __init__(
        self,
        env: str | Callable[[], Game],
        players: int = 1,
        seat: int = 0,
        opponent: str | Player | None = None,
    ) -> None:
        """`env`: an id of TextArena (the package must be installed), `module:Class`, or what makes the game.

        `players`: how many play; the agent has `seat`, counted from 0, and `opponent`, a function or
        `module:function` from what a player sees to what it says, has all others. SettingError for what
        cannot be.
        """
        if isinstance(players, bool) or not isinstance(players, int) or players < 1:
            raise SettingError("players", players, "1 or more")
        if isinstance(seat, bool) or not isinstance(seat, int) or not 0 <= seat < players:
            raise SettingError("seat", seat, f"0 to {players - 1}")
        if players > 1 and opponent is None:
            raise SettingError("opponent", opponent, "who plays the other seats, as module:function")
        self.players, self.seat = players, seat
        self._env, self._opponent = env, opponent
        self._make = _maker(env)
        self._others = function_named("opponent", opponent) if isinstance(opponent, str) else opponent
        self._lanes: dict[int, _Lane] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What was given, as far as words can say it."""
        own: dict[str, Any] = {"env": self._env} if isinstance(self._env, str) else {}
        own |= {"players": self.players} if self.players != 1 else {}
        own |= {"seat": self.seat} if self.seat else {}
        return own | ({"opponent": self._opponent} if isinstance(self._opponent, str) else {})

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """A new game in each lane; others have spoken if it was their turn."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            outside = random.getstate()
            try:
                random.seed(seed)
                game = self._make()
                game.reset(num_players=self.players, seed=seed)
                self._lanes[lane] = _Lane(game, None)
                text = self._until_its_turn(self._lanes[lane], done=False)
                self._lanes[lane].chance = random.getstate()
            finally:
                random.setstate(outside)
            openings.append((Message("user", OVER if text is None else text),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks, then the others until it is its turn again."""
        return [self._step(self._lanes[lane], reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """Nothing: games do not say what they hide."""
        return {}

    def _step(self, lane: _Lane, reply: str) -> Response:
        outside = random.getstate()
        try:
            random.setstate(lane.chance)
            text = None
            if not lane.over:
                lane.said = reply
                done, _ = lane.game.step(action=reply)
                text = self._until_its_turn(lane, bool(done))
            response = self._ended(lane) if lane.over else Response((Message("user", text or ""),), 0.0)
            lane.chance = random.getstate()
            return response
        finally:
            random.setstate(outside)

    def _until_its_turn(self, lane: _Lane, done: bool) -> str | None:
        """Others speak until the agent is to; what it sees then, or None if the game is over."""
        while not done:
            player, shown = lane.game.get_observation()
            if player == self.seat:
                return self._news(lane, shown)
            assert self._others is not None  # there are others only with an opponent
            done, _ = lane.game.step(action=self._others(_as_text(shown)))
        lane.over = True
        return None

    def _news(self, lane: _Lane, shown: Any) -> str:
        """What the agent has not seen yet, and has not said itself."""
        if not isinstance(shown, str):
            return _as_text([said for said in shown if said[0] != self.seat])
        before = lane.seen.get(self.seat, "")
        lane.seen[self.seat] = shown
        news = (shown[len(before) :] if shown.startswith(before) else shown).strip()
        echo = f"[Player {self.seat}] {lane.said}"
        return news[len(echo) :].strip() if lane.said and news.startswith(echo) else news

    def _ended(self, lane: _Lane) -> Response:
        rewards, infos = lane.game.close()
        reward = float((rewards or {}).get(self.seat, 0.0))
        info = dict((infos or {}).get(self.seat, {})) if isinstance(infos, Mapping) else {}
        return Response((), reward, terminated=True, info=info | {"success": reward > 0})


def _as_text(shown: Any) -> str:
    """What a player sees: text as it is; of (from, text, kind) the texts, with who said it of players."""
    if isinstance(shown, str):
        return shown
    return "\n".join(text if who == GAME else f"[Player {who}] {text}" for who, text, *_ in shown)


def _maker(env: str | Callable[[], Game]) -> Callable[[], Game]:
    if not isinstance(env, str):
        return env
    if ":" in env:
        return function_named("env", env)
    make = function_named("env", "textarena:make")
    return lambda: make(env)
