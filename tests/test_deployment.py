"""What Hugging Face and Docker read: held against what the project pins."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def space() -> dict[str, str]:
    _, settings, _ = (ROOT / "README.md").read_text().split("---\n", 2)
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
