"""Samples in a tar: round trip, offsets, the same bytes always, and nothing that is no sample."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ManifestError, ShardError
from manifests.sample import (
    MAX_FURTHER,
    MAX_MEMBER_BYTES,
    SILHOUETTE_BYTES,
    Sample,
    cells_of,
    from_members,
    pack_cells,
    read_tar,
    unpack_cells,
    write_tar,
)
from manifests.schema import CELLS, MEMBERS
from tests.support.builds import make_sample

KEYS = st.from_regex(r"[a-z0-9_-]{1,40}(/[a-z0-9_-]{1,20}){0,3}", fullmatch=True)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def samples(draw, keys=KEYS):
    sil = st.binary(min_size=SILHOUETTE_BYTES, max_size=SILHOUETTE_BYTES)
    return Sample(
        key=draw(keys),
        # Lengths around the 512-byte blocks of a tar are where padding goes wrong.
        target_jpg=draw(st.sampled_from([0, 1, 511, 512, 513, 1024])) * b"t",
        reference_jpg=draw(st.binary(max_size=600)),
        target_sil=draw(sil),
        reference_sil=draw(sil),
        meta=draw(st.dictionaries(st.text(), PLAIN, max_size=4)),
        further=tuple(draw(st.lists(st.tuples(st.binary(max_size=600), sil), max_size=3))),
    )


def sample(key="a/b", **change):
    blank = {
        "target_jpg": b"t",
        "reference_jpg": b"r",
        "target_sil": bytes(512),
        "reference_sil": bytes(512),
        "meta": {},
    }
    return Sample(key=key, **{**blank, **change})


def tar_of(written):
    file = io.BytesIO()
    rows = write_tar(file, written)
    return file.getvalue(), rows


@given(written=st.lists(samples(), max_size=4, unique_by=lambda s: s.key))
def test_what_is_written_is_read_and_the_index_points_at_it(written, tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    data, rows = tar_of(written)
    path.write_bytes(data)
    assert list(read_tar(path)) == written
    assert [row["key"] for row in rows] == [s.key for s in written]
    for row, one in zip(rows, written, strict=True):
        assert list(row) == ["key", *[name.replace(".", "_") for name in MEMBERS], "further"]
        further = {
            f"view{n}.{kind}": place for n, view in enumerate(row["further"], start=2) for kind, place in view.items()
        }
        for name, member in one.members():
            place = further[name] if name in further else row[name.replace(".", "_")]
            assert data[place["offset"] : place["offset"] + place["size"]] == member


def test_two_writes_give_the_same_bytes_and_carry_nothing_of_the_machine():
    written = [make_sample(f"made/{i}") for i in range(3)]
    first, _ = tar_of(written)
    assert tar_of(written)[0] == first
    # The order in which the meta's keys came to be does not show either.
    turned = Sample(
        **{**{n: getattr(written[0], n) for n in Sample.__slots__}, "meta": dict(reversed(written[0].meta.items()))}
    )
    assert list(turned.meta) != list(written[0].meta)
    assert tar_of([turned, *written[1:]])[0] == first
    for info in infos(first):
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o444)
        assert info.isreg()


@given(written=st.lists(samples(), max_size=4))
def test_the_bytes_are_those_of_tarfile(written):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for one in written:
            for name, data in one.members():
                info = tarfile.TarInfo(f"{one.key}.{name}")
                info.size, info.mtime, info.mode = len(data), 0, 0o444
                tar.addfile(info, io.BytesIO(data))
    assert tar_of(written)[0] == file.getvalue()


def test_the_members_come_in_the_agreed_order():
    data, _ = tar_of([sample("k1"), sample("k2")])
    names = [info.name for info in infos(data)]
    assert names == [f"{key}.{name}" for key in ("k1", "k2") for name in MEMBERS]
    assert MEMBERS == ("target.jpg", "reference.jpg", "target.sil", "reference.sil", "json")
    data, _ = tar_of([sample("k1", further=((b"v", bytes(512)), (b"w", bytes(512))))])
    assert [info.name for info in infos(data)] == [
        f"k1.{name}" for name in (*MEMBERS[:4], "view2.jpg", "view2.sil", "view3.jpg", "view3.sil", "json")
    ]


def infos(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def boundaries(data):
    """Where each member begins, and where the last one ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        starts = [info.offset for info in tar]
        return [*starts, tar.offset]


