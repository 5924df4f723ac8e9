"""What Hugging Face and Docker read: held against what the project pins."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from uvicorn import Config

from dloral.studio.hygiene import LOGIN_TRIES, Hygiene
from dloral.studio.server import build_parser, hygiene
from dloral.weights.registry import DLORAL, SD21_BASE
from space.make import card, make

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def space() -> dict[str, str]:
    _, settings, _ = card().split("---\n", 2)
    return yaml.safe_load(settings)


def test_space_settings() -> None:
    settings = space()
    assert settings["sdk"] == "gradio"
    assert settings["sdk_version"] == pins()["gradio"]
    assert (ROOT / settings["app_file"]).is_file()
    needed = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert needed
    # Spaces take 3.10 where nothing is said
    assert settings["python_version"].split(".") >= needed[1].split(".")


def test_everything_is_pinned() -> None:
    assert all(re.fullmatch(r"[\d.]+", version) for version in pins().values())


def test_container_runs_without_rights_and_secrets() -> None:
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.M) == ["dloral"]
    installing = DOCKERFILE.index("pip install")
    assert (
        DOCKERFILE.index("USER dloral") < installing < DOCKERFILE.index("COPY --chown=dloral . .")
    )
    assert "VOLUME /weights" in DOCKERFILE
    assert "HF_HOME=/weights" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert not re.search(r"TOKEN|SECRET|PASSWORD", DOCKERFILE)
    assert {"cpu", "cuda"} <= set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.M))


def commands(start: str) -> list[list[str]]:
    """The lines of the documentation that begin so, in words."""
    return [shlex.split(line) for line in DEPLOYMENT.splitlines() if line.startswith(start)]


def test_documented_containers_pass_the_health_check() -> None:
    """It asks $PORT, from a minute after the start: a download or --port would fail it."""
    assert "os.environ['PORT']" in DOCKERFILE
    calls = [" ".join(words) for words in commands("docker run")]
    assert not any("--port" in call for call in calls)
    fetching = [n for n, call in enumerate(calls) if call.endswith("dloral fetch sd21")]
    serving = [n for n, call in enumerate(calls) if call.endswith("app.py --model sd21")]
    assert fetching[0] < serving[0]
    assert any("-e PORT=8000 -p 8000:8000" in call for call in calls)


def passed_on(remote: str, sent: dict[str, str]) -> dict[str, str]:
    """The headers that the documented nginx passes on of a call from ``remote``."""
    (settings,) = re.findall(r"```nginx\n(.*?)```", DEPLOYMENT, re.S)
    (name,) = re.findall(r"server_name (\S+);", settings)
    hops = [hop for hop in (sent.get("X-Forwarded-For"), remote) if hop]
    values = {"$host": name, "$scheme": "https", "$proxy_add_x_forwarded_for": ", ".join(hops)}
    given = re.findall(r"proxy_set_header (\S+) (\S+);", settings)
    return sent | {header: values[variable] for header, variable in given}


def test_behind_the_documented_nginx_an_address_cannot_be_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who sends another one with each wrong password is refused, and nobody else."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    (row,) = re.findall(r"^\| server \| `python app.py (.*?)` behind nginx", DEPLOYMENT, re.M)
    options = build_parser().parse_args(row.split())

    async def wrong(request: Request) -> PlainTextResponse:
        return PlainTextResponse("", 400)

    routes = [Route("/login", wrong, methods=["POST"])]
    page = Starlette(routes=routes, middleware=[Middleware(Hygiene, **hygiene(options))])
    served = Config(page, lifespan="off", log_config=None)  # as Gradio has uvicorn serve the page
    served.load()
    nginx = TestClient(served.loaded_app, client=("127.0.0.1", 4711))

    def tried(remote: str, **sent: str) -> int:
        return nginx.post("/login", headers=passed_on(remote, sent)).status_code

    forged = [tried("6.6.6.6", **{"X-Forwarded-For": f"1.2.3.{n}"}) for n in range(100)]
    assert forged == [400] * LOGIN_TRIES + [429] * (100 - LOGIN_TRIES)
    assert tried("6.6.6.6") == 429
    assert tried("7.7.7.7") == 400


def test_a_space_is_made_and_uploaded_as_documented(tmp_path: Path) -> None:
    (making,) = commands("python space/make.py")
    (words,) = commands("hf upload")
    assert words[3:] == [making[2], ".", "--repo-type", "space"]
    make(tmp_path / "space", results=False)
    kept = {str(path.relative_to(tmp_path / "space")) for path in (tmp_path / "space").rglob("*")}
    wanted = {"README.md", space()["app_file"], "requirements.txt", "examples/cars.mp4"}
    for folder in ("weights/compact", "studio/web"):
        files = (ROOT / "dloral" / folder).rglob("*")
        wanted |= {str(path.relative_to(ROOT)) for path in files if path.is_file()}
    assert wanted <= kept
    assert not [name for name in kept if name.startswith((".", "tests")) or name.endswith(".pyc")]
    assert (tmp_path / "space" / "README.md").read_text().startswith("---\ntitle: DLoRAL\n")


def test_the_readme_has_no_settings_above_it() -> None:
    assert (ROOT / "README.md").read_text().startswith("# DLoRAL\n")


def test_a_space_is_not_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(SystemExit, match="not empty"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_space_of_the_full_model_fetches_it_while_it_is_built(tmp_path: Path) -> None:
    make(tmp_path / "space", "sd21")
    _, settings, _ = (tmp_path / "space" / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(settings)
    assert len(told["short_description"]) <= 60
    repos = {line.split()[0]: line.split() for line in told["preload_from_hub"]}
    assert set(repos) >= {DLORAL.sources[0].repo, SD21_BASE.sources[0].repo}
    _, names, revision = repos[SD21_BASE.sources[0].repo]
    assert revision == SD21_BASE.sources[0].revision
    assert "unet/config.json" in names.split(",")
    assert '"--model", "sd21"' in (tmp_path / "space" / "app.py").read_text()
    assert "preload_from_hub" not in card()
