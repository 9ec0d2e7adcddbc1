"""Environments that are stepped in several processes: for those whose step takes milliseconds.

    envs = Workers(lambda: gymnasium.make("SlowEnv-v0"), lanes=16, workers=4)

Each worker has a group of lanes and steps them one after the other; the groups step at the same time. What
happens in a lane follows from its seeds and actions alone, so it is what happens in one process. (Gymnasium's
AsyncVectorEnv has a process for each lane, and cannot say in which one and where it failed.)

Processes are never left behind: they end with the object, with the program, if they are told to, and once
nobody can tell them anything. Ctrl-C is the first process's business. After a failure all of them are ended;
the next `reset` of all lanes starts new ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import (
    CloudpickleWrapper,
    batch_space,
    concatenate,
    create_empty_array,
    iterate,
)

from turnwise.envs.gymnasium.standing import played
from turnwise.envs.protocol import NotReproduced
from turnwise.run.errors import InputError

Make = Callable[[int], gymnasium.Env]
"""makes the environment of a lane"""
PATIENCE = 5.0
"""seconds in which a worker may end by itself"""


class EnvironmentFailed(RuntimeError):
    """An environment raised an error, or ended its process, in a lane and a step that the message names."""


class Workers(VectorEnv[Any, Any, Any]):
    """N lanes in several processes. Lanes begin anew by our word, as with `SyncVectorEnv` and DISABLED."""

    def __init__(self, make: Make, lanes: int, workers: int) -> None:
        """Errors of `make` are raised here."""
        self.num_envs, self._make = lanes, CloudpickleWrapper(make)  # type: ignore[arg-type]
        self._groups = [g for g in np.array_split(np.arange(lanes), workers) if len(g)]
        self._crew: _Crew | None = None
        self._start()
        said = self._ask([("about",)] + [None] * (len(self._groups) - 1))[0]
        self.single_observation_space, self.single_action_space, self.metadata, self.render_mode = said
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.observation_space = batch_space(self.single_observation_space, lanes)
        self.action_space = batch_space(self.single_action_space, lanes)
        self._seen: list[Any] = [None] * lanes

    @property
    def processes(self) -> list[int]:
        """Ids of the processes that are at work."""
        return [] if self._crew is None else [int(p.pid or 0) for p in self._crew.processes]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin anew in all lanes, or in those of `options["reset_mask"]` (bool [N]); observations of all."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if self._crew is None:
            self._start()
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else list(seed)
        asked: list[Any] = [
            ("reset", [(int(i), seeds[i]) for i in group if mask[i]]) if mask[group].any() else None
            for group in self._groups
        ]
        for group, found in zip(self._groups, self._ask(asked), strict=True):
            for i, seen in zip((i for i in group if mask[i]), found or (), strict=True):
                self._seen[i] = seen
        return self._batch(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations, rewards, terminations, truncations, each over N; infos are left where they are."""
        each = list(iterate(self.action_space, actions))
        found = self._ask([("step", [each[i] for i in group]) for group in self._groups])
        rows = [row for part in found for row in part]
        self._seen = [row[0] for row in rows]
        rewards = np.array([row[1] for row in rows], np.float64)
        flags = np.array([row[2:] for row in rows], bool)
        return self._batch(), rewards, flags[:, 0], flags[:, 1], {}

    def play(self, seeds: Sequence[int], actions: Sequence[Sequence[Any]]) -> list[Any]:
        """Begin episodes with these seeds and do what was done in each lane; the last observations."""
        if self._crew is None:
            self._start()
        parts = [("play", [(int(seeds[i]), list(actions[i])) for i in group]) for group in self._groups]
        self._seen = [seen for part in self._ask(parts) for seen in part]
        return list(self._seen)

    def close_extras(self, **_: Any) -> None:
        """End the processes. The next reset of all lanes starts new ones."""
        if self._crew is not None:
            self._crew.end()
            self._crew = None

    def close(self, **_: Any) -> None:
        """The same; it may be called again, and after it the lanes may be reset."""
        self.close_extras()

    def _start(self) -> None:
        self._crew = _Crew(self._make, self._groups)
        self._end = weakref.finalize(self, self._crew.end)

    def _batch(self) -> Any:
        room: Any = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self._seen, room)

    def _ask(self, requests: Sequence[Any]) -> list[Any]:
        """The answer of each worker to its request, None to a request of None. An error ends all of them."""
        if self._crew is None:
            raise ValueError("the processes were ended; reset comes first")
        try:
            return self._crew.ask(requests)
        except BaseException:
            self.close_extras()
            raise


