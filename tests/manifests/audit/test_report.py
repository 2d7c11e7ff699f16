"""The report in a browser: no error, figures equal to the JSON, searchable, readable on a phone and in the dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from manifests.audit.page import SCRIPT, in_words, text
from manifests.audit.prove import audit
from manifests.audit.report import write_report
from manifests.build import Build
from manifests.doors import door
from manifests.sheet import _in_turn, choose_pairs
from tests.support.build_folder import change_rows, make_build

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

# Writes what a person would see into the page, for --dump-dom to show.
PROBE = """
<script>
{ const told = {};
told.totals = [...document.querySelectorAll('.totals div')].map(card => card.innerText.split('\\n').filter(line => line));
told.findings = [...document.querySelectorAll('.finding b')].map(message => message.textContent);
told.commands = [...document.querySelectorAll('.finding .command')].map(command => command.textContent);
told.charts = [...document.querySelectorAll('figure')].map(figure => [figure.dataset.chart,
  [...figure.querySelectorAll('rect title')].map(bar => +bar.textContent.split(': ')[1].replaceAll(',', ''))]);
const field = document.querySelector('#search input'), shown = list => [...document.querySelectorAll(list)].filter(
  item => item.checkVisibility()).length;
const seen = what => { field.value = what; field.dispatchEvent(new Event('input'));
  return [shown('.finding'), shown('tbody tr'), shown('.sheet'), document.querySelector('#search span').textContent]; };
told.all = seen('');
told.by_rule = seen('ANGLE rays');
told.by_reason = seen('frozen crops');
told.by_nothing = seen('nobody has this');
told.again = seen('');
document.body.innerHTML = '<pre id=told></pre>';
document.querySelector('#told').textContent = JSON.stringify(told); }
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of a report with findings, and its JSON."""
    root = make_build(tmp_path_factory.mktemp("report") / "out")
    change_rows(
        root, "pairs", "rig-rec1", "pairs",
        lambda rows: [row | {"view_angle_rad": row["view_angle_rad"] + 0.1 * (i % 5 == 0)} for i, row in enumerate(rows)],
    )  # fmt: skip
    paths = write_report(root, audit(root), shown_root="out/a <b>")
    return paths[1], json.loads(paths[0].read_text())


def browse(path, tmp_path, *flags):
    """What the probe tells of a page, and what the browser complains of."""
    page = path.read_text()
    probed = re.sub(r"<meta http-equiv=Content-Security-Policy[^>]*>", "", page).replace("</html>", PROBE + "</html>")
    copy = tmp_path / "probed.html"
    copy.write_text(probed)
    dom, _ = run_browser(copy, tmp_path, "--dump-dom", *flags)
    told = re.search(r"<pre id=\"told\">(.*?)</pre>", dom, re.DOTALL)
    assert told, dom[-500:]
    return json.loads(html.unescape(told[1]))


def run_browser(path, tmp_path, *flags):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile",
         *flags, path.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@needs_browser
def test_figures_are_those_of_the_json(report, tmp_path):
    path, told = report
    seen = browse(path, tmp_path, "--window-size=1280,900")
    stats = told["stats"]
    totals = {name: value for value, name in seen["totals"]}
    assert totals["pairs"] == f"{stats['rows']['pairs']:,}" == "117"
    assert totals["left out"] == str(stats["rows"]["rejects"])
    assert totals["cross-view"] == str(sum(r["rows"] for r in stats["pairs"] if r["kind"] == "cross_view"))
    assert seen["findings"] == [finding["message"] for finding in told["findings"]]
    key = told["findings"][0]["examples"][0]
    assert seen["commands"][0] == door("manifests", "show", "out/a <b>", "--table", "pairs", "--key", key)
    charts = {}
    for name, counts in seen["charts"]:
        charts.setdefault(name, []).append(counts)
    for name in ("view_angle_rad", "dt_s", "coverage", "pairs_of_a_subject"):
        assert charts[name][0] == stats["histograms"][name]["counts"], name
    assert charts["dt_s"][1:] == [of["counts"] for of in stats["histograms_by_source"]["dt_s"].values()]
    assert "covisibility" not in charts  # nothing is known of it in this build


@needs_browser
def test_search_leaves_what_holds_all_words(report, tmp_path):
    path, told = report
    seen = browse(path, tmp_path)
    assert seen["all"][0] == len(told["findings"])
    assert seen["by_rule"][0] == sum(finding["rule"] == "angle" for finding in told["findings"]) == 1
    assert seen["by_reason"][:3] == [0, 1, 0]
    assert re.fullmatch(r"1 of \d+", seen["by_reason"][3])
    assert seen["by_nothing"][:3] == [0, 0, 0]
    assert seen["again"] == seen["all"]


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_readable_on_any_screen(report, tmp_path, width, dark):
    """Headless windows are no narrower than 500 px, so the page is looked at through a frame of the width asked for."""
    path, _ = report
    page = re.sub(r"<meta http-equiv=Content-Security-Policy[^>]*>", "", path.read_text())
    inner, outer = tmp_path / "inner.html", tmp_path / "outer.html"
    ask = (
        "<script>addEventListener('load', () => parent.postMessage([document.documentElement.scrollWidth, innerWidth, "
        "getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
        "[...document.images].every(i => i.naturalWidth > 100 && i.getBoundingClientRect().width <= innerWidth)], '*'))</script>"
    )
    inner.write_text(page.replace("</html>", ask + "</html>"))
    outer.write_text(
        f"<iframe width={width} height=800 style='border: 0; color-scheme: {'dark' if dark else 'light'}' src=inner.html></iframe>"
        "<script>addEventListener('message', told => { document.body.innerHTML = '<pre id=told></pre>';"
        "document.querySelector('#told').textContent = JSON.stringify(told.data); })</script>"
    )
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    dom, _ = run_browser(outer, tmp_path, "--dump-dom", "--virtual-time-budget=5000", *flags)
    found = re.search(r"<pre id=\"told\">(.*?)</pre>", dom)
    assert found, dom[-500:]
    scroll, inside, paper, ink, pictures = json.loads(html.unescape(found[1]))
    assert inside == width
    assert scroll <= width, "nothing stands out at the right"
    assert pictures
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (paper, ink)]
    assert abs(brightness[0] - brightness[1]) > 0.6
    assert (brightness[0] < brightness[1]) is dark


@needs_browser
def test_no_error_under_the_page_s_own_policy(report, tmp_path):
    """The policy lets the page's script run, and no other."""
    path, _ = report
    _, complaints = run_browser(path, tmp_path, "--dump-dom")
    assert complaints == []
    other = tmp_path / "other.html"
    other.write_text(path.read_text().replace("</html>", "<script>document.title = 'run'</script></html>"))
    dom, complaints = run_browser(other, tmp_path, "--dump-dom")
    assert "<title>run" not in dom
    assert any("Content Security Policy" in line for line in complaints)


