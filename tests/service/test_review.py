"""Laws of the review: what is not ok waits until it has a label; a label is stored once, taken back, and never lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.testclient import TestClient

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.feedback.labels import Label
from energyad.feedback.queue import RANDOM_BELOW, ReviewQueue
from energyad.line.database import Database
from energyad.line.tables import Arrival, Result
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

from ..feedback.lines import fill_line
from .serving import client_of, on_a_port
from .test_page import CHROMIUM, KEY, browser

__all__ = ["browser"]


@pytest.fixture
def line(tmp_path: Path, fitted_detector: AnomalyDetector, demo_category: Category) -> Iterator[ReviewQueue]:
    with Database(tmp_path / "energyad.db") as database:
        fill_line(database, fitted_detector, [item.path for item in demo_category.test])
        yield ReviewQueue(database)


@pytest.fixture
def client(line: ReviewQueue, fitted_detector: AnomalyDetector) -> TestClient:
    return client_of(create_app([fitted_detector], ServiceSettings(), review=line))


def test_what_is_not_ok_waits_until_its_reviewer_has_labelled_it(
    client: TestClient, line: ReviewQueue
) -> None:
    first = client.get("/v1/review?reviewer=anna").json()["waiting"]
    assert first and all(item["result"]["verdict"] != "ok" or item["sampling"] == "random" for item in first)
    assert [item["id"] for item in first] == sorted((item["id"] for item in first), reverse=True)
    address = f"/v1/review/{first[0]['id']}/label?reviewer=anna"
    body = {"label": "defect", "kind": " dent ", "marks": [[[1, 2], [5, 2], [5, 8]]]}
    assert [client.post(address, json=body).json()["stored"] for _ in range(2)] == ["new", "unchanged"]
    (label,) = line.labels.current()
    assert (label.kind, label.marks, label.reviewer) == ("dent", (((1, 2), (5, 2), (5, 8)),), "anna")
    assert label.opinion is not None and label.opinion.score == first[0]["result"]["score"]
    waiting = client.get("/v1/review?reviewer=anna").json()
    assert [item["id"] for item in waiting["waiting"]] == [item["id"] for item in first[1:]]
    assert waiting["kinds"] == ["dent"]
    assert client.get("/v1/review?reviewer=bert").json()["waiting"] == first
    assert client.delete(address).json()["stored"] == "withdrawn"
    assert client.delete(address).json()["stored"] == "absent"
    assert client.get("/v1/review?reviewer=anna").json()["waiting"] == first


def test_a_random_share_waits_whatever_its_verdict(
    tmp_path: Path, fitted_detector: AnomalyDetector, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energyad.feedback.queue.RANDOM_BELOW", "8")
    monkeypatch.setattr("energyad.feedback.queue._REASONS", (Result.verdict == "ng", Arrival.sha256 < "8"))
    assert RANDOM_BELOW < "8"
    with Database(tmp_path / "line.db") as database:
        fill_line(database, fitted_detector, [item.path for item in demo_category.test])
        for item in ReviewQueue(database).waiting("anna", limit=100):
            assert item.sampling == ("random" if item.sha256 < "8" else "alarm")
            assert item.sha256 < "8" or item.opinion.verdict != "ok"


def test_what_cannot_be_labelled_is_refused_in_one_line(client: TestClient, line: ReviewQueue) -> None:
    assert client.post("/v1/review/999/label?reviewer=a", json={"label": "fine"}).status_code == 404
    assert client.get("/v1/review/999/pictures").status_code == 404
    for body in (
        {"label": "perhaps"},
        {"label": "fine", "marks": [[]]},
        {"label": "fine", "marks": [[[-1, 0]]]},
    ):
        assert client.post("/v1/review/1/label?reviewer=a", json=body).status_code == 400
    assert client.post("/v1/review/1/label?reviewer=", json={"label": "fine"}).status_code == 400
    other = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert (
        client.post("/v1/review/1/label?reviewer=a", json={"label": "fine"}, headers=other).status_code == 403
    )
    many = {"label": "defect", "marks": [[[0, 0]] * 11_000]}
    assert client.post("/v1/review/1/label?reviewer=a", json=many).status_code == 400
    assert line.labels.current() == []


def test_a_service_with_a_key_wants_it_for_labels(
    line: ReviewQueue, fitted_detector: AnomalyDetector
) -> None:
    client = client_of(create_app([fitted_detector], ServiceSettings(api_key=KEY), review=line))
    assert client.get("/v1/review?reviewer=a").status_code == 401
    assert client.get("/v1/review?reviewer=a", headers={"X-API-Key": KEY}).status_code == 200
    assert client.get("/review").status_code == 200


def test_pictures_show_image_and_heatmap_and_an_image_that_is_gone_says_so(
    client: TestClient, line: ReviewQueue, demo_category: Category
) -> None:
    shown = client.get("/v1/review/1/pictures").json()
    assert shown["image"].startswith("data:image/jpeg") and shown["heatmap"].startswith("data:image/png")
    item = line.item(1)
    hidden = item.image.with_suffix(".away")
    item.image.rename(hidden)
    try:
        answer = client.get("/v1/review/1/pictures")
    finally:
        hidden.rename(item.image)
    assert answer.status_code == 404 and "not where it was" in answer.json()["error"]


def test_another_image_under_the_same_name_is_not_shown_for_the_one_that_was_scored(
    client: TestClient, line: ReviewQueue
) -> None:
    first, second = line.item(1), line.item(2)
    kept = first.image.read_bytes()
    try:
        first.image.write_bytes(second.image.read_bytes())
        replaced = client.get("/v1/review/1/pictures")
        first.image.unlink()
        os.mkfifo(first.image)
        pipe = client.get("/v1/review/1/pictures")
    finally:
        first.image.unlink(missing_ok=True)
        first.image.write_bytes(kept)
    assert [answer.status_code for answer in (replaced, pipe)] == [404, 404]
    assert client.get("/v1/review/1/pictures").status_code == 200


def test_without_a_database_there_is_no_review(fitted_detector: AnomalyDetector) -> None:
    client = client_of(create_app([fitted_detector], ServiceSettings()))
    assert client.get("/review").status_code == client.get("/v1/review?reviewer=a").status_code == 404


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture
def address(line: ReviewQueue, fitted_detector: AnomalyDetector) -> Iterator[str]:
    app = create_app([fitted_detector], ServiceSettings(), review=line)
    with on_a_port(app) as address:
        yield address


def begin(browser: Browser, address: str, reviewer: str) -> Page:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(f"{address}/review")
    page.locator("#reviewer").fill(reviewer)
    page.keyboard.press("Enter")
    page.locator("#stage[data-result]").wait_for()
    return page


def shown(page: Page) -> int:
    return int(page.locator("#stage").get_attribute("data-result") or 0)


def stored(line: ReviewQueue, count: int) -> list[Label]:
    """The labels, when there are so many of them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        labels = line.labels.current()
        if len(labels) == count:
            return labels
        time.sleep(0.05)
    raise AssertionError([label.value for label in line.labels.current()])


