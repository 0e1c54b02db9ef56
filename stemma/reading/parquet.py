"""Parquet as records, a batch of rows at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from stemma.reading.compression import expansion_limit
from stemma.reading.fields import Place, Rows, find_roles, missing_text_field
from stemma.reading.records import ReadError, ReadOptions, Record, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 256


def read_parquet(file: BinaryIO, rows: Rows, options: ReadOptions) -> Iterator[Record | ReadError]:
    """Yield a record for each row. Columns of bytes are left out; a row has no byte range.

    Raises:
        Unreadable: "damaged Parquet", "too large", "missing text field", or "text field is not text".
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # RetryableError (the file changed) passes through: it is neither an ArrowException nor an OSError.
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        _check_expansion(parquet, file, options)
        columns = text_columns(parquet.schema_arrow, options)
        position = 0
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
            yield from batch_records(batch, position, rows, options)
            position += batch.num_rows
    except (pa.ArrowException, OSError, NotImplementedError, ValueError, LookupError) as error:
        raise Unreadable("damaged Parquet", " ".join(str(error).split())) from error


def _check_expansion(parquet: "pq.ParquetFile", file: BinaryIO, options: ReadOptions) -> None:
    metadata = parquet.metadata
    expanded = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    size = file.seek(0, 2)
    if expanded > expansion_limit(size, options):
        raise Unreadable("too large", f"{size} bytes expand to {expanded}")


def text_columns(schema: "pa.Schema", options: ReadOptions) -> list[str]:
    """Return the names of the columns to read.

    Raises:
        Unreadable: "missing text field", or "text field is not text".
    """
    import pyarrow.types as types

    name = find_roles(tuple(schema.names), options).text
    if name is None:
        raise Unreadable(*missing_text_field(schema.names, options))
    kind = schema.field(schema.get_all_field_indices(name)[0]).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)):
        raise Unreadable("text field is not text", f"the column {name!r} is of type {kind}")
    return [field.name for field in schema if not _is_bytes(field.type)]


def _is_bytes(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return any(
        test(kind)
        for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def batch_records(
    batch: "pa.RecordBatch", position: int, rows: Rows, options: ReadOptions
) -> Iterator[Record | ReadError]:
    """Yield a record for each row of a batch whose first row is the file's row `position`."""
    names = batch.schema.names
    columns = [_values(batch.column(index)) for index in range(batch.num_columns)]
    for offset, values in enumerate(zip(*columns, strict=True)):
        fields = dict(zip(names, values, strict=True))
        place = Place(position + offset)
        error = _row_error(fields, options)
        yield (
            rows.record(fields, place)
            if error is None
            else ReadError(str(place.position), None, None, *error)
        )


class _NotUtf8:
    """Stands for a string whose bytes are not UTF-8."""


def _values(column: "pa.Array") -> list[Any]:
    """Return the column as Python values; a value that Python cannot hold is None, bad text `_NotUtf8`."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, TypeError):
        return [_value(item) for item in column]


def _value(item: "pa.Scalar") -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        return _NotUtf8()
    except (ValueError, OverflowError, TypeError):
        return None


def _row_error(fields: dict[str, Any], options: ReadOptions) -> tuple[str, str] | None:
    size = 0
    for name, value in fields.items():
        if isinstance(value, _NotUtf8):
            return "not UTF-8", f"the column {name!r} holds bytes that are not UTF-8"
        size += len(value) if isinstance(value, str) else 0
    if size > options.max_record_bytes:
        return "too large", f"the row has {size} characters, more than {options.max_record_bytes}"
    return None
