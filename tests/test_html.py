"""Web pages: blocks, structure as Markdown, metadata, origins, hostile input, and how good it is."""

import gzip
import json
import lzma
import re
from collections import Counter
from datetime import date
from importlib.resources import files

import pytest

from stemma.cleaning.extraction import Extraction
from stemma.cleaning.extraction.block_model import best_choice, features, load_model, second_features
from stemma.cleaning.extraction.html import PROFILES, _parse, extract_html
from stemma.cleaning.extraction.page_blocks import FLAG, read_page, words_of_name
from stemma.cleaning.extraction.page_metadata import parse_day, read_metadata
from stemma.cleaning.extraction.render import render, to_markdown
from stemma.cleaning.extraction.rescue import rescue

SENTENCE = "The river rose in the night and by morning the lower fields had become a lake. "
PARAGRAPH = SENTENCE * 5
SECOND = "Below the mill, where the valley opens, herons wait in rows for what the water brings. " * 4

PAGE = f"""<!DOCTYPE html><html lang="en-GB"><head><title>Rivers &amp; lakes | The Water Site</title>
<meta property="og:site_name" content="The Water Site"><meta name="author" content="By Ada Brook">
<meta property="article:published_time" content="2024-05-01T09:00:00Z">
<script type="application/ld+json">{{"@type": "WebSite", "name": "secret"}}</script></head>
<body><nav class="main-menu"><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>
<div id="content" class="post-content"><article><h1>Rivers &amp; lakes</h1><p>{PARAGRAPH}</p>
<h2>snake_case and code</h2><p>Call <code>get_level()</code> first. {SENTENCE}</p>
<pre class="language-python"><code>if level &gt; 3:
    warn()   </code></pre>
<ul><li>The north bank of the river</li><li>The south <b>bank</b><ol><li>with a mill</li></ol></li></ul>
<table><tr><th>Town</th><th>Level|m</th></tr><tr><td>Ulm</td><td>2.5</td></tr><tr><td colspan=2>none</td></tr>
</table><p>{SECOND}</p></article></div>
<footer class="site-footer"><a href="/imprint">Imprint</a> Copyright 2024</footer></body></html>"""


def word_f1(text: str, truth: str) -> float:
    found, wanted = (Counter(re.findall(r"\w+", part.lower())) for part in (text, truth))
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else 0.0


def body_of(page: str):
    return _parse(page).find("body")


# Structure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_page_becomes_markdown_without_its_boilerplate(profile):
    text = extract_html(PAGE, profile=profile).text
    for part in (
        "## snake_case and code\n\nCall `get_level()` first.",
        "\n\n```python\nif level > 3:\n    warn()\n```\n\n",
        "\n\n- The north bank of the river\n- The south bank\n  1. with a mill\n\n",
        "\n\n| Town | Level\\|m |\n|---|---|\n| Ulm | 2.5 |\n| none |  |\n\n",
    ):
        assert part in text
    assert PARAGRAPH.strip() in text
    assert text.endswith(SECOND.strip())
    for part in ("Home", "About us", "Copyright", "Imprint", "secret"):
        assert part not in text


