"""One file per raw dataset: its layout on disk, turned into frames."""
