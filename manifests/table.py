"""Tables on disk: Parquet with one schema each, written whole or not at all."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import ManifestError
from manifests.files import write_bytes
from manifests.schema import SCHEMAS
from manifests.types import Reject

KEY_COLUMNS = ("source", "split", "sequence", "instant", "view", "track")  # whose values spell a frame's key


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


def frames_from_columns(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Build a table of frames from whole columns: a million rows in a second or two, where `from_rows` takes a minute.

    Args:
        columns: by name, without `key`, which is spelled here. One value holds for all rows; (rows, ...) arrays and
            sequences hold one a row. Fixed lists (matrices, boxes) are null in rows with a NaN; `flags` is a tuple for all
            rows, or a list of lists.
        rows: their number.

    Raises:
        ManifestError: an unknown column, or one that does not fit the schema.
    """
    schema = SCHEMAS["frames"]
    unknown = sorted(set(columns) - set(schema.names))
    if unknown:
        raise ManifestError(f"unknown columns {unknown}", where="frames table", hint=f"known: {schema.names}")
    built = {}
    for field in schema:
        try:
            if field.name != "key":
                built[field.name] = _column(field.type, columns.get(field.name), rows)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError, TypeError) as error:
            raise ManifestError(
                f"column {field.name} does not fit the schema: {error}", where="frames table", hint="fix the source"
            ) from error
    built["key"] = _keys(columns, built)
    return check("frames", pa.table([built[name] for name in schema.names], schema=schema), where="frames table")


def _keys(columns: Mapping[str, Any], built: Mapping[str, pa.Array]) -> pa.Array:
    """Spell the keys; parts that are one value for all rows are joined once."""
    parts: list[Any] = []
    for name in KEY_COLUMNS:
        if name == "instant":
            parts.append(pc.ascii_lpad(built["instant"].cast(pa.string()), 8, "0"))
        elif not isinstance(columns.get(name), str):
            parts.append(built[name])
        elif parts and isinstance(parts[-1], str):
            parts[-1] += f"/{columns[name]}"
        else:
            parts.append(columns[name])
    return pc.binary_join_element_wise(*parts, "/")


def _column(kind: pa.DataType, values: Any, rows: int) -> pa.Array:
    """One column of `frames_from_columns`."""
    if values is None:
        return pa.nulls(rows, kind)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        shaped = np.asarray(values, np.float64)
        flat = shaped.reshape((rows, size) if shaped.size == rows * size else (1, size))
        unknown = np.broadcast_to(np.isnan(flat).any(axis=1), rows)
        mask = pa.array(unknown) if unknown.any() else None
        flat = np.broadcast_to(flat, (rows, size))
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), kind.value_type), type=kind, mask=mask)
    if pa.types.is_list(kind):
        if isinstance(values, tuple):
            inner = pa.array(list(values) * rows, kind.value_type) if values else pa.array([], kind.value_type)
            ends = pa.array(np.arange(rows + 1, dtype=np.int32) * len(values))
            return pa.ListArray.from_arrays(ends, inner, type=kind)
        if isinstance(values, np.ndarray):
            values = values.reshape(rows, int(np.prod(values.shape[1:])))
        return pa.array(list(values), kind)
    if isinstance(values, str | int | float):
        return pa.repeat(pa.scalar(values, kind), rows)
    column = pa.array(values, from_pandas=True) if isinstance(values, np.ndarray) else pa.array(values)
    if len(column) != rows:
        raise ValueError(f"{len(column)} values for {rows} rows")
    return column.cast(kind)


