"""Who can be told from whom, and by what: the AUC by hand, the same source, sources that differ in one."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.evaluation.measures.partners.two_sample import Turn, auc, sentence, signs_of, two_sample

ASKED = ("lamp", "fan", "door")


def talks(
    n: int, seed: int, *, wrong: float = 0.0, long: float = 0.0, acts: bool = False
) -> list[list[Turn]]:
    """The agent asks after two things, and the partner names what was asked after, or with `wrong` any of
    them; with `long` it adds a word."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        talk = []
        for _ in range(2):
            thing = said = ASKED[rng.integers(3)]
            if rng.random() < wrong:
                said = ASKED[rng.integers(3)]
            words = f"the {said} {'works' if rng.random() < 0.5 else 'is off'}"
            words += " really" if rng.random() < long else ""
            talk += [Turn(True, f"see the {thing}", f"see {thing}" if acts else None)]
            talk += [Turn(False, words, said if acts else None)]
        found.append(talk)
    return found


def test_the_auc_by_hand():
    """Scores 3 and 1 of ones, 2 and 1 of zeros: of four pairs 3 > 2, 3 > 1, 1 < 2 and a tie: 2.5 / 4."""
    assert auc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([1, 1, 0, 0])) == 0.625


def test_the_same_source_cannot_be_told():
    """Of 20 pairs of samples of one source about one has p below .05; five or more do in 3 of 1,000 cases."""
    low = sum(two_sample(talks(60, 2 * i), talks(60, 2 * i + 1), seed=i)["p"] < 0.05 for i in range(20))
    assert low < 5


@pytest.mark.parametrize("acts", [False, True])
def test_answers_that_do_not_answer_are_told_by_what_they_follow(acts: bool):
    """Every word is as frequent in both; only which answer follows which question differs."""
    found = two_sample(talks(300, 1, wrong=1.0, acts=acts), talks(300, 2, acts=acts))
    assert found["low"] > 0.75 and found["p"] < 0.001
    first = found["signs"][0]
    assert abs(first["held"] - first["logged"]) > 0.1 and (
        " to “" in first["sign"] or "then" in first["sign"]
    )


def test_a_word_that_is_never_logged_is_named():
    found = two_sample(talks(200, 1, long=0.5), talks(200, 2))
    words = sentence(found, "talks")
    assert "talks can be told from logged ones" in words and "really" in words
    sign = next(s for s in found["signs"] if s["sign"] == "the partner says “really”")
    assert sign["held"] == pytest.approx(0.75, abs=0.1) and sign["logged"] == 0  # 1 - (1 - 1/2)^2


def test_signs_are_what_stands_there():
    found = set(signs_of([Turn(True, "Try it", "ask"), Turn(False, "No.", "no"), Turn(False, "Sorry")]))
    assert {"1 turns of the agent", "the agent says “try it”", "the partner says “no” to “try”"} <= found
    assert {"“ask”, then “no”", "“ask”, and later “no”", "the last word is the partner's"} <= found
    assert "the partner says “sorry” to “no”" not in found  # nobody but the agent is answered


def test_too_few_talks_are_refused():
    with pytest.raises(ValueError, match="3 and 30 talks; expected 20 or more of either kind"):
        two_sample(talks(3, 0), talks(30, 1))
