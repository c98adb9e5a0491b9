"""Reports opened by a real browser: a made-up run of eight games, and those under `results/`."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from actor_mimic.report.page import write_report
from tests.made_up_run import make_run

# Of recipes, which all have a student and a contest.
COMMITTED = {
    path.parent.name: path.parent / "report.html"
    for path in sorted((Path(__file__).parents[2] / "results").glob("*/recipe.json"))
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CONTRAST = """() => {
  const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const read = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) =>
    0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = read(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const text = read(element.closest("svg") ? style.fill : style.color);
    const pair = [luminance(text), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push([element.textContent.slice(0, 40), ratio]);
  }
  return poor;
}"""
DRAWN = """() => [...document.querySelectorAll("figure > svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const lines = [...svg.querySelectorAll("path[class*=stroke-], use")];
  const seen = lines.filter((line) => {
    const size = line.getBoundingClientRect();
    return size.width + size.height > 0 && getComputedStyle(line).stroke !== "none";
  });
  const letters = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
  return box.width > 100 && box.height > 50 && seen.length > 3 && letters.length > 3;
})"""
CUT_OFF = """() => [...document.querySelectorAll("figure > svg")].flatMap((svg) => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const at = text.getBoundingClientRect();
    return at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1;
  }).map((text) => `${svg.getAttribute("aria-label")}: ${text.textContent}`);
})"""
PLAY = """async (film) => {
  film.scrollIntoView();
  film.muted = true;
  await film.play();
  const deadline = Date.now() + 20000;
  while (film.currentTime === 0 && Date.now() < deadline)
    await new Promise((wake) => setTimeout(wake, 20));
  return [film.currentTime > 0, film.videoWidth > 0, film.error];
}"""


@dataclass(frozen=True)
class Expected:
    """A report, and what it must show."""

    path: Path
    figures: int
    films: int


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("report"))
    begun = time.monotonic()
    path = write_report(run)
    assert time.monotonic() - begun < 60
    assert path.stat().st_size < 15_000_000
    # Three figures of scores, two of one transfer, eight students, eight experts;
    # agreement, divergence, error of the features;
    # films of all games at once, of eight beside their experts, of two arms.
    return Expected(path, figures=24, films=11)


@pytest.fixture(scope="module", params=["made-up run", *COMMITTED])
def report(request):
    if request.param in COMMITTED:
        # Three figures of scores, two of one transfer, four learning curves, two of agreement.
        # Films of the demo: all games at once, each beside its expert, both arms.
        films = {"demo": 7}.get(request.param, 0)
        return Expected(COMMITTED[request.param], figures=11, films=films)
    return request.getfixturevalue("made_up")


@pytest.fixture(scope="module")
def browser():
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser on PATH: looked for {', '.join(BROWSERS)}")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report, request):
    """The page at a width and in a colour scheme, with what it complained about and asked for."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda asked: page.requests.append(asked.url))
    page.goto(report.path.as_uri())
    yield page
    context.close()


def test_what_the_recipes_gave_is_committed_with_its_page():
    assert COMMITTED.keys() >= {"demo", "from-scratch"}


LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("opened", LOOKS, indirect=True)
def test_it_looks_as_it_should(opened, report):
    width = opened.viewport_size["width"]
    drawn = opened.evaluate(DRAWN)

    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert drawn == [True] * report.figures
    assert opened.evaluate(CUT_OFF) == []
    assert opened.evaluate(CONTRAST) == []
    opened.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate(CONTRAST) == []
    assert opened.complaints == []
    films = "data:video/mp4;base64,"
    assert [u for u in opened.requests if not u.startswith(films)] == [report.path.as_uri()]


@pytest.mark.timeout(300)
def test_every_film_plays(opened, report):
    films = opened.query_selector_all("video")

    assert len(films) == report.films
    for film in films:
        assert film.evaluate(PLAY) == [True, True, None]
    assert opened.complaints == []


def test_the_table_is_sorted_by_keyboard(opened):
    table = opened.locator("table.sortable").first
    head = table.get_by_role("button", name="of expert")
    head.focus()

    def ratios():
        return [
            float(t.split("%")[0]) for t in table.locator("tbody td:nth-child(6)").all_inner_texts()
        ]

    before = ratios()
    opened.keyboard.press("Enter")
    assert ratios() == sorted(before, reverse=True)
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    opened.keyboard.press("Space")
    assert ratios() == sorted(before) != sorted(before, reverse=True)
    table.get_by_role("button", name="game").focus()
    opened.keyboard.press("Enter")
    games = table.locator("tbody th").all_inner_texts()
    assert games == sorted(games)
    assert table.locator("th[aria-sort]").count() == 1


@pytest.mark.parametrize("report", ["made-up run"], indirect=True)
def test_words_are_sorted_too(opened):
    table = opened.locator("table.sortable", has_text="Over all games of")
    table.get_by_role("button", name="scale").press("Enter")
    scales = table.locator("tbody td:nth-child(2)").all_inner_texts()

    assert scales == ["human", "human", "expert"]


@pytest.mark.parametrize("report", ["made-up run"], indirect=True)
def test_it_fits_on_paper(opened):
    opened.emulate_media(media="print", color_scheme="dark")
    opened.set_viewport_size({"width": 720, "height": 1000})  # A4 without margins of 1 cm

    assert opened.evaluate("document.documentElement.scrollWidth") <= 720
    assert opened.evaluate(CONTRAST) == []
    # A black box is all that paper shows of a film, and without its colours a key says nothing.
    assert not opened.locator("#films").is_visible()
    keys = "[...document.querySelectorAll('.swatch')].map((e) => getComputedStyle(e)"
    assert set(opened.evaluate(f"{keys}.printColorAdjust)")) == {"exact"}


def test_somebody_who_wants_no_motion_gets_none(browser, made_up):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(made_up.path.as_uri())
    page.locator("video").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)

    assert page.evaluate("[...document.querySelectorAll('video')].every((film) => film.paused)")
    context.close()
