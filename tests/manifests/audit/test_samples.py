"""JSON of samples against their pairs: all documents at once tell the same as one by one."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import table as tables
from manifests.audit import samples
from manifests.audit.files import look_at_files
from manifests.build import Build
from tests.support.build_folder import make_build

SHARD = "train-rig-body-000000"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """The documents of a shard, the rows of their pairs, and the pairs."""
    root = make_build(tmp_path_factory.mktemp("documents") / "out")
    with ThreadPoolExecutor(1) as pool:
        evidence, _ = look_at_files(root, pool, lambda *_: None)
        paired = samples.Paired.of(evidence.parts["pairs"], pool)
    keys = Build(root).table("pairs", columns=["key"])["key"].to_pylist()
    tar = root / "shards" / f"{SHARD}.tar"
    index = tables.read("index", tar.with_suffix(".index.parquet")).to_pylist()
    data, places = tar.read_bytes(), [row["json"] for row in index]
    texts = [data[place["offset"] : place["offset"] + place["size"]] for place in places]
    return texts, np.array([keys.index(row["key"]) for row in index]), paired


def told_one_by_one(texts, pair, paired):
    bad = defaultdict(list)
    samples._look_at_each(texts, [str(n) for n in range(len(texts))], pair, paired, bad)
    return bad


def test_documents_that_agree_are_not_looked_at_one_by_one(documents):
    assert samples._agree(*documents)
    assert not told_one_by_one(*documents)


ODD_DOCUMENTS = {
    "another word": lambda text: text.replace(b'"kind":"cross', b'"kind":"cruss'),
    "another key": lambda text: text.replace(b"/p0", b"/p1"),
    "a key twice": lambda text: text[:-1] + b',"kind":"none"}',
    "a number for a word": lambda text: text.replace(b'"split":"train"', b'"split":3'),
    "no number": lambda text: text.replace(b'"dt_s":', b'"dt_s":NaN,"was":'),
    "null": lambda text: text.replace(b'"split":"train"', b'"split":null'),
    "no side": lambda text: text.replace(b'"target":{', b'"target":null,"was":{'),
    "a letter that is none of ASCII": lambda text: text.replace(b'"split":"train"', b'"split":"train","a":"\xff"'),
    "half a letter": lambda text: text[:-1] + b',"a":"\xc3"}',
    "an open bracket": lambda text: text[:-1],
    "a bracket more": lambda text: text + b"}",
    "two": lambda text: text + text,
    "two lines": lambda text: text + b"\n" + text,
    "none": lambda text: b"",
    "a list": lambda text: b"[" + text + b"]",
    "deeper than Python reads": lambda text: text[:-1] + b',"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number longer than Python reads": lambda text: text[:-1] + b',"a":' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("odd", ODD_DOCUMENTS)
@pytest.mark.parametrize("place", [0, 7])
def test_document_that_does_not_agree(documents, odd, place):
    texts, pair, paired = documents
    texts = [ODD_DOCUMENTS[odd](text) if number == place else text for number, text in enumerate(texts)]
    assert not samples._agree(texts, pair, paired)
    (names,) = told_one_by_one(texts, pair, paired).values()
    assert names == [str(place)]


def test_a_document_with_another_s_inside_does_not_stand_for_it(documents):
    """As many rows as documents, and each as it should be; but one of the documents holds two, and the next nothing."""
    texts, pair, paired = documents
    texts = [texts[0] + b"\n" + texts[1], b" ", *texts[2:]]
    assert not samples._agree(texts, pair, paired)
    assert sorted(told_one_by_one(texts, pair, paired)["sample_json", "its JSON does not parse"]) == ["0", "1"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_agrees_all_at_once_agrees_one_by_one(documents, data):
    texts, pair, paired = documents
    place = data.draw(st.integers(0, len(texts) - 1))
    text = texts[place]
    at = data.draw(st.integers(0, len(text) - 1))
    until = data.draw(st.integers(at, min(len(text), at + 3)))
    texts = [*texts[:place], text[:at] + data.draw(st.binary(max_size=3)) + text[until:], *texts[place + 1 :]]
    if samples._agree(texts, pair, paired):
        assert not told_one_by_one(texts, pair, paired)
