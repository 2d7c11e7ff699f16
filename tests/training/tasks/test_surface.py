import h5py
import numpy as np
import pytest
from scipy.io import savemat

from manifests.errors import SourceError, TrainingError
from synthetic.figure import part_of_faces
from training.metrics.surface import geodesic_errors_m
from training.tasks.atlas import read_atlas
from training.tasks.surface import LIMIT_M, Geodesics, read_evaluation, read_template

SPACING_M = 0.01


def plane(rows=15, columns=20, origin=(0.0, 0.0, 0.0)):
    """Vertices and faces of a rectangle of squares, each cut along one diagonal."""
    y, x = np.mgrid[:rows, :columns]
    verts = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3) * SPACING_M + origin
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    return verts, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def every_pair(num):
    return tuple(grid.ravel() for grid in np.meshgrid(np.arange(num), np.arange(num)))


def test_on_a_plane_ways_are_nearly_straight():
    verts, faces = plane()
    pairs = every_pair(len(verts))
    found = Geodesics(verts, faces, np.arange(len(verts)))[pairs]
    straight = np.linalg.norm(verts[pairs[0]] - verts[pairs[1]], axis=1)
    assert (found >= straight - 1e-12).all()
    # Eight ways out of each vertex: at worst 1 / cos(22.5 deg) times the straight one. Without the ways across it would be 1.41.
    assert (found <= 1.0824 * straight + 1e-12).all()
    np.testing.assert_allclose(found, found.reshape(len(verts), -1).T.ravel(), atol=1e-12)


def test_ways_are_those_of_the_slow_twin():
    """All shortest ways by relaxing every triple, on a crumpled sheet whose steps are written down by hand."""
    verts, faces = plane(4, 5)
    verts = verts + np.random.default_rng(0).normal(scale=0.005, size=verts.shape)
    num = len(verts)
    slow = np.full((num, num), np.inf)
    np.fill_diagonal(slow, 0)
    for face in faces:
        for a, b in (face[[0, 1]], face[[1, 2]], face[[2, 0]]):
            slow[a, b] = slow[b, a] = np.linalg.norm(verts[a] - verts[b])
    for first in faces:
        for second in faces:
            shared = sorted(set(first.tolist()) & set(second.tolist()))
            if len(shared) != 2:
                continue
            a, b = (verts[i] for i in shared)
            c, d = (next(i for i in face.tolist() if i not in shared) for face in (first, second))
            # Unfold: the way crosses the edge where the sum of both parts is least.
            along = a + np.linspace(0, 1, 20001)[:, None] * (b - a)
            parts = np.linalg.norm(verts[c] - along, axis=1) + np.linalg.norm(verts[d] - along, axis=1)
            if 0 < int(np.argmin(parts)) < 20000:
                slow[c, d] = min(slow[c, d], parts.min())
    for middle in range(num):
        slow = np.minimum(slow, slow[:, middle, None] + slow[middle])
    found = Geodesics(verts, faces, np.arange(num))[every_pair(num)]
    np.testing.assert_allclose(found.reshape(num, num), slow, atol=1e-8)


def test_what_is_far_is_infinitely_far():
    verts, faces = plane(2, 60)
    far = Geodesics(verts, faces, np.arange(len(verts)))[np.array([0, 0]), np.array([30, 59])]
    assert far[0] == pytest.approx(0.30)
    assert far[1] == np.inf
    assert 0.30 < LIMIT_M < 0.59


def test_pieces_are_joined_at_the_nearest_vertices():
    (verts, faces), (more_verts, more_faces) = plane(4, 5), plane(2, 2, origin=(0.02, 0.05, 0.0))
    both = Geodesics(np.concatenate([verts, more_verts]), np.concatenate([faces, more_faces + 20]), np.arange(24))
    assert both[np.array([17]), np.array([20])] == pytest.approx(0.02)
    assert both[np.array([15]), np.array([20])] == pytest.approx(0.04)


def test_a_vertex_with_two_places_is_one_vertex():
    verts, faces = plane(3, 3)
    table = Geodesics(verts, faces, np.array([4, 4, 5]))
    assert table.shape == (3, 3)
    np.testing.assert_allclose(table[np.array([0, 1, -1]), np.array([1, 2, 0])], [0, SPACING_M, SPACING_M])


@pytest.fixture(scope="module")
def template(assets):
    return read_template(assets / "body.npz")


