"""The report page: what it says, what it admits to be missing, and that nothing on it comes from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from turnwise.evaluation.pages.report import write_report
from turnwise.evaluation.pages.training import heldout_figures, panels
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.curves import Panel, panel_plot
from turnwise.evaluation.pictures.style import DARK, LIGHT, level, number
from turnwise.run.errors import InputError
from turnwise.run.metrics import Metric

VOID = {"meta", "br", "hr", "img", "input", "link"}
CARD = {
    "file": "logs/desk-2.jsonl",
    "conversations": 6000,
    "heldout": 300,
    "agent_turns": {"mean": 4.2, "min": 1, "max": 8},
    "messages": 55304,
    "tokens": {"mean": 73.7, "max": 136, "total": 442432},
    "return": {"mean": -0.3, "std": 0.9, "min": -1.35, "max": 1.0, "low": -0.32, "high": -0.28},
    "histogram": {"edges": [-1.5, -0.5, 0.5, 1.5], "counts": [3000, 1000, 2000]},
    "terminated": 5990,
    "truncated": 10,
    "propensities": "all",
    "metadata_keys": ["fault"],
    "duplicates": 3,
    "over_context": 0,
}
ROWS = [
    {
        "name": "BC",
        "role": "baseline",
        "run": "bc",
        "mean": -0.3,
        "low": -0.34,
        "high": -0.26,
        "episodes": 2000,
        "success": 0.31,
    },
    {
        "name": "ILQL",
        "run": "ilql",
        "mean": 0.36,
        "low": 0.324,
        "high": 0.396,
        "episodes": 2000,
        "success": 0.8,
    },
    {"name": "MC", "run": "mc", "mean": 0.18, "low": 0.14, "high": 0.224, "episodes": 2000, "success": 0.6},
]
REFERENCES = [
    {"name": "exact optimum", "role": "optimum", "mean": 0.5675, "note": "computed by backward induction"},
    {
        "name": "behaviour policy",
        "role": "behaviour",
        "mean": -0.31,
        "low": -0.33,
        "high": -0.29,
        "note": "wrote the logs",
    },
]


METRICS = {
    "loss": {"what": "loss", "unit": "nats per token", "loss": True},
    "q": {"what": "Q", "unit": "units of return", "panel": "Q and V"},
    "v": {"what": "V", "unit": "units of return", "panel": "Q and V"},
}


class Page(HTMLParser):
    """A page as elements, with text by element; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif not self._open or self._open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def row(self, name: str) -> str:
        """Text of the table row that begins with a name."""
        found = re.search(rf'<tr[^>]*>\s*<th scope="row">{re.escape(name)}<?.*?</tr>', self.html, re.S)
        assert found, f"no row {name}"
        return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


def conversation(i: int = 1) -> dict:
    """Two turns of the agent, scored per token: advantages .01 + .03 = .04, then -.1."""
    first = [
        {"text": "Test", "logp": -0.5, "v": 0.2, "q": 0.21, "advantage": 0.01},
        {"text": " screen", "logp": -0.7, "v": 0.21, "q": 0.24, "advantage": 0.03},
    ]
    second = [{"text": "Fix", "logp": -2.25, "v": 0.7, "q": 0.6, "advantage": -0.1}]
    return {
        "id": f"e-{i:04d}",
        "return": 0.95,
        "ended": "terminated",
        "source": "policy",
        "hidden": {"fault": "screen"},
        "messages": [
            {"role": "user", "content": "It is dark."},
            {"role": "assistant", "content": "Test screen", "reward": -0.05, "tokens": first},
            {"role": "user", "content": "The screen fails."},
            {"role": "assistant", "content": "Fix", "reward": 1.0, "tokens": second},
        ],
    }


