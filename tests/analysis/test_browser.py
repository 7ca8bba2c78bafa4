"""The report in a real browser: everything drawn, sorted and filtered by click, no error, and names only text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking.analysis.publish import write_report
from tests.analysis.showcase import HOSTILE, compared, showcase
from tests.waiting import wait_until

pytestmark = pytest.mark.browser
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = showcase()
    return write_report(compared(runs), runs, tmp_path_factory.mktemp("report"), f"search {HOSTILE}")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    remote = shutil.which("chromedriver")
    if browser is None or remote is None:
        pytest.fail("this suite needs Chromium and its driver: `apt-get install -y chromium chromium-driver`")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(remote))
    yield made
    made.quit()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, driver: Any, report: Path) -> Any:
    """The report, open and drawn, at a width."""
    size = {"width": request.param, "height": 1000, "deviceScaleFactor": 1, "mobile": request.param < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(report.as_uri())
    wait_until(
        lambda: driver.execute_script(
            "return [...document.querySelectorAll('.chart')].every((one) => one.dataset.drawn === 'yes')"
        ),
        timeout_s=60,
        what="every chart is drawn",
    )
    return driver


def column(page: Any, table: str, title: str) -> list[str]:
    """Returns the texts of a column, of the rows that are shown, in order."""
    found: list[str] = page.execute_script(
        """
        const table = document.querySelector(`#${arguments[0]} table`);
        const index = [...table.rows[0].cells].findIndex((cell) => cell.innerText.trim().startsWith(arguments[1]));
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[index].innerText.trim());
        """,
        table,
        title,
    )
    return found


def click(page: Any, selector: str, text: str) -> None:
    """Clicks what a person would, by its text."""
    from selenium.webdriver.common.by import By

    found = [one for one in page.find_elements(By.CSS_SELECTOR, selector) if one.text.strip().startswith(text)]
    assert found, f"no {selector} says {text}"
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found[0])
    found[0].click()


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-").replace(",", "")) for text in texts if text != "–"]


def test_every_chart_is_drawn_without_an_error(page: Any) -> None:
    drawn = page.execute_script(
        """
        return [...document.querySelectorAll(".chart")].map((one) => {
          const box = one.querySelector("svg.main-svg").getBoundingClientRect();
          return [one.id, one.querySelectorAll("path, image, rect.bg").length, box.width, box.height];
        });
        """
    )
    assert len(drawn) == 10
    assert all(marks > 3 and width > 250 and height > 100 for _, marks, width, height in drawn), drawn
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0, "nothing was fetched"


def test_a_hostile_name_is_only_text(page: Any) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = page.switch_to.alert.text
    assert page.execute_script("return document.images.length") == 0
    assert HOSTILE in page.title and page.execute_script("return document.querySelector('h1').innerText").endswith(
        HOSTILE
    )
    texts = page.execute_script("return [...document.querySelectorAll('.chart text')].map((one) => one.textContent)")
    assert any(text.startswith("<img src=x") for text in texts), "plotly shows it as text, too"


def test_it_is_readable_at_this_width(page: Any) -> None:
    wide, window, sizes = page.execute_script(
        """
        const size = (one) => parseFloat(getComputedStyle(one).fontSize);
        return [document.documentElement.scrollWidth, innerWidth,
                [...document.querySelectorAll("p, li, td, dd, figcaption")].map(size)];
        """
    )
    assert wide <= window, "the page itself never scrolls sideways"
    assert min(sizes) >= 13
    outside = page.execute_script(
        """
        const frames = [...document.querySelectorAll("h1, h2, h3, p, li, figcaption, .facts div, .tools, input")];
        return frames.filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML);
        """
    )
    assert outside == []


def test_a_click_on_a_heading_sorts(page: Any) -> None:
    before = column(page, "groups", "IQM")
    click(page, "#groups th button", "IQM")
    down = numbers(column(page, "groups", "IQM"))
    assert down == sorted(down, reverse=True) and len(down) == len(before) == 12
    click(page, "#groups th button", "IQM")
    up = numbers(column(page, "groups", "IQM"))
    assert up == down[::-1]
    for _ in range(2):
        click(page, "#groups th button", "rank")
        ranks = column(page, "groups", "rank")
        assert ranks[-2:] == ["–", "–"], "what is missing is last either way"
    click(page, "#trials th button", "trial")
    names = [name.lower() for name in column(page, "trials", "trial")]
    assert names[0].startswith("<img") and names == sorted(names)


def test_words_and_chips_filter(page: Any) -> None:
    from selenium.webdriver.common.by import By

    assert len(column(page, "trials", "trial")) == 36
    click(page, "#trials .chip", "FAILED")
    assert column(page, "trials", "status") == ["FAILED"]
    click(page, "#trials .chip", "RUNNING")
    assert sorted(column(page, "trials", "status")) == ["FAILED", "RUNNING"]
    for status in ("FAILED", "RUNNING"):
        click(page, "#trials .chip", status)
    search = page.find_element(By.CSS_SELECTOR, "#trials input")
    search.send_keys("onerror finished")
    assert set(column(page, "trials", "status")) == {"FINISHED"}
    shown = column(page, "trials", "trial")
    assert 0 < len(shown) < 36 and HOSTILE in shown
    assert page.find_element(By.CSS_SELECTOR, "#trials .count").text == f"{len(shown)} of 36 rows"


def test_a_group_of_the_leaderboard_shows_its_trials(page: Any) -> None:
    group = column(page, "groups", "group")[0]
    click(page, "#groups button.link", group[:12])
    assert set(column(page, "trials", "group")) == {group} and len(column(page, "trials", "group")) == 3


def test_a_number_of_the_verdict_opens_what_it_is(page: Any) -> None:
    assert not page.execute_script("return document.getElementById('numbers').open")
    click(page, "a.number", "0.1")
    opened, target = page.execute_script(
        "return [document.getElementById('numbers').open, document.querySelector('dl > div:target').id]"
    )
    assert opened and target == "number-sharpe"