def test_unknown_profile():
    with pytest.raises(ValueError, match="unknown profile"):
        extract_html(PAGE, profile="slow")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>a</p>b<x-y>c</x-y>d<span>e</span>f", "a\n\nb\n\nc\n\ndef"),
        ("<a href=1>one</a><a href=2>two</a> <span>three</span><span>four</span>", "one two three four"),
        ("<code><span>a</span><span>b</span></code> <b>c</b><i>d</i>", "`a b` cd"),
        ("<p>one<br>two<br><br>three</p>", "one\ntwo\nthree"),
        ("<dl><dt>term<dd>what it means</dl>", "term\nwhat it means"),
        ("<ol><li>a<ul><li>b</ul><li>c</ol>", "1. a\n  - b\n2. c"),
        ("<table><tr><td><p>x</p><p>y</p></td><td>z<br>w</td></tr></table>", "| x y | z w |\n|---|---|"),
        ("<table><tr><td><ul><li>layout</ul></td><td>side</td></tr></table>", "- layout\n\nside"),
        ("<table><thead><tr><th>a<th>b</thead><tr><td>1<td>2</table>", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("<table><tr><td colspan=9999>a</td><td colspan=x>b</td></tr></table>", "| a | b |\n|---|---|"),
        ("<pre>a\n\n  b  \n</pre>", "```\na\n\n  b\n```"),
        ("<pre><div>a</div><div>b</div></pre>", "```\na\nb\n```"),
        ('<div class="highlight-c++"><pre>x</pre></div>', "```c++\nx\n```"),
        ("<pre>```</pre>", "````\n```\n````"),
        (f"<table><tr><td>x</td><td>{SENTENCE * 9}</td></tr></table>", f"x\n{(SENTENCE * 9).strip()}"),
        ("<h3> a\n b </h3>c", "### a b\n\nc"),
        ("<p>&nbsp;</p><p>a</p>", "a"),
        ("a <code>b<h2>c</h2><pre>d</pre><p>e</p>", "a b\n\n## c\n\n```\nd\n```\n\ne"),
        ("<ol start=3><li>a<li>b</ol><ol start=x><li>c</ol>", "3. a\n4. b\n\n1. c"),
        (
            "<table><tr><th>a<th>b<tr><td rowspan=3>1<td>x<tr><td>y<tr><td>z<tr><td>2<td>w</table>",
            "| a | b |\n|---|---|\n| 1 | x |\n|  | y |\n|  | z |\n| 2 | w |",
        ),
        (
            "<table><tr><td>a<td rowspan=2 colspan=2>b<td>c<tr><td>d<td>e</table>"
            "<table><tr><td>f<td>g</table>",
            "| a | b |  | c |\n|---|---|---|---|\n| d |  |  | e |\n\n| f | g |\n|---|---|",
        ),
        ('<h2>Use<a class="headerlink" href="#use">¶</a></h2>a', "## Use\n\na"),
        ('<h2><a class="anchor" href="#use">#</a> Use</h2>a', "## Use\n\na"),
        ('<h2><a class="anchor" href="#use">Use</a> of <a href="#">#</a></h2>a', "## Use of #\n\na"),
    ],
)
def test_rendering(page, text):
    assert to_markdown(body_of(page)) == text


def test_rendering_leaves_the_tree_as_it_is():
    body = body_of(PAGE)
    before = to_markdown(body)
    assert to_markdown(body) == before
    assert to_markdown(body, lambda element: element.tag == "table") != before


# Structure that belongs to what is kept -----------------------------------------------------------

BEFORE = '<nav><a href="/a">Accueil</a> <a href="/b">Nouvelles</a></nav>'
BEHIND = (
    '<aside><h4>À lire aussi</h4><ul><li><a href="/1">Une autre page</a><li><a href="/2">Encore une</a></ul>'
    "</aside><footer><h3>Le site</h3><p>Tous droits réservés</p></footer>"
)
FRENCH = "Les eaux du fleuve montent au printemps, quand la neige des montagnes fond sous le soleil de mai. "


def french(content: str) -> str:
    return f"<html lang=fr><body>{BEFORE}<main><article>{content}</article></main>{BEHIND}</body></html>"


def test_structure_amid_kept_paragraphs_is_kept():
    """By the model alone this page loses its headings, its table, its code and its quotation."""
    text = extract_html(
        french(
            f"<h1>Le fleuve</h1><p>{FRENCH * 4}</p><h2>Les mesures</h2><ul><li>à Ulm<li>à Linz</ul>"
            "<h3>Tableau</h3><table><tr><th>Ville<th>Niveau<tr><td>Ulm<td>2,5<tr><td>Linz<td>3,1</table>"
            f"<pre><code class=language-python>if n > 3:\n    crier()</code></pre><p>{FRENCH * 3}</p>"
            "<blockquote><p>Le fleuve ne revient pas.</p></blockquote>"
        )
    ).text
    paragraphs = [(FRENCH * times).strip() for times in (4, 3)]
    assert text.split("\n\n") == [
        "# Le fleuve",
        paragraphs[0],
        "## Les mesures",
        "- à Ulm\n- à Linz",
        "### Tableau",
        "| Ville | Niveau |\n|---|---|\n| Ulm | 2,5 |\n| Linz | 3,1 |",
        "```python\nif n > 3:\n    crier()\n```",
        paragraphs[1],
        "Le fleuve ne revient pas.",
    ]