class _Crew:
    """Processes at work, and how to speak to them."""

    def __init__(self, make: CloudpickleWrapper, groups: Sequence[np.ndarray]) -> None:
        # A fork begins at once, and needs no program whose main file can be imported again. It takes no lock
        # that one of our threads may hold: workers touch neither PyTorch nor the terminal.
        way = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(way)
        self.groups, self.processes, self.pipes, self.places = groups, [], [], []
        for group in groups:
            mine, theirs = context.Pipe()
            place = context.RawArray("q", [int(group[0]), -1])
            others = [*self.pipes, mine] if way == "fork" else []
            args = (make, [int(i) for i in group], theirs, place, others)
            process = context.Process(target=_work, args=args, daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; see above
                process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(mine)
            self.places.append(place)

    def ask(self, requests: Sequence[Any]) -> list[Any]:
        """One answer for each request, in the time of the slowest."""
        asked = [i for i, request in enumerate(requests) if request is not None]
        answers: list[Any] = [None] * len(requests)
        for i in asked:
            try:
                self.pipes[i].send(requests[i])
            except OSError as e:
                raise self._died(i) from e
        waiting = {self.pipes[i]: i for i in asked}
        while waiting:
            for pipe in wait(list(waiting)):
                i = waiting.pop(pipe)  # type: ignore[arg-type]
                try:
                    done, answer = self.pipes[i].recv()
                except (EOFError, OSError) as e:
                    raise self._died(i) from e
                if not done:
                    raise _raised(*answer)
                answers[i] = answer
        return answers

    def end(self) -> None:
        """Tell all to end, and make those that do not."""
        for pipe in self.pipes:
            with contextlib.suppress(OSError, ValueError):
                pipe.send(None)
            pipe.close()
        for process in self.processes:
            process.join(PATIENCE)
            if process.is_alive():  # in the middle of a long step, perhaps
                process.kill()
                process.join()

    def _died(self, i: int) -> EnvironmentFailed:
        self.processes[i].join(PATIENCE)
        code = self.processes[i].exitcode or 0
        lane, step = self.places[i]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return EnvironmentFailed(f"the process of the environment {how}, {_where(lane, step)}")


def _where(lane: int, step: int) -> str:
    place = {-1: "as it was made", 0: "at the start of an episode"}.get(step, f"in step {step} of an episode")
    return f"{place} (lane {lane})"


def _raised(error: Exception | None, words: str, where: str, trace: str) -> Exception:
    """The error of a worker: one of those that are told as they are, or a stranger's with lane and step."""
    error = error or EnvironmentFailed(f"the environment failed {where}: {words}")
    error.add_note(f"In its process:\n{trace}")
    return error


def _work(
    make: CloudpickleWrapper, group: list[int], pipe: Connection, place: Any, others: Sequence[Connection]
) -> None:
    """What a worker does: answer one request after the other, until it is told to end or nobody is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # the first process's ends, copied by a fork: held here, they would hide its end
        other.close()
    envs: dict[int, gymnasium.Env] = {}
    try:
        lanes = _Lanes(envs, group, place)
        while (request := pipe.recv()) is not None:
            try:
                for i in group:
                    if i not in envs:
                        place[0], place[1] = i, -1
                        envs[i] = make.fn(i)  # type: ignore[call-arg]
                answer = (True, getattr(lanes, request[0])(*request[1:]))
            except BaseException as e:
                answer = (False, _told(e, place))
            pipe.send(answer)
    except (EOFError, OSError):  # the first process is gone
        pass
    finally:
        for env in envs.values():
            with contextlib.suppress(Exception):
                env.close()


def _told(e: BaseException, place: Any) -> tuple[Exception | None, str, str, str]:
    """An error as what can be sent: itself if it tells enough, in words, where it was, its traceback."""
    own = isinstance(e, InputError | ImportError | NotReproduced | gymnasium.error.Error)
    words = "".join(traceback.format_exception_only(e)).strip()
    return e if own else None, words, _where(*place), "".join(traceback.format_exception(e))  # type: ignore


class _Lanes:
    """What a worker can be asked for. `place` says, for whoever survives it, in which lane and step it is."""

    def __init__(self, envs: dict[int, gymnasium.Env], group: list[int], place: Any) -> None:
        self.envs, self.group, self.place = envs, group, place
        self.ages = dict.fromkeys(group, 0)

    def about(self) -> tuple[Any, Any, dict[str, Any], str | None]:
        """Spaces, metadata and render_mode, of the first lane."""
        env = self.envs[self.group[0]]
        return env.observation_space, env.action_space, dict(env.metadata), env.render_mode

    def reset(self, seeds: list[tuple[int, int | None]]) -> list[Any]:
        """First observations of the lanes that are named."""
        found = []
        for lane, seed in seeds:
            self._at(lane, 0)
            found.append(self.envs[lane].reset(seed=seed)[0])
        return found

    def step(self, actions: list[Any]) -> list[tuple[Any, float, bool, bool]]:
        """One step of each lane."""
        found = []
        for lane, action in zip(self.group, actions, strict=True):
            self._at(lane, self.ages[lane] + 1)
            seen, reward, terminated, truncated, _ = self.envs[lane].step(action)
            found.append((seen, float(reward), bool(terminated), bool(truncated)))
        return found

    def play(self, episodes: list[tuple[int, list[Any]]]) -> list[Any]:
        """The last observation of each lane after its seed and its actions."""
        found = []
        for lane, (seed, actions) in zip(self.group, episodes, strict=True):
            self._at(lane, 0)
            found.append(played(self.envs[lane], lane, seed, actions))
            self.ages[lane] = len(actions)
        return found

    def _at(self, lane: int, step: int) -> None:
        self.place[0], self.place[1] = lane, step
        self.ages[lane] = step
