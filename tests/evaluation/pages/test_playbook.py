"""The page of a playbook: no figure stands alone, what is missing is named, sentences are never markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playbooks import ODD, act, figure, phrase, playbook

from turnwise.evaluation.pages.report import write_report
from turnwise.evaluation.pictures.plan import Box, Way, plan_graph
from turnwise.evaluation.pictures.states import percent
from turnwise.run.errors import InputError


def page(folder: Path, **changes: Any) -> str:
    """The page of a folder with that playbook."""
    (folder / "playbook.json").write_text(json.dumps(playbook(**changes)), "utf-8")
    return write_report(folder).read_text("utf-8")


def words(html: str) -> str:
    """What a reader sees, on one line."""
    text = re.sub(r"<(style|script|title)\b.*?</\1>", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_predicted_true_and_what_they_must_beat_stand_together(tmp_path: Path) -> None:
    html = page(tmp_path)
    answer = re.search(r'<p class="answer">(.*?)</p>', html, re.S)
    assert answer is not None
    said = words(answer[1])
    assert "In 2,000 conversations this plan earned 0.500 (95% interval 0.480 to 0.520)" in said
    assert "its model had promised 0.580 (0.570 to 0.590)" in said
    assert "The logged agent earned −0.310 , its clone −0.300 , the best possible is 0.5675" in said
    assert "Promised minus earned is +0.080: the model promises 0.080 more than was earned" in words(html)
    assert "Inside the model the best plan is worth between" in html
    assert "how well the model was solved, and nothing about how right the model is" in html


def test_intervals_that_overlap_refute_no_promise(tmp_path: Path) -> None:
    worth = [
        {"role": "predicted", "name": "p", **figure(0.52, 0.03)},
        {"role": "true", "name": "t", **figure(0.5, 0.02, 100)},
    ]
    text = words(page(tmp_path, worth=worth))
    assert "their intervals overlap" in text
    assert "What the logged agent earned is not known" in text
    assert "What the best possible agent would earn is not known" in text


def test_a_promise_alone_is_called_one(tmp_path: Path) -> None:
    text = words(page(tmp_path, worth=[{"role": "predicted", "name": "p", **figure(0.6)}]))
    assert "In the model that it was made in, this plan earns" in text
    assert "Nobody has talked to it yet" in text
    assert "turnwise evaluate" in text


def test_an_evaluation_beside_it_is_what_was_earned(tmp_path: Path) -> None:
    found = {"mean": 0.44, "low": 0.42, "high": 0.46, "episodes": 300, "confidence": 0.95, "task": "desk",
             "references": [{"name": "logs", "role": "behaviour", "mean": -0.2}]}  # fmt: skip
    (tmp_path / "evaluation.json").write_text(json.dumps(found), "utf-8")
    worth = playbook()["worth"][:2]
    text = words(page(tmp_path, worth=worth))
    assert "In 300 conversations this plan earned 0.440" in text
    assert "0.500" not in text  # the older figure of the playbook
    assert "The logged agent earned −0.200" in text


def test_no_sentence_is_markup(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "<b>Is the lamp" not in html
    assert "&lt;b&gt;Is the lamp on?&lt;/b&gt; &amp; " in html
    assert "<i>is</i>" not in html
    assert "default-src 'none'" in html
    assert ODD in playbook()["acts"][0]["sentence"]  # type: ignore[operator]


def test_what_was_read_as_other_and_what_was_thought_impossible_is_marked(tmp_path: Path) -> None:
    text = words(page(tmp_path))
    assert "read as other the model thought this impossible" in text
    assert "the plan had lost track here: the clone spoke" in text
    assert "fault (hidden from the agent): router" in text


def test_a_warning_is_one_only_if_its_interval_is_above_nothing(tmp_path: Path) -> None:
    text = words(page(tmp_path))
    assert "The agent’s wording tells nothing more about the answer" in text
    assert "What the codebook dropped predicts what the logged agent did" in text
    assert "0.030 (0.020 to 0.040) nats gained per act" in text
    gains = [{"kind": "wording", "gain": figure(0.2)}]
    assert "too little for an interval" in words(page(tmp_path, warnings=gains))


def test_a_predictor_that_is_better_is_named(tmp_path: Path) -> None:
    fit = playbook()["fit"]
    assert fit is not None
    assert "gain 0.210 nats per symbol over a model without them" in words(page(tmp_path))
    better = [*fit["predictors"], {"kind": "gru", "name": "a GRU", **figure(1.2, 0.01)}]
    text = words(page(tmp_path, fit={**fit, "predictors": better}))
    assert "A GRU predicts held-out conversations better than this model" in text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    states = [{"name": name, "start": 0.5, "share": None, "traits": []} for name in "AB"]
    empty: dict[str, Any] = {key: [] for key in ("looks", "talks", "warnings", "worth", "acts")}
    none = dict.fromkeys(("graph", "fit", "bounds"))
    text = words(page(tmp_path, states=states, openings=[phrase(None)], **empty, **none))
    for said in (
        "What this plan is worth is not known yet",
        "No graph: playbook.json has none",
        "Not computed: playbook.json has no looks",
        "No conversations: playbook.json has none",
        "No acts: playbook.json lists none",
        "Nothing that was logged sets it apart clearly",
        "there is no reason to believe it",
        "Not measured: whether the agent’s wording still predicts the answer",
    ):
        assert said in text


def test_sixty_acts_with_long_sentences_one_state_and_an_act_without_words(tmp_path: Path) -> None:
    acts = [act(f"Long {i} " + "und weiter " * 60, q=i / 10) for i in range(60)] + [act(None)]
    graph = {
        "nodes": [{"turn": t, "act": (7 * t + k) % 61, "probability": 0.2, "belief": [1.0]}
                  for t in range(4) for k in range(5)],
        "edges": [{"source": 5 * t + a, "target": 5 * t + 5 + b, "answers": [0, 1, 2, 3], "probability": 0.2}
                  for t in range(3) for a in range(5) for b in range(5)],
        "ends": [0.0] * 20,
        "openings": [[] for _ in range(20)],
        "left_out": 0.4,
        "longest": 4,
    }  # fmt: skip
    state = {"name": "A", "start": 1.0, "share": None, "traits": []}
    html = page(tmp_path, acts=acts, states=[state], graph=graph, looks=[], talks=[])
    text = words(html)
    assert "The model has one hidden state" in text
    assert "(act 61)" in text
    assert "40% of the turns are elsewhere" in text
    assert len(html) < 600_000


def test_labels_and_boxes_of_a_dense_graph_never_overlap() -> None:
    ways = [[Way(4 * t - 4 + k, ("yes " * 9,), 0.25) for k in range(4)] if t else [] for t in range(4)]
    boxes = [Box(t, "word " * 12, 0.25, [0.5, 0.5], ways[t], 0.1, 0.1) for t in range(4) for _ in range(4)]
    svg = str(plan_graph(boxes, ["A", "B"]))
    rects = [tuple(map(float, m)) for m in re.findall(
        r'class="box" x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)" height="([-\d.]+)"', svg)]  # fmt: skip
    assert len(rects) == 16
    for i, (x, y, w, h) in enumerate(rects):
        for a, b, c, d in rects[:i]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
    lines = [tuple(map(float, m)) for m in re.findall(r'class="seen" x="([-\d.]+)" y="([-\d.]+)"', svg)]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (0.001, "<1%"), (0.42, "42%"), (0.9991, ">99%"), (1.0, "100%")]
)
def test_no_chance_reads_as_certainty(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_picture_stands_alone_and_holds_no_markup_of_sentences(tmp_path: Path) -> None:
    page(tmp_path)
    svg = (tmp_path / "playbook.svg").read_text("utf-8")
    root = ElementTree.fromstring(svg)  # well formed: images of it are XML
    said = " ".join(" ".join(root.itertext()).split())
    assert "In 2,000 conversations this plan earned 0.500 (95% interval 0.480 to 0.520)" in said
    assert "its model had promised 0.580" in said
    assert "<b>Is the lamp on?" in said
    assert "A CONVERSATION SPOKEN BY THE PLAN, RETURN +0.90" in said
    assert not re.search(r'(?:href|src)="(?!#)', svg)


def test_a_picture_of_an_empty_playbook(tmp_path: Path) -> None:
    none = dict.fromkeys(("graph", "fit", "bounds"))
    empty: dict[str, Any] = {key: [] for key in ("looks", "talks", "worth")}
    page(tmp_path, **none, **empty)
    svg = ElementTree.fromstring((tmp_path / "playbook.svg").read_text("utf-8"))
    assert "What this plan is worth is not known yet" in " ".join(" ".join(svg.itertext()).split())


def test_a_broken_playbook_is_named(tmp_path: Path) -> None:
    (tmp_path / "playbook.json").write_text('{"title": ""}', "utf-8")
    with pytest.raises(
        InputError, match=r"playbook\.json: no '.*'; expected what turnwise train pomdp writes"
    ):
        write_report(tmp_path)
