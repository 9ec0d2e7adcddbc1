"""Words that both sides use for places and paces."""

from __future__ import annotations

SEA = (
    "the beach",
    "the sea",
    "the coast",
    "the shore",
    "salt water",
    "the waves",
    "a harbour",
    "swimming",
    "sailing",
    "the tide",
    "the dunes",
    "the ocean",
)
HILLS = (
    "the mountains",
    "the hills",
    "the peaks",
    "a valley",
    "the forest",
    "the trails",
    "the summit",
    "hiking",
    "climbing",
    "alpine air",
    "the woods",
    "high meadows",
)
QUIET = ("quiet", "calm", "peaceful", "sleepy", "restful", "tranquil")
LIVELY = ("lively", "busy", "loud", "crowded", "noisy", "buzzing")
QUIET_THINGS = ("silence", "early nights", "long naps", "solitude", "birdsong", "empty roads")
LIVELY_THINGS = ("music", "dancing", "crowds", "parties", "late nights", "street life")

PLACE_WORDS = (SEA, HILLS)
PACE_WORDS = (QUIET, LIVELY)
PACE_THINGS = (QUIET_THINGS, LIVELY_THINGS)
