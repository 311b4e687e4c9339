"""Everything that is wrong in a configuration, at once, each with its place; msgspec stops at the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from monitors.wanted import example_of, wanted, written

#: Of a value: ``("probe", 0, "url")``.
Place: TypeAlias = tuple[str | int, ...]


class Fault(NamedTuple):
    """What is wrong at a place, and what to write there. Never shows a text of the file: it may be a secret."""

    place: Place
    what: str
    line: int | None = None


class Contradiction(NamedTuple):
    """What is wrong with values that are well by themselves. The first of ``fields`` is the place."""

    fields: tuple[str, ...]
    what: str


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration. A field that is required has an example, ``Meta(examples=…)``: it is shown where
    the field is missing."""

    def contradictions(self) -> Iterator[Contradiction]:
        """What types do not say."""
        return iter(())


_T = TypeVar("_T", bound=Table)


@dataclass(frozen=True, slots=True)
class Examined(Generic[_T]):
    """A table that was looked at. ``value`` has defaults and examples in the place of ``unsound`` fields."""

    value: _T
    unsound: frozenset[str]
    faults: tuple[Fault, ...]

    def sound(self, *fields: str) -> bool:
        """Whether what these fields say is what the file says."""
        return self.unsound.isdisjoint(fields)


def examined(
    table: Mapping[str, object],
    kind: type[_T],
    place: Place,
    *,
    tag: str | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> Examined[_T]:
    """A table as this kind, and all that keeps it from being one. ``tag`` is a key that says which kind it is;
    ``elsewhere`` maps keys that do not belong here to what to do about them."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    known = [*([tag] if tag is not None else []), *fields]
    faults = [
        Fault((*place, key), (elsewhere or {}).get(key) or unknown(key, known))
        for key in table
        if key not in known
    ]
    sound: dict[str, object] = {}
    unsound: set[str] = set()
    for name, field in fields.items():
        if name in table:
            try:
                msgspec.convert(table[name], field.type)
            except msgspec.ValidationError:
                faults.append(Fault((*place, name), f"must be {wanted(field.type, table[name])}"))
                unsound.add(name)
            else:
                sound[name] = table[name]
        elif field.required:
            example = written(field.type, example_of(field.type))
            faults.append(Fault((*place, name), f"is missing: write {name} = {example}"))
            unsound.add(name)
        if name in unsound and field.required:
            sound[name] = example_of(field.type)
    value = msgspec.convert({**sound, **({tag: table[tag]} if tag is not None else {})}, kind)
    faults += [
        Fault((*place, *each.fields[:1]), each.what)
        for each in value.contradictions()
        if unsound.isdisjoint(each.fields)
    ]
    return Examined(value, frozenset(unsound), tuple(faults))


def unknown(name: object, known: Sequence[str]) -> str:
    """What is said of a name that is none of those."""
    near = get_close_matches(str(name), known, n=1)
    there_are = f"there are {', '.join(known)}"
    return f"is not known, did you mean {near[0]}? ({there_are})" if near else f"is not known: {there_are}"
