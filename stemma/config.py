"""The configuration: one TOML file, checked key by key, with a default for everything but the sources.

Each key's type, default, allowed values and meaning stand in one place, on the field of its section's
dataclass: checking, error messages, and the table in docs/configuration.md are made from there.
"""

import dataclasses
import difflib
import itertools
import math
import os
import re
import tomllib
import typing
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

from stemma.errors import UsageError
from stemma.toml_lines import Lines, key_lines

ENVIRONMENT_VARIABLE = "STEMMA_CONFIG"
FILE_NAME = "stemma.toml"
REMEMBERED_FILE = Path(".stemma") / FILE_NAME
"""Where `stemma run PATH` remembers its sources; paths in it start from the folder that holds `.stemma`."""

_REQUIRED = "required"
_TYPE_NAMES = {
    str: "text",
    Path: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}

# Tables of names of the reader's own: label to field, label to constant, rule to threshold.
Fields = tuple[tuple[str, str], ...]
Labels = tuple[tuple[str, str | int | float | bool], ...]
Numbers = tuple[tuple[str, float], ...]
_PAIRS: dict[Any, str] = {Fields: "text", Labels: "text, a number, or true or false", Numbers: "a number"}
# The layers of deduplication: what makes two documents duplicates.
LAYERS = ("exact", "near", "contained", "edit", "semantic", "passage")
# Keys that speak of files and have no meaning for a query.
_FILE_KEYS = ("include", "exclude", "format", "trust_mtime")

