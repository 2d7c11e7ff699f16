"""How a folder of shards is named."""

from pathlib import Path

import pytest

from manifests.errors import ShardError
from training.storage import Folder, storage_of


def test_a_file_url_is_the_folder_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "my rig, 100 %" / "shards"
    folder.mkdir(parents=True)
    (folder / "shards.parquet").write_bytes(b"table")
    for name in (folder, str(folder), folder.as_uri(), folder.as_uri().replace("file://", "file://localhost")):
        storage = storage_of(name)
        assert isinstance(storage, Folder)
        assert storage.small("shards.parquet").read_bytes() == b"table"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file://elsewhere/data/shards", "not of a folder on this machine"),
        ("file:///data/shards?x=1", "not of a folder on this machine"),
        ("ftp://host/shards", "cannot be read from ftp://"),
    ],
)
def test_other_urls_are_refused(url: str, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        storage_of(url)