def metrics() -> str:
    """300 steps with a training loss, 3 of them with a held-out loss and values."""
    rows = [{"step": s, "seconds": s / 2, "loss": 3 - s / 150, "grad_norm": 1.0} for s in range(1, 301)]
    rows += [
        {"step": s, "heldout/loss": 3.2 - s / 150, "heldout/q": 0.3, "heldout/v": 0.1}
        for s in (100, 200, 300)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(folder: Path, algorithm: str, talks: list[dict], **config) -> Path:
    folder.mkdir(parents=True)
    asked = {"algorithm": algorithm, "logs": "logs/desk-2.jsonl", "seed": 7, "width": 128, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(asked))
    facts = {"name": algorithm, "title": algorithm.upper(), "what": "a method", "family": "logs"}
    (folder / "algorithm.json").write_text(json.dumps(facts | {"metrics": METRICS}))
    env = {"packages": {"torch": "2.9.1"}, "cores": 2, "command": f"turnwise train {algorithm} --seed 7"}
    (folder / "env.json").write_text(json.dumps(env))
    (folder / "card.json").write_text(json.dumps(CARD))
    (folder / "metrics.jsonl").write_text(metrics())
    (folder / "conversations.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return folder


def write_evaluation(folder: Path, **changes) -> None:
    result = {"task": "helpdesk", "score": "mean return", "episodes": 2000, "seed": 1, "confidence": 0.95}
    result |= {"mean": 0.36, "low": 0.324, "high": 0.396, "success": 0.8, "turns": 4.2}
    result["references"] = [{"name": "exact optimum", "role": "optimum", "mean": 0.5675}]
    (folder / "evaluation.json").write_text(json.dumps(result | changes))


def write_comparison(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    asked = {
        "title": "HelpDesk",
        "aim": "Learn a better desk.",
        "command": "turnwise demo --seed 7",
        "task": "helpdesk",
        "score": "mean return",
        "higher_is_better": True,
        "confidence": 0.95,
        "rows": ROWS,
        "references": REFERENCES,
        "runs": {"bc": "bc", "ilql": "ilql"},
        "selection": "By 300 validation conversations.",
    }
    (folder / "comparison.json").write_text(json.dumps(asked | changes))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    """The page of a comparison: BC without a critic, ILQL with one and 15 conversations; MC has no folder."""
    folder = tmp_path_factory.mktemp("comparison")
    plain = conversation()
    for message in plain["messages"]:
        message.pop("tokens", None)
    write_run(folder / "bc", "bc", [plain])
    write_run(folder / "ilql", "ilql", [conversation(i) for i in range(1, 16)], beta=8.0)
    return read(write_comparison(folder))


@pytest.fixture(scope="module")
def lone(tmp_path_factory) -> Page:
    """The page of one run that was never evaluated."""
    return read(write_run(tmp_path_factory.mktemp("lone") / "ilql", "ilql", [conversation()]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "ilql", "ilql", [conversation()])


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_answer_comes_with_figures(page):
    """(0.36 + 0.30) / (0.5675 + 0.30) = 0.761: 76% of the way from BC to the optimum."""
    text = page.text
    assert "ILQL reaches a mean return of 0.360 (95% interval 0.324 to 0.396)" in re.sub(r" +", " ", text)
    assert "against −0.300 for BC, −0.310 for the behaviour policy and 0.5675 for the exact optimum" in text
    assert "76% of the way from BC to the optimum." in text
    assert "Its interval lies apart from those of MC (0.140 to 0.224) and BC (−0.340 to −0.260)." in text
    for asked in ("HelpDesk", "Learn a better desk.", "turnwise demo --seed 7", "task helpdesk", "seed 7"):
        assert asked in text


def test_overlapping_intervals_are_not_a_victory(tmp_path):
    rows = [ROWS[0] | {"low": -0.5, "high": 0.33}, ROWS[1]]
    text = read(write_comparison(tmp_path / "c", rows=rows, runs={})).text
    assert "Its interval overlaps that of BC (−0.500 to 0.330)" in text
    assert "so these conversations do not settle which is better" in text
    assert "lies apart" not in text


@pytest.mark.parametrize("role", [None, "baseline", "method"])
def test_names_do_not_make_an_optimum(tmp_path, role):
    """By their names both would be the optimum: (0.3 - 0.1) / (0.2 - 0.1) = "200% of the way from BC to it".

    BC is a baseline only by its role, and its name is no role either.
    """
    references = [
        {"name": "hand-optimised rules", "mean": 0.2, "role": role},
        {"name": "Optimist (a rule)", "mean": 0.2, "role": role},
    ]
    rows = [
        {"name": "BC", "mean": 0.1, "low": 0.05, "high": 0.15},
        {"name": "ILQL", "mean": 0.3, "low": 0.25, "high": 0.35},
    ]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={}))
    assert "of the way" not in page.text and "Gap closed" not in page.text and "200%" not in page.text
    assert "No optimum is known for this task" in page.text
    assert page.row("hand-optimised rules") == "hand-optimised rules 0.2 not given"


def test_an_optimum_without_a_floor_closes_no_gap(tmp_path):
    rows = [{"name": "BC", "mean": 0.1, "low": 0.05, "high": 0.15}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=REFERENCES[:1], runs={}))
    assert "of the way" not in page.text and "against 0.5675 for the exact optimum" in page.text
    assert page.row("exact optimum").endswith("0.5675 exact")


def test_an_unknown_role_is_named(tmp_path):
    rows = [ROWS[0] | {"role": "optimal"}]
    with pytest.raises(InputError, match=r"rows, entry 1: role is 'optimal'; expected one of optimum, "):
        write_report(write_comparison(tmp_path / "c", rows=rows, runs={}))


def test_best_baseline_is_said_plainly(tmp_path):
    rows = [ROWS[0] | {"mean": 0.5, "low": 0.45, "high": 0.55}, ROWS[1]]
    text = read(write_comparison(tmp_path / "c", rows=rows, runs={})).text
    assert "BC reaches a mean return of 0.500" in text and "No other method does better than BC." in text


def test_quoted_references_are_shown_as_given(tmp_path):
    """A published figure without interval is neither an optimum nor exact, and gets no decimals of ours."""
    references = [{"name": "published RL", "mean": 7.1}]
    rows = [ROWS[1] | {"mean": 6.923, "low": 6.7, "high": 7.14}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={}, score="points"))
    assert page.row("published RL") == "published RL 7.1 not given"
    assert "ILQL leads in points: 6.92 (95% interval 6.70 to 7.14)." in page.text
    assert "No optimum is known for this task" in page.text


