"""API keys. A key is shown once, when it is made; the file holds its SHA-256 and can give nothing away.

    es_ + 32 random characters of 62 (190 bits) + CRC-32 of them in 6 characters

The checksum tells a mistyped key, and a key in a place where none belongs, without a look into any file.
A fast hash is enough: there is no guessing 190 random bits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import string
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from topology.errors import SettingsError

Scope: TypeAlias = Literal["events", "health", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "es_"
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key. ``expires`` in epoch milliseconds, None = never."""

    name: str
    scopes: tuple[Scope, ...]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    expires: int | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[Key, ...]


_Stamp: TypeAlias = tuple[int, int, int] | None
_decode = msgspec.json.Decoder(_File).decode


class Keys:
    """The keys of one file. Several processes may use it at once: changes replace the file as a whole,
    and are seen by all with their next check. A file that is not there holds no key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: _Stamp = None
        self._keys: tuple[Key, ...] = ()

    def create(self, name: str, scopes: Sequence[str], expires: int | None) -> str:
        """Make a key and return it, the only time that it can be seen.

        Raises ``ValueError`` for a name or scope that cannot be, ``SettingsError`` if the file cannot be
        read or written.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a key: use up to 64 letters, digits and . _ -")
        wanted = tuple(scope for scope in SCOPES if scope in scopes)
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not wanted:
            raise ValueError(f"unknown scope {', '.join(unknown) or '(none)'}: choose of {', '.join(SCOPES)}")
        random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
        secret = f"{PREFIX}{random}{_checksum(random)}"
        with self._changing() as keys:
            if any(key.name == name for key in keys):
                raise ValueError(f"there is a key {name} already: choose another name, or revoke it first")
            self._replace((*keys, Key(name=name, scopes=wanted, sha256=_digest(secret), expires=expires)))
        return secret

    def revoke(self, name: str) -> bool:
        """Forget a key; False if there is none of this name. Raises ``SettingsError`` like ``create``."""
        with self._changing() as keys:
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                return False
            self._replace(left)
        return True

    def list(self) -> Sequence[Key]:
        """All keys, expired ones included, in the order in which they were made."""
        return self._current()

    def check(self, presented: str | None, now: int) -> Key | None:
        """The key that was presented, None if it is unknown or expired at ``now`` (epoch milliseconds).

        Raises ``SettingsError`` if the file cannot be read: nobody is let in on a guess.
        """
        keys = self._current()
        if presented is None or not looks_like_a_key(presented):
            return None
        digest = _digest(presented)
        found = None
        for key in keys:  # all of them: the time that this takes tells nothing about which one fits
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None or (found.expires is not None and found.expires <= now):
            return None
        return found

    # -- the file --

    def _current(self) -> tuple[Key, ...]:
        stamp = self._stamp()
        if stamp != self._read_at:
            self._keys = self._load()
            self._read_at = stamp
        return self._keys

    def _stamp(self) -> _Stamp:
        # The inode is what tells two files of the same size within one tick of the clock apart.
        try:
            found = self.path.stat()
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
        """Write a new file beside the old one (mkstemp makes it 0600) and put it in its place, durably."""
        content = msgspec.json.format(msgspec.json.encode(_File(version=1, keys=keys)), indent=2)
        try:
            descriptor, beside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(beside).replace(self.path)
            except BaseException:
                Path(beside).unlink(missing_ok=True)
                raise
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unreadable(error.strerror) from error


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
    number = zlib.crc32(random.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