def test_rejects_come_with_examples_and_the_command_that_shows_them(report):
    page = report[0].read_text()
    for row in report[1]["stats"]["rejects"]:
        assert row["examples"]
        for key, detail in row["examples"]:
            assert text(f"{key}: {detail}" if detail else key) in page
        assert text(f"show 'out/a <b>' --table rejects --key {row['examples'][0][0]}") in page


def test_sheets_show_chance_findings_and_extremes(report):
    path, told = report
    titles = re.findall(r"<div class=sheet><h3>(.*?)</h3>", path.read_text())
    extremes = [f"{name[0].upper()}{name[1:]}" for name in told["stats"]["extremes"]]
    assert titles == ["Drawn by chance", "Named by findings", *extremes]
    assert "Widest view angles" in titles
    assert SCRIPT in path.read_text()


def test_terms_say_what_may_be_trained_on_the_build(report):
    path, told = report
    terms = told["stats"]["terms"]
    assert (terms["research"], terms["commercial"]) == ("unknown", "unknown")
    assert "<b>Training for research: unknown; commercially: unknown (rig, synthetic)</b>" in path.read_text()
    assert in_words(terms | {"commercial": "yes", "research": "yes", "duties": ["attribution"]}) == (
        "Training for research: yes; commercially: yes; asks for attribution"
    )


def test_pairs_for_a_sheet_are_read_unit_by_unit(honest, monkeypatch):
    """However large the build: no more is kept than the sheet may show."""
    whole = choose_pairs(Build(honest), num=7)
    kept = []

    def in_turn(pairs, num):
        kept.append(pairs.num_rows)
        return _in_turn(pairs, num)

    monkeypatch.setattr("manifests.sheet._in_turn", in_turn)
    monkeypatch.setattr(Build, "table", lambda *_, **__: pytest.fail("all pairs were read at once"))
    assert choose_pairs(Build(honest), num=7) == whole
    assert len(kept) == 3
    assert max(kept) <= 39 + 7 * 4  # a unit's pairs, and seven of each way before


def test_a_build_without_its_crops_gets_a_page_that_says_so(build):
    for path in (*build.glob("renders/*.crops.parquet"), *build.glob("crops/*.crops.parquet")):
        path.unlink()
    found = audit(build)
    assert not found.passed
    write_report(build, found, shown_root="OUT")
    page = (build / "audit" / "report.html").read_text()
    assert "crops.parquet" in page