def test_documentation_keeps_its_code_and_tables():
    page = (
        '<div class="related"><ul><li><a href="x">next</a><li><a href="y">previous</a></ul></div>'
        '<div class="body" role="main"><section><h1>Module foo<a class="headerlink" href="#s">¶</a></h1>'
        f'<p>{SENTENCE * 3}</p><h2>Usage<a class="headerlink" href="#u">¶</a></h2><p>{SENTENCE}</p>'
        '<div class="highlight-python"><div class="highlight"><pre><span>import</span> foo\n</pre></div></div>'
        f"<p>{SENTENCE * 2}</p><table><tr><th>Option<th>Meaning<tr><td>-v<td>verbose</table></section></div>"
        '<div class="sphinxsidebar"><h3>Table of Contents</h3><ul><li><a href="#">Module foo</a></ul></div>'
        '<div class="footer">Created using Sphinx</div>'
    )
    text = extract_html(page).text
    assert text.startswith("# Module foo\n\n")
    assert "\n\n## Usage\n\n" in text
    assert "```\nimport foo\n```" in text
    assert "| Option | Meaning |\n|---|---|\n| -v | verbose |" in text
    for part in ("next", "Contents", "Created"):
        assert part not in text


def kept_of(content: str, *words: str) -> list[str]:
    """What `rescue` adds when the blocks with these words are kept."""
    page = read_page(body_of(content))
    kept = [any(word in text for word in words) for text in page.texts]
    more = rescue(page, kept)
    assert all(new >= old for new, old in zip(more, kept, strict=True))
    return [text for text, old, new in zip(page.texts, kept, more, strict=True) if new and not old]


@pytest.mark.parametrize(
    ("page", "added"),
    [
        # Headings whose sections begin with what is kept.
        ("<h2>a</h2><p>keep</p><h2>b</h2><p>other</p><h3>c</h3><p>keep</p>", ["a", "c"]),
        ("<div><h2>a</h2></div><p>keep</p><div><h2>b</h2></div><p>other</p>", ["a"]),
        ("<section><h2>a</h2><p>x</p></section><p>keep</p>", []),
        ("<nav><h2>a</h2><p>keep</p></nav>", []),
        # The main heading, not next to its section.
        ("<article><header><h1>a</h1><p>by line</p></header><p>keep</p><p>keep</p></article>", ["a"]),
        ("<header><h1>site</h1><p>slogan</p></header><article><p>keep</p></article>", []),
        ("<div><div><h1>far</h1><p>x</p></div><div><div><p>keep</p></div></div></div>", []),
        # Code and tables next to what is kept.
        ("<p>keep</p><pre>a</pre>", ["a"]),
        ("<p>keep</p><pre>a</pre><p>other, much longer</p>", []),
        ("<table><tr><td>a<td>b</table><p>keep</p>", ["a", "b"]),
        (f"<p>keep</p><table><tr><td>a<td>{'b' * 501}</table>", []),
        ("<table><tr><td>keep<table><tr><td>b</table></table>", ["b"]),
        ("<p>keep</p><footer><pre>a</pre></footer>", []),
        # Lists and quotations between.
        ("<p>keep</p><ul><li>a<li>b</ul><p>keep</p>", ["a", "b"]),
        ("<p>keep</p><ul><li>a<li>b</ul>", []),
        ("<p>keep</p><ul><li><a href=1>a</a></ul><p>keep</p>", []),
        ("<main><p>keep</p><blockquote>a</blockquote></main>", ["a"]),
        ("<div><p>keep</p><blockquote>a</blockquote></div>", []),
        ("<main><blockquote>a</blockquote><p>keep</p></main>", []),
        ("<p>none</p><h2>a</h2><pre>b</pre>", []),
    ],
)
def test_what_is_rescued(page, added):
    assert kept_of(page, "keep") == added


