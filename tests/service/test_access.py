"""Laws of access: a name is believed from a key or from the proxy that was named, and owners alone promote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import SettingsError
from energyad.feedback import versions
from energyad.feedback.queue import ReviewQueue
from energyad.line.database import Database
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings, read_keys

from ..feedback.lines import fill_line
from .serving import client_of

ANNA, BERT = "key-of-anna-0123", "key-of-bert-0123"
KEYS = {hashlib.sha256(key.encode()).hexdigest(): name for key, name in ((ANNA, "anna"), (BERT, "bert"))}
OTHER_SITE = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}


@pytest.fixture
def line(tmp_path: Path, fitted_detector: AnomalyDetector, demo_category: Category) -> Iterator[ReviewQueue]:
    with Database(tmp_path / "energyad.db") as database:
        fill_line(database, fitted_detector, [item.path for item in demo_category.test[-2:]])
        yield ReviewQueue(database)


@pytest.fixture
def folder(tmp_path: Path, fitted_detector: AnomalyDetector) -> Path:
    """A model with a candidate of a slightly lower threshold."""
    place = tmp_path / "models" / fitted_detector.name
    fitted_detector.save(place)
    calibration = replace(fitted_detector.calibration, threshold=0.99 * fitted_detector.threshold)
    candidate = fitted_detector.manifest.replace(calibration=calibration)
    versions.put_candidate(place, candidate, fitted_detector.contents, action="taught")
    return place


def client(
    line: ReviewQueue, detector: AnomalyDetector, folder: Path | None = None, **settings: object
) -> TestClient:
    folders = {} if folder is None else {detector.name: folder}
    app = create_app(
        [detector],
        ServiceSettings(**settings),  # type: ignore[arg-type]
        review=line,
        folders=folders,
        load=lambda name: AnomalyDetector.load(folders[name], threads=1),
    )
    return client_of(app)


def test_a_label_has_the_name_of_the_key_whatever_the_request_says(
    line: ReviewQueue, fitted_detector: AnomalyDetector
) -> None:
    asks = client(line, fitted_detector, keys=KEYS)
    address = "/v1/review/1/label?reviewer=bert"
    assert asks.post(address, json={"label": "fine"}).status_code == 401
    assert asks.post(address, json={"label": "fine"}, headers={"X-API-Key": "another"}).status_code == 401
    assert asks.post(address, json={"label": "fine"}, headers={"X-API-Key": ANNA}).status_code == 200
    assert [label.reviewer for label in line.labels.current()] == ["anna"]
    me = asks.get("/v1/review/me", headers={"Authorization": f"Bearer {BERT}"}).json()
    assert me == {"name": "bert", "role": "reviewer"}


def test_a_proxy_is_believed_where_its_header_was_named_and_nowhere_else(
    line: ReviewQueue, fitted_detector: AnomalyDetector
) -> None:
    said = {"X-Forwarded-User": "anna"}
    trusting = client(line, fitted_detector, identity_header="x-forwarded-user", owners=frozenset({"anna"}))
    assert trusting.get("/v1/review/me", headers=said).json() == {"name": "anna", "role": "owner"}
    assert trusting.get("/v1/review").status_code == 401
    assert trusting.get("/v1/review", headers={"X-Forwarded-User": " "}).status_code == 401
    twice = [("X-Forwarded-User", "anna"), ("X-Forwarded-User", "bert")]
    assert trusting.get("/v1/review", headers=twice).status_code == 401  # type: ignore[arg-type]
    plain = client(line, fitted_detector)
    assert plain.get("/v1/review/me", headers=said).json() == {"name": None, "role": "owner"}
    assert plain.get("/v1/review", headers=said).status_code == 400
    assert (
        plain.post("/v1/review/1/label?reviewer=cleo", json={"label": "fine"}, headers=said).status_code
        == 200
    )
    assert [label.reviewer for label in line.labels.current()] == ["cleo"]


def test_owners_alone_promote_and_go_back(
    line: ReviewQueue, fitted_detector: AnomalyDetector, folder: Path
) -> None:
    asks = client(line, fitted_detector, folder, keys=KEYS, owners=frozenset({"anna"}))
    address = f"/v1/models/{fitted_detector.name}"
    first = versions.version(folder)
    assert asks.post(f"{address}/promote").status_code == 401
    assert asks.post(f"{address}/promote", headers={"X-API-Key": BERT}).status_code == 403
    assert asks.post(f"{address}/promote", headers={"X-API-Key": ANNA, **OTHER_SITE}).status_code == 403
    assert versions.version(folder) == first
    done = asks.post(f"{address}/promote", headers={"X-API-Key": ANNA})
    assert done.status_code == 200 and done.json()["threshold"] < fitted_detector.threshold
    assert versions.read_history(folder)[-1].by == "anna"
    assert asks.post(f"{address}/promote", headers={"X-API-Key": ANNA}).status_code == 409
    assert asks.post(f"{address}/rollback", headers={"X-API-Key": BERT}).status_code == 403
    assert (
        asks.post(f"{address}/rollback", headers={"X-API-Key": ANNA}).json()["threshold"]
        == fitted_detector.threshold
    )
    assert versions.version(folder) == first


def test_where_nobody_is_known_the_key_to_change_promotes(
    line: ReviewQueue, fitted_detector: AnomalyDetector, folder: Path
) -> None:
    asks = client(line, fitted_detector, folder, start_key="the-key-of-the-start")
    address = f"/v1/models/{fitted_detector.name}/promote"
    assert asks.post(address).status_code == 401
    assert asks.post(address, headers={"X-API-Key": "the-key-of-the-start"}).status_code == 200
    given = client(line, fitted_detector, start_key="the-key-of-the-start")
    assert given.post(address, headers={"X-API-Key": "the-key-of-the-start"}).status_code == 409


@pytest.mark.parametrize("address", ["/v1/review/me", "/v1/review", "/v1/review/1/pictures"])
def test_pages_of_other_sites_read_nothing_of_a_review(
    line: ReviewQueue, fitted_detector: AnomalyDetector, address: str
) -> None:
    trusting = client(line, fitted_detector, identity_header="x-user")
    assert trusting.get(address, headers={"X-User": "anna", **OTHER_SITE}).status_code == 403


def test_keys_are_read_from_a_file_of_names_and_hashes(tmp_path: Path) -> None:
    place = tmp_path / "keys.txt"
    place.write_text("# of the line\n\n" + "".join(f"{name} {digest}\n" for digest, name in KEYS.items()))
    assert read_keys(place) == KEYS
    for text, message in (
        ("", "no keys in it"),
        ("anna secret\n", "line 1: give a name"),
        ("a " + "0" * 64 + "\nb " + "0" * 64, "line 2: give a name"),
    ):
        place.write_text(text)
        with pytest.raises(SettingsError, match=message):
            read_keys(place)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(tmp_path / "missing")
