"""The types of the configuration in words: what a value must be, and how it is written in TOML."""

from __future__ import annotations

import re
from datetime import date, time
from typing import Any

from msgspec import inspect

_NUMBER = re.compile(r"\s*[+-]?[0-9_]+(\.[0-9]+)?\s*")


def wanted(kind: Any, value: object) -> str:
    """What a field of this type takes, and what ``value`` is instead; a text is not shown, it may be a secret."""
    plain, examples = _unwrapped(kind)
    what = _words(plain)
    if examples and isinstance(plain, inspect.VarTupleType | inspect.StrType):
        what += f", as in {written(kind, examples[0])}"
    match plain, value:
        case inspect.StrType(), "":
            return f"{what}: it is empty"
        case (inspect.StrType() | inspect.LiteralType(), str()):
            return what
        case (inspect.IntType() | inspect.FloatType(), str()) if _NUMBER.fullmatch(value):
            return f"{what}: write it without quotes"
        case inspect.DateTimeType(), str():
            return f"{what}, without quotes"
        case (inspect.VarTupleType(), list()) | (inspect.DictType(), dict()):
            return f"{what}: one in it is no text"
        case _:
            return f"{what}, not {_words_of(value)}"


def example_of(kind: Any) -> object:
    """What ``Meta(examples=…)`` of a type shows; None where it has none."""
    _, examples = _unwrapped(kind)
    return examples[0] if examples else None


def written(kind: Any, example: object) -> str:
    """An example as it stands in the file."""
    plain, _ = _unwrapped(kind)
    if isinstance(plain, inspect.VarTupleType) and isinstance(example, list):
        items = ", ".join(f'"{each}"' for each in example)
        return f"[{items}]"
    return f'"{example}"' if isinstance(plain, inspect.StrType) else str(example)


def _unwrapped(kind: Any) -> tuple[inspect.Type, list[object]]:
    """Without None, and with its examples."""
    found = inspect.type_info(kind)
    examples: list[object] = []
    while isinstance(found, inspect.Metadata | inspect.UnionType):
        if isinstance(found, inspect.UnionType):
            (found,) = (each for each in found.types if not isinstance(each, inspect.NoneType))
        else:
            examples = (found.extra_json_schema or {}).get("examples", examples)
            found = found.type
    return found, examples


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType():
            return f"a whole number{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
        case inspect.StrType(max_length=None):
            return "a text in quotes"
        case inspect.StrType(min_length=least, max_length=most):
            return f"a text in quotes, of {least or 0} to {most} characters"
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{each}"' for each in values)
        case inspect.DateTimeType():
            return "a time with an offset, as in 2026-01-31T22:00:00Z"
        case inspect.DictType():
            return 'a table of texts, as in { NAME = "…" }'
        case inspect.VarTupleType():
            return "a list of texts"
        case _:
            raise NotImplementedError(f"a field of the configuration of type {kind}: say here what it takes")


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge:g} to {kind.le:g}"
    least = (
        f" more than {kind.gt:g}"
        if kind.gt is not None
        else f" of at least {kind.ge}"
        if kind.ge is not None
        else ""
    )
    most = f"at most {kind.le:g}" if kind.le is not None else ""
    return f"{least}{' and ' if least and most else ' of ' if most else ''}{most}"


def _words_of(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return "a text"
        case dict():
            return "a table"
        case list():
            return "a list"
        case date() | time():  # a date with a time is a date, too
            return "a date"
        case _:
            return "this"
