"""The reader of old pickles: what datasets hold comes back, everything else is refused by name and nothing runs."""

import codecs
import copyreg
import os
import pickle
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from manifests.errors import SourceError
from manifests.unpickle import Inert, SparseColumns, loads_pickle, read_pickle
from tests.support.pickles import python2_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = st_np.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufcS")
ARRAYS = st_np.arrays(DTYPES | st_np.array_dtypes(DTYPES), st_np.array_shapes(min_dims=0, min_side=0, max_side=3))


def same(value, other):
    """Equal in type, shape and content, NaN and nesting included."""
    if isinstance(value, dict):
        return type(other) is dict and list(value) == list(other) and all(same(value[k], other[k]) for k in value)
    if isinstance(value, (list, tuple)):
        return type(value) is type(other) and len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return value.dtype == other.dtype and value.shape == other.shape and same(value.tolist(), other.tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        alike = type(value) is type(other) and value.dtype == other.dtype and value.shape == other.shape
        return alike and value.tobytes() == other.tobytes()
    return type(value) is type(other) and value == other


def sequence_of_3dpw():
    """The members of one 3DPW sequence, few frames of it."""
    rng = np.random.default_rng(0)
    return {
        "sequence": "courtyard_arguing_00",
        "genders": ["m", "f"],
        "betas": [rng.normal(size=10) for _ in range(2)],
        "poses": [rng.normal(size=(3, 72)) for _ in range(2)],
        "poses2d": [np.asfortranarray(rng.normal(size=(3, 3, 18))) for _ in range(2)],
        "img_frame_ids": np.arange(3),
        "cam_intrinsics": np.eye(3, dtype=np.float32),
        "campose_valid": [np.ones(3, bool), np.zeros(3, np.uint8)],
        "texture_maps": [],
        "frame": (np.float64(0.5), np.int64(3), 7, -(2**70), 1.5, None, True),
        "ragged": np.array([np.arange(2), None, "é", [1.0]], object),
        "table": np.zeros(2, [("name", "S4"), ("xyz", ">f4", (3,))]),
        "scalar": np.array(3.0),
        "words": np.array(["ab", "cdé"]),
        "none": np.zeros((0, 3)),
    }


def test_python2_bytes_come_back():
    value = sequence_of_3dpw()
    data = python2_pickle(value)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    assert b"numpy._core" not in data
    found = loads_pickle(data)
    assert same(found, value)
    assert found["poses2d"][0].flags.f_contiguous
    assert found["betas"][0].flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_comes_back(protocol, tmp_path):
    path = tmp_path / "courtyard_arguing_00.pkl"
    value = sequence_of_3dpw()
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(read_pickle(path), value)


@given(array=ARRAYS, protocol=st.sampled_from(PROTOCOLS), fortran=st.booleans())
def test_any_array_comes_back(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    assert same(loads_pickle(pickle.dumps([array, array], protocol)), [array, array])
    assert same(loads_pickle(python2_pickle({"x": array})), {"x": array})


def test_reads_the_text_form_of_python2():
    """Protocol 0 with the escapes and the object dtype `O8` of an old numpy."""
    data = (
        b"(dp0\nS'camMat'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        b"(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
        b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xc0'\np15\ntp16\nbsS'objName'\np17\n"
        b"g2\n(g3\n(I0\ntp18\ng5\ntp19\nRp20\n(I1\n(I1\ntp21\ng9\n(S'O8'\np22\nI0\nI1\ntp23\nRp24\n(I3\nS'|'\np25\n"
        b"NNNI-1\nI-1\nI63\ntp26\nbI00\n(lp27\nS'003_\\xe9'\np28\natp29\nbs."
    )
    found = loads_pickle(data)
    assert same(found["camMat"], np.array([1.0, -2.0]))
    assert same(found["objName"], np.array(["003_é"], object))


def test_the_same_array_stays_the_same():
    array = np.arange(3)
    found = loads_pickle(python2_pickle([array, [array], np.dtype("O"), array.dtype]))
    assert found[0] is found[1][0]
    assert found[2:] == [np.dtype("O"), np.dtype("int64")]


def test_chumpy_is_inert_and_its_state_can_be_read():
    chumpy_class = type("Ch", (), {"__module__": "chumpy.ch"})
    vertices = chumpy_class()
    vertices.x, vertices._dirty_vars, vertices.me = np.eye(3), set(), vertices
    found = loads_pickle(python2_pickle({"v_template": vertices, "again": vertices}))["v_template"]
    assert isinstance(found, Inert)
    assert found.name == "chumpy.ch.Ch"
    assert same(found.state["x"], np.eye(3))
    assert found.state["_dirty_vars"] == set()
    assert found.state["me"] is found
    assert not callable(found)


def test_old_style_classes_of_protocol_0_are_inert_too():
    found = loads_pickle(b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR(dS'x'\nI3\nsb.")
    assert (found.name, found.state) == ("chumpy.ch.Ch", {"x": 3})


@pytest.mark.parametrize("protocol", ["python2", *PROTOCOLS])
def test_sparse_matrices_come_back_without_scipy(protocol, monkeypatch):
    dense = np.array([[0, 2.0, 0, 0], [0, 0, 0, 3.0], [1.0, 0, 0, 0]])
    value = {"J_regressor": scipy.sparse.csc_matrix(dense)}
    data = python2_pickle(value) if protocol == "python2" else pickle.dumps(value, protocol)
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = loads_pickle(data)["J_regressor"]
    assert isinstance(found, SparseColumns)
    assert found.shape == (3, 4)
    assert same(found.toarray(), dense)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("indices", np.array([0, 9])),
        ("indices", np.array([0, -1])),
        ("indices", np.array([0])),
        ("indptr", np.array([0, 1])),
        ("indptr", np.array([0, 2, 1])),
        ("indptr", np.array([0, 1, 9])),
        ("data", np.array([None, None])),
        ("data", [1.0, 2.0]),
        ("_shape", (10**6, 10**6)),
        ("_shape", (-1, 2)),
        ("_shape", 3),
    ],
)
def test_sparse_matrices_that_do_not_fit_are_refused(part, value):
    sparse = type("csc_matrix", (), {"__module__": "scipy.sparse.csc"})()
    vars(sparse).update(data=np.ones(2), indices=np.array([0, 1]), indptr=np.array([0, 1, 2]), _shape=(2, 2))
    assert same(loads_pickle(python2_pickle(sparse)).toarray(), np.eye(2))
    setattr(sparse, part, value)
    with pytest.raises(SourceError, match="does not read as a pickle of arrays"):
        loads_pickle(python2_pickle(sparse))


# Refusals: `Call` pickles as a call of any function.


class Call:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def sprung(tmp_path, monkeypatch):
    """A file that any of the hostile pickles would write when it ran."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "sprung"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        (r"posix\.system", Call(os.system, "touch sprung")),
        (r"(builtins|__builtin__)\.eval", Call(eval, "open('sprung', 'w')")),
        (r"(builtins|__builtin__)\.exec", Call(exec, "open('sprung', 'w')")),
        (r"(builtins|__builtin__)\.getattr", Call(getattr, np.ndarray, "tofile")),
        (r"numpy\.load", Call(np.load, "sprung", None, True)),
        (r"numpy\.save", Call(np.save, "sprung", 3)),
        (r"numpy\.fromfile", Call(np.fromfile, "sprung")),
        (r"_?pickle\.loads", Call(pickle.loads, b"")),
        (r"copy_?reg\.add_extension", Call(copyreg.add_extension, "posix", "system", 7)),
        (r"_codecs\.decode", Call(codecs.decode, b"", "latin1")),
    ],
)
@pytest.mark.parametrize(
    "nest",
    [lambda x: x, lambda x: {"a": np.array([x], object)}, lambda x: [("b", {"c": x})]],
    ids=["bare", "array", "list"],
)
def test_calls_are_refused_by_name(sprung, protocol, name, call, nest):
    with pytest.raises(SourceError, match=rf"refused: seq\.pkl asks to import {name}; not a dataset pickle") as caught:
        loads_pickle(pickle.dumps(nest(call), protocol), where="train/seq.pkl")
    assert caught.value.where == "train/seq.pkl"
    assert "publisher" in caught.value.hint


def text(value):
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.__reduce__"),
        ("numpy", "ndarray.__class__.__base__"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy.core", "multiarray.scalar"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.core.multiarray", ""),
        ("", "numpy.dtype"),
        ("numpy.core.multiarray._reconstruct", ""),
        ("copyreg", "_reconstructor.__globals__"),
        ("_codecs", "encode.__self__"),
        ("builtins", "set.__subclasses__"),
        ("builtins", "type"),
        ("chumpyevil", "Ch"),
        ("scipy.sparse.csc", "csc_matrix.__init__"),
        ("scipy.sparse.csc", "os.system"),
        ("os\n\x1b[2J", "system"),
    ],
)
def test_names_that_walk_are_refused(module, name):
    stacked = b"\x80\x04" + text(module) + text(name) + b"\x93."
    shown = "".join(letter if letter.isprintable() else "?" for letter in f"{module}.{name}")
    with pytest.raises(SourceError) as caught:
        loads_pickle(stacked)
    assert caught.value.what == f"refused: a pickle asks to import {shown}; not a dataset pickle"
    if "\n" not in module:
        for data in (f"c{module}\n{name}\n.", f"(i{module}\n{name}\n."):
            with pytest.raises(SourceError, match="refused: "):
                loads_pickle(data.encode())


def test_a_chumpy_name_that_walks_stays_inert(sprung):
    data = b"\x80\x04" + text("chumpy.utils") + text("os.system") + b"\x93" + text("touch sprung") + b"\x85R."
    assert loads_pickle(data).args == ("touch sprung",)


def test_registered_extension_codes_are_refused(sprung, monkeypatch):
    monkeypatch.setitem(copyreg._extension_cache, 7, os.system)
    for opcode in (b"\x82\x07", b"\x83\x07\x00", b"\x84\x07\x00\x00\x00"):
        with pytest.raises(SourceError, match="uses the extension code 7"):
            loads_pickle(b"\x80\x02" + opcode + b"U\x0ctouch sprung\x85R.")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("persistent id", b"Pabc\n."),
        ("persistent id", b"I3\nQ."),
        ("out-of-band", b"\x80\x05\x97."),
        ("not callable", b"I3\n)R."),
        ("not callable", b"(lI1\n\x85R."),
        ("146|NEWOBJ_EX|KeyError", b"\x80\x04cchumpy.ch\nCh\n)}\x92."),
        ("holds a list", b"(l}b."),
        ("holds a partial", b"cchumpy.ch\nCh\n}b."),
        ("bytes encoded as 'rot13'", b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR."),
        ("bytes encoded as 'idna'", b"c_codecs\nencode\n(S'abc'\nS'idna'\ntR."),
        ("takes 0 positional", b"cbuiltins\nbytes\n(I1000000000000\ntR."),
        # Sizes that the bytes do not bear out: numpy's own __setstate__ reads past the list in the third.
        ("8 bytes for an array", ARRAY + b"(I1\n(I1000000000000\nt" + DTYPE % b"f8" + b"I00\nS'12345678'\ntb."),
        ("0 bytes for an array", ARRAY + b"(I1\n(I1000000000000\nt" + DTYPE % b"S0" + b"I00\nS''\ntb."),
        ("an array of 0 objects", ARRAY + b"(I1\n(I9\nt" + DTYPE % b"O8" + b"I00\n(ltb."),
        ("a shape", ARRAY + b"(I1\n(I-1\nI-1\nt" + DTYPE % b"i1" + b"I00\nS'1'\ntb."),
        ("objects where numbers", b"cnumpy.core.multiarray\nscalar\n(" + DTYPE % b"O8" + b"S'12345678'\ntR."),
        ("a dtype '<''M8'", DTYPE % b"M8" + b"."),
        ("a dtype '<''f8,f8'", DTYPE % b"f8,f8" + b"."),
        ("end.* in the middle|ends in the middle", b"cnumpy\ndtype\n(S'f8'\ntR."),
        ("Fields|itemsize|offset", b"cnumpy\ndtype\n(S'V8'\ntR(I3\nS'|'\nN(S'x'\nt(dS'x'\n(" + DTYPE % b"f8" + b"I4096\ntsI8\nI1\nI0\ntb."),
        ("object columns", b"cnumpy\ndtype\n(S'V8'\ntR(I3\nS'|'\nN(S'x'\nt(dS'x'\n(" + DTYPE % b"O8" + b"I0\ntsI8\nI1\nI0\ntb."),
    ],
)  # fmt: skip
def test_opcodes_and_states_that_no_dataset_has_are_refused(what, data):
    with pytest.raises(SourceError, match=what):
        loads_pickle(data)


def test_copies_of_a_memo_cannot_fill_the_memory():
    once = b"c_codecs\nencode\np1\n(S'" + b"a" * 100_000 + b"'\np2\nS'latin1'\np3\ntR"
    again = b"(" + b"g1\n(g2\ng3\ntR" * 1000 + b"t."
    assert len(loads_pickle(once + b"." + b" " * 7)) == 100_000
    with pytest.raises(SourceError, match="grows far beyond the size of its file"):
        loads_pickle(once + again)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cut_file_is_a_source_error_wherever_it_is_cut(protocol):
    data = pickle.dumps(sequence_of_3dpw(), protocol)
    for end in range(0, len(data), 37):
        with pytest.raises(SourceError, match="does not read as a pickle of arrays") as caught:
            loads_pickle(data[:end])
        assert "cut short" in caught.value.hint


PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.ndarray, np.generic, SparseColumns)


def odd_parts(value):
    """The types of whatever in a value this reader does not make."""
    found, todo, seen = set(), [value], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            todo += one
        elif isinstance(one, Inert):
            todo += [one.args, one.state]
        elif isinstance(one, np.ndarray) and one.dtype.hasobject and one.dtype.names is None:
            todo += one.ravel().tolist()
        elif not isinstance(one, PLAIN):
            found.add(type(one))
    return found


@given(data=st.binary(max_size=80), flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4))
def test_garbage_gives_plain_values_or_an_error_with_a_hint(data, flips):
    honest = bytearray(python2_pickle({"a": np.arange(3), "b": np.array([None], object), "c": np.zeros(1, "f4,i2")}))
    for position, value in flips:
        honest[position % len(honest)] = value
    for damaged in (data, bytes(honest)):
        loaded, refused = None, None
        try:
            loaded = loads_pickle(damaged)
        except SourceError as error:
            refused = error
        assert odd_parts(loaded) == set()
        assert refused is None or refused.hint


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html><html>", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x63N."])
def test_other_files_are_a_source_error_with_a_hint(tmp_path, data):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"SMPL_NEUTRAL\.pkl does not read as a pickle of arrays: .+") as caught:
        read_pickle(path)
    assert caught.value.where == str(path)
    assert "download it again" in caught.value.hint


def test_an_absent_file_and_a_giant_one_are_source_errors(tmp_path):
    path = tmp_path / "seq.pkl"
    with pytest.raises(SourceError, match=r"cannot read seq\.pkl: No such file"):
        read_pickle(path)
    with path.open("wb") as file:
        file.truncate((2 << 30) + (1 << 29))
    with pytest.raises(SourceError, match=r"seq\.pkl has 2\.5 GiB"):
        read_pickle(path)


def test_nothing_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loads_pickle(python2_pickle([sequence_of_3dpw(), scipy.sparse.csc_matrix(np.eye(2))]))
    assert caught == []
