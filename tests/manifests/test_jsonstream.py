"""The streaming JSON reader: the same values as json, in little memory, and damage named with its place."""

import json
import tracemalloc
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import jsonstream
from manifests.errors import SourceError
from manifests.jsonstream import iter_arrays, iter_items, iter_members
from tests.support.samples import sample

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)
LAYOUTS = st.sampled_from([{}, {"indent": 3}, {"separators": (",", ":")}, {"separators": (" ,\r\n", "\t: ")}])


def small_windows(num_bytes):
    return mock.patch.object(jsonstream, "_WINDOW_BYTES", num_bytes)


def same(values, others):
    """Equal, order of keys and NaN included."""
    return json.dumps(values) == json.dumps(others)


@given(
    others=DOCUMENTS,
    items=st.lists(VALUES, max_size=6),
    position=st.integers(0, 5),
    layout=LAYOUTS,
    ascii_only=st.booleans(),
    window=st.integers(1, 40),
)
def test_items_are_those_of_json(tmp_path_factory, others, items, position, layout, ascii_only, window):
    members = [(name, value) for name, value in others.items() if name != "wanted"]
    members.insert(position, ("wanted", items))
    path = tmp_path_factory.getbasetemp() / "items.json"
    text = json.dumps(dict(members), ensure_ascii=ascii_only, **layout)
    path.write_bytes(text.encode(errors="replace"))
    with small_windows(window):
        assert same(list(iter_items(path, "wanted")), json.loads(path.read_bytes())["wanted"])


@given(document=DOCUMENTS, nested=st.booleans(), layout=LAYOUTS, window=st.integers(1, 40))
def test_members_are_those_of_json(tmp_path_factory, document, nested, layout, window):
    path = tmp_path_factory.getbasetemp() / "members.json"
    path.write_text(json.dumps({"a": [1, {}], "b": document} if nested else document, **layout))
    with small_windows(window):
        assert same(list(iter_members(path, "b" if nested else None)), list(document.items()))


@given(document=DOCUMENTS, window=st.integers(1, 40), data=st.data())
def test_a_cut_file_is_an_error_wherever_it_is_cut(tmp_path_factory, document, window, data):
    raw = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with small_windows(window), pytest.raises(SourceError, match=r"cut\.json is (cut short|not UTF-8)"):
        list(iter_members(path))


@given(
    raw=st.binary(max_size=60) | st.text('{}[]",:1e-.\\u ntrueNI', max_size=40).map(str.encode),
    window=st.integers(1, 20),
)
def test_garbage_is_a_source_error_or_what_json_reads(tmp_path_factory, raw, window):
    path = tmp_path_factory.getbasetemp() / "garbage.json"
    path.write_bytes(b'{"a": ' + raw)
    with small_windows(window):
        try:
            found = dict(iter_members(path))
        except SourceError:
            return
    assert same(found, json.JSONDecoder().raw_decode(path.read_text())[0])


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "data.json"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


@pytest.mark.parametrize("window", range(1, 12))
@pytest.mark.parametrize(
    "number", ["12345", "-1.5e+30", "0.25", "1E-7", "-Infinity", "true", '"\\ud83d\\ude00"', '"é😀"']
)
def test_nothing_is_lost_at_a_window_edge(write, number, window):
    path = write(f'{{"n": [{number},{number} , {number}]}}')
    with small_windows(window):
        assert list(iter_items(path, "n")) == [json.loads(number)] * 3


