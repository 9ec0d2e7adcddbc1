"""Shards as tasks of Ray: on a cluster that exists, or on processes of this machine that are started for it.

Ray does a task again whose worker is lost, with its machine or alone. Tasks here change nothing but what they
return, so that doing one again is safe. The package is imported by nobody who does not ask for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from turnwise.run.errors import InputError, SettingError

P = TypeVar("P")
R = TypeVar("R")

AGAIN = 3
"""how often a shard is done again whose worker was lost"""
TOKEN = "~/.ray/auth_token"
"""where Ray keeps the token of its clusters, unless a variable of its own says otherwise"""
PATIENCE = 10.0
"""seconds for a cluster to answer at its address"""
WHERE = "auto (a cluster that runs here, or that RAY_ADDRESS names), local (this machine), or an address"


class _Failed(NamedTuple):
    """What a person got wrong, as a worker found it."""

    error: InputError


class RayWorkers:
    """Workers of a Ray cluster, each with `cpus` CPUs and threads, and `gpus` GPUs or a share of one."""

    def __init__(self, ray: Any, cpus: int = 1, gpus: float = 0.0) -> None:
        self.ray = ray
        self.task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=AGAIN)(_task)
        self.threads = cpus

    def each(
        self,
        do: Callable[[Any, P], R],
        shared: Any,
        parts: Sequence[P],
        done: Callable[[int], None] = lambda i: None,
    ) -> list[R]:
        """As `turnwise.run.shards.here.Workers` says; what is shared is sent to each machine once."""
        ray = self.ray
        common = ray.put(shared)
        under_way = {self.task.remote(do, common, part, self.threads): i for i, part in enumerate(parts)}
        found: list[Any] = [None] * len(parts)
        try:
            while under_way:
                ready, _ = ray.wait(list(under_way), num_returns=1)
                for task in ready:
                    i = under_way.pop(task)
                    found[i] = self._result(task, i, len(parts))
                    done(i)
        finally:  # after an error, and after Ctrl-C, the others would go on for nobody
            for task in under_way:
                ray.cancel(task, force=True)
        return found

    def _result(self, task: Any, shard: int, shards: int) -> Any:
        errors = self.ray.exceptions
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError)
        try:
            answer = self.ray.get(task)
        except (*lost, errors.OutOfMemoryError) as e:
            why = "it had no memory left" if isinstance(e, errors.OutOfMemoryError) else type(e).__name__
            raise InputError(
                f"the worker of shard {shard} of {shards} was lost {AGAIN + 1} times ({why}); expected "
                "machines that stay, and more shards or fewer lanes where memory is short"
            ) from e
        if isinstance(answer, _Failed):
            raise answer.error
        return answer


def _task(do: Callable[[Any, P], R], shared: Any, part: P, threads: int) -> R | _Failed:
    """One shard, in a worker."""
    import torch

    torch.set_num_threads(threads)
    try:
        return do(shared, part)
    except InputError as e:  # Ray would put its traceback into the words
        return _Failed(e)


def expect_ray(address: str | None) -> None:
    """SettingError if workers of Ray are asked for where its package is not."""
    if address is not None and importlib.util.find_spec("ray") is None:
        raise SettingError("ray", address, "none, or the package ray: pip install 'turnwise[ray]'")


@contextlib.contextmanager
def on_ray(address: str, cpus: int = 1, gpus: float = 0.0) -> Iterator[RayWorkers]:
    """Workers at `address`: "auto", "local" or that of a cluster. They are let go at the end.

    A connection that this process has already is used, and left as it was. SettingError for an address where
    nobody answers, and for more CPUs or GPUs a shard than any machine has; InputError for machines with
    another turnwise.
    """
    expect_ray(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of each cluster otherwise
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it warns that a default will change
    if address not in ("auto", "local") and _has_token():
        # To an address that it is told, Ray 2.60 sends no token by itself. It reads this as it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray  # pyright: ignore[reportMissingImports]

    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        _expect_room(ray, address, cpus, gpus)
        workers = RayWorkers(ray, cpus, gpus)
        _expect_same(workers)
        yield workers
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        _expect_somebody(address)
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        said = (str(e).splitlines() or [type(e).__name__])[0]
        token = f"; if it asks for a token, {TOKEN} has to hold the cluster's"
        raise SettingError("ray", address, f"{WHERE}; no cluster answers there ({said}{token})") from e


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or os.path.isfile(os.path.expanduser(TOKEN))


def _expect_somebody(address: str) -> None:
    """OSError for an address of which nobody answers: Ray itself would wait for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _expect_room(ray: Any, address: str, cpus: int, gpus: float) -> None:
    """A task that fits no machine would wait for ever."""
    for name, kind, asked in (("ray_cpus", "CPU", cpus), ("ray_gpus", "GPU", gpus)):
        most = max((node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        if asked > most:
            raise SettingError(name, asked, f"{most:g} at most: no machine of the cluster {address} has more")


def _version(shared: None, part: int) -> str:
    return sys.modules["turnwise"].__version__


def _expect_same(workers: RayWorkers) -> None:
    """One worker says what it runs. InputError for another turnwise, or none."""
    here = _version(None, 0)
    try:
        (there,) = workers.each(_version, None, [0])
    except workers.ray.exceptions.RayError as e:
        lines = [line for line in str(e).splitlines() if line.strip()]
        said = lines[-1].strip() if lines else str(e)
        raise InputError(
            f"the workers of Ray do not import turnwise ({said}); expected it on every machine of the "
            "cluster, or in its runtime environment"
        ) from e
    if there != here:
        raise InputError(f"the workers of Ray have turnwise {there}; expected {here}, as here")
