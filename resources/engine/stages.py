"""The row-wise stages, as the configuration has them, and the recipes of the datasets that they make."""

from stemma.chunking import chunk, load_tokenizer
from stemma.cleaning import clean
from stemma.cleaning.verdict import Rule, rules
from stemma.config import Config
from stemma.deduplication import sign
from stemma.errors import UsageError
from stemma.hashing import UUID
from stemma.incremental.recipe import recipe
from stemma.incremental.stage import Stage
from stemma.resources.embedder import Embedder

import pyarrow as pa
