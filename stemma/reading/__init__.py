"""Reading: the bytes of one file become documents, each with the place where it stands in the file."""

from stemma.reading.reader import read
from stemma.reading.records import FORMATS, ReadError, ReadOptions, Record

__all__ = ["FORMATS", "ReadError", "ReadOptions", "Record", "read"]
