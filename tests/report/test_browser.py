"""The page in headless Chromium: it opens, filters and finds, and what a model wrote does nothing but be read."""

import json
import shutil
import socket
import threading
from pathlib import Path

import pytest

from ladder_cli.report.content import content
from ladder_cli.report.folders import read_folders
from ladder_cli.report.page import page
from tests.report.made import sample, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
pytestmark = pytest.mark.slow

# What a completion may hold that a page must not obey. Each would set `window.owned`, fetch, or change what is seen.
HOSTILE = {
    "script": "<script>window.owned='script'</script>",
    "closing": "</script></pre></section><script>window.owned='closing'</script>",
    "comment": "<!--<script>window.owned='comment'//-->",
    "image": "<img src=x onerror=\"window.owned='image'\"><img src='http://127.0.0.1:PORT/image.png'>",
    "svg": "<svg onload=\"window.owned='svg'\"><script>window.owned='svg'</script></svg>",
    "data url": "<iframe src=\"data:text/html,<script>parent.owned='data'</script>\"></iframe>",
    "javascript url": "<a href=\"javascript:window.owned='link'\" autofocus onfocus=\"window.owned='focus'\">x</a>",
    "css": "<style>h1{display:none}@import 'http://127.0.0.1:PORT/x.css'</style><link rel=stylesheet href=//x>",
    "meta": "<meta http-equiv=refresh content='0;url=http://127.0.0.1:PORT/'><base href=http://127.0.0.1:PORT/>",
    "form": "<form action=http://127.0.0.1:PORT/><input autofocus onfocus=\"window.owned='form'\"></form>",
    "template": "${window.owned='template'} {{constructor.constructor('window.owned=1')()}} {{data}}",
    "json": "\"}]};window.owned='json';//\\",
    "escapes": "\\u003cscript\\u003ewindow.owned='escapes'\\u003c/script\\u003e\x1b]0;title\x07\x00\x08",
}
BIDI = "It is \u202e5 ton\u202c 4\u2066\u200b\ufeff, and \u200fso on\ud800."


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def listener():
    """A server of this machine that counts whoever connects: its port, and the count."""
    server, connected = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            connected.append(address)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], connected
    server.close()


class Opened:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser, file: Path, **told) -> None:
        self.requests, self.complaints = [], []
        self.tab = browser.new_context(**told).new_page()
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(f"file://{file}")
        self.tab.wait_for_selector("#detail")

    def choose(self, name: str, value: str) -> None:
        self.tab.select_option(f'[data-filter="{name}"]', value)

    def search(self, text: str) -> None:
        self.tab.fill("#search", text)
        self.tab.wait_for_timeout(400)

    @property
    def found(self) -> str:
        return self.tab.inner_text("#found")


@pytest.fixture
def opened(chromium, tmp_path):
    def opened(*folders, **told) -> Opened:
        file = tmp_path / "report.html"
        file.write_text(page(content(*read_folders([str(folder) for folder in folders]))))
        return Opened(chromium, file, **told)

    return opened


def test_it_opens_filters_and_finds(opened, tmp_path):
    one = write_run(tmp_path / "ladder", "rrrwww")
    two = write_run(tmp_path / "qlora", "rwrwrw", method="qlora")
    report = opened(one, two)
    assert report.complaints == []
    assert report.requests == [report.tab.url]
    assert report.found == "6 of 6 problems, 12 samples"
    for part in (
        "Scores",
        "Which is better?",
        "Length of completions",
        "Training",
        "Settings and identities",
        "Samples",
    ):
        assert report.tab.is_visible(f"h2:has-text('{part}')"), part
    assert "McNemar, exact" in report.tab.inner_text("#tests")
    assert "50 MB" in report.tab.inner_text("#training")
    assert report.tab.locator("#training svg path.curve").count() == 4
    report.choose("agreement", "differ")
    assert report.found == "2 of 6 problems, 4 samples"
    report.choose("agreement", "first")
    assert report.found == "1 of 6 problems, 2 samples"
    assert "What is 1+1?" in report.tab.inner_text("#detail")
    assert "answer as read" in report.tab.inner_text("#detail")
    report.choose("agreement", "")
    report.choose("verdict", "correct")
    assert report.found.startswith("4 of 6")
    report.choose("run", "1")
    assert report.found.startswith("3 of 6")
    report.choose("verdict", "")
    report.search("is 4+4")
    assert report.found.startswith("1 of 6")
    report.search("[no regular (expression")
    assert report.found.startswith("0 of 6")
    assert report.tab.inner_text("#detail") == "Nothing matches."