def test_a_tar_cut_at_any_member_is_noticed(tmp_path):
    data, _ = tar_of([make_sample(f"made/{i}") for i in range(3)])
    path = tmp_path / "x.tar"
    cuts = boundaries(data)
    assert len(cuts) == 3 * len(MEMBERS) + 1
    for cut in cuts:
        # At the boundary itself, inside the header that follows, at its end, and inside the data.
        for more in (0, 1, 511, 512, 600):
            path.write_bytes(data[: min(cut + more, cuts[-1] + 1023)])
            with pytest.raises(ShardError, match=r"read to its end|incomplete|does not end where") as caught:
                list(read_tar(path))
            assert caught.value.where == str(path)
            assert "rebuild" in caught.value.hint


def test_a_damaged_header_does_not_hide_the_samples_after_it(tmp_path):
    data, _ = tar_of([make_sample(f"made/{i}") for i in range(3)])
    path = tmp_path / "x.tar"
    for start in boundaries(data)[:-1]:
        broken = bytearray(data)
        broken[start + 150] ^= 0x55  # inside the checksum
        path.write_bytes(broken)
        with pytest.raises(ShardError):
            list(read_tar(path))


def test_bytes_after_the_end_are_noticed(tmp_path):
    data, _ = tar_of([sample()])
    path = tmp_path / "x.tar"
    for tail in (data, bytes(20480), b"x"):
        path.write_bytes(data + tail)
        with pytest.raises(ShardError, match="does not end where"):
            list(read_tar(path))


@pytest.mark.parametrize("count", range(40))
def test_a_tar_may_end_anywhere_in_a_record(tmp_path, count):
    data, _ = tar_of([sample(target_jpg=bytes(512 * count))])
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    assert len(list(read_tar(path))) == 1


def tar_with(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def link(name):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


GOOD = dict(sample("k").members())
VIEWS = [(f"k.view{n}.{kind}", bytes(512)) for n in range(2, 2 + MAX_FURTHER + 1) for kind in ("jpg", "sil")]


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ([("k.json", b"{}")], "k.json where k.target.jpg was due"),
        ([("k.target.jpg", b""), ("other.reference.jpg", b"")], "other.reference.jpg where k.reference.jpg was due"),
        ([("k.target.jpg", b""), ("k.target.jpg", b"")], "k.target.jpg where k.reference.jpg was due"),
        ([(link("k.target.jpg"), b"")], "no part of a sample"),
        ([(f"k.{n}", b"\x80" if n == "json" else d) for n, d in GOOD.items()], "JSON does not parse"),
        ([(f"k.{n}", b"[1]" if n == "json" else d) for n, d in GOOD.items()], "JSON is no mapping"),
        ([(f"k.{n}", b"[" * 10**6 if n == "json" else d) for n, d in GOOD.items()], "JSON does not parse"),
        ([(f"k.{n}", d[:-1] if n == "target.sil" else d) for n, d in GOOD.items()], "silhouette is not of the agreed"),
        ([(f"../K.{n}", d) for n, d in GOOD.items()], r"was due|agreed form"),
        ([("k.target.jpg", bytes(MAX_MEMBER_BYTES + 1))], "no part of a sample"),
        (
            [*[(f"k.{n}", d) for n, d in GOOD.items()][:4], ("k.view2.jpg", b""), ("k.json", b"{}")],
            "k.view2.sil was due",
        ),
        ([*[(f"k.{n}", d) for n, d in GOOD.items()][:4], ("k.view3.jpg", b"")], "k.view3.jpg where k.json was due"),
        ([*[(f"k.{n}", d) for n, d in GOOD.items()][:4], *VIEWS], "k.view16.jpg where k.json was due"),
    ],
)
def test_a_tar_of_something_else_is_refused(tmp_path, members, match):
    path = tmp_path / "x.tar"
    path.write_bytes(tar_with(*members))
    with pytest.raises(ShardError, match=match):
        list(read_tar(path))


