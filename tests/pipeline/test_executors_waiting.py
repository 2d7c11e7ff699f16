"""Who gets which unit: a worker stays with the files it has read, and nobody is idle while there is work."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.executors import _Waiting
from pipeline.stage import Unit


@given(groups=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), workers=st.integers(1, 5), data=st.data())
def test_every_unit_is_handed_out_once_and_few_workers_read_for_a_group(
    groups: list[str], workers: int, data: st.DataObject
) -> None:
    units = [Unit(f"u{i:03d}", group=group) for i, group in enumerate(groups)]
    waiting, at, given_out = _Waiting(units), [""] * workers, list[str]()
    readers: Counter[str] = Counter()
    while waiting:
        worker = data.draw(st.integers(0, workers - 1))
        unit = waiting.take(at[worker])
        readers[unit.group] += unit.group != at[worker]
        at[worker] = unit.group
        given_out.append(unit.id)
    assert sorted(given_out) == [unit.id for unit in units]
    if workers <= len(set(groups)):
        assert sum(readers.values()) <= len(set(groups)) + workers * (workers - 1)
    if workers == 1:
        assert set(readers.values()) == {1}


def test_a_unit_that_is_put_back_comes_next() -> None:
    waiting = _Waiting([Unit("a"), Unit("b")])
    first = waiting.take("")
    waiting.add(first)
    assert [waiting.take("").id, waiting.take("").id] == ["a", "b"]
    assert not waiting
