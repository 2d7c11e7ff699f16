"""Any folder of clips: each video below the root, and each folder of images, is a recording seen by one camera.

``` text
<root>/any/folder/clip.mp4                   or .avi .mov .mkv .webm .m4v: recording `any-folder-clip`
<root>/any/folder/000123.jpg                 or .png: recording `any-folder`, its images in the order of their names
<root>/recordings.toml                       optional: group, subject, domain, split, fps per recording
```
"""

from pathlib import Path, PurePosixPath

from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import Domain, Split
from pipeline.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_video
from pipeline.sources.base import Card, Recording, Scan
from pipeline.sources.layout import (
    RECORDINGS,
    OwnSource,
    Rows,
    View,
    about_recording,
    files_below,
    read_about,
    require_folder,
    unique_names,
    walk,
)

VIEW = "cam"

CARD = Card(
    title="your own clips",
    domains=(Domain.BODY, Domain.HAND),
    tree=f"any folders of {' '.join(VIDEO_SUFFIXES)} or of images",
    get="film, or collect",
    licence="the user's own",
    terms="Say what holds for your clips with `licence:` in the recipe.",
    gives="cross-pose; boxes and silhouettes from the parser",
)


class VideosSource(OwnSource):
    """See the module."""

    card = CARD

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """List the clips; see `Source.recordings`."""
        require_folder(root)
        clips: dict[PurePosixPath, list[Path]] = {}
        for folder, _, files in walk(root):
            clips |= {PurePosixPath(file.relative_to(root)): [file] for file in files if is_video(file)}
            images = [file for file in files if is_image(file)]
            if images:
                clips[PurePosixPath(folder.relative_to(root))] = images
        if not clips:
            kinds = f"videos ({', '.join(VIDEO_SUFFIXES)}) or images ({', '.join(IMAGE_SUFFIXES)})"
            raise SourceError("no clip is here", where=root, hint=f"give a folder with {kinds}, in subfolders or not")
        names = unique_names([path if path.parts else PurePosixPath(root.resolve().name) for path in clips])
        about = read_about(root, names)
        listed = [root / RECORDINGS] if (root / RECORDINGS).is_file() else []
        recordings = [
            Recording(
                sequence=name,
                group=about[name].group or name,
                split=about[name].split,
                files=files_below(root, [*media, *listed]),
            )
            for name, media in zip(names, clips.values(), strict=True)
        ]
        return sorted(recordings, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one clip; see `Source.scan`."""
        about = about_recording(root, recording.sequence)
        rows = Rows(self, recording, about, split)
        first = next(PurePosixPath(path) for path, _ in recording.files if is_video(Path(path)) or is_image(Path(path)))
        path = first if is_video(Path(first)) else first.parent
        media = rows.open(root, path)
        if media is None:
            return Scan(rows.frames, rows.rejects)
        view = View(
            name=VIEW,
            media=media,
            places={k: (str(path / n), 0) for k, n in enumerate(media.names)}
            or {k: (str(path), k) for k in range(media.num_frames)},
            times_s=dict(enumerate(media.times_s)),
            size_px=dict(enumerate(media.sizes)),
        )
        rows.add(view, range(0, media.num_frames, self.recipe.frame_step))
        return Scan(rows.frames, rows.rejects)