def has_flag(flags: pa.ChunkedArray, flag: str) -> npt.NDArray[np.bool_]:
    """Which rows carry a flag; (n,) lists of strings to (n,) booleans."""
    found = np.zeros(len(flags), bool)
    column = flags.combine_chunks()
    of_row = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    found[of_row[pc.equal(pc.list_flatten(column), flag).to_numpy(zero_copy_only=False)]] = True
    return found


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Turn rejects into their table, in the order given."""
    names = SCHEMAS["rejects"].names
    return from_rows("rejects", [{name: getattr(reject, name) for name in names} for reject in rejects])


def check(table: str, data: pa.Table, *, where: str | Path) -> pa.Table:
    """Hold a table against its schema.

    Raises:
        ManifestError: another version, another schema, or nulls where none may be.
    """
    check_schema(table, data.schema, where=where)
    for field in SCHEMAS[table]:
        if not field.nullable and data.column(field.name).null_count:
            raise ManifestError(f"column {field.name} has nulls", where=where, hint="rebuild the table")
    return data


def check_schema(table: str, told: pa.Schema, *, where: str | Path) -> None:
    """Hold the schema of a file or a table against the one of its name.

    Raises:
        ManifestError: another version, or another schema.
    """
    schema = SCHEMAS[table]
    stamp = {k.decode(): v.decode() for k, v in (told.metadata or {}).items()}
    wanted = schema.metadata[b"version"].decode()
    if stamp.get("version") != wanted or stamp.get("table") != table:
        raise ManifestError(
            f"this is {stamp.get('table', 'an unnamed table')} version {stamp.get('version', '?')}, "
            f"not {table} version {wanted}",
            where=where,
            hint="rebuild it with this version of crosspose, or read it with the version that wrote it",
        )
    if not told.equals(schema):
        odd = [field.name for field in schema if field.name not in told.names or told.field(field.name) != field]
        raise ManifestError(
            f"columns {odd or told.names} differ from the schema", where=where, hint="rebuild the table"
        )


def write(table: str, data: pa.Table, path: Path) -> None:
    """Write a Parquet file so that it is there whole or not at all; the same rows give the same bytes.

    Raises:
        ManifestError: the table does not fit its schema.
    """
    check(table, data, where=path)
    buffer = io.BytesIO()
    encode(data, buffer)
    write_bytes(path, buffer.getvalue())


# Values that hardly repeat: a dictionary of them is larger than they are.
_NEVER_TWICE = {"key", "frame_key", "target", "reference", "view_angle_rad"}


def encode(data: pa.Table, file: Any) -> None:
    """Write Parquet to an open file, with settings that keep images out of dictionaries and statistics."""
    light = [field.name for field in data.schema if not pa.types.is_binary(field.type)]
    repeated = [name for name in light if name not in _NEVER_TWICE]
    pq.write_table(
        data,
        file,
        compression="zstd",
        compression_level=1,  # as small as the default level here, in less than half the time
        use_dictionary=repeated,
        write_statistics=light,
        row_group_size=4096,
        data_page_size=1 << 20,
    )


# Bytes that the columns of one file may take in memory: many times what the largest recording needs.
MOST_BYTES = {"crops": 16 << 30, "labels": 16 << 30}
MOST_OTHER_BYTES = 4 << 30


def check_expanded(table: str, metadata: pq.FileMetaData, *, where: Path, columns: Sequence[str] | None = None) -> None:
    """Refuse a file that expands to more than any of ours, before anything of it is decompressed.

    Raises:
        ManifestError: its columns would take too many bytes.
    """
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if columns is None or chunk.path_in_schema.split(".")[0] in columns:
                size += max(chunk.total_uncompressed_size, 8 * chunk.num_values)  # repeats may take next to nothing
    most = MOST_BYTES.get(table, MOST_OTHER_BYTES)
    if size > most:
        raise ManifestError(
            f"it would expand to {size:,} bytes, more than the {most:,} of any {table} table of ours",
            where=where,
            hint="it is damaged, or made to fill the memory: rebuild it",
        )


def read(table: str, path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file and hold it against its schema; with `columns`, only those are read.

    Raises:
        ManifestError: it is missing, is no Parquet, is of another version, or would expand to more than `MOST_BYTES`.
    """
    try:
        with pq.ParquetFile(path) as file:
            check_schema(table, file.schema_arrow, where=path)
            check_expanded(table, file.metadata, where=path, columns=columns)
            return file.read(columns=list(columns) if columns is not None else None)
    except FileNotFoundError:
        raise ManifestError(
            f"the {table} table is missing", where=path, hint="run the stage that writes it (`make build` runs all)"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"not a readable {table} table: {error}", where=path, hint="rebuild it") from error
