"""Tables on disk: Parquet with one schema each, written whole or not at all."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import ManifestError
from manifests.files import write_bytes
from manifests.schema import SCHEMAS
from manifests.types import Reject


def empty(table: str) -> pa.Table:
    """A table of no rows."""
    return SCHEMAS[table].empty_table()


def from_rows(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build a table from mappings of column to value; a column that is left out is null.

    Raises:
        ManifestError: a row has a column that the schema does not, a value of another type, or no value where one is due.
    """
    schema = SCHEMAS[table]
    rows = list(rows)
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise ManifestError(f"unknown columns {sorted(unknown)}", where=f"{table} table", hint=f"known: {schema.names}")
    try:
        built = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
        built.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ManifestError(
            f"a row does not fit the schema: {error}", where=f"{table} table", hint="fix the source"
        ) from error
    return check(table, built, where=f"{table} table")


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Turn rejects into their table, in the order given."""
    rows = [{"stage": r.stage, "key": r.key, "reason": r.reason.value, "detail": r.detail} for r in rejects]
    return from_rows("rejects", rows)


def check(table: str, data: pa.Table, *, where: str | Path) -> pa.Table:
    """Hold a table against its schema.

    Raises:
        ManifestError: another version, another schema, or nulls where none may be.
    """
    schema = SCHEMAS[table]
    stamp = {k.decode(): v.decode() for k, v in (data.schema.metadata or {}).items()}
    wanted = schema.metadata[b"version"].decode()
    if stamp.get("version") != wanted or stamp.get("table") != table:
        raise ManifestError(
            f"this is {stamp.get('table', 'an unnamed table')} version {stamp.get('version', '?')}, "
            f"not {table} version {wanted}",
            where=where,
            hint="rebuild it with this version of crosspose, or read it with the version that wrote it",
        )
    if not data.schema.equals(schema):
        odd = [
            field.name
            for field in schema
            if field.name not in data.schema.names or data.schema.field(field.name) != field
        ]
        raise ManifestError(
            f"columns {odd or data.schema.names} differ from the schema", where=where, hint="rebuild the table"
        )
    for field in schema:
        if not field.nullable and data.column(field.name).null_count:
            raise ManifestError(f"column {field.name} has nulls", where=where, hint="rebuild the table")
    return data


def write(table: str, data: pa.Table, path: Path) -> None:
    """Write a Parquet file so that it is there whole or not at all; the same rows give the same bytes.

    Raises:
        ManifestError: the table does not fit its schema.
    """
    check(table, data, where=path)
    buffer = io.BytesIO()
    encode(data, buffer)
    write_bytes(path, buffer.getvalue())


def encode(data: pa.Table, file: Any) -> None:
    """Write Parquet to an open file, with settings that keep images out of dictionaries and statistics."""
    light = [field.name for field in data.schema if not pa.types.is_binary(field.type)]
    pq.write_table(
        data,
        file,
        compression="zstd",
        use_dictionary=light,
        write_statistics=light,
        row_group_size=4096,
        data_page_size=1 << 20,
    )


def read(table: str, path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file and hold it against its schema; with `columns`, only those are read.

    Raises:
        ManifestError: it is missing, is no Parquet, or is of another version.
    """
    try:
        with pq.ParquetFile(path) as file:
            check(table, file.schema_arrow.empty_table(), where=path)
            return file.read(columns=list(columns) if columns is not None else None)
    except FileNotFoundError:
        raise ManifestError(
            f"the {table} table is missing", where=path, hint="run the stage that writes it (`make build` runs all)"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"not a readable {table} table: {error}", where=path, hint="rebuild it") from error
