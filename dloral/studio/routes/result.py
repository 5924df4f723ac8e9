"""A result: its exact frames, comparison clips, and downloadable files."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from dloral.errors import InputError
from dloral.studio.comparison import FORMATS, LAYOUTS, WHOLE, comparison_clip, comparisons_of
from dloral.studio.records import Result
from dloral.studio.routes.calls import JPEG, PNG, answer, picture, visitor
from dloral.studio.sessions import Session
from dloral.studio.stills import before_and_after, still
from dloral.studio.studio import Studio


def result_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.get("/{token}/still")
    def exact(token: str, frame: int) -> Response:
        return picture(still(_result(visitor(token, studio)), frame, studio.sessions.sources), PNG)

    @router.post("/{token}/comparison")
    def comparison(token: str, layout: str, format: str = WHOLE) -> Response:
        if layout not in LAYOUTS:
            raise InputError(f"{layout!r} is not a layout; choose from {', '.join(LAYOUTS)}")
        if format not in FORMATS:
            raise InputError(f"{format!r} is not a format; choose from {', '.join(FORMATS)}")
        file = comparison_clip(_result(visitor(token, studio)), layout, format)
        return answer({"file": file.name})

    @router.get("/{token}/thumbnail")
    def small(token: str) -> Response:
        result = _result(visitor(token, studio))
        return picture(before_and_after(result, studio.sessions.sources), JPEG)

    @router.api_route("/{token}/files/{name}", methods=["GET", "HEAD"])
    def file(token: str, name: str, download: bool = False) -> Response:
        session = studio.sessions.find(token)
        result = session.result if session else None
        found = _files(result).get(name) if result else None
        if found is None:
            return Response("This file does not exist or has expired.", 404)
        return FileResponse(
            found, filename=name, content_disposition_type="attachment" if download else "inline"
        )

    return router


def _result(session: Session) -> Result:
    if session.result is None:
        raise InputError("The result no longer exists; restore the clip again.")
    return session.result


def _files(result: Result) -> dict[str, Path]:
    """A result's downloadable files, by name."""
    kept = [result.file, result.settings_file, result.viewer_file, result.profile_file]
    return {path.name: path for path in [*kept, *comparisons_of(result)]}
