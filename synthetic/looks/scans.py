"""Dresses a converted SMPL in SURREAL's textures: photographs of people in their clothes, laid out for SMPL's texture coordinates.

    textures/male/nongrey_male_0001.jpg, ...   with   smpl_uv.obj

Who wears such a texture is dressed by it. Shape letters: X vertices, F faces, U texture coordinates, S texture side.
"""

from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from PIL import Image, UnidentifiedImageError

from manifests.errors import SyntheticError
from manifests.obj import HINT, read_obj
from manifests.seeds import rng_for
from synthetic.looks.look import Look
from synthetic.looks.wardrobe import Fit, Outfit
from synthetic.models.body import BodyModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SUFFIXES = (".jpg", ".jpeg", ".png")
_SIDES_PX = (64, 4096)
_GREY = "grey_"  # scans in underwear-like grey; those in ordinary clothes are named nongrey_*


def read_uv_obj(path: Path, faces_F3: Ints) -> tuple[npt.NDArray[np.float32], Ints]:
    """Read texture coordinates from an OBJ file of a model's mesh.

    Faces may come in another order and start at another corner than the model's.

    Args:
        path: the file, as smpl_uv.obj.
        faces_F3: (F, 3) the model's faces.

    Returns:
        uvs (U, 2), origin at the lower left, and for each of the model's faces indices into them (F, 3).

    Raises:
        SyntheticError: the file is of another mesh, without texture coordinates, or damaged.
    """
    charts = read_obj(path, SyntheticError, num_vertices=int(faces_F3.max()) + 1)
    # Both as rows of sorted corners, rows sorted: equal meshes give equal tables, whatever the order.
    theirs, ours = np.argsort(charts.faces, axis=1), np.argsort(faces_F3, axis=1)
    their_keys = _face_keys(np.take_along_axis(charts.faces, theirs, axis=1), charts.num_vertices)
    our_keys = _face_keys(np.take_along_axis(faces_F3, ours, axis=1), charts.num_vertices)
    rank, our_rank = np.argsort(their_keys, kind="stable"), np.argsort(our_keys, kind="stable")
    if len(rank) != len(our_rank) or (their_keys[rank] != our_keys[our_rank]).any():
        missing = len(np.setdiff1d(our_keys, their_keys))
        raise SyntheticError(
            f"{path.name} is of another mesh: {missing} of the body's {len(faces_F3)} faces are not among its {len(rank)}",
            where=path,
            hint=HINT,
        )
    sorted_uvs = np.take_along_axis(charts.face_uvs, theirs, axis=1)
    face_uvs = np.empty_like(faces_F3)
    np.put_along_axis(face_uvs, ours, sorted_uvs[rank][np.argsort(our_rank)], axis=1)
    return charts.uvs.astype(np.float32), face_uvs


def _face_keys(corners_F3: Ints, num_vertices: int) -> Ints:
    return np.asarray((corners_F3[:, 0] * num_vertices + corners_F3[:, 1]) * num_vertices + corners_F3[:, 2])


def find_textures(folder: Path, *, gender: str = "") -> tuple[str, ...]:
    """Textures of people in ordinary clothes, by names relative to the folder, sorted.

    Scans in grey underwear (`grey_*`) are left out, since nobody is rendered undressed.

    Args:
        folder: SURREAL's `textures`, or one of its folders.
        gender: "male" or "female": only those named so, if any are.

    Raises:
        SyntheticError: there is no such folder, or it holds no such picture.
    """
    if not folder.is_dir():
        raise SyntheticError(
            "there is no such folder of textures", where=folder, hint="give SURREAL's folder `textures`"
        )
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    dressed = [p.relative_to(folder).as_posix() for p in found if not p.name.lower().startswith(_GREY)]
    if not dressed:
        what = "holds only scans in underwear (grey_*)" if found else f"holds no picture ({', '.join(SUFFIXES)})"
        raise SyntheticError(
            f"the folder of textures {what}",
            where=folder,
            hint="give SURREAL's folder `textures` with its nongrey_*.jpg; nobody is rendered undressed",
        )
    return tuple([n for n in dressed if gender and f"_{gender}_" in n.lower()] or dressed)