def test_table_lists_methods_and_optimum_best_first(page):
    """Gap of MC: (0.18 + 0.30) / 0.8675 = 55%; the decimals are those of the narrowest interval, +-0.02."""
    assert page.row("ILQL") == "ILQL 0.360 0.324 to 0.396 76% 80% 2,000"
    assert page.row("MC") == "MC 0.180 0.140 to 0.224 55% 60% 2,000"
    assert page.row("BC") == "BC −0.300 −0.340 to −0.260 0% 31% 2,000"
    assert page.row("exact optimum") == "exact optimum computed by backward induction 0.5675 exact"
    assert page.row("behaviour policy") == "behaviour policy wrote the logs −0.310 −0.330 to −0.290"
    names = re.findall(r'<th scope="row">([^<]+)', page.html)
    assert names[:5] == ["exact optimum", "ILQL", "MC", "BC", "behaviour policy"]
    assert "By 300 validation conversations." in page.text


def test_where_lower_is_better_the_lowest_leads(tmp_path):
    """Costs 2 and 5 with optimum 1: from BC's 5, the method at 2 has closed (2 - 5) / (1 - 5) = 75%."""
    rows = [
        {"name": "BC", "role": "baseline", "mean": 5.0, "low": 4.8, "high": 5.2},
        {"name": "X", "mean": 2.0, "low": 1.8, "high": 2.2},
    ]
    folder = write_comparison(
        tmp_path / "c", rows=rows, references=[{"name": "optimum", "role": "optimum", "mean": 1.0}], runs={},
        score="mean cost", higher_is_better=False,
    )  # fmt: skip
    text = read(folder).text
    assert "X reaches a mean cost of 2.00" in text and "75% of the way from BC to the optimum" in text


