"""Calibrations of rigs, in the formats that people have: each becomes `Camera`s with one convention.

Convention: K in px with pixel (0, 0) at the centre of the first pixel; distortion in OpenCV's order k1, k2, p1, p2, k3, ...;
`camera_from_world` in metres, camera axes x right, y down, z forward.

| file | written by | pose in it |
|---|---|---|
| `*.qca.txt` | Qualisys, pose2sim | XML: K x 64, rotation with y and z of the camera turned round, centre in mm |
| `camera_array.toml` | caliscope | R (3x3 or Rodrigues), t in metres |
| `Calib*.toml` | pose2sim, Anipose | Rodrigues, t in metres |
| `*.yml`, `*.yaml`, `*.json` | OpenCV's FileStorage, or plain mappings | R or rvec, T or tvec |
| `c0.dat`, `rot_trans_c0.dat` | TemugeB's bodypose3d and python_stereo_camera_calibrate | R, T |

Source: the Qualisys convention was verified by triangulation on the recordings of pose2sim 0.10.49.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from manifests.errors import SourceError

Floats = npt.NDArray[np.float64]

MAX_FILE_BYTES = 4 * 2**20
_QCA_PER_PX = 64  # Qualisys writes K in 1/64 px
_NAMES_K = ("camera_matrix", "cameraMatrix", "intrinsics", "intrinsic", "matrix", "K", "M", "mtx")
_NAMES_DISTORTION = ("distortion_coefficients", "distCoeffs", "distortions", "distortion", "dist", "D")
_NAMES_ROTATION = ("R", "rotation", "rotation_matrix", "rvec", "rotation_vector", "Rvec")
_NAMES_TRANSLATION = ("T", "translation", "tvec", "translation_vector", "t", "Tvec")
_NAMES_SIZE = ("size", "image_size", "imageSize", "resolution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One calibrated camera.

    Attributes:
        name: in the calibration.
        intrinsics: (3, 3) K, px of an image of `size`.
        distortion: OpenCV coefficients, or None when none are stated.
        camera_from_world: (4, 4) in metres, or None when only the lens is calibrated.
        size: (width, height) that it was calibrated at, when stated.
    """

    name: str
    intrinsics: Floats
    distortion: tuple[float, ...] | None = None
    camera_from_world: Floats | None = None
    size: tuple[int, int] | None = None


class _WrongError(ValueError):
    """Something in a file is not as it should be: (which key or line, what)."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key}: {what}")


def pinhole(fx: float, fy: float, x: float, y: float) -> Floats:
    """(3, 3) K of focal lengths and principal point, px."""
    return np.array([[fx, 0, x], [0, fy, y], [0, 0, 1.0]])


def is_rotation(R: Floats) -> npt.NDArray[np.bool_]:  # noqa: N803
    """Which of (..., 3, 3) matrices turn, and do nothing else, to the rounding of a text file."""
    with np.errstate(all="ignore"):  # wild numbers are what is looked for
        orthonormal = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(axis=(-2, -1)) <= 0.01
    return np.asarray(orthonormal & (np.linalg.det(np.where(orthonormal[..., None, None], R, 0)) > 0))


def is_calibration(path: Path) -> bool:
    """Whether a file is named like a calibration that `read_calibration` knows."""
    name = path.name.lower()
    if name.startswith("."):
        return False
    opencv = r"((calib|camera|intri|extri).*|cam[_-]?\d+)\.(ya?ml|json)"
    others = r"calib.*\.toml|camera_array\.toml|.*\.qca\.txt|(rot_trans_)?c\d+\.dat"
    return bool(re.fullmatch(f"{opencv}|{others}", name))


def read_calibration(paths: list[Path], *, metres_per_unit: float = 1.0) -> dict[str, Camera]:
    """Read the calibration files of one folder.

    Args:
        paths: files that belong together: one for a whole rig, or one (or two) for each camera.
        metres_per_unit: what one unit of a translation is, where the format does not say it; a chessboard calibration
            may have been made in squares.

    Returns:
        cameras by name.

    Raises:
        SourceError: a file does not parse, names the file, the key or line, and what is wrong with it.
    """
    cameras: dict[str, Camera] = {}
    poses: dict[str, Floats] = {}
    for path in sorted(paths):
        for camera in _guarded(path, poses):
            if camera.name in cameras:
                raise _error(path, f"camera {camera.name} is calibrated a second time")
            cameras[camera.name] = camera
    for name, pose in poses.items():  # of files that hold a pose and nothing else
        if name in cameras and cameras[name].camera_from_world is None:
            cameras[name] = replace(cameras[name], camera_from_world=pose)
    if metres_per_unit != 1:
        cameras = {name: _scaled_world(camera, metres_per_unit) for name, camera in cameras.items()}
    return cameras


def fit_to_image(camera: Camera, width: int, height: int, *, rotation: int = 0) -> tuple[Camera, list[str]]:
    """Make a calibration hold for images of another size or orientation.

    Args:
        camera: as calibrated.
        width: of the upright image, px.
        height: of the upright image, px.
        rotation: degrees counterclockwise by which stored pixels were turned to stand upright.

    Returns:
        the camera for these images, and flags: `rescaled` when K was scaled, `size_differs` when the shapes disagree and
        K was left as it is.
    """
    if camera.size is None or camera.size == (width, height):
        return camera, []
    flags = []
    if rotation % 180 == 90 and _is_scaled((camera.size[1], camera.size[0]), (width, height)):
        for _ in range(rotation // 90):
            camera = _turned(camera)
    size = camera.size
    assert size is not None, "a turned camera keeps its size"
    if _is_scaled(size, (width, height)):
        if size != (width, height):
            scale = np.diag([width / size[0], height / size[1], 1.0])
            # Edges map to edges, and pixel 0 is the centre of the first pixel.
            half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
            intrinsics = np.linalg.inv(half) @ scale @ half @ camera.intrinsics
            camera = replace(camera, intrinsics=intrinsics, size=(width, height))
            flags.append("rescaled")
    else:
        flags.append("size_differs")
    return camera, flags


def _is_scaled(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one shape, to the rounding of a pixel."""
    return abs(size[0] * other[1] - other[0] * size[1]) <= max(*size, *other)


