"""Names as numbers: equal names have one number wherever they stand, others another."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from manifests.audit.copies import near
from manifests.audit.keys import LONGEST, codes_of, hashes_of, is_word

names = st.lists(st.text(max_size=40) | st.text("ab", min_size=LONGEST - 2, max_size=LONGEST + 2), max_size=20)


@given(names, st.integers(0, 20))
def test_a_name_has_one_hash_wherever_it_stands(texts, cut):
    whole = hashes_of(pa.array(texts, pa.string()))
    alone = [hashes_of(pa.array([text]))[0] for text in texts]
    sliced = hashes_of(pa.chunked_array([texts[:cut], texts[cut:]], pa.string()))
    assert whole.tolist() == [int(one) for one in alone] == sliced.tolist()
    assert len(set(whole.tolist())) == len(set(texts))


def test_neighbouring_keys_have_other_hashes():
    keys = [f"rig/train/rec{r}/{i:08d}/cam{v}/p0" for r in range(20) for i in range(500) for v in range(10)]
    hashed = hashes_of(pa.array(keys))
    assert len(np.unique(hashed)) == len(keys)
    ones = np.unpackbits(hashed.view(np.uint8)).reshape(len(keys), 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 0.01  # every bit is a fair coin


@given(st.lists(st.sampled_from(["a", "b", "c", None])), st.lists(st.sampled_from(["b", "c", "d", None])))
def test_words_of_two_columns_share_their_numbers(one, other):
    a, b = codes_of(*(pa.chunked_array([pa.array(part, pa.string()).dictionary_encode()]) for part in (one, other)))
    for word, number in zip(one, a, strict=True):
        assert [number == n for n in b] == [word == w for w in other]
    column = pa.chunked_array([pa.array(one, pa.string()).dictionary_encode()])
    assert is_word(column, "a", "d").tolist() == [word == "a" for word in one]


@given(st.data())
def test_near_hashes_equal_brute_force(data):
    """Some of one side are those of the other with a few bits turned."""
    a = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=12, unique=True))
    turned = data.draw(st.lists(st.tuples(st.sampled_from(a), st.sets(st.integers(0, 63), max_size=4)))) if a else []
    b = sorted({one ^ sum(1 << bit for bit in bits) for one, bits in turned})
    first, second, complete = near(np.array(sorted(a), np.uint64), np.array(b, np.uint64))
    assert complete
    due = {(x, y) for x in a for y in b if (x ^ y).bit_count() <= 2}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == due