@given(data=st.data())
def test_a_tar_that_is_damaged_anywhere_is_read_or_refused(data, tmp_path_factory):
    """Never a crash, and never a sample with another key; what is inside a member only its hash can tell."""
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    written = [sample(f"k{i}", further=((b"v" * 700, bytes(512)),) * (i % 2)) for i in range(3)]
    whole, _ = tar_of(written)
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 4)) if broken else 0):
        at = data.draw(st.integers(0, len(broken) - 1))
        block = data.draw(st.binary(min_size=1, max_size=512))
        broken[at : at + len(block)] = block
    path.write_bytes(broken)
    try:
        found = list(read_tar(path))
    except ShardError as error:
        told = error
    else:
        told, found = None, [one.key for one in found]
    assert (told.hint == "rebuild the shard") if told else (found == [one.key for one in written])


def bomb(kind, size, *, name=b"k.target.jpg"):
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"S", b"X", b"7", b"5", b"2"])
def test_a_header_that_asks_for_gigabytes_is_refused_before_they_are_read(tmp_path, kind):
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(bomb(kind, 3 << 30))
        file.truncate(4 << 30)  # a hole: nothing is on the disk, but it would read as zeros
    tracemalloc.start()
    with pytest.raises(ShardError, match="no part of a sample"):
        list(read_tar(path))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "size", [b"-0000000001", b"99999999999", b"0x000000010", b"\x80" + bytes(10), b"\xff" * 11, b""]
)
def test_a_size_that_is_none_is_refused(tmp_path, size):
    header = bytearray(bomb(b"0", 0))
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(10240))
    with pytest.raises(ShardError, match=r"no part of a sample|does not read to its end"):
        list(read_tar(tmp_path / "x.tar"))


def test_no_tar_at_all_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    for data in (b"", b"hello", bytes(100), np.random.default_rng(0).bytes(4096)):
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"does not read to its end|does not end where"):
            list(read_tar(path))
    with pytest.raises(ShardError, match="No such file"):
        list(read_tar(tmp_path / "missing.tar"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"key": "Upper"}, "a sample key must match"),
        ({"key": "a.b"}, "a sample key must match"),
        ({"key": "a//b"}, "a sample key must match"),
        ({"key": "../a"}, "a sample key must match"),
        ({"key": "x" * 300}, "does not fit a tar"),
        ({"target_sil": bytes(511)}, "silhouette has 511 bytes, not 512"),
        ({"meta": {"dt_s": float("nan")}}, "meta is no plain JSON"),
        ({"meta": {"dt_s": np.float32(1)}}, "meta is no plain JSON"),
        ({"reference_jpg": bytes(MAX_MEMBER_BYTES + 1)}, "more than 4194304 bytes"),
        ({"further": ((b"", bytes(511)),)}, "silhouette has 511 bytes, not 512"),
        ({"further": ((b"", bytes(512)),) * (MAX_FURTHER + 1)}, "15 further views, not 14 at most"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(change, match):
    with pytest.raises(ManifestError, match=match) as caught:
        tar_of([sample(**change)])
    assert caught.value.hint


@given(st.binary(min_size=SILHOUETTE_BYTES, max_size=SILHOUETTE_BYTES))
def test_cells_pack_and_unpack(packed):
    cells = unpack_cells(packed)
    assert cells.shape == (CELLS, CELLS)
    assert cells.dtype == np.bool_
    assert pack_cells(cells) == packed
    # Slow twin: the first cell of a row is the highest bit of its first byte.
    row, column = packed[0] % CELLS, packed[1] % CELLS
    assert cells[row, column] == bool(packed[row * 8 + column // 8] >> (7 - column % 8) & 1)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 4, 5]))
def test_cells_of_a_mask_are_by_majority(seed, step):
    mask = np.random.default_rng(seed).random((CELLS * step, CELLS * step)) < 0.5
    cells = cells_of(mask)
    for row, column in ((0, 0), (3, 60), (63, 63)):
        block = mask[row * step : (row + 1) * step, column * step : (column + 1) * step]
        assert cells[row, column] == (2 * block.sum() >= block.size)


def test_silhouettes_of_another_form_are_refused():
    with pytest.raises(ValueError, match="64 x 64 cells"):
        pack_cells(np.zeros((32, 32), bool))
    with pytest.raises(ValueError, match="not 3"):
        unpack_cells(b"abc")
    for shape in ((64, 128), (100, 100)):
        with pytest.raises(ValueError, match="divisible by 64"):
            cells_of(np.zeros(shape, bool))


def test_members_make_a_sample_again():
    one = make_sample("made/0")
    assert from_members(one.key, dict(one.members())) == one
    assert json.loads(dict(one.members())["json"]) == one.meta
