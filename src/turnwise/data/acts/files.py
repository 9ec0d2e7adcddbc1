"""Codebooks as a folder: `codes.json` with names and sentences, `codes.npz` with numbers; no pickles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from turnwise.data.acts.gate import Gate
from turnwise.data.acts.labelled import Meaning, function_label
from turnwise.data.acts.phrases import PhraseBook, Phrases, field_label
from turnwise.data.acts.roles import NAMES, Roles
from turnwise.data.acts.slots import Slots
from turnwise.data.acts.spaces import Beside, Embedded, Embedder, Space, Words
from turnwise.data.acts.talks import Codes
from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_folder

MARK = "codes.json"
NUMBERS = "codes.npz"
FORMAT = 4
SIDES = ("agent", "partner", "opening")
UP = 5
"""folders above that of codebooks in which a folder of vectors is looked for, if it is not where it was"""
TRIED = 8
"""sentences whose vectors must be what they were"""


def save_codes(codes: Codes, folder: str | Path) -> None:
    """Write a folder that `load_codes` reads, whole or not at all.

    TypeError for a codebook of another class than `PhraseBook`: it has files of its own.
    """
    words: dict[str, Any] = {"format": FORMAT}
    numbers: dict[str, np.ndarray] = {}
    for side in SIDES:
        book = getattr(codes, side)
        if not isinstance(book, PhraseBook):
            raise TypeError(f"the codebook of {side} is {type(book).__name__}; expected a PhraseBook")
        words[side], found = _written(book)
        numbers |= {f"{side}.{name}": value for name, value in found.items()}
    with whole_folder(Path(folder), MARK) as part:
        np.savez_compressed(part / NUMBERS, **numbers)  # pyright: ignore[reportArgumentType]
        (part / MARK).write_text(json.dumps(words, ensure_ascii=False, indent=1), encoding="utf-8")


def load_codes(
    folder: str | Path,
    *,
    embed: Callable[[str], Embedder] | None = None,
    functions: Mapping[str, Meaning] | None = None,
) -> Codes:
    """What `save_codes` wrote.

    `embed`: gives what makes vectors of texts, by its name, for codebooks that need one. A name that is no
    folder here may be one beside the codebooks or above them, where it was if all has moved together.
    `functions`: those that name acts, by `module:function`; what is not given is imported by that name.
    InputError for a folder that is no such thing, or that needs what is not there, or if `embed` gives
    something else than what the acts were found with.
    """
    place = Path(folder)
    try:
        words = json.loads((place / MARK).read_text(encoding="utf-8"))
        with np.load(place / NUMBERS, allow_pickle=False) as stored:
            numbers = {name: stored[name] for name in stored.files}
        if words["format"] != FORMAT:
            raise ValueError(f"format {words['format']}")
        books = [_read(side, words[side], numbers, place, embed, functions or {}) for side in SIDES]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place}: expected a folder of codebooks ({MARK}, {NUMBERS}); found {error}"
        ) from error
    return Codes(*books)


def _written(book: PhraseBook) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    words = {
        "way": book.way,
        "names": book.names,
        "other": book.other,
        "reach": book.reach,
        "source": book.source,
        "slot_names": sorted(book.slots.names),
        "templates": book.phrases.templates,
        "own": dict(book.phrases.own),
    }
    phrases = book.phrases
    numbers = {"acts": phrases.acts, "counts": phrases.counts, "distances": phrases.distances}
    if book.gate is not None:
        words |= {"sure": book.gate.sure, "heat": book.gate.heat}
        numbers |= {name: getattr(book.gate, name) for name in ("weights", "constants", "shares")}
    if book.roles is not None:
        words["roles"] = True
        numbers |= {f"roles_{name}": value for name, value in book.roles.arrays().items()}
    space = book.space
    if not isinstance(space, Words | Embedded | Beside):
        raise TypeError(f"sentences are in {type(space).__name__}; expected Words, Embedded or Beside")
    if isinstance(space, Words | Beside):
        plain = space if isinstance(space, Words) else space.words
        words |= {"words": plain.words}
        numbers |= {"idf": plain.vectorizer.idf_}
    if isinstance(space, Embedded | Beside):
        embedded = space if isinstance(space, Embedded) else space.embedded
        words |= {"embed": embedded.name}
        numbers |= {"mean": embedded.mean, "common": embedded.common}
    if isinstance(space, Embedded):
        numbers["vectors"] = book.logged.astype(np.float32)
    elif isinstance(space, Beside):
        features = sparse.csr_matrix(book.logged)[:, len(space.words.words) :].toarray()
        numbers |= {"directions": space.directions, "vectors": features.astype(np.float32)}
    return words, numbers


def _read(
    side: str,
    words: Mapping[str, Any],
    numbers: Mapping[str, np.ndarray],
    place: Path,
    embed: Callable[[str], Embedder] | None,
    functions: Mapping[str, Meaning],
) -> PhraseBook:
    def number(name: str) -> np.ndarray:
        return numbers[f"{side}.{name}"]

    own = {key: tuple((text, int(n)) for text, n in forms) for key, forms in words["own"].items()}
    phrases = Phrases(tuple(words["templates"]), number("acts"), number("counts"), number("distances"), own)
    space, logged = _space(side, words, number, place, embed)
    source, labels = words["source"], None
    if words["way"] == "field":
        labels = field_label
    elif words["way"] == "function":
        labels, source = function_label(functions.get(source, source), f"{side}_acts")[0], source
    return PhraseBook(
        words["way"],
        tuple(words["names"]),
        phrases,
        Slots(frozenset(words["slot_names"])),
        space,
        words["other"],
        words["reach"],
        labels,
        source,
        _gate(words, number),
        Roles(**{name: number(f"roles_{name}") for name in NAMES}) if words.get("roles") else None,
        logged,
    )


def _space(
    side: str,
    words: Mapping[str, Any],
    number: Callable[[str], np.ndarray],
    place: Path,
    embed: Callable[[str], Embedder] | None,
) -> tuple[Space, Any]:
    """Where a side's sentences are, and the logged ones in it, None if they are quickly made again."""
    plain = Words.of(words["words"], number("idf")) if "words" in words else None
    if "embed" not in words:
        assert plain is not None
        return plain, None
    name, logged = words["embed"], number("vectors")
    made = Embedded(_embedder(side, name, place, embed), number("mean"), number("common"), name)
    what = f"{place}: acts of the {side}"
    if plain is None:
        _expect_same(made.vectors, words["templates"], logged, name, what)
        return made, logged
    space = Beside(plain, made, number("directions"))
    _expect_same(space.features, words["templates"], logged, name, what)
    return space, space.beside(words["templates"], logged)


