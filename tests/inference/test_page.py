"""The page of `--page`: in a browser, and as a file."""

import base64
import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from browsing import DESK, PHONE, Opened
from conftest import ROOT, refused
from numpy.typing import NDArray
from PIL import Image
from test_cli import temporary_files

from gel_lightning.core.html import SIDE
from gel_lightning.inference.page import Page
from gel_lightning.inference.rows import UNSURE, Row

CLASSES = ("gel", "not_gel")
EVIL = "</script><img src=x onerror=document.title='run'>.png"
ODD = [
    *(EVIL, "a\"quote' & <b>.png", "line\nbreak\r.png", "100% #1?.png", "javascript:alert(1).png", "=1+1.png"),
    *("не гель 凝胶.png", b"caf\xe9.png".decode(errors="surrogateescape"), "x" * 200 + ".png", "a,b.png"),
]


def row(path: object, gel: float | None = None, answer: str | None = None, note: str = "") -> Row:
    """What a model says that gives a picture some probability of a gel; None is a picture that cannot be read."""
    if gel is None:
        return Row(str(path), "", "", None, {}, "it is <empty>", note)
    predicted = CLASSES[gel < 0.5]
    return Row(str(path), answer or predicted, predicted, max(gel, 1 - gel), {"gel": gel, "not_gel": 1 - gel}, "", note)


def thumbnail(seed: int = 0, shape: tuple[int, ...] = (30, 40)) -> NDArray[np.uint8]:
    """A noisy picture."""
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def written(folder: Path, rows: list[Row], heats: bool = False) -> Path:
    """A page of pictures."""
    with Page(folder / "gels.html", CLASSES, "gel") as page:
        for i, one in enumerate(rows):
            page.add(one, None if one.error else thumbnail(i), thumbnail(i, (8, 8)) if heats else None)
    return folder / "gels.html"


def some(folder: Path) -> list[Row]:
    """Pictures of every answer."""
    return [
        *(row(folder / "in/b.png", 0.2), row(folder / "in/a.png", 0.97, note="page 1 of 3"), row(folder / "in/c.png")),
        *(row(folder / "in/d.png", 0.6, UNSURE), row(folder / "in/e.png", 0.99), row(folder / "in/f.png", 0.01)),
    ]