def test_row_without_an_estimate_stays_in_the_table(tmp_path):
    rows = [*ROWS, {"name": "New", "mean": float("nan"), "low": None, "high": None}]
    page = read(write_comparison(tmp_path / "c", rows=rows, runs={}))
    assert page.row("New") == "New no estimate none"


def test_plot_says_its_numbers_aloud_and_labels_references():
    rows = [Interval("ILQL", 0.36, 0.324, 0.396, best=True), Interval("A $x$ & <b>", -0.3, -0.34, -0.26)]
    references = [Interval("exact optimum", 0.5675), Interval("behaviour", 0.55, 0.54, 0.56)]
    for narrow in (False, True):
        svg = str(comparison_plot(rows, references, score="mean return", decimals=3, narrow=narrow))
        page = Page(svg)
        label = page.elements[0][1]["aria-label"]
        assert (
            label is not None and "ILQL 0.360 (0.324 to 0.396)" in label and "exact optimum 0.5675" in label
        )
        assert "A $x$ & <b>" in page.text  # neither mathematics nor markup
        assert "−0.300" in page.text and "0.360" in page.text
        heights = {
            name: float(re.search(rf'y="([-\d.]+)"[^>]*>{name}', svg)[1]) for name in ("exact", "behaviour")
        }
        assert abs(heights["exact"] - heights["behaviour"]) > 10  # neighbours stand on two levels


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.yaml", "No settings: config.yaml is in no run folder."),
        ("env.json", "The command is not recorded"),
        ("metrics.jsonl", "No learning curves: metrics.jsonl is not in this run’s folder"),
        ("card.json", "No data card: card.json is in no run folder"),
        ("evaluation.json", "There is no estimate of this policy’s worth yet."),
        ("conversations.jsonl", "No conversations: conversations.jsonl is not in this run’s folder"),
    ],
)
def test_missing_parts_are_named(run, file, says):
    write_evaluation(run)
    (run / file).unlink()
    assert says in read(run).text


def test_a_run_without_a_folder_is_named(tmp_path):
    page = read(write_comparison(tmp_path / "c", runs={"ilql": "gone"}))
    assert "The folder gone of this run is not there." in page.text
    assert page.row("ILQL").startswith("ILQL 0.360")  # its evaluation is still worth showing


def test_nothing_is_called_missing_where_all_is_there(run):
    write_evaluation(run)
    page = read(run)
    assert 'class="missing"' not in page.html and "no estimate" not in page.text


def test_single_run_stands_beside_its_logs_and_the_optimum(run):
    """The logs' mean return is the behaviour policy's: (0.36 + 0.3) / (0.5675 + 0.3) = 76%."""
    write_evaluation(run)
    page = read(run)
    assert page.row("ILQL") == "ILQL 0.360 0.324 to 0.396 76% 80% 4.2 2,000"
    assert page.row("exact optimum").endswith("0.5675 exact")
    assert page.row("behaviour policy (the logs)").endswith("−0.300 −0.320 to −0.280")
    assert "turnwise train ilql --seed 7" in page.text
    write_evaluation(run, references=[])
    assert "No optimum is known for this task" in read(run).text


def test_without_a_simulator_values_are_no_return(lone):
    """The last held-out loss is 3.2 - 300/150 = 1.2; Q and V are called the critic's."""
    assert "There is no estimate of this policy’s worth yet." in lone.text
    assert "reaches a mean return" not in lone.text and 'class="plot" viewBox="0 0 900' not in lone.html
    assert lone.row("loss").startswith("loss 1.20 a loss: how well the model fits")
    assert lone.row("loss").endswith("logged conversations kept from training; nats per token")
    q = "Q 0.300 measured on logged conversations kept from training, not a return; units of return"
    assert lone.row("Q") == q and "Values (Q, V) are the critic’s own predictions." in lone.text
    assert "what the policies learn from, not what they achieve" in lone.text


