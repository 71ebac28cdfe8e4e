"""Invalid characters are passed over and counted by file; a text with many of them is not UTF-8, which is an error.

::

    invalid = Counter()
    text = decode(data, "a.txt", 0, invalid)
    report(invalid)         # warning: 2 invalid characters were passed over: a.txt (2)
"""

from __future__ import annotations

import re
from collections import Counter

from bert.errors import UsageError
from bert.files import UTF16_MARKS, warn

MOST = 1 / 1000  # invalid bytes in a text; Latin-1 has more
LONE = re.compile("[\ud800-\udfff]")  # what the error handler surrogateescape makes of invalid bytes, among others
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
NUMBERED = re.compile(r"&#(?:x([0-9a-fA-F]+)|([0-9]+));")


def decode(data: bytes, path: str, start: int, invalid: Counter[str]) -> str:
    """Decode the bytes of ``path`` from ``start`` on, without a byte-order mark, and add to ``invalid``.

    Raises UsageError, with the place in the file, where the text is not UTF-8.
    """
    try:
        text = data.decode("utf8")
    except UnicodeDecodeError as error:
        text, count = LONE.subn("", data.decode("utf8", "surrogateescape"))
        if count > MOST * len(data) or (start == 0 and data.startswith(UTF16_MARKS)):
            raise UsageError(f"{path}: not UTF-8 text (byte {start + error.start})") from error
        invalid[path] += count
    return text.removeprefix("\ufeff") if start == 0 else text


def decode_xml(data: bytes, path: str, invalid: Counter[str]) -> str:
    """Decode XML without what it cannot hold, references such as ``&#8;`` included; add that to ``invalid``."""
    dropped = 0

    def kept(match: re.Match[str]) -> str:
        nonlocal dropped
        number = int(match[1], 16) if match[1] else int(match[2])
        is_invalid = number > 0x10FFFF or NOT_XML.match(chr(number)) is not None
        dropped += is_invalid
        return "" if is_invalid else match[0]

    text, count = NOT_XML.subn("", NUMBERED.sub(kept, data.decode("utf8", "surrogateescape")))
    if count + dropped:
        invalid[path] += count + dropped
    return text


def report(invalid: Counter[str]) -> None:
    """Warn of what was passed over, if anything was."""
    if invalid:
        first = ", ".join(f"{path} ({count})" for path, count in sorted(invalid.items())[:3])
        more = ", ..." * (len(invalid) > 3)
        warn(f"{invalid.total()} invalid character{'s' * (invalid.total() > 1)} passed over: {first}{more}")
