"""Personal data: what is found, what is left alone, and placeholders that depend on value and key alone."""

import gzip
import json
import lzma
import random
import string
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.cleaning.pii import PII_KINDS, find_pii, replace_pii

KEY = b"a key for the tests"

FOUND = {
    "email": [
        ("Mail jane.doe+list@mail.acme.co.uk.", "jane.doe+list@mail.acme.co.uk"),
        ("<Jürgen@Müller.de>", "jürgen@müller.de"),
        ("mailto:o'neill_99@x-y.io?subject=x", "o'neill_99@x-y.io"),
        ("a@b@c.org", "b@c.org"),
    ],
    "ip": [
        ("client 93.184.216.34:8080 said", "93.184.216.34"),
        ("[2a00:1450:4001:81B::200E] and", "2a00:1450:4001:81b::200e"),
        ("from 2606:4700::, port 80", "2606:4700::"),
    ],
    "phone": [
        ("call +49 (0) 30 901820 now", "+4930901820"),
        ("ring +44 20 7946 1234.", "+442079461234"),
        ("(212) 736-5000", "2127365000"),
        ("1-800-652-6672", "18006526672"),
        ("Tel.: 030/901820-55", "03090182055"),
        ("téléphone : 01 42 68 53 00", "0142685300"),
    ],
    "card": [
        ("card 4111 1111 1111 1111 exp", "4111111111111111"),
        ("5500-0000-0000-0004", "5500000000000004"),
        ("amex 3782 822463 10005", "378282246310005"),
        ("6011000990139424", "6011000990139424"),
    ],
    "iban": [
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "DE89370400440532013000"),
        ("GB29NWBK60161331926819", "GB29NWBK60161331926819"),
        ("NO93 8601 1117 947, please", "NO9386011117947"),
    ],
    "key": [
        ("aws=AKIAIOSFODNN7ABCDEFG;", "AKIAIOSFODNN7ABCDEFG"),
        ("token ghp_" + "a1B2" * 9 + " end", "ghp_" + "a1B2" * 9),
        ("my-key-AIza" + "x9_-z" * 7, "AIza" + "x9_-z" * 7),
        ("sk_live_" + "4eC39HqLyjWDarjt", "sk_live_4eC39HqLyjWDarjt"),
        ("xoxb-123456789012-abcdefABCDEF", "xoxb-123456789012-abcdefABCDEF"),
        (
            "Bearer eyJhbGciOiJIUzI1NiJ9xyz.eyJzdWIiOiIxMjM0NTY3.dBjftJeZ4CVPmB92K27u",
            "eyJhbGciOiJIUzI1NiJ9xyz.eyJzdWIiOiIxMjM0NTY3.dBjftJeZ4CVPmB92K27u",
        ),
        (
            "x\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE+/=\n-----END RSA PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE+/=\n-----END RSA PRIVATE KEY-----",
        ),
    ],
}
CASES = [(kind, text, value) for kind, cases in FOUND.items() for text, value in cases]


@pytest.mark.parametrize(("kind", "text", "value"), CASES)
def test_what_is_found(kind, text, value):
    (span,) = find_pii(text, PII_KINDS)
    assert (span.kind, span.value) == (kind, value)
    assert find_pii(text, [kind]) == [span]
    assert [span.kind for span in find_pii(text, set(PII_KINDS) - {kind, "phone", "card"})] == []


@pytest.mark.parametrize(
    "text",
    [
        "@property and @media, user@host, a @ b.org, foo@, @example.org",
        "someone@example.com, a@test, b@sub.example.org, c@localhost.invalid",
        "git@github.com:owner/name and icon@2x.png and package@1.2.3",
        "127.0.0.1, 10.1.2.3, 192.168.0.77, 192.0.2.33, 0.0.0.0, 224.0.0.251, 999.888.777.666",
        "version 93.184.216.34, >=93.184.216.34, kernel 12.13.14.15, 1.2.3.4.5, 14.0.0.0, v12.13.14.15",
        "section 1.2.3.4 at 12:30:45 of 2001:: and std::vector, fe80::1, ::1, 2001:db8::1",
        "2024-01-02 12:30:45, 1 234 567 890, 978-3-16-148410-0, 10.1000/182, DFAR 252.227-7015",
        "(212) 555-0123 and +1 212 555 0199",
        "4111 1111 1111 1112 and 1234567890123452 and 4444444444444444",
        "DE89 3704 0044 0532 0130 01 and XX89 3704 0044 0532 0130 00",
        "AKIA is a prefix, ghp_short, task-0123456789abcdef0123456789abcdef0123, eyJ0.eyJ1.x",
        "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
        "Tel. and then nothing, phone 12",
    ],
)
def test_what_is_left_alone(text):
    assert find_pii(text, PII_KINDS) == []


