"""A rig whose truth is known, written in each format that `pipeline.sources.calibration` reads."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from manifests.geometry import project

SIZE = (640, 480)


@dataclass(frozen=True)
class TrueCamera:
    """One camera as it truly is: K in px, OpenCV distortion, world to camera in metres."""

    name: str
    K: np.ndarray
    distortion: np.ndarray
    pose: np.ndarray

    @property
    def rvec(self) -> np.ndarray:
        return cv2.Rodrigues(self.pose[:3, :3])[0].reshape(-1)


def true_rig(num: int = 3) -> list[TrueCamera]:
    """Cameras around the origin, 3 m away, that look at it."""
    cameras = []
    for k in range(num):
        angle = 2 * np.pi * k / num + 0.3
        eye = np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.2])
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
        K = np.array([[500.0 + k, 0, 322.5], [0, 502.0 + k, 238.25], [0, 0, 1]])
        cameras.append(TrueCamera(f"cam{k + 1:02d}", K, np.array([-0.1, 0.03, 0.001, -0.002, 0.01]), pose))
    return cameras


def points() -> np.ndarray:
    """(20, 3) points near the origin, metres."""
    return np.random.default_rng(0).uniform(-0.6, 0.6, (20, 3))


def true_pixels(camera: TrueCamera) -> np.ndarray:
    """(20, 2) where OpenCV sees `points`: a second opinion on the geometry of ours."""
    seen, _ = cv2.projectPoints(points(), camera.rvec, camera.pose[:3, 3], camera.K, camera.distortion)
    return seen.reshape(-1, 2)


def seen_pixels(camera) -> np.ndarray:
    """(20, 2) where a camera that was read from a file sees `points`."""
    return project(points(), camera.intrinsics, camera.camera_from_world, np.array(camera.distortion))[0]


def _toml_rows(array: np.ndarray) -> str:
    return json.dumps(np.asarray(array).tolist())


def write_caliscope(folder: Path, rig: list[TrueCamera], *, vector: bool = False) -> list[Path]:
    text = ""
    for k, camera in enumerate(rig):
        rotation = camera.rvec if vector else camera.pose[:3, :3]
        text += f"[cameras.{k + 1}]\ncam_id = {k + 1}\nrotation_count = 0\nsize = {list(SIZE)}\n"
        text += f"matrix = {_toml_rows(camera.K)}\ndistortions = {_toml_rows(camera.distortion)}\n"
        text += f"translation = {_toml_rows(camera.pose[:3, 3])}\nrotation = {_toml_rows(rotation)}\n\n"
    (folder / "camera_array.toml").write_text(text)
    return [folder / "camera_array.toml"]


def write_pose2sim(folder: Path, rig: list[TrueCamera]) -> list[Path]:
    text = ""
    for camera in rig:
        text += f'[{camera.name}]\nname = "{camera.name}"\nsize = [{SIZE[0]}.0, {SIZE[1]}.0]\n'
        text += f"matrix = {_toml_rows(camera.K)}\ndistortions = {_toml_rows(camera.distortion)}\n"
        text += (
            f"rotation = {_toml_rows(camera.rvec)}\ntranslation = {_toml_rows(camera.pose[:3, 3])}\nfisheye = false\n\n"
        )
    (folder / "Calib_scene.toml").write_text(text + "[metadata]\nadjusted = false\nerror = 0.0\n")
    return [folder / "Calib_scene.toml"]


def write_qualisys(folder: Path, rig: list[TrueCamera]) -> list[Path]:
    """As Qualisys states it: K in 1/64 px, camera axes x right, y up, z backward, centre in millimetres."""
    nodes = []
    for camera in rig:
        rotation = np.diag([1.0, -1, -1]) @ camera.pose[:3, :3]
        centre = -camera.pose[:3, :3].T @ camera.pose[:3, 3] * 1000
        r = " ".join(f'r{i + 1}{j + 1}="{rotation[i, j]:.17g}"' for i in range(3) for j in range(3))
        k1, k2, p1, p2, k3 = camera.distortion
        nodes.append(
            f'<camera serial="{camera.name}"><fov_video left="0" top="0" right="{SIZE[0] - 1}" bottom="{SIZE[1] - 1}"/>'
            f'<transform {r} x="{centre[0]:.17g}" y="{centre[1]:.17g}" z="{centre[2]:.17g}"/>'
            f'<intrinsic focalLengthU="{camera.K[0, 0] * 64}" focalLengthV="{camera.K[1, 1] * 64}" '
            f'centerPointU="{camera.K[0, 2] * 64}" centerPointV="{camera.K[1, 2] * 64}" skew="0" '
            f'radialDistortion1="{k1}" radialDistortion2="{k2}" radialDistortion3="{k3}" '
            f'tangentalDistortion1="{p1}" tangentalDistortion2="{p2}"/></camera>'
        )
    path = folder / "Calib.qca.txt"
    path.write_text(f"<?xml version='1.0'?><calibration><cameras>{''.join(nodes)}</cameras></calibration>")
    return [path]


def write_opencv(folder: Path, rig: list[TrueCamera], *, suffix: str = ".yml", vector: bool = False) -> list[Path]:
    """One file per camera, by OpenCV itself."""
    paths = []
    for camera in rig:
        path = folder / f"{camera.name}{suffix}"
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", SIZE[0])
        storage.write("image_height", SIZE[1])
        storage.write("camera_matrix", camera.K)
        storage.write("distortion_coefficients", camera.distortion.reshape(1, -1))
        storage.write("rvec" if vector else "R", camera.rvec.reshape(3, 1) if vector else camera.pose[:3, :3])
        storage.write("tvec" if vector else "T", camera.pose[:3, 3].reshape(3, 1))
        storage.release()
        paths.append(path)
    return paths


def write_plain_json(folder: Path, rig: list[TrueCamera]) -> list[Path]:
    data = {
        camera.name: {
            "K": camera.K.tolist(),
            "dist": camera.distortion.tolist(),
            "R": camera.pose[:3, :3].tolist(),
            "t": camera.pose[:3, 3].tolist(),
            "size": list(SIZE),
        }
        for camera in rig
    }
    (folder / "cameras.json").write_text(json.dumps({"cameras": data}))
    return [folder / "cameras.json"]


def write_dat(folder: Path, rig: list[TrueCamera]) -> list[Path]:
    def rows(array: np.ndarray) -> str:
        return "".join(" ".join(map(repr, map(float, row))) + " \n" for row in np.atleast_2d(array))

    paths = []
    for k, camera in enumerate(rig):
        lens, pose = folder / f"c{k + 1}.dat", folder / f"rot_trans_c{k + 1}.dat"
        lens.write_text(f"intrinsic:\n{rows(camera.K)}distortion:\n{rows(camera.distortion)}")
        block = f"R:\n{rows(camera.pose[:3, :3])}T:\n{rows(camera.pose[:3, 3:])}"
        pose.write_text(f"{block}\n#below is another pose\nR:\n{rows(np.eye(3))}T:\n{rows(np.zeros((3, 1)))}")
        paths += [lens, pose]
    return paths
