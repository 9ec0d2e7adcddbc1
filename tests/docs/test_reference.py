"""Docstrings as the reference sets them."""

from __future__ import annotations

import dataclasses
import inspect

from public_names import entry, prose, public_names, reference

import turnwise


@dataclasses.dataclass(frozen=True)
class Sample:
    """Two numbers, `a` and b_.

        x = a_1

    The end.
    """

    a: int
    """the first"""
    b: float = 0.5
    """the second"""

    def total(self, times: int = 1) -> float:
        """Their sum."""
        return times * (self.a + self.b)


def test_prose_marks_code_and_keeps_formulas():
    doc = "The value v_k of `x`.\n    v_k = |r|\nIts parts:\n- one_\n  more\n- two"
    assert prose(doc) == [
        r"The value v\_k of ``x``.",
        "",
        "::",
        "",
        "        v_k = |r|",
        "",
        "Its parts:",
        "",
        r"- one\_",
        "  more",
        "- two",
    ]


def test_a_class_has_its_fields_and_methods():
    text = "\n".join(entry("m", "Sample", Sample))
    assert text.startswith(".. py:class:: m.Sample(a, b)")
    assert ".. py:attribute:: a\n      :type: int\n\n      the first" in text
    assert ":type: float\n      :value: 0.5\n\n      the second" in text
    assert ".. py:method:: total(times: int=1) -> float\n\n      Their sum." in text


def test_the_reference_has_every_formula():
    text = reference("turnwise.losses.returns")
    for name in ("td_targets", "discounted_returns", "lambda_returns", "n_step_returns"):
        assert f".. py:function:: turnwise.losses.returns.{name}(rewards: Float[Tensor, 'B A']" in text


def test_every_public_name_is_said_what_it_is():
    """Each name that `import turnwise` offers has an entry, and a class or function a docstring in it."""
    names = public_names(turnwise)
    assert names
    for name in names:
        value = getattr(turnwise, name)
        text = "\n".join(entry("turnwise", name, value))
        assert text.startswith(f".. py:{kind_of(value)}:: turnwise.{name}")
        assert not callable(value) or inspect.getdoc(value)


def kind_of(value):
    return "class" if inspect.isclass(value) else "function" if callable(value) else "data"