def _turned(camera: Camera) -> Camera:
    """The camera of the image turned by a quarter, counterclockwise: x' = y, y' = width - 1 - x."""
    assert camera.size is not None, "only cameras of a stated size are turned"
    K, (width, height) = camera.intrinsics, camera.size  # noqa: N806
    turned = np.array([[K[1, 1], 0, K[1, 2]], [0, K[0, 0], width - 1 - K[0, 2]], [0, 0, 1.0]])
    turn = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    distortion = camera.distortion
    if distortion is not None:
        k1, k2, p1, p2, *rest = distortion
        distortion = (k1, k2, -p2, p1, *rest)
    pose = None if camera.camera_from_world is None else turn @ camera.camera_from_world
    return replace(camera, intrinsics=turned, distortion=distortion, camera_from_world=pose, size=(height, width))


def _scaled_world(camera: Camera, metres_per_unit: float) -> Camera:
    if camera.camera_from_world is None:
        return camera
    pose = camera.camera_from_world.copy()
    pose[:3, 3] *= metres_per_unit
    return replace(camera, camera_from_world=pose)


def _read(path: Path, text: str, poses: dict[str, Floats]) -> list[Camera]:
    """Read one file; poses that come without a lens go to `poses`."""
    kind = path.suffix.lower()
    if path.name.lower().endswith(".qca.txt"):
        return _read_qca(text)
    if kind == ".dat":
        return _read_dat(path.stem, text, poses)
    if kind == ".toml":
        data = tomllib.loads(text)
        nested = data.get("cameras")
        tables = nested if isinstance(nested, dict) else data
        return _from_tables({k: v for k, v in tables.items() if isinstance(v, dict) and k != "metadata"}, poses)
    if kind == ".json":
        return _from_document(json.loads(text), path, poses)
    # OpenCV opens its files with `%YAML:1.0`, which is no YAML; the line is kept empty so that line numbers hold.
    text = re.sub(r"\A%YAML[:\s].*", "", text)
    return _from_document(yaml.load(text, Loader=_OpenCvLoader), path, poses)


