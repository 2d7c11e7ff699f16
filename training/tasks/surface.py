"""The surfaces that DensePose's parts, u and v are places on: the free body's, and that of DensePose's own evaluation data.

On the free body, part p is 1 + the joint of SMPL's 24 that moves a face most, and u and v are its texture coordinates, stretched from
the box that the part fills in the atlas to [0, 1]. Eyes, hair and skirt have charts of their own; a place on them is the nearest place of the
skin at rest.

Shape letters: `X` vertices of a mesh, `F` faces, `K` corners (a vertex with its part and texture coordinate), `Q` pixels.
"""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from manifests.errors import TrainingError
from manifests.matlab import read_mat
from training.metrics.surface import Surface
from training.tasks.mesh_model import BODY_FORMAT, read_arrays

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LIMIT_M = 0.35  # no score asks how much farther two places are
SKIN = 0  # of the groups of faces
_SOURCES = 256  # vertices whose distances to all others are held at a time

EVALUATION = "SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix.mat"
_HINT = "give the folder that DensePose's eval_data archive unpacks to"


class Template:
    """The free body's surface.

    Args:
        arrays: of the body's file.

    Attributes:
        surface: corners of the skin with their geodesic distances.
        texture_K2: the texture coordinate of each corner, as it stands in the atlas.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        faces_F3, uv_F3 = arrays["f"].astype(np.int64), arrays["face_uvs"].astype(np.int64)
        part_F = 1 + arrays["weights"][faces_F3].sum(axis=1).argmax(axis=1)
        skin_F = arrays["face_group"] == SKIN
        all_uv = arrays["uvs"].astype(np.float64)
        corners = np.column_stack([faces_F3[skin_F].ravel(), part_F[skin_F].repeat(3), uv_F3[skin_F].ravel()])
        vertex_K, part_K, at_K = np.unique(corners, axis=0).T
        self.texture_K2 = all_uv[at_K]
        self._boxes = np.zeros((part_F.max() + 1, 2, 2))  # low and high of each part
        for part in np.unique(part_K).tolist():
            own_n2 = self.texture_K2[part_K == part]
            self._boxes[part] = own_n2.min(axis=0), own_n2.max(axis=0)
        verts_X3 = arrays["v_template"].astype(np.float64)
        self.surface = Surface(
            part_X=part_K,
            uv_X2=self._stretched(self.texture_K2, part_K),
            distance_XX_m=Geodesics(verts_X3, faces_F3[skin_F], vertex_K),
        )
        # What is not skin stands for the corner of the skin that is nearest at rest.
        worn = np.unique(np.column_stack([faces_F3[~skin_F].ravel(), uv_F3[~skin_F].ravel()]), axis=0)
        nearest_K = cKDTree(verts_X3[vertex_K]).query(verts_X3[worn[:, 0]])[1] if len(worn) else np.zeros(0, np.int64)
        self._stands_for = np.concatenate([np.arange(len(vertex_K)), nearest_K])
        self._charts = cKDTree(np.concatenate([self.texture_K2, all_uv[worn[:, 1]]]))

    def place(self, texture_Q2: npt.ArrayLike, part_Q: npt.ArrayLike) -> tuple[Ints, Floats]:
        """What DensePose would call a pixel.

        Args:
            texture_Q2: texture coordinates, as a render tells them.
            part_Q: the pixel's part, from 1 on.

        Returns:
            part (Q,), another one where eyes, hair or a skirt are seen; u and v, (Q, 2) in [0, 1].
        """
        texture_Q2, part_Q = np.asarray(texture_Q2, np.float64), np.asarray(part_Q, np.int64)
        found_Q = self._charts.query(texture_Q2)[1]
        corner_Q, on_skin_Q = self._stands_for[found_Q], found_Q < len(self.texture_K2)
        part_Q = np.where(on_skin_Q, part_Q, self.surface.part_X[corner_Q])
        texture_Q2 = np.where(on_skin_Q[:, None], texture_Q2, self.texture_K2[corner_Q])
        return part_Q, self._stretched(texture_Q2, part_Q)

    def _stretched(self, texture_Q2: Floats, part_Q: Ints) -> Floats:
        low_Q2, high_Q2 = self._boxes[part_Q, 0], self._boxes[part_Q, 1]
        return np.asarray(np.clip((texture_Q2 - low_Q2) / (high_Q2 - low_Q2), 0, 1))


@lru_cache(maxsize=2)
def read_template(path: Path) -> Template:
    """Read the free body's surface; the same object for the same file.

    Raises:
        TrainingError: the file is missing, damaged, no body, or has no texture coordinates.
    """
    arrays = read_arrays(path, BODY_FORMAT)
    if missing := {"uvs", "face_uvs", "face_group"} - set(arrays):
        hint = "give the body that was rendered: the free one, or one that was converted with its texture coordinates"
        raise TrainingError(f"the body has no {', '.join(sorted(missing))}", where=path, hint=hint)
    return Template(arrays)


class Geodesics:
    """Shortest ways along the edges of a mesh, and straight across each pair of neighbouring faces.

    Places that are farther than `LIMIT_M` apart count as infinitely far. Parts of a mesh that hang together nowhere are joined at the
    nearest vertex of the largest one.

    Args:
        verts_X3: metres.
        faces_F3: its triangles.
        vertex_K: the vertex of each row and column of the table.
    """

    def __init__(self, verts_X3: Floats, faces_F3: Ints, vertex_K: Ints) -> None:
        self._vertex_K = vertex_K
        self._graph = _roads(verts_X3, faces_F3)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole table."""
        return len(self._vertex_K), len(self._vertex_K)

    def __getitem__(self, pairs: tuple[Ints, Ints]) -> Floats:
        """Metres between the vertices of each pair."""
        start_Q, end_Q = self._vertex_K[pairs[0]], self._vertex_K[pairs[1]]
        starts, which_Q = np.unique(start_Q, return_inverse=True)
        distance_Q = np.empty(len(start_Q))
        for first in range(0, len(starts), _SOURCES):
            some_Q = np.flatnonzero((which_Q >= first) & (which_Q < first + _SOURCES))
            table = dijkstra(self._graph, directed=False, indices=starts[first : first + _SOURCES], limit=LIMIT_M)
            distance_Q[some_Q] = table[which_Q[some_Q] - first, end_Q[some_Q]]
        return distance_Q


