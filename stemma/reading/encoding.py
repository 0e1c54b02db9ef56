"""From bytes to text: byte order marks, UTF-8, declared and detected encodings. The result is valid UTF-8."""

import codecs
import re

from stemma.reading.legacy import detect_one_byte

# What a decoder reads to guess: enough for statistics, and the guess costs the same for every file.
SAMPLE = 256 * 1024
_DECLARATION = 4096
# So many bytes beyond ASCII in the only line of a JSON file are a text in an old encoding, fewer are damage.
_MIN_EVIDENCE = 8

_BOMS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32_le"),
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)
_MARKS = tuple(mark for mark, _ in _BOMS)

# Labels mean what browsers read under them (https://encoding.spec.whatwg.org/#names-and-labels).
_BROWSER_CODECS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""")
_DAMAGE = re.compile("[\ud800-\udfff]")
_MULTIBYTE = re.compile("[^\x00-\x7f\ud800-\udfff]")


def byte_order_mark(head: bytes) -> tuple[int, str | None]:
    """Return the length of the byte order mark and the encoding that it names: (0, None) without one."""
    if not head.startswith(_MARKS):
        return 0, None
    return next(((len(mark), name) for mark, name in _BOMS if head.startswith(mark)), (0, None))


def wide_encoding(head: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 encoding of the bytes, by mark or by where their NULs stand, or None.

    Texts in Latin letters have a NUL in every second byte of UTF-16, and three in four in UTF-32.
    """
    mark = byte_order_mark(head)[1]
    if mark is not None:
        return None if mark == "utf_8" else mark
    sample = head[: min(len(head), 4096) // 4 * 4]
    if len(sample) < 8 or b"\0" not in sample:
        return None
    nuls = [sample[offset::4].count(0) * 4 / len(sample) for offset in range(4)]
    even, odd = (nuls[0] + nuls[2]) / 2, (nuls[1] + nuls[3]) / 2
    if nuls[0] == 1.0 and nuls[1] > 0.9 and nuls[3] < 0.05:
        name = "utf_32_be"
    elif nuls[3] == 1.0 and nuls[2] > 0.9 and nuls[0] < 0.05:
        name = "utf_32_le"
    elif even > 0.4 and odd < 0.05:
        name = "utf_16_be"
    elif odd > 0.4 and even < 0.05:
        name = "utf_16_le"
    else:
        return None
    return name if _is_text(sample, name) else None


def _is_text(sample: bytes, encoding: str) -> bool:
    """Tell text from an array of numbers, which has its NULs in the same places."""
    text = sample.decode(encoding, "replace")
    odd = sum((char < " " and char not in "\t\n\v\f\r") or char == "\ufffd" for char in text)
    return odd <= 0.02 * len(text)


def decode(data: bytes, declared: bool = False, charset: str | None = None) -> tuple[str, str]:
    """Return the text of `data` and the encoding that it was decoded from. Never fails.

    In this order: a byte order mark; UTF-16 and UTF-32 by their NULs; ISO 2022 by its escapes; strict UTF-8;
    UTF-8 with damage (at least as many good multi-byte characters as bad bytes: the bad bytes are read as
    Windows-1252); `charset`, which a mail or HTTP header names; with `declared`, the encoding that an HTML or
    XML head names; the encoding of one byte that the text's language shows (see `detect_one_byte`);
    charset-normalizer's guess; Windows-1252 with replacement.
    """
    skip, mark = byte_order_mark(data)
    wide = wide_encoding(data)
    if wide is not None:
        return data[skip:].decode(wide, "replace"), wide
    name = _iso_2022(data) if b"\x1b$" in data else None
    if name is not None:
        return data.decode(name), name
    try:
        return (data[skip:] if skip else data).decode("utf-8"), "utf_8"
    except UnicodeDecodeError:
        pass
    repaired = _damaged_utf8(data[skip:], sure=mark == "utf_8")
    if repaired is not None:
        return repaired, "utf_8"
    named = _codec(charset) if charset else None
    if named is None and declared:
        named = _declared_encoding(data)
    return _decode_legacy(data, named)


def text_encoding(head: bytes, strict: bool = False) -> str:
    """Return the encoding of rows, of which these are the first bytes: UTF-8 unless they are something else.

    With `strict` (JSON, which the standard wants in UTF-8), one bad line among others is a fault of that line,
    and so are a few bad bytes in the only one.
    """
    sample = (head[: head.rfind(b"\n") + 1] or head)[:SAMPLE]
    try:
        # A character that the end of the sample cuts is no fault.
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return "utf_8" if strict and _is_little_evidence(sample) else decode(sample)[1]
    return decode(sample)[1] if b"\x1b$" in sample else "utf_8"


def _is_little_evidence(sample: bytes) -> bool:
    lines = [line for line in sample.split(b"\n") if line.strip()]
    bad = [line for line in lines if not _fits(line, "utf_8")]
    few = sum(byte > 0x7F for byte in bad[0]) < _MIN_EVIDENCE
    return len(bad) == 1 and (len(lines) > 1 or few)


def has_one_byte_characters(encoding: str) -> bool:
    """Is each byte one character in this encoding, so that ASCII bytes stand for themselves anywhere?"""
    return len(bytes(range(256)).decode(encoding, "replace")) == 256


def decode_header_bytes(data: bytes, charset: str | None = None) -> str:
    """Return the text of a header's few bytes: UTF-8, else `charset` where it fits, else Windows-1252.

    Nothing is guessed from statistics, which would be slow and, of so few bytes, wrong.
    """
    named = _codec(charset) if charset else None
    for name in filter(None, ("utf_8", named)):
        try:
            return replace_surrogates(data.decode(name))
        except UnicodeError:
            continue
    return data.decode("cp1252", "replace")


def _decode_legacy(data: bytes, named: str | None) -> tuple[str, str]:
    if named is not None and _fits(data, named):
        return replace_surrogates(data.decode(named)), named
    name = detect_one_byte(data[:SAMPLE]) or detect(data) or named or "cp1252"
    return replace_surrogates(data.decode(name, "replace")), name


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def _iso_2022(data: bytes) -> str | None:
    """Return the ISO 2022 encoding of seven-bit bytes with escapes to Japanese or Korean, if it fits."""
    if not data.isascii():
        return None
    name = "iso2022_kr" if b"\x1b$)C" in data else "iso2022_jp_2"
    return name if _fits(data, name) else None


def detect(data: bytes) -> str | None:
    """Return charset-normalizer's best guess on the first bytes, deterministic, or None without one.

    Where Windows-1252 fits as well as the best guess, it wins: it is by far the most frequent of them.
    """
    import charset_normalizer

    matches = charset_normalizer.from_bytes(data[:SAMPLE])
    best = matches.best()
    if best is None:
        return None
    for match in matches:
        equal = (match.chaos, match.coherence) == (best.chaos, best.coherence)
        if equal and "cp1252" in match.could_be_from_charset:
            return "cp1252"
    return best.encoding


def replace_surrogates(text: str) -> str:
    """Return the text as valid UTF-8 can hold it: surrogate pairs joined, lone surrogates as U+FFFD."""
    if text.isascii() or not _DAMAGE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _damaged_utf8(data: bytes, sure: bool) -> str | None:
    """Decode UTF-8 that has some wrong bytes in it; None where it looks like another encoding."""
    try:
        # CESU-8: what Java and older databases write for characters beyond the basic plane.
        return replace_surrogates(data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        pass
    sample = data[:SAMPLE].decode("utf-8", "surrogateescape")
    if not sure and len(_MULTIBYTE.findall(sample)) < len(_DAMAGE.findall(sample)):
        return None
    text = data.decode("utf-8", "surrogateescape")
    return _DAMAGE.sub(lambda match: bytes([ord(match[0]) - 0xDC00]).decode("cp1252", "replace"), text)


def _declared_encoding(data: bytes) -> str | None:
    match = _DECLARED.search(data[:_DECLARATION])
    return None if match is None else _codec(match[1].decode("ascii"))


def _codec(label: str) -> str | None:
    """Return Python's name of the encoding that a label stands for, or None where it is no text in bytes."""
    lowered = label.strip().lower()
    # Labels of old programs: x-sjis, x-euc-jp, windows-874.
    for name in (lowered, lowered.removeprefix("x-"), lowered.replace("windows-", "cp")):
        try:
            codec = codecs.lookup(name).name
            # Not every codec is a text encoding ("hex"), and a page that names UTF-16 in ASCII is wrong.
            b"a".decode(codec)
        except (LookupError, UnicodeError, ValueError):
            continue
        return _BROWSER_CODECS.get(codec, codec)
    return None