# Blocks -------------------------------------------------------------------------------------------


def test_blocks_and_their_elements():
    body = body_of(
        '<nav><a href=1>Home</a></nav><main id="pageBody"><p>one <a href=2>two</a></p>three'
        "<ul><li>four<li><b>fi</b>ve</ul></main><script>x</script><div hidden>six</div>"
    )
    page = read_page(body)
    assert page.texts == ["Home", "one two", "three", "four", "five", "six"]
    assert page.linked == [4, 3, 0, 0, 0, 0]
    assert [page.elements[holder].tag for holder in page.holders] == ["nav", "p", "main", "li", "li", "div"]
    main = next(i for i, element in enumerate(page.elements) if element.tag == "main")
    assert (page.first[main], page.last[main]) == (1, 5)
    assert (page.first[0], page.last[0]) == (0, 6)
    assert [bool(page.flags[holder] & FLAG["list"]) for holder in page.holders] == [False] * 3 + [
        True
    ] * 2 + [False]
    assert page.flags[page.holders[0]] & FLAG["nav"]
    assert page.flags[page.holders[5]] & FLAG["hidden"]
    assert page.paths[page.holders[3]] == page.paths[page.holders[4]] != page.paths[page.holders[1]]
    assert words_of_name(page.names[main]) == {"page", "body"}


def test_the_model_sees_what_it_was_trained_on():
    data = json.loads(files("stemma.cleaning.extraction").joinpath("block_model.json").read_text("utf-8"))
    root = _parse(PAGE)
    page, model = read_page(root.find("body")), load_model()
    seen = features(page, model.lexicon, read_metadata(root).hints)
    assert list(seen) == data["columns"]["first"]
    first = model.first.probabilities(seen)
    both = seen | second_features(page, first)
    assert list(both) == data["columns"]["second"]
    assert all(len(column) == len(page.texts) for column in both.values())
    assert model.second.features.max() < len(both)
    assert "CC-BY-4.0" in data["about"]


def test_a_model_file_of_another_release_is_refused(monkeypatch):
    monkeypatch.setattr("stemma.cleaning.extraction.block_model.MODEL_DIGEST", "0" * 64)
    load_model.cache_clear()
    with pytest.raises(ValueError, match="digest"):
        extract_html(PAGE)
    assert extract_html(PAGE, profile="fast").text


def test_the_choice_has_the_best_expected_f1():
    import numpy as np

    words = np.array([10.0, 10.0, 10.0, 100.0])
    assert best_choice(np.array([0.9, 0.8, 0.1, 0.02]), words).tolist() == [True, True, False, False]
    # Where all is uncertain, what is likeliest is kept all the same; where all is unlikely, nothing.
    assert best_choice(np.array([0.3, 0.3, 0.1, 0.0]), words).tolist() == [True, True, False, False]
    assert not best_choice(np.array([0.05, 0.04, 0.01, 0.0]), words).any()


def test_extraction_depends_on_the_page_alone():
    pages = [PAGE, PAGE.replace("river", "lake"), PAGE]
    first = [extract_html(page) for page in pages]
    assert first[0] == first[2] != first[1]
    assert [extract_html(page) for page in reversed(pages)] == first[::-1]


# Origins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_each_block_says_where_it_stands(profile):
    found = extract_html(PAGE, profile=profile)
    tree = _parse(PAGE).getroottree()
    starts = [origin.char_start for origin in found.origins]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    for origin, stop in zip(found.origins, [*starts[1:], len(found.text)], strict=True):
        (element,) = tree.xpath(origin.place)
        assert tree.getpath(element) == origin.place
        stretch = re.sub(r"\W+", "", re.sub(r"^```\w*|^\s*\d\. ", "", found.text[origin.char_start : stop]))
        assert stretch
        assert stretch in re.sub(r"\W+", "", "".join(element.itertext()))
    assert "/html/body/div/article/p[1]" in {origin.place for origin in found.origins}


