"""Reading: the bytes of one file become documents, each with the place where it stands in the file."""

from stemma.reading.reader import read
from stemma.reading.records import FORMATS, ReadError, ReadOptions, Record

LIBRARIES = ("brotli", "charset-normalizer", "pyarrow", "pycld2")
"""The distributions whose version can change what is read."""

__all__ = ["FORMATS", "LIBRARIES", "ReadError", "ReadOptions", "Record", "read"]
