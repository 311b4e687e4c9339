"""Where in a TOML file its keys stand. ``tomllib`` ends at the first thing that is no TOML, and tells no lines of what
it read; but each statement of a file is a small document of its own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from monitors.faults import Fault, Place

_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]#]*?)\s*\]")
_KEY = re.compile(r"\s*(?P<key>[\w.\"'-]+)\s*(?P<sign>[=:]?)")
_AT_LINE = re.compile(r"\(at line ([0-9]+),")
#: Words of ``tomllib`` where a statement may go on in the next line.
_GOES_ON = "(at end of document)"


class Statement(NamedTuple):
    """A key with its value, or a header. ``document`` is what it says by itself, None where it is no TOML."""

    line: int
    text: str
    document: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Lines:
    """The line of each key and header, from 1."""

    _lines: Mapping[Place, int]

    @classmethod
    def of(cls, statements: Collection[Statement]) -> Lines:
        lines: dict[Place, int] = {}
        tables: dict[Place, int] = {}  # how many an array of tables has so far
        inside: Place = ()
        for line, text, document in statements:
            keys, is_array = _keys(document or {})
            if not _is_header(text):
                lines.setdefault((*inside, *keys[:1]), line)
                continue
            inside = ()
            for key in keys[:-1]:
                inside = _last((*inside, key), tables)
            inside = (*inside, *keys[-1:])
            if is_array:
                tables[inside] = tables.get(inside, 0) + 1
            inside = _last(inside, tables)
            lines.setdefault(inside, line)
        return cls(lines)

    def line(self, place: Place) -> int | None:
        """Where a fault is seen: the line of what is at ``place``, else of the table that lacks it."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place)


def statements(text: str) -> Iterator[Statement]:
    """Each with the number of its first line, in order; comments and empty lines are none."""
    lines = text.split("\n")
    first = 0
    while first < len(lines):
        end = first + 1
        document, goes_on = _read(lines[first])
        while goes_on and end < len(lines):
            end += 1
            document, goes_on = _read("\n".join(lines[first:end]))
        if document is None:
            yield Statement(first + 1, lines[first], None)
            if end > first + 1:
                return  # where it would end nobody knows
        elif document:
            yield Statement(first + 1, lines[first], document)
        first = end


def in_two_brackets(text: str, names: Collection[str]) -> tuple[str, list[Fault]]:
    """The text with ``[probe]`` as ``[[probe]]``, for each of these names, and a fault for each that was none."""
    found: list[Fault] = []
    lines = text.split("\n")
    for line, header, _ in statements(text):
        named = _HEADER.match(header)
        name = named["name"] if named is not None else ""
        if name in names and not re.match(rf"\s*\[\[\s*{name}\s*\]\]", header):
            lines[line - 1] = f"[[{name}]]"
            found.append(Fault((name,), f"write [[{name}]], in two brackets", line))
    return "\n".join(lines), found


def no_toml(text: str, known: Collection[str]) -> list[Fault]:
    """Everything that is no TOML, none where ``tomllib`` can read it. Of what is none it shows only those of the
    ``known`` keys that are meant: all else may be a secret, or the second line of one."""
    found = [
        Fault((), _said(each.text, known), each.line) for each in statements(text) if each.document is None
    ]
    if found:
        return found
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # each statement is well: two of them are not together
        at = _AT_LINE.search(str(error))
        ends = int(at[1]) if at is not None else 0
        # Told is where it ends, and it may be of many lines.
        line, about = max(
            ((each.line, each.text) for each in statements(text) if each.line <= ends), default=(None, "")
        )
        key = _KEY.match(about)
        what = f"{key['key']} is given twice" if key is not None else f"{about.strip()} is there twice"
        return [Fault((), f"{what}: leave one out", line)]
    return []


def _said(text: str, known: Collection[str]) -> str:
    if _is_header(text):
        return "is no header: write it as [[probe]], alone in its line"
    key = _KEY.match(text)
    near = get_close_matches(key["key"], known, n=1) if key is not None else []
    # Base64 ends with "=" as well: that a sign follows makes no key of it.
    name, about = (near[0], f"{near[0]}: ") if near else ("NAME", "")
    if key is None or (not near and not key["sign"]):
        return "is no TOML: write NAME = VALUE, or [[probe]]"
    if key["sign"] != "=":
        return f"{about}write {name} = VALUE"
    value = text[key.end() :].strip()
    if value in {"True", "False"}:
        return f"{about}write {name} = {value.lower()}, in small letters"
    if value[:1] in {'"', "'"}:
        return f"{about}the quotes do not fit: write {name} = '…', and nothing behind it"
    if value[:1] in {"[", "{"}:
        return f"{about}a quote, a comma or the bracket at the end is missing"
    if value[:1].isdecimal():
        return f'{about}a number stands alone, without a unit, and a text in quotes: {name} = "…"'
    return f'{about}a text stands in quotes: {name} = "…"'


def _read(text: str) -> tuple[Mapping[str, object] | None, bool]:
    """What it says, or whether more lines may make it a statement."""
    try:
        return tomllib.loads(text + "\n"), False
    except tomllib.TOMLDecodeError as error:
        # A key alone would have gone on in its own line.
        return None, str(error).endswith(_GOES_ON)


def _is_header(text: str) -> bool:
    return text.lstrip().startswith("[")


def _keys(document: Mapping[str, object]) -> tuple[list[str], bool]:
    """The keys of a statement from the outermost, and whether the last is an array of tables."""
    keys: list[str] = []
    inner: object = document
    while isinstance(inner, Mapping) and inner:
        key, inner = next(iter(inner.items()))
        keys.append(key)
    return keys, isinstance(inner, list)


def _last(place: Place, tables: Mapping[Place, int]) -> Place:
    return (*place, tables[place] - 1) if place in tables else place