def test_origins_of_real_pages_are_exact(shared):
    for name in ("ars-1", "001", "dev418"):
        page = gzip.decompress(
            (shared / "data/c3_readability" / name / "source.html.gz").read_bytes()
        ).decode()
        found = extract_html(page)
        tree = _parse(page).getroottree()
        for origin in found.origins:
            assert tree.getpath(tree.xpath(origin.place)[0]) == origin.place
            assert not found.text[origin.char_start].isspace() or found.text[origin.char_start] == " "
        assert (
            "".join(
                found.text[a:b]
                for a, b in zip(
                    (o.char_start for o in found.origins),
                    [*(o.char_start for o in found.origins[1:]), len(found.text)],
                    strict=True,
                )
            )
            == found.text
        )


def test_starts_are_in_place_after_lines_that_end_in_spaces():
    text, starts = render(body_of("<p>a <b> </b></p><p> b </p><pre>  c </pre>d"))
    assert text == "a\n\nb\n\n```\n  c\n```\n\nd"
    assert [text[start] for start, _ in starts] == ["a", "b", "`", "d"]


# Metadata -----------------------------------------------------------------------------------------


def test_metadata():
    found = extract_html(PAGE)
    assert found.title == "Rivers & lakes"
    assert found.author == "Ada Brook"
    assert found.published == date(2024, 5, 1)
    assert found.language == "en-gb"


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<title>A long title of a page | Site</title>", "A long title of a page"),
        ("<title>Site | A page</title><h1>A page</h1>", "Site | A page"),
        ("<title>Site - A rather long page</title><body><h1>A rather long page</h1>", "A rather long page"),
        ("<title>One - two - three</title>", "One - two - three"),
        ('<meta property="og:title" content="Shown">', "Shown"),
        ("<body><h1>Only <b>this</b></h1>", "Only this"),
        ("<title> </title>", None),
    ],
)
def test_titles(head, title):
    assert read_metadata(_parse(f"<html><head>{head}</head></html>")).title == title


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024-05-01", date(2024, 5, 1)),
        ("2024/05/01 10:00", date(2024, 5, 1)),
        ("20240501T1000", date(2024, 5, 1)),
        ("1 May 2024", date(2024, 5, 1)),
        ("May 1st, 2024", date(2024, 5, 1)),
        ("Wed, 01 May 2024 10:00:00 GMT", date(2024, 5, 1)),
        ("26.05.2008", date(2008, 5, 26)),
        ("am 5. Dezember 2022", date(2022, 12, 5)),
        ("4 juillet 2021", date(2021, 7, 4)),
        ("4 juin 2021", date(2021, 6, 4)),
        ("1 de mayo de 2024", date(2024, 5, 1)),
        ("5 parsecs 2024", None),
        ("2024-13-01", None),
        ("May 2024", None),
        ("31 February 2024", None),
        ("120240501", None),
        ("", None),
    ],
)
def test_days(text, day):
    assert parse_day(text) == day


def test_json_ld_is_read_with_care():
    def said(data: str):
        return read_metadata(_parse(f'<head><script type="application/ld+json">{data}</script></head>'))

    graph = {
        "@graph": [
            {"@type": ["NewsArticle"], "author": [{"name": "A &amp; B"}, "C"], "datePublished": "2020-02-29"}
        ]
    }
    assert said(json.dumps(graph)).author == "A & B, C"
    assert said(json.dumps(graph)).published == date(2020, 2, 29)
    for hostile in (
        "[" * 100_000,
        '{"@type": ' * 50_000,
        "nul",
        '{"@type": 5, "author": {"name": {}}}',
        "[1, null]",
    ):
        assert said(hostile).author is None
    wide = json.dumps([{"@type": "Article"}] * 20_000)
    assert said(wide).author is None


def test_text_that_a_script_would_show_is_read():
    article = json.dumps({"@type": "Article", "articleBody": PARAGRAPH * 2})
    page = f'<html><body><script type="application/ld+json">{article}</script><p>Loading</p></body></html>'
    assert SENTENCE.strip() in extract_html(page).text


