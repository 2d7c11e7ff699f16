"""How much of the surface of a rendered person two views share.

The body model's surface is cut into `SURFACE_CELLS` cells, the same on every body. A rendered crop tells for each cell how
many of its pixels show it, saturated at 255; where a camera took the crop, nobody knows.

Legend: N pairs, C cells.
"""

import numpy as np
import numpy.typing as npt

SURFACE_CELLS = 2048


def covisibility(
    target_NC: npt.NDArray[np.uint8],  # noqa: N803
    reference_NC: npt.NDArray[np.uint8],  # noqa: N803
) -> npt.NDArray[np.float64]:
    """Share of the target's visible surface that the reference sees too.

    Args:
        target_NC: visible pixels of each cell in the target.
        reference_NC: the same in the reference.

    Returns:
        (N,) in [0, 1]; NaN where the target shows nothing of the person. Not symmetric: a close view of a hand is seen whole
        in a view of the whole body, but not the other way round.
    """
    shown = target_NC.sum(axis=1, dtype=np.int64)
    shared = (target_NC * (reference_NC > 0)).sum(axis=1, dtype=np.int64)
    share: npt.NDArray[np.float64] = np.divide(shared, shown, out=np.full(len(shown), np.nan), where=shown > 0)
    return share
