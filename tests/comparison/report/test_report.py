import base64
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from browsing import DESK, PHONE, Opened
from conftest import gel_fit, made_once, read_rows, save_class
from made_up import change_about, make_comparison
from PIL import Image
from test_cli import assert_error, temporary_files

from gel_lightning.comparison.report import page
from gel_lightning.comparison.report.page import MOST_GROUPS, make_report
from gel_lightning.comparison.summary import Summary
from gel_lightning.training.results import rewrite_results

# Names that a page must show and not run, and that matplotlib must not take for formulas.
ODD = ('<b>gel & "it\'s" $x$', "не гель 凝胶_1")
GONE = "no thumbnail is kept"
EVIL = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
KINDS: dict[str, dict[str, Any]] = {
    "12 models": {
        "backbones": ["resnet18", "vgg16", "mobilenet_v3_large"],
        "optimizers": ["sgd"],
        "hardware": ["cpu", "gpu"],
        "folds": 2,
    },
    "one split": {"folds": 0},
    "one model": {"backbones": ["resnet18"], "heads": ["multi"], "optimizers": ["sgd"]},
    "odd names": {"classes": ODD, "backbones": ["resnet18"], "failed": ["resnet18_single_sgd_cpu"]},
}
TWO: dict[str, Any] = {"backbones": ["resnet18"], "heads": ["multi"]}


def pictured(folder: Path, **options: Any) -> Path:
    """A made-up comparison of tiny pictures that are there."""
    for label, name in enumerate(options.get("classes", ("gel", "not_gel"))):
        save_class(folder / "pictures" / name, 10, 1000 * label, striped=label == 0)
        save_class(folder / "pictures/test" / name, 5, 1000 * label + 500, striped=label == 0)
    return make_comparison(folder / "made", pictures=folder / "pictures", per_class=10, **options)


def reported(folder: Path, **options: Any) -> tuple[Path, Summary]:
    """Such a comparison and its report."""
    made = pictured(folder, **options)
    return made, make_report(made, pictures_in(folder))


def pictures_in(folder: Path) -> set[str]:
    return {str(path) for path in (folder / "pictures").rglob("*.png")}