_URL = re.compile(r"([A-Za-z0-9]+::)*[A-Za-z][A-Za-z0-9+.-]*://")
# What makes a path a glob.
WILDCARD = re.compile(r"[*?\[]")
# In a file of this name DuckDB could not tell the database from the schema.
_DATABASE_NAMES = frozenset({"lineage", "search", "history"})
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|(\$\{)")


@dataclass(frozen=True)
class Rule:
    """What one key means and which values it takes, beyond its type."""

    meaning: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    pattern_meaning: str = ""
    default_meaning: str = ""  # where the dataclass has none, or None

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a value of the right type, None if nothing is."""
        if isinstance(value, tuple):
            return next(filter(None, map(self.complaint, value)), None)
        if self.choices and value not in self.choices:
            return f"one of {', '.join(map(_quoted, self.choices))}{_nearest(value, self.choices)}"
        if isinstance(value, str):
            if not value.strip() or "\0" in value:
                return "text that is not empty and has no NUL in it"
            if self.pattern and not re.fullmatch(self.pattern, value):
                return self.pattern_meaning
        elif not self._in_range(value):
            return self.range
        return None

    def _in_range(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
        )

    @property
    def range(self) -> str:
        """The allowed numbers in words; empty where all are allowed."""
        lowest = f"at least {self.minimum:g}" if self.minimum is not None else ""
        above = f"above {self.above:g}" if self.above is not None else ""
        highest = f"at most {self.maximum:g}" if self.maximum is not None else ""
        return " and ".join(filter(None, (lowest, above, highest)))


def _key(default: Any, meaning: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(meaning, **rule)})


@dataclass(frozen=True)
class WarehouseConfig:
    path: Path = field(
        default=Path(".stemma/corpus.duckdb"),
        metadata={"rule": Rule("The published database, which anyone may open to read; a local file.")},
    )


@dataclass(frozen=True)
class HistoryConfig:
    publications: int = _key(
        20,
        "Earlier publications that the published file answers for; 0: none, and what it held of them is forgotten.",
        minimum=0,
        maximum=100_000,
    )
    days: float | None = _key(
        None,
        "Days that it answers for, at most; whatever stood within them counts.",
        minimum=0,
        maximum=100_000,
        default_meaning="no limit",
    )


@dataclass(frozen=True)
class SourceDuplicatesConfig:
    layers: tuple[str, ...] = _key(
        (),
        "What the source's documents are dropped for; `none`: they are never dropped as duplicates.",
        choices=(*LAYERS, "none"),
        default_meaning="as in `[deduplicate]`",
    )
    thresholds: tuple[tuple[str, float], ...] = _key(
        (), "Other thresholds for the source's documents, by layer.", above=0, maximum=1
    )


@dataclass(frozen=True)
class SourceConfig:
    name: str = _key(
        MISSING,
        "The source's name in the corpus; no two sources share one.",
        pattern=r"[a-z0-9_.-]+",
        pattern_meaning="small letters a-z, digits, and . _ - only",
        default_meaning="from the path",
    )
    path: str = _key(
        "",
        "A file, folder, glob or fsspec URL; `${NAME}` is taken from the environment, `$${` stands for `${`.",
        default_meaning="required, or `query`",
    )
    query: str | None = _key(
        None,
        "A SELECT whose rows are documents, instead of `path`; needs a `name`.",
        default_meaning="none",
    )
    database: str | None = _key(
        None,
        "What the query is asked of: a DuckDB or SQLite file, or an SQLAlchemy URL; variables as in `path`.",
        default_meaning="an empty DuckDB that may read files",
    )
    include: tuple[str, ...] = _key((), "Globs below the folder of files to read; none: all files.")
    exclude: tuple[str, ...] = _key((), "Globs below the folder of files to leave out.")
    format: str = _key(
        "auto",
        "The files' format.",
        choices=(
            *("auto", "text", "markdown", "rst", "html", "texinfo", "pdf", "docx", "pptx", "xlsx", "epub"),
            *("jsonl", "json", "csv", "tsv", "parquet", "arrow", "warc", "mbox", "eml"),
        ),
    )
    text_field: str | None = _key(
        None, "The field that holds a record's text.", default_meaning="guessed by name"
    )
    id_field: str | None = _key(
        None, "The field that holds a record's key.", default_meaning="guessed by name"
    )
    date_field: str | None = _key(
        None, "The field that holds a record's date.", default_meaning="guessed by name"
    )
    title_field: str | None = _key(
        None, "The field that holds a record's title.", default_meaning="guessed by name"
    )
    fields: tuple[tuple[str, str], ...] = _key(
        (),
        "Labels taken from the documents: the label's name, and the field of the metadata that holds it.",
    )
    labels: tuple[tuple[str, str | int | float | bool], ...] = _key(
        (), "Labels of all the source's documents, where no field holds another value."
    )
    complete: bool = _key(
        True, "Whether a listing is everything there is: a document that is not listed any more is deleted."
    )
    trust_mtime: bool = _key(
        False, "Whether a file of the size and time that it had is taken as unchanged, without reading it."
    )
    deduplicate: SourceDuplicatesConfig = field(
        default_factory=SourceDuplicatesConfig,
        metadata={"rule": Rule("Which duplicates are dropped from the source.")},
    )


@dataclass(frozen=True)
class RuleConfig:
    name: str = _key(
        MISSING,
        "The rule's name in lineage.decisions.",
        pattern=r"[a-z][a-z0-9_]{0,99}",
        pattern_meaning="small letters a-z, digits and _ only, a letter first",
        default_meaning=_REQUIRED,
    )
    when: str = _key(
        MISSING,
        "A condition in SQL over the columns of a cleaned document; it fails the rule where this is true.",
        default_meaning=_REQUIRED,
    )
    score: str | None = _key(
        None, "What is measured, in SQL, for the ledger.", default_meaning="1 where the condition is true"
    )
    threshold: float = _key(0.0, "What it is measured against, for the ledger.")
    action: str = _key("drop", "What becomes of a document that fails it.", choices=("drop", "flag"))


@dataclass(frozen=True)
class DecontaminateConfig:
    sets: tuple[str, ...] = _key(
        (), "Files of evaluation items (JSONL, Parquet, CSV, text); a set is named after its file."
    )
    fields: tuple[str, ...] = _key((), "The fields of an item to look for; none: all that hold text.")
    words: int = _key(13, "Words in an n-gram; one in common is a match.", minimum=3, maximum=100)
    action: str = _key(
        "flag", "What becomes of a document that holds an evaluation item.", choices=("flag", "drop")
    )
    min_share: float = _key(
        0.0, "Share of an item's n-grams from which a document counts as contaminated.", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class ModelConfig:
    name: str = _key(
        MISSING,
        "The score's name in cleaned.model_scores.",
        pattern=r"[a-z][a-z0-9_]{0,49}",
        pattern_meaning="small letters a-z, digits and _ only, a letter first",
        default_meaning=_REQUIRED,
    )
    path: str = _key(
        MISSING,
        "A folder with a sequence classifier (config.json, safetensors or ONNX), or `module:function`, which takes"
        " a list of texts and returns a number for each.",
        default_meaning=_REQUIRED,
    )
    label: str | None = _key(
        None, "The classifier's label whose probability is the score.", default_meaning="the last one"
    )
    version: int = _key(1, "Raise it when the model changed in a way that its files do not show.", minimum=1)


@dataclass(frozen=True)
class CleanConfig:
    profile: str = _key(
        "retrieval",
        "Which documents are dropped: `retrieval` drops only what is empty or in another language, and flags by"
        " the rules of Gopher, C4 and FineWeb; `pretraining` drops by those of FineWeb.",
        choices=("retrieval", "pretraining"),
    )
    languages: tuple[str, ...] = _key(
        (),
        "The languages to keep, as ISO 639 codes; none: all.",
        pattern=r"[a-z]{2,3}(-[a-zA-Z0-9]+)*",
        pattern_meaning='language codes such as "en", "de" or "zh-Hant"',
    )
    drop: tuple[str, ...] = _key(
        (), "Recipes (`gopher`, `c4`, `fineweb`, `fineweb2:<language>`) or single rules that drop as well."
    )
    flag: tuple[str, ...] = _key((), "Recipes or single rules that flag as well.")
    thresholds: tuple[tuple[str, float], ...] = _key((), "Other thresholds of rules, by the rule's name.")
    rules: tuple[RuleConfig, ...] = _key((), "Rules of your own.")
    repair: bool = _key(
        True,
        "Whether characters and white space are repaired: mojibake, Unicode form, controls, blank lines.",
    )
    html: str = _key(
        "default", "How the text of web pages is found: best, or fastest.", choices=("default", "fast")
    )
    pii: tuple[str, ...] = _key(
        (),
        "Personal data to replace by a hash that depends on the value and on the key in STEMMA_PII_KEY alone.",
        choices=("email", "ip", "phone", "card", "iban", "key"),
    )
    decontaminate: DecontaminateConfig = field(
        default_factory=DecontaminateConfig, metadata={"rule": Rule("Evaluation sets to look for.")}
    )
    models: tuple[ModelConfig, ...] = _key((), "Quality models.")


@dataclass(frozen=True)
class ContainedConfig:
    threshold: float = _key(
        0.9,
        "Share of a document's word shingles that another one has, from which it is contained there.",
        above=0.5,
        maximum=1,
    )
    min_shingles: int = _key(
        50, "Shingles that a document has at least to count as contained.", minimum=5, maximum=1_000_000
    )


@dataclass(frozen=True)
class EditConfig:
    threshold: float = _key(
        0.9,
        "1 - edit distance / length, from which two short texts are duplicates.",
        minimum=0.7,
        maximum=1,
    )
    max_characters: int = _key(
        256, "Characters of a short text, at most, counted after normalisation.", minimum=1, maximum=4096
    )


@dataclass(frozen=True)
class SemanticConfig:
    threshold: float = _key(
        0.95,
        "Cosine similarity of the documents' vectors from which they are duplicates.",
        minimum=0.5,
        maximum=1,
    )
    category: str | None = _key(
        None,
        "Compare only documents of one category: `source`, `language`, or the name of a label.",
        default_meaning="all are compared",
    )
    thresholds: tuple[tuple[str, float], ...] = _key(
        (), "Other thresholds, by category.", minimum=0.5, maximum=1
    )


@dataclass(frozen=True)
class PassageConfig:
    min_words: int = _key(50, "Words of a shared passage, at least.", minimum=8, maximum=10_000)
    cut: bool = _key(False, "Whether a passage is cut from the later document.")


@dataclass(frozen=True)
class DeduplicateConfig:
    layers: tuple[str, ...] = _key(("exact", "near"), "What counts as a duplicate.", choices=LAYERS)
    threshold: float = _key(
        0.7,
        "Jaccard similarity of word shingles from which two documents are duplicates.",
        above=0,
        maximum=1,
    )
    scope: str = _key(
        "global",
        "Whether duplicates are looked for in the whole corpus or in each source.",
        choices=("global", "source"),
    )
    keep: str = _key(
        "oldest",
        "Which document of a family is kept; `best` by `quality`.",
        choices=("oldest", "newest", "longest", "best"),
    )
    quality: str | None = _key(
        None,
        'For `keep = "best"`: what makes a document better, in SQL over the columns of a cleaned document.',
        default_meaning="failing fewer rules",
    )
    priority: tuple[str, ...] = _key(
        (),
        "Sources, the most precious first, before all others: what one has is never dropped for what comes after it.",
    )
    numbers: str = _key(
        "ignore",
        "`compare`: near-duplicates whose numbers differ are none.",
        choices=("ignore", "compare"),
    )
    index: str = _key(
        "lsh",
        "How near-duplicates are found: `bloom` takes less room, but is approximate and only for sources that grow.",
        choices=("lsh", "bloom"),
    )
    bloom_documents: int = _key(
        1_000_000,
        "Documents that the filters of `bloom` are made for: 42 bytes each.",
        minimum=1_000,
        maximum=10_000_000_000,
    )
    shingle_words: int = _key(5, "Words in a shingle.", minimum=1, maximum=100)
    permutations: int = _key(128, "Hash functions in a MinHash signature.", minimum=16, maximum=1024)
    contained: ContainedConfig = field(
        default_factory=ContainedConfig, metadata={"rule": Rule("Documents inside others.")}
    )
    edit: EditConfig = field(default_factory=EditConfig, metadata={"rule": Rule("Short texts.")})
    semantic: SemanticConfig = field(
        default_factory=SemanticConfig, metadata={"rule": Rule("Documents that mean the same.")}
    )
    passage: PassageConfig = field(
        default_factory=PassageConfig, metadata={"rule": Rule("Passages that documents share.")}
    )


@dataclass(frozen=True)
class ChunkConfig:
    strategy: str = _key(
        "structure",
        "How documents are cut: `structure`, `semantic`, `recursive`, `fixed`, or a function of your own.",
        pattern=r"structure|semantic|recursive|fixed|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*",
        pattern_meaning='"structure", "semantic", "recursive", "fixed" or "module:function"',
    )
    max_tokens: int = _key(
        160, "Tokens of the embedding model in a chunk, at most.", minimum=1, maximum=100_000
    )
    target_tokens: int | None = _key(
        None,
        "Tokens that `structure` and `semantic` aim at; at most `max_tokens`.",
        minimum=1,
        maximum=100_000,
        default_meaning="3/5 of what `max_tokens` leaves beside `overlap`",
    )
    overlap: int = _key(0, "Tokens that a chunk repeats of the one before; below `max_tokens`.", minimum=0)


@dataclass(frozen=True)
class EmbedConfig:
    model: str = _key("all-MiniLM-L6-v2", "A sentence-transformers model: its name, or the folder it is in.")
    device: str = _key(
        "auto",
        'Where the model runs: "auto" takes a GPU where there is one.',
        pattern=r"auto|cpu|mps|cuda(:[0-9]{1,3})?",
        pattern_meaning='"auto", "cpu", "cuda", "cuda:N" or "mps"',
    )
    precision: str = _key(
        "auto",
        "What the model computes in; `auto`: bfloat16 where the processor has it and the vectors of a sample of texts"
        " keep a cosine of 0.9999 to those in float32, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    backend: str = _key(
        "auto",
        "What runs the model; `auto`: OpenVINO where it is installed, the model runs on a CPU and can be converted,"
        " else torch.",
        choices=("auto", "torch", "openvino"),
    )
    context: str = _key(
        "section",
        "What is embedded with a chunk's text: the path of the headings above it, or nothing.",
        choices=("section", "none"),
    )
    smoothing: float = _key(
        0.0,
        "Weight of each neighbour in the vector of a small chunk: normalise(v + weight × (before + after)).",
        minimum=0,
        maximum=1,
    )
    storage: str = _key(
        "float32",
        "How vectors are stored: `int16` takes half the room, `int8` a quarter.",
        choices=("float32", "int16", "int8"),
    )
    smoothing_tokens: int = _key(
        80, "Tokens of a chunk, at most, to be smoothed by its neighbours.", minimum=1, maximum=100_000
    )


@dataclass(frozen=True)
class SearchConfig:
    index: str = _key(
        "exact",
        "How the nearest vectors are found: by looking at each, or by an approximate index (usearch), which is faster"
        " over many chunks and misses some.",
        choices=("exact", "usearch"),
    )
    min_chunks: int = _key(
        100_000, "Chunks from which the approximate index is made.", minimum=1, maximum=4_000_000_000
    )
    expansion: int = _key(
        128,
        "Candidates that a search of the approximate index looks at: with more it misses fewer and takes longer.",
        minimum=1,
        maximum=100_000,
    )


@dataclass(frozen=True)
class EngineConfig:
    kind: str = _key(
        "local",
        "What runs the stages: processes on this machine, or a Ray cluster.",
        choices=("local", "ray"),
    )
    address: str = _key(
        "auto",
        "Where the Ray cluster is: `host:port` of its head, or `auto`; this machine must be a node of it. A token comes"
        " from RAY_AUTH_TOKEN.",
        pattern=r"auto|(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}",
        pattern_meaning='"auto" or "host:port" (Ray Data does not work through ray://)',
    )
    actors: int | None = _key(
        None,
        "Ray: how many processes load the embedding model, at most.",
        minimum=1,
        maximum=100_000,
        default_meaning="one for each `gpus`, or one a core",
    )
    gpus: float = _key(0.0, "Ray: GPUs of each of them; a part of one is possible.", minimum=0, maximum=64)
    workers: int | None = _key(
        None,
        "Processes that clean, sign and chunk, and that untrusted formats are parsed in; 0: the run's own.",
        minimum=0,
        maximum=1024,
        default_meaning="one a core",
    )
    document_seconds: int = _key(
        60, "How long parsing one untrusted document may take, in seconds.", minimum=1, maximum=86_400
    )
    document_memory_mib: int = _key(
        2048, "How much memory parsing one document may take, in MiB.", minimum=64, maximum=1_000_000
    )


@dataclass(frozen=True)
class PartitionsConfig:
    start: str = _key(
        "2020-01-01",
        "The first daily partition in Dagster; documents of earlier days belong to it.",
        pattern=r"(19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}",
        pattern_meaning="a day such as 2020-01-01",
    )
    catch_up: bool = _key(
        True,
        "Whether a run of the last partition, today's, takes in all days that have changed, not its own alone.",
    )


@dataclass(frozen=True)
class ChecksConfig:
    shares: float = _key(
        0.1,
        "How far the share of documents that are dropped, are duplicates or are of another language may move from"
        " the runs before, until a check warns.",
        minimum=0,
        maximum=1,
    )
    lengths: float = _key(
        1.5, "By which factor the median length of the documents may change, until a check warns.", above=1
    )
    fresh_hours: int = _key(
        36,
        "After how many hours without a run Dagster shows the datasets as overdue; 0: never.",
        minimum=0,
        maximum=100_000,
    )


@dataclass(frozen=True)
class AlertsConfig:
    webhook: str | None = _key(
        None,
        "A URL that is sent each failed run, as JSON by POST; ${NAME} is an environment variable.",
        pattern=r"https?://\S+|.*\$\{.*",
        pattern_meaning="an http or https URL",
        default_meaning="nobody is told",
    )
    function: str | None = _key(
        None,
        "A function of yours, `module:function`, that is called with each failed run.",
        pattern=r"[A-Za-z_][\w.]*:[A-Za-z_]\w*",
        pattern_meaning="module:function",
        default_meaning="none",
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration. `sources` paths and `warehouse.path` are absolute; a URL stays as it is.

    Attributes:
        file: the file that it was read from, None for defaults.
        directory: the absolute folder that relative paths started from.
    """

    warehouse: WarehouseConfig = field(default_factory=WarehouseConfig)
    sources: tuple[SourceConfig, ...] = ()
    clean: CleanConfig = field(default_factory=CleanConfig)
    deduplicate: DeduplicateConfig = field(default_factory=DeduplicateConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    partitions: PartitionsConfig = field(default_factory=PartitionsConfig)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    file: Path | None = None
    directory: Path = field(default_factory=Path.cwd)


_SECTIONS: dict[str, type[Any]] = {
    "warehouse": WarehouseConfig,
    "sources": SourceConfig,
    "clean": CleanConfig,
    "deduplicate": DeduplicateConfig,
    "chunk": ChunkConfig,
    "embed": EmbedConfig,
    "partitions": PartitionsConfig,
    "checks": ChecksConfig,
    "alerts": AlertsConfig,
    "search": SearchConfig,
    "engine": EngineConfig,
    "history": HistoryConfig,
}


# What may be changed for a single run: how documents are processed, not which ones nor where they are kept.
OVERRIDABLE = ("clean", "deduplicate", "chunk", "embed", "checks", "engine")


def load_config(
    path: Path | str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read `path`, else $STEMMA_CONFIG, else ./stemma.toml, else the remembered .stemma/stemma.toml.

    `overrides` are sections of keys that take the place of the file's, such as {"deduplicate": {"threshold": 0.9}};
    only what a single run may change, the sections of OVERRIDABLE.

    Without any of them everything has its default and there are no sources. `environ` and `cwd` stand for
    the process's own. Relative paths start from the file's folder; for a file in .stemma/, from the folder
    that holds .stemma/.

    Raises:
        UsageError: the named file is absent or not TOML, has an unknown section or key or a value that is
            not allowed, or names an environment variable that is not set; with file, line, key and remedy.
    """
    folder = Path(os.path.abspath(cwd or Path.cwd()))
    named = path or environ.get(ENVIRONMENT_VARIABLE)
    if named:
        file = folder / Path(named).expanduser()
        if not file.is_file():
            where = "" if path else f" (from {ENVIRONMENT_VARIABLE})"
            raise UsageError(f"{file}: there is no such configuration file{where}")
        return _read(file, _start(file), environ, overrides)
    for file in (folder / FILE_NAME, folder / REMEMBERED_FILE):
        if file.is_file():
            return _read(file, folder, environ, overrides)
    if overrides:
        return _checked(_overridden({}, overrides), _Check(Path("overrides"), Lines()), None, folder, environ)
    return _resolved(Config(directory=folder))


def parse_override(text: str) -> dict[str, Any]:
    """Return the override that a text such as "deduplicate.threshold = 0.9", in TOML, stands for.

    Raises UsageError where it is none.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{text}: write section.key=value, as in stemma.toml, and texts in quotes"
            f" ('embed.model=\"hash:384\"'): {error}"
        ) from error


def _start(file: Path) -> Path:
    """Return the folder that a file's relative paths start from: its own, or the one around .stemma/."""
    return file.parent.parent if file.parent.name == REMEMBERED_FILE.parent.name else file.parent


def with_paths(config: Config, paths: Sequence[str | Path], cwd: Path | str | None = None) -> Config:
    """Return the configuration with these paths as its sources instead; without any, as it is.

    A path is a file, folder, glob or URL, relative to `cwd`; given twice it counts once. A source is named
    after the last part of its path, and where two would share a name, after as many parts as tell them apart.

    Raises:
        UsageError: a path is empty.
    """
    folder = Path(os.path.abspath(cwd or Path.cwd()))
    if not all(str(path).strip() for path in paths):
        raise UsageError("a path is empty")
    absolute = list(dict.fromkeys(_absolute(str(path), folder) for path in paths))
    if not absolute:
        return config
    names = _names(absolute, taken=())
    sources = tuple(SourceConfig(name, path) for name, path in zip(names, absolute, strict=True))
    return dataclasses.replace(config, sources=sources)


def to_toml(config: Config) -> str:
    """Write the configuration as TOML, leaving defaults out; `load_config` reads the same from it again.

    Paths below `config.directory` are written relative to it, so that the folder can be moved.
    """
    defaults = _resolved(Config(directory=config.directory))
    lines: list[str] = []
    for source in config.sources:
        path, database = (
            _relative(place, config.directory).replace("${", "$${") if place else place
            for place in (source.path, source.database)
        )
        written = dataclasses.replace(source, path=path or "", database=database)
        lines += _toml_section("[[sources]]", written, None)
    for name in _SECTIONS:
        section = getattr(config, name)
        if name != "sources" and section != getattr(defaults, name):
            if name == "warehouse":
                section = WarehouseConfig(Path(_relative(str(section.path), config.directory)))
            lines += _toml_section(f"[{name}]", section, _SECTIONS[name]())
    return "\n".join(lines).lstrip("\n")


def docs_table() -> str:
    """Return a Markdown table of every key: section, key, type, default, meaning."""
    lines = ["| Section | Key | Type | Default | Meaning |", "|---|---|---|---|---|"]
    for heading, section in all_sections().items():
        for key in dataclasses.fields(section):
            if _nested(key) is not None:
                continue
            rule: Rule = key.metadata["rule"]
            cells = (f"`{heading}`", f"`{key.name}`", _allowed(key), _default(key), rule.meaning)
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


# Reading a file


def _read(
    file: Path, directory: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> Config:
    data, lines = _parse(file)
    config = _checked(data, _Check(file, lines), file, directory, environ)
    if not overrides:
        return config
    return _checked(
        _overridden(data, overrides), _Check(Path("overrides"), Lines()), file, directory, environ
    )


def _overridden(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the file's data with the keys of `overrides` in place of its own, table by table."""
    for name in overrides:
        if name not in OVERRIDABLE:
            known = ", ".join(OVERRIDABLE)
            raise UsageError(
                f"overrides: [{name}]: a run cannot change this section{_nearest(name, OVERRIDABLE)}; it can {known}"
            )
    return merged(data, overrides)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two tables as one; where both have a value, that of `above`, but tables are merged likewise."""
    both = {
        name: merged(below[name], value)
        for name, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
    }
    return {**below, **above, **both}


def _checked(
    data: Mapping[str, Any],
    check: "_Check",
    file: Path | None,
    directory: Path,
    environ: Mapping[str, str],
) -> Config:
    check.sections(data)
    sections = {
        name: section(**check.table(section, (name,), data.get(name, {})))
        for name, section in _SECTIONS.items()
        if name != "sources"
    }
    chunk = sections["chunk"]
    if (chunk.target_tokens or 0) > chunk.max_tokens:
        message = f"must be at most max_tokens ({chunk.max_tokens}), not {chunk.target_tokens}"
        check.fail(("chunk", "target_tokens"), message)
    if chunk.overlap >= chunk.max_tokens:
        check.fail(
            ("chunk", "overlap"), f"must be below max_tokens ({chunk.max_tokens}), not {chunk.overlap}"
        )
    tables = data.get("sources", [])
    if not isinstance(tables, list):
        check.fail(("sources",), "write [[sources]], in two brackets, above each source")
    sources = check.sources(tables, directory, environ)
    sections["alerts"] = check.alerts(sections["alerts"], environ)
    check.duplicates(sections["deduplicate"], sources)
    check.warehouse(data.get("warehouse", {}).get("path", ""), directory)
    check.model(sections["embed"].model, directory)
    check.start(sections["partitions"].start)
    return _resolved(Config(**sections, sources=sources, file=file, directory=directory))


def _parse(file: Path) -> tuple[dict[str, Any], Lines]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}, line {line}: not UTF-8, which TOML must be") from error
    try:
        return tomllib.loads(text), key_lines(text)
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deeply") from error
    except ValueError as error:  # syntax, and numbers that Python refuses
        place = re.search(r" \(at line (\d+), column \d+\)$| \(at end of document\)$", str(error))
        if place is None:
            raise UsageError(f"{file}: not TOML: {error}") from error
        last_line = text.count("\n") + 1
        message = f"line {place[1] or last_line}: not TOML: {str(error)[: place.start()]}"
        raise UsageError(f"{file}, {message}") from error


class _Check:
    """Turns parsed TOML into sections; `fail` says file, line and key."""

    def __init__(self, file: Path, lines: Lines) -> None:
        self._file = file
        self._lines = lines

    def fail(self, path: tuple[str | int, ...], message: str) -> NoReturn:
        line = self._lines.of(path)
        place = f"{self._file}, line {line}" if line else str(self._file)
        raise UsageError(f"{place}: {_where(path)}: {message}")

    def sections(self, data: Mapping[str, Any]) -> None:
        for name in data:
            if name in _SECTIONS:
                continue
            homes = [section for section, keys in _SECTIONS.items() if name in _key_names(keys)]
            if homes:
                self.fail((name,), f"this key belongs below {' or '.join(map(_heading, homes))}")
            known = ", ".join(map(_heading, _SECTIONS))
            self.fail((name,), f"there is no such section{_nearest(name, _SECTIONS)}; there are {known}")

    def table(self, section: type[Any], path: tuple[str | int, ...], data: Any) -> dict[str, Any]:
        """Return the values of the keys that the section's table holds, checked."""
        if not isinstance(data, dict):
            self.fail(path, f"must be a section with keys, not {_shown(data)}")
        keys = {key.name: key for key in dataclasses.fields(section)}
        for name in data:
            if name not in keys:
                self.fail(
                    (*path, name), f"there is no such key{_nearest(name, keys)}; there are {', '.join(keys)}"
                )
        for name, key in keys.items():
            if name not in data and key.metadata["rule"].default_meaning == _REQUIRED:
                self.fail(path, f"{name} is missing")
        return {name: self._value(keys[name], (*path, name), value) for name, value in data.items()}

    def _value(self, key: dataclasses.Field[Any], path: tuple[str | int, ...], value: Any) -> Any:
        rule: Rule = key.metadata["rule"]
        nested = _nested(key)
        if nested is not None and typing.get_origin(key.type) is not tuple:
            return nested(**self.table(nested, path, value))
        if nested is not None:
            return self._tables(nested, path, value)
        if key.type in _PAIRS:
            return self._pairs(key.type, rule, path, value)
        if key.type == tuple[str, ...]:
            if not isinstance(value, list):
                self.fail(path, f"must be a list of text, not {_shown(value)}")
            return tuple(self._scalar(str, rule, (*path, i), item) for i, item in enumerate(value))
        return self._scalar(_scalar_type(key), rule, path, value)

    def _tables(self, kind: type[Any], path: tuple[str | int, ...], value: Any) -> tuple[Any, ...]:
        """Read an array of tables; no two may share a name."""
        if not isinstance(value, list):
            self.fail(path, "write it in two brackets, above each")
        sections = tuple(kind(**self.table(kind, (*path, i), item)) for i, item in enumerate(value))
        names = [section.name for section in sections]
        for position, name in enumerate(names):
            if name in names[:position]:
                self.fail((*path, position, "name"), f"two have the name {name!r}")
        return sections

    def _pairs(self, kind: Any, rule: Rule, path: tuple[str | int, ...], value: Any) -> Any:
        """Return a table's names and values in the order of the names."""
        if not isinstance(value, dict):
            self.fail(path, f"must be a table of names and values, not {_shown(value)}")
        for name, item in value.items():
            number = isinstance(item, int) or (isinstance(item, float) and math.isfinite(item))
            accepted = {
                Fields: isinstance(item, str),
                Labels: isinstance(item, str) or number,
                Numbers: number and not isinstance(item, bool),
            }
            if not accepted[kind]:
                self.fail((*path, name), f"must be {_PAIRS[kind]}, not {_shown(item)}")
            complaint = rule.complaint(item) or rule.complaint(name)
            if complaint:
                self.fail((*path, name), f"must be {complaint}, not {_shown(item)}")
        return tuple(sorted(value.items()))

    def _scalar(self, kind: type[Any], rule: Rule, path: tuple[str | int, ...], value: Any) -> Any:
        accepted = (int, float) if kind is float else str if kind is Path else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            self.fail(path, f"must be {_TYPE_NAMES[kind]}, not {_shown(value)}")
        complaint = rule.complaint(value)
        if complaint:
            self.fail(path, f"must be {complaint}, not {_shown(value)}")
        return kind(value)

    def sources(
        self, tables: Sequence[Any], directory: Path, environ: Mapping[str, str]
    ) -> tuple[SourceConfig, ...]:
        """Read [[sources]]: paths made absolute, names given to those without."""
        read = [
            self.table(SourceConfig, ("sources", position), table) for position, table in enumerate(tables)
        ]
        taken: set[str] = set()
        for position, values in enumerate(read):
            self._place(("sources", position), values)
            for key in ("path", "database"):
                if key in values:
                    path = self._substituted(("sources", position, key), values[key], environ)
                    values[key] = _absolute(path, directory)
            if values.get("name") in taken:
                self.fail(("sources", position, "name"), f"two sources have the name {values['name']!r}")
            taken |= {values["name"]} if "name" in values else set()
        unnamed = [values for values in read if "name" not in values]
        names = _names([values["path"] for values in unnamed], taken)
        for values, name in zip(unnamed, names, strict=True):
            values["name"] = name
        return tuple(SourceConfig(**values) for values in read)

    def duplicates(self, settings: DeduplicateConfig, sources: Sequence[SourceConfig]) -> None:
        """Check what the keys of [deduplicate] and of the sources say of each other."""
        names = [source.name for source in sources]
        for position, name in enumerate(settings.priority):
            if name not in names:
                message = f"there is no source {name!r}{_nearest(name, names)}"
                self.fail(("deduplicate", "priority", position), message)
        if settings.quality is not None and settings.keep != "best":
            self.fail(("deduplicate", "quality"), 'belongs to keep = "best"')
        if settings.index == "bloom" and not {"exact", "near"}.issuperset(settings.layers):
            self.fail(("deduplicate", "index"), '"bloom" knows the layers exact and near only')
        for position, source in enumerate(sources):
            place = ("sources", position, "deduplicate")
            own = source.deduplicate
            if settings.index == "bloom" and own != SourceDuplicatesConfig():
                self.fail(place, 'with index = "bloom" all sources are treated alike')
            if "none" in own.layers and len(own.layers) > 1:
                self.fail((*place, "layers"), '"none" stands alone')
            for layer, threshold in own.thresholds:
                self._source_threshold((*place, "thresholds", layer), settings, layer, threshold)

    def _source_threshold(
        self, place: tuple[str | int, ...], settings: DeduplicateConfig, layer: str, threshold: float
    ) -> None:
        if layer not in ("near", "contained", "edit", "semantic"):
            self.fail(place, "the layers with a threshold are near, contained, edit and semantic")
        section = DeduplicateConfig if layer == "near" else type(getattr(settings, layer))
        rule: Rule = next(key for key in dataclasses.fields(section) if key.name == "threshold").metadata[
            "rule"
        ]
        complaint = rule.complaint(threshold)
        if complaint:
            self.fail(place, f"must be {complaint}, not {_shown(threshold)}")

    def _place(self, source: tuple[str | int, ...], values: Mapping[str, Any]) -> None:
        """Check that a source has either a path or a query with what belongs to it."""
        if "query" not in values:
            if "path" not in values:
                self.fail(source, "path is missing")
            if "database" in values:
                self.fail((*source, "database"), "belongs to a query, which is missing")
            return
        if "path" in values:
            self.fail((*source, "query"), "a source has a path or a query, not both")
        if "name" not in values:
            self.fail(source, "a query needs a name")
        for key in _FILE_KEYS:
            if key in values:
                self.fail((*source, key), "is for files, not for a query")

    def warehouse(self, path: str, directory: Path) -> None:
        """Check that the warehouse can be a database in a file of its own."""
        place = ("warehouse", "path")
        if _URL.match(path):
            self.fail(place, "must be a local file, not a URL")
        if path and Path(path).stem.lower() in _DATABASE_NAMES:
            self.fail(place, f"a database cannot be named {Path(path).stem!r}, which is a schema in it")
        if path and os.path.isdir(_absolute(path, directory)):
            self.fail(place, f"{_absolute(path, directory)} is a folder; name a file in it")

    def alerts(self, alerts: AlertsConfig, environ: Mapping[str, str]) -> AlertsConfig:
        """Return the hooks with the variables of the environment in place: a webhook's URL is often a secret."""
        if alerts.webhook is None:
            return alerts
        return dataclasses.replace(
            alerts, webhook=self._substituted(("alerts", "webhook"), alerts.webhook, environ)
        )

    def start(self, start: str) -> None:
        """Check that the first partition is a day, and not one to come."""
        try:
            is_past = date.fromisoformat(start) <= datetime.now(UTC).date()
        except ValueError:
            self.fail(("partitions", "start"), f"there is no such day: {_shown(start)}")
        if not is_past:
            self.fail(("partitions", "start"), f"must not lie in the future, as {_shown(start)} does")

    def model(self, model: str, directory: Path) -> None:
        """Check what a model's name says without looking for it."""
        place = ("embed", "model")
        kind, _, dimensions = model.partition(":")
        if (
            kind == "hash"
            and dimensions
            and not (re.fullmatch("[0-9]{1,9}", dimensions) and 1 <= int(dimensions) <= 65536)
        ):
            self.fail(place, f'must be "hash:N" with N from 1 to 65536, not {_shown(model)}')
        if re.match(r"\.{0,2}/|~", model) and not os.path.isdir(_absolute(model, directory)):
            self.fail(place, f"there is no folder {_absolute(model, directory)}")

    def _substituted(self, path: tuple[str | int, ...], value: str, environ: Mapping[str, str]) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[1]:
                return "${"
            if match[3]:
                self.fail(path, "${ must be followed by a name and }; $${ stands for ${ itself")
            if not environ.get(match[2]):
                self.fail(path, f"the environment variable {match[2]} is not set")
            return environ[match[2]]

        return _VARIABLE.sub(replacement, value)


def _where(path: tuple[str | int, ...]) -> str:
    """Write a path as the file has it: [chunk] overlap, [[sources]] 2 path (counted from 1)."""
    section, *rest = path
    if section not in _SECTIONS:
        return str(section)
    words = [str(part + 1) if isinstance(part, int) else part for part in rest]
    return " ".join([_heading(str(section)), *words])


def _heading(section: str) -> str:
    return "[[sources]]" if section == "sources" else f"[{section}]"


def _key_names(section: type[Any]) -> list[str]:
    return [key.name for key in dataclasses.fields(section)]


def _nearest(word: Any, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(str(word)[:100], list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _quoted(text: str) -> str:
    return f'"{text}"'


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nested(key: dataclasses.Field[Any]) -> type[Any] | None:
    """Return the dataclass of a section within a section, or of an array of them; None for any other key."""
    kind = typing.get_args(key.type)[0] if typing.get_origin(key.type) is tuple else key.type
    return kind if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None


def _default_of(key: dataclasses.Field[Any]) -> Any:
    return key.default if key.default_factory is MISSING else key.default_factory()


def all_sections() -> dict[str, type[Any]]:
    """Return every section by its heading in the file, sections within sections after the one they are in."""
    found: dict[str, type[Any]] = {}
    for name, section in _SECTIONS.items():
        found["[[sources]]" if name == "sources" else f"[{name}]"] = section
        for key in dataclasses.fields(section):
            nested = _nested(key)
            if nested is not None:
                path = f"{name}.{key.name}"
                found[f"[[{path}]]" if typing.get_origin(key.type) is tuple else f"[{path}]"] = nested
    return found


def _scalar_type(key: dataclasses.Field[Any]) -> type[Any]:
    """Return the type of one value of a key: the element of a list, the text that may be absent."""
    kinds = [kind for kind in typing.get_args(key.type) or (key.type,) if kind not in (type(None), ...)]
    return kinds[0]


# Paths and names


def _resolved(config: Config) -> Config:
    path = _absolute(str(config.warehouse.path), config.directory)
    return dataclasses.replace(config, warehouse=WarehouseConfig(Path(path)))


def local_folder(path: str) -> Path | None:
    """Return a source's path up to its first wildcard; None for a URL."""
    if _URL.match(path):
        return None
    return Path(*itertools.takewhile(lambda part: not WILDCARD.search(part), Path(path).parts))


def _absolute(path: str, directory: Path) -> str:
    if _URL.match(path):
        return path
    return os.path.normpath(os.path.join(directory, os.path.expanduser(path)))


def _relative(path: str, directory: Path) -> str:
    if _URL.match(path) or not Path(path).is_relative_to(directory):
        return path
    relative = os.path.relpath(path, directory)
    return f"./{relative}" if relative.startswith("~") else relative


def _names(paths: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Name each path by its last part, and by as many more as it takes to be alone with the name."""
    parts = [_name_parts(path) for path in paths]
    depths = [1] * len(parts)
    taken = set(taken)
    while True:
        names = ["-".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        clashing = [
            position
            for position, name in enumerate(names)
            if (names.count(name) > 1 or name in taken) and depths[position] < len(parts[position])
        ]
        if not clashing:
            return _numbered(names, taken)
        for position in clashing:
            depths[position] += 1


def _name_parts(path: str) -> list[str]:
    if url := _URL.match(path):
        path = re.split(r"[?#]", path[url.end() :])[0].rpartition("::")[2]
        path = re.sub(r"^[^/]*@", "", path)  # a user and password are no part of a name
    parts = []
    for part in path.split("/"):
        if WILDCARD.search(part):
            break
        ascii_part = unicodedata.normalize("NFKD", part).encode("ascii", "ignore").decode().lower()
        parts.append(re.sub(r"[^a-z0-9_.-]+", "-", ascii_part).strip("-."))
    return list(filter(None, parts)) or ["source"]


def _numbered(names: Sequence[str], taken: set[str]) -> list[str]:
    used = set(taken)
    result = []
    for name in names:
        number, candidate = 1, name
        while candidate in used:
            number += 1
            candidate = f"{name}-{number}"
        used.add(candidate)
        result.append(candidate)
    return result


# Writing


def _toml_section(heading: str, section: Any, default: Any) -> list[str]:
    lines = ["", heading]
    for key in dataclasses.fields(section):
        value = getattr(section, key.name)
        if value != (_default_of(key) if default is None else getattr(default, key.name)):
            lines.append(f"{key.name} = {_toml_key(key, section)}")
    return [*lines, ""]


def _toml_key(key: dataclasses.Field[Any], section: Any) -> str:
    value = getattr(section, key.name)
    return _toml_table(value) if key.type in _PAIRS else _toml_value(value)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if dataclasses.is_dataclass(value):
        keys = [key for key in dataclasses.fields(value) if getattr(value, key.name) != _default_of(key)]
        return f"{{{', '.join(f'{key.name} = {_toml_key(key, value)}' for key in keys)}}}"
    return _toml_text(str(value))


def _toml_table(pairs: Labels) -> str:
    return f"{{{', '.join(f'{_toml_text(name)} = {_toml_value(value)}' for name, value in pairs)}}}"


def _toml_text(text: str) -> str:
    if re.search("[\ud800-\udfff]", text):
        raise UsageError(f"{text!r} is not valid Unicode and cannot be written to a file")
    escaped = re.sub(r'["\\]', r"\\\g<0>", text)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


# The table in the documentation


def _allowed(key: dataclasses.Field[Any]) -> str:
    rule: Rule = key.metadata["rule"]
    if key.type in _PAIRS:
        return f"table of {_PAIRS[key.type].removeprefix('a ').replace('number', 'numbers')}"
    kind = _TYPE_NAMES[_scalar_type(key)].removeprefix("a ")
    if key.type == tuple[str, ...]:
        choices = ", ".join(f"`{_quoted(choice)}`" for choice in rule.choices)
        return f"list of {choices or kind}"
    if rule.choices:
        return ", ".join(f"`{_quoted(choice)}`" for choice in rule.choices)
    return ", ".join(filter(None, (kind, rule.range or rule.pattern_meaning)))


def _default(key: dataclasses.Field[Any]) -> str:
    rule: Rule = key.metadata["rule"]
    default = "{}" if key.type in _PAIRS else _toml_value(_default_of(key))
    return rule.default_meaning or f"`{default}`"
