"""What sources left out, for tests to compare."""

import re
from collections.abc import Iterable

from manifests.types import Reason, Reject


def told(rejects: Iterable[Reject]) -> list[tuple[Reason, str]]:
    """Reason and detail of rejects, whose counts must be the numbers that their details begin with.

    Raises:
        AssertionError: a reject counts something else than it says.
    """
    rejects = list(rejects)
    for reject in rejects:
        first = re.match(r"(\d+) (?!x |label keys |of 9 views)", reject.detail)
        said = max(1, int(first[1])) if first else reject.count
        assert reject.count == said, f"{reject.key}: {reject.detail} counts as {reject.count}"
    return [(reject.reason, reject.detail) for reject in rejects]