def _guarded(path: Path, poses: dict[str, Floats]) -> list[Camera]:
    """Read one file; whatever is wrong with a file becomes one error that names it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _WrongError("size", f"more than {MAX_FILE_BYTES} bytes is no calibration")
        return _read(path, path.read_text(encoding="utf-8"), poses)
    except (OSError, ValueError, ElementTree.ParseError, yaml.YAMLError, RecursionError) as error:
        raise _error(path, " ".join(str(error).split())) from error


def _error(path: Path, what: str) -> SourceError:
    return SourceError(
        f"the calibration does not parse: {what}",
        where=path,
        hint="write it again with the tool that made it, or move it away to go on without calibration",
    )


def _read_qca(text: str) -> list[Camera]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _WrongError("XML", "declares entities, which no calibration needs")
    cameras = []
    for number, node in enumerate(ElementTree.fromstring(text).iter("camera")):
        name = node.get("serial") or str(number)
        lens, pose, view = node.find("intrinsic"), node.find("transform"), node.find("fov_video")
        if lens is None or pose is None or view is None:
            raise _WrongError(f"camera {name}", "needs <intrinsic>, <transform> and <fov_video>")
        value = {
            key: _number(raw, f"camera {name}: {key}")
            for part in (lens, pose, view)
            for key, raw in part.attrib.items()
        }
        try:
            left, top = value["left"], value["top"]
            size = (round(value["right"] - left) + 1, round(value["bottom"] - top) + 1)
            intrinsics = [
                [value["focalLengthU"], value.get("skew", 0.0), value["centerPointU"] - left * _QCA_PER_PX],
                [0.0, value["focalLengthV"], value["centerPointV"] - top * _QCA_PER_PX],
                [0.0, 0.0, float(_QCA_PER_PX)],
            ]
            distortion = [value[f"radialDistortion{k}"] for k in (1, 2)]
            distortion += [value[f"tangentalDistortion{k}"] for k in (1, 2)] + [value["radialDistortion3"]]
            rotation = np.array([[value[f"r{row}{column}"] for column in (1, 2, 3)] for row in (1, 2, 3)])
            centre_m = np.array([value[axis] for axis in "xyz"]) / 1000
        except KeyError as error:
            raise _WrongError(f"camera {name}", f"attribute {error} is missing") from error
        rotation = np.diag([1.0, -1.0, -1.0]) @ rotation
        matrix = np.array(intrinsics) / _QCA_PER_PX
        cameras.append(_camera(name, matrix, distortion, rotation, -rotation @ centre_m, size, where=f"camera {name}"))
    if not cameras:
        raise _WrongError("XML", "holds no <camera>")
    return cameras


class _OpenCvLoader(yaml.SafeLoader):
    """Plain YAML and OpenCV's matrices, nothing else: an unknown tag is refused."""


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    assert isinstance(node, yaml.MappingNode), "PyYAML calls this for mappings"
    return {"type_id": "opencv-matrix", **loader.construct_mapping(node, deep=True)}


_OpenCvLoader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)


def _from_document(data: Any, path: Path, poses: dict[str, Floats]) -> list[Camera]:
    """A document is one camera, a mapping or list of cameras, or a mapping `cameras:` of either."""
    if isinstance(data, dict) and isinstance(data.get("cameras"), dict | list):
        data = data["cameras"]
    if isinstance(data, list):
        data = {str(item.get("name", k)) if isinstance(item, dict) else str(k): item for k, item in enumerate(data)}
    if not isinstance(data, dict):
        raise _WrongError("document", "is no mapping of cameras")
    if _first(data, _NAMES_K) is not None or _first(data, _NAMES_ROTATION) is not None:
        name = re.sub(r"^(calib(ration)?|intri(nsics?)?|extri(nsics?)?)[_-]", "", path.stem, flags=re.IGNORECASE)
        return _from_tables({str(data.get("camera_name", data.get("name", name))): data}, poses)
    return _from_tables({str(k): v for k, v in data.items() if isinstance(v, dict) and "rows" not in v}, poses)


def _from_tables(tables: Mapping[str, Mapping[str, Any]], poses: dict[str, Floats]) -> list[Camera]:
    cameras = []
    for table, values in tables.items():
        name = str(values.get("name", values.get("cam_id", values.get("port", table))))
        if values.get("fisheye") is True:
            raise _WrongError(f"{table}: fisheye", "fisheye lenses are not supported; undistort the videos first")
        matrix, lens = _first(values, _NAMES_K), _first(values, _NAMES_DISTORTION)
        rotation, translation = _first(values, _NAMES_ROTATION), _first(values, _NAMES_TRANSLATION)
        if matrix is None and rotation is None:
            continue  # metadata, or a camera that was not calibrated
        if (rotation is None) != (translation is None):
            raise _WrongError(table, "has only one of rotation and translation")
        R = T = None  # noqa: N806
        if rotation is not None and translation is not None:
            R = _rotation(_array(rotation[1], f"{table}: {rotation[0]}"), f"{table}: {rotation[0]}")  # noqa: N806
            T = _array(translation[1], f"{table}: {translation[0]}").reshape(-1)  # noqa: N806
        if matrix is None:
            assert R is not None, "matrix or rotation is there"
            assert T is not None, "rotation comes with translation"
            poses[name] = _pose(R, T, table)
            continue
        distortion = None if lens is None else _array(lens[1], f"{table}: {lens[0]}").reshape(-1).tolist()
        K = _array(matrix[1], f"{table}: {matrix[0]}")  # noqa: N806
        cameras.append(_camera(name, K, distortion, R, T, _size(values, table), where=table))
    if not cameras and not poses:
        raise _WrongError("document", f"no camera in it has one of {', '.join(_NAMES_K)}")
    return cameras