def test_only_the_kinds_asked_for():
    text = "Mail j@acme.org from 93.184.216.34"
    assert find_pii(text, []) == []
    assert [span.kind for span in find_pii(text, ["ip"])] == ["ip"]
    with pytest.raises(ValueError, match="passport"):
        find_pii(text, ["email", "passport"])


# Placeholders -------------------------------------------------------------------------------------


def test_placeholders_link_equal_values_and_need_the_key():
    text = "J@Acme.org wrote to j@acme.org and k@acme.org"
    replaced, spans, _ = replace_pii(text, ["email"], KEY)
    first, second, third = (word for word in replaced.split() if word.startswith("<"))
    assert first == second != third
    assert len(first) == len("<EMAIL_0123456789ab>")
    assert [text[span.start : span.end] for span in spans] == ["J@Acme.org", "j@acme.org", "k@acme.org"]
    assert replace_pii("again j@acme.org", ["email"], KEY)[0] == f"again {first}"
    assert replace_pii(text, ["email"], b"another key")[0].split()[0] != first
    assert replace_pii(text, ["email"], b"k" * 100)[0].split()[0].startswith("<EMAIL_")
    with pytest.raises(ValueError, match="empty"):
        replace_pii(text, ["email"], b"")


def test_placeholders_are_no_personal_data():
    text = " ".join(text for _, text, _ in CASES)
    replaced, spans, _ = replace_pii(text, PII_KINDS, KEY)
    assert len(spans) == len(CASES)
    assert find_pii(replaced, PII_KINDS) == []
    assert replace_pii(replaced, PII_KINDS, KEY) == (replaced, [], ((0, 0),))


PIECES = [text for _, text, _ in CASES] + ["plain words", "é 中", "\n", "@", "12"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join))
@settings(max_examples=200, deadline=None)
def test_the_map_leads_back_to_the_text_before(text):
    replaced, spans, breakpoints = replace_pii(text, PII_KINDS, KEY)
    assert all(first.end <= second.start for first, second in pairwise(spans))
    ends = [place for place, _ in breakpoints[1:]] + [len(replaced)]
    for (place, source), end, span in zip(breakpoints, ends, [*spans, None], strict=True):
        # What is kept stands in front of the placeholder, which ends where the next stretch begins.
        kept = (span.start if span else len(text)) - source
        assert replaced[place : place + kept] == text[source : source + kept]
        assert (replaced[place + kept : end] == "") == (span is None)