def _gate(words: Mapping[str, Any], number: Callable[[str], np.ndarray]) -> Gate | None:
    if words.get("sure") is None:
        return None
    return Gate(number("weights"), number("constants"), words["sure"], words["heat"], number("shares"))


def _embedder(side: str, name: str, place: Path, embed: Callable[[str], Embedder] | None) -> Embedder:
    """What made the vectors of a side's sentences."""
    what = f"{place}: acts of the {side} are read by vectors of {name!r}"
    if embed is None:
        raise InputError(f"{what}; expected what makes them to be given (embed)")
    found = name
    if not Path(name).exists():
        near = (folder / name for folder in place.resolve().parents[:UP])
        found = next((str(path) for path in near if path.is_dir()), name)
    try:
        return embed(found)
    except InputError as error:
        raise InputError(
            f"{what}, which cannot be loaded ({error}); expected its folder there, or embed: where it is now"
        ) from error


def _expect_same(
    vectors: Callable[[Sequence[str]], np.ndarray],
    templates: Sequence[str],
    logged: np.ndarray,
    name: str,
    what: str,
) -> None:
    """InputError if sentences have other vectors than when the acts were found."""
    found, known = vectors(templates[:TRIED]), logged[:TRIED]
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(known, axis=1)
    real = lengths > 1e-9
    alike = np.einsum("nd,nd->n", found, known)[real] / lengths[real]
    if len(alike) and alike.mean() < 0.99:
        raise InputError(
            f"{what} are read by vectors of {name!r}, which makes others of the same sentences now "
            f"(cosine {alike.mean():.2f}); expected embed: what the acts were found with"
        )