def test_a_run_that_does_not_say_its_kind_gets_no_guess(run):
    """Settings and files look like those of agents, replies and logs; without a family none counts."""
    (run / "algorithm.json").unlink()
    config = {"algorithm": "dpo", "env": "tiger", "logs": "logs.jsonl"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_evaluation(run)
    page = read(run)
    assert "This run does not say what kind of run it is" in page.text
    assert "reaches a mean return" not in page.text and 'id="conversations"' not in page.html
    assert "loss" in page.text and "env tiger" in page.text


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"family": "talk"}, r"algorithm.json: family is 'talk'; expected one of logs, preferences, "),
        ({"metrics": ["loss"]}, r"algorithm.json: metrics: expected an object"),
        ({"metrics": {"td": {"unit": "nats"}}}, r"algorithm.json: metrics: td: expected what \(text\)"),
        ({"metrics": {"td": {"what": "TD", "loss": 1}}}, r"metrics: td: expected .* loss \(true or false\)"),
    ],
)
def test_facts_of_the_wrong_form_are_named(run, facts, says):
    (run / "algorithm.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=says):
        write_report(run)


def test_declared_metrics_are_explained(lone):
    assert "Logged as q ; units of return." in lone.text
    assert "Logged as loss ; a loss, nats per token." in lone.text


def test_untrusted_text_stays_text(tmp_path):
    nasty = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover='alert(3)' {{ 7 * 7 }}"
    talk = conversation()
    talk |= {"id": nasty, "hidden": {nasty: nasty}, "ended": nasty}
    talk["messages"][0] |= {"content": nasty, "role": nasty}
    talk["messages"][1]["tokens"][0]["text"] = nasty
    write_run(tmp_path / "x", nasty, [talk], **{nasty: nasty})
    row = ROWS[1] | {"name": nasty, "run": nasty, "note": nasty}
    page = read(
        write_comparison(tmp_path, title=nasty, aim=nasty, rows=[row], runs={nasty: "x"}, score=nasty)
    )
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "link", "a:href")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text


def test_nothing_comes_from_outside(page):
    for tag, attributes in page.elements:
        assert "src" not in attributes and "srcset" not in attributes and tag != "link"
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "http" not in page.html.replace("http-equiv", "") and "@import" not in page.html
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page.html))
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = [a[key] for _, a in page.elements for key in ("aria-controls", "aria-labelledby") if key in a]
    wanted += [a["href"][1:] for _, a in page.elements if a.get("href")]
    wanted += re.findall(r"url\(#([^)]*)\)", page.html)
    assert set(wanted) <= set(ids)


def test_pictures_have_words(page):
    pictures = [a for tag, a in page.elements if tag == "svg"]
    assert len(pictures) > 10
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 10 for a in pictures)


def test_tokens_are_coloured_and_answer_to_the_mouse(lone):
    """Advantages .01, .03, -.1: the 95% quantile of the sizes is .1, so full colour is .1.

    Level of .01: .1 of 6 is .6, rounded 1; of .03: 1.8, rounded 2; of -.1: 6.
    """
    assert (
        '<span class="t p1" title="V 0.20 · Q 0.21 · advantage +0.01 · log-prob −0.50">Test</span>'
        in lone.html
    )
    assert (
        '<span class="t p2" title="V 0.21 · Q 0.24 · advantage +0.03 · log-prob −0.70"> screen</span>'
        in lone.html
    )
    assert (
        '<span class="t n6" title="V 0.70 · Q 0.60 · advantage −0.10 · log-prob −2.25">Fix</span>'
        in lone.html
    )
    assert "advantage of each token, in units of reward; full colour at ±0.1 and beyond" in lone.text
    assert "return +0.95" in lone.text and "fault (hidden from the agent): screen" in lone.text


def test_turns_show_where_v_moved(lone):
    """V before the turns is 0.2 and 0.7; the first turn's advantage is .01 + .03 = .04."""
    assert "V moved most from turn 1 to turn 2: 0.20 to 0.70." in lone.text
    assert "V 0.20 advantage +0.04 reward −0.05" in lone.text
    assert "V 0.70 ▲ 0.50 advantage −0.10 reward +1" in lone.text
    sparks = [a["aria-label"] for t, a in lone.elements if t == "svg" and a["class"] == "spark"]
    assert sparks == ["V by turn: 0.20, 0.70"] * 2  # in the list and beside the conversation


