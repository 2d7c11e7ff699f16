"""One Arrow schema and one version per table. Shapes of the lists are given beside them, row-major.

A schema's version rises with every change of a column's name, type or meaning; it is part of every fingerprint.
"""

import pyarrow as pa

CELLS = 64  # a silhouette is stored as CELLS x CELLS bits over the stored crop, packed row by row: 512 bytes

_matrix3 = pa.list_(pa.float64(), 9)  # (3, 3)
_matrix4 = pa.list_(pa.float64(), 16)  # (4, 4)
_box = pa.list_(pa.float64(), 4)  # x0, y0, x1, y1

# Who and when: the same columns open frames and crops. `group` is what must not be on two sides of a split.
_identity = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("licence", pa.string(), nullable=False),  # terms of the source, in a few words
    pa.field("domain", pa.string(), nullable=False),  # types.Domain
    pa.field("split", pa.string(), nullable=False),  # types.Split
    pa.field("group", pa.string(), nullable=False),  # subject or recording that may not be in two splits
    pa.field("subject", pa.string()),  # identity of the person, when known
    pa.field("sequence", pa.string(), nullable=False),
    pa.field("instant", pa.int64(), nullable=False),  # shared by synchronous cameras
    pa.field("time_s", pa.float64()),  # seconds from the start of the recording, when known
    pa.field("view", pa.string(), nullable=False),
    pa.field("track", pa.string(), nullable=False),
]
_flags = pa.field("flags", pa.list_(pa.string()), nullable=False)  # gray, unsynchronised, size_differs, ...

FRAMES = pa.schema(
    [
        *_identity,
        pa.field("media", pa.string(), nullable=False),  # path below the source's root
        pa.field("media_index", pa.int64(), nullable=False),  # frame of a video in display order; 0 for an image
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("box_xyxy_px", _box),  # null: the crop stage looks for people
        pa.field("box_from", pa.string()),  # types.BoxFrom
        pa.field("intrinsics", _matrix3),  # K, px of this frame
        pa.field("camera_from_world", _matrix4),  # metres; x right, y down, z forward
        pa.field("distortion", pa.list_(pa.float64())),  # OpenCV order k1, k2, p1, p2, k3, ...; null: none known
        pa.field("keypoints_set", pa.string()),  # smpl24, coco17, ...
        pa.field("keypoints_px", pa.list_(pa.float32())),  # (J, 3): x, y, confidence
        pa.field("silhouette_from", pa.string(), nullable=False),  # types.SilhouetteFrom
        pa.field("side", pa.string()),  # left | right, for hands
        _flags,
    ],
    metadata={"table": "frames", "version": "2"},
)

CROPS = pa.schema(
    [
        *_identity,
        pa.field("frame_key", pa.string(), nullable=False),  # the frame it was cut from
        pa.field("jpeg", pa.binary(), nullable=False),  # the square crop, resized, encoded once
        pa.field("size_px", pa.int32(), nullable=False),  # its side
        pa.field("square_xyxy_px", _box, nullable=False),  # the square in the frame (may leave the image: padded)
        pa.field("box_xyxy_px", _box, nullable=False),  # the person in the frame
        pa.field("box_from", pa.string(), nullable=False),
        pa.field("intrinsics", _matrix3),  # K of the stored crop, px
        pa.field("camera_from_world", _matrix4),
        pa.field("silhouette", pa.binary(), nullable=False),  # CELLS x CELLS bits; all zero: unknown
        pa.field("silhouette_from", pa.string(), nullable=False),
        pa.field("surface", pa.binary()),  # of rendered people: visible pixels of each cell of the body, see surface.py
        pa.field("parser", pa.string()),  # name and version of what drew it
        pa.field("coverage", pa.float32(), nullable=False),  # share of the crop inside the silhouette
        pa.field("mean", pa.float32(), nullable=False),  # mean luma of the crop, 0..255
        pa.field("phash", pa.uint64(), nullable=False),  # 64-bit perceptual hash of the crop
        pa.field("difference", pa.float32()),  # mean absolute luma difference to the frame before, 0..255
        pa.field("segment", pa.int32(), nullable=False),  # rises at every cut and time gap: no pair joins two segments
        pa.field("keypoints_set", pa.string()),
        pa.field("keypoints_px", pa.list_(pa.float32())),  # (J, 3) in the stored crop
        pa.field("side", pa.string()),
        _flags,
    ],
    metadata={"table": "crops", "version": "3"},
)

