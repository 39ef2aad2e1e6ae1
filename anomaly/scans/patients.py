"""Patient ids as salted hashes: the same person gives the same key on this machine, and nobody can read it back."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from hashlib import sha256
from pathlib import Path

from anomaly.errors import DataError

_PLACEHOLDER = re.compile(r"0*|x+|na|nan|none|null|anon|removed|(?:anonym|deident|unknown)\D*")


def is_identifier(text: str) -> bool:
    """Tell whether a patient id names anyone: what an anonymiser writes for everybody must not make one group.

    A number tells people apart, so `ANONYM-0012` is an id.
    """
    return _PLACEHOLDER.fullmatch(re.sub(r"[\W_]+", "", text).lower()) is None


def hash_patient(key: str, salt: bytes | None = None) -> str:
    """Hash a patient's key: HMAC-SHA256 with this machine's salt, first 16 hex digits.

    Args:
        key: Patient id; surrounding blanks do not count.
        salt: From `load_salt`, to save reading it again for every file.

    Raises:
        DataError: There is no salt and none can be stored.
    """
    text = key.strip().encode("utf-8", "surrogateescape")
    return hmac.new(salt if salt is not None else load_salt(), text, sha256).hexdigest()[:16]


def load_salt() -> bytes:
    """Return ANOMALY_SALT if set, else the salt in the user's data folder, made there on first use (mode 600).

    Raises:
        DataError: The file cannot be read, made or is damaged.
    """
    given = os.environ.get("ANOMALY_SALT")
    if given:
        return given.encode("utf-8", "surrogateescape")

    import platformdirs

    path = Path(platformdirs.user_data_dir("anomaly-cxr")) / "salt"
    try:
        if not path.exists():
            _create(path)
        salt = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the salt for hashing patient ids cannot be read or made ({error.strerror}); "
            "set the environment variable ANOMALY_SALT to a secret text"
        ) from error
    if len(salt) < 32:
        raise DataError(f"{path}: the salt for hashing patient ids is damaged; restore it, or set ANOMALY_SALT")
    return salt


def _create(path: Path) -> None:
    """Write 32 random bytes; of processes that try at once the first wins, and none sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".salt.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink(missing_ok=True)
