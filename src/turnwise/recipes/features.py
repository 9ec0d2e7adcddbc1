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
    from turnwise.models.lm.features import features_of_lm, load_features

    if isinstance(model, Policy):
        return features_of_lm(model.agent.lm, model.agent.tokenizer, quiet=quiet, **settings)
    folder = saved_folder(model)
    if (held := held_in(folder)) == "steps":
        raise InputError(f"{model}: this is {WORDS[held]}; expected a language model or an encoder")
    return load_features(folder if folder.exists() else model, quiet=quiet, **settings)