def made_of(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a kind of comparison with its report, which is made once."""

    def make(folder: Path) -> None:
        made = pictured(folder, **KINDS[kind])
        if kind == "odd names":
            command = f"gel-fit compare --data.train_dir '{EVIL}'"
            change_about(made, commands=[command], system=EVIL, near_duplicates=[[EVIL, "b"]])
            text = (made / "results.csv").read_text()
            (made / "results.csv").write_text(text.replace("it did not work", EVIL))
        make_report(made, pictures_in(folder), figures=kind == "odd names")

    return made_once(tmp_path_factory, f"report of {kind}", make) / "made"


class OpenedReport(Opened):
    """A report in a browser, which the tests of its kind share; each sets what it needs to see."""

    def look(self, scheme: str = "light", size: dict[str, int] = DESK, media: str = "screen") -> Any:
        """The page, as it looks there."""
        self.page.set_viewport_size(size)
        self.page.emulate_media(color_scheme=scheme, media=media)
        return self.page

    def set_details(self, is_open: bool) -> None:
        """Opens or closes all of them."""
        self.page.evaluate("open => document.querySelectorAll('details').forEach(one => one.open = open)", is_open)

    def rows(self) -> list[list[str]]:
        """The cells of the table of models by which it is sorted."""
        script = "[...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.dataset.value))"
        rows: list[list[str]] = self.page.evaluate(script)
        return rows


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of comparison."""
    return str(request.param)


@pytest.fixture(scope="module")
def opened(browser: Any, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedReport]:
    """The report of a kind of comparison."""
    report = OpenedReport(browser, made_of(kind, tmp_path_factory) / "report.html")
    yield report
    report.context.close()


def of(*kinds: str) -> pytest.MarkDecorator:
    """Has a test look at the reports of these kinds alone."""
    return pytest.mark.parametrize("kind", kinds, indirect=True, scope="module")


# --- in a browser ---


def test_the_text_of_figures_can_be_read_in_both_schemes(opened: OpenedReport) -> None:
    for scheme in ("light", "dark"):
        page = opened.look(scheme)
        assert opened.is_dark() == (scheme == "dark")
        assert figure_contrasts(page) >= 3  # axe leaves it out


# Of 12 models there are more rows, and no other parts.
@of("one split", "one model", "odd names")
def test_a_report_has_names_of_controls_and_readable_text(opened: OpenedReport) -> None:
    opened.look()
    opened.set_details(True)
    assert opened.violations() == []


@of("odd names")
def test_text_can_be_read_in_the_dark(opened: OpenedReport) -> None:
    opened.look("dark")
    opened.set_details(True)
    assert opened.violations("color-contrast") == []  # only colours differ


def figure_contrasts(page: Any) -> float:
    """The least contrast of the words outside of the data of a figure, by WCAG's formula."""
    script = """() => {
      const light = colour => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
          .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const surface = light(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll(".plot svg text")]
        .filter(text => (text.getAttribute("style") || "").includes("var(--"))
        .map(text => light(getComputedStyle(text).fill))
        .map(ink => (Math.max(ink, surface) + 0.05) / (Math.min(ink, surface) + 0.05));
    }"""
    contrasts: list[float] = page.evaluate(script)
    assert len(contrasts) > 20
    return min(contrasts)


def test_nothing_overflows_on_a_phone_or_a_desk(opened: OpenedReport) -> None:
    opened.set_details(True)
    for size in (PHONE, DESK):
        page = opened.look(size=size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        # Whatever is wider than the page is in a box that scrolls.
        script = """() => [...document.querySelectorAll("body *")]
          .filter(one => !one.parentElement.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 1)
          .map(one => one.outerHTML.slice(0, 80))"""
        assert page.evaluate(script) == []


@of("12 models", "one model")
def test_the_table_sorts_by_each_column_both_ways(opened: OpenedReport) -> None:
    opened.look().reload()
    first = opened.rows()
    assert [float(row[1]) for row in first] == sorted((float(row[1]) for row in first), reverse=True)
    for column, button in enumerate(opened.page.query_selector_all("#table th button")):
        seen = []
        for _ in range(2):
            button.evaluate("button => button.click()")
            order = button.evaluate("button => button.parentElement.ariaSort")
            rows = opened.rows()
            values: list[Any] = [row[column] for row in rows]
            values = values if column == 0 else list(map(float, values))
            assert values == sorted(values, reverse=order == "descending")
            assert sorted(rows) == sorted(first)  # whole rows have moved
            seen.append(order)
        assert sorted(seen) == ["ascending", "descending"]
        assert len(opened.page.query_selector_all("#table th[aria-sort]")) == 1
    before = opened.rows()
    button.click()  # with the mouse, too
    assert opened.rows() == before[::-1]


@of("odd names")
def test_names_are_shown_and_not_run(opened: OpenedReport) -> None:
    page = opened.look()
    opened.set_details(True)
    assert page.title() == "Comparison of 3 models"
    shown = page.inner_text("body")
    assert shown.count(EVIL) == 3 + shown.count(f"{EVIL}\n{GONE}") > 3
    for name in ODD:
        assert f"precision of {ODD[0]}" in shown
        assert name in shown
        words = "[...document.querySelectorAll('.plot svg')].map(svg => svg.textContent).join(' ')"
        assert name[:5] in page.evaluate(words)  # long ones are cut there


@of("12 models", "one split")
def test_tables_and_figures_fit_the_screen(opened: OpenedReport) -> None:
    script = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth + 1)"
    opened.set_details(True)
    assert opened.look().evaluate(f"{script}.map(one => one.ariaLabel)") == []
    page = opened.look(size=PHONE)
    assert page.evaluate(f"{script}.filter(one => one.querySelector('.plot')).length") == 0
    plot = page.query_selector(".plot")
    widths = []
    for _ in range(3):  # a tap enlarges it, and another one shrinks it
        widths.append(plot.evaluate("plot => plot.clientWidth"))
        plot.click()
    assert widths[0] == widths[2] < 360 < widths[1]
    plot.click()


def test_a_page_of_paper_holds_all_columns(opened: OpenedReport) -> None:
    page = opened.look(size={"width": 703, "height": 1000}, media="print")  # an A4 page within its margins
    wide = "[...document.querySelectorAll('table, .plot svg')].map(one => one.getBoundingClientRect().right)"
    assert max(page.evaluate(wide)) <= 703


@of("one split")
def test_only_the_best_figure_of_a_column_is_bold(opened: OpenedReport) -> None:
    page = opened.look()
    weights = (
        "[...table.tBodies[0].rows].map(row => [...row.cells].map(cell => +getComputedStyle(cell).fontWeight > 500))"
    )
    texts = "[...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.firstChild.textContent))"
    bold, shown, values = page.evaluate(weights), page.evaluate(texts), opened.rows()
    less = ["log loss", "calibration error"]
    heads = page.evaluate("[...table.tHead.rows[0].cells].map(cell => cell.innerText)")
    assert not any(row[0] for row in bold)
    for column in range(1, len(heads) - 2):
        figures = [float(row[column]) for row in values]
        best = shown[figures.index((min if heads[column] in less else max)(figures))][column]
        alike = len({row[column] for row in shown}) == 1
        assert [row[column] for row in bold] == [row[column] == best and not alike for row in shown], heads[column]


def test_on_paper_nothing_is_hidden(opened: OpenedReport) -> None:
    opened.look("dark")
    opened.set_details(False)
    closed = "document.querySelectorAll('details:not([open])').length"
    before = opened.page.evaluate(closed)
    assert before > 0
    page = opened.look("dark", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(closed) == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(closed) == before


def test_a_report_stands_alone(opened: OpenedReport, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    opened.look("dark").reload()
    assert opened.complaints == []  # of nothing that the tests above did, either
    assert set(opened.fetched()) == {(made_of(kind, tmp_path_factory) / "report.html").as_uri()}


# --- the files ---


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the figures, which take most of the time."""
    monkeypatch.setattr(page, "plots", lambda _: [])


def test_a_report_leaves_whole_files_and_is_made_again_the_same(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = made_of("odd names", tmp_path_factory)
    figures = sorted(path.name for path in (made / "figures").iterdir())
    assert figures == sorted({f"{Path(name).stem}.{kind}" for name in figures for kind in ("png", "svg")})
    assert len(figures) > 20
    for path in (made / "figures").iterdir():
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert min(picture.size) > 100
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    page = before[made / "report.html"].decode()
    on_page = {Path(name).stem for name in figures if f'id="figure-{Path(name).stem}"' in page}
    left_out = {Path(name).stem for name in figures} - on_page
    assert {"reliability", "classes"} <= left_out <= {"reliability", "classes", "metrics_bars"}
    assert not temporary_files(made)
    again = Path(shutil.copytree(made, tmp_path / "again"))
    (again / "report.html").unlink()
    shutil.rmtree(again / "figures")
    make_report(again)
    assert (again / "report.html").read_text() == page
    assert not (again / "figures").exists()
    make_report(again, figures=True)
    assert {made / path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("no_plots")
def test_a_report_is_made_again_elsewhere_without_the_pictures(tmp_path: Path) -> None:
    made, _ = reported(tmp_path, **TWO)
    page = (made / "report.html").read_text()
    thumbnails = page.count("<img src=")
    assert thumbnails > 10
    assert GONE not in page
    shutil.rmtree(tmp_path / "pictures")
    moved = made.rename(tmp_path / "moved")
    make_report(moved)
    assert (moved / "report.html").read_text() == page
    shutil.rmtree(moved / "thumbnails")
    make_report(moved)
    again = (moved / "report.html").read_text()
    assert "<img src=" not in again
    assert again.count(GONE) == thumbnails


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("colour", "mode"), [("", "L"), ("RGB", "RGB")])
def test_pictures_are_in_colour_if_they_were_read_so(colour: str, mode: str, tmp_path: Path) -> None:
    made, _ = reported(tmp_path, **TWO)
    shutil.rmtree(made / "thumbnails")
    rewrite_results(made / "results.csv", [row | {"colour": colour} for row in read_rows(made / "results.csv")])
    make_report(made, pictures_in(tmp_path))
    for path in (made / "thumbnails").iterdir():
        with Image.open(path) as picture:
            assert picture.mode == mode


@pytest.mark.usefixtures("no_plots")
def test_only_pictures_of_the_comparison_are_in_the_page(tmp_path: Path) -> None:
    made, _ = reported(tmp_path, **TWO)
    page = (made / "report.html").read_text()
    kept = sorted((made / "thumbnails").iterdir())
    # Files that no comparison makes: links out of it, no pictures, large ones, a queue, which is never read.
    secret = tmp_path / "secret.jpg"
    shutil.copy(kept[0], secret)
    kept[0].unlink()
    kept[0].symlink_to(secret)
    for path, content in zip(kept[1:4], (b"root:x:0:0", b"", secret.read_bytes()[:-400]), strict=True):
        path.write_bytes(content)
    Image.new("L", (400, 400)).save(kept[4], "JPEG")
    Image.new("L", (40, 40)).save(kept[5], "PNG")
    kept[6].unlink()
    os.mkfifo(kept[6])
    make_report(made)
    again = (made / "report.html").read_text()
    assert again.count(GONE) >= 7
    for path in kept[7:]:
        assert base64.b64encode(path.read_bytes()).decode() in again
    assert base64.b64encode(secret.read_bytes()).decode() not in again
    assert base64.b64encode(b"root:x:0:0").decode() not in again
    # The pictures that somebody else's predictions name are not read.
    shutil.rmtree(made / "thumbnails")
    make_report(made)
    assert "<img src=" not in (made / "report.html").read_text()
    # A folder of thumbnails that is elsewhere is none of the comparison's.
    make_report(made, pictures_in(tmp_path))
    assert (made / "report.html").read_text() == page
    (made / "thumbnails").rename(tmp_path / "elsewhere")
    (made / "thumbnails").symlink_to(tmp_path / "elsewhere")
    make_report(made)
    assert "<img src=" not in (made / "report.html").read_text()


@pytest.mark.usefixtures("no_plots")
def test_methods_say_what_was_done(tmp_path: Path) -> None:
    made, _ = reported(tmp_path, **TWO)
    page = re.sub(r"\s+", " ", (made / "report.html").read_text())
    methods = page[page.index('<section id="methods">') : page.index('<section id="run">')]
    for words in (
        *(
            "16 pictures for training, 4 for validation and 10 for testing",
            "8-bit grey",
            "a square of 224 by 224 pixels",
        ),
        *(
            "for 20 epochs in batches of 23, by adam or sgd with a learning rate of 0.001",
            "the epoch of the lowest val/loss",
        ),
        *("5-fold cross-validation", "dealt 2 times", "Nadeau and Bengio 2003", "Holm", "Clopper and Pearson 1934"),
    ):
        assert words in methods
    assert "stay frozen" in methods
    one_split, _ = reported(tmp_path / "other", folds=0, unfreeze=0.2, **TWO)
    page = (one_split / "report.html").read_text()
    assert "highest accuracy on the validation pictures" in page
    assert "Nadeau" not in page
    assert "Of the layers of the backbones (resnet18), the last 20 % are trained with a head" in page
    assert "frozen" not in page


@pytest.mark.usefixtures("no_plots")
def test_a_report_has_what_the_summary_has(tmp_path: Path) -> None:
    made, summary = reported(tmp_path, failed=["resnet18_multi_sgd_cpu"])
    page = (made / "report.html").read_text()
    names = re.findall(r'<th scope="row" data-value="([^"]+)"', page)
    assert names == [model.name for model in summary.models]
    assert len(names) == 7
    assert "resnet18 multi sgd: RuntimeError: it did not work" in page
    for model in summary.models:
        for metric in summary.metrics:
            assert f'data-value="{model.estimates[metric.key].value}"' in page
        assert f"{model.right}/{model.total}<" in page
    assert page.count("better</td>") + page.count("no difference shown</td>") == len(summary.pairs) == 21
    assert "21/22" in page  # the original's best
    assert "gel-fit compare --folds 5 --repeats 2" in page
    assert "fingerprint 0000" in page


@pytest.mark.usefixtures("no_plots")
def test_the_hardest_pictures_come_first_with_each_vote(tmp_path: Path) -> None:
    made, summary = reported(tmp_path, **TWO)
    page = (made / "report.html").read_text()
    cards = re.findall(r"<li>\s*(?:<img|<span class=\"gone\").*?</details>", page, re.DOTALL)
    assert len(cards) == 24
    sure: dict[str, list[float]] = {}
    for model in summary.models:
        for part, outcomes in (("test picture", [model.record.test]), ("cross-validated", model.record.folds)):
            own: dict[str, list[float]] = {}
            for outcome in outcomes:
                for path, label, shares in zip(*outcome[2:], strict=True):
                    own.setdefault(f"{'/'.join(Path(path).parts[-2:])}, {part}", []).append(float(shares[label]))
            for name, shares in own.items():
                sure.setdefault(name, []).append(sum(shares) / len(shares))
    wanted = sorted(sure, key=lambda name: sum(sure[name]))[:24]
    shown = []
    for card in cards:
        name, actual, part = re.search(r"<strong>(.*?)</strong><br>\s*(\S+), (.*?)<br>", card).groups()  # type: ignore[union-attr]
        shown.append(f"{name}, {part}")
        votes = re.findall(r"([✓✗]) (.*?): (\S+) ([\d.]+)", card)
        assert [vote[1] for vote in votes] == [model.name for model in summary.models]
        assert all((mark == "✓") == (guess == actual) for mark, _, guess, _ in votes)
        wrong = sum(mark == "✗" for mark, *_ in votes)
        assert (f"{wrong} of 2 wrong" if wrong else "all 2 right") in card
    assert shown == wanted


@pytest.mark.usefixtures("no_plots")
def test_many_near_duplicates_are_counted_and_some_shown(tmp_path: Path) -> None:
    made, _ = reported(tmp_path, **TWO)
    groups = [[f"gel/{i}_{j}.png" for j in range(20)] for i in range(MOST_GROUPS + 5)]
    change_about(made, near_duplicates=groups)
    make_report(made)
    page = (made / "report.html").read_text()
    assert f"{len(groups)} groups of near-identical pictures" in page
    assert "gel/0_0.png" in page
    assert "gel/0_19.png" not in page
    assert f"gel/{MOST_GROUPS}_0.png" not in page
    change_about(made, near_duplicates=[])
    make_report(made)
    assert "None were found." in (made / "report.html").read_text()


# --- the command ---


@pytest.mark.usefixtures("no_plots")
def test_the_command_makes_the_report_of_a_number_or_a_folder(tmp_path: Path) -> None:
    made = make_comparison(tmp_path / "lightning_logs/comparison/version_3", **TWO)
    printed = []
    for named in ("3", made, "lightning_logs/comparison/version_3/"):
        (made / "report.html").unlink(missing_ok=True)
        ran = gel_fit("report", named, cwd=tmp_path)
        assert (ran.status, ran.err) == (0, ""), ran.err
        assert ran.out.endswith("\nreport: lightning_logs/comparison/version_3/report.html\n")
        assert "The best of 2 models is " in ran.out
        assert all(len(line) <= 80 for line in ran.out.splitlines()[:3])
        assert (made / "report.html").exists()
        printed.append(ran.out)
    assert len(set(printed)) == 1


def test_the_command_writes_files_of_the_figures_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = page.plots
    monkeypatch.setattr(page, "plots", lambda summary: islice(every(summary), 1))
    made = make_comparison(tmp_path / "made", **TWO, folds=0)
    assert gel_fit("report", made, cwd=tmp_path).status == 0
    assert not (made / "figures").exists()
    assert gel_fit("report", made, "--figures", cwd=tmp_path).status == 0
    assert sorted(path.name for path in (made / "figures").iterdir()) == ["accuracy.png", "accuracy.svg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda made: shutil.rmtree(made), ["no comparison there", "folder"], id="gone"),
        pytest.param(lambda made: (made / "results.csv").unlink(), ["no comparison there"], id="no results"),
        pytest.param(
            lambda made: (made / "results.csv").write_text("a,b\n1,2\n"), ["results.csv"], id="from elsewhere"
        ),
        pytest.param(lambda made: (made / "results.csv").write_bytes(b"\xff\xfe\0"), ["results.csv"], id="not text"),
        pytest.param(lambda made: (made / "about.json").unlink(), ["about.json"], id="nothing about it"),
        pytest.param(lambda made: (made / "about.json").write_text("{"), ["about.json"], id="damaged"),
        pytest.param(
            lambda made: (made / "resnet18_multi_sgd_cpu/predictions.csv").write_text("repeat\n"),
            ["resnet18_multi_sgd_cpu/predictions.csv", "--resume"],
            id="no predictions",
        ),
        pytest.param(
            lambda made: shutil.rmtree(made / "resnet18_multi_sgd_cpu"),
            ["resnet18_multi_sgd_cpu/predictions.csv", "--resume"],
            id="no model",
        ),
    ],
)
def test_what_is_no_comparison_is_one_line(change: Any, words: list[str], tmp_path: Path) -> None:
    made = make_comparison(tmp_path / "made", repeats=1)
    change(made)
    ran = gel_fit("report", "made", cwd=tmp_path)
    assert_error(ran, *words)
    assert not (made / "report.html").exists()
    assert not temporary_files(tmp_path)


@pytest.mark.parametrize("args", [[], ["a", "b"], ["--folder", "a"]])
def test_wrong_arguments_are_one_line(args: list[str], tmp_path: Path) -> None:
    assert_error(gel_fit("report", *args, cwd=tmp_path), "gel-fit report --help", status=2)


def test_help_says_what_it_does(tmp_path: Path) -> None:
    ran = gel_fit("report", "--help", cwd=tmp_path)
    assert ran.status == 0
    assert "Writes report.html" in ran.out
    assert "PNG and SVG to figures/" in ran.out
