"""Laws: pages of other sites can do nothing; the service's own page and programs can do what they could."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from energyad.detector import AnomalyDetector
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

from .serving import client_of

KEY = "0123456789abcdef"
READ = ("/", "/v1/models", "/metrics", "/healthz", "/openapi.json")


def service_at(detector: AnomalyDetector, host: str, *names: str) -> TestClient:
    return client_of(create_app([detector], ServiceSettings(host=host, allowed_hosts=names)))


@pytest.mark.parametrize(
    ("bound", "host", "is_allowed"),
    [
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "station7:8000", True),  # by --allow-host
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "localhost.evil.example:8000", False),
        ("127.0.0.1", "station7.evil.example", False),
        ("127.0.0.1", "192.168.1.5:8000", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("192.168.1.5", "192.168.1.5:8000", True),
        ("192.168.1.5", "192.168.1.6:8000", False),
        ("0.0.0.0", "192.168.1.5:8000", True),
        ("::", "[fd00::5]:8000", True),
        ("0.0.0.0", "evil.example:8000", False),
    ],
)
def test_a_host_that_the_service_does_not_have_is_refused(
    fitted_detector: AnomalyDetector, bound: str, host: str, is_allowed: bool
) -> None:
    client = service_at(fitted_detector, bound, "station7")
    for address in READ:
        answer = client.get(address, headers={"host": host})
        assert (answer.status_code != 421) == is_allowed
        if not is_allowed:
            assert "--allow-host" in answer.json()["error"]
            assert "default-src 'none'" in answer.headers["content-security-policy"]


CROSS_SITE = {
    "another site": {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    "an image of another site": {"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"},
    "another port": {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    "an older browser": {"origin": "https://evil.example"},
    "another port in an older browser": {"origin": "http://localhost:3000"},
    "a file or a frame": {"origin": "null"},
    "a name that begins alike": {"origin": "http://localhost.evil.example"},
    "no address": {"origin": "http://[evil"},
}
OWN = {
    "the page": {"sec-fetch-site": "same-origin", "origin": "http://localhost"},
    "the page in an older browser": {"origin": "http://localhost"},
    "the page behind a proxy with TLS": {"origin": "https://localhost"},
    "somebody who typed the address": {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    "a program": {},
}


@pytest.mark.parametrize("name", CROSS_SITE)
def test_requests_of_other_sites_are_refused_and_change_nothing(
    client: TestClient, fitted_detector: AnomalyDetector, defective: Path, name: str
) -> None:
    headers, form = CROSS_SITE[name], {"file": defective.read_bytes()}
    before = client.get("/metrics").text
    answers = [client.get(address, headers=headers) for address in READ]
    answers.append(client.post("/v1/score", files=form, headers=headers))
    answers.append(client.post(f"/v1/models/{fitted_detector.name}/reload", headers=headers))
    answers.append(client.options("/v1/score", headers=headers))
    assert {answer.status_code for answer in answers} == {403}
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    images = [line for line in client.get("/metrics").text.splitlines() if "energyad_images_total" in line]
    assert all(line in before for line in images)


@pytest.mark.parametrize("name", OWN)
def test_the_page_of_the_service_and_programs_are_answered(
    client: TestClient, defective: Path, name: str
) -> None:
    headers = OWN[name]
    assert {client.get(address, headers=headers).status_code for address in READ[:3]} == {200}
    assert (
        client.post("/v1/score", files={"file": defective.read_bytes()}, headers=headers).status_code == 200
    )


def test_a_link_of_another_site_leads_to_the_page_and_no_further(client: TestClient) -> None:
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=visit).status_code == 200
    assert client.get("/", headers={**visit, "sec-fetch-dest": "iframe"}).status_code == 403
    assert client.get("/v1/models", headers=visit).status_code == 403
    assert client.post("/v1/score", content=b"x", headers=visit).status_code == 403


@pytest.mark.parametrize("api_key", [None, KEY])
def test_a_reload_needs_the_key_or_the_one_that_was_made_at_the_start(
    fitted_detector: AnomalyDetector, api_key: str | None
) -> None:
    settings = ServiceSettings(api_key=api_key)
    client = client_of(create_app([fitted_detector], settings, load=lambda _: fitted_detector))
    right = settings.start_key if api_key is None else api_key
    wrong = KEY if api_key is None else settings.start_key
    address = f"/v1/models/{fitted_detector.name}/reload"
    for headers in ({}, {"x-api-key": wrong}, {"x-api-key": ""}, {"authorization": f"Bearer {wrong}"}):
        assert client.post(address, headers=headers).status_code == 401
    for headers in ({"x-api-key": right}, {"authorization": f"Bearer {right}"}):
        assert client.post(address, headers=headers).status_code == 200
    assert client.get("/v1/models").status_code == (200 if api_key is None else 401)
    entry = client.get("/openapi.json").json()["paths"]["/v1/models/{name}/reload"]["post"]
    assert "printed at its start" in entry["description"] and "401" in entry["responses"]


def test_each_start_makes_another_key_and_none_is_shown_by_accident() -> None:
    first, second = ServiceSettings(), ServiceSettings()
    assert first.start_key != second.start_key and len(first.start_key) >= 32
    assert first.start_key not in repr(first) and KEY not in repr(ServiceSettings(api_key=KEY))
