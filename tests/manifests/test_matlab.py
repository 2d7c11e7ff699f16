"""The MATLAB reader: both formats by their header, libraries optional, damage named."""

import struct
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from manifests import matlab
from manifests.errors import SourceError
from manifests.matlab import read_mat
from tests.support.samples import sample

h5py = pytest.importorskip("h5py")

MATRIX = np.arange(24.0).reshape(2, 3, 4)


def write_version_5(path, *, compressed=True):
    """An annotation file like those of MPI-INF-3DHP: cells, a struct array, text."""
    cells = np.empty((2, 1), object)
    cells[0, 0], cells[1, 0] = np.eye(2), np.arange(6).reshape(2, 3)
    people = np.array([[("ann", 3), ("bob", 4)]], [("name", object), ("id", object)])
    values = {"annot2": cells, "people": people, "pose": MATRIX, "action": "walking", "valid": np.array([True, False])}
    scipy.io.savemat(path, values, do_compression=compressed)
    return path


def write_version_73(path, *, user_block=True):
    """The same as MATLAB saves it with `-v7.3`: axes reversed, cells and struct arrays as references, text as UTF-16."""
    with h5py.File(path, "w", userblock_size=512 if user_block else 0) as file:

        def put(group, name, stored, kind):
            group[name] = stored
            group[name].attrs["MATLAB_class"] = np.bytes_(kind)
            return group[name].ref

        def letters(text):
            return np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]

        refs = file.create_group("#refs#")
        cells = [
            put(refs, "a", np.eye(2), "double"),
            put(refs, "b", np.arange(6).reshape(2, 3).T, "int64"),
            put(refs, "c", letters("Zoë😀"), "char"),
            put(refs, "d", np.array([0, 0], np.uint64), "double"),
        ]
        refs["d"].attrs["MATLAB_empty"] = np.uint8(1)
        put(file, "annot2", np.array([cells], h5py.ref_dtype), "cell")
        put(file, "pose", MATRIX.T, "double")
        put(file, "action", letters("walking"), "char")
        put(file, "valid", np.array([[1], [0]], np.uint8), "logical")
        for name, stored in (("no_cell", [0, 0]), ("no_text", [0, 0]), ("nobody", [3, 0])):
            put(file, name, np.array(stored, np.uint64), {"no_cell": "cell", "no_text": "char"}.get(name, "single"))
            file[name].attrs["MATLAB_empty"] = np.uint8(1)
        people = file.create_group("people")
        people.attrs["MATLAB_class"] = np.bytes_("struct")
        people["name"] = np.array([cells[2:3], [h5py.Reference()]], h5py.ref_dtype)
        put(people, "count", np.array([[2.0]]), "double")
    if user_block:
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_version_5_comes_as_plain_arrays(tmp_path, compressed):
    found = read_mat(write_version_5(tmp_path / "annot.bin", compressed=compressed))
    assert sorted(found) == ["action", "annot2", "people", "pose", "valid"]
    np.testing.assert_array_equal(found["pose"], MATRIX)
    assert found["annot2"].shape == (2, 1)
    np.testing.assert_array_equal(found["annot2"][1, 0], [[0, 1, 2], [3, 4, 5]])
    assert found["people"].dtype.names == ("name", "id")
    assert found["people"]["name"][0, 1].tolist() == ["bob"]
    assert found["action"].tolist() == ["walking"]
    assert found["valid"].tolist() == [[1, 0]]


@pytest.mark.parametrize("user_block", [True, False])
def test_version_73_comes_in_matlabs_order(tmp_path, user_block):
    found = read_mat(write_version_73(tmp_path / "annot_data.txt", user_block=user_block))
    assert sorted(found) == ["action", "annot2", "no_cell", "no_text", "nobody", "people", "pose", "valid"]
    np.testing.assert_array_equal(found["pose"], MATRIX)
    assert isinstance(found["annot2"], list)
    np.testing.assert_array_equal(found["annot2"][1], [[0, 1, 2], [3, 4, 5]])
    assert found["annot2"][2].tolist() == ["Zoë😀"]
    assert found["annot2"][3].shape == (0, 0)
    assert found["action"].tolist() == ["walking"]
    assert found["valid"].tolist() == [[1, 0]]
    assert (found["people"]["name"][0].tolist(), found["people"]["name"][1]) == (["Zoë😀"], None)
    assert found["people"]["count"].tolist() == [[2.0]]
    assert found["no_cell"] == []
    assert (found["no_text"].dtype.kind, found["no_text"].shape) == ("U", (0, 0))
    assert (found["nobody"].dtype, found["nobody"].shape) == (np.dtype("f4"), (3, 0))


