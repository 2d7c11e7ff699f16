from functools import cache

import numpy as np
import pytest
import trimesh

from manifests.errors import TrainingError
from training.tasks import overlay
from training.tasks.overlay import draw_mesh, from_the_side, paint_mesh, write_glb

BALL = trimesh.creation.icosphere(subdivisions=3, radius=0.3)

KEPT = []  # a renderer that is forgotten closes the display of all


def draw(image, verts, faces=BALL.faces, focal_px=100.0, how=draw_mesh):
    return how(image, np.asarray(verts, np.float64), np.asarray(faces), focal_px=focal_px)


@pytest.mark.parametrize("how", [draw_mesh, paint_mesh])
def test_a_ball_covers_the_disk_it_projects_to(how):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    drawn = draw(image, BALL.vertices + np.array([0.4, -0.2, 5.0]), how=how)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    covered = (drawn != image).any(axis=2)
    rows, columns = np.mgrid[:60, :80]
    # The image's centre lies between its pixels.
    away = np.hypot(columns - (39.5 + 100 * 0.4 / 5), rows - (29.5 - 100 * 0.2 / 5))
    assert covered[away < 5].all()
    assert not covered[away > 7].any()


@pytest.mark.parametrize("how", [draw_mesh, paint_mesh])
def test_what_is_near_hides_what_is_far(how):
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = np.array([[0, 2, 1], [0, 3, 2]])  # they look at the camera
    white = np.full((32, 32, 3), 255, np.uint8)
    slanted = square.copy()
    slanted[:, 2] = [1, 1, -1, -1]
    facing = draw(white, square + np.array([0, 0, 60]), faces, 500.0, how)[16, 16].astype(int)
    other = draw(white, slanted + np.array([0, 0, 90]), faces, 500.0, how)[16, 16].astype(int)
    assert np.abs(facing - other).max() > 5  # light falls on them at another angle
    both = np.concatenate([square + np.array([0, 0, 60]), slanted + np.array([0, 0, 90])])
    for order in ([0, 1], [1, 0]):
        indices = np.concatenate([faces + 4 * which for which in order])
        np.testing.assert_allclose(draw(white, both, indices, 500.0, how)[16, 16], facing, atol=1)


def test_whoever_drew_before_goes_on_drawing(hand_stage, monkeypatch):
    """Training's pictures and the renderer of synthetic people live in one process: neither takes the other's OpenGL away."""
    renderer, scene = hand_stage
    before = renderer.render(scene, instant=0, view=0).rgb
    # Pictures' own renderer is opened while somebody else has OpenGL; the one that may be there lives on.
    KEPT.append(overlay._renderer)
    monkeypatch.setattr(overlay, "_renderer", cache(overlay._renderer.__wrapped__))
    KEPT.append(overlay._renderer)
    image = np.zeros((40, 40, 3), np.uint8)
    first = draw(image, BALL.vertices + np.array([0, 0, 3.0]))
    assert first.any()
    renderer.render(scene, instant=0, view=1)
    np.testing.assert_array_equal(renderer.render(scene, instant=0, view=0).rgb, before)
    np.testing.assert_array_equal(draw(image, BALL.vertices + np.array([0, 0, 3.0])), first)


def test_without_opengl_the_same_place_is_painted(monkeypatch, caplog):
    image = np.zeros((48, 48, 3), np.uint8)
    drawn = draw(image, BALL.vertices + np.array([0, 0, 2.0]))
    # The renderer of this process lives on: were it deleted, everybody's OpenGL would go with it.
    monkeypatch.setattr(overlay, "_renderer", overlay._renderer.__wrapped__)
    monkeypatch.setattr(overlay.importlib, "import_module", lambda _name: (_ for _ in ()).throw(ImportError("no EGL")))
    painted = draw(image, BALL.vertices + np.array([0, 0, 2.0]))
    assert "no EGL" in caplog.text
    apart = drawn.any(axis=2) != painted.any(axis=2)
    assert apart.mean() < 0.02
    assert np.abs(drawn.astype(int) - painted)[~apart].mean() < 25  # much the same light


def test_the_side_view_is_a_turn():
    verts = np.random.default_rng(0).normal(size=(50, 3))
    turned = from_the_side(verts)
    np.testing.assert_allclose(
        np.linalg.norm(turned[:, None] - turned, axis=2), np.linalg.norm(verts[:, None] - verts, axis=2), atol=1e-12
    )
    assert turned[verts[:, 0].argmin(), 2] == turned[:, 2].min()  # the leftmost comes to the front
    frame = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    a, b, c = from_the_side(frame)[1:] - from_the_side(frame)[0]
    np.testing.assert_allclose(np.cross(a, b), c)  # no mirror


def test_a_glb_stands_upright_and_faces_its_viewer(tmp_path):
    verts = np.array([[0.0, -1.0, 2.0], [0.5, 1.0, 2.0], [-0.5, 1.0, 2.5]])  # y down, z away
    path = tmp_path / "made" / "mesh.glb"
    write_glb(path, verts, np.array([[0, 1, 2]]))
    mesh = trimesh.load(path, force="mesh")
    np.testing.assert_allclose(mesh.vertices, verts * [1, -1, -1], atol=1e-6)
    assert mesh.faces.tolist() == [[0, 1, 2]]
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="the mesh cannot be written"):
        write_glb(tmp_path / "file" / "mesh.glb", verts, np.array([[0, 1, 2]]))