@given(st.text(alphabet="aA@.:-+() 0123456789_/é", max_size=80))
@settings(max_examples=500, deadline=None)
def test_any_text_is_searched_without_overlaps(text):
    spans = find_pii(text, PII_KINDS)
    assert all(first.end <= second.start for first, second in pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


# A labelled set -----------------------------------------------------------------------------------

NAMES = [
    "anna",
    "bjørn",
    "chen",
    "divya",
    "emil",
    "fatou",
    "giulia",
    "irina",
    "joão",
    "léa",
    "mehmet",
    "paweł",
]
DOMAINS = [
    "acme.com",
    "mail.uni-ulm.de",
    "web.co.jp",
    "nowhere.fr",
    "kth.se",
    "post.pl",
    "gov.br",
    "firma.info",
]
TEMPLATES = [
    "Please write to {} by Friday.",
    "Contact: {}\n",
    "({})",
    "| {} | open | 2024-05-01 |",
    "Kontakt unter {}, sonst nicht.",
    "{}",
]


def luhn(digits: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def iban(country: str, account: str) -> str:
    check = 98 - int("".join(str(int(c, 36)) for c in account + country + "00")) % 97
    return f"{country}{check:02d}{account}"


def grouped(text: str, size: int, separator: str) -> str:
    return separator.join(text[place : place + size] for place in range(0, len(text), size))


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def make(kind: str, draw: random.Random) -> str:
    if kind == "email":
        separator = draw.choice([".", "_", "", "-"])
        return (
            f"{draw.choice(NAMES)}{separator}{draw.choice(NAMES)}{draw.randrange(99)}@{draw.choice(DOMAINS)}"
        )
    if kind == "ip":
        if draw.random() < 0.3:
            return "2a02:" + ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(7))
        return (
            f"{draw.randrange(80, 95)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"
        )
    if kind == "phone":
        number = digits(draw, 7)
        return draw.choice(
            [
                f"+49 {draw.randrange(30, 999)} {number}",
                f"+1 ({draw.randrange(201, 999)}) {draw.randrange(201, 554)}-{number[:4]}",
                f"{draw.randrange(201, 999)}-{draw.randrange(201, 554)}-{number[:4]}",
                f"+33 1 {grouped('0' + number, 2, ' ')}",
                f"+4670{number}",
            ]
        )
    if kind == "card":
        brand = draw.choice(["4", "52", "55"])
        card = luhn(brand + digits(draw, 15 - len(brand)))
        return draw.choice([card, grouped(card, 4, " "), grouped(card, 4, "-")])
    if kind == "iban":
        country, length = draw.choice([("DE", 18), ("FR", 23), ("NL", 14), ("ES", 20), ("PL", 24)])
        account = "ABNA" + digits(draw, 10) if country == "NL" else digits(draw, length)
        return draw.choice([str, lambda value: grouped(value, 4, " ")])(iban(country, account))
    letters = string.ascii_letters + string.digits
    prefix, length = draw.choice([("ghp_", 36), ("AIza", 35), ("sk_live_", 24)])
    return prefix + "".join(draw.choices(letters, k=length))


def labelled(count: int, seed: int) -> list[tuple[str, str, int, int]]:
    """Return texts with one planted value each: text, kind, start, end."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        kind = draw.choice(PII_KINDS)
        value, template = make(kind, draw), draw.choice(TEMPLATES)
        start = template.index("{}")
        rows.append((template.format(value), kind, start, start + len(value)))
    return rows


def test_precision_and_recall_on_a_labelled_set():
    rows = labelled(3000, seed=7)
    right, found, planted = Counter(), Counter(), Counter()
    for text, kind, start, end in rows:
        planted[kind] += 1
        for span in find_pii(text, PII_KINDS):
            found[span.kind] += 1
            right[span.kind] += (span.start, span.end, span.kind) == (start, end, kind)
    for kind in PII_KINDS:
        assert right[kind] >= 0.98 * planted[kind], kind
        assert right[kind] >= 0.98 * found[kind], kind


def test_false_alarms_on_real_documents(shared):
    """25 MB of manuals, PEPs and licences hold many addresses, and numbers that are something else."""
    data = shared / "data"
    texts = []
    with lzma.open(data / "a4_pep_events" / "base.jsonl.xz", "rt", encoding="utf-8") as lines:
        texts += [json.loads(line)["text"] for line in lines]
    with gzip.open(data / "b4_licence_clusters" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts += [json.loads(line)["text"] for line in lines]
    found = Counter(span.kind for text in texts for span in find_pii(text, PII_KINDS))
    assert found["email"] > 800
    assert 10 <= found["phone"] <= 20  # read one by one: all are phone numbers
    assert found["ip"] + found["card"] + found["iban"] + found["key"] == 0


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
@pytest.mark.parametrize(
    "text",
    [
        "@" * 1_000_000,
        "a@b." * 250_000,
        "a@" + "b." * 500_000,
        "1." * 500_000,
        "1 " * 500_000,
        "+1 " * 300_000,
        "AA00 " * 200_000,
        "eyJ" * 300_000,
        "eyJaaaaaaaaaaaaaaaaaaaaa." * 40_000,
        "-----BEGIN PRIVATE KEY-----\n" * 40_000,
        ":" * 1_000_000,
        "2001:" * 200_000,
        "sk-" * 300_000,
        "4111" * 250_000,
        "tel " * 250_000 + "1234567",
        "_" * 1_000_000,
    ],
    ids=lambda text: text[:8].strip(),
)
def test_hostile_texts_are_quick(text):
    find_pii(text, PII_KINDS)
