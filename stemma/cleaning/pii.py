"""Personal data in texts: e-mail and IP addresses, phone, card and account numbers, secret keys.

What may be one is looked for by what is rare about it: an `@`, or a run of digits or of word characters in
the *shape* of the text, which has one byte for each character. That reads 900 MB/s; only its surroundings
are matched. Every pattern is bounded, so the time is linear.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple


class Span(NamedTuple):
    """Personal data in a text: text[start:end], its kind, and its value in the normal form of the kind."""

    start: int
    end: int
    kind: str
    value: str


def find_pii(text: str, kinds: Iterable[str]) -> list[Span]:
    """Find personal data of the given kinds, in order of their places; spans don't overlap.

    Kinds, and the normal form of their values:
        email: lower case. Not the reserved example domains (RFC 2606), `git@host`, or names of files with @.
        ip: as `ipaddress` writes it. Public addresses only: not private, loopback, documentation and other
            reserved ones; no version numbers (every part one digit, the last part 0, a fifth part, or a word such
            as "version" before). IPv6 in the range given out so far, 2000::/3.
        phone: digits, `+` before them if it was there. International numbers with `+`, American ones, and
            others where a word such as "Tel." stands before.
        card: digits. 13 to 19 of them, with the prefix and length of a brand, and Luhn's check digit.
        iban: without spaces, in upper case. Known by its two check digits (ISO 7064, mod 97).
        key: as it is. Keys of AWS, GitHub, Slack, Google, Stripe, OpenAI and Anthropic, JSON web tokens, and
            private keys in PEM form.

    Raises:
        ValueError: a kind is none of these.
    """
    wanted = set(kinds)
    unknown = wanted - _FINDERS.keys()
    if unknown:
        raise ValueError(f"unknown kinds of personal data: {', '.join(sorted(unknown))}; known: {PII_KINDS}")
    shape = _shape(text) if wanted - {"email"} else Shape(b"", [])
    taken: list[Span] = []
    for kind, finder in _FINDERS.items():
        if kind in wanted:
            taken = _merged(taken, finder(text, shape))
    return taken


def replace_pii(
    text: str, kinds: Iterable[str], key: bytes
) -> tuple[str, list[Span], tuple[tuple[int, int], ...]]:
    """Replace personal data by placeholders such as `<EMAIL_3f9a1c2b77d0>`.

    The twelve digits are a BLAKE2b of the kind and the normal form of the value under the key: equal values
    have equal placeholders in all documents, and without the key nobody can test a guess.

    Returns:
        the new text, the spans in the text given, and the map from the new text to it, as breakpoints
        (see `stemma.cleaning.origins`).

    Raises:
        ValueError: the key is empty, or a kind is unknown.
    """
    if not key:
        raise ValueError("the key that personal data is replaced with is empty")
    spans = find_pii(text, kinds)
    parts, breakpoints = [], [(0, 0)]
    length = done = 0
    for span in spans:
        before, mark = text[done : span.start], _placeholder(span, key)
        parts += [before, mark]
        length += len(before) + len(mark)
        done = span.end
        breakpoints.append((length, done))
    parts.append(text[done:])
    return "".join(parts), spans, tuple(breakpoints)


def _placeholder(span: Span, key: bytes) -> str:
    secret = key if len(key) <= 64 else blake2b(key).digest()
    value = f"{span.kind}\0{span.value}".encode("utf-8", "surrogatepass")
    return f"<{span.kind.upper()}_{blake2b(value, key=secret, digest_size=6).hexdigest()}>"


def _merged(taken: list[Span], found: Iterable[Span]) -> list[Span]:
    """Add the spans that overlap none of those already taken; both come in order."""
    merged, index = list(taken), 0
    for span in found:
        while index < len(taken) and taken[index].end <= span.start:
            index += 1
        if index == len(taken) or span.end <= taken[index].start:
            merged.append(span)
    return sorted(merged)


# The shape of a text ------------------------------------------------------------------------------


# Digits with what may stand between them: every IPv4 address, phone and card number lies in such a run.
_RUN = re.compile(rb"0[0 ().\xa0/-]{5,}0")


class Shape(NamedTuple):
    """A byte for each character of a text: 0 for digits, A for capitals, a for other word characters (ASCII).

    And where the runs of digits with what may stand between them begin and end.
    """

    characters: bytes
    runs: list[tuple[int, int]]


def _shape(text: str) -> Shape:
    characters = text.encode("latin-1", "replace").translate(_SHAPES)
    return Shape(characters, [run.span() for run in _RUN.finditer(characters)])


def _shape_of(code: int) -> int:
    character = chr(code)
    if not character.isascii():
        return code
    if character.isdigit():
        return ord("0")
    if character.isalpha() or character == "_":
        return ord("A" if character.isupper() else "a")
    return code


_SHAPES = bytes(map(_shape_of, range(256)))
_WORD_CHARACTERS = bytes(ord("w") if chr(code) in "0Aa-" else code for code in range(256))


def _places(data: bytes, part: bytes) -> Iterator[int]:
    """Yield where a part stands in the data, each time after the end of the last."""
    place = data.find(part)
    while place >= 0:
        yield place
        place = data.find(part, place + len(part))


# E-mail -------------------------------------------------------------------------------------------

_LOCAL_CHARACTERS = 64
# Read backwards from the @, which no other start needs to be tried for.
_LOCAL = re.compile(r"[\w+%'-]+(?:\.[\w+%'-]+)*")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_RESERVED_DOMAIN = re.compile(r"(?:.*\.)?(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local)\Z")
_FILE_ENDINGS = (
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "css",
    "js",
    "ts",
    "py",
    "json",
    "html",
    "md",
    "txt",
)


def _emails(text: str, shape: Shape) -> Iterator[Span]:
    at = text.find("@")
    last = 0
    while at >= 0:
        first = max(last, at - _LOCAL_CHARACTERS)
        local = _LOCAL.match(text[first:at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if local and domain and not _is_no_email(local[0][::-1], domain[0].lower()):
            start = at - local.end()
            yield Span(start, domain.end(), "email", text[start : domain.end()].lower())
            last = domain.end()
        at = text.find("@", at + 1)


def _is_no_email(local: str, domain: str) -> bool:
    return local == "git" or domain.endswith(_FILE_SUFFIXES) or _RESERVED_DOMAIN.match(domain) is not None


_FILE_SUFFIXES = tuple(f".{ending}" for ending in _FILE_ENDINGS)


# Numbers ------------------------------------------------------------------------------------------

_BEFORE = 24


def _in_runs(text: str, shape: Shape, pattern: re.Pattern[str], before: int = 0) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern that lie in runs, or begin up to `before` characters in front of one."""
    for start, end in shape.runs:
        # One character more for the pattern to look ahead at.
        yield from pattern.finditer(text, max(0, start - before), end + 1)