def test_per_turn_critics_colour_whole_messages(tmp_path):
    talk = conversation()
    for message, advantage in ((talk["messages"][1], 0.25), (talk["messages"][3], -0.5)):
        del message["tokens"]
        message |= {"v": 0.1, "q": 0.1 + advantage, "advantage": advantage}
    page = read(write_run(tmp_path / "r", "iql", [talk]))
    hover = "V 0.10 · Q 0.35 · advantage +0.25 · reward −0.05"
    assert f'<span class="t p3" title="{hover}">Test screen</span>' in page.html
    assert "advantage of each message, in units of reward; full colour at ±0.5" in page.text


def test_without_a_critic_there_are_no_colours(page):
    assert page.text.count("This run has no critic: there are no values to colour its words by.") == 1


def test_at_most_twelve_conversations_a_run(page):
    assert page.html.count('<article class="talk"') == 12 + 1
    assert "3 more conversations are in conversations.jsonl" in page.text


def test_page_stays_small(tmp_path):
    """6 runs, each with 12 conversations of 20 turns of 100 tokens, are 144,000 tokens, 16 MB of markup."""
    tokens = [{"text": " 汉<", "logp": -1.0, "v": 0.1, "q": 0.2, "advantage": 0.1}] * 100
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "汉" * 100, "tokens": tokens}]
    for i in range(6):
        write_run(tmp_path / f"r{i}", "ilql", [conversation() | {"messages": turn * 20}] * 12)
    path = write_report(write_comparison(tmp_path, runs={f"r{i}": f"r{i}" for i in range(6)}))
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert "11 more conversations are in conversations.jsonl" in page.text
    assert "more messages are in the file; they are left out to keep this page small." in page.text
    assert page.html.count('<article class="talk"') == 6


def test_failed_report_leaves_the_old_one(run):
    before = write_report(run).read_bytes()
    (run / "conversations.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"conversations.jsonl: conversation 1: messages: expected"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert not [p for p in run.iterdir() if "part" in p.name]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": \n{"step": 3}\n', r"metrics\.jsonl:2: not JSON"),
        ("evaluation.json", "[1]", r"evaluation\.json: expected one JSON object"),
        ("config.yaml", "- a\n", r"config\.yaml: expected settings by name"),
        ("card.json", '{"conversations": 3}', r"card\.json: no 'agent_turns'"),
    ],
)
def test_broken_files_are_named(run, file, text, says):
    (run / file).write_text(text)
    with pytest.raises(InputError, match=says):
        write_report(run)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a run nor a comparison"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_interrupted_last_line_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as f:
        f.write('{"step": 400, "lo')
    assert "up to step 300" in read(run).text


def test_panels_group_what_belongs_together():
    """Held-out joins training, and Q joins V as declared; the declared ones lead in their order; step 2,
    logged twice, keeps its last value; NaN goes."""
    declared = {
        "loss": Metric("loss", "nats per token", loss=True),
        "td": Metric("TD loss", "squared units of return", loss=True),
        "q": Metric("Q", "units of return", panel="Q and V"),
        "v": Metric("V", "units of return", panel="Q and V"),
    }
    rows = [
        {"step": 1, "grad_norm": 9.0, "q": 0.1, "v": 0.2, "td": 0.5},
        {"step": 2, "loss": 5.0, "heldout/loss": 6.0, "epoch": 1},
        {"step": 2, "loss": 4.0, "v": float("nan")},
    ]
    found = panels(rows, declared)
    assert [p.title for p in found] == ["loss", "TD loss", "Q and V", "grad_norm"]
    assert [p.unit for p in found] == ["nats per token", "squared units of return", "units of return", ""]
    assert [(c.label, c.steps, c.values) for c in found[0].curves] == [
        ("train", (2.0,), (4.0,)),
        ("held out", (2.0,), (6.0,)),
    ]
    assert [(c.label, c.values) for c in found[2].curves] == [("Q", (0.1,)), ("V", (0.2,))]


