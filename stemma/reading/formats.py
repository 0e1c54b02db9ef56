"""Which format a file has: by its content first, by its extension second."""

import re

from stemma.reading.compression import compression
from stemma.reading.encoding import byte_order_mark, decode, wide_encoding
from stemma.reading.json_parse import parse_object
from stemma.reading.records import Unreadable

# What is looked at of a file before it is read.
HEAD = 64 * 1024

MEDIA_TYPES = {
    "text": "text/plain",
    "markdown": "text/markdown",
    "rst": "text/x-rst",
    "html": "text/html",
    "texinfo": "text/x-texinfo",
}
_OPEN_XML = "application/vnd.openxmlformats-officedocument."
# What cleaning parses by itself.
BINARY_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "docx": f"{_OPEN_XML}wordprocessingml.document",
    "pptx": f"{_OPEN_XML}presentationml.presentation",
    "xlsx": f"{_OPEN_XML}spreadsheetml.sheet",
    "epub": "application/epub+zip",
}
_EXTENSIONS = {
    "txt": "text",
    "text": "text",
    "md": "markdown",
    "markdown": "markdown",
    "mdx": "markdown",
    "qmd": "markdown",
    "rst": "rst",
    "rest": "rst",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "texi": "texinfo",
    "texinfo": "texinfo",
    "txi": "texinfo",
    "pdf": "pdf",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "parquet": "parquet",
    "docx": "docx",
    "docm": "docx",
    "pptx": "pptx",
    "pptm": "pptx",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "epub": "epub",
    "arrow": "arrow",
    "arrows": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "warc": "warc",
    "wet": "warc",
    "mbox": "mbox",
    "mbx": "mbox",
    "eml": "eml",
}
# Archives whose members are a program's, and nobody's documents.
_PACKAGES = frozenset(
    {
        *("jar", "war", "ear", "apk", "aab", "ipa", "whl", "egg", "nupkg", "xpi", "crx", "vsix", "kmz"),
        *("pages", "numbers", "key", "sketch", "usdz", "3mf", "npz", "keras"),
    }
)
# Formats with a sign of their own at the beginning: what is named so and lacks it, is something else.
_SIGNED = frozenset({*BINARY_MEDIA_TYPES, "parquet", "arrow", "warc", "mbox"})

