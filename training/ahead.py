"""Work that is done ahead of its use."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


def ahead(stream: Generator[T, None, None]) -> Generator[T, None, None]:
    """Make the next item of an endless stream in a thread while this one is at use."""
    with closing(stream), ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, stream)
        while True:
            ready = coming.result()
            coming = thread.submit(next, stream)
            yield ready
