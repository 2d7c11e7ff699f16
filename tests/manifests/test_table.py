"""Tables on disk: round trips, the same bytes always, whole or not at all, and no table of another kind or version."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import table as tables
from manifests.errors import ManifestError
from manifests.schema import SCHEMAS, schema_version
from manifests.types import Reason, Reject

REPOSITORY = Path(__file__).parents[2]
REJECT = {"stage": "crops", "key": "a/b", "reason": "frozen", "detail": "", "count": 1}


def values(kind):
    """Values of an Arrow type, as Python gives and takes them."""
    if pa.types.is_fixed_size_list(kind):
        return st.lists(values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_list(kind):
        return st.lists(values(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    if pa.types.is_integer(kind):
        low, high = np.iinfo(kind.to_pandas_dtype()).min, np.iinfo(kind.to_pandas_dtype()).max
        return st.integers(int(low), int(high))
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False, width=kind.bit_width)
    return st.binary(max_size=40) if pa.types.is_binary(kind) else st.text(max_size=12)


@st.composite
def rows_of_a_table(draw):
    name = draw(st.sampled_from(sorted(SCHEMAS)))
    columns = {f.name: st.none() | values(f.type) if f.nullable else values(f.type) for f in SCHEMAS[name]}
    return name, draw(st.lists(st.fixed_dictionaries(columns), max_size=4))


@given(drawn=rows_of_a_table())
def test_rows_come_back_as_they_went_in(drawn, tmp_path_factory):
    name, rows = drawn
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    tables.write(name, tables.from_rows(name, rows), path)
    assert tables.read(name, path).to_pylist() == rows
    first = path.read_bytes()
    tables.write(name, tables.from_rows(name, rows), path)
    assert path.read_bytes() == first, "the same rows give the same bytes"
    assert [p.name for p in path.parent.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_an_empty_table_keeps_schema_and_version(tmp_path, name):
    path = tmp_path / "t.parquet"
    tables.write(name, tables.empty(name), path)
    back = tables.read(name, path)
    assert back.num_rows == 0
    assert back.schema.equals(SCHEMAS[name])
    assert back.schema.metadata == SCHEMAS[name].metadata
    assert schema_version(name) >= 1


def test_the_same_bytes_come_from_another_process(tmp_path):
    rows = [{**REJECT, "key": f"k{i}"} for i in range(20)]
    tables.write("rejects", tables.from_rows("rejects", rows), tmp_path / "here.parquet")
    code = (
        "import sys; from pathlib import Path; from manifests import table as t\n"
        f"t.write('rejects', t.from_rows('rejects', {rows!r}), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "there.parquet"], check=True, timeout=60, cwd=REPOSITORY)
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()


def test_columns_can_be_read_alone(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write("rejects", tables.from_rows("rejects", [REJECT]), path)
    assert tables.read("rejects", path, columns=["reason", "key"]).to_pylist() == [{"key": "a/b", "reason": "frozen"}]


def test_left_out_columns_are_null_where_they_may_be():
    row = dict.fromkeys(("key", "kind", "source", "licence", "domain", "split", "sequence", "target", "reference"), "x")
    built = tables.from_rows("pairs", [{**row, "weight": 1.0, "further": []}])
    assert built.to_pylist()[0]["dt_s"] is None
    with pytest.raises(ManifestError, match="column weight has nulls"):
        tables.from_rows("pairs", [{**row, "further": []}])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"colour": "red"}, r"unknown columns \['colour'\]"),
        ({"key": 7}, "a row does not fit the schema"),
        ({"key": None}, "column key has nulls"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, match):
    with pytest.raises(ManifestError, match=match) as caught:
        tables.from_rows("rejects", [REJECT, {**REJECT, **change}])
    assert caught.value.where == "rejects table"


@pytest.mark.parametrize("weight", [2**70, 2**31])
def test_numbers_that_do_not_fit_are_refused(weight):
    with pytest.raises(ManifestError, match="does not fit the schema"):
        tables.from_rows("frames", [{"width": weight}])


def test_rejects_keep_their_order():
    rejects = [Reject("crops", "b", Reason.FROZEN, "x"), Reject("crops", "a", Reason.CUT)]
    assert tables.rejects_table(rejects).to_pylist() == [
        {"stage": "crops", "key": "b", "reason": "frozen", "detail": "x", "count": 1},
        {"stage": "crops", "key": "a", "reason": "cut", "detail": "", "count": 1},
    ]


def stamped(metadata):
    return tables.from_rows("rejects", [REJECT]).replace_schema_metadata(metadata)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (stamped({"table": "rejects", "version": "0"}), "rejects version 0, not rejects version 2"),
        (stamped({"table": "rejects", "version": "3"}), "rejects version 3, not rejects version 2"),
        (stamped({"table": "pairs", "version": "1"}), "pairs version 1, not rejects version 2"),
        (stamped(None), r"an unnamed table version \?, not rejects version 2"),
        (tables.from_rows("rejects", [REJECT]).drop_columns(["detail"]), r"columns \['detail'\] differ"),
        (tables.from_rows("rejects", [REJECT]).append_column("more", pa.array([1])), r"columns .* differ"),
    ],
)
def test_a_table_of_another_version_or_shape_is_neither_written_nor_read(tmp_path, data, match):
    path = tmp_path / "t.parquet"
    with pytest.raises(ManifestError, match=match):
        tables.write("rejects", data, path)
    assert not list(tmp_path.iterdir())
    pq.write_table(data, path)
    with pytest.raises(ManifestError, match=match) as caught:
        tables.read("rejects", path)
    assert caught.value.where == str(path)
    assert "rebuild" in caught.value.hint
    with pytest.raises(ManifestError, match=match):
        tables.read("rejects", path, columns=["key"])


def test_a_missing_or_cut_file_is_told(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(ManifestError, match="the rejects table is missing"):
        tables.read("rejects", path)
    tables.write("rejects", tables.from_rows("rejects", [REJECT] * 100), path)
    whole = path.read_bytes()
    for size in (0, 3, 4, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ManifestError, match="not a readable rejects table"):
            tables.read("rejects", path)


def test_a_failed_write_leaves_the_old_table_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    tables.write("rejects", tables.from_rows("rejects", [REJECT]), path)
    before = path.read_bytes()

    def full(data, file):
        file.write(b"PAR1 half a table")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "encode", full)
    with pytest.raises(OSError, match="No space left"):
        tables.write("rejects", tables.from_rows("rejects", [REJECT] * 2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_statistics_do_not_copy_images_into_the_footer(tmp_path):
    path = tmp_path / "t.parquet"
    with path.open("wb") as file:
        tables.encode(pa.table({"key": ["k", "l"], "jpeg": [b"x" * 1000, b"y" * 1000]}), file)
    with pq.ParquetFile(path) as parquet:
        key, jpeg = (parquet.metadata.row_group(0).column(i) for i in range(2))
    assert key.is_stats_set
    assert not jpeg.is_stats_set
    assert not jpeg.has_dictionary_page


def test_errors_survive_pickling():
    try:
        tables.read("rejects", Path("nowhere") / "t.parquet")
    except ManifestError as error:
        back = pickle.loads(pickle.dumps(error))
    assert type(back) is ManifestError
    assert (back.what, back.where, back.hint) == (
        "the rejects table is missing",
        str(Path("nowhere") / "t.parquet"),
        "run the stage that writes it (`make build` runs all)",
    )


def frame_columns(**changes):
    """Columns of three frames of one camera."""
    return {
        "source": "rig", "licence": "none", "split": "train", "group": "g", "sequence": "s", "domain": "body",
        "instant": np.array([3, 4, 5]), "view": ["a", "a", "b"], "track": "p0", "media": ["x", "y", "z"], "media_index": 0,
        "width": np.array([4, 4, 6]), "height": 3, "silhouette_from": "none", "flags": (),
    } | changes  # fmt: skip


def test_columns_give_the_same_table_as_rows():
    K = np.arange(9.0).reshape(3, 3)
    pose = np.stack([np.eye(4) * k for k in (1.0, np.nan, 3.0)])
    points = np.arange(18.0, dtype=np.float32).reshape(3, 2, 3)
    columns = frame_columns(
        intrinsics=K, camera_from_world=pose, keypoints_px=points, time_s=np.array([0.5, np.nan, 1.5]),
        flags=[[], ["gray"], ["gray", "odd"]], subject=[None, "bo", "bo"], distortion=(0.1, 0.2),
    )  # fmt: skip
    rows = [
        {
            **{n: v[i] if isinstance(v, list) else v for n, v in columns.items() if not isinstance(v, np.ndarray)},
            "key": f"rig/train/s/{3 + i:08d}/{'aab'[i]}/p0",
            "instant": 3 + i, "width": [4, 4, 6][i], "intrinsics": K.ravel().tolist(), "distortion": [0.1, 0.2],
            "camera_from_world": None if i == 1 else (np.eye(4) * (i + 1)).ravel().tolist(),
            "keypoints_px": points[i].ravel().tolist(), "time_s": [0.5, None, 1.5][i],
        }
        for i in range(3)
    ]  # fmt: skip
    assert tables.frames_from_columns(columns, 3).to_pylist() == tables.from_rows("frames", rows).to_pylist()


def test_no_rows_are_a_table_too():
    nothing = {
        name: value[:0] if isinstance(value, np.ndarray | list) else value for name, value in frame_columns().items()
    }
    pose = np.zeros((0, 4, 4))
    assert tables.frames_from_columns(nothing | {"camera_from_world": pose}, 0).equals(tables.empty("frames"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hight": 3}, r"unknown columns \['hight'\]"),
        ({"media": ["x"]}, "column media does not fit the schema: 1 values for 3 rows"),
        ({"intrinsics": np.zeros(4)}, "column intrinsics does not fit"),
        ({"width": "wide"}, "column width does not fit"),
        ({"group": ["a", None, "b"]}, "column group has nulls"),
    ],
)
def test_columns_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ManifestError, match=message):
        tables.frames_from_columns(frame_columns(**changes), 3)


@given(st.lists(st.lists(st.sampled_from(["gray", "odd", "far"]), max_size=3), max_size=6), st.integers(0, 6))
def test_flags_are_found_row_by_row(flags, cut):
    kind = pa.list_(pa.string())
    column = pa.chunked_array([pa.array(flags[:cut], kind), pa.array(flags[cut:], kind)])
    assert tables.has_flag(column, "gray").tolist() == ["gray" in row for row in flags]


def test_a_file_that_expands_to_fill_the_memory_is_refused(tmp_path, monkeypatch):
    """Zeros that take a thousandth on the disk: nothing of them is decompressed."""
    path = tmp_path / "rejects.parquet"
    row = {"stage": "crops", "key": "a", "reason": "frozen", "count": 1}
    tables.write(
        "rejects", tables.from_rows("rejects", [row | {"detail": f"{n}" + " " * 999_999} for n in range(9)]), path
    )
    assert path.stat().st_size < 9_000
    assert tables.read("rejects", path).num_rows == 9
    monkeypatch.setattr("manifests.table.MOST_OTHER_BYTES", 1_000_000)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(
        ManifestError, match=r"would expand to 9,\d+,\d+ bytes, more than the 1,000,000 of any rejects table"
    ) as told:
        tables.read("rejects", path)
    assert str(path) in told.value.where


def test_columns_that_are_not_asked_for_do_not_count(tmp_path, monkeypatch):
    path = tmp_path / "rejects.parquet"
    row = {"stage": "crops", "key": "a", "reason": "frozen", "count": 1, "detail": " " * 9_000_000}
    tables.write("rejects", tables.from_rows("rejects", [row]), path)
    monkeypatch.setattr("manifests.table.MOST_OTHER_BYTES", 1_000_000)
    assert tables.read("rejects", path, columns=["key"]).num_rows == 1