# No magic here could begin a text that people write.
_UNSUPPORTED = (
    (b"\x04\x22\x4d\x18", "lz4-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "an ELF program"),
    (b"MZ\x90\x00", "a Windows program"),
    (b"\xca\xfe\xba\xbe", "a Java class or Mach-O program"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O program"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"\x1aE\xdf\xa3", "Matroska media"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"{\\rtf1", "rich text"),
    (b"%!PS-Adobe", "PostScript"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"FEA1", "a Feather file of the first version"),
    (b"filedesc://", "an ARC web archive"),
    (b"PARE", "an encrypted Parquet file"),
    (b"PAR2\x00PKT", "a recovery file"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)
_UNSUPPORTED_STARTS = frozenset(magic[0] for magic, _ in _UNSUPPORTED)

# Controls that no text holds; ESC, SO and SI are left out, which ISO 2022 encodings use.
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b\x0e\x0f"))
# Random bytes have 9 % of them; text in any 8-bit encoding next to none.
_MAX_CONTROLS = 0.02
# Bytes that are valid UTF-8 are nearly surely text: only a mass of controls (a sparse file) says otherwise.
_MAX_CONTROLS_UTF8 = 0.1

_HTML_START = re.compile(
    r"\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
# The other tags by which browsers know HTML: https://mimesniff.spec.whatwg.org, section 7.1.
_TAG_START = re.compile(
    r"\s*<(?:script|iframe|h[1-6]|div|font|table|a|style|title|b|br|p|ul|ol|section|article|main|span)[\s/>]",
    re.I,
)
_JSON_START = re.compile(rb"\s*[{\[]")
# RFC 4155, and what mailing list archives make of it; a header must follow.
_MBOX_START = re.compile(rb"From [^\n]{1,200}\d\d:\d\d[^\n]{0,60}\n>?[A-Za-z][A-Za-z0-9-]{0,60}:")
_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]{0,60}):[^\n]*\n(?:[ \t][^\n]*\n)*")
_MAIL_HEADERS = frozenset({b"date", b"subject", b"to", b"message-id", b"received", b"mime-version"})
_MACHINE_HEADERS = frozenset({b"message-id", b"received", b"mime-version"})
# One of these in its first lines makes a file named so a mail.
_MAIL_HEADER = re.compile(
    rb"^>?(?:From |(?:From|To|Cc|Date|Subject|Sender|Reply-To|Return-Path|Delivered-To|Received|Message-ID"
    rb"|MIME-Version|Content-[A-Za-z-]{1,40}|X-[A-Za-z0-9-]{1,60})[ \t]*:)",
    re.I | re.M,
)
_RST_MARKUP = re.compile(rb"^[ \t]*\.\. (?:[a-z][\w-]*::|_[^\n:]+:)|:[a-z]{1,30}:`[^`\n]+`", re.M)


def looks_like_html(text: str) -> bool:
    """Does a text look like HTML: a page, or a fragment from its first tag to its last?"""
    start = text[:2048]
    if "<" not in start:
        return False
    if _HTML_START.match(start):
        return True
    return bool(_TAG_START.match(start)) and text.rstrip()[-1:] == ">"


def extension_format(name: str) -> str | None:
    """Return the format that the file's extension stands for, or None."""
    base = name.rpartition("/")[2]
    return _EXTENSIONS.get(base.rpartition(".")[2].lower()) if "." in base else None


def is_package(name: str) -> bool:
    """Does the extension say that a ZIP archive is a program, a library or another program's own format?"""
    return name.rpartition(".")[2].lower() in _PACKAGES


def detect_format(head: bytes, name: str) -> str:
    """Return the format of a file by its first bytes and its name.

    Raises:
        Unreadable: "unsupported format" where it is none of ours, or where the content is not what the
            name promises.
    """
    signed = _signed_format(head)
    if signed is not None:
        return signed
    named = extension_format(name)
    if named == "pdf" and b"%PDF-" in head[:1024]:
        return "pdf"
    if named in (None, "text", "mbox") and _MBOX_START.match(head):
        return "mbox"
    _reject_other_formats(head)
    if not (named in ("json", "jsonl") and _JSON_START.match(head)):
        _reject_binary(head)
    if named in _SIGNED:
        content = "HTML" if _HTML_START.match(_start(head)) else "text"
        raise Unreadable("unsupported format", f"named .{named}, but the content is {content}")
    if named == "jsonl":
        return "json" if _is_one_json_text(head) else "jsonl"
    if named == "eml" and not _MAIL_HEADER.search(_first_block(head)):
        named = None
    if named in ("csv", "tsv", "texinfo", "rst", "eml"):
        return named
    return _text_format(head, named)


def _signed_format(head: bytes) -> str | None:
    """Return the format that the first bytes alone show, or None."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(b"ARROW1\0\0") or is_arrow_stream(head):
        return "arrow"
    if re.match(rb"WARC/\d\.\d+\r?\n", head):
        return "warc"
    return None


def is_arrow_stream(head: bytes) -> bool:
    """Does it begin with an Arrow message: continuation, a plausible length, a flatbuffer's root in it?"""
    if len(head) < 16 or not head.startswith(b"\xff\xff\xff\xff"):
        return False
    length, root = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:12], "little")
    return 8 <= root < length < 2**31 and length % 8 == 0


def is_zip(head: bytes) -> bool:
    """Is it a ZIP archive, an empty one too? (One behind another program is none to us.)"""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_tar(head: bytes) -> bool:
    """Is it a tar archive, as POSIX or GNU write it?"""
    return head[257:262] == b"ustar"


def _reject_other_formats(head: bytes) -> None:
    if head[:1] and head[0] in _UNSUPPORTED_STARTS:
        for magic, description in _UNSUPPORTED:
            if head.startswith(magic):
                raise Unreadable("unsupported format", f"it is {description}")
    if compression(head) is not None:
        raise Unreadable("unsupported format", "it is compressed more than once")


def _reject_binary(head: bytes) -> None:
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls and controls > _MAX_CONTROLS * len(head) and wide_encoding(head) is None:
        limit = _MAX_CONTROLS_UTF8 if _is_utf8(head) else _MAX_CONTROLS
        if controls > limit * len(head):
            raise Unreadable(
                "unsupported format", f"binary: {controls} control bytes in the first {len(head)}"
            )


def _is_utf8(head: bytes) -> bool:
    """Is the head UTF-8? A character that the head's end cuts is no fault."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) >= HEAD and error.start >= len(head) - 3
    return True


def _text_format(head: bytes, named: str | None) -> str:
    """Tell apart the formats that an extension does not settle."""
    skip, _ = byte_order_mark(head)
    if named in (None, "text", "json") and _first_line_is_object(head[skip:]):
        return "jsonl"
    if named in ("json", "html"):
        return named
    start = _start(head)
    if _HTML_START.match(start):
        return "html"
    if named is None and start.startswith("\\input texinfo"):
        return "texinfo"
    if named in (None, "text") and _is_mail(head, sure=named is None):
        return "eml"
    if named in (None, "text") and _has_rst_markup(head):
        return "rst"
    return named or "text"


def _start(head: bytes) -> str:
    return decode(head[:4096])[0] if wide_encoding(head) else head[:4096].decode("utf-8", "replace")


def _first_block(head: bytes) -> bytes:
    """Return what stands before the first blank line."""
    return re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]


def _is_one_json_text(head: bytes) -> bool:
    """Does a file begin with a JSON text that goes on over its lines: an array, or an object spread out?"""
    if wide_encoding(head) is not None:
        return False
    first, _, rest = head[byte_order_mark(head)[0] :].lstrip().partition(b"\n")
    first, second = first.rstrip(), rest.lstrip()[:1]
    if first.startswith(b"["):
        # Of lines that are arrays each is whole.
        return first == b"[" or first[-1:] in b",{" or (first[1:].lstrip()[:1] == b"{" and not second)
    return first == b"{" or (first.startswith(b"{") and first[-1:] in b",{[" and second in b'"}]')


def _is_mail(head: bytes, sure: bool) -> bool:
    """Does a file begin with the headers of a mail, and nothing but headers?

    Without `sure`, where the name says that it is something else, one of those must be there that only
    programs write.
    """
    names: set[bytes] = set()
    at = 0
    while match := _HEADER.match(head, at):
        names.add(match[1].lower())
        at = match.end()
    ends = head.startswith((b"\n", b"\r\n"), at)
    enough = ends and b"from" in names and len(names & _MAIL_HEADERS) >= 2
    return enough and (sure or not names.isdisjoint(_MACHINE_HEADERS))


def _has_rst_markup(head: bytes) -> bool:
    return (b".. " in head or b":`" in head) and _RST_MARKUP.search(head) is not None


def _first_line_is_object(head: bytes) -> bool:
    """Is the first line a whole JSON object, with another line after it?"""
    head = head.lstrip()
    if not head.startswith(b"{"):
        return False
    line, _, rest = head.partition(b"\n")
    if not rest.lstrip().startswith(b"{"):
        return False
    try:
        parse_object(line, max_depth=100)
    except Unreadable:
        return False
    return True
