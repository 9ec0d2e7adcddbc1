"""Errors that a person reads: one line, in the words of what was given, exit code 2."""


class InputError(Exception):
    """Something that the user gave is wrong.

    The message names the place (file, line, field) and what was expected. The command line prints it
    without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """Ctrl-C, after a checkpoint was written: the same command with --resume goes on from there."""
