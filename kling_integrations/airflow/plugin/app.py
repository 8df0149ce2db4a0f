"""The pages of the Video tab. Each route asks Airflow whether the user may see that DAG's results.

A browser sends the session's cookie, also for ``<video src>`` (Airflow 3.1.x from its cookie
sessions on); scripts send a token. The addresses name a task instance and never a file: which file
it is, is read from the database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Request
from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, Response

from ...core.batch.results import Result
from ...core.errors import InvalidRequestError
from ...core.media import frames
from . import rows
from .rows import PAGE, TaskVideo
from .streaming import NotAVideo, OpenFile, response
from .table_words import Board, RowCard
from .tables import NotATable, table_at
from .words import Card

_HERE = Path(__file__).parent
_STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon_dark.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_MOST_POSTERS = 256

_templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_may_see = [
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
]


def make_app() -> FastAPI:
    app = FastAPI(title="Kling videos", docs_url=None, redoc_url=None, openapi_url=None)
    dag = "/dags/{dag_id}"
    app.get("/static/{name}")(static)
    for path, route in (
        ("video", task_page),
        ("gallery", gallery_page),
        ("file", file),
        ("poster", poster),
    ):
        app.get(f"{dag}/{path}", dependencies=_may_see, response_model=None)(route)
        if path == "file":
            app.head(f"{dag}/{path}", dependencies=_may_see, response_model=None)(route)
    return app


def static(name: str) -> Response:
    """Style and script, the same for everybody."""
    if name not in _STATIC:
        raise HTTPException(404)
    body = (_HERE / "static" / name).read_bytes()
    return Response(body, media_type=_STATIC[name], headers={"Cache-Control": "max-age=300"})


def task_page(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str = "-1",
    page: int = 0,
    show: str = "",
) -> HTMLResponse:
    """The tab of one task instance; of a mapped task as a whole, the grid of its instances.

    Of a table, a page of its rows; ``show="bad"``: of those without a video.
    """
    # Airflow leaves the name of the index in place where a page has none.
    index = int(map_index) if map_index.isdecimal() else -1
    with create_session(scoped=False) as session:
        found = rows.one(session, dag_id, run_id, task_id, index)
        maker = None
        if found is not None and found.maker:
            maker = rows.one(session, dag_id, run_id, *found.maker)
    if found is None and index < 0:
        return gallery_page(dag_id, run_id, task_id, page)
    if found is None:
        raise HTTPException(404, "There is no such task instance.")
    if found.is_table:
        return _table_page(found, max(0, min(page, 10_000)), bad=show == "bad")
    return _html("video.html", card=Card(found, maker), query=_query)


def gallery_page(
    dag_id: str, run_id: str, task_id: str | None = None, page: int = 0
) -> HTMLResponse:
    """The videos of a run, or of one mapped task, fifty to a page."""
    page = max(0, min(page, 10_000))
    with create_session(scoped=False) as session:
        videos, total = rows.page(session, dag_id, run_id, task_id=task_id, number=page)
    cards = [Card(video) for video in videos]
    return _html(
        "gallery.html",
        cards=cards,
        total=total,
        page=page,
        pages=max(1, -(-total // PAGE)),
        query=_query,
        run_query=lambda number: urlencode(
            {"run_id": run_id, **({"task_id": task_id} if task_id else {}), "page": number}
        ),
        is_live=any(card.is_live for card in cards),
        route="video" if task_id else "gallery",
    )


def _table_page(found: TaskVideo, page: int, *, bad: bool) -> HTMLResponse:
    table, lines, newest, trouble = None, [], [], ""
    try:
        if found.table:
            table = table_at(found.table)
            lines = table.lines(table.numbers(page, bad=bad))
            newest = table.lines(table.newest) if found.state != "success" else []
    except FileNotFoundError:
        pass  # no round has ended yet
    except NotATable:
        trouble = "What is where the results should be is no table of results."
    except Exception as error:  # noqa: BLE001 (a store's driver may raise anything)
        trouble = f"The results cannot be read by the API server ({type(error).__name__})."
    shown = table.bad if table and bad else table.total if table else 0
    return _html(
        "table.html",
        board=Board(Card(found), table, trouble),
        rows=[RowCard(found, line) for line in lines],
        newest=[RowCard(found, line) for line in newest],
        bad=bad,
        page=page,
        pages=max(1, -(-shown // PAGE)),
        total=shown,
        query=_query,
    )


def file(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    row: int | None = None,
) -> Response:
    """The video of the task instance, or of a row of its table (counted from 1), with ranges."""
    path, size, _ = _video(dag_id, run_id, task_id, map_index, row)
    video = _opened(path, size)
    return response(video, request.headers, path.rpartition("/")[2])


def poster(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    row: int | None = None,
    v: str = "",
) -> Response:
    """Its first picture as a JPEG; an address with ``v`` is that of one video only."""
    path, size, sha256 = _video(dag_id, run_id, task_id, map_index, row)
    key = (path, str(sha256))
    with _lock:
        picture = _posters.get(key)
    if picture is None:
        video = _opened(path, size)
        try:
            picture = _poster_of(video.file)
        finally:
            video.close()
        with _lock:
            _posters[key] = picture
            while len(_posters) > _MOST_POSTERS:
                _posters.popitem(last=False)
    if not picture:
        raise HTTPException(404, "There is no picture of this video.")
    kept = "private, max-age=300" if v else "no-store"
    headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    return Response(picture, media_type="image/jpeg", headers=headers)


_posters: OrderedDict[tuple[str, str], bytes] = OrderedDict()
_lock = threading.Lock()


def _video(
    dag_id: str, run_id: str, task_id: str, map_index: int, row: int | None
) -> tuple[str, int | None, str | None]:
    """The file: its path, the size where it must be that one, SHA-256."""
    with create_session(scoped=False) as session:
        found = rows.one(session, dag_id, run_id, task_id, map_index)
        if found is not None and found.path is None and found.maker and row is None:
            found = rows.one(session, dag_id, run_id, *found.maker)
    if found is not None and found.is_table and row is not None:
        result = _row(found, row)
        if path := found.path_of(result):
            return path, result.size, result.sha256
    elif found is not None and row is None and (path := found.path):
        made = found.made
        return path, made.get("size") if found.told is None else None, made.get("sha256")
    raise HTTPException(404, "This task instance has no video that can be shown.")


def _row(found: TaskVideo, number: int) -> Result:
    try:
        if found.table:
            (line,) = table_at(found.table).lines([number - 1])
            return line.result
    except Exception as error:  # noqa: BLE001 (a store's driver may raise anything)
        raise HTTPException(
            404, f"The results cannot be read by the API server ({type(error).__name__})."
        ) from None
    raise HTTPException(404, "This task instance has no results that can be shown.")


def _opened(path: str, size: int | None) -> OpenFile:
    try:
        video = OpenFile.video(path)
    except NotAVideo:
        raise HTTPException(404, "What is there is no video.") from None
    except Exception as error:  # noqa: BLE001 (a store's driver may raise anything)
        # Without its text: a store's error can hold an address that is signed.
        raise HTTPException(
            404, f"The file cannot be read by the API server ({type(error).__name__})."
        ) from None
    if size is not None and video.size != size:
        video.close()
        raise HTTPException(404, "What is there is not the video that this task saved.")
    return video


def _query(video: TaskVideo, **more: Any) -> str:
    """The address of a task instance's page or file, without the route."""
    names: dict[str, Any] = {
        "run_id": video.run_id,
        "task_id": video.task_id,
        "map_index": video.map_index,
    }
    if (sha := video.made.get("sha256")) and "row" not in more:
        names["v"] = str(sha)[:12]  # another video, another address: no stale copy is shown
    return urlencode({**names, **more})


def _html(name: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(name).render(values), headers=_HEADERS)


# Decoding takes processor time that the API server needs for everything else.
_one_at_a_time = threading.Semaphore(1)


def _poster_of(file: BinaryIO) -> bytes:
    """A JPEG; empty where there is none to be had (PyAV is missing, the file is broken)."""
    with _one_at_a_time:
        try:
            return frames.poster(file)
        except InvalidRequestError:
            return b""