_IPV4 = re.compile(r"(?<![\w.-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_VERSION_BEFORE = re.compile(
    r"(?:versions?|release|kernel|ver\.?|rev\.?|section|§|,v|[<>=~^]=?)\s*\Z", re.IGNORECASE
)
_IPV6_GROUP = re.compile(":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{1,34}(?<!(?<!:):)(?!\w)")


def _ips(text: str, shape: Shape) -> Iterator[Span]:
    yield from sorted([*_ipv4(text, shape), *_ipv6(text)])


def _ipv4(text: str, shape: Shape) -> Iterator[Span]:
    for match in _in_runs(text, shape, _IPV4):
        if _is_public(match[0]) and not _is_version(text, match):
            yield Span(match.start(), match.end(), "ip", match[0])


def _is_version(text: str, match: re.Match[str]) -> bool:
    has_one_digit_each = match.end() - match.start() == len("1.2.3.4")
    before = text[max(0, match.start() - _BEFORE) : match.start()]
    return has_one_digit_each or match[0].endswith(".0") or _VERSION_BEFORE.search(before) is not None


def _ipv6(text: str) -> Iterator[Span]:
    done = 0
    for group in _IPV6_GROUP.finditer(text):
        start = group.start() - 4
        match = _IPV6.match(text, start) if start >= done else None
        if match and _is_public(match[0]):
            done = match.end()
            yield Span(match.start(), done, "ip", ipaddress.ip_address(match[0]).compressed)


def _is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast


# Between two digits of a phone number; the next number must not be taken for more of it.
_JOINT = r"(?: ?\(|\)[ .-]?|[ .\u00a0/-]?)"
_INTERNATIONAL = re.compile(rf"(?<![\w+])\+[1-9](?:{_JOINT}[0-9]){{7,14}}(?!\w)")
_AMERICAN = re.compile(
    r"(?<![\w.+/-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[.-]|[2-9][0-9]{2}-[2-9][0-9]{2}-"
    r"|[2-9][0-9]{2}\.[2-9][0-9]{2}\.)[0-9]{4}(?![\w/-])"
)
_CALLED = re.compile(rf"(?<![\w.+-])\(?[0-9](?:{_JOINT}[0-9]){{6,13}}(?!\w)")
_CALL_BEFORE = re.compile(
    r"\b(?:tel|tél|phone|telephone|telefon|téléphone|teléfono|telefono|fax|mobile?|handy|cell|call|whatsapp)"
    r"(?:\W{0,2}(?:no|nr|number|nummer))?\W{0,3}\Z",
    re.IGNORECASE,
)
_DIGITS = re.compile("[0-9]+")
_GROUPS_OF_A_PHONE = 6
# 555-0100 to 555-0199 are kept for fiction.
_FICTION = re.compile(r"\+?1?[2-9][0-9]{2}55501[0-9]{2}\Z")


def _phones(text: str, shape: Shape) -> Iterator[Span]:
    found: list[Span] = []
    for pattern in (_INTERNATIONAL, _AMERICAN, _CALLED):
        found = _merged(found, _phones_like(pattern, text, shape))
    yield from found


