"""Finds background files, draws backdrops from them, and turns these into what is rendered.

- images: a folder of photos, one for each view. Nobody may be in them: COCO's annotations say who is, or the recipe says
  `annotations: none`.
- panoramas: equirectangular photos; all views see one, on the ground and around (`panorama`).
- meshes: rooms and buildings; the person stands on a free place of the floor (`spaces`).

Shape letters: S side of a picture, larger than the image by the supersampling.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from manifests.errors import SourceError, SyntheticError
from manifests.jsonstream import iter_arrays
from synthetic.camera import Camera
from synthetic.places import spaces
from synthetic.places.backdrop import Backdrop, Kind
from synthetic.places.panorama import lamp_light, light_from_panorama, panorama_picture, sky_picture
from synthetic.places.room import Surface
from synthetic.scene import Light

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

NOBODY = "none"  # annotations: the user says that there is nobody in the images
MAX_PIXELS = 80_000_000
MIN_SIDE_PX = 160  # a smaller photo would be a blur behind a sharp person
NEAREST_M = 1.5  # a camera nearer than this distorts, and sees no whole person
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_PEOPLE = ("person", "people", "human", "pedestrian")
_DRAWS = 16  # places and turns tried in a mesh
_PERSON_HALF_M = 0.65  # from the middle to where the sight should be free, up and down
_LIKE_COCO = re.compile(r"(?:COCO_\w+_)?\d{12}\.jpg")
_BAD_PHOTO = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrops:
    """The usable backgrounds of a folder.

    Attributes:
        kind: what they are.
        folder: where they lie.
        names: their paths below the folder, sorted.
        stamp: changes with the names and sizes of the files.
        left_out: how many files are not used, by reason.
        up: of meshes, "y", "z", or "auto".
    """

    kind: Kind
    folder: Path
    names: tuple[str, ...]
    stamp: str
    left_out: tuple[tuple[str, int], ...] = ()
    up: spaces.Up = "auto"

    @classmethod
    def of(cls, kind: Kind, folder: Path, *, annotations: str | None = None, up: spaces.Up = "auto") -> "Backdrops":
        """List a folder's backgrounds; of each file only the header is read.

        Args:
            kind: what they are.
            folder: searched with all folders below it.
            annotations: of images, a file in COCO's format (instances or person_keypoints), or `NOBODY`: there is nobody in
                any of them. Images that it does not name are left out, as are those with a person.
            up: of meshes, which axis points up.

        Raises:
            SyntheticError: there are none, nothing says who is in the images, or a file is unusable.
            SourceError: the annotations are damaged.
        """
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.is_file() else "is not there"
            hint = "give the folder that holds it" if folder.is_file() else "check the path"
            raise SyntheticError(f"the folder of backgrounds {what}", where=folder, hint=hint)
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
        suffixes = spaces.SUFFIXES if kind == "meshes" else PHOTO_SUFFIXES
        names = [file.relative_to(folder).as_posix() for file in files if file.suffix.lower() in suffixes]
        if not names:
            raise SyntheticError(
                f"there are no {kind} in the folder of backgrounds",
                where=folder,
                hint=f"give {', '.join(suffixes)} files",
            )
        left_out: Counter[str] = Counter()
        if kind == "images":
            names = _without_people(folder, names, annotations, left_out)
        elif annotations is not None:
            raise SyntheticError(
                f"annotations are given with {kind}", where=annotations, hint="leave them away: only images need them"
            )
        kept = [name for name in names if _check(kind, folder / name, left_out)]
        if not kept:
            raise SyntheticError(
                f"no background is left: {_told(left_out)}",
                where=folder,
                hint="give more images, or their own annotations",
            )
        logger.info("%s: %d %s; left out: %s", folder, len(kept), kind, _told(left_out))
        inputs = files if kind == "meshes" else [folder / name for name in kept]  # a mesh draws on files beside it
        stamp = hashlib.sha256(f"{kind} {up}".encode())
        for file in inputs:
            stamp.update(f"\n{file.stat().st_size} {file.relative_to(folder).as_posix()}".encode())
        return cls(
            kind=kind,
            folder=folder,
            names=tuple(kept),
            stamp=stamp.hexdigest(),
            left_out=tuple(sorted(left_out.items())),
            up=up,
        )

    def sample(self, rng: np.random.Generator, cameras: Sequence[Camera]) -> Backdrop:
        """Draw a backdrop for the views of a scene.

        Args:
            rng: source of randomness.
            cameras: the views as they would be in open space; a mesh is turned so that they have room, see `fit`.

        Raises:
            SyntheticError: no mesh that was drawn has room for the cameras, or one is damaged.
        """
        if self.kind == "images":
            num_views = len(cameras)
            chosen = rng.choice(len(self.names), num_views, replace=num_views > len(self.names))
            crops = rng.uniform((0.7, 0.0, 0.0), 1.0, (num_views, 3)).round(4).tolist()
            return Backdrop(
                kind=self.kind,
                names=tuple(self.names[index] for index in chosen),
                crops=tuple((side, across, down) for side, across, down in crops),
            )
        if self.kind == "panoramas":
            return Backdrop(kind=self.kind, names=(self.names[int(rng.integers(len(self.names)))],), yaw_rad=_turn(rng))
        return self._sample_place(rng, cameras)

    def _sample_place(self, rng: np.random.Generator, cameras: Sequence[Camera]) -> Backdrop:
        """Of the first mesh of a random order that has room: where most cameras see all of a person, and shorten least."""
        tried = []
        for index in rng.permutation(len(self.names))[:4]:
            name = self.names[index]
            space = spaces.read_space(self.folder / name, self.up)
            best, most = None, (-1, 0.0)
            for place in rng.integers(len(space.places_P2), size=_DRAWS):
                x, z = (float(value) for value in space.places_P2[place].round(3))
                drawn = Backdrop(
                    kind=self.kind,
                    names=(name,),
                    up=space.up,
                    yaw_rad=_turn(rng),
                    place_m=(x, round(space.floor_m, 3), z),
                )
                near = self.fit(drawn, cameras)
                if any(n.distance_m < min(c.distance_m, NEAREST_M) for n, c in zip(near, cameras, strict=True)):
                    continue
                share = min(n.distance_m / c.distance_m for n, c in zip(near, cameras, strict=True))
                score = (sum(self._sees(drawn, camera) for camera in near), share)
                if score > most:
                    best, most = drawn, score
            if best is not None:
                return best
            tried.append(name)
        raise SyntheticError(
            f"in none of {', '.join(tried)} {len(cameras)} cameras have {NEAREST_M} m of free sight to a person",
            where=self.folder,
            hint="give larger or emptier rooms, or ask for fewer views or a smaller distance",
        )

    def fit(self, backdrop: Backdrop, cameras: Sequence[Camera]) -> tuple[Camera, ...]:
        """The cameras, brought nearer where a wall of the mesh would stand before or behind them."""
        if self.kind != "meshes":
            return tuple(cameras)
        return tuple(
            replace(
                camera, distance_m=self.clear_m(backdrop, camera.target_m, _away(camera), reach_m=camera.distance_m)
            )
            for camera in cameras
        )

    def _sees(self, backdrop: Backdrop, camera: Camera) -> bool:
        """Whether furniture leaves the sight free to what is above and below the middle of a camera's picture."""
        half_m = min(_PERSON_HALF_M, camera.distance_m / 4)
        for offset in (-half_m, half_m):
            origin = np.array(camera.target_m)
            origin[1] += offset
            distance = float(np.linalg.norm(camera.eye_m - origin))
            direction = (camera.eye_m - origin) / distance
            if self.clear_m(backdrop, origin, direction, reach_m=distance) < distance:
                return False
        return True

    def clear_m(
        self, backdrop: Backdrop, origin_m: npt.ArrayLike, direction: npt.ArrayLike, *, reach_m: float
    ) -> float:
        """How far one can go from a point in the scene's world along a unit direction; `reach_m` where nothing is in the way."""
        if self.kind != "meshes":
            return reach_m
        turn, shift = spaces.place_from_world(backdrop)
        space = spaces.read_space(self.folder / backdrop.names[0], backdrop.up)
        return space.clear_m(turn @ np.asarray(origin_m) + shift, turn @ np.asarray(direction), reach_m=reach_m)

    def surfaces(self, backdrop: Backdrop) -> list[Surface]:
        """The room of a mesh around the scene's origin; none for photos.

        Raises:
            SyntheticError: the file is gone or damaged.
        """
        if self.kind != "meshes":
            return []
        return spaces.surfaces_around(spaces.read_space(self.folder / backdrop.names[0], backdrop.up), backdrop)

    def picture(
        self,
        backdrop: Backdrop,
        *,
        view: int,
        intrinsics: Floats,
        camera_from_world: Floats,
        image_px: int,
        zoom: int,
        shadow_SSC: Bytes | None = None,
    ) -> Bytes:
        """What stands behind everything in a view, with the colours that the final image is to have.

        Args:
            backdrop: of the scene.
            view: index of the camera.
            intrinsics: (3, 3) K of the final image.
            camera_from_world: (4, 4).
            image_px: side of the final image.
            zoom: samples for each of its pixels, along each side.
            shadow_SSC: what `room.floor_shadow` drew; it falls on a panorama's floor.

        Returns:
            (S, S, 3) uint8 with S = image_px * zoom. Behind a mesh, which is drawn as surfaces, stands a pale sky.

        Raises:
            SyntheticError: the file is gone or damaged.
        """
        if self.kind == "images":
            return _crop(self.folder / backdrop.names[view], backdrop.crops[view], image_px * zoom)
        if self.kind == "meshes":
            return sky_picture(intrinsics, camera_from_world, image_px, zoom=zoom)
        return panorama_picture(
            _panorama(self.folder / backdrop.names[0]),
            intrinsics,
            camera_from_world,
            image_px,
            zoom=zoom,
            yaw_rad=backdrop.yaw_rad,
            shadow_SSC=shadow_SSC,
        )

    def light(self, backdrop: Backdrop) -> Light | None:
        """The light that comes from a panorama; None for images and meshes, which do not tell theirs."""
        if self.kind != "panoramas":
            return None
        return lamp_light(light_from_panorama(_panorama(self.folder / backdrop.names[0]), yaw_rad=backdrop.yaw_rad))


