"""The page of a cache: what stands in it, that no text breaks out, and how a browser sees it."""

import base64
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace

import cv2
import numpy as np
import polars as pl
import pytest

from lumbar.cache.format import (
    COORDINATES_TABLE,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
)
from lumbar.cache.labels import label_table
from lumbar.cache.store import Cache
from lumbar.cache.tables import read_table, write_table
from lumbar.cache.volumes import CHUNK, volume_folder
from lumbar.inspect.report import write
from lumbar.inspect.report.page import as_json
from lumbar.inspect.report.thumbnails import (
    MOST_BYTES,
    STYLES,
    bytes_each,
    choose_thumbnails,
    draw_strip,
)
from lumbar.inspect.report.write import PageWritten, StripDrawn, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
STUDIES = 2000
EVIL = "</script><img src=x onerror=\"document.title='broken'\"><!-- \u2028 & ' \udcff"
"""What no page may take for markup; the last character cannot be encoded."""


def report_of(cache, out):
    *drawn, written = write_report(Cache(cache), out)
    assert isinstance(written, PageWritten)
    assert [event.n_done for event in drawn] == list(range(1, written.n_series + 1))
    assert all(isinstance(event, StripDrawn) for event in drawn)
    assert written.nbytes == out.stat().st_size
    return out.read_text()


def block(text, name):
    (found,) = re.findall(f'<script type="application/json" id="{name}">(.*?)</script>', text)
    return json.loads(found)