def test_both_versions_tell_the_same(tmp_path):
    old, new = read_mat(write_version_5(tmp_path / "old.mat")), read_mat(write_version_73(tmp_path / "new.mat"))
    for name in ("pose", "action", "valid"):
        assert old[name].dtype == new[name].dtype
        np.testing.assert_array_equal(old[name], new[name])


def test_a_cell_of_many_columns_is_flat_in_matlabs_order(tmp_path):
    path = tmp_path / "cells.mat"
    with h5py.File(path, "w") as file:
        for name in "abcdef":
            file[f"#refs#/{name}"] = np.full((1, 1), ord(name))
        # MATLAB: {a, c, e; b, d, f}
        file["cell"] = np.array([[file[f"#refs#/{n}"].ref for n in row] for row in ("ab", "cd", "ef")], h5py.ref_dtype)
    assert [chr(item[0, 0]) for item in read_mat(path)["cell"]] == list("abcdef")


@pytest.mark.parametrize("write", [write_version_5, write_version_73])
def test_only_the_wanted_variables_are_read(tmp_path, write):
    path = write(tmp_path / "a.mat")
    assert sorted(read_mat(path, variables=["pose", "action"])) == ["action", "pose"]
    assert read_mat(path, variables=[]) == {}
    with pytest.raises(SourceError, match=r"a\.mat has no variable absent, missing"):
        read_mat(path, variables=iter(["pose", "missing", "absent"]))


@pytest.mark.parametrize(("write", "package"), [(write_version_5, "scipy"), (write_version_73, "h5py")])
def test_an_absent_library_is_told_with_the_extra(tmp_path, monkeypatch, write, package):
    path = write(tmp_path / "a.mat")
    for name in ("h5py", "scipy", "scipy.io", "scipy.io.matlab"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SourceError, match=rf"a\.mat needs {package} to be read, which is not installed") as caught:
        read_mat(path)
    assert caught.value.hint == "pip install 'crosspose[datasets]'"


def test_importing_the_reader_imports_neither_library():
    code = "import sys, manifests.matlab; assert not {'scipy', 'h5py'} & {name.split('.')[0] for name in sys.modules}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("write", [write_version_5, write_version_73])
def test_a_cut_file_is_a_source_error_wherever_it_is_cut(tmp_path, write):
    whole, path = write(tmp_path / "whole.mat").read_bytes(), tmp_path / "cut.mat"
    errors, num_found = [], []
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:end])
        try:
            num_found.append(len(read_mat(path)))
        except SourceError as error:
            errors.append(str(error))
    assert len(errors) > 55
    assert all(text.startswith("cut.mat ") and "download it again" in text for text in errors)
    # Version 5 is a list of variables without an end: nothing tells of a cut between two.
    assert all(number < 5 for number in num_found)
    assert not num_found or write is write_version_5


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>" * 50, b"\x80\x02}.", b"PK\x03\x04" * 200, bytes(600)])
def test_other_files_are_a_source_error(tmp_path, data):
    path = tmp_path / "annot.mat"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"annot\.mat is no MATLAB file of version 5 or later: it begins with b'"):
        read_mat(path)
    with pytest.raises(SourceError, match=r"cannot read none\.mat: No such file"):
        read_mat(tmp_path / "none.mat")


@pytest.mark.parametrize("write", [write_version_5, write_version_73])
def test_damage_inside_is_a_source_error_or_other_values(tmp_path, write):
    whole, path = write(tmp_path / "whole.mat").read_bytes(), tmp_path / "damaged.mat"
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(60):
        data = bytearray(whole)
        for position in rng.integers(0, len(whole), 20):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_mat(path)
        except SourceError:
            errors += 1
    assert errors > 0


def change(data, position, values):
    return data[:position] + bytes(values) + data[position + len(values) :]


@pytest.mark.parametrize("kind", [0, 8, 10, 11, 14, 15, 19, 20, 255])
def test_kinds_that_would_end_the_process_are_refused(tmp_path, kind):
    path = tmp_path / "crash.mat"
    scipy.io.savemat(path, {"a": np.arange(7.0)})
    data = path.read_bytes()
    start = data.index(np.arange(7.0).tobytes())
    assert data[start - 8] == 9  # the kind of doubles
    path.write_bytes(change(data, start - 8, [kind]))
    with pytest.raises(SourceError, match=f"an element of kind {kind} where numbers are due"):
        read_mat(path)


