"""A publisher that takes its time, to be killed: `python -m tests.support.slow_publisher OUT URL`; tells each write it begins."""

import sys
import time

from rich.console import Console

from pipeline import stores
from pipeline.publish import copy_build

BETWEEN_CHUNKS_S = 0.004

if __name__ == "__main__":
    write = stores.Store._write

    def slow_write(store, path, chunks):
        def slowly():
            for chunk in chunks:
                yield chunk
                time.sleep(BETWEEN_CHUNKS_S)

        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()
        write(store, path, slowly())

    stores.Store._write = slow_write
    stores._CHUNK_BYTES = 1 << 13
    copy_build(sys.argv[1], sys.argv[2], Console(stderr=True), stages=["shards"], threads=3)