# Hostile pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 100_000 + "deep words" + "</div>" * 100_000,
        "<div>" * 1_900 + "deep words",
        "<font>" * 50_000 + "deep words" + "</b>" * 50_000,
        "<table><tr><td>" * 1_000 + "deep words",
        "<p " + " ".join(f"a{i}='{i}'" for i in range(60_000)) + ">deep words</p>",
        "<p title='" + "x" * 2_000_000 + "'>deep words</p>",
        "<script>" * 50_000 + "</script>deep words",
        "<p>deep words " + "x" * 5_000_000,
        "deep words" + "<p><b><i>" * 30_000,
        "deep words" + "<p class='a b'>x</p>" * 30_000,
        "deep words" + "<ul><li>x" * 900,
        "deep words" + "<!--" * 100_000,
        "deep words" + "<pre><code>" * 900,
        "deep words" + "<table>" + "<tr>" + "<td colspan=20>x" * 20_000,
        "<h1>deep words" + "</h1><h1>x" * 20_000,
        "<title>" + "x - " * 500_000 + "</title><h1>x</h1>deep words",
        "<meta name=author content='" + "by " * 500_000 + "'>deep words",
    ],
    ids=lambda page: page[:12],
)
def test_hostile_pages_keep_their_words(page, profile):
    found = extract_html(page, profile=profile)
    assert found.text
    # The model may think that two words above thousands of others are a button.
    assert "deep words" in found.text or profile == "default"


def test_every_input_of_html5lib_is_read(shared):
    """No input fails, and what its tokens say in characters is in the text.

    As it is decided: null characters are dropped, lone surrogates become question marks, control characters
    stay (cleaning removes them later), white space is collapsed. What stands in raw-text states (script,
    plaintext, title) begins inside an element that these inputs do not open, so only "no crash" is asked.
    """
    count = 0
    for path in sorted((shared / "data/f4_html5lib/tokenizer").glob("*.test")):
        for case in json.loads(path.read_text("utf-8"))["tests"]:
            count += 1
            source = case["input"]
            if case.get("doubleEscaped"):
                source = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), source)
            for profile in PROFILES:
                text = extract_html(source, profile=profile).text
                assert text.isprintable() or text
                text.encode()
            if "initialStates" not in case:
                shown = source.replace("\x00", "").encode("utf-8", "replace").decode()
                kept = "".join(char for char in shown if not char.isspace() and ord(char) > 31)
                assert "".join(char for char in text if not char.isspace() and ord(char) > 31) == kept, case
    assert count > 300


@pytest.mark.parametrize(
    "page",
    ["", "   ", "<!-- x -->", "<html></html>", "<frameset><frame src=a></frameset>", "\x00", "\ud800" * 0],
)
def test_pages_without_text_are_empty(page):
    assert extract_html(page) == Extraction("", None, 0)


# How good it is -----------------------------------------------------------------------------------


def test_articles_are_read_as_well_as_measured(shared):
    folder = shared / "data" / "c1_article_extraction"
    truth = json.loads((folder / "ground-truth.json").read_text())
    scores = {profile: [] for profile in PROFILES}
    for name in sorted(truth)[::8]:
        page = gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes()).decode("utf-8", "replace")
        for profile in PROFILES:
            scores[profile].append(
                word_f1(extract_html(page, profile=profile).text, truth[name]["articleBody"])
            )
    assert sum(scores["default"]) / len(scores["default"]) > 0.93
    assert sum(scores["fast"]) / len(scores["fast"]) > 0.8


def test_mixed_pages_are_read_at_all(shared):
    """These pages are among those that the model learned from: this shows that it works, not how well."""
    scores = []
    with lzma.open(shared / "data" / "c4_wcxb" / "pages.jsonl.xz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 40 == 0:
                page = json.loads(line)
                scores.append(word_f1(extract_html(page["html"]).text, page["main_content"]))
    assert sum(scores) / len(scores) > 0.8