def test_sizes_and_classes_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "odd.mat"
    scipy.io.savemat(path, {"a": np.arange(7.0)})
    data = path.read_bytes()
    size = data.index(np.arange(7.0).tobytes()) - 4
    for damaged, what in (
        (change(data, size, [57]), "longer than what it lies in"),
        (change(data, 132, [255, 255, 255, 127]), "longer than what it lies in"),
        (change(data, 128, [9]), "an element of kind 9 where a variable is due"),
        (change(data, 144, [5]), "a variable of class 5"),
        (change(data, 144, [77]), "a variable of class 77"),
        (change(data, 144, [1]), "an element of kind 9 where a variable is due"),
        (change(data, 145, [8]), r"1 elements for a variable of shape \[1, 7\]"),
        (change(data, 160, [255] * 4), r"1 elements for a variable of shape \[-1, 7\]"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=what):
            read_mat(path)


def test_cells_in_cells_have_an_end(tmp_path):
    value = np.ones((1, 1))
    for _ in range(40):
        cell = np.empty((1, 1), object)
        cell[0, 0] = value
        value = cell
    scipy.io.savemat(tmp_path / "deep.mat", {"a": value})
    with pytest.raises(SourceError, match="cells without end"):
        read_mat(tmp_path / "deep.mat")


def test_compressed_variables_may_unfold_only_so_far(tmp_path, monkeypatch):
    path = write_version_5(tmp_path / "a.mat")
    monkeypatch.setattr(matlab, "_MAX_BYTES", 600)
    with pytest.raises(SourceError, match="it unfolds to more than"):
        read_mat(path)


def test_the_byte_order_of_other_machines_is_read(tmp_path):
    """A 2 x 1 array of int16, written as a big-endian machine does."""
    parts = [(6, [0, 0, 0, 10, 0, 0, 0, 0]), (5, [0, 0, 0, 2, 0, 0, 0, 1]), (1, b"x"), (3, [1, 2, 255, 254])]
    body = b"".join(struct.pack(">II", kind, len(part)) + bytes(part) + bytes(-len(part) % 8) for kind, part in parts)
    path = tmp_path / "big.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    assert read_mat(path)["x"].tolist() == [[258], [-2]]


def link_outside(file):
    file["pose"] = h5py.ExternalLink("secret.h5", "/x")


def link_soft(file):
    file["pose"] = h5py.SoftLink("/#refs#/a")


def store_outside(file):
    file.create_dataset("pose", (4,), np.uint8, external=[("secret.bin", 0, 4)])


def store_virtually(file):
    layout = h5py.VirtualLayout((2,), np.uint8)
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2,))
    file.create_virtual_dataset("pose", layout)


def claim_much(file):
    file.create_dataset("pose", (1 << 40,), np.float64, chunks=(1 << 10,))


def run_in_circles(file):
    cell = file.create_dataset("pose", (2, 1), h5py.ref_dtype)
    cell[:] = [[cell.ref], [cell.ref]]


def claim_to_be_empty(file):
    file["pose"] = np.array([1 << 20, 1 << 20], np.uint64)
    file["pose"].attrs["MATLAB_empty"] = np.uint8(1)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (link_outside, "pose is a link to elsewhere"),
        (link_soft, "pose is a link to elsewhere"),
        (store_outside, "/pose is stored in another file"),
        (store_virtually, "/pose is stored in another file"),
        (claim_much, "it unfolds to more than 8 GiB"),
        (claim_to_be_empty, "/pose is empty and has the shape"),
        (run_in_circles, "contains itself"),
    ],
)
def test_hdf5_that_reaches_out_or_runs_away_is_refused(tmp_path, write, what):
    path = tmp_path / "hostile.mat"
    with h5py.File(path, "w") as file:
        write(file)
    with pytest.raises(SourceError, match=rf"hostile\.mat does not read as a MATLAB file: .*{what}"):
        read_mat(path)


def test_contents_that_cells_share_are_read_once(tmp_path):
    """Twenty cells, each of twice the one before: a million arrays if they were read anew."""
    path = tmp_path / "shared.mat"
    with h5py.File(path, "w") as file:
        inner = file.create_dataset("#refs#/0", data=np.ones((1, 1)))
        for index in range(1, 21):
            outer = file.create_dataset(f"#refs#/{index}", (2, 1), h5py.ref_dtype)
            outer[:] = [[inner.ref], [inner.ref]]
            inner = outer
        file["cell"] = inner
    value = read_mat(path)["cell"]
    for _ in range(20):
        assert value[0] is value[1]
        value = value[0]
    assert value.tolist() == [[1.0]]


def test_reads_the_tracks_of_mars():
    found = read_mat(sample("liangzheng06+MARS-evaluation/info/tracks_train_info.mat"))
    assert found["track_train_info"].shape == (8298, 4)