def _phones_like(pattern: re.Pattern[str], text: str, shape: Shape) -> Iterator[Span]:
    for match in _in_runs(text, shape, pattern, before=2):
        groups = _DIGITS.findall(match[0].replace("(0)", ""))
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        if len(groups) > _GROUPS_OF_A_PHONE or (pattern is _CALLED and not _CALL_BEFORE.search(before)):
            continue
        number = ("+" if match[0].startswith("+") else "") + "".join(groups)
        if not _FICTION.match(number):
            yield Span(match.start(), match.end(), "phone", number)


_CARD = re.compile(
    r"(?<![\w.+-])(?:[0-9]{13,19}|[0-9]{4}(?:([ -])[0-9]{4})(?:\1[0-9]{4}){2}(?:\1[0-9]{3})?"
    r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})(?![\w-])"
)
# Prefixes and lengths: Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay, Maestro.
_BRAND = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|6(?:011|[45][0-9]{2})[0-9]{12}"
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}|35[0-9]{14}|62[0-9]{14,17}|5(?:0|[6-8])[0-9]{12,17}"
)


def _cards(text: str, shape: Shape) -> Iterator[Span]:
    for match in _in_runs(text, shape, _CARD):
        digits = match[0].replace(" ", "").replace("-", "")
        if _BRAND.fullmatch(digits) and len(set(digits)) > 1 and _has_luhn_digit(digits):
            yield Span(match.start(), match.end(), "card", digits)


def _has_luhn_digit(digits: str) -> bool:
    """Tell whether the last digit is the check digit of the others (Luhn; ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# Accounts -----------------------------------------------------------------------------------------

# Lengths in the SWIFT registry of IBAN formats.
_IBAN_LENGTHS = {
    length: frozenset(countries.split())
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
}
_IBAN_LENGTH = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries}


def _ibans(text: str, shape: Shape) -> Iterator[Span]:
    for start in _places(shape.characters, b"AA00"):
        length = _IBAN_LENGTH.get(text[start : start + 2])
        if length is None or text[max(0, start - 1) : start].isalnum():
            continue
        end = _after_characters(text, start, length)
        value = text[start:end].replace(" ", "")
        if len(value) == length and not text[end : end + 1].isalnum() and _has_iban_digits(value):
            yield Span(start, end, "iban", value)


def _after_characters(text: str, start: int, count: int) -> int:
    """Return where a text has got `count` characters from a place on, spaces not counted."""
    end = start
    while count and end < len(text):
        count -= text[end] != " "
        end += 1
    return end


def _has_iban_digits(iban: str) -> bool:
    if not (iban.isascii() and iban.isalnum()):
        return False
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


# Secret keys --------------------------------------------------------------------------------------

# All of them have so many word characters in a row, which in texts is rare; private keys apart.
_LONG_WORD = b"w" * 20
_KEY_STARTS = re.compile(r"(?<!\w)(?:AKIA|ASIA|gh[pousr]_|github_pat_|xox|AIza|[rs]k_live_|sk-|eyJ)")
_KEYS = re.compile(
    r"A[KS]IA[A-Z0-9]{16}(?!\w)"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}(?!\w)"
    r"|github_pat_[A-Za-z0-9_]{36,255}(?!\w)"
    r"|xox[abeoprs]-[A-Za-z0-9-]{15,250}(?![\w-])"
    r"|AIza[\w-]{35}(?![\w-])"
    r"|[rs]k_live_[A-Za-z0-9]{16,128}(?!\w)"
    r"|sk-(?=[\w-]{0,128}[0-9])[\w-]{32,200}(?![\w-])"
    r"|eyJ[\w-]{17,4000}\.eyJ[\w-]{10,4000}\.[\w-]{10,4000}"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----\s{1,4}"
    r"(?:[\w-]{1,20}: [^\n]{0,80}\n){0,4}[\s\w+/=]{0,16000}"
    r"-----END (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
)


def _secret_keys(text: str, shape: Shape) -> Iterator[Span]:
    private = _PRIVATE_KEY.finditer(text) if "PRIVATE KEY" in text else ()
    found = [Span(match.start(), match.end(), "key", match[0]) for match in private]
    yield from _merged(found, _tokens(text, shape.characters.translate(_WORD_CHARACTERS)))


def _tokens(text: str, words: bytes) -> Iterator[Span]:
    done = 0
    for place in _places(words, _LONG_WORD):
        end = place + len(_LONG_WORD) + len("github_pat_")
        for start in _KEY_STARTS.finditer(text, max(done, place), end):
            key = _KEYS.match(text, start.start()) if start.start() >= done else None
            if key:
                done = key.end()
                yield Span(key.start(), done, "key", key[0])


# The first kind keeps what two find.
_FINDERS: dict[str, Callable[[str, Shape], Iterator[Span]]] = {
    "key": _secret_keys,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "ip": _ips,
    "phone": _phones,
}
PII_KINDS = tuple(_FINDERS)
