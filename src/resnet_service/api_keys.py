"""API keys, kept as digests only."""

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
    """Accepted keys, as SHA-256 digests. Several keys allow a new one to be introduced before the old one is removed.

    A plain digest suffices because keys cannot be guessed: short ones are refused. Neither this object's ``repr`` nor
    an error message contains any part of a key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Compute the digests of ``keys``.

        Raises:
            ValueError: No keys, or a key is shorter than 16 characters, longer than 512, or not visible ASCII.

        """
        self._digests = tuple(dict.fromkeys(_digest_of(number, key) for number, key in enumerate(keys, start=1)))
        if not self._digests:
            raise ValueError("no key is given; to serve without keys, leave this setting out")

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The SHA-256 digests of the keys."""
        return self._digests

    @classmethod
    def of_digests(cls, digests: Iterable[bytes]) -> Self:
        """Return the keys that have these ``digests``."""
        keys = cls.__new__(cls)
        keys._digests = tuple(digests)
        return keys

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse keys separated by commas; raise ``ValueError`` as the class does."""
        return cls(filter(None, (part.strip() for part in text.split(","))))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of one key per line; empty lines and lines that begin with ``#`` are ignored.

        Raises:
            InvalidSettings: The file cannot be read, has no keys, or has weak or malformed ones.

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
        """Return whether ``presented`` is one of the keys, in a time independent of its similarity to a key."""
        digest = hashlib.sha256(presented).digest()
        # Each key is compared, so that the time does not depend on which one matches.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)

    def __or__(self, other: "Keys") -> "Keys":
        both = object.__new__(Keys)
        both._digests = tuple(dict.fromkeys((*self._digests, *other._digests)))
        return both

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"<{len(self)} API keys>"


class KeyRing:
    """The keys accepted now: those of the setting, which are fixed, and those of the file, which may change.

    Args:
        fixed: The keys of the setting.
        file: Read now, and again at each ``reload``.

    Raises:
        InvalidSettings: The file cannot be used, or neither is given.

    """

    def __init__(self, fixed: Keys | None, file: Path | None) -> None:
        self._fixed = fixed
        self._file = file
        self.keys = self._read()

    def reload(self) -> bool:
        """Read the file again; if it cannot be used, log the reason, keep the old keys, and return false."""
        if self._file is None:
            return True
        try:
            self.keys = self._read()
        except InvalidSettings as error:
            log.error("Could not read the API keys again; the old keys stay valid: %s", error)
            return False
        log.info("API keys read again; accepted now: %d", len(self.keys))
        return True

    def _read(self) -> Keys:
        filed = Keys.read(self._file) if self._file is not None else None
        if filed is not None and self._fixed is not None:
            return self._fixed | filed
        keys = filed or self._fixed
        if keys is None:
            raise InvalidSettings("No API keys are given: set api_keys or api_keys_file.")
        return keys


def _digest_of(number: int, key: str) -> bytes:
    if not _MIN_LENGTH <= len(key) <= _MAX_LENGTH:
        raise ValueError(
            f"key {number} has {len(key)} characters, but needs {_MIN_LENGTH} to {_MAX_LENGTH}; "
            "create one with `openssl rand -hex 32`"
        )
    if not _KEY.fullmatch(key):
        raise ValueError(f"key {number} has characters that are not visible ASCII, or a comma")
    return hashlib.sha256(key.encode("ascii")).digest()
