"""A task that somebody else wrote: finding it by its name, and checking what it answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from turnwise.envs.dialogue import DialogueTask, Message, Response
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.modules import callable_named


@runtime_checkable
class _Task(Protocol):
    """`DialogueTask`, for isinstance."""

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]: ...

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]: ...

    def hidden(self, lane: int) -> Mapping[str, Any]: ...


@runtime_checkable
class _HasName(Protocol):
    name: str


METHODS = ("reset", "step", "hidden")


def name_of(task: Any, otherwise: str) -> str:
    """The `name` of a task or of its class, if that has one."""
    return task.name if isinstance(task, _HasName) and isinstance(task.name, str) else otherwise


def module_of(kind: type) -> str:
    """The module that a class can be imported from; of a script that runs, the name of its file."""
    if kind.__module__ != "__main__":
        return kind.__module__
    file = getattr(sys.modules["__main__"], "__file__", None)
    return kind.__module__ if file is None else Path(file).stem


def import_task(spec: str) -> Callable[..., DialogueTask]:
    """The class or function that `package.module:Task` names, looked for in the working directory too.

    What it returns when called is checked to be a task. SettingError says what could not be found or made.
    """
    module, _, attribute = spec.partition(":")
    return _Factory(spec, cast(Callable[..., DialogueTask], callable_named("task", spec, module, attribute)))


class _Factory:
    """Makes the task, or says in the user's words why not."""

    def __init__(self, spec: str, factory: Callable[..., DialogueTask]) -> None:
        self.spec, self.factory = spec, factory
        self.__wrapped__ = factory  # `inspect` reads its settings and its documentation here
        self.__doc__ = factory.__doc__
        self.name = name_of(factory, spec)

    def __call__(self, **settings: Any) -> DialogueTask:
        try:
            task = self.factory(**settings)
        except InputError:
            raise
        except Exception as e:
            raise SettingError("task", self.spec, f"a task that can be made; found {_words(e)}") from e
        if not isinstance(task, _Task):
            missing = [name for name in METHODS if not callable(getattr(task, name, None))]
            expected = f"a task with {', '.join(METHODS)}; {type(task).__name__} lacks {', '.join(missing)}"
            raise SettingError("task", self.spec, expected)
        return task


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class CheckedTask:
    """A task whose answers are checked where they come in, so that a mistake in it is named as such.

    InputError names the task, the lane, what was found and what was expected.
    """

    def __init__(self, task: DialogueTask, name: str) -> None:
        self.task, self.name = task, name

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """As the task answers; each opening is a sequence of at least one message."""
        openings = self._one_each("reset", lanes, self.task.reset(lanes, seeds))
        for lane, messages in zip(lanes, openings, strict=True):
            self._messages("reset", lane, messages)
            if not messages:
                self._refuse("reset", lane, "at least one message before the agent's first turn", "none")
        return [tuple(messages) for messages in openings]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """As the task answers; rewards are finite, and at most one of the two ends holds."""
        responses = self._one_each("step", lanes, self.task.step(lanes, replies))
        for lane, response in zip(lanes, responses, strict=True):
            if not isinstance(response, Response):
                self._refuse("step", lane, "a Response", repr(response))
            self._messages("step", lane, response.messages)
            reward = response.reward
            if isinstance(reward, bool) or not _is_finite(reward):
                self._refuse("step", lane, "a finite number as the reward", repr(reward))
            if response.terminated and response.truncated:
                self._refuse("step", lane, "at most one of terminated and truncated", "both")
            if response.failed and not response.truncated:
                self._refuse("step", lane, "truncated=True beside failed=True", "truncated=False")
            if not (response.messages or response.terminated or response.truncated):
                self._refuse("step", lane, "a message to the agent, or an end of the conversation", "neither")
        return responses

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """As the task answers: a mapping."""
        found = self.task.hidden(lane)
        if not isinstance(found, Mapping):
            self._refuse("hidden", lane, "a mapping (it may be empty)", repr(found))
        return found

    def _one_each(self, method: str, lanes: Sequence[int], answers: Any) -> list[Any]:
        if not isinstance(answers, list | tuple) or len(answers) != len(lanes):
            n = f"{len(answers)} answers" if isinstance(answers, list | tuple) else repr(answers)
            raise InputError(
                f"task {self.name}: {method} was given {len(lanes)} lanes; expected a list with one answer "
                f"for each, found {n}"
            )
        return list(answers)

    def _messages(self, method: str, lane: int, messages: Any) -> None:
        if not isinstance(messages, list | tuple):
            self._refuse(method, lane, "a tuple of messages", repr(messages))
        for message in messages:
            if not isinstance(message, Message):
                self._refuse(method, lane, "Message(role, content)", repr(message))
            for part in ("role", "content"):
                value = getattr(message, part)
                if not isinstance(value, str) or (part == "role" and not value):
                    self._refuse(method, lane, f"a message whose {part} is text", repr(value))

    def _refuse(self, method: str, lane: int, expected: str, found: str) -> None:
        raise InputError(f"task {self.name}: {method}, lane {lane}: expected {expected}; found {found}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