PAIRS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # types.PairKind
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("subject", pa.string()),  # identity of the person, when known
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),  # crop key
        pa.field("reference", pa.string(), nullable=False),  # crop key
        pa.field("dt_s", pa.float64()),  # reference time minus target time; 0 for cross-view; null when unknown
        pa.field("view_angle_rad", pa.float64()),  # angle between the rays that look at the subject; null when unknown
        pa.field(
            "covisibility", pa.float64()
        ),  # share of the target's visible body that the reference sees; null: unknown
        pa.field("weight", pa.float64(), nullable=False),  # of the source in the mixture
        pa.field("further", pa.list_(pa.string()), nullable=False),  # crop keys of view2, view3, ...: mostly empty
    ],
    metadata={"table": "pairs", "version": "3"},
)

_member = pa.struct([pa.field("offset", pa.int64(), nullable=False), pa.field("size", pa.int64(), nullable=False)])
_view = pa.struct([pa.field("jpg", _member, nullable=False), pa.field("sil", _member, nullable=False)])
MEMBERS = ("target.jpg", "reference.jpg", "target.sil", "reference.sil", "json")

# Beside each tar: where every member of every sample begins. Row order is the order in the tar.
INDEX = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *[pa.field(name.replace(".", "_"), _member, nullable=False) for name in MEMBERS],
        pa.field("further", pa.list_(_view), nullable=False),  # view2, view3, ...: mostly empty
    ],
    metadata={"table": "index", "version": "2"},
)

SHARDS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),  # file name without .tar
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),  # of the source in the mixture
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("index_sha256", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("first_pair", pa.string(), nullable=False),
        pa.field("last_pair", pa.string(), nullable=False),
    ],
    metadata={"table": "shards", "version": "2"},
)

# Exact labels of rendered crops, by the crop's key. Maps are PNG files as large as the crop, null where the recipe keeps none.
LABELS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # of the crop
        pa.field("parts", pa.binary()),  # 8 bits: 1 + the joint that moves the surface most, 0 off the person
        pa.field("garments", pa.binary()),  # 8 bits: what is worn there, names in the table scenes; kept with parts
        pa.field("depth", pa.binary()),  # 16 bits: millimetres along the gaze, 0 where nothing is
        pa.field(
            "normals", pa.binary()
        ),  # RGB: x, y, z of the camera's axes from -1 at 1 to 1 at 255, 0 off the person
        pa.field(
            "uv", pa.binary()
        ),  # RGB of 16 bits: u and v from 0 to 65535 with the origin at the lower left, and 65535 on the person
        pa.field("joints_m", pa.list_(pa.float32()), nullable=False),  # (J, 3) in the camera's axes
        pa.field("coco17", pa.list_(pa.float32())),  # (17, 3) x, y in the crop, 1 visible or 0 not; bodies only
        pa.field("penn13", pa.list_(pa.float32())),  # (13, 3)
        # Parameters of the model (SMPL or MANO), radians and metres, with which it stands in the camera's axes:
        pa.field("global_orient", pa.list_(pa.float64(), 3), nullable=False),
        pa.field("pose", pa.list_(pa.float64()), nullable=False),  # body_pose (69) or hand_pose (45), axis-angle
        pa.field("betas", pa.list_(pa.float64()), nullable=False),
        pa.field("transl", pa.list_(pa.float64(), 3), nullable=False),
    ],
    metadata={"table": "labels", "version": "1"},
)

# Scenes as data, from which their images can be rendered anew.
SCENES = pa.schema(
    [
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("scene", pa.string(), nullable=False),  # JSON, see synthetic.scene.Scene
        pa.field("model", pa.string(), nullable=False),  # SHA-256 of the body or hand
        pa.field("garments", pa.list_(pa.string()), nullable=False),  # names of what the map of garments counts
        pa.field("device", pa.string(), nullable=False),  # what OpenGL says it ran on; other drivers draw other pixels
    ],
    metadata={"table": "scenes", "version": "1"},
)

REJECTS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # types.Reason
        pa.field("detail", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),  # frames, links or candidates that it stands for
    ],
    metadata={"table": "rejects", "version": "2"},
)

SCHEMAS: dict[str, pa.Schema] = {
    "frames": FRAMES,
    "crops": CROPS,
    "pairs": PAIRS,
    "index": INDEX,
    "shards": SHARDS,
    "labels": LABELS,
    "scenes": SCENES,
    "rejects": REJECTS,
}


def schema_version(table: str) -> int:
    """The version of a table's schema, as stamped into its files."""
    return int(SCHEMAS[table].metadata[b"version"])
