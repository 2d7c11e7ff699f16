import io
import tokenize
import zipfile

import numpy as np

from manifests.files import NPZ_DAMAGE


def npz_of(member: bytes) -> bytes:
    """An archive whose checksums are right, whatever its member holds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    return buffer.getvalue()


def test_all_that_a_damaged_npz_raises_is_listed() -> None:
    buffer, rng, raised = io.BytesIO(), np.random.default_rng(0), set()
    np.save(buffer, np.zeros((5, 3)))
    for number in range(600):
        member = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        member[rng.integers(0, 128, 2)] = rng.choice(np.frombuffer(b"([{'\",\x00\xff9", np.uint8), 2)
        data = np.frombuffer(npz_of(member.tobytes()), np.uint8).copy()
        if number % 2:  # and of every second one the archive itself
            data[rng.integers(0, len(data), 2)] = rng.integers(0, 256, 2)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                _ = archive["a"]
        except NPZ_DAMAGE as error:
            raised.add(type(error))
    assert {ValueError, tokenize.TokenError, zipfile.BadZipFile} <= raised
