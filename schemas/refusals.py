"""Refusals: what is wrong with something that is no event, and where."""

from __future__ import annotations

import re

import msgspec

_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)
_AT_LEAST = re.compile(r"Expected `(?:int|float)` >= (\S+)")
_AT_MOST = re.compile(r"Expected `(?:int|float)` <= (\S+)")
_TOO_LONG = re.compile(r"Expected `str` of length <= ([0-9]+)")
_EMPTY = re.compile(r"Expected `str` of length >= 1")
_EXPECTED = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?")
_AT = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)

#: Of a value that the sender chose, this much is repeated to them.
_SHOWN_CHARACTERS = 60

_IN_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
    "NoneType": "null",
}


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why a body is no event. ``pointer`` is a JSON pointer into it, "" for the whole; of a missing member
    it names the place where it should be. ``reason`` is one short line for the sender."""

    pointer: str
    reason: str


def refusal(error: msgspec.ValidationError) -> Refusal:
    """The decoder's word on a wrong field, in ours."""
    text = str(error)
    at = _AT.fullmatch(text)
    if at is None:
        return _worded("", text)
    text, path = at.groups()
    # Paths consist of our own field names (``.response_ms.min``); they hold nothing that needs escaping.
    return _worded(path.replace(".", "/"), text)


def _worded(pointer: str, text: str) -> Refusal:
    if match := _MISSING.fullmatch(text):
        return Refusal(f"{pointer}/{match[1]}", "is required")
    if pointer == "/time":
        return Refusal(
            pointer, "must be RFC 3339 with a zone or integer epoch milliseconds, in the years 1970 to 9999"
        )
    if match := _UNKNOWN.fullmatch(text):
        return Refusal(pointer, f"unknown {pointer.rpartition('/')[2]} {match[1][:_SHOWN_CHARACTERS]}")
    if match := _AT_LEAST.fullmatch(text):
        return Refusal(pointer, f"must be at least {_plain(match[1])}")
    if match := _AT_MOST.fullmatch(text):
        return Refusal(pointer, f"must be at most {_plain(match[1])}")
    if match := _TOO_LONG.fullmatch(text):
        return Refusal(pointer, f"must have at most {match[1]} characters")
    if _EMPTY.fullmatch(text):
        return Refusal(pointer, "must not be empty")
    if match := _EXPECTED.fullmatch(text):
        got = f", got {_kinds(match[2])}" if match[2] else ""
        return Refusal(pointer, f"must be {_kinds(match[1])}{got}")
    return Refusal(pointer, text.replace("`", "").lower())


def _plain(number: str) -> str:
    return number.removesuffix(".0")


def _kinds(names: str) -> str:
    return " or ".join(_IN_WORDS.get(name, name) for name in names.split(" | "))