def test_every_corner_is_where_it_says(template):
    surface = template.surface
    assert set(surface.part_X.tolist()) == set(range(1, 25))
    part, uv = template.place(template.texture_K2, surface.part_X)
    np.testing.assert_array_equal(part, surface.part_X)
    np.testing.assert_array_equal(uv, surface.uv_X2)
    some = np.arange(0, len(part), 50)
    assert (geodesic_errors_m(part[some], uv[some], part[some], uv[some], surface=surface) == 0).all()
    for one in range(1, 25):
        np.testing.assert_allclose(uv[part == one].min(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(uv[part == one].max(axis=0), 1, atol=1e-9)


def test_neighbours_in_u_and_v_are_neighbours_on_the_body(template):
    """From the middle of a face, the nearest corner is one of the face or next to it."""
    surface, rng = template.surface, np.random.default_rng(0)
    corners = rng.integers(0, len(surface.part_X), 300)
    nudged = surface.uv_X2[corners] + rng.normal(scale=0.002, size=(300, 2))
    errors = geodesic_errors_m(
        surface.part_X[corners], nudged, surface.part_X[corners], surface.uv_X2[corners], surface=surface
    )
    assert np.quantile(errors, 0.9) < 0.015


def test_hair_stands_for_the_head_and_a_skirt_for_the_hips(assets, template):
    with np.load(assets / "body.npz") as arrays:
        at = {group: arrays["uvs"][arrays["face_uvs"][arrays["face_group"] == group]].mean(axis=1) for group in (3, 4)}
    skirt, hair = (np.bincount(template.place(at[group], np.full(len(at[group]), 1))[0]) for group in (3, 4))
    assert hair.argmax() == 16
    assert hair[[13, 14, 15, 16, 10, 7]].sum() / hair.sum() > 0.95
    assert skirt[1:7].sum() / skirt.sum() > 0.95


def test_parts_are_those_of_renders(template, assets):
    with np.load(assets / "body.npz") as arrays:
        skin = arrays["face_group"] == 0
        part = part_of_faces(arrays["weights"], arrays["f"].astype(np.int64))[skin]
        corners = np.stack([arrays["f"][skin], part[:, None].repeat(3, axis=1)], axis=-1).reshape(-1, 2)
    told = np.stack([template.surface.distance_XX_m._vertex_K, template.surface.part_X], axis=1)
    assert set(map(tuple, corners.tolist())) == set(map(tuple, told.tolist()))


def test_a_body_without_texture_coordinates_is_refused(assets, tmp_path):
    with np.load(assets / "body.npz") as arrays:
        np.savez(tmp_path / "bare.npz", **{name: arrays[name] for name in arrays.files if name != "uvs"})
    with pytest.raises(TrainingError, match="the body has no uvs"):
        read_template(tmp_path / "bare.npz")
    with pytest.raises(TrainingError, match="the body has no texture coordinates"):
        read_atlas(tmp_path / "bare.npz")


def test_a_part_is_of_the_joint_that_moves_it(template, assets):
    with np.load(assets / "body.npz") as arrays:
        verts, joints = arrays["v_template"], arrays["J_regressor"] @ arrays["v_template"]
    vertex = template.surface.distance_XX_m._vertex_K
    for joint in (4, 5, 15, 18, 19):  # knees, head, elbows: the middle of their part is nearer to them than to most
        middle = verts[vertex[template.surface.part_X == joint + 1]].mean(axis=0)
        rank = np.argsort(np.linalg.norm(joints - middle, axis=1)).tolist().index(joint)
        assert rank <= 2


def evaluation(folder, *, num=6, distances=None):
    """DensePose's three files in miniature: seven places on six vertices."""
    folder.mkdir(exist_ok=True)
    part = np.array([[1], [1], [2], [2], [3], [24], [24]])
    u, v = np.linspace(0, 1, 7)[:, None], np.linspace(1, 0, 7)[:, None]
    savemat(folder / "SMPL_subdiv.mat", {"Part_ID_subdiv": part, "U_subdiv": u, "V_subdiv": v})
    index = np.array([[1, 2, 3, 3, 4, 5, 6]], np.uint16)
    savemat(folder / "SMPL_SUBDIV_TRANSFORM.mat", {"index": index})
    count = num * (num - 1) // 2
    with h5py.File(folder / "Pdist_matrix.mat", "w") as file:
        values = np.arange(1, count + 1) / 100 if distances is None else distances
        file["Pdist_matrix"] = np.asarray(values, np.float32)[:, None]
    return folder


def published_index(i, j, n=6):
    """Where the distance of two vertices stands, in the arithmetic of the published evaluation: i above j."""
    i, j = n - i - 1, n - j - 1
    k = (n * (n - 1) / 2) - (n - i) * ((n - i) - 1) / 2 + j - i - 1
    return int((n * n - n) / 2 - k - 1)


def test_distances_are_found_where_the_published_evaluation_finds_them(tmp_path):
    surface = read_evaluation(evaluation(tmp_path / "eval"))
    vertex = [0, 1, 2, 2, 3, 4, 5]
    for a in range(7):
        for b in range(7):
            i, j = max(vertex[a], vertex[b]), min(vertex[a], vertex[b])
            expected = 0 if i == j else (published_index(i, j) + 1) / 100
            assert surface.distance_XX_m[np.array([a]), np.array([b])] == pytest.approx(expected), (a, b)
    assert surface.part_X.tolist() == [1, 1, 2, 2, 3, 24, 24]
    assert surface.nearest([24, 1], [[0.9, 0.1], [0.0, 1.0]]).tolist() == [5, 0]


def test_incomplete_or_other_evaluation_data_is_refused(tmp_path):
    folder = evaluation(tmp_path / "short", num=5)
    with pytest.raises(TrainingError, match="10 distances are not those of 6"):
        read_evaluation(folder).distance_XX_m[np.array([0]), np.array([1])]
    folder = evaluation(tmp_path / "odd")
    savemat(folder / "SMPL_SUBDIV_TRANSFORM.mat", {"index": np.array([[1, 2]])})
    with pytest.raises(TrainingError, match="do not belong together"):
        read_evaluation(folder)
    (folder / "SMPL_subdiv.mat").write_bytes(b"MATLAB?")
    with pytest.raises(SourceError, match="no MATLAB file"):
        read_evaluation(folder)
    (folder / "Pdist_matrix.mat").unlink()
    with pytest.raises(TrainingError, match=r"Pdist_matrix.mat is missing") as caught:
        read_evaluation(folder)
    assert "eval_data" in caught.value.hint
