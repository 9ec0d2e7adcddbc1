"""Conversations on a page: colours, values over the turns, and how much of them there is room for."""

from __future__ import annotations

import pytest

from turnwise.evaluation.pages.report import write_report


def test_tokens_are_coloured_and_answer_to_the_mouse(lone):
    """Advantages .01, .03, -.1, and the standard deviation of the return, which gets full colour, is .1.

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
    assert (
        "advantage of each token, in units of reward (dots on the lines: of each whole message)" in lone.text
    )
    assert "full colour at ±0.100, one standard deviation of the return, and beyond" in lone.text
    assert "return +0.95" in lone.text and "fault (hidden from the agent): screen" in lone.text


def test_turns_show_where_v_moved(lone, conversation):
    """V before the turns is 0.2 and 0.7; the first turn's advantage is .01 + .03 = .04."""
    assert "V moved most from turn 1 to turn 2: 0.20 to 0.70." in lone.text
    assert "V 0.20 advantage +0.04 reward −0.05" in lone.text
    assert "V 0.70 ▲ 0.50 advantage −0.10 reward +1" in lone.text
    sparks = [a["aria-label"] for t, a in lone.elements if t == "svg" and a["class"] == "spark"]
    assert sparks == ["V by turn: 0.20, 0.70"] * 2  # in the list and beside the conversation


def test_per_turn_critics_colour_whole_messages(tmp_path, read, write_run, write_critic, conversation):
    talk = conversation()
    for message, advantage in ((talk["messages"][1], 0.25), (talk["messages"][3], -0.5)):
        del message["tokens"]
        message |= {"v": 0.1, "q": 0.1 + advantage, "advantage": advantage}
    returns = {"mean": 0.2, "std": 0.5, "low": -1.0, "high": 1.0}
    page = read(write_critic(write_run(tmp_path / "r", "iql", [talk]), returns=returns))
    hover = "V 0.10 · Q 0.35 · advantage +0.25 · reward −0.05"
    assert f'<span class="t p3" title="{hover}">Test screen</span>' in page.html
    assert "advantage of each message, in units of reward" in page.text and "full colour at ±0.5" in page.text


def test_without_a_critic_there_are_no_colours(page):
    assert page.text.count("This run has no critic: there are no values to colour its words by.") == 1


def test_at_most_sixty_conversations_a_run(tmp_path, read, write_run, conversation):
    page = read(write_run(tmp_path / "r", "ilql", [conversation()] * 63))
    assert page.html.count('<article class="talk"') == 60
    assert "3 more conversations are in conversations.jsonl" in page.text


def test_conversations_are_chosen_on_the_page(tmp_path, read, write_run, conversation):
    """By return, by surprise and by id; of one conversation there is nothing to choose.

    V before the first turn is .2: a return of .95 surprises by .75 and one of .1 by .1.
    """
    talks = [conversation() | {"id": f"c{i}", "return": r} for i, r in enumerate((0.95, 0.1))]
    page = read(write_run(tmp_path / "r", "ilql", talks))
    figures = [
        (float(a["data-worth"]), float(a["data-surprise"]), a["data-order"])
        for tag, a in page.elements
        if tag == "article"
    ]
    assert figures == [(0.95, pytest.approx(0.75), "0"), (0.1, pytest.approx(0.1), "1")]
    for choice in ("best first", "worst first", "biggest surprise first", "by id"):
        assert choice in page.text
    assert '<input type="search" data-find' in page.html
    assert "data-find" not in read(write_run(tmp_path / "s", "ilql", talks[:1])).html.split("<script>")[0]


def test_the_extremes_are_there_if_not_all_fit(tmp_path, read, write_run, conversation):
    """Of 70 conversations 60 fit: the best and the worst, which are the last two, are among them."""
    talks = [conversation() | {"id": f"c{i}", "return": 0.5} for i in range(68)]
    talks += [
        conversation() | {"id": "best", "return": 2.0},
        conversation() | {"id": "worst", "return": -2.0},
    ]
    page = read(write_run(tmp_path / "r", "ilql", talks))
    assert 'aria-label="Conversation best"' in page.html and 'aria-label="Conversation worst"' in page.html


def test_text_that_runs_from_right_to_left_is_laid_out_so(lone):
    """Each message by its own first letters: a page may hold Hebrew beside English."""
    assert lone.html.count('<p dir="auto">') == len([t for t, _ in lone.elements if t == "li"])


def test_page_stays_small(tmp_path, write_run, write_comparison, conversation, parse_html):
    """6 runs, each with 12 conversations of 20 turns of 100 tokens, are 144,000 tokens, 16 MB of markup."""
    tokens = [{"text": " 汉<", "logp": -1.0, "v": 0.1, "q": 0.2, "advantage": 0.1}] * 100
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "汉" * 100, "tokens": tokens}]
    for i in range(6):
        write_run(tmp_path / f"r{i}", "ilql", [conversation() | {"messages": turn * 20}] * 12)
    path = write_report(write_comparison(tmp_path, runs={f"r{i}": f"r{i}" for i in range(6)}))
    assert path.stat().st_size < 2_000_000
    page = parse_html(path.read_text(encoding="utf-8"))
    assert "11 more conversations are in conversations.jsonl" in page.text
    assert "more messages are in the file; they are left out to keep this page small." in page.text
    assert page.html.count('<article class="talk"') == 6