class Browser:
    """A headless browser, asked over a pipe by the DevTools protocol; it reaches no network."""

    def __init__(self, program, profile):
        (theirs_in, self._to), (self._from, theirs_out) = os.pipe(), os.pipe()
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (theirs_in, theirs_out)]
        self._process = subprocess.Popen(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"),
                *(f"--user-data-dir={profile}", "about:blank"),
            ],
            stderr=subprocess.DEVNULL,
            # The browser listens at descriptor 3 and answers at 4.
            preexec_fn=lambda: (os.dup2(high[0], 3), os.dup2(high[1], 4)),  # noqa: PLW1509
            pass_fds=(3, 4),
        )
        for descriptor in (theirs_in, theirs_out, *high):
            os.close(descriptor)
        self._answers = os.fdopen(self._from, "rb")
        self._number = 0
        self._session = None

    def _ask(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                assert byte, "the browser has ended"
                answer += byte
            found = json.loads(answer)
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def open(self, path, fragment=""):
        """Open a page and wait until its script has run."""
        self._session = None
        target = self._ask("Target.createTarget", url=f"{path.as_uri()}#{fragment}")
        attached = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        deadline = time.monotonic() + 60
        # A new tab shows an empty page of its own before it shows this one.
        while self.run("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def run(self, script):
        """Return the value of an expression of the page."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def texts(self, selector):
        """Return the texts of the elements that a selector finds."""
        return self.run(f"[...document.querySelectorAll('{selector}')].map((e) => e.textContent)")

    def close(self):
        os.close(self._to)
        self._answers.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    opened = Browser(found, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def evil_cache(tiny_cache):
    """The tiny cache with texts that want to be markup wherever a file can put one."""
    series = read_table(tiny_cache, SERIES_TABLE).with_columns(
        manufacturer=pl.lit(EVIL[:-1]), flags=pl.Series([[EVIL[:-1]], ["gap"]])
    )
    write_table(tiny_cache, SERIES_TABLE, series)
    rows = [
        ("100", "100.1", EVIL[:-1], "truncated", EVIL[:-1]),
        (EVIL[:-1], "9", "", EVIL[:-1], ""),
    ]
    write_table(tiny_cache, REJECTED_TABLE, pl.DataFrame(rows, REJECTED_SCHEMA, orient="row"))
    return tiny_cache


def test_the_page_holds_every_series_with_points_and_grades(tiny_cache, tmp_path):
    text = report_of(tiny_cache, tmp_path / "new" / "report.html")
    data = block(text, "data")
    first, second = data["series"]
    assert (first["series_id"], second["series_id"]) == ("100.1", "100.2")
    assert first["slices"] == [0, 1, 2, 3, 4]
    (point,) = first["points"]
    assert point["slice"] == 2
    assert (point["x"], point["y"]) == pytest.approx((40.5 / 80, 60.5 / 96), abs=1e-4)
    assert (point["name"], point["severity"]) == ("L4/L5 canal", "severe")
    assert data["grades"]["100"][3] == "2"
    assert second["points"] == []
    assert first["mean"] == pytest.approx(Cache(tiny_cache).series["mean"][0], rel=1e-5)


def test_pictures_are_the_slices(tiny_cache, tmp_path):
    text = report_of(tiny_cache, tmp_path / "report.html")
    jpegs = [base64.b64decode(one) for one in block(text, "thumbnails-0")]
    width, height = block(text, "data")["series"][0]["tile"]
    picture = cv2.imdecode(np.frombuffer(jpegs[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (height, 5 * width)
    assert width / height == pytest.approx(80 / 96, abs=0.01)
    volume = Cache(tiny_cache).volume(0)
    wanted = cv2.resize(np.array(volume[3]), (width, height), interpolation=cv2.INTER_AREA)
    tiles = np.split(picture.astype(float), 5, axis=1)
    distances = [np.abs(tile - wanted).mean() for tile in tiles]
    assert np.argmin(distances) == 3


def test_a_damaged_volume_has_no_picture(tiny_cache, tmp_path, caplog):
    (volume_folder(tiny_cache, "100", "100.1") / CHUNK).unlink()
    text = report_of(tiny_cache, tmp_path / "report.html")
    assert block(text, "thumbnails-0")[0] is None
    assert block(text, "thumbnails-0")[1] is not None
    assert "no picture" in caplog.text


def test_an_empty_cache_has_a_page(tiny_cache, tmp_path):
    for name in (SERIES_TABLE, LABELS_TABLE, COORDINATES_TABLE):
        write_table(tiny_cache, name, read_table(tiny_cache, name).clear())
    assert block(report_of(tiny_cache, tmp_path / "report.html"), "data")["series"] == []


def test_annotated_slices_come_first_then_the_middle():
    assert choose_thumbnails(20, [], 5) == [7, 8, 9, 10, 11]
    assert choose_thumbnails(20, [2, 17], 3) == [2, 9, 17]
    assert choose_thumbnails(20, [0, 1, 2, 3], 2) == [2, 3]
    assert choose_thumbnails(2, [], 5) == [0, 1]
    for few in range(1, 6):
        assert set(choose_thumbnails(9, [1, 8], few)) <= set(choose_thumbnails(9, [1, 8], few + 1))


def test_pictures_keep_to_their_bytes(tiny_cache):
    cache = Cache(tiny_cache)
    best = draw_strip(cache, 0, [2], 10**9)
    assert best.height == STYLES[0].height
    smaller = draw_strip(cache, 0, [2], len(best.jpeg) - 1)
    assert len(smaller.jpeg) < len(best.jpeg)
    smallest = draw_strip(cache, 0, [2], 0)
    assert (smallest.height, len(smallest.d)) == (STYLES[-1].height, STYLES[-1].slices)
    assert 2 in smallest.d
    assert bytes_each(6000) * 6000 <= MOST_BYTES


def test_the_page_asks_nobody_and_runs_one_script(evil_cache, tmp_path):
    text = report_of(evil_cache, tmp_path / "report.html")
    assert "<img" not in text
    markup = re.sub(r'<script type="application/json".*?</script>', "", text)
    assert re.findall(r"<[^>]+\s(?:src|href)=|@import|url\(|fetch\(|XMLHttp", markup) == []
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert f"script-src 'sha256-{digests[0]}'" in policy
    assert len(scripts) == 1
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_json_in_a_page_is_the_same_json():
    value = {"<!--": [EVIL[:-1], "]]>", "\u2029", 1.5, None]}
    assert json.loads(as_json(value)) == value
    assert not set(as_json(value)) & set("<>&\u2028\u2029")
    assert json.loads(as_json(EVIL))[:-1] == EVIL[:-1]


def test_a_browser_shows_texts_as_texts(evil_cache, tmp_path, browser):
    path = tmp_path / "report.html"
    report_of(evil_cache, path)
    page = browser.open(path)
    assert page.run("document.title") == "lumbar: what is in the cache"
    assert EVIL[:-1] in page.texts(".tag")
    assert any(EVIL[:-1] in text for text in page.texts(".about"))
    sources = page.run("[...document.images].map((image) => image.src.slice(0, 15))")
    assert sources == ["data:image/jpeg"] * 2
    assert page.run("[...document.images].every((i) => i.complete && i.naturalWidth > 100)")
    assert page.run("document.querySelectorAll('[onerror]').length") == 0
    assert len(page.texts(".row")) == 3


def test_the_policy_stops_what_a_page_would_run_or_fetch(tiny_cache, tmp_path, browser):
    path = tmp_path / "report.html"
    text = report_of(tiny_cache, path)
    evil = "<img src='https://example.org/x.png' onerror=\"document.title='broken'\"><script>"
    path.write_text(text.replace("<header>", f"{evil}document.title='broken'</script><header>"))
    page = browser.open(path)
    assert page.run("document.querySelectorAll('[onerror]').length") == 1
    assert page.run("document.title") == "lumbar: what is in the cache"


@pytest.mark.parametrize(
    ("fragment", "count", "ids"),
    [
        ("", "3 of 3", {"100.1", "100.2", "9"}),
        ("flag=gap", "1 of 3", {"100.2"}),
        ("reason=truncated", "1 of 3", {"100.1"}),
        ("type=not+cached", "1 of 3", {"9"}),
        ("type=sagittal_t2&severity=severe", "1 of 3", {"100.1"}),
        ("severity=severe&flag=gap", "0 of 3", set()),
        ("search=100/100.2", "1 of 3", {"100.2"}),
    ],
)
def test_a_browser_filters(evil_cache, tmp_path, browser, fragment, count, ids):
    path = tmp_path / "report.html"
    report_of(evil_cache, path)
    page = browser.open(path, fragment)
    assert page.texts("output") == [f"{count} series"]
    assert {one.rpartition("/")[2] for one in page.texts(".about b")} == ids
    # The points of the series that are shown are drawn, and only theirs.
    assert len(page.texts(".point")) == int("100.1" in ids)
    assert len(page.texts("figure")) == 6


def test_a_chosen_filter_shows_at_once(evil_cache, tmp_path, browser):
    path = tmp_path / "report.html"
    report_of(evil_cache, path)
    page = browser.open(path)
    page.run(
        "const flag = document.forms.filters.elements.flag; flag.value = 'gap';"
        "flag.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert page.texts("output") == ["1 of 3 series"]
    assert page.run("location.hash") == "#flag=gap"


@pytest.fixture
def large_cache(tiny_cache):
    """2,000 studies of three series, which all share the voxels of one."""
    one = read_table(tiny_cache, SERIES_TABLE).head(1)
    ids = [f"{study:05}" for study in range(STUDIES)]
    series = pl.concat([one] * 3 * STUDIES).with_columns(
        study_id=pl.Series([study for study in ids for _ in range(3)]),
        series_id=pl.Series([f"{study}.{n}" for study in ids for n in range(3)]),
        series_type=pl.Series(["sagittal_t1", "sagittal_t2", "axial_t2"] * STUDIES),
    )
    write_table(tiny_cache, SERIES_TABLE, series)
    grades = np.random.default_rng(1).integers(-1, 3, (STUDIES, 25)).astype(np.int8)
    write_table(tiny_cache, LABELS_TABLE, label_table(ids, grades))
    return tiny_cache


def test_a_browser_opens_two_thousand_studies(large_cache, tmp_path, browser, monkeypatch):
    n_series = 3 * STUDIES
    drawn = draw_strip(Cache(large_cache), 0, [], 0)
    # Drawn once, and as many bytes as there may be: what follows the end of a JPEG is ignored.
    fullest = replace(drawn, jpeg=drawn.jpeg.ljust(bytes_each(n_series), b"\0"))
    monkeypatch.setattr(write, "draw_strip", lambda *_: fullest)
    path = tmp_path / "report.html"
    report_of(large_cache, path)
    assert MOST_BYTES < path.stat().st_size < 1.5 * MOST_BYTES
    page = browser.open(path)
    assert page.texts("output") == ["6000 of 6000 series"]
    # Rows are made where they are seen, and no other.
    assert 5 <= len(page.texts(".row")) <= 25
    page.run("window.scrollTo(0, document.body.scrollHeight); drawVisible()")
    assert page.texts(".about b")[-1] == "01999/01999.2"
    assert 5 <= len(page.texts(".row")) <= 25
    found = browser.open(path, "search=01999&type=axial_t2")
    assert found.texts("output") == ["1 of 6000 series"]
    assert found.texts(".about b") == ["01999/01999.2"]