def _turn(rng: np.random.Generator) -> float:
    return round(float(rng.uniform(0.0, 2 * np.pi)), 5)


def _away(camera: Camera) -> Floats:
    """(3,) unit direction from what a camera looks at to the camera."""
    offset = camera.eye_m - np.array(camera.target_m)
    return np.asarray(offset / np.linalg.norm(offset))


def _told(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"


# ----------------------------------------------------------------------------------------------------------------- people


def _without_people(folder: Path, names: list[str], annotations: str | None, left_out: Counter[str]) -> list[str]:
    """The images with nobody in them; counts the others."""
    if annotations is None:
        coco = " (the names look like COCO's: its file is annotations/instances_train2017.json)"
        raise SyntheticError(
            "the images may hold people, and nothing says which do",
            where=folder,
            hint="give COCO's file of annotations as `annotations: PATH`"
            f"{coco if any(_LIKE_COCO.fullmatch(Path(name).name) for name in names) else ''}, or write "
            f"`annotations: {NOBODY}` if you know that there is nobody in any of them",
        )
    if annotations == NOBODY:
        return names
    verdicts = _verdicts(Path(annotations))
    matches = {name: _matches(name, verdicts.get(PurePosixPath(name).name, [])) for name in names}
    uses = Counter(named for found in matches.values() for named, _ in found)
    kept = []
    for name, found in matches.items():
        # A bare name of the annotations that fits several files of the folder tells nothing of either.
        if not found or any(uses[named] > 1 for named, _ in found):
            left_out["not named by the annotations"] += 1
        elif any(has_people for _, has_people in found):
            left_out["with people"] += 1
        else:
            kept.append(name)
    return kept


def _verdicts(path: Path) -> dict[str, list[tuple[str, bool]]]:
    """For each file name of the annotations, the paths it stands in and whether somebody is in the image."""
    images: dict[int, str] = {}
    shown: dict[int, set[int]] = {}  # images by category: which is a person's is told last
    people: set[int] = set()
    try:
        for key, item, _ in iter_arrays(path, ("images", "annotations", "categories")):
            if key == "images":
                images[int(item["id"])] = str(item["file_name"])
            elif key == "annotations":
                shown.setdefault(int(item["category_id"]), set()).add(int(item["image_id"]))
            elif str(item["name"]).lower() in _PEOPLE:
                people.add(int(item["id"]))
    except SourceError as error:
        if not path.is_file() or _begins_as_json(path):
            raise
        raise SyntheticError(
            f"{path.name} is no COCO JSON", where=path, hint="give instances_*.json or person_keypoints_*.json"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise SyntheticError(
            f"the annotations are not in COCO's format: {error!r}",
            where=path,
            hint="give instances_*.json or person_keypoints_*.json",
        ) from error
    if not people:
        raise SyntheticError(
            "the annotations have no category of people", where=path, hint=f"one must be called {', '.join(_PEOPLE)}"
        )
    inhabited = set().union(*(shown.get(category, ()) for category in people))
    verdicts: dict[str, list[tuple[str, bool]]] = {}
    for index, name in images.items():
        verdicts.setdefault(PurePosixPath(name).name, []).append((name, index in inhabited))
    return verdicts


def _begins_as_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"{")


def _matches(name: str, named: Collection[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Of annotated paths, those that agree with a file's as far as both tell."""
    parts = PurePosixPath(name).parts[::-1]
    return [
        verdict
        for verdict in named
        if all(a == b for a, b in zip(parts, PurePosixPath(verdict[0]).parts[::-1], strict=False))
    ]


# ----------------------------------------------------------------------------------------------------------------- photos


def _check(kind: Kind, path: Path, left_out: Counter[str]) -> bool:
    """Whether a file is used; counts it if not."""
    if kind == "meshes":
        spaces.check_header(path)
        return True
    width, height = _photo_size(path)
    if kind == "panoramas" and abs(width - 2 * height) > 0.01 * width:
        raise SyntheticError(
            f"the panorama has {width}x{height} px; one that shows everything around is twice as wide as high",
            where=path,
            hint="give equirectangular panoramas only; pad a cut one, or take it out of the folder",
        )
    if min(width, height) < MIN_SIDE_PX:
        left_out[f"smaller than {MIN_SIDE_PX} px"] += 1
        return False
    return True


def _photo_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
    except _BAD_PHOTO as error:
        raise _bad_photo(path, error) from error
    if width * height > MAX_PIXELS:
        raise SyntheticError(
            f"the photo has {width}x{height} px, more than {MAX_PIXELS // 10**6} million",
            where=path,
            hint="scale it down, or take it out of the folder",
        )
    return width, height


def _read_photo(path: Path) -> Bytes:
    """(H, W, 3), upright."""
    _photo_size(path)
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except _BAD_PHOTO as error:
        raise _bad_photo(path, error) from error


def _bad_photo(path: Path, error: Exception) -> SyntheticError:
    return SyntheticError(
        f"the photo cannot be read: {error}", where=path, hint="copy it again, or take it out of the folder"
    )


@lru_cache(maxsize=1)
def _panorama(path: Path) -> Bytes:
    return _read_photo(path)


@lru_cache(maxsize=32)
def _crop(path: Path, crop: tuple[float, float, float], size_px: int) -> Bytes:
    """A square of a photo, (S, S, 3); kept for the next instants of a scene."""
    photo = _read_photo(path)
    height, width = photo.shape[:2]
    side = max(1, round(crop[0] * min(height, width)))
    left, top = round(crop[1] * (width - side)), round(crop[2] * (height - side))
    how = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
    picture = np.asarray(
        cv2.resize(photo[top : top + side, left : left + side], (size_px, size_px), interpolation=how), dtype=np.uint8
    )
    picture.flags.writeable = False  # it is shared
    return picture