def names(page: Any) -> list[str]:
    """The names of the pictures that are shown, in their order."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('#cards > li:not([hidden]) .name')].map(name => name.textContent)"
    )
    return found


def corrections(page: Any) -> list[list[str]]:
    """The rows of the file of corrections that the page gives."""
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "gels_corrections.csv"
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline="")))


# --- in a browser ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_page_stands_alone_and_can_be_read(browser: Any, scheme: str, size: dict[str, int], tmp_path: Path) -> None:
    path = written(tmp_path, [*some(tmp_path), *(row(tmp_path / name, 0.3) for name in ODD)], heats=True)
    opened = Opened(browser, path, scheme, size)
    for mark in opened.page.query_selector_all(".mark")[:4]:  # marked ones too
        mark.click()
    assert opened.violations() == []
    assert opened.complaints == []
    assert opened.fetched() == [path.as_uri()]
    assert opened.is_dark() == (scheme == "dark")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_pictures_come_by_probability_and_are_filtered(browser: Any, tmp_path: Path) -> None:
    page = Opened(browser, written(tmp_path, some(tmp_path))).page
    assert page.title() == "2 of 6: gel"
    assert names(page) == ["e.png", "a.png", "d.png", "b.png", "f.png", "c.png"]
    texts = page.evaluate("[...document.querySelectorAll('#cards p')].map(text => text.innerText)")
    assert texts[:3] == ["gel 99.0\xa0%", "gel 97.0\xa0%\npage 1 of 3", "unsure: gel 60.0\xa0%"]
    shown = {}
    for button in page.query_selector_all("#answers button"):
        button.click()
        shown[button.inner_text()] = names(page)
    assert shown == {
        "all 6": ["e.png", "a.png", "d.png", "b.png", "f.png", "c.png"],
        "gel 2": ["e.png", "a.png"],
        "not_gel 2": ["b.png", "f.png"],
        "unsure 1": ["d.png"],
        "unreadable 1": ["c.png"],
        "marked 0": [],
    }
    page.click("text=all 6")
    page.fill("#search", "IN/A")
    assert names(page) == ["a.png"]
    assert page.inner_text("#shown") == "1 shown"
    page.fill("#search", "<empty>")  # the reason that it cannot be read
    assert names(page) == ["c.png"]


def test_corrections_are_kept_and_downloaded(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(tmp_path, some(tmp_path)))
    page = opened.page
    assert page.is_disabled("#download")
    page.click("li:has-text('a.png') .mark")
    page.click("li:has-text('d.png') .mark")  # an unsure one may be either
    page.click("li:has-text('e.png') .mark")
    page.click("li:has-text('e.png') .mark")  # right after all
    page.reload()
    assert page.inner_text("li:has-text('a.png') .mark") == "is not_gel"
    assert page.query_selector("li:has-text('c.png') .mark") is None  # nothing is learned from what cannot be read
    assert corrections(page) == [
        ["path", "label"],
        [str(tmp_path / "in/a.png"), "not_gel"],
        [str(tmp_path / "in/d.png"), "gel"],
    ]
    page.select_option("li:has-text('d.png') select", "not_gel")
    page.click("#answers button:has-text('marked')")
    assert names(page) == ["a.png", "d.png"]
    # A new run over the same folder, whose model is right now, loses none of the corrections either.
    written(tmp_path, [row(tmp_path / "in/a.png", 0.1), *some(tmp_path)[3:]])
    page.reload()
    assert corrections(page)[1:] == [[str(tmp_path / "in/d.png"), "not_gel"], [str(tmp_path / "in/a.png"), "not_gel"]]
    assert opened.complaints == []


def test_keys_move_open_and_mark(browser: Any, tmp_path: Path) -> None:
    rows = [row(tmp_path / f"{i:02}.png", 1 - i / 100) for i in range(30)]
    for one in rows:
        Image.fromarray(thumbnail()).save(one.path)
    page = Opened(browser, written(tmp_path, rows)).page
    focused = "document.activeElement.querySelector('.name')?.textContent"
    columns = page.evaluate("getComputedStyle(list).gridTemplateColumns.split(' ').length")
    assert columns > 2
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        seen.append(page.evaluate(focused))
    places = [0, 1, 1 + columns, columns, 0, 0, 0]
    assert seen == [f"{i:02}.png" for i in places]
    page.keyboard.press("w")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")  # what it is already
    page.keyboard.press("3")  # no class
    assert [path[-6:] for path, _ in corrections(page)[1:]] == ["00.png", "01.png"]
    page.focus("#cards > li:nth-child(2) a")
    page.keyboard.press("w")
    assert [path[-6:] for path, _ in corrections(page)[1:]] == ["00.png"]
    page.focus("#search")
    page.keyboard.press("w")  # is a letter there
    assert page.input_value("#search") == "w"
    page.fill("#search", "")
    page.focus("#cards > li:nth-child(3) a")
    with page.context.expect_page() as other:
        page.keyboard.press("Enter")
    assert other.value.url == (tmp_path / "02.png").as_uri()


def test_names_are_shown_and_not_run(browser: Any, tmp_path: Path) -> None:
    rows = [*(row(tmp_path / "in" / name, 0.9) for name in ODD), row(tmp_path / "unreadable.png", note=EVIL)]
    opened = Opened(browser, written(tmp_path, rows))
    opened.page.evaluate("document.querySelectorAll('.mark').forEach(mark => mark.click())")
    found = dict(corrections(opened.page)[1:])
    assert opened.page.title() == f"{len(ODD)} of {len(rows)}: gel"
    assert EVIL.rpartition("/")[2] in names(opened.page)
    assert "it is <empty>" in opened.page.inner_text("#cards")
    for name in ODD:
        assert str(tmp_path / "in" / name).encode(errors="backslashreplace").decode() in found
    # What slipped in all the same would not run.
    opened.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=1'}))"
    )
    assert opened.page.title() != "1"
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


def test_links_lead_to_the_very_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path(folder) / name for folder in ("", "in", "../" + tmp_path.name, str(tmp_path)) for name in ODD[1:]]
    (tmp_path / "pages").mkdir()
    page = written(Path("pages"), [row(path, 0.9) for path in paths]).read_text()
    links = re.findall(r'<a href="([^"]*)"', page)
    assert len(links) == len(paths)
    for link, path in zip(links, paths, strict=True):
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert link.isascii()
        place = Path(unquote_to_bytes(link).decode(errors="surrogateescape"))
        assert (tmp_path / "pages" / place).resolve() == (tmp_path / path).resolve()


def test_heat_maps_are_shown_when_asked_for(browser: Any, tmp_path: Path) -> None:
    page = Opened(browser, written(tmp_path, some(tmp_path), heats=True)).page
    visible = "[...list.querySelectorAll('img')].filter(one => one.checkVisibility()).map(one => one.className)"
    assert set(page.evaluate(visible)) == {""}
    page.check("#heats")
    assert page.evaluate(visible) == ["heat"] * 5
    assert Opened(browser, written(tmp_path, some(tmp_path))).page.query_selector("#heats") is None


def test_several_classes_have_each_a_choice(browser: Any, tmp_path: Path) -> None:
    classes = ("a", "b", "=c")
    with Page(tmp_path / "gels.html", classes, "b") as made:
        made.add(Row("x.png", "a", "a", 0.6, {"a": 0.6, "b": 0.1, "=c": 0.3}, "", ""), thumbnail())
        made.add(Row("y.png", "b", "b", 0.6, {"a": 0.1, "b": 0.6, "=c": 0.3}, "", ""), thumbnail())
    page = Opened(browser, tmp_path / "gels.html").page
    assert names(page) == ["y.png", "x.png"]
    page.click("li:has-text('x.png') .mark")  # the most probable of the others
    page.click("li:has-text('y.png') .mark")
    page.select_option("li:has-text('y.png') select", "a")
    assert [label for _, label in corrections(page)[1:]] == ["a", "'=c"]


def test_many_pictures_are_quick(browser: Any, tmp_path: Path) -> None:
    rows = [row(tmp_path / f"folder {i % 50}/picture {i}.png", i % 1000 / 1000) for i in range(5000)]
    page = Opened(browser, written(tmp_path, rows), size=PHONE).page
    assert page.inner_text("#shown") == "5,000 shown"
    milliseconds = page.evaluate(
        """() => {
          const start = performance.now();
          search.value = "folder 7/"; filter(); document.body.offsetHeight;
          return performance.now() - start;
        }"""
    )
    assert len(names(page)) == 100
    assert milliseconds < 2000  # 50 to 200 where nothing else runs


# --- the file ---


def test_thumbnails_are_small_and_heat_is_where_it_was_given(tmp_path: Path) -> None:
    grey, heat = np.full((600, 900), 80, np.uint8), np.zeros((10, 10), np.uint8)
    heat[:, 5:] = 255  # the right half
    with Page(tmp_path / "gels.html", CLASSES, "gel") as page:
        page.add(row("a.png", 0.9), grey, heat)
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "gels.html").read_text())
    plain, hot = (Image.open(io.BytesIO(base64.b64decode(source))) for source in sources)
    assert (plain.mode, hot.mode) == ("L", "RGB")
    assert plain.size == hot.size == (SIDE, SIDE * 600 // 900 + 1)
    left, right = hot.getpixel((10, 50)), hot.getpixel((150, 50))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert max(left) - min(left) < 10  # grey
    assert right[0] > right[2] + 80  # orange


def test_a_page_is_whole_or_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, some(tmp_path))
    before = path.read_bytes()
    with pytest.raises(KeyError), Page(path, CLASSES, "gel") as page:
        page.add(row("a.png", 0.5, "no class of the model"), thumbnail())
    assert path.read_bytes() == before
    assert temporary_files(tmp_path) == []
    assert "is a folder" in refused(lambda: Page(tmp_path, CLASSES, "gel"))


def test_no_room_of_it_imports_pytorch() -> None:
    modules = ", ".join(f"gel_lightning.inference.{name}" for name in ("explain", "page", "sort"))
    code = f"import sys, {modules}; print([name for name in ('torch', 'lightning') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    assert "<h1>0 of 0 pictures: gel</h1>" in written(tmp_path, []).read_text()


def test_the_same_pictures_give_the_same_page(tmp_path: Path) -> None:
    first = written(tmp_path, some(tmp_path)).read_bytes()
    assert written(tmp_path, some(tmp_path)).read_bytes() == first