@lru_cache(maxsize=1)
def read_evaluation(folder: Path) -> Surface:
    """Read DensePose's own surface: 24 charts on a mesh of 27,554 vertices, with a table of their distances.

    Args:
        folder: with SMPL_subdiv.mat, SMPL_SUBDIV_TRANSFORM.mat and Pdist_matrix.mat (1.5 GB, read whole when first asked).

    Raises:
        TrainingError: a file is missing, or not as it should be.
        SourceError: a file is damaged.
    """
    if missing := [name for name in EVALUATION if not (folder / name).is_file()]:
        raise TrainingError(f"{', '.join(missing)} {'are' if missing[1:] else 'is'} missing", where=folder, hint=_HINT)
    charts = read_mat(folder / EVALUATION[0], variables=("Part_ID_subdiv", "U_subdiv", "V_subdiv"))
    part_K, u_K, v_K = (np.asarray(charts[f"{name}_subdiv"], np.float64).ravel() for name in ("Part_ID", "U", "V"))
    vertex_K = np.asarray(read_mat(folder / EVALUATION[1], variables=("index",))["index"], np.int64).ravel() - 1
    if not len(part_K) == len(u_K) == len(v_K) == len(vertex_K) or (part_K < 1).any() or (vertex_K < 0).any():
        raise TrainingError("its charts and vertices do not belong together", where=folder, hint=_HINT)
    distances = Condensed(folder / EVALUATION[2], vertex_K)
    return Surface(part_X=part_K.astype(np.int64), uv_X2=np.column_stack([u_K, v_K]), distance_XX_m=distances)


