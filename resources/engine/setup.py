"""What a configuration makes of the row-wise stages, with their recipes worked out once."""

import functools
import hashlib
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from stemma.chunking.chunker import CHUNKS_TYPE, chunk
from stemma.chunking.tokens import TokenCounter, load_tokenizer
from stemma.cleaning.clean import INPUTS, LIBRARIES, OUTPUTS, SCORES, clean, needs_isolation
from stemma.cleaning.decontamination import MINIMUM_WORDS, EvaluationIndex, build_index, contamination
from stemma.cleaning.filters.recipes import profile_rules
from stemma.cleaning.filters.user_rules import user_rule
from stemma.cleaning.filters.verdict import Rule, contamination_rule
from stemma.config import Config
from stemma.datasets import MATCHES
from stemma.deduplication import sign
from stemma.deduplication.passages import SPANS
from stemma.errors import UsageError
from stemma.functions import is_function, let_import, load_function
from stemma.hashing import UUID
from stemma.incremental.outline import keep_outlines
from stemma.incremental.reach import Reaches
from stemma.incremental.recipe import code_hash, recipe
from stemma.incremental.stage import Stage
from stemma.resources.cache import cached, keep
from stemma.resources.classifier import classifier_stage
from stemma.resources.embedder import Embedder, resolve_embedder
from stemma.resources.evaluation_sets import EvaluationSet, evaluation_sets

# Where the key for personal data is taken from, and how long it must be.
PII_KEY = "STEMMA_PII_KEY"
PII_KEY_BYTES = 16
TEXT = pa.schema([("text", pa.string())])
# Room for a heading path of MAX_SECTION characters; in some scripts it takes more.
SECTION_TOKENS = 48
SECTIONED_TEXT = pa.schema([*TEXT, ("section", pa.string())])
# Signing takes 20 µs a text: it pays with many texts only to send them elsewhere, or to write what came of them.
SIGNING: dict[str, Any] = {"small_rows": 4_096, "batch_rows": 4_096}

# What the code of each module says is found once by a user and machine, and not by each process: 0.2 s.
keep_outlines(functools.partial(cached, "outlines"), functools.partial(keep, "outlines"))


@dataclass(frozen=True)
class Rules:
    """The predicates over the scores of cleaned: those that drop a document, and those that only flag it."""

    drop: tuple[Rule, ...]
    flag: tuple[Rule, ...]


