"""Folders of models from anywhere: code in them never runs, and sizes that no machine has are refused."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from turnwise.envs.protocol import Discrete
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.pretrained import load_lm, load_trunk, save_lm
from turnwise.models.room import bytes_of, memory
from turnwise.rollout.load import load_reward, load_step_agent
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError, SettingError

SOURCE = Path(__file__).parents[3] / "src" / "turnwise"
CODE = """
from pathlib import Path
Path({mark!r}).write_text("it ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "strange"
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def folder(tokenizers: dict[str, Any], tmp_path: Path) -> Path:
    """A small Llama of ours."""
    torch.manual_seed(0)
    tokenizer = tokenizers["own"]
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=32, eos=0, pad=1)
    save_lm(tmp_path / "model", lm, tokenizer)
    return tmp_path / "model"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("part", ["model", "tokenizer", "trunk", "reward"])
def test_code_in_a_models_folder_never_runs(
    part: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though somebody says yes to whatever asks."""
    mark = tmp_path / "mark"
    (folder / "strange.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    names = ("AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification")
    if part == "tokenizer":
        own = {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": [None, "strange.Tokenizer"]}}
        change(folder / "tokenizer_config.json", **own)
        change(folder / "config.json", model_type="llama")
    else:
        own = {"AutoConfig": "strange.Config"} | dict.fromkeys(names, "strange.Model")
        change(folder / "config.json", model_type="strange", auto_map=own)
    if part == "reward":
        (folder / "turnwise.json").write_text('{"kind": "reward", "models": 1}')
    load = {"trunk": lambda: load_trunk(folder), "reward": lambda: load_reward(folder)}
    with pytest.raises(InputError, match=r"comes with code of its own \(auto_map\), which is never run here"):
        load.get(part, lambda: load_lm(str(folder)))()
    assert not mark.exists()


def test_every_loading_of_a_stranger_says_that_no_code_runs() -> None:
    """`from_pretrained` and `from_config` ask on the terminal where nothing is said."""
    for file in SOURCE.rglob("*.py"):
        for call in (x for x in ast.walk(ast.parse(file.read_text())) if isinstance(x, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("from_pretrained", "from_config"):
                if ast.unparse(call.func.value).startswith("Peft"):  # adapters: weights, and no classes
                    continue
                said = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert said.get("trust_remote_code") == "False", f"{file}:{call.lineno}"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 10**9}, r"its weights would need .* GiB of memory, and this machine has "),
        ({"vocab_size": 10**12}, r"its weights would need .* GiB of memory, and this machine has "),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1,000,000,000; expected at most 10,000"),
        ({"num_labels": 10**9}, r"num_labels is 1,000,000,000; expected at most 10,000"),
    ],
)
def test_absurd_sizes_are_refused_before_they_fill_the_memory(
    values: dict[str, Any], words: str, folder: Path
) -> None:
    change(folder / "config.json", **values)
    with pytest.raises(InputError, match=rf"^{folder}: {words}"):
        load_lm(str(folder))


def test_absurd_sizes_of_ones_own_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a model of these sizes: its weights would need .* GiB"):
        llama(300, width=2**24, layers=1, heads=2, context=32, eos=0, pad=1)
    with pytest.raises(SettingError, match="layers is 1000000; expected a whole number from 1 to 10,000"):
        MemorySpec(layers=10**6)
    spec, spaces = MemorySpec(width=8), Spaces(Discrete(3), Discrete(2), None)
    StepAgent(agent_of("q", spec, CriticSpec(), spaces), "q", spec, CriticSpec(), spaces).save(tmp_path)
    settings = json.loads((tmp_path / "agent.json").read_text())
    settings["memory"]["width"] = 10**8
    (tmp_path / "agent.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"an agent of these sizes: its weights would need .* GiB"):
        load_step_agent(tmp_path)


def test_what_is_needed_is_what_is_taken() -> None:
    """3 x 5 weights and 5 biases of 4 bytes, a buffer of 7 halves of 2 bytes; what is shared counts once."""
    layer = torch.nn.Linear(3, 5, dtype=torch.float16)
    layer.register_buffer("seen", torch.zeros(7, dtype=torch.float16))
    assert bytes_of(torch.nn.ModuleList([layer, layer])) == 4 * 20 + 14
    here = memory()
    assert here is None or here > 2**28


def test_asking_for_room_draws_no_random_number() -> None:
    torch.manual_seed(4)
    ours = llama(300, width=16, layers=1, heads=2, context=32, eos=0, pad=1)
    torch.manual_seed(4)
    plain = LlamaForCausalLM(ours.config)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
