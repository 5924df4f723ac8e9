"""The folder of ``--data``: files of others in it stay as they are."""

import os
import secrets
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dloral.errors import OutputError
from dloral.jobs.store import JobStore
from dloral.studio.data_folder import LIST, MARKER, SESSIONS, is_ours, is_visit, kept_folder
from dloral.studio.jottings import SUFFIX
from dloral.studio.models import Models
from dloral.studio.records import open_records
from dloral.studio.runtime import JobQueue
from dloral.studio.server import build_parser, build_studio
from dloral.studio.sessions import Sessions
from dloral.studio.settings import settings_from


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, itself too: its permissions, and a file's content."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in (folder, *folder.rglob("*"))
    }


def put(file: Path, content: bytes = b"mine") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def foreign_list(folder: Path) -> None:
    """A list of jobs of another program."""
    with sqlite3.connect(folder / LIST) as database:
        database.execute("CREATE TABLE jobs (id TEXT, what TEXT)")
    put(folder / "sessions" / "today" / "notes.txt")


@pytest.mark.parametrize(
    "fill",
    [
        lambda folder: put(folder / SESSIONS / "wedding" / "IMG_0001.CR2"),
        lambda folder: put(folder / "IMG_0001.CR2"),
        lambda folder: put(folder / SESSIONS / "clip.mp4"),
        lambda folder: put(folder / SESSIONS / "wedding" / f"a{SUFFIX}"),
        lambda folder: put(folder / LIST, b"no database"),
        foreign_list,
    ],
    ids=["folders", "files", "a file in sessions", "another's job", "a file", "another's list"],
)
def test_a_folder_of_the_users_own_is_refused_and_left_as_it_was(tmp_path: Path, fill):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    fill(folder)
    before = seen(folder)
    with (
        pytest.raises(OutputError, match="holds files that this program did not make") as caught,
        kept_folder(str(folder)),
    ):
        pass
    assert str(caught.value).endswith("; give another folder")
    assert "\n" not in str(caught.value)
    assert seen(folder) == before


