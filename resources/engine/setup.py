"""What a configuration makes of the row-wise stages, with their recipes worked out once."""

import functools
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from stemma.chunking.chunker import CHUNKS_TYPE, chunk
from stemma.chunking.tokens import TokenCounter, load_tokenizer
from stemma.cleaning.clean import INPUTS, LIBRARIES, OUTPUTS, SCORES, clean, needs_isolation
from stemma.cleaning.recipes import profile_rules
from stemma.cleaning.user_rules import user_rule
from stemma.cleaning.verdict import Rule
from stemma.config import Config
from stemma.deduplication import sign
from stemma.errors import UsageError
from stemma.hashing import UUID
from stemma.incremental.recipe import code_hash, recipe
from stemma.incremental.stage import Stage
from stemma.resources.classifier import classifier_stage
from stemma.resources.embedder import Embedder, resolve_embedder

TEXT = pa.schema([("text", pa.string())])


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

    @classmethod
    def of(cls, config: Config) -> "Setup":
        """Resolve the configured embedder (without loading it). Raises StemmaError where it can't be had."""
        embed = config.embed
        embedder = resolve_embedder(embed.model, embed.device, embed.precision, directory=config.directory)
        return cls(config, embedder)

    def recipe(self, stage: Stage) -> str:
        """Return the recipe of one of these stages."""
        if stage.name not in self._recipes:
            self._recipes[stage.name] = recipe(stage)
        return self._recipes[stage.name]

    def code(self, function: Callable[..., Any]) -> str:
        """Return the hash of a function's code and all of this project's that it reaches."""
        if function not in self._codes:
            self._codes[function] = code_hash(function)
        return self._codes[function]

    @functools.cached_property
    def clean(self) -> Stage:
        """Content to cleaned text."""
        return Stage(
            name="clean",
            function=clean,
            parameters={"repair": self.config.clean.repair, "html": self.config.clean.html},
            inputs=INPUTS,
            outputs=OUTPUTS,
            libraries=LIBRARIES,
            digests={"unicode": unicodedata.unidata_version},
            parallel=True,
            alone=needs_isolation,
        )

    @functools.cached_property
    def annotations(self) -> tuple[Stage, ...]:
        """Further stages over cleaned texts, each with one output: `matches` or `model_scores`."""
        settings = self.config.clean
        return tuple(
            classifier_stage(model.name, model.path, model.label, model.version, self.config.directory)
            for model in settings.models
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
            raise UsageError(f"{self.config.file or 'configuration'}: [clean] {error}") from error
        return Rules(tuple(drop), tuple(flag))

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
                ]
            ),
            libraries=("datasketch", "numpy"),
            # The tables of word characters come with Python's Unicode version.
            digests={"unicode": unicodedata.unidata_version},
            parallel=True,
        )

    @functools.cached_property
    def chunk(self) -> Stage:
        """Text to chunks; sizes are in the embedder's tokens and never over its limit."""
        settings, embedder = self.config.chunk, self.embedder
        max_tokens = min(settings.max_tokens, embedder.max_tokens or settings.max_tokens)
        return Stage(
            name="chunk",
            function=chunk,
            parameters={
                "strategy": settings.strategy,
                "max_tokens": max_tokens,
                "overlap": min(settings.overlap, max_tokens - 1),
                "tokenizer": embedder.name if embedder.tokenizer_file else "estimate",
            },
            inputs=TEXT,
            outputs=pa.schema([pa.field("chunks", CHUNKS_TYPE)]),
            libraries=("tokenizers",) if embedder.tokenizer_file else (),
            digests={
                path: value for path, value in embedder.digests.items() if path.endswith("tokenizer.json")
            }
            | {"unicode": unicodedata.unidata_version},
            load=functools.partial(_load_counter, embedder.tokenizer_file),
            parallel=True,
        )

    @functools.cached_property
    def embed(self) -> Stage:
        """Chunk text to vector."""
        embedder = self.embedder
        return Stage(
            name="embed",
            function=embedder.function,
            parameters=embedder.parameters,
            inputs=TEXT,
            outputs=pa.schema([pa.field("embedding", pa.list_(pa.float32(), embedder.dimensions))]),
            libraries=embedder.libraries,
            digests={**embedder.digests, "unicode": unicodedata.unidata_version},
            load=embedder.load,
        )


def _load_counter(tokenizer_file: Path | None, **_parameters: Any) -> TokenCounter:
    return load_tokenizer(tokenizer_file)
