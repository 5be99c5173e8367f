"""Publishing a folder of files as one step: all of them or none."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nybble.dialects.errors import NybbleError


def check_folder(folder: Path, marker: str) -> None:
    """Raise NybbleError unless `folder` may be written: new, empty, or holding a file `marker`.

    A later write can still fail; this is for telling people before the work is done.
    """
    if folder.exists() and not folder.is_dir():
        raise NybbleError(f"{folder} is a file", accepted="a directory")
    if folder.is_dir() and not (folder / marker).is_file() and any(folder.iterdir()):
        raise NybbleError(
            f"{folder} holds other files",
            accepted=f"a new or empty directory, or one with {marker} in it",
        )
    near = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".nybble-", dir=near)).rmdir()
    except OSError as error:
        raise NybbleError(f"cannot write {folder}: {near}: {error.strerror}") from None


def write_folder(folder: Path, files: Mapping[str, bytes], marker: str) -> None:
    """Replace `folder` by one with these files; `marker` is the name that tells ours from others.

    Raises NybbleError, and then nothing has changed.
    """
    check_folder(folder, marker)
    target = folder.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name, data in files.items():
                (draft / name).write_bytes(data)
            draft.chmod(0o755)
            _swap(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise NybbleError(f"cannot write {folder}: {error.strerror}") from None


def _swap(draft: Path, target: Path) -> None:
    old = draft.with_name(draft.name + ".old")
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)