def test_the_default_folder_is_left_too(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("dloral.studio.data_folder.models_home", lambda: tmp_path)
    put(tmp_path / "page" / "IMG_0001.CR2")
    before = seen(tmp_path)
    with kept_folder(None) as folder:
        assert folder is None
    assert "holds files that this program did not make" in capsys.readouterr().err
    assert seen(tmp_path) == before


def test_an_empty_folder_is_taken_and_stays_as_open_as_it_was(tmp_path: Path):
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there" / "lost+found").mkdir()
    put(tmp_path / "there" / ".gitkeep")
    for name, mode in (("there", 0o755), ("new", 0o700)):
        for _ in range(2):
            with kept_folder(str(tmp_path / name)) as folder:
                assert folder == tmp_path / name
                assert folder.stat().st_mode & 0o777 == mode
                assert (folder / SESSIONS).stat().st_mode & 0o777 == 0o700
                put(folder / "notes.txt")  # beside ours it may lie
    with (
        kept_folder(str(tmp_path / "new")),
        pytest.raises(OutputError, match="another page is using it; give another folder"),
        kept_folder(str(tmp_path / "new")),
    ):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from dloral.jobs.store import JobStore
store = JobStore(Path(sys.argv[1]))
store.add("token", "a", Path("a"), Path("a"), {})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_earlier_versions_are_ours(tmp_path: Path):
    """They have no marker; their lists may be in SQLite's log alone, damaged, or lost."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / LIST)], check=False)
    assert done.returncode == -signal.SIGKILL
    (tmp_path / ".lock").touch()
    wedding = put(tmp_path / SESSIONS / "wedding" / "IMG_0001.CR2")
    assert is_ours(tmp_path)
    for file in tmp_path.glob(f"{LIST}*"):
        file.write_bytes(b"damaged")
    assert not is_ours(tmp_path)
    visit = tmp_path / SESSIONS / secrets.token_hex(12)
    job = put(visit / f"{secrets.token_hex(8)}{SUFFIX}", b"{}")
    assert is_ours(tmp_path)
    job.unlink()
    for file in [wedding, *tmp_path.glob(f"{LIST}*")]:
        file.unlink()
    wedding.parent.rmdir()
    assert is_ours(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of ours, in which somebody keeps photographs as well."""
    with kept_folder(str(tmp_path / "data")) as folder:
        assert folder is not None
    put(folder / SESSIONS / "wedding" / "IMG_0001.CR2")
    put(folder / SESSIONS / "wedding" / f"a{SUFFIX}", b"{}")
    put(folder / SESSIONS / "list.txt")
    (folder / SESSIONS / secrets.token_hex(12)).symlink_to(folder / SESSIONS / "wedding")
    return folder


def test_what_lies_beside_visits_stays_and_visits_without_a_job_go(data: Path):
    before = seen(data / SESSIONS)
    visit = put(data / SESSIONS / secrets.token_hex(12) / "clip" / "a.mp4").parents[1]
    assert is_visit(visit)
    studio = build_studio(data / SESSIONS, build_parser().parse_args([]), is_kept=True)
    studio.sessions.recover()
    assert not visit.exists()
    assert visit.parent / studio.sessions.open() != visit
    studio.sessions.close_all()
    assert seen(data / SESSIONS) == before


def test_a_damaged_list_is_kept_under_another_name(data: Path, caplog):
    for number, name in ((1, f"{LIST}.damaged"), (2, f"{LIST}.damaged2")):
        put(data / LIST, b"%d damaged" % number * 1000)
        open_records(data / LIST, 1000, data / SESSIONS).close()
        assert (data / name).read_bytes() == b"%d damaged" % number * 1000
        assert f"it is now {data / name}, and the list is made anew" in caplog.text
        assert JobStore(data / LIST).all() == []
    assert (data / MARKER).is_file()


@pytest.mark.parametrize("way", ["relative", "moved", "copied"])
def test_jobs_are_found_by_whatever_path_the_folder_is_given(
    tmp_path: Path, models: Models, clip: Path, monkeypatch, way: str
):
    """A visit that is taken up is not taken for one without a job, and what lies where the folder
    was before is not touched."""
    monkeypatch.chdir(tmp_path)
    first = Path("data") if way == "relative" else tmp_path / "data"
    server = _server(first, models)
    token = server.open()
    session = server.find(token)
    session.open_clip(clip.name, lambda copy: copy.write_bytes(clip.read_bytes()))
    assert session.start_job(settings_from({"scale": 1, "duration": 0.2}, "compact")).wait(60)
    server.close_all()
    second = tmp_path / "data"
    if way != "relative":
        second = tmp_path / "elsewhere"
        command = ["cp", "-r"] if way == "copied" else ["mv"]
        subprocess.run([*command, first, second], check=True)
    before = seen(first) if way == "copied" else {}
    again = _server(second, models)
    result = again.find(token).result
    assert result is not None
    assert second in result.file.parents
    again.close(token)
    assert list((second / SESSIONS).iterdir()) == []
    again.close_all()
    assert way != "copied" or seen(first) == before


def _server(data: Path, models: Models) -> Sessions:
    (data / SESSIONS).mkdir(parents=True, exist_ok=True)
    records = open_records(data / LIST, 1000, data / SESSIONS)
    sessions = Sessions(data / SESSIONS, models, JobQueue(), records=records)
    sessions.recover()
    return sessions


def test_app_refuses_a_folder_in_one_line(tmp_path: Path):
    put(tmp_path / "data" / SESSIONS / "wedding" / "IMG_0001.CR2")
    before = seen(tmp_path / "data")
    root = Path(__file__).parents[2]
    call = [sys.executable, str(root / "app.py"), "--data", str(tmp_path / "data")]
    environment = os.environ | {"PYTHONPATH": str(root), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"app.py: {tmp_path / 'data'} cannot be used: it holds files that this program did not "
        "make; give another folder"
    ]
    assert seen(tmp_path / "data") == before
