"""Downloads from the Hub: from the first mirror with the right bytes, resumable and verified.

The client library discards a partial file once a call has failed, and some of these files are
gigabytes in size; so we keep the partial files, named by the expected hash, and let the library
transfer the bytes (its tokens, proxies and retries, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``).
A file that is already in the Hub's own cache is used from there.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, unlisted

from dloral.errors import OutputError, Setting, WeightsError
from dloral.weights.registry import RemoteFile, Source

CHUNK = 2**20
HASHES = {64: "sha256", 40: "git"}
"""The hash in a file's ETag, by its length: SHA-256 for large files, git's blob hash for small."""

OFFLINE = "HF_HUB_OFFLINE is set"

Report = Callable[[int], None]
"""Called with the number of new bytes; negative if bytes had to be discarded."""


@dataclass(frozen=True)
class Found:
    """A file at one source: ``etag`` is the hash of its bytes, ``size`` their number.

    ``cached``: its path in the client library's cache; ``etag`` may then be empty.
    """

    source: Source
    name: str
    size: int
    etag: str
    cached: Path | None = None


class Refused(Exception):  # noqa: N818  (a reason to ask the next mirror, never shown to users)
    """Why one source does not provide a file, in a few words."""


def locate(file: RemoteFile, sources: Sequence[Source], reasons: dict[str, str]) -> Found | None:
    """Where to get ``file`` from: the Hub's cache, or else the first source that lists it.

    ``reasons`` collects, by repository, why a source does not; those already in it are skipped.
    """
    asked = [source for source in sources if source.repo not in reasons]
    for source in asked:
        for name in file.names:
            if found := _in_cache(file, source, name):
                return found
    for source in asked:
        for name in file.names:
            try:
                return _ask(file, source, name)
            except EntryNotFoundError:
                reason = f"has no {file.names[-1]}"
            except Refused as refused:
                reason = str(refused)
                break
        if not file.optional:
            reasons[source.repo] = reason
    return None


def _in_cache(file: RemoteFile, source: Source, name: str) -> Found | None:
    """A file in the client library's cache, from an earlier download by any software."""
    cached = try_to_load_from_cache(
        source.repo, name, revision=source.revision, repo_type=source.kind
    )
    if not isinstance(cached, str):
        return None
    path = Path(cached)
    if file.sha256 and hash_of(path, file.sha256) != file.sha256:
        return None
    return Found(source, name, path.stat().st_size, file.sha256 or "", path)


def _ask(file: RemoteFile, source: Source, name: str) -> Found:
    """What a source says about a file; :class:`Refused` or EntryNotFoundError if it has none."""
    try:
        answer = get_hf_file_metadata(_url(source, name))
    except EntryNotFoundError:
        raise
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise Refused(reason_of(error)) from error
    # The hash becomes a file name: make sure it is a hash.
    if answer.size is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", answer.etag or ""):
        raise Refused(f"does not report the size or hash of {name}")
    assert answer.etag is not None
    expected = file.sha256 or answer.etag
    if len(answer.etag) == len(expected) and answer.etag != expected:
        raise Refused(f"has a different {name} (hash {answer.etag[:8]}..., not {expected[:8]}...)")
    if file.size not in (None, answer.size):
        raise Refused(f"has a different {name} ({answer.size:,} bytes, not {file.size:,})")
    return Found(source, name, answer.size, expected)


def download(found: Found, folder: Path, report: Report) -> Path:
    """Download a file into ``folder``, named by its hash; an earlier partial one is resumed.

    Raises :class:`Refused` if the connection drops or the bytes are wrong (they are discarded), and
    :class:`OutputError` if the disk is full or not writable.
    """
    target, part = folder / found.etag, folder / f"{found.etag}.part"
    if target.is_file():
        if hash_of(target, found.etag) == found.etag:
            return target
        # the machine stopped before all of it had reached the disk
        report(-bytes_there(found, folder))
        target.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            have = min(file.tell(), found.size)
            http_get(
                _url(found.source, found.name),
                file,
                resume_size=have,
                headers=build_hf_headers(),
                expected_size=found.size,
                displayed_filename=found.name,
                tqdm_class=meter(report),
            )
    except HfHubHTTPError as error:
        raise Refused(reason_of(error)) from error
    except HTTPError as error:
        have = part.stat().st_size
        raise Refused(f"dropped the connection at {have:,} of {found.size:,} bytes") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise no_space(folder, found.size - bytes_there(found, folder)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise OutputError(
                "{path} cannot be written ({reason})",
                remedy="set HF_HOME to a writable folder",
                path=folder,
                reason=error.strerror,
            ) from error
        raise Refused(reason_of(error)) from error
    if hash_of(part, found.etag) != found.etag:
        report(-part.stat().st_size)
        part.unlink()
        raise Refused(f"sent data that does not match its hash {found.etag[:8]}...")
    part.rename(target)
    return target


def bytes_there(found: Found, folder: Path) -> int:
    """How many bytes of a file are already on this machine."""
    if found.cached:
        return found.size
    for path in (folder / found.etag, folder / f"{found.etag}.part"):
        if path.is_file():
            return min(path.stat().st_size, found.size)
    return 0


def hash_of(path: Path, like: str) -> str:
    """The hash of a file's bytes, of the same kind as ``like``."""
    if HASHES[len(like)] == "sha256":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def no_space(folder: Path, needed: int) -> OutputError:
    """The error for ``needed`` more bytes that do not fit on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    return OutputError(
        "not enough disk space for {path}: {needed} needed, {value} free",
        remedy="free up space, set HF_HOME to a larger disk, or use {instead}",
        path=folder,
        value=size_text(free),
        needed=size_text(needed),
        instead=Setting("model", "compact"),
    )


def reason_of(error: BaseException) -> str:
    """Why a Hub request failed, in a few words."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return OFFLINE
    if isinstance(error, GatedRepoError) or status == 403:
        return "requires accepting its terms on its Hub page and setting HF_TOKEN"
    if status == 401:
        return "is private or does not exist: set HF_TOKEN if you have access"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return "does not exist"
    if isinstance(error, EntryNotFoundError):
        return "has no such file"
    if isinstance(error, FileMetadataError):
        return "did not answer like a Hub (check HF_ENDPOINT, proxy and firewall)"
    if status is not None:
        return f"answered with HTTP {status}"
    if isinstance(error, HTTPError | ConnectionError):
        return "cannot be reached"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text[:120].rstrip(". ")


def meter(report: Report) -> Any:
    """A stand-in for tqdm in the client library; it shows nothing and calls ``report``."""

    class Meter:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> "Meter":
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: float | None = 1) -> None:
            report(int(count or 0))

        def close(self) -> None: ...

    return Meter


def sources_refuse(
    what: str, reasons: dict[str, str], remedy: str, **facts: object
) -> WeightsError:
    """The one-line error for ``what`` that no mirror provided; ``facts``: those in ``remedy``."""
    if len(set(reasons.values())) == 1:
        repos, reason = ", ".join(reasons), next(iter(reasons.values()))
        why = reason if reason == OFFLINE else f"{repos} {reason}"
    else:
        why = "; ".join(f"{repo} {reason}" for repo, reason in reasons.items())
    return WeightsError(
        "{what} could not be fetched: {reason}", remedy=remedy, what=what, reason=why, **facts
    )


def _url(source: Source, name: str) -> str:
    return hf_hub_url(source.repo, name, repo_type=source.kind, revision=source.revision)


def size_text(count: float) -> str:
    """A byte count for people, in decimal units as for disks."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