@pytest.mark.parametrize(
    ("text", "byte", "what"),
    [
        ("", 0, "is cut short"),
        ("  <html>", 2, "expected {, found '<'"),
        ("[1, 2]", 0, r"expected {, found '\['"),
        ('{"é": 1, "n": 3}', 15, r"expected \[, found '3'"),
        ('{"é": 1, "n": [1, 2', 20, "is cut short"),
        ('{"é": 1, "n": [1 2]}', 18, "expected ,, found '2'"),
        ('{"é": 1, "n": [1, ]}', 19, "is cut short, or damaged at its end"),
        ('{"é": 1, "n": [1, nix, 2, 3, 4, 5, 6]}', 19, "expected JSON, found 'n'"),
        ('{"é": 1, "n": [1, {"a" 1, "b": 2, "c": 3}]}', 24, "expected JSON, found '1'"),
        ('{"é" 1}', 6, "expected :, found '1'"),
        ("{1: 2}", 1, "expected a name, found '1'"),
        ('{"n": [1.]}', 8, r"expected ,, found '\.'"),
        (b'{"n": [1, "\xff"]}', 11, "is not UTF-8"),
        (b'{"n": [1, "\xc3', 11, "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("window", [3, 1 << 20])
def test_damage_is_named_with_its_byte(write, text, byte, what, window):
    path = write(text)
    with small_windows(window), pytest.raises(SourceError, match=what) as caught:
        list(iter_items(path, "n"))
    assert caught.value.where == f"{path}, byte {byte}"


def test_items_before_the_damage_are_given(write):
    items = iter_items(write('{"n": [1, 2, oops'), "n")
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(SourceError, match="is cut short, or damaged at its end"):
        next(items)


def test_an_absent_key_is_told_with_those_that_are_there(write):
    with pytest.raises(SourceError, match="has no key 'annotations'; its keys: 'images', 'info'"):
        list(iter_items(write('{"images": [{"annotations": 1}], "info": {}}'), "annotations"))


@pytest.mark.parametrize("window", [3, 1 << 20])
def test_several_arrays_are_read_in_one_pass(write, window):
    path = write('{"a": [1, {"b": [9]}], "x": {"b": [8]}, "b": [[2]], "a": [7], "end": 0}')
    with small_windows(window):
        found = list(iter_arrays(path, ("b", "a")))
    assert [(key, item) for key, item, _ in found] == [("a", 1), ("a", {"b": [9]}), ("b", [2])]
    places = [done for *_, done in found]
    assert places == sorted(places)
    assert (0 < places[-1] < path.stat().st_size) == (window == 3)


def test_several_arrays_ask_for_each_and_for_the_whole_file(write):
    with pytest.raises(SourceError, match="has no key 'b'; its keys: 'a', 'c'"):
        list(iter_arrays(write('{"a": [1], "c": [2]}'), ("a", "b")))
    with pytest.raises(SourceError, match="is cut short"):
        list(iter_arrays(write('{"a": [1], "b": [2]'), ("a", "b")))


def test_an_absent_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match=r"cannot read data\.json: No such file"):
        next(iter_items(tmp_path / "data.json", "images"))


def test_brackets_without_end_are_a_source_error(write):
    with pytest.raises(SourceError, match="is damaged: maximum recursion depth"):
        list(iter_items(write('{"n": [' + "[" * 200_000), "n"))


def test_a_number_without_end_is_a_source_error(write):
    with pytest.raises(SourceError, match="is damaged: Exceeds the limit"):
        list(iter_items(write('{"n": [' + "9" * 5000 + "]}"), "n"))


@pytest.mark.parametrize("quote", ['"', "["])
def test_a_damaged_item_does_not_swallow_the_rest_of_the_file(write, quote):
    path = write('{"n": [1, ' + quote + "7, " * 100_000 + "]}")
    with small_windows(100), pytest.raises(SourceError, match="an item of more than 5000 bytes") as caught:
        list(iter_items(path, "n", max_item_bytes=5000))
    assert caught.value.where.endswith("byte 10")


def test_memory_does_not_grow_with_the_file(tmp_path):
    path, num_items = tmp_path / "large.json", 90_000
    with path.open("w") as file:
        for key, closing in (("images", "],"), ("annotations", "]}")):
            file.write(("{" if key == "images" else "") + f'"{key}": [')
            item = json.dumps({"id": 7, "file_name": "a" * 60, "bbox": [0.5, 1.5, 2.5, 3.5]})
            file.write(",\n".join([item] * num_items) + closing)
    assert path.stat().st_size > 19e6
    tracemalloc.start()
    try:
        assert sum(item["id"] for item in iter_items(path, "annotations")) == 7 * num_items
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6


def test_reads_interhand_annotations():
    folder = sample("open-mmlab+mmpose/tests/data/interhand2.6m")
    path = folder / "test_interhand2.6m_data.json"
    whole = json.loads(path.read_text())
    for key in ("images", "annotations"):
        assert list(iter_items(path, key)) == whole[key] != []
    joints = folder / "test_interhand2.6m_joint_3d.json"
    assert dict(iter_members(joints)) == json.loads(joints.read_text())
