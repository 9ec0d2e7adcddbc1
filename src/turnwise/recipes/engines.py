"""Engines that a run or a measurement asks for: opened, compared with the policy, and let go at the end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turnwise.data.chat.format import ChatFormat
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.servers.engine import Engine, open_engine
from turnwise.run.errors import SettingError


def open_for(
    settings: EngineSettings,
    policy: LmPolicy,
    chat: ChatFormat,
    closing: contextlib.ExitStack,
    tell: Callable[[str], None],
    *,
    run: Path | None = None,
    decoding: Decoding = POLICYS_OWN,
    before: Any = None,
) -> Engine | None:
    """The engine of the settings, if they name one, which `policy` may speak through from now on.

    `run`: the run's folder, beside which weights are written unless the settings say where. `before`: the
    model below fresh adapters. `closing` lets the engine go. InputError for servers of another model.
    """
    if settings.engine is None:
        return None
    if is_encoder_decoder(policy.lm):
        expected = "no engine: servers speak for decoders, and this policy has an encoder beside"
        raise SettingError("engine", settings.engine, expected)
    if settings.engine_folder is not None:
        folder = settings.engine_folder / "turnwise-weights"
    elif run is not None:
        folder = run.with_name(run.name + ".engine")
    else:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory())) / "weights"
    engine = open_engine(
        settings.engine, folder, timeout=settings.engine_timeout, wait=settings.engine_wait, tell=tell
    )
    closing.callback(engine.close)
    engine.meet(policy, chat, decoding, before=before)
    context = context_of(policy.lm)
    if engine.context is not None and engine.context < context:
        tell(f"the engine's servers read {engine.context} tokens at most, and the policy {context}")
    return engine