def test_it_is_used_with_the_keyboard(opened, tmp_path):
    report = opened(write_run(tmp_path / "run", "rwrw"))
    for keys, title in (("j", "problem-1"), ("j", "problem-2"), ("k", "problem-1")):
        report.tab.keyboard.press(keys)
        assert report.tab.inner_text("#detail h3") == f"sums {title}"
    report.tab.keyboard.press("/")
    report.tab.keyboard.type("jk")
    assert report.tab.input_value("#search") == "jk", "letters of a search are letters"
    assert report.tab.inner_text("#detail h3") == "sums problem-1" or report.found.startswith("0")
    unnamed = report.tab.locator("button, select, input").evaluate_all(
        "all => all.filter(each => !each.textContent.trim() && !each.labels?.length).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is(opened, tmp_path, scheme):
    report = opened(write_run(tmp_path / "run", "rw"), color_scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    brightness = sum(int(part) for part in report.tab.evaluate(ground)[4:-1].split(","))
    assert (brightness > 380) == (scheme == "light")
    report.tab.click("#theme")
    assert sum(int(part) for part in report.tab.evaluate(ground)[4:-1].split(",")) != brightness


def test_a_narrow_screen_shows_it_without_moving_sideways(opened, tmp_path):
    report = opened(
        write_run(tmp_path / ("long-name," * 9 + "seed=0"), [sample(0, True, "x" * 3000), sample(1, False)]),
        viewport={"width": 360, "height": 640},
    )
    assert report.tab.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_completion_is_text_and_nothing_else(opened, listener, tmp_path, what):
    port, connected = listener
    text = HOSTILE[what].replace("PORT", str(port))
    nasty = sample(0, False, text, prompt=text, gold=text, answer=text, id=text, reading={"found": text, text: [text]})
    report = opened(write_run(tmp_path / "run", [nasty, sample(1, True)]))
    report.search(text[:12])
    report.search("")
    report.tab.click("#list button")
    report.tab.wait_for_timeout(150)
    assert report.tab.evaluate("window.owned") is None
    assert report.requests == [report.tab.url], "nothing is fetched"
    assert connected == []
    assert report.complaints == [], "and nothing was there for the policy to stop"
    assert (
        report.tab.locator(
            "main :is(img, iframe, object, embed, link, style, script, base, a, meta, audio, video)"
        ).count()
        == 0
    )
    expected = "".join(sign if sign >= " " else f"U+{ord(sign):04X}" for sign in text)
    assert report.tab.text_content("#detail pre") == expected
    assert report.tab.is_visible("h1")


def test_the_policy_stops_what_a_fault_of_ours_would_let_in(opened, listener, tmp_path):
    port, connected = listener
    report = opened(write_run(tmp_path / "run", "rw"))
    report.tab.evaluate(
        """port => {
            const into = document.getElementById('detail');
            into.innerHTML = `<img src="http://127.0.0.1:${port}/x"><img src="x" onerror="window.owned=1">
                <style>h1{display:none}</style><iframe src="data:text/html,x"></iframe>`;
            const script = document.createElement('script');
            script.textContent = 'window.owned=2';
            into.append(script);
        }""",
        port,
    )
    report.tab.wait_for_timeout(500)
    assert report.tab.evaluate("window.owned") is None
    assert connected == []
    assert report.tab.is_visible("h1")
    stopped = " ".join(report.complaints)
    for directive in ("script-src", "style-src", "default-src"):
        assert directive in stopped, report.complaints


def test_signs_that_are_not_seen_are_named(opened, tmp_path):
    report = opened(write_run(tmp_path / "run", [sample(0, False, BIDI, answer=BIDI), sample(1, True)]))
    shown = report.tab.text_content("#detail pre:last-of-type >> nth=-1")
    for code in ("U+202E", "U+202C", "U+2066", "U+200B", "U+FEFF", "U+200F", "U+D800"):
        assert code in shown
    assert not any(sign in report.tab.text_content("body main section#samples") for sign in "\u202e\u2066\u200b\u200f")


def test_a_line_of_five_million_characters_is_cut_with_a_note(opened, tmp_path):
    report = opened(write_run(tmp_path / "run", [sample(0, False, "a<b>" * 1_250_000), sample(1, True)]))
    completion = report.tab.locator("#detail pre").last
    assert len(completion.text_content()) == 20_000
    assert "20,000 of 5,000,000 characters are shown." in report.tab.inner_text(".cut")
    report.tab.click(".cut button")
    assert len(completion.text_content()) == 120_000
    assert "120,000 of 5,000,000" in report.tab.inner_text(".cut")


def test_ten_thousand_samples_are_in_the_page_and_a_screenful_of_them_in_the_list(opened, tmp_path):
    verdicts = ["".join("rw"[number * (seed + 3) % 5 < 2] for number in range(2000)) for seed in range(5)]
    runs = [write_run(tmp_path / f"run,seed={seed}", each, seed) for seed, each in enumerate(verdicts)]
    report = opened(*runs)
    assert report.found == "2,000 of 2,000 problems, 10,000 samples"
    assert report.tab.locator("#list li").count() < 40
    report.tab.evaluate("document.getElementById('list').scrollTop = 1000 * 54")
    report.tab.wait_for_timeout(200)
    assert report.tab.is_visible("#list >> text=problem-1001")
    assert report.tab.locator("#list li").count() < 40
    report.search("1999+1999")
    assert report.found == "1 of 2,000 problems, 5 samples"
    assert json.loads(report.tab.evaluate("document.getElementById('data').textContent"))["version"]
