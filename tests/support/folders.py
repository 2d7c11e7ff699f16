"""Compare output folders byte by byte."""

import hashlib
from pathlib import Path


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path; locks and durations (`stats.json`) do not count."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (".lock", "stats.json")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
