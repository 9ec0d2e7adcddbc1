"""Acts from logs, at both doors: named, discovered, loaded again, shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main

PARTS = ("lamp", "radio", "clock")


def rows(n: int = 150) -> list[dict[str, Any]]:
    """Questions about parts; the answer names the part."""
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        messages: list[dict[str, Any]] = [{"role": "user", "content": "hello", "act": "greet"}]
        for _ in range(4):
            part = PARTS[int(rng.integers(3))]
            verb, end = (
                rng.choice(["test", "try", "check", "see"]),
                rng.choice(["", " now", " once", " please"]),
            )
            ask = {"role": "assistant", "content": f"{verb} the {part}{end}", "act": part, "reward": 1.0}
            answer = rng.choice(["works", "is fine", "does it", "runs"])
            messages += [
                ask,
                {"role": "user", "content": f"that {part} {answer}", "act": f"{part} fine"},
            ]
        found.append({"id": str(i), "messages": messages})
    return found


def first_word(text: str, before: Sequence[tw.Message]) -> str:
    return text.split()[0]


def test_fields_name_acts_and_the_run_is_loaded_again(tmp_path: Path) -> None:
    books = tw.fit(tw.Acts(), rows(), out=tmp_path / "run", quiet=True)
    assert set(books.codes.acts) == set(PARTS) and books.result["sides"]["agent"]["labels"] == 1
    loaded = tw.load(tmp_path / "run")
    assert isinstance(loaded, tw.Codebooks)
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "see the lamp once"}]
    assert loaded.read(talk) == ["greet", "lamp", "(nothing)"]
    loaded.save(tmp_path / "copy")
    assert tw.load(tmp_path / "copy").read(talk) == loaded.read(talk)  # type: ignore[union-attr]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "named by the log" in page and "confounded" in page and "What answers it" in page
    with pytest.raises(TypeError, match="takes no policy"):
        tw.fit(tw.Acts(), rows(), policy="x", quiet=True)


def test_acts_are_discovered_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs, out = tmp_path / "logs.jsonl", str(tmp_path / "run")
    logs.write_text("".join(json.dumps(r) + "\n" for r in rows(300)), encoding="utf-8")
    asked = ["train", "acts", "--logs", str(logs), "--out", out, "--agent-acts", "discover", "--json"]
    assert main([*asked, "--partner-acts", f"{__name__}:first_word", "--twice", "0"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["sides"]["agent"]["acts"] == 3 and result["sides"]["agent"]["labels"] == 1
    assert result["sides"]["partner"]["way"] == "function"
    document = json.loads((tmp_path / "run" / "acts.json").read_text(encoding="utf-8"))
    assert [s["side"] for s in document["sides"]] == ["agent", "partner", "opening"]
    assert main(["train", "acts", "--logs", str(logs), "--out", out + "2", "--count", "few"]) == 2
    assert "--count few: expected auto or a number of acts" in capsys.readouterr().err


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_failed_before_it_learnt_anything_is_tried_again_in_its_folder(
    tmp_path: Path, there: bool
) -> None:
    """Nothing is left of it, be the folder new or there and empty. What a run has learnt is not touched."""

    def bad(text: str, before: Sequence[tw.Message]) -> str:
        raise ZeroDivisionError

    out = tmp_path / "run"
    if there:
        out.mkdir()
    with pytest.raises(tw.InputError, match="ZeroDivisionError"):
        tw.fit(tw.Acts(agent_acts=bad), rows(20), out=out, quiet=True)  # type: ignore[arg-type]
    assert out.exists() == there and not list(tmp_path.glob("run/*"))
    books = tw.fit(tw.Acts(), rows(20), out=out, quiet=True)
    assert set(books.codes.acts) == set(PARTS)
    with pytest.raises(tw.InputError, match="another run"):
        tw.fit(tw.Acts(agent_acts=bad), rows(20), out=out, quiet=True)  # type: ignore[arg-type]
    assert (out / "result.json").is_file() and (out / "config.yaml").is_file()
