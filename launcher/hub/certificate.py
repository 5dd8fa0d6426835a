"""The certificate of a server: whether its key fits, and from when until when it is valid.

Python's ssl module doesn't show the dates of a server's own certificate.
"""

import base64
import binascii
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from common.cards import WRONG_USAGE, Card

_BEGIN = "-----BEGIN"
_KEY = re.compile(rf"{_BEGIN} (?:\w+ )*PRIVATE KEY-----")
_LOCKED = re.compile(rf"{_BEGIN} ENCRYPTED|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
# Tags of DER: https://www.itu.int/rec/T-REC-X.690
_VERSION = 0xA0
_SEQUENCE = 0x30
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


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


def validity(pem: str) -> tuple[datetime, datetime]:
    """Return from when until when the first certificate of a PEM text is valid.

    The fields are those of RFC 5280, section 4.1. The signature isn't checked.

    Raises:
        ValueError: If the text has no certificate.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("it has no certificate")
    try:
        certificate = _enter(base64.b64decode(found[1]), _SEQUENCE)
        fields = _enter(certificate, _SEQUENCE)
        if fields[:1] == bytes([_VERSION]):
            fields = _skip(fields)
        for _ in ("serial number", "algorithm", "issuer"):
            fields = _skip(fields)
        dates = _enter(fields, _SEQUENCE)
        return _time(dates), _time(_skip(dates))
    except (IndexError, binascii.Error) as error:
        raise ValueError("its certificate is cut") from error


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it.

    Raises:
        IndexError: If the element is cut.
    """
    tag = data[0]
    size = data[1]
    begin = 2
    if size & 0x80:  # the size is in as many bytes as the lower bits say
        begin += size & 0x7F
        size = int.from_bytes(data[2:begin], "big")
    end = begin + size
    if len(data) < end:
        raise IndexError(end)
    return tag, data[begin:end], data[end:]


def _enter(data: bytes, expected: int) -> bytes:
    tag, content, _ = _element(data)
    if tag != expected:
        raise ValueError(f"its certificate has the tag {tag:#x} in place of {expected:#x}")
    return content


def _skip(data: bytes) -> bytes:
    return _element(data)[2]


def _time(data: bytes) -> datetime:
    tag, content, _ = _element(data)
    if tag not in _FORMATS:
        raise ValueError(f"its certificate has the tag {tag:#x} in place of a time")
    return datetime.strptime(content.decode(), _FORMATS[tag]).replace(tzinfo=UTC)