class Condensed:
    """A table of distances of which only the part below the diagonal is stored, row by row.

    Args:
        path: of a MATLAB file whose `Pdist_matrix` has n (n - 1) / 2 numbers; read when the first distance is asked for.
        vertex_K: the vertex, below n, of each row and column.
    """

    def __init__(self, path: Path, vertex_K: Ints) -> None:
        self._path, self._vertex_K = path, vertex_K

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole table."""
        return len(self._vertex_K), len(self._vertex_K)

    @cached_property
    def _values(self) -> npt.NDArray[np.float32]:
        values = np.asarray(read_mat(self._path, variables=("Pdist_matrix",))["Pdist_matrix"], np.float32).ravel()
        num = int(self._vertex_K.max()) + 1
        if num * (num - 1) // 2 != len(values):
            what = f"{len(values)} distances are not those of {num} vertices"
            raise TrainingError(what, where=self._path, hint=_HINT)
        return values

    def __getitem__(self, pairs: tuple[Ints, Ints]) -> Floats:
        """Metres between the vertices of each pair."""
        a_Q, b_Q = self._vertex_K[pairs[0]], self._vertex_K[pairs[1]]
        high_Q, low_Q = np.maximum(a_Q, b_Q), np.minimum(a_Q, b_Q)
        apart_Q = high_Q > low_Q
        distance_Q = np.zeros(len(a_Q))
        distance_Q[apart_Q] = self._values[(high_Q * (high_Q - 1) // 2 + low_Q)[apart_Q]]
        return distance_Q


def _roads(verts_X3: Floats, faces_F3: Ints) -> csr_matrix:
    """Lengths between the vertices that one step joins."""
    # Each side of each face, with the vertex that lies opposite; the two sides of an edge become neighbours in order.
    sides = np.concatenate([np.roll(faces_F3, -turn, axis=1) for turn in range(3)])
    low, high = sides[:, :2].min(axis=1), sides[:, :2].max(axis=1)
    order = np.lexsort((high, low))
    low, high, opposite = low[order], high[order], sides[order, 2]
    same = np.flatnonzero((low[1:] == low[:-1]) & (high[1:] == high[:-1]))
    a, b, c, d = (verts_X3[at] for at in (low[same], high[same], opposite[same], opposite[same + 1]))
    along = b - a
    length = np.linalg.norm(along, axis=1)
    along = along / np.maximum(length, 1e-12)[:, None]
    c_x, d_x = (((p - a) * along).sum(axis=1) for p in (c, d))
    c_y, d_y = (np.linalg.norm(p - a - x[:, None] * along, axis=1) for p, x in ((c, c_x), (d, d_x)))
    # Unfolded flat, the way from c to d crosses the edge's line here; off the edge it would leave the two faces.
    cross = c_x + (d_x - c_x) * c_y / np.maximum(c_y + d_y, 1e-12)
    flat = (cross >= 0) & (cross <= length)
    across = np.hypot(c_x - d_x, c_y + d_y)[flat]
    edges = np.concatenate([np.column_stack([low, high]), np.column_stack([opposite[same], opposite[same + 1]])[flat]])
    straight = np.linalg.norm(verts_X3[low] - verts_X3[high], axis=1)
    edges, first = np.unique(np.sort(edges, axis=1), axis=0, return_index=True)
    lengths = np.concatenate([straight, across])[first]
    num = len(verts_X3)
    graph = coo_matrix((lengths, edges.T), shape=(num, num)).tocsr()
    bridges, gaps = _bridges(verts_X3, graph, np.unique(faces_F3))
    return graph + coo_matrix((gaps, bridges.T), shape=(num, num)).tocsr()


def _bridges(verts_X3: Floats, graph: csr_matrix, used_n: Ints) -> tuple[Ints, Floats]:
    """One way from each smaller piece of a mesh to the largest: between the two nearest vertices."""
    piece_n = connected_components(graph, directed=False)[1][used_n]
    largest = np.bincount(piece_n).argmax()
    main_n = used_n[piece_n == largest]
    tree = cKDTree(verts_X3[main_n])
    bridges, gaps = [], []
    for piece in np.setdiff1d(piece_n, [largest]).tolist():
        own_n = used_n[piece_n == piece]
        gap_n, at_n = tree.query(verts_X3[own_n])
        nearest = int(gap_n.argmin())
        bridges.append((own_n[nearest], main_n[at_n[nearest]]))
        gaps.append(gap_n[nearest])
    return np.array(bridges, np.int64).reshape(-1, 2), np.array(gaps, np.float64)
