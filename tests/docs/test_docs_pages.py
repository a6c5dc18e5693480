"""The docs say everything that can be set, name every page, and fetch nothing."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from thresher.apps.runs import FILES
from thresher.apps.train.asking.config import TrainConfig
from thresher.methods import PRESETS, REGISTRY
from thresher.schedules import REGISTRY as SCHEDULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_method_has_a_whole_page(name: str) -> None:
    text = page(f"methods/{name}.md")
    for heading in ("Equation", "When to use it", "Defaults", "Source", "Worked example"):
        assert f"## {heading}" in text
    for field in fields(REGISTRY[name]):
        assert f"| `{field.name}` |" in text, field.name
    assert "```python" in text


def test_every_preset_and_schedule_is_described() -> None:
    for name, (base, _) in PRESETS.items():
        assert f"`{name}`" in page(f"methods/{base}.md"), name
    for name in SCHEDULES:
        assert re.search(rf"`{name}[`:]", page("operators-and-schedules.md")), name


def test_every_setting_of_the_command_line_is_described() -> None:
    for name in TrainConfig.model_fields:
        assert f"| `{name}` |" in page("command-line.md"), name


def test_every_file_of_a_run_is_described() -> None:
    for name in FILES:
        assert f"| `{name}` |" in page("run-folder.md"), name


def test_rooms_import_what_the_architecture_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", page("architecture.md"), re.MULTILINE)
    allowed = {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}
    package = ROOT / "src" / "thresher"
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room in ("__init__", "apps"):
            continue
        for found in re.findall(r"^\s*from thresher\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert found == room or found in allowed[room], f"{path.name} imports {found}"


def test_patent_is_stated() -> None:
    assert "US 11,704,571" in page("methods/ltp.md")


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r":\s+(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(each.relative_to(DOCS).as_posix() for each in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        target, _, anchor = link.partition("#")
        found = (path.parent / target) if target else path
        assert found.is_file(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}, link
