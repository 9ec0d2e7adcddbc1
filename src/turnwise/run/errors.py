"""Errors that a person reads: one line about what was given and what was expected, exit code 2."""

from __future__ import annotations


class InputError(Exception):
    """The user gave something that is wrong.

    The message names the place (file, line, field) and what was expected. The command line prints it
    without a traceback and exits with code 2.
    """


class SettingError(InputError):
    """A setting has a value that cannot work: `tau is 7.0; expected a number between 0 and 1`.

    The text speaks Python. The command line, where the same setting is a flag, prints `as_flag`. It is no
    ValueError: tyro catches those while it builds a `Config`, and would print the text in words of its own.
    """

    def __init__(self, name: str, value: object, expected: str) -> None:
        """`name`: the field or parameter; `expected`: what follows the word "expected"."""
        self.name, self.value, self.expected = name, value, expected
        super().__init__(f"{name} is {value!r}; expected {expected}")

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, object, str]]:
        # It crosses processes, and would be made anew from its text alone.
        return SettingError, (self.name, self.value, self.expected)

    def as_flag(self) -> str:
        """The same in the words of the command line: `--tau 7.0: expected a number between 0 and 1`."""
        value = "" if self.value is None else f" {self.value}"
        return f"--{self.name.replace('_', '-')}{value}: expected {self.expected}"


class OutOfMemory(InputError):
    """The machine has no memory left for a step: nothing of it is learnt."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU, where PyTorch says so in words alone."""
    said = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return said or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


class Interrupted(Exception):
    """Ctrl-C was pressed, and a checkpoint is written: a resumed run goes on from there."""


class Diverged(InputError):
    """A loss, a gradient or a weight is not finite: nothing of the step is kept, and no checkpoint of it."""
