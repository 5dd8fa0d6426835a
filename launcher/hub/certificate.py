"""The certificate of a server: whether its key fits, and from when until when it is valid.

Python's ssl module doesn't show the dates of a server's own certificate: the program openssl does.
"""

import re
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from common.cards import WRONG_USAGE, Card

_BEGIN = "-----BEGIN"
_KEY = re.compile(rf"{_BEGIN} (?:\w+ )*PRIVATE KEY-----")
_LOCKED = re.compile(rf"{_BEGIN} ENCRYPTED|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END", re.DOTALL)


def refuse_no_pair(certificate: Path, key: Path) -> None:
    """Refuse a certificate and a key that don't fit together, or need a password.

    Raises:
        Card: If they do, or can't be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = f"{certificate.name} and {key.name}"
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        why = f"{_why_no_pair(certificate, key, error)}."
        fix = "replace them by a pair without a password, or remove both lines from hub.toml"
        raise Card(f"{names} can't be used for HTTPS.", why, fix, WRONG_USAGE) from error
    except OSError as error:
        what = f"{names} can't be read."
        raise Card(what, f"{error.strerror}.", f"ls -l {certificate} {key}", WRONG_USAGE) from error


def _why_no_pair(certificate: Path, key: Path, error: ssl.SSLError) -> str:
    """Return what is wrong with the files, of which OpenSSL doesn't name one."""
    key_text = key.read_text(encoding="utf-8", errors="replace")
    if not _PEM.search(certificate.read_text(encoding="utf-8", errors="replace")):
        return f"{certificate.name} isn't a PEM certificate: no {_BEGIN} CERTIFICATE----- is in it"
    if not _KEY.search(key_text):
        return f"{key.name} isn't a PEM key: no {_BEGIN} PRIVATE KEY----- is in it"
    if _LOCKED.search(key_text):
        return f"{key.name} has a password, which the hub can't enter"
    if error.reason in _MISMATCHES:
        return f"{key.name} doesn't belong to {certificate.name}"
    return f"OpenSSL can't read them: {(error.reason or str(error)).lower().replace('_', ' ')}"


def _no_password() -> str:
    return ""  # without this function, OpenSSL asks on the terminal


def validity(certificate: Path) -> tuple[datetime, datetime]:
    """Return from when until when the first certificate of a PEM file is valid.

    Raises:
        ValueError: If openssl can't read the file, or isn't installed.
    """
    command = ["openssl", "x509", "-noout", "-startdate", "-enddate", "-in", str(certificate)]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise ValueError("openssl isn't installed; the system's package openssl has it") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(error.stderr.strip().partition("\n")[0]) from error
    begin, end = (line.split("=", 1)[1] for line in shown.stdout.splitlines())
    return _time(begin), _time(end)


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
