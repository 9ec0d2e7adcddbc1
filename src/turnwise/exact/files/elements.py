"""XML as elements that know their line, which the standard library's trees do not keep."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from turnwise.run.errors import InputError
from turnwise.run.files.packed import looks_packed, unpacked


class DocumentError(InputError):
    """Something is wrong at a line of the document; `within` says in which file."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line

    def within(self, path: Path) -> InputError:
        """The error that a person reads: file, line, message."""
        return InputError(f"{path}{'' if self.line is None else f':{self.line}'}: {self}")


@dataclass
class Element:
    """An element of a document."""

    tag: str
    attributes: dict[str, str]
    line: int
    """line where it begins"""
    content: list[str | Element] = field(default_factory=list)
    """texts and elements in it, in order"""

    def all(self, tag: str) -> list[Element]:
        """The children with this tag."""
        return [x for x in self.content if isinstance(x, Element) and x.tag == tag]

    def find(self, tag: str) -> Element | None:
        """The first child with this tag."""
        return next(iter(self.all(tag)), None)

    def child(self, tag: str) -> Element:
        """The first child with this tag; a DocumentError if there is none."""
        found = self.find(tag)
        if found is None:
            raise DocumentError(f"<{self.tag}>: no <{tag}>; expected one", self.line)
        return found

    def words(self) -> list[str]:
        """The words of all text in the element."""
        return "".join(self._texts()).split()

    def _texts(self) -> Iterator[str]:
        for x in self.content:
            if isinstance(x, str):
                yield x
            else:
                yield from x._texts()


def read_elements(path: Path) -> Element:
    """The root element of an XML file, plain or gzip. Whatever is wrong with it is a DocumentError."""
    try:
        with unpacked(path, packed=looks_packed(path)) as file:
            return _elements(file.read())
    except expat.ExpatError as e:
        raise DocumentError(f"no XML ({expat.ErrorString(e.code)}); expected a .pomdpx file", e.lineno) from e
    except (OSError, EOFError, zlib.error) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise DocumentError(f"cannot be read ({why}); expected a .pomdpx file, plain or gzip") from e
    except (LookupError, ValueError) as e:
        raise DocumentError(f"in an encoding that cannot be read ({e}); expected UTF-8") from e


def _elements(data: bytes) -> Element:
    parser = expat.ParserCreate()
    parser.buffer_text = True  # one text per run of characters, not one per buffer of the parser
    stack = [Element("", {}, 0)]  # the document itself, then the elements that are open

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentLineNumber)
        stack[-1].content.append(element)
        stack.append(element)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.CharacterDataHandler = lambda text: stack[-1].content.append(text)
    parser.Parse(data, True)
    return next(x for x in stack[0].content if isinstance(x, Element))
