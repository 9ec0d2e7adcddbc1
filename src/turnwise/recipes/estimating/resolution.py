"""What a decision is for a policy: an act, a whole message, or a token of it; and why it cannot be one."""

from __future__ import annotations

from turnwise.recipes.estimating.answer import Per
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.trained import ActPolicy, Codebooks, Policy
from turnwise.run.errors import InputError, SettingError

CODEBOOKS = "acts: the codebooks of a run of train acts, by which its replies are read and counted"


def per_of(policy: ActPolicy | Policy, codes: Codebooks | None, s: EstimateSettings) -> Per:
    """What is asked for, or what suits the policy. `codes`: what reads the policy's words, if anything does.

    SettingError or InputError for what is not possible, with what is possible instead.
    """
    if isinstance(policy, ActPolicy):
        return _of_acts(codes, s)
    found: Per = s.per or ("turn" if codes is None else "act")
    if found != "act" and policy.agent.reranks:
        raise InputError(
            f"{policy.name}: it proposes {policy.agent.acting.proposals} replies and says one of them, and "
            f"how probable that is has no closed form; expected {CODEBOOKS} (or beta 0, which is its clone)"
        )
    if found == "act" and codes is None:
        raise SettingError(
            "per", s.per, f"turn or token for a policy that writes its own words; or {CODEBOOKS}"
        )
    if found != "act" and codes is not None:
        raise SettingError(
            "acts", codes.name, f"none where a decision is a {found}, which needs no codebook; or per act"
        )
    if found == "act" and s.samples < 2:
        raise SettingError("samples", s.samples, "2 or more, so that chance in the replies can be told")
    if s.way == "tilted":
        expected = "mixed: a policy that writes its own words has no geometric mean that could be weighed"
        raise SettingError("way", s.way, expected)
    return found


def _of_acts(codes: Codebooks | None, s: EstimateSettings) -> Per:
    if s.per not in (None, "act"):
        raise SettingError(
            "per",
            s.per,
            "act: this policy chooses what to mean, and a codebook and its sentences do the rest",
        )
    if codes is not None:
        raise SettingError("acts", codes.name, "none: a policy of acts reads with codebooks of its own")
    return "act"
