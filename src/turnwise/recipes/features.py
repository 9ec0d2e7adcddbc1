"""Vectors of texts from whatever speaks or reads: a run's clone, a policy, a language model, an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.recipes.trained import Policy
from turnwise.rollout.load import WORDS, held_in, saved_folder
from turnwise.run.errors import InputError

if TYPE_CHECKING:
    from turnwise.models.lm.features import Features


def features_of(model: str | Path | Policy, *, quiet: bool = False, **settings: Any) -> Features:
    """A function of texts that gives [n, D].

    `model` is a policy, the folder of its run, a folder of `transformers`, or a hub name; `settings` are
    fields of `Features`. InputError for a run that trained something else, and for what is no model.
    """
    from turnwise.models.lm.features import Features, load_features
    from turnwise.models.lm.parts import trunk_of

    if isinstance(model, Policy):
        own = {"last": True, **settings}
        return Features(trunk_of(model.agent.lm), model.agent.tokenizer, quiet=quiet, **own)
    folder = saved_folder(model)
    if (held := held_in(folder)) == "steps":
        raise InputError(f"{model}: this is {WORDS[held]}; expected a language model or an encoder")
    return load_features(folder if folder.exists() else model, quiet=quiet, **settings)