@dataclass(frozen=True)
class Setup:
    """The stages as configured. Each is made once, and so is its recipe: working one out reads much code."""

    config: Config
    embedder: Embedder
    _recipes: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _codes: dict[Callable[..., Any], str] = field(default_factory=dict, repr=False, compare=False)
    _reaches: Reaches = field(default_factory=Reaches, repr=False, compare=False)

    @classmethod
    def of(cls, config: Config) -> "Setup":
        """Resolve the configured embedder (without loading it). Raises StemmaError where it can't be had."""
        embed = config.embed
        embedder = resolve_embedder(
            embed.model, embed.device, embed.precision, embed.backend, directory=config.directory
        )
        return cls(config, embedder)

    def recipe(self, stage: Stage) -> str:
        """Return the recipe of one of these stages."""
        if stage.name not in self._recipes:
            self._recipes[stage.name] = recipe(stage, self._reaches)
        return self._recipes[stage.name]

    def code(self, function: Callable[..., Any]) -> str:
        """Return the hash of a function's code and all of this project's that it reaches."""
        if function not in self._codes:
            self._codes[function] = code_hash(function, self._reaches)
        return self._codes[function]

    @functools.cached_property
    def clean(self) -> Stage:
        """Content to cleaned text. Raises UsageError where personal data are to be replaced and there is no key."""
        settings = self.config.clean
        return Stage(
            name="clean",
            function=clean,
            parameters={"repair": settings.repair, "html": settings.html, "pii": list(settings.pii)},
            inputs=INPUTS,
            outputs=OUTPUTS,
            libraries=LIBRARIES,
            digests={"unicode": unicodedata.unidata_version} | (_pii_facts() if settings.pii else {}),
            load=load_pii_key if settings.pii else None,
            facts=_pii_facts if settings.pii else None,
            parallel=True,
            alone=needs_isolation,
        )

    @functools.cached_property
    def annotations(self) -> tuple[Stage, ...]:
        """Further stages over cleaned texts, each with one output: `matches` or `model_scores`."""
        settings = self.config.clean
        taken = {field.name for field in SCORES} & {model.name for model in settings.models}
        if taken:
            raise UsageError(f"{self._place} [[clean.models]] name: {min(taken)!r} is the name of a metric")
        decontamination = (self._contamination,) if settings.decontaminate.sets else ()
        return decontamination + tuple(
            classifier_stage(model.name, model.path, model.label, model.version, self.config.directory)
            for model in settings.models
        )

    @property
    def _place(self) -> str:
        return f"{self.config.file or 'configuration'}:"

    @functools.cached_property
    def evaluation_sets(self) -> list[EvaluationSet]:
        """The evaluation sets that texts are compared with."""
        settings = self.config.clean.decontaminate
        return evaluation_sets(settings.sets, settings.fields, self.config.directory)

    @property
    def _contamination(self) -> Stage:
        settings, sets = self.config.clean.decontaminate, self.evaluation_sets
        words = {"ngram_words": settings.words, "minimum_words": min(MINIMUM_WORDS, settings.words)}
        return Stage(
            name="contamination",
            function=contamination,
            parameters=words,
            inputs=TEXT,
            outputs=pa.schema([("matches", MATCHES)]),
            libraries=("numpy",),
            digests={
                "unicode": unicodedata.unidata_version,
                "fields": repr(settings.fields),
                **{each.name: each.digest() for each in sets},
            },
            load=functools.partial(_load_index, sets),
            parallel=True,
        )

    @functools.cached_property
    def rules(self) -> Rules:
        """The rules over the scores of cleaned. Raises UsageError for a rule that makes no sense."""
        settings = self.config.clean
        try:
            own = {
                action: [
                    user_rule(rule.name, rule.when, score=rule.score, threshold=rule.threshold, scores=SCORES)
                    for rule in settings.rules
                    if rule.action == action
                ]
                for action in ("drop", "flag")
            }
            found = (
                contamination_rule(settings.decontaminate.min_share) if settings.decontaminate.sets else None
            )
            if found is not None:
                own[settings.decontaminate.action].append(found)
            drop, flag = profile_rules(
                settings.profile,
                settings.languages,
                drop=settings.drop,
                flag=settings.flag,
                thresholds=dict(settings.thresholds),
                user_drop=own["drop"],
                user_flag=own["flag"],
            )
        except ValueError as error:
            raise UsageError(f"{self._place} [clean] {error}") from error
        return Rules(tuple(drop), tuple(flag))

    @functools.cached_property
    def document_quality(self) -> Rule | None:
        """The user's measure of what makes a document better; its score is the SQL. Raises UsageError for nonsense."""
        expression = self.config.deduplicate.quality
        if expression is None:
            return None
        try:
            return user_rule("quality", "true", score=expression, scores=SCORES)
        except ValueError as error:
            raise UsageError(f"{self._place} [deduplicate] {error}") from error

    @functools.cached_property
    def sign(self) -> Stage:
        """Text to MinHash signature."""
        settings = self.config.deduplicate
        return Stage(
            name="sign",
            function=sign,
            parameters={"shingle_words": settings.shingle_words, "permutations": settings.permutations},
            inputs=TEXT,
            outputs=pa.schema(
                [
                    pa.field("norm_hash", UUID),
                    pa.field("shingles", pa.int32()),
                    pa.field("signature", pa.binary()),
                    pa.field("sketch", pa.binary()),
                ]
            ),
            libraries=("datasketch", "numpy"),
            # The tables of word characters come with Python's Unicode version.
            digests={"unicode": unicodedata.unidata_version},
            parallel=True,
            **SIGNING,
        )

    @functools.cached_property
    def chunk(self) -> Stage:
        """Text to chunks; sizes are in the embedder's tokens and never over its limit, headings included."""
        settings, embedder, directory = self.config.chunk, self.embedder, self.config.directory
        limit = embedder.max_tokens or settings.max_tokens
        if embedder.max_tokens and self.config.embed.context == "section":
            # The headings before it must not push the end of a chunk over the limit.
            limit -= min(SECTION_TOKENS, limit // 4)
        max_tokens = min(settings.max_tokens, limit)
        target_tokens = settings.target_tokens and min(settings.target_tokens, max_tokens)
        return Stage(
            name="chunk",
            function=chunk,
            parameters={
                "strategy": settings.strategy,
                "max_tokens": max_tokens,
                "target_tokens": target_tokens,
                "overlap": min(settings.overlap, max_tokens - 1),
                "tokenizer": embedder.name if embedder.tokenizer_file else "estimate",
            },
            inputs=pa.schema([*TEXT, pa.field("cuts", SPANS)]),
            outputs=pa.schema([pa.field("chunks", CHUNKS_TYPE)]),
            libraries=("tokenizers",) if embedder.tokenizer_file else (),
            digests={
                path: value for path, value in embedder.digests.items() if path.endswith("tokenizer.json")
            }
            | {"unicode": unicodedata.unidata_version}
            | self._chunk_function,
            load=functools.partial(_load_counter, embedder.tokenizer_file, directory),
            facts=embedder.find_digests,
            parallel=True,
        )

    @property
    def _chunk_function(self) -> dict[str, str]:
        """The digest of the user's own strategy, if it is one. Raises UsageError where there is no such function."""
        strategy = self.config.chunk.strategy
        if not is_function(strategy):
            return {}
        let_import(self.config.directory)
        try:
            return {"function": code_hash(load_function(strategy))}
        except UsageError as error:
            raise UsageError(f"{self._place} [chunk] strategy: {error}") from error

    @functools.cached_property
    def embed(self) -> Stage:
        """Chunk text, in its section's context if so configured, to vector."""
        embedder = self.embedder
        return Stage(
            name="embed",
            function=embedder.function,
            parameters=embedder.parameters,
            inputs=SECTIONED_TEXT if self.config.embed.context == "section" else TEXT,
            outputs=pa.schema([pa.field("embedding", pa.list_(pa.float32(), embedder.dimensions))]),
            libraries=embedder.libraries,
            digests={**embedder.digests, "unicode": unicodedata.unidata_version},
            load=embedder.load,
            facts=embedder.find_digests,
            batch_rows=256,
        )


def load_pii_key(**_parameters: Any) -> bytes:
    """Return the key that personal data are hashed with. Raises UsageError where there is none, or a short one."""
    secret = os.environ.get(PII_KEY, "").encode()
    if len(secret) < PII_KEY_BYTES:
        raise UsageError(
            f"[clean] pii needs a key in the environment variable {PII_KEY}: {PII_KEY_BYTES} bytes or more that"
            " nobody can guess (openssl rand -hex 32)"
        )
    return secret


def _pii_facts() -> dict[str, str]:
    return {"pii_key": hashlib.blake2b(b"stemma pii", key=load_pii_key()[:64]).hexdigest()}


def _load_index(sets: list[EvaluationSet], *, ngram_words: int, minimum_words: int) -> EvaluationIndex:
    items = {each.name: each.items() for each in sets}
    return build_index(items, ngram_words=ngram_words, minimum_words=minimum_words)


def _load_counter(tokenizer_file: Path | None, directory: Path, **_parameters: Any) -> TokenCounter:
    # A strategy of the user's own is imported by its name, in whatever process this is.
    let_import(directory)
    return load_tokenizer(tokenizer_file)
