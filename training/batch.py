"""What the stream hands to the trainer: uncropped pixels of both images, silhouettes, and each pair's place.

Shape letters: `B` pairs, `F` further references of a pair, `H W C` stored rows, columns and colours, `G` silhouette cells along a side.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

STORED_PX = 256
"""Side of the images in a shard: `H` and `W`."""

CELL_PX = 4
"""Side of one silhouette cell in pixels of the stored image."""

NUM_CELLS = STORED_PX // CELL_PX
"""Silhouette cells along a side, `G`."""


@dataclass(frozen=True)
class Batch:
    """Pairs by role, as stored: nothing is cropped, jittered or masked yet.

    Args:
        target_BHWC: uint8 RGB, the image that will be masked.
        reference_BHWC: uint8 RGB, the image that is seen whole.
        target_cells_BGG: bool, cells of the target that show the person; all False where no silhouette is known.
        reference_cells_BGG: the same for the reference.
        index_B: int64, place of each pair in the endless training stream (epochs included). Augmentation and masking are
            keyed by (seed, index), so their result depends on neither workers, world size nor the split into batches.
        keys: the pairs' keys, for messages.
        further_BFHWC: uint8 RGB, further references, where they were asked for.

    Raises:
        ValueError: arrays disagree on the number of pairs, or have the wrong type or shape.
    """

    target_BHWC: npt.NDArray[np.uint8]
    reference_BHWC: npt.NDArray[np.uint8]
    target_cells_BGG: npt.NDArray[np.bool_]
    reference_cells_BGG: npt.NDArray[np.bool_]
    index_B: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    further_BFHWC: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        num_pairs = len(self.keys)
        image, cells = (num_pairs, STORED_PX, STORED_PX, 3), (num_pairs, NUM_CELLS, NUM_CELLS)
        for name, shape, dtype in (
            ("target_BHWC", image, np.uint8),
            ("reference_BHWC", image, np.uint8),
            ("target_cells_BGG", cells, np.bool_),
            ("reference_cells_BGG", cells, np.bool_),
            ("index_B", (num_pairs,), np.int64),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, a batch of {num_pairs} needs {np.dtype(dtype)} {shape}"
                )

        further = self.further_BFHWC
        if further is not None and (
            further.shape != (num_pairs, *further.shape[1:2], *image[1:]) or further.dtype != np.uint8
        ):
            raise ValueError(f"further_BFHWC is {further.dtype} {further.shape}, not of the {num_pairs} pairs")

    def __getitem__(self, own: slice) -> "Batch":
        """Some of the pairs."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {name: None if value is None else value[own] for name, value in values.items()}
        return Batch(**taken)

    def __len__(self) -> int:
        return len(self.keys)