def read_texture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a texture.

    Returns:
        (S, S, 3) RGB, row 0 is texture coordinate v = 0.

    Raises:
        SyntheticError: the picture is damaged or of another size.
    """
    hint = "SURREAL's textures are 512 x 512; any square with a side of a power of two from 64 to 4096 will do"
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width != height or not _SIDES_PX[0] <= width <= _SIDES_PX[1] or width & (width - 1):
                raise SyntheticError(f"the texture {path.name} is {width} x {height} pixels", where=path, hint=hint)
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SyntheticError(f"the texture {path.name} cannot be read: {error}", where=path, hint=hint) from error
    return np.ascontiguousarray(pixels[::-1])


class TextureWardrobe:
    """Dresses a converted SMPL in textures of a folder; the counterpart of `Wardrobe`.

    Args:
        body: a converted SMPL.
        uv_file: its texture coordinates, smpl_uv.obj.
        folder: SURREAL's textures. A model of one gender wears textures named after that gender, where there are some.

    Attributes:
        names: the textures, relative to the folder.
        uvs_U2: texture coordinates, origin at the lower left.
        face_uvs_F3: indices into them for each face of the body.

    Raises:
        SyntheticError: the texture coordinates are of another mesh, or the folder has no textures.
    """

    parts = ("background", "person")

    def __init__(self, body: BodyModel, uv_file: Path, folder: Path) -> None:
        self._body, self._folder = body, folder
        self.uvs_U2, self.face_uvs_F3 = read_uv_obj(uv_file, body.faces_F3)
        self.names = find_textures(folder, gender=_gender(str(body.provenance.get("made_from", ""))))
        self._read = lru_cache(maxsize=8)(read_texture)

    def texture_of(self, look: Look) -> str:
        """Name of the texture that a look wears: chosen by its seed."""
        return self.names[int(rng_for(look.seed, "texture").integers(len(self.names)))]

    def dress(self, look: Look) -> Outfit:
        """Put on the texture that belongs to a look; of the look only its seed matters.

        Raises:
            SyntheticError: the texture is damaged or of another size.
        """
        rgb = self._read(self._folder / self.texture_of(look))
        corners, triangles, fit = self._mesh
        num = len(self._body.template_X3)
        return Outfit(
            texture_SS4=np.dstack([rgb, np.full(rgb.shape[:2], self.parts.index("person"), dtype=np.uint8)]),
            push_X=np.zeros(num),
            smooth_X=np.zeros(num),
            shift_X3=np.zeros((num, 3)),
            faces_F3=self._body.faces_F3,
            face_ids_F=np.arange(len(self._body.faces_F3)),
            corners_K2=corners,
            triangles_F3=triangles,
            fit=fit,
        )

    def clothe(self, verts_X3: npt.ArrayLike, outfit: Outfit) -> tuple[Floats, Floats]:
        """The posed body as it is, vertices (X, 3) in metres, with its unit normals (X, 3): clothes are in the picture."""
        return outfit.fit.clothe(verts_X3)

    @cached_property
    def _mesh(self) -> tuple[Ints, Ints, Fit]:
        num, faces_F3 = len(self._body.template_X3), self._body.faces_F3
        keys, inverse = np.unique(faces_F3 * len(self.uvs_U2) + self.face_uvs_F3, return_inverse=True)
        corners = np.stack(np.divmod(keys, len(self.uvs_U2)), axis=1)
        none = np.zeros(num)
        fit = Fit(
            sp.csr_matrix((num, num)),
            push_X=none,
            smooth_X=none,
            shift_X3=np.zeros((num, 3)),
            pieces=(),
            faces_F3=faces_F3,
        )
        return corners, inverse.reshape(-1, 3), fit


def _gender(made_from: str) -> str:
    name = made_from.lower()
    if "female" in name or "_f_" in name:
        return "female"
    return "male" if "male" in name or "_m_" in name else ""


__all__ = ["TextureWardrobe", "find_textures", "read_texture", "read_uv_obj"]
