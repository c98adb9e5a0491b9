"""The documentation, built as `make docs` builds it: a warning is an error."""

import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_once import made_once

from actor_mimic.cli import VERBS

pytest.importorskip("furo", reason="the documentation needs the extra [docs]")
ROOT = Path(__file__).parents[2]
# Of any verb: arguments without a name on the command line.
POSITIONAL = ("checkpoint", "file", "path", "recipe", "task", "teachers")

pytestmark = pytest.mark.timeout(600)  # for a machine that does other work


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "site", build) / "html"


def build(home: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"),
            *("-d", home / "doctrees", "docs", home / "html"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


class Loaded(HTMLParser):
    """What a browser would fetch to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {"script": "src", "img": "src", "link": "href"}.get(tag)
        self.addresses += [value for name, value in attrs if name == named and value]


def test_every_verb_and_option_is_on_the_page_of_verbs(site: Path) -> None:
    text = (site / "verbs.html").read_text()
    for verb, verb_class in VERBS.items():
        (section,) = re.findall(rf'<section id="{verb}">.*?</section>', text, re.DOTALL)
        for entry in options(verb_class):
            if (verb, entry) == ("multitask-dqn", "tasks"):  # an option elsewhere
                continue
            option = f"--{entry.rstrip('_').replace('_', '-')}"
            assert option in section, (verb, option)


def options(verb_class: type) -> list[str]:
    """Names of a verb's options."""
    found = []
    for entry in dataclasses.fields(verb_class):
        if isinstance(entry.default_factory, type):
            found += options(entry.default_factory)
        elif entry.name not in POSITIONAL:
            found.append(entry.name)
    return found


def test_the_method_leads_to_documented_code(site: Path) -> None:
    text = (site / "method.html").read_text()
    links = re.findall(r'href="(api|method-code)\.html#(actor_mimic[\w.]+)"', text)

    assert len(links) > 20
    for page, target in links:
        assert f'id="{target}"' in (site / f"{page}.html").read_text(), target


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        foreign = [address for address in loaded.addresses if "//" in address]
        assert not foreign, page.name


def test_the_environment_is_left_alone() -> None:
    """Reading the help of verbs widens the terminal for that moment only."""
    sys.path.insert(0, str(ROOT / "docs/extensions"))
    try:
        from verb_reference import read_help
    finally:
        del sys.path[0]
    before = dict(os.environ)
    told = read_help("zoo")

    assert [option.name for option in told.options][:2] == ["--add RUN", "--episodes N"]
    assert any(line.startswith("  actor-mimic zoo") for line in told.text)
    assert {**before} == {
        k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY" or k in before
    }
