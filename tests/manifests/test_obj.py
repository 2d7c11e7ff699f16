"""The OBJ reader: lines that other programs write, and each way in which a file can be no mesh with texture coordinates."""

import numpy as np
import pytest

from manifests.errors import SourceError, TrainingError
from manifests.obj import HINT, read_obj

LINES = (
    "# a square of two triangles",
    "mtllib none.mtl",
    "",
    "v 0 0 0",
    "v 1 0 0 1.0",
    "v 1 1 0",
    "v 0 1 0",
    "vn 0 0 1",
    "vt 0 0",
    "vt 1.0 0.25 0.0",
    "vt 1.005 1",
    "f 1/1/1 2/2/1 3/3/1",
    "f 1/1 3/3 4/2",
)


def written(path, lines=LINES):
    path.write_text("\n".join(lines))
    return path


def test_corners_and_texture_coordinates_are_read(tmp_path):
    charts = read_obj(written(tmp_path / "a.obj"), TrainingError, num_vertices=4)
    assert charts.num_vertices == 4
    np.testing.assert_array_equal(charts.faces, [[0, 1, 2], [0, 2, 3]])
    np.testing.assert_array_equal(charts.face_uvs, [[0, 1, 2], [0, 2, 1]])
    np.testing.assert_array_equal(charts.uvs, [[0, 0], [1, 0.25], [1, 1]])  # half a hundredth outside is cut off


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], "holds no faces"),
        (LINES[:-2], "holds no faces"),
        ([line for line in LINES if not line.startswith("vt")], r"holds no texture coordinates \(vt lines\)"),
        ([*LINES, "f 1/1 2/2 3/4"], "names a v or vt that is not there"),
        ([*LINES, "f 1/1 2/2 5/3"], "names a v or vt that is not there"),
        ([*LINES, "f -1/1 2/2 3/3"], "names a v or vt that is not there"),
        ([*LINES, "f 0/1 2/2 3/3"], "names a v or vt that is not there"),
        ([*LINES, "f 1/1 2/2 3/3 4/1"], "line 14 of a.obj does not read: a face that is no triangle"),
        ([*LINES, "f 1 2 3"], "line 14 of a.obj does not read: a face without texture coordinates"),
        ([*LINES, "f 1//1 2//1 3//1"], "line 14 of a.obj does not read"),
        ([*LINES, f"f {1 << 70}/1 2/2 3/3"], "does not read"),
        ([*LINES, "vt 0.5"], "line 14 of a.obj does not read"),
        ([*LINES, "vt 0.5 nan"], r"lie outside \[0, 1\]"),
        ([*LINES, "vt 0.5 -0.02"], r"lie outside \[0, 1\]"),
    ],
)
def test_what_is_no_mesh_with_texture_coordinates_is_refused(lines, match, tmp_path):
    path = written(tmp_path / "a.obj", lines)
    with pytest.raises(SourceError, match=match) as caught:
        read_obj(path, SourceError)
    assert (caught.value.where, caught.value.hint) == (str(path), HINT)


def test_another_mesh_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"a\.obj has 4 vertices, the body has 6890") as caught:
        read_obj(written(tmp_path / "a.obj"), TrainingError, num_vertices=6890)
    assert "the same model" in caught.value.hint
    for path in (tmp_path / "none.obj", tmp_path):
        with pytest.raises(TrainingError, match="cannot be read"):
            read_obj(path, TrainingError)
