"""Headers of tars by columns: the same that the writer writes, and none for names that it does not write."""

import io
from dataclasses import replace

import pyarrow as pa
import pytest

from manifests import table as tables
from manifests.audit import tars
from manifests.sample import member_names, write_tar
from tests.support.builds import make_sample


def block_of(samples):
    """A tar of these samples, and what its index tells of them."""
    file = io.BytesIO()
    index = tables.from_rows("index", write_tar(file, samples))
    return file.getvalue(), tars.Block.of(index)


@pytest.mark.parametrize("length", [1, 85, 86, 99, 100, 101, 120, 180, 235])
def test_headers_are_those_that_the_writer_writes(length):
    name = ("a" * 7 + "/" + "b-0" * 10 + "/" + "c" * 60 + "/" + "d_1/" * 50)[: length - 1] + "e"
    picture, silhouette = make_sample("a").target_jpg, make_sample("a").target_sil
    some = [
        replace(make_sample("a"), key="a"),
        replace(make_sample("a"), key=name, further=((picture, silhouette),) * 3),
    ]
    tar, block = block_of(some)
    assert block.names == [f"{one.key}.{member}" for one in some for member in member_names(len(one.further))]
    due = tars.headers_of(block)
    assert due is not None
    assert len(due) == 5 + 11
    for header, offset in zip(due, block.offset, strict=True):
        assert header.tobytes() == tar[offset - 512 : offset]


@pytest.mark.parametrize("key", ["a" * 101, "é", ""])
def test_names_that_no_writer_writes_have_no_header(key):
    _, block = block_of([make_sample("a")])
    assert tars.headers_of(replace(block, keys=pa.array([key]))) is None