def test_what_is_not_declared_is_called_no_loss():
    """Keys that look like losses, on a run that declares nothing: they keep their keys, and come last."""
    rows = [{"step": 1, "policy_loss": 1.0, "heldout/td": 2.0, "reward": 3.0}]
    declared = {"reward": Metric("reward of replies")}
    assert [p.title for p in panels(rows, declared)] == ["reward of replies", "policy_loss", "td, held out"]
    figures = heldout_figures(rows, declared)
    assert figures == [("td", "2.00", "measured on logged conversations kept from training, not a return")]


def test_long_curves_are_thinned_by_averaging():
    """400 points in groups of 3: the first is (0 + 1 + 4) / 3 at step 1; the end is kept as it is."""
    (panel,) = panels([{"step": s, "loss": s * s} for s in range(400)], {})
    (curve,) = panel.curves
    assert curve.steps[:2] == (1.0, 4.0)
    assert curve.values[0] == pytest.approx((0 + 1 + 4) / 3)
    assert (curve.steps[-1], curve.values[-1]) == (399.0, 399.0**2)
    label = Page(str(panel_plot(panel, "k"))).elements[0][1]["aria-label"]
    assert label == "loss over 399 steps: loss from 1.67 to 159,201"


def test_end_labels_of_close_lines_stand_apart():
    panel = panels([{"step": s, "loss": 1.0, "heldout/loss": 1.001} for s in range(3)], {})[0]
    svg = str(panel_plot(Panel(panel.title, panel.curves), "k"))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>(?:train|held out) 1\.00<', svg)]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) >= 11


def test_colour_is_symmetric_and_saturates():
    assert [level(x, 0.6) for x in (0, 0.04, 0.06, 0.3, 0.6, 9)] == ["z", "z", "p1", "p3", "p6", "p6"]
    assert [level(-x, 0.6) for x in (0.04, 0.06, 0.3, 0.6, 9)] == ["z", "n1", "n3", "n6", "n6"]


@pytest.mark.parametrize(("palette", "ink"), [(LIGHT, "#1c1b19"), (DARK, "#eceae6")])
def test_text_reads_on_every_colour_and_sides_weigh_the_same(palette, ink):
    """WCAG contrast (L1 + .05) / (L2 + .05) of at least 4.5; equal steps differ by at most 10% of it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(colour: str) -> float:
        high, low = sorted((luminance(colour), luminance(ink)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for orange, blue in zip(palette["n"], palette["p"], strict=True):
        assert min(contrast(orange), contrast(blue)) >= 4.5
        assert contrast(orange) == pytest.approx(contrast(blue), rel=0.1)


def test_numbers_as_people_write_them():
    assert number(-0.3, 3) == "−0.300" and number(2000, 0) == "2,000"
    assert number(0.0004, 2, signed=True) == "0.00" and number(-0.0004, 2) == "0.00"
    assert number(0.5, 2, signed=True) == "+0.50"
    assert [number(x) for x in (1.234, 12.34, 123.4, 0.01234, 0)] == ["1.23", "12.3", "123", "0.0123", "0.00"]
    assert number(0.0000276) == "2.8e−5"


def test_settings_are_split_into_shared_and_own(page):
    """`beta` is ILQL's alone and stands in the table of differences; `width` is everybody's."""
    assert page.row("ILQL").startswith("ILQL 0.360")
    differs = page.html[page.html.index("Different between runs") :]
    assert "<td>8.0</td>" in differs and "<td>ilql</td>" in differs
    assert "The same in all logs logs/desk-2.jsonl seed 7 width 128" in page.text
    assert "packages torch 2.9.1" in page.text and "turnwise train ilql --seed 7" in page.text


def test_data_card_is_shown_once_for_equal_logs(page):
    """Minus signs of figures are typographic; the hyphen in the file's name stays."""
    text = page.text
    assert text.count("6,000, 300 of them held out") == 1
    assert "desk-2.jsonl" in text and "−0.3 on average (95% interval −0.32 to −0.28), from −1.35 to 1" in text
