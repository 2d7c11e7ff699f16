"""Correspondence and covisibility against rays cast by trimesh."""

import dataclasses

import numpy as np
import pytest
import trimesh

from manifests.surface import SURFACE_CELLS, covisibility
from synthetic.render import Renderer, View
from synthetic.scene import SceneRecipe, sample_scene
from synthetic.surface import cells_of_faces, cells_seen, correspond

RECIPE = SceneRecipe(
    num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=4, image_px=192, clips=("waving",)
)


@pytest.fixture(scope="module")
def views(renderer: Renderer) -> dict[tuple[int, int, int], View]:
    scenes = [sample_scene(RECIPE, 1, index) for index in range(2)]
    return {
        (s, i, v): renderer.render(scene, instant=i, view=v)
        for s, scene in enumerate(scenes)
        for i in range(2)
        for v in range(4)
    }


@pytest.fixture(scope="module")
def cell_of_face(renderer: Renderer) -> np.ndarray:
    return cells_of_faces(renderer.figure)


PAIRS = [((0, 0, 0), (0, 0, 1)), ((0, 0, 2), (0, 0, 3)), ((0, 0, 0), (0, 1, 0)), ((1, 1, 1), (1, 0, 3))]


def seen_by_rays(target: View, reference: View) -> np.ndarray:
    """For each pixel of the target: whether the way from its point to the reference's camera is free, and within its image."""
    mesh = trimesh.Trimesh(reference.posed.verts_X3, reference.dressed.verts_T3, process=False)
    pose = reference.camera_from_world
    eye = -pose[:3, :3].T @ pose[:3, 3]
    points = target.seen.carry(reference.posed.verts_X3, reference.dressed.verts_T3)
    way = points - eye
    hits, ray, _ = mesh.ray.intersects_location(np.repeat(eye[None], len(points), axis=0), way, multiple_hits=False)
    reach = np.full(len(points), np.inf)
    reach[ray] = np.linalg.norm(hits - eye, axis=1)
    camera = points @ pose[:3, :3].T + pose[:3, 3]
    xy = camera @ reference.intrinsics.T
    xy = xy[:, :2] / xy[:, 2:]
    inside = ((xy > -0.5) & (xy < RECIPE.image_px - 0.5)).all(axis=1)
    return inside & (reach > np.linalg.norm(way, axis=1) - 0.004)


def test_covisibility_equals_cast_rays(views: dict) -> None:
    for target, reference in PAIRS:
        found = correspond(views[target], views[reference])
        truth = seen_by_rays(views[target], views[reference])
        assert (found.seen == truth).mean() > 0.95
        assert found.covisibility == pytest.approx(truth.mean(), abs=0.03)
    assert min(correspond(views[t], views[r]).covisibility for t, r in PAIRS) > 0.02


def test_a_view_sees_what_it_sees(views: dict) -> None:
    for view in views.values():
        found = correspond(view, view)
        assert found.covisibility > 0.99
        off = np.hypot(found.xy_px[:, 0] - found.columns, found.xy_px[:, 1] - found.rows)
        assert np.quantile(off, 0.99) < 0.4


def test_correspondences_have_the_same_texture_coordinates(views: dict) -> None:
    for target, reference in PAIRS:
        a, b = views[target], views[reference]
        found = correspond(a, b)
        column, row = np.rint(found.xy_px[found.seen]).astype(int).T
        there = b.silhouette[np.clip(row, 0, 191), np.clip(column, 0, 191)]
        assert there.mean() > (0.95 if len(there) > 1000 else 0.7), "of few, many lie on the edge"
        mine = a.uv[found.rows[found.seen][there], found.columns[found.seen][there]]
        other = b.uv[row[there], column[there]]
        assert np.median(np.abs(mine - other)) < 0.01


def test_cells_are_even_and_tell_covisibility(views: dict, renderer: Renderer, cell_of_face: np.ndarray) -> None:
    figure = renderer.figure
    assert cell_of_face.min() == 0
    assert cell_of_face.max() == SURFACE_CELLS - 1
    middles = figure.template_X3[figure.faces_F3].mean(axis=1)
    spread = [np.ptp(middles[cell_of_face == cell], axis=0).max() for cell in range(0, SURFACE_CELLS, 7)]
    assert max(spread) < 0.12
    for face, cell in ((0, cell_of_face[0]), (500, cell_of_face[500])):
        assert len({int(g) for g in figure.group_F[cell_of_face == cell]}) == 1, f"one layer around face {face}"
    cells = {key: np.frombuffer(cells_seen(view, cell_of_face), np.uint8)[None] for key, view in views.items()}
    for target, reference in PAIRS:
        exact = correspond(views[target], views[reference]).covisibility
        told = covisibility(cells[target], cells[reference])[0]
        assert told == pytest.approx(exact, abs=0.12)
        assert covisibility(cells[target], cells[target])[0] == 1.0
    far, close = ((0, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 1, 0))
    order = [correspond(views[t], views[r]).covisibility for t, r in (far, close)]
    told = [covisibility(cells[t], cells[r])[0] for t, r in (far, close)]
    assert (order[0] < order[1]) == (told[0] < told[1])


def test_cells_are_the_same_every_time(renderer: Renderer, cell_of_face: np.ndarray) -> None:
    assert (cells_of_faces(renderer.figure) == cell_of_face).all()


def test_other_people_do_not_correspond(views: dict) -> None:
    other = dataclasses.replace(
        views[1, 0, 0],
        dressed=dataclasses.replace(views[1, 0, 0].dressed, verts_T3=views[1, 0, 0].dressed.verts_T3[1:]),
    )
    with pytest.raises(ValueError, match="one person"):
        correspond(views[0, 0, 0], other)