def _read_dat(stem: str, text: str, poses: dict[str, Floats]) -> list[Camera]:
    """Blocks of numbers under the headings intrinsic, distortion, R and T; after a comment come notes, not this pose."""
    blocks: dict[str, list[list[float]]] = {}
    block: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        heading = re.fullmatch(r"\s*([A-Za-z]+)\s*:\s*", line)
        if line.lstrip().startswith("#"):
            break
        if heading:
            block = blocks.setdefault(heading[1], [])
        elif line.strip():
            block.append([_number(word, f"line {number}") for word in line.split()])
    name = re.sub(r"^rot_trans_", "", stem)
    if name != stem:
        if not {"R", "T"} <= blocks.keys():
            raise _WrongError("headings", "`R:` and `T:` are needed")
        poses[name] = _pose(_rotation(_array(blocks["R"], "R"), "R"), _array(blocks["T"], "T").reshape(-1), "T")
        return []
    if "intrinsic" not in blocks:
        raise _WrongError("headings", "`intrinsic:` is needed")
    distortion = [value for row in blocks.get("distortion", []) for value in row]
    return [_camera(name, _array(blocks["intrinsic"], "intrinsic"), distortion or None, None, None, None, where=name)]


def _camera(
    name: str,
    matrix: Floats,
    distortion: list[float] | None,
    rotation: Floats | None,
    translation: Floats | None,
    size: tuple[int, int] | None,
    *,
    where: str,
) -> Camera:
    """Check the parts of a camera and put them together."""
    if matrix.shape != (3, 3) or not np.allclose(matrix[2], [0, 0, 1]) or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise _WrongError(f"{where}: camera matrix", "must be 3x3 with positive focal lengths and a last row of 0 0 1")
    if distortion is not None and len(distortion) not in (4, 5, 8, 12, 14):
        raise _WrongError(f"{where}: distortion", f"has {len(distortion)} coefficients, not 4, 5 or 8")
    if distortion is not None and any(distortion[8:]):
        raise _WrongError(f"{where}: distortion", "thin-prism and tilted lenses are not supported")
    return Camera(
        name=name,
        intrinsics=matrix,
        distortion=None if distortion is None else tuple(float(value) for value in distortion[:8]),
        camera_from_world=None if rotation is None or translation is None else _pose(rotation, translation, where),
        size=size,
    )


def _pose(rotation: Floats, translation: Floats, where: str) -> Floats:
    if translation.shape != (3,):
        raise _WrongError(f"{where}: translation", f"has {translation.size} numbers, not 3")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def _rotation(value: Floats, where: str) -> Floats:
    """A rotation from its matrix or its Rodrigues vector, cleaned of rounding."""
    if value.size == 3:
        value = np.asarray(cv2.Rodrigues(value.reshape(3, 1))[0], float)
    if value.shape != (3, 3):
        raise _WrongError(where, f"has shape {value.shape}: a 3x3 matrix or a vector of 3 is wanted")
    if not is_rotation(value):
        raise _WrongError(where, "is no rotation: its rows are not orthonormal and right-handed")
    u, _, v = np.linalg.svd(value)
    nearest: Floats = u @ v
    return nearest


def _array(value: Any, where: str) -> Floats:
    """Numbers from nested lists, or from one of OpenCV's matrices."""
    shape = None
    if isinstance(value, dict):
        if not {"rows", "cols", "data"} <= value.keys():
            raise _WrongError(where, "is no matrix with rows, cols and data")
        shape, value = (value["rows"], value["cols"]), value["data"]
    try:
        array = np.array(value, dtype=float)
        array = array if shape is None else array.reshape(shape)
    except (ValueError, TypeError) as error:
        raise _WrongError(where, f"is no matrix of numbers: {error}") from error
    if array.size == 0 or not np.isfinite(array).all():
        raise _WrongError(where, "holds no numbers, or some that are not finite")
    return array


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _WrongError(where, f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise _WrongError(where, f"{text!r} is not finite")
    return value


def _size(values: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    stated = _first(values, _NAMES_SIZE)
    pair: Any = stated[1] if stated else (values.get("image_width"), values.get("image_height"))
    if not stated and None in pair:
        return None
    try:
        width, height = (int(side) for side in pair)
    except (TypeError, ValueError) as error:
        raise _WrongError(f"{where}: size", f"{pair} is no width and height") from error
    return width, height


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any] | None:
    """The first of some spellings of a key that is there, with its value."""
    return next(((name, values[name]) for name in names if values.get(name) is not None), None)