@pytest.mark.slow
@needs_chromium
def test_keys_label_undo_and_name_kinds(browser: Browser, address: str, line: ReviewQueue) -> None:
    page = begin(browser, address, "anna")
    waiting = [item.id for item in line.waiting("anna")]
    page.keyboard.press("f")
    page.keyboard.press("k")
    page.keyboard.type("fudge dent")  # letters are no commands there
    page.keyboard.press("Enter")
    page.keyboard.press("d")
    page.keyboard.press("u")
    labels = stored(line, 3)
    assert [(label.value, label.kind) for label in labels] == [
        ("fine", None),
        ("defect", "fudge dent"),
        ("unsure", None),
    ]
    assert [label.sha256 for label in labels] == [line.item(place).sha256 for place in waiting[:3]]
    page.keyboard.press("z")
    assert [label.value for label in stored(line, 2)] == ["fine", "defect"]
    expect(page.locator("#stage")).to_have_attribute("data-result", str(waiting[2]))
    page.close()


@pytest.mark.slow
@needs_chromium
def test_regions_boxes_and_the_brush_mark_defects(browser: Browser, address: str, line: ReviewQueue) -> None:
    page = begin(browser, address, "anna")
    region = page.locator("#marks .region").first
    region.click()
    expect(page.locator("#marks .mark")).to_have_count(1)
    page.locator("#stage").hover()
    page.keyboard.press("x")
    expect(page.locator("#marks .mark")).to_have_count(0)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    side = box["width"]
    page.keyboard.press("2")
    page.mouse.move(box["x"] + side / 4, box["y"] + side / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + side / 2, box["y"] + side / 2, steps=4)
    page.mouse.up()
    expect(page.locator("#marks .mark")).to_have_count(1)
    page.keyboard.press("3")
    page.mouse.move(box["x"] + 0.6 * side, box["y"] + 0.6 * side)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * side, box["y"] + 0.6 * side, steps=4)
    page.mouse.up()
    page.keyboard.press("d")
    (label,) = stored(line, 1)
    width = 128
    (left, top), _, (right, bottom), _ = label.marks[0]
    assert [
        abs(value - share * width) <= 2 for value, share in ((left, 0.25), (top, 0.25), (right, 0.5))
    ] == [True] * 3
    assert abs(bottom - width / 2) <= 2 and len(label.marks) > 2
    page.close()


@pytest.mark.slow
@needs_chromium
def test_what_is_said_without_a_connection_is_stored_once_when_it_is_back(
    browser: Browser, address: str, line: ReviewQueue
) -> None:
    page, other = begin(browser, address, "anna"), begin(browser, address, "bert")
    page.context.set_offline(True)
    page.keyboard.press("f")
    page.keyboard.press("d")
    expect(page.locator("#problem")).to_contain_text("is kept here")
    other.keyboard.press("f")
    assert [label.reviewer for label in stored(line, 1)] == ["bert"]
    page.context.set_offline(False)
    labels = stored(line, 3)
    assert sorted((label.reviewer, label.value) for label in labels) == [
        ("anna", "defect"),
        ("anna", "fine"),
        ("bert", "fine"),
    ]
    assert all(len(line.labels.history(label.sha256)) <= 2 for label in labels)
    page.close()
    other.close()
