"""The configuration: where it is found, what it says, and what it says when something is wrong."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stemma import config as module
from stemma.config import (
    ChunkConfig,
    CleanConfig,
    Config,
    ContainedConfig,
    DecontaminateConfig,
    DeduplicateConfig,
    EditConfig,
    EmbedConfig,
    EngineConfig,
    PassageConfig,
    Rule,
    RuleConfig,
    SemanticConfig,
    SourceConfig,
    WarehouseConfig,
    docs_table,
    load_config,
    to_toml,
    with_paths,
)
from stemma.errors import UsageError
from stemma.toml_lines import key_lines


def load(folder: Path, text: str, **environ: str) -> Config:
    (folder / "stemma.toml").write_text(text, encoding="utf-8")
    return load_config(cwd=folder, environ=environ)


def complaint(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(UsageError) as error:
        load(folder, text, **environ)
    message = str(error.value)
    assert message.startswith(f"{folder}/stemma.toml")
    assert "\n" not in message
    return message.removeprefix(f"{folder}/stemma.toml, ")


def test_every_key_has_the_default_of_the_contract(tmp_path):
    config = load_config(cwd=tmp_path, environ={})
    assert config == Config(
        warehouse=WarehouseConfig(tmp_path / ".stemma/corpus.duckdb"),
        sources=(),
        clean=CleanConfig(profile="retrieval", languages=(), repair=True),
        deduplicate=DeduplicateConfig(
            threshold=0.7, scope="global", keep="oldest", shingle_words=5, permutations=128
        ),
        chunk=ChunkConfig(strategy="structure", max_tokens=160, overlap=0),
        embed=EmbedConfig(model="all-MiniLM-L6-v2", device="auto", precision="auto", backend="auto"),
        engine=EngineConfig(kind="local"),
        file=None,
        directory=tmp_path,
    )


def test_one_source_in_an_empty_file_is_enough(tmp_path):
    config = load(tmp_path, '[[sources]]\npath = "docs"\n')
    assert config.sources == (
        SourceConfig(
            name="docs",
            path=str(tmp_path / "docs"),
            include=(),
            exclude=(),
            format="auto",
            text_field=None,
            id_field=None,
            date_field=None,
            title_field=None,
            fields=(),
            labels=(),
            complete=True,
            trust_mtime=False,
        ),
    )
    assert config.file == tmp_path / "stemma.toml"


def test_every_key_can_be_set(tmp_path):
    config = load(
        tmp_path,
        """
        [warehouse]
        path = "/data/corpus.duckdb"
        [[sources]]
        name = "mail_2.x-y"
        path = "mails/*.jsonl"
        include = ["*.jsonl"]
        exclude = ["old/**", "x"]
        format = "jsonl"
        text_field = "body"
        id_field = "id"
        date_field = "sent"
        title_field = "subject"
        fields = {licence = "license_name"}
        labels = {variety = "en-GB", weight = 2, spoken = false}
        complete = false
        trust_mtime = true
        deduplicate = {layers = ["near", "contained"], thresholds = {near = 0.9}}
        [[sources]]
        name = "tickets"
        query = "SELECT * FROM tickets"
        database = "tickets.sqlite"
        [clean]
        profile = "retrieval"
        languages = ["en", "zh-Hant"]
        repair = false
        [deduplicate]
        threshold = 1
        scope = "source"
        layers = ["near", "contained", "edit", "semantic", "passage"]
        keep = "best"
        quality = "scores.words"
        priority = ["tickets"]
        numbers = "compare"
        shingle_words = 3
        permutations = 64
        [deduplicate.contained]
        threshold = 0.8
        min_shingles = 20
        [deduplicate.edit]
        threshold = 0.95
        max_characters = 100
        [deduplicate.semantic]
        threshold = 0.9
        category = "variety"
        thresholds = {en-GB = 0.99}
        [deduplicate.passage]
        min_words = 30
        cut = true
        [chunk]
        strategy = "fixed"
        max_tokens = 100
        target_tokens = 60
        overlap = 99
        [embed]
        model = "models/mine"
        device = "cuda:1"
        precision = "bfloat16"
        [engine]
        kind = "ray"
        address = "head:6379"
        actors = 4
        gpus = 0.5
        """,
    )
    assert config.warehouse.path == Path("/data/corpus.duckdb")
    assert dataclasses.astuple(config.sources[0]) == (
        "mail_2.x-y",
        str(tmp_path / "mails/*.jsonl"),
        None,
        None,
        ("*.jsonl",),
        ("old/**", "x"),
        "jsonl",
        "body",
        "id",
        "sent",
        "subject",
        (("licence", "license_name"),),
        (("spoken", False), ("variety", "en-GB"), ("weight", 2)),
        False,
        True,
        (("near", "contained"), (("near", 0.9),)),
    )
    assert config.sources[1] == SourceConfig(
        "tickets", query="SELECT * FROM tickets", database=str(tmp_path / "tickets.sqlite")
    )
    assert config.clean == CleanConfig("retrieval", ("en", "zh-Hant"), repair=False)
    assert config.deduplicate == DeduplicateConfig(
        layers=("near", "contained", "edit", "semantic", "passage"),
        threshold=1.0,
        scope="source",
        keep="best",
        quality="scores.words",
        priority=("tickets",),
        numbers="compare",
        shingle_words=3,
        permutations=64,
        contained=ContainedConfig(0.8, 20),
        edit=EditConfig(0.95, 100),
        semantic=SemanticConfig(0.9, "variety", (("en-GB", 0.99),)),
        passage=PassageConfig(30, True),
    )
    assert isinstance(config.deduplicate.threshold, float)
    assert config.chunk == ChunkConfig("fixed", 100, 60, 99)
    assert config.embed == EmbedConfig("models/mine", "cuda:1", "bfloat16")
    assert config.engine == EngineConfig("ray", "head:6379", 4, 0.5)


def test_the_file_is_looked_for_in_order(tmp_path):
    def write(path: str, tokens: int) -> Path:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"chunk.max_tokens = {tokens}\n")
        return file

    def tokens(path=None, **environ):
        return load_config(path, cwd=tmp_path, environ=environ).chunk.max_tokens

    write(".stemma/stemma.toml", 4)
    assert tokens() == 4
    write("stemma.toml", 3)
    assert tokens() == 3
    named = write("elsewhere/two.toml", 2)
    assert tokens(STEMMA_CONFIG=str(named)) == 2
    assert tokens(STEMMA_CONFIG="") == 3
    assert tokens(write("one.toml", 1), STEMMA_CONFIG=str(named)) == 1
    assert tokens("elsewhere/two.toml") == 2


def test_relative_paths_start_from_the_file_and_remembered_ones_from_the_folder_around_it(tmp_path):
    text = (
        'warehouse.path = "w.duckdb"\n[[sources]]\npath = "../docs"\n[[sources]]\npath = "s3://bucket/x/"\n'
    )
    for name in ("conf/any.toml", "work/.stemma/stemma.toml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    config = load_config(tmp_path / "conf/any.toml", cwd=tmp_path / "work", environ={})
    assert config.directory == tmp_path / "conf"
    assert config.warehouse.path == tmp_path / "conf/w.duckdb"
    remembered = load_config(cwd=tmp_path / "work", environ={})
    assert remembered.directory == tmp_path / "work"
    assert remembered.warehouse.path == tmp_path / "work/w.duckdb"
    assert load_config("work/.stemma/stemma.toml", cwd=tmp_path, environ={}) == remembered
    for loaded in (config, remembered):
        assert [source.path for source in loaded.sources] == [str(tmp_path / "docs"), "s3://bucket/x/"]


def test_a_named_file_that_is_absent_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.toml: there is no such configuration file$"):
        load_config("absent.toml", cwd=tmp_path, environ={})
    with pytest.raises(UsageError, match="STEMMA_CONFIG"):
        load_config(cwd=tmp_path, environ={"STEMMA_CONFIG": str(tmp_path)})


MISTAKES = {
    "unknown section": ("\n[chunks]\n", "line 2: chunks: there is no such section (did you mean chunk?)"),
    "key at the top": ("max_tokens = 3\n", "line 1: max_tokens: this key belongs below [chunk]"),
    "unknown key": (
        "[chunk]\n# max_token = 1\nmax_token = 3\n",
        "line 3: [chunk] max_token: there is no such key (did you mean max_tokens?); "
        "there are strategy, max_tokens, target_tokens, overlap",
    ),
    "unknown key of the second source": (
        '[[sources]]\npath = "a"\n\n[[sources]]\npath = "b"\n"pat\\u0068s" = 1\n',
        "line 6: [[sources]] 2 paths: there is no such key (did you mean path?)",
    ),
    "type": ('[chunk]\nmax_tokens = "3"\n', "line 2: [chunk] max_tokens: must be a whole number, not '3'"),
    "fraction": ("chunk.max_tokens = 3.0", "line 1: [chunk] max_tokens: must be a whole number, not 3.0"),
    "boolean for a number": ("chunk.max_tokens = true", "line 1: [chunk] max_tokens: must be a whole number"),
    "number for a boolean": ("clean.repair = 1", "line 1: [clean] repair: must be true or false, not 1"),
    "text for a list": (
        'clean.languages = "en"',
        "line 1: [clean] languages: must be a list of text, not 'en'",
    ),
    "element of a list": (
        'clean.languages = [\n  "en", # "de",\n  3,\n]',
        "line 3: [clean] languages 2: must be text, not 3",
    ),
    "language": ('clean.languages = ["English"]', "must be language codes such as"),
    "choice": (
        '[deduplicate]\nkeep = "oldst"',
        'line 2: [deduplicate] keep: must be one of "oldest", "newest", "longest", "best" (did you mean oldest?)',
    ),
    "a precious source that is none": (
        '[[sources]]\npath = "handbook"\n[deduplicate]\npriority = ["handbok"]',
        "[deduplicate] priority 1: there is no source 'handbok' (did you mean handbook?)",
    ),
    "quality for nothing": ('deduplicate.quality = "scores.words"', 'quality: belongs to keep = "best"'),
    "bloom with other layers": (
        '[deduplicate]\nindex = "bloom"\nlayers = ["edit"]',
        'index: "bloom" knows the layers exact and near only',
    ),
    "a layer that has no threshold": (
        '[[sources]]\npath = "a"\ndeduplicate = {thresholds = {exact = 0.9}}',
        "thresholds exact: the layers with a threshold are near, contained, edit and semantic",
    ),
    "a threshold out of the layer's range": (
        '[[sources]]\npath = "a"\ndeduplicate = {thresholds = {edit = 0.2}}',
        "thresholds edit: must be at least 0.7 and at most 1, not 0.2",
    ),
    "none and more": (
        '[[sources]]\npath = "a"\ndeduplicate = {layers = ["none", "near"]}',
        'layers: "none" stands alone',
    ),
    "Ray's client": (
        'engine.address = "ray://a:1"',
        'address: must be "auto" or "host:port" (Ray Data does not',
    ),
    "zero threshold": ("deduplicate.threshold = 0", "threshold: must be above 0 and at most 1, not 0"),
    "threshold above one": ("deduplicate.threshold = 1.01", "must be above 0 and at most 1, not 1.01"),
    "not a number": ("deduplicate.threshold = nan", "must be above 0 and at most 1, not nan"),
    "infinity": ("deduplicate.threshold = inf", "must be above 0 and at most 1, not inf"),
    "huge number": (
        f"chunk.max_tokens = 0x{'f' * 9999}",
        "must be at least 1 and at most 100000, not a huge int",
    ),
    "negative overlap": ("chunk.overlap = -1", "overlap: must be at least 0, not -1"),
    "overlap": (
        "[chunk]\nmax_tokens = 5\noverlap = 5",
        "line 3: [chunk] overlap: must be below max_tokens (5), not 5",
    ),
    "overlap over the default": (
        "[chunk]\noverlap = 160",
        "line 2: [chunk] overlap: must be below max_tokens (160)",
    ),
    "large target": (
        "[chunk]\ntarget_tokens = 161",
        "line 2: [chunk] target_tokens: must be at most max_tokens (160), not 161",
    ),
    "unknown strategy": (
        "chunk.strategy = 'magic'",
        '[chunk] strategy: must be "structure", "semantic", "recursive", "fixed" or "module:function", not',
    ),
    "small maximum": ("[chunk]\nmax_tokens = 0", "line 2: [chunk] max_tokens: must be at least 1"),
    "source without a path": (
        '[[sources]]\npath = "a"\n[[sources]]\nname = "b"',
        "line 3: [[sources]] 2: path is missing",
    ),
    "empty path": ('[[sources]]\npath = " "', "line 2: [[sources]] 1 path: must be text that is not empty"),
    "NUL": ('warehouse.path = "a\\u0000"', "line 1: [warehouse] path: must be text that is not empty"),
    "name": ('[[sources]]\npath = "a"\nname = "A b"', "line 3: [[sources]] 1 name: must be small letters"),
    "two sources of one name": (
        '[[sources]]\npath = "a"\nname = "x"\n[[sources]]\npath = "b"\nname = "x"',
        "line 6: [[sources]] 2 name: two sources have the name 'x'",
    ),
    "single brackets": ('[sources]\npath = "a"', "line 1: [[sources]]: write [[sources]], in two brackets"),
    "source that is no table": (
        "sources = [\n1]",
        "line 2: [[sources]] 1: must be a section with keys, not 1",
    ),
    "section that is no table": ("chunk = 3", "line 1: [chunk]: must be a section with keys, not 3"),
    "section twice in brackets": ("[[chunk]]\noverlap = 1", "line 1: [chunk]: must be a section with keys"),
    "nested table": (
        '[[sources]]\npath = "a"\n[sources.field]\ntext = "t"',
        "line 3: [[sources]] 1 field: there is",
    ),
    "field that is no name": (
        '[[sources]]\npath = "a"\n[sources.fields]\nlicence = 3',
        "line 4: [[sources]] 1 fields licence: must be text, not 3",
    ),
    "label that is no scalar": (
        '[[sources]]\npath = "a"\n[sources.labels]\nday = 2024-01-01',
        "line 4: [[sources]] 1 labels day: must be text, a number, or true or false",
    ),
    "label that is no number": (
        '[[sources]]\npath = "a"\nlabels = {x = nan}',
        "line 3: [[sources]] 1 labels x: must be text, a number",
    ),
    "labels that are no table": (
        '[[sources]]\npath = "a"\nlabels = "x"',
        "line 3: [[sources]] 1 labels: must be a table of names and values, not 'x'",
    ),
    "path and query": (
        '[[sources]]\nname = "a"\npath = "a"\nquery = "SELECT 1"',
        "line 4: [[sources]] 1 query: a source has a path or a query, not both",
    ),
    "query without a name": (
        '[[sources]]\nquery = "SELECT 1"',
        "line 1: [[sources]] 1: a query needs a name",
    ),
    "database without a query": (
        '[[sources]]\npath = "a"\ndatabase = "x.duckdb"',
        "line 3: [[sources]] 1 database: belongs to a query, which is missing",
    ),
    "format of a query": (
        '[[sources]]\nname = "a"\nquery = "SELECT 1"\nformat = "csv"',
        "line 4: [[sources]] 1 format: is for files, not for a query",
    ),
    "inline table": (
        'sources = [{path = "a"},\n {path = "b", foo = 1}]',
        "line 2: [[sources]] 2 foo: there is no such",
    ),
    "format": ('[[sources]]\npath = "a"\nformat = "jsonline"', "(did you mean jsonl?)"),
    "device": ('embed.device = "gpu"', 'must be "auto", "cpu", "cuda", "cuda:N" or "mps"'),
    "warehouse elsewhere": ('warehouse.path = "s3://a/b"', "line 1: [warehouse] path: must be a local file"),
    "warehouse that is a folder": (
        '[warehouse]\npath = "."',
        "line 2: [warehouse] path: ",
    ),
    "warehouse of a schema's name": (
        'warehouse.path = "x/lineage.duckdb"',
        "line 1: [warehouse] path: a database cannot be named 'lineage'",
    ),
    "hash of no number": ('[embed]\nmodel = "hash:x"', 'line 2: [embed] model: must be "hash:N"'),
    "hash of nothing": ('[embed]\nmodel = "hash:0"', 'line 2: [embed] model: must be "hash:N"'),
    "model folder": ('[embed]\nmodel = "./none"', "line 2: [embed] model: there is no folder"),
    "syntax": ("[chunk]\nmax_tokens = = 3\n", "line 2: not TOML: Invalid value"),
    "end of the file": ('[chunk]\n\nstrategy = """\n', "line 4: not TOML:"),
    "key twice": ("[chunk]\noverlap = 1\noverlap = 2\n", "line 3: not TOML: Cannot overwrite a value"),
    "variable that is not set": (
        '[[sources]]\npath = "s3://${BUCKET}/x"',
        "line 2: [[sources]] 1 path: the environment variable BUCKET is not set",
    ),
    "broken variable": (
        '[[sources]]\npath = "s3://${BUCKET"',
        "line 2: [[sources]] 1 path: ${ must be followed",
    ),
    "line after a text of several lines": (
        'embed.model = """a\n[chunk]\n"quoted" \\""" """""\n[chunk]\nfoo = 1',
        "line 5: [chunk] foo",
    ),
    "line after a literal text": ("embed.model = '''\n#'''' # '''\nchunk.foo = 1", "line 3: [chunk] foo"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_remedy(tmp_path, name):
    text, expected = MISTAKES[name]
    assert expected in complaint(tmp_path, text)


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    file = tmp_path / "stemma.toml"
    file.write_bytes(b"[chunk]\n\xff = 3")
    with pytest.raises(UsageError, match="line 2: not UTF-8"):
        load_config(cwd=tmp_path, environ={})
    file.write_bytes(b"\xef\xbb\xbf[chunk]\r\nmax_tokens = 7\r\n")
    assert load_config(cwd=tmp_path, environ={}).chunk.max_tokens == 7
    file.write_text("x = " + "[" * 50_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        load_config(cwd=tmp_path, environ={})


def test_secrets_come_from_the_environment(tmp_path):
    text = '[[sources]]\npath = "https://${USER_}:${TOKEN}@host/data.jsonl?key=${TOKEN}#$${TOKEN}"\n'
    (source,) = load(tmp_path, text, USER_="me", TOKEN="${USER_}").sources
    assert source.path == "https://me:${USER_}@host/data.jsonl?key=${USER_}#${TOKEN}"
    assert source.name == "data.jsonl"


def test_secrets_of_a_database_come_from_the_environment(tmp_path):
    text = (
        '[[sources]]\nname = "a"\nquery = "SELECT \'${X}\'"\ndatabase = "postgresql://me:${TOKEN}@host/db"\n'
    )
    (source,) = load(tmp_path, text, TOKEN="secret").sources
    assert (source.database, source.query) == ("postgresql://me:secret@host/db", "SELECT '${X}'")


def test_variables_stand_in_paths_of_sources_only(tmp_path):
    assert load(tmp_path, 'embed.model = "${HOME}"', HOME="/h").embed.model == "${HOME}"


def names(*paths: str, cwd: str = "/home/me/work") -> list[str]:
    return [source.name for source in with_paths(Config(directory=Path(cwd)), paths, cwd).sources]


def test_sources_are_named_after_their_paths():
    assert names("docs") == ["docs"]
    assert names("docs/", "./docs", "/home/me/work/x/../docs") == ["docs"]
    assert names("a/docs", "b/docs", "c") == ["a-docs", "b-docs", "c"]
    assert names("a/x/docs", "b/x/docs", "c/docs") == ["a-x-docs", "b-x-docs", "c-docs"]
    assert names("docs", "a/docs") == ["work-docs", "a-docs"]
    assert len(set(names("a-docs", "a/docs", "b/docs"))) == 3
    assert names("Größe & Maß/Über uns.TXT") == ["uber-uns.txt"]
    assert names("mails/**/*.jsonl", "[ab]/x") == ["mails", "work"]
    assert names("/") == ["source"]
    assert names("文書", "資料", cwd="/") == ["source", "source-2"]
    assert names("s3://bucket/prefix/", "https://me:secret@host/?token=secret") == ["prefix", "host"]
    assert names("zip://*.csv::data/archive.zip") == ["archive.zip"]


def test_paths_take_the_place_of_the_sources_of_the_file(tmp_path):
    config = load(tmp_path, 'chunk.max_tokens = 9\n[[sources]]\npath = "a"\n')
    changed = with_paths(config, ["b", "s3://x/y"], tmp_path / "sub")
    assert [source.path for source in changed.sources] == [str(tmp_path / "sub/b"), "s3://x/y"]
    assert dataclasses.replace(changed, sources=config.sources) == config
    assert with_paths(config, [], tmp_path) == config
    with pytest.raises(UsageError, match="empty"):
        with_paths(config, ["a", " "], tmp_path)


def test_sources_of_a_file_without_names_get_names_that_are_free(tmp_path):
    text = (
        '[[sources]]\npath = "a/docs"\n[[sources]]\npath = "b/docs"\nname = "docs"\n[[sources]]\npath = "c"\n'
    )
    assert [source.name for source in load(tmp_path, text).sources] == ["a-docs", "docs", "c"]


def test_remembered_sources_read_the_same_again(tmp_path):
    config = load_config(cwd=tmp_path, environ={})
    awkward = [
        "docs",
        'q"uo\\te\n\t\x7f',
        "~home",
        "${NAME}",
        "$${",
        "../up",
        "ü/文書 𝒳",
        "gs://b/${x}",
        "#a=[b]",
    ]
    config = with_paths(config, awkward, tmp_path)
    (tmp_path / ".stemma").mkdir()
    (tmp_path / ".stemma/stemma.toml").write_text(to_toml(config), encoding="utf-8")
    again = load_config(cwd=tmp_path, environ={})
    assert dataclasses.replace(again, file=None) == config
    moved = tmp_path / "moved"
    (moved / ".stemma").mkdir(parents=True)
    (moved / ".stemma/stemma.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(cwd=moved, environ={}).sources[0].path == str(moved / "docs")


def test_only_what_differs_from_the_defaults_is_written(tmp_path):
    config = load_config(cwd=tmp_path, environ={})
    assert to_toml(config) == ""
    assert to_toml(with_paths(config, ["docs"], tmp_path)) == '[[sources]]\nname = "docs"\npath = "docs"\n'
    changed = dataclasses.replace(config, chunk=ChunkConfig(max_tokens=5))
    assert to_toml(changed) == "[chunk]\nmax_tokens = 5\n"


def test_a_path_that_is_not_unicode_cannot_be_remembered(tmp_path):
    config = with_paths(Config(directory=tmp_path), ["\udcff"], tmp_path)
    with pytest.raises(UsageError, match="not valid Unicode"):
        to_toml(config)


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)
LIST = st.lists(TEXT, max_size=3).map(tuple)
OPTIONAL = st.none() | TEXT
LABEL = TEXT | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
MODEL = TEXT.filter(lambda name: not re.match(r"\.{0,2}/|~|hash:", name))  # a folder must exist
RULE = st.builds(
    RuleConfig,
    name=st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
    when=TEXT,
    score=OPTIONAL,
    threshold=st.floats(-1, 1),
    action=st.sampled_from(["drop", "flag"]),
)
CONFIGS = st.builds(
    Config,
    warehouse=st.builds(
        WarehouseConfig, path=st.sampled_from([Path("/w/x.duckdb"), Path("/work/.stemma/é.duckdb")])
    ),
    sources=st.lists(
        st.builds(
            SourceConfig,
            name=st.from_regex(r"[a-z0-9_.-]+", fullmatch=True),
            path=TEXT.map(lambda text: module._absolute(text, Path("/work"))),
            include=LIST,
            exclude=LIST,
            format=st.sampled_from(["auto", "csv"]),
            text_field=OPTIONAL,
            id_field=OPTIONAL,
            date_field=OPTIONAL,
            title_field=OPTIONAL,
            fields=st.dictionaries(TEXT, TEXT, max_size=2).map(lambda pairs: tuple(sorted(pairs.items()))),
            labels=st.dictionaries(TEXT, LABEL, max_size=3).map(lambda pairs: tuple(sorted(pairs.items()))),
            complete=st.booleans(),
            trust_mtime=st.booleans(),
        )
        | st.builds(
            SourceConfig,
            name=st.from_regex(r"[a-z0-9_.-]+", fullmatch=True),
            query=TEXT,
            database=st.none() | TEXT.map(lambda text: module._absolute(text, Path("/work"))),
        ),
        max_size=3,
        unique_by=lambda source: source.name,
    ).map(tuple),
    clean=st.builds(
        CleanConfig,
        languages=st.just(("en", "de")),
        repair=st.booleans(),
        thresholds=st.dictionaries(TEXT, st.floats(0, 1), max_size=2).map(
            lambda table: tuple(sorted(table.items()))
        ),
        rules=st.lists(RULE, max_size=2, unique_by=lambda rule: rule.name).map(tuple),
        decontaminate=st.builds(DecontaminateConfig, sets=LIST, words=st.integers(3, 20)),
    ),
    deduplicate=st.builds(DeduplicateConfig, threshold=st.floats(0, 1, exclude_min=True)),
    chunk=st.builds(ChunkConfig, max_tokens=st.integers(10, 99), overlap=st.integers(0, 9)),
    embed=st.builds(EmbedConfig, model=MODEL),
    engine=st.builds(EngineConfig),
    directory=st.just(Path("/work")),
)


@given(CONFIGS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_survives_writing_and_reading(tmp_path, config):
    file = tmp_path / "stemma.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="")
    again = module._read(file, Path("/work"), {})
    assert dataclasses.replace(again, file=None) == config


MARKS = "[ [[ ] ]] = , . { } ' ''' # \\ ${ 1 -1 0.5 nan true 1979-05-27 sources chunk path max_tokens"
LINES = (
    "\n",
    "\r\n",
    "[chunk]\n",
    "[[sources]]\n",
    'path = "a"\n',
    "max_tokens = 5\n",
    'languages = ["en"]\n',
    "x = {a = [1, {b = 2}]}\n",
)
FRAGMENTS = st.sampled_from([*MARKS.split(), '"', '"""', '"a"', " = ", *LINES])


@given(st.one_of(st.text(), st.lists(FRAGMENTS, max_size=25).map("".join)))
@example("a." * 3000 + "b = 1")
@example("a = " + "{b = " * 300 + "1" + "}" * 300)
@example("chunk = 1" + "0" * 5000)
@example("x = 1979-99-99")
@example("x = 9999-12-31T23:59:59-23:59")
@example("x = 1e999999999")
@example('"" = 1')
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_text_is_a_configuration_or_a_usage_error(tmp_path, text):
    file = tmp_path / "stemma.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UsageError):
        assert isinstance(load_config(file, environ={}, cwd=tmp_path), Config)


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates().map(lambda day: day),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted({key.name for section in module._SECTIONS.values() for key in dataclasses.fields(section)})


@given(
    st.dictionaries(
        st.sampled_from([*module._SECTIONS, "chunks"]),
        st.dictionaries(st.sampled_from([*KEYS, "typo"]), VALUES, max_size=4) | st.lists(VALUES, max_size=2),
        max_size=3,
    )
)
@settings(max_examples=300, deadline=None)
def test_arbitrary_values_are_taken_or_refused(data):
    check = module._Check(Path("stemma.toml"), key_lines(""))
    try:
        check.sections(data)
        for name, section in module._SECTIONS.items():
            if name == "sources":
                tables = data.get(name, [])
                check.sources(tables if isinstance(tables, list) else [tables], Path("/w"), {})
            else:
                section(**check.table(section, (name,), data.get(name, {})))
    except UsageError:
        pass


@given(st.lists(FRAGMENTS, max_size=25).map("".join))
@settings(max_examples=500, deadline=None)
def test_the_line_of_every_key_is_found(text):
    """Each key that tomllib sees has a line, on which the key (or the table around it) can be read."""
    try:
        data = tomllib.loads(text)
    except ValueError:
        return
    lines = key_lines(text)

    def visit(path, value):
        if path:
            assert 1 <= lines[path] <= text.count("\n") + 1
        if isinstance(value, dict):
            for key, inner in value.items():
                visit((*path, key), inner)
        elif isinstance(value, list):
            for position, inner in enumerate(value):
                visit((*path, position), inner)

    visit((), data)


def test_lines_of_an_involved_file():
    text = (
        "# [x]\n"  # 1
        '"a.b" = 1\n'  # 2
        "[a.'b c'.\"d\\u0065\"] # x\n"  # 3
        'x . y = """\n'  # 4
        '[no]\n\\""" """\n'  # 5, 6
        "z = [\n"  # 7
        "1, # ]\n"  # 8
        "{q = \"]\", r = '#'}]\n"  # 9
        "[[l]]\n"  # 10
        "[l.m]\n"  # 11
        "n = 1979-05-27 07:32:00\n"  # 12
        "[[l]]\n"  # 13
        "[[l.k]]\n"  # 14
        "[[l.k]]\n"  # 15
        "o = ''''a'''''\n"  # 16
        "p = 1\n"  # 17
    )
    base = ("a", "b c", "de")
    expected = {
        ("a.b",): 2,
        base: 3,
        (*base, "x", "y"): 4,
        (*base, "z"): 7,
        (*base, "z", 0): 8,
        (*base, "z", 1, "r"): 9,
        ("l",): 10,
        ("l", 0): 10,
        ("l", 0, "m"): 11,
        ("l", 0, "m", "n"): 12,
        ("l", 1): 13,
        ("l", 1, "k", 0): 14,
        ("l", 1, "k", 1): 15,
        ("l", 1, "k", 1, "p"): 17,
    }
    lines = key_lines(text)
    assert {path: lines.get(path) for path in expected} == expected
    assert lines.of(("l", 1, "k", 1, "nothing")) == 15
    assert lines.of(("nothing",)) is None


def test_the_documentation_table_has_every_key():
    rows = [line.split(" | ") for line in docs_table().splitlines()[2:]]
    documented = {(row[0].strip("|` "), row[1].strip("`")) for row in rows}
    assert documented == {
        (name, key.name)
        for name, section in module.all_sections().items()
        for key in dataclasses.fields(section)
        if module._nested(key) is None
    }
    assert all(len(row) == 5 and all(cell.strip(" |") for cell in row) for row in rows)
    assert (
        "| `[chunk]` | `max_tokens` | whole number, at least 1 and at most 100000 | `160` |" in docs_table()
    )


def test_the_dataclasses_are_the_sections():
    sections = {key.name for key in dataclasses.fields(Config)} - {"file", "directory"}
    assert sections == set(module._SECTIONS)
    for section in module.all_sections().values():
        assert all(isinstance(key.metadata["rule"], Rule) for key in dataclasses.fields(section))
        assert section.__dataclass_params__.frozen


def test_defaults_keep_their_own_rules():
    for section in module.all_sections().values():
        for key in dataclasses.fields(section):
            if key.default not in (dataclasses.MISSING, None, ""):
                value = str(key.default) if isinstance(key.default, Path) else key.default
                assert key.metadata["rule"].complaint(value) is None


def test_choices_are_those_of_the_code_that_takes_them():
    from stemma.chunking.chunker import STRATEGIES
    from stemma.cleaning.filters.recipes import PROFILES
    from stemma.reading.records import FORMATS

    def choices(section, name):
        return set(section.__dataclass_fields__[name].metadata["rule"].choices)

    assert choices(SourceConfig, "format") == set(FORMATS)
    assert choices(CleanConfig, "profile") == set(PROFILES)
    strategy = ChunkConfig.__dataclass_fields__["strategy"].metadata["rule"]
    assert all(strategy.complaint(name) is None for name in [*STRATEGIES, "my_package.module:split"])
    assert set(re.findall(r'"(\w+)"', strategy.pattern_meaning)) == set(STRATEGIES)


def test_importing_the_configuration_is_cheap():
    script = (
        "import sys, stemma.config; print({'dagster', 'pydantic', 'pyarrow', 'numpy'} & sys.modules.keys())"
    )
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"
