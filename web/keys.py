"""API keys. A key is shown once, when it is made; the file holds its SHA-256 and can give nothing away.

    es_ + 32 random characters of 62 (190 bits) + CRC-32 of them in 6 characters

The checksum tells a mistyped key, and a key in a place where none belongs, without a look into any file.
A fast hash is enough: there is no guessing 190 random bits.

A name has at most two live keys, so that one can follow the other without a gap: make the second, give it to whoever
uses the first, revoke the oldest. When a key was last used is kept beside the file (``web/last_used.py``): using
one never writes to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import math
import os
import re
import secrets
import string
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from topology.errors import SettingsError
from web.files import replace_file
from web.last_used import LastUsed

Scope: TypeAlias = Literal["events", "health", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: Why nobody is let in: ``malformed`` is told by its shape or checksum, ``unknown`` may have been revoked.
Refusal: TypeAlias = Literal["missing", "malformed", "unknown", "expired"]

PREFIX = "es_"
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
#: The one in use and the one that will follow it.
LIVE_KEYS_OF_A_NAME = 2
#: Between two looks whether the file has changed: many requests come in a millisecond.
LOOK_EVERY_S = 0.001
#: Of the hash; enough to tell apart the keys that a person looks at.
ID_CHARACTERS = 8
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key. ``expires`` in epoch milliseconds, None = never; ``created`` likewise, None = by a version
    that did not say."""

    name: str
    scopes: tuple[Scope, ...]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    expires: int | None = None
    created: int | None = None

    @property
    def id(self) -> str:
        """Tells it from the other key of its name. It is no secret."""
        return self.sha256[:ID_CHARACTERS]

    def lives(self, now: int) -> bool:
        """Whether it has not expired at ``now`` (epoch milliseconds)."""
        return self.expires is None or now < self.expires


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[Key, ...]


_Stamp: TypeAlias = tuple[int, int, int] | None
_decode = msgspec.json.Decoder(_File).decode


class Keys:
    """The keys of one file. Several processes may use it at once: changes replace the file as a whole,
    and are seen by all a millisecond later. A file that is not there holds no key. ``monotonic`` in seconds.

    ``last_used`` is told of every key that was let in, by whoever lets in."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.last_used = LastUsed(path)
        self._monotonic = monotonic
        self._looked_at = -math.inf
        self._read_at: _Stamp = None
        self._keys: tuple[Key, ...] = ()

    def create(self, name: str, scopes: Sequence[str], expires: int | None, *, now: int) -> str:
        """Make a key and return it, the only time that it can be seen. Without ``scopes`` it gets those of the live
        key of this name.

        Raises ``ValueError`` for a name or scope that cannot be, or where the name has two live keys already;
        ``SettingsError`` if the file cannot be read or written.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a key: use up to 64 letters, digits and . _ -")
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise ValueError(f"unknown scope {', '.join(unknown)}: choose of {', '.join(SCOPES)}")
        random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
        secret = f"{PREFIX}{random}{_checksum(random)}"
        with self._changing() as keys:
            live = _live(keys, name, now)
            if len(live) >= LIVE_KEYS_OF_A_NAME:
                raise ValueError(
                    f"{name} has two live keys ({', '.join(key.id for key in live)}): end one first, "
                    f"`eventsink keys revoke {name} --oldest`"
                )
            if not scopes and not live:
                raise ValueError(f"{name} has no live key to take scopes from: choose of {', '.join(SCOPES)}")
            wanted = tuple(scope for scope in SCOPES if scope in (scopes or live[0].scopes))
            made = Key(name=name, scopes=wanted, sha256=_digest(secret), expires=expires, created=now)
            self._replace((*keys, made))
        return secret

    def revoke(self, name: str) -> Sequence[Key]:
        """Forget every key of this name or, where nothing has that name, the key with this id. Returns what was
        forgotten. Raises ``SettingsError`` like ``create``."""
        with self._changing() as keys:
            gone = [key for key in keys if key.name == name] or [key for key in keys if key.id == name]
            if gone:
                self._replace(tuple(key for key in keys if key not in gone))
        return gone

    def revoke_oldest(self, name: str, *, now: int) -> Key:
        """Forget the older of two live keys. Raises ``ValueError`` where there are not two: done twice, this would
        end the key that followed."""
        with self._changing() as keys:
            live = _live(keys, name, now)
            if len(live) < LIVE_KEYS_OF_A_NAME:
                raise ValueError(
                    f"{name} has {'one live key' if live else 'no live key'}: --oldest ends one of two. "
                    f"`eventsink keys revoke {name}` ends all of this name"
                )
            self._replace(tuple(key for key in keys if key != live[0]))
        return live[0]

    def list(self) -> Sequence[Key]:
        """All keys, expired ones included, in the order in which they were made."""
        return self._current()

    def check(self, presented: str | None, now: int) -> Key | Refusal:
        """The key that was presented, or why nobody is let in at ``now`` (epoch milliseconds).

        Raises ``SettingsError`` if the file cannot be read: nobody is let in on a guess.
        """
        keys = self._current()
        if not presented:
            return "missing"
        if not looks_like_a_key(presented):
            return "malformed"
        digest = _digest(presented)
        found = None
        for key in keys:  # all of them: the time that this takes tells nothing about which one fits
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            return "unknown"
        return found if found.lives(now) else "expired"

    # -- the file --

    def _current(self) -> tuple[Key, ...]:
        now = self._monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return self._keys
        stamp = self._stamp()
        if stamp != self._read_at:
            self._keys = self._load()
            self._read_at = stamp
        self._looked_at = now
        return self._keys

    def _stamp(self) -> _Stamp:
        # The inode is what tells two files of the same size within one tick of the clock apart.
        try:
            found = os.stat(self.path)  # noqa: PTH116 - at nearly every request; twice as fast
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _load(self) -> tuple[Key, ...]:
        try:
            return _decode(self.path.read_bytes()).keys
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unreadable(f"it is not a file of keys, {error}") from error

    def _unreadable(self, reason: str | None) -> SettingsError:
        return SettingsError(
            f"keys file {self.path} cannot be used ({reason}): mend it, or name another in EVENTSINK_KEYS_FILE"
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Key, ...]]:
        """The keys as they are, while no other process changes them."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._load()
        finally:
            os.close(descriptor)

    def _replace(self, keys: tuple[Key, ...]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_File(version=1, keys=keys)), indent=2)
        try:
            replace_file(self.path, content + b"\n")
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        self._looked_at = -math.inf


def _live(keys: Sequence[Key], name: str, now: int) -> Sequence[Key]:
    """The oldest first: the file has them in the order in which they were made."""
    return [key for key in keys if key.name == name and key.lives(now)]


def looks_like_a_key(text: str) -> bool:
    """Whether prefix, length and checksum are those of a key; no file is needed for that."""
    shape = _SHAPE.fullmatch(text)
    return shape is not None and shape[2] == _checksum(shape[1])


def without_keys(text: str) -> str:
    """The text with everything in it that begins like a key hidden, for logs."""
    return re.sub(rf"{PREFIX}[0-9A-Za-z]{{8,}}", f"{PREFIX}***", text)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(random: str) -> str:
    """Its CRC-32 in base 62, two digits at a time: every request waits for this."""
    number, last = divmod(zlib.crc32(random.encode()), len(_PAIRS))
    first, middle = divmod(number, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]
