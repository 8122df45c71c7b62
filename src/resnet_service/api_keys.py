"""API keys, of which only digests are kept."""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from resnet_service.errors import InvalidSettings

log = logging.getLogger("resnet_service")

_MIN_LENGTH = 16
_MAX_LENGTH = 512
_MAX_FILE_BYTES = 64 * 2**10
# Visible ASCII: the only characters that header fields carry unchanged everywhere. A comma separates keys.
_KEY = re.compile(r"[!-+\--~]+")


class Keys:
    """The keys that are accepted, as SHA-256 digests; several, so that a new one works before the old one goes.

    A plain digest is enough for what nobody can guess: keys are no passwords, and short ones are refused. Nothing
    that is shown of this object, or said about a faulty key, has any part of a key in it.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Take digests of ``keys``.

        Raises:
            ValueError: There is none, or one is shorter than 16 characters, longer than 512, or not visible ASCII.

        """
        self._digests = tuple(dict.fromkeys(_digest_of(number, key) for number, key in enumerate(keys, start=1)))
        if not self._digests:
            raise ValueError("there is no key; to serve without keys, leave this setting out")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read keys separated by commas; raise ``ValueError`` as the class does."""
        return cls(filter(None, (part.strip() for part in text.split(","))))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of one key a line; lines that begin with ``#`` and empty ones say nothing.

        Raises:
            InvalidSettings: The file cannot be read, or its keys are none, too weak or malformed.

        """
        where = f"The file of API keys {path}"
        if not path.is_file():
            raise InvalidSettings(f"{where} does not exist or is not a file.")
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidSettings(f"{where} cannot be read: {error.strerror}.") from error
        if len(data) > _MAX_FILE_BYTES:
            raise InvalidSettings(f"{where} has more than {_MAX_FILE_BYTES:,} bytes.")
        lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
        try:
            return cls(line for line in lines if line and not line.startswith("#"))
        except ValueError as error:
            raise InvalidSettings(f"{where} cannot be used: {error}.") from None

    def accept(self, presented: bytes) -> bool:
        """Say whether ``presented`` is one of the keys, in a time that tells nothing about how nearly it is."""
        digest = hashlib.sha256(presented).digest()
        # All of them are compared, so that the time does not tell which one it was either.
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(found)

    def __or__(self, other: "Keys") -> "Keys":
        both = object.__new__(Keys)
        both._digests = tuple(dict.fromkeys((*self._digests, *other._digests)))
        return both

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"<{len(self)} API keys>"


class KeyRing:
    """The keys that are accepted now: those of a setting, which stay, and those of a file, which may change.

    Args:
        fixed: From the setting.
        file: Read now, and again at each ``reload``.

    Raises:
        InvalidSettings: The file cannot be used, or there is neither.

    """

    def __init__(self, fixed: Keys | None, file: Path | None) -> None:
        self._fixed = fixed
        self._file = file
        self.keys = self._read()

    def reload(self) -> None:
        """Read the file again; where it cannot be used, say so, and go on with the keys that there are."""
        if self._file is None:
            return
        try:
            self.keys = self._read()
        except InvalidSettings as error:
            log.error("The old API keys stay valid: %s", error)
        else:
            log.info("API keys read again; accepted now: %d", len(self.keys))

    def _read(self) -> Keys:
        filed = Keys.read(self._file) if self._file is not None else None
        if filed is not None and self._fixed is not None:
            return self._fixed | filed
        keys = filed or self._fixed
        if keys is None:
            raise InvalidSettings("API keys were asked for, but none were given.")
        return keys


def _digest_of(number: int, key: str) -> bytes:
    if not _MIN_LENGTH <= len(key) <= _MAX_LENGTH:
        raise ValueError(
            f"key {number} has {len(key)} characters, but needs {_MIN_LENGTH} to {_MAX_LENGTH}; "
            "`openssl rand -hex 32` makes a good one"
        )
    if not _KEY.fullmatch(key):
        raise ValueError(f"key {number} has characters that are not visible ASCII, or a comma")
    return hashlib.sha256(key.encode("ascii")).digest()
