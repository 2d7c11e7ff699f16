"""Any damage to any file of a build: a finding, never a crash."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import table as tables
from manifests.audit.prove import audit
from manifests.errors import ManifestError
from tests.support.build_folder import make_build

NOT_PROVEN = ("stats.json", ".lock")  # durations and locks say nothing about the build
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["units", "fingerprint", "own", "packed", "files", "unit", "a"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = make_build(tmp_path_factory.mktemp("whole") / "out")
    assert audit(root, threads=1).passed
    return root


def damaged(data, draw):
    """Other bytes than these."""
    how = draw(st.sampled_from(["cut", "flip", "zeros", "twice", "noise", "empty"]))
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    more = draw(st.binary(min_size=1, max_size=600))
    return {
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ (1 + more[0] % 255)]) + data[at + 1 :],
        "zeros": data[:at] + bytes(len(data) - at),
        "twice": data + data,
        "noise": data[:at] + more + data[at + len(more) :],
        "empty": b"",
    }[how]


def reads_as(path, other):
    """Whether both are tables of shards of the same rows."""
    try:
        return tables.read("shards", path).equals(tables.read("shards", other))
    except ManifestError:
        return False


@settings(max_examples=20)
@given(data=st.data())
def test_any_damage_to_any_file_is_found(data, whole, tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz") / "out"
    shutil.copytree(whole, root)
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name not in NOT_PROVEN)
    path = root / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    path.write_bytes(damaged(before, data.draw))
    same = path.read_bytes() == before
    whitespace = path.suffix == ".json" and path.read_bytes().split() == before.split()
    result = audit(root, threads=1)
    # No commit tells the hash of the table of shards: its values are proven, not bytes that no reader looks at (the first four).
    unread = path.name == "shards.parquet" and reads_as(path, whole / path.relative_to(root))
    assert result.findings or same or whitespace or unread or path.name == "plan.json", "damage that nobody saw"
    shutil.rmtree(root.parent)


@settings(max_examples=20)
@given(
    value=JSON,
    place=st.sampled_from(["crops/plan.json", "shards/plan.json", "pairs/rig-rec1.json"]),
    more=st.booleans(),
)
def test_any_json_in_place_of_a_plan_or_a_commit_is_no_crash(value, place, more, whole, tmp_path_factory):
    root = tmp_path_factory.mktemp("json") / "out"
    shutil.copytree(whole, root)
    old = json.loads((root / place).read_text())
    written = old | value if more and isinstance(value, dict) else value
    (root / place).write_text(json.dumps(written))
    found = audit(root, threads=1).findings
    assert found or isinstance(written, dict), "what is no object cannot pass"
    shutil.rmtree(root.parent)
