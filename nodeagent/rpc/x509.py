"""From when until when a certificate is valid, from its DER: the ssl module does not tell it of a file.

    Certificate ::= { tbs { [0] version?, serial, algorithm, issuer, validity { notBefore, notAfter } } ... }

Invariant: bytes that are not a certificate end in Garbled, never in a time.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

from nodeagent.model.errors import Garbled

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_FORMATS = {
    0x17: "%y%m%d%H%M%SZ",
    0x18: "%Y%m%d%H%M%SZ",
}  # UTCTime, GeneralizedTime as RFC 5280 4.1.2.5 wants them


def certificates(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM file in DER, in their order; Garbled when one is not base64."""
    try:
        return tuple(ssl.PEM_cert_to_DER_cert(found.decode("ascii")) for found in _PEM.findall(pem))
    except ValueError:
        raise Garbled("a certificate that is not PEM") from None


def validity_unix(der: bytes) -> tuple[float, float]:
    """The first and the last instant at which the certificate is valid; Garbled when `der` is not one."""
    try:
        _, whole, _ = _element(der, _SEQUENCE)
        _, inner, _ = _element(whole, _SEQUENCE)
        tag, _, rest = _element(inner)
        if tag == _VERSION:
            tag, _, rest = _element(rest)
        if tag != _INTEGER:
            raise ValueError("no serial number")
        for _algorithm_then_issuer in range(2):
            _, _, rest = _element(rest, _SEQUENCE)
        _, validity, _ = _element(rest, _SEQUENCE)
        since, text, rest = _element(validity)
        until, ends, _ = _element(rest)
        return _unix(since, text), _unix(until, ends)
    except (IndexError, KeyError, ValueError):
        raise Garbled("not an X.509 certificate") from None


def _unix(tag: int, text: bytes) -> float:
    return datetime.strptime(text.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC).timestamp()


def _element(data: bytes, expected: int | None = None) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element; ValueError or IndexError when it is cut off."""
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if expected is not None and tag != expected:
        raise ValueError(f"tag {tag:#x}, not {expected:#x}")
    if len(data) < start + size:
        raise ValueError("cut off")
    return tag, data[start : start + size], data[start + size :]
