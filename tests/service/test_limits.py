"""Laws of limits: no key, no answer; a full queue says when to come back; a slow body is not waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from energyad.detector import AnomalyDetector
from energyad.errors import SettingsError
from energyad.service import server
from energyad.service.app import create_app
from energyad.service.bodies import PendingBodies
from energyad.service.errors import RequestError
from energyad.service.scoring import ModelSession
from energyad.service.security import HEADERS
from energyad.service.settings import ServiceSettings, is_local, require_safe
from energyad.service.uploads import read_body

from .serving import client_of

KEY = "0123456789abcdef"
CLOSED = ("/v1/models", "/v1/schema", "/metrics")
OPEN = ("/", "/common.js", "/page.js", "/page.css", "/healthz", "/readyz", "/openapi.json")


@pytest.fixture
def locked(fitted_detector: AnomalyDetector) -> TestClient:
    return client_of(create_app([fitted_detector], ServiceSettings(api_key=KEY)))


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": KEY[:-1]}, {"authorization": "Bearer x"}, {"x-api-key": "ß"}]
)
def test_without_the_key_nothing_is_told(
    locked: TestClient, defective: Path, headers: dict[str, str]
) -> None:
    sent = {name: value.encode() for name, value in headers.items()}
    refused = [locked.get(address, headers=sent) for address in CLOSED]
    refused.append(locked.post("/v1/score", files={"file": defective.read_bytes()}, headers=sent))
    assert {answer.status_code for answer in refused} == {401}
    assert {answer.json()["error"] for answer in refused} == {"give the service's key as X-API-Key"}


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}])
def test_with_the_key_everything_is(locked: TestClient, headers: dict[str, str]) -> None:
    assert {locked.get(address, headers=headers).status_code for address in CLOSED} == {200}


def test_the_page_and_the_health_need_no_key_and_no_other_host(locked: TestClient) -> None:
    with locked:  # started
        for address in OPEN:
            answer = locked.get(address)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            if address in {"/", "/common.js", "/page.js", "/page.css"}:
                assert "//" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_a_service_that_has_not_started_or_is_ending_is_alive_and_not_ready(locked: TestClient) -> None:
    def statuses() -> list[int]:
        return [locked.get(address).status_code for address in ("/healthz", "/readyz")]

    assert statuses() == [200, 503]
    with locked:
        assert statuses() == [200, 200]
    assert statuses() == [200, 503]


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_other_machines_are_let_in_with_a_key_or_on_purpose(host: str, local: bool) -> None:
    assert is_local(host) == local
    require_safe(host, asks_for_key=True, open_to_all=False)
    require_safe(host, asks_for_key=False, open_to_all=True)
    if not local:
        with pytest.raises(SettingsError, match="ENERGYAD_API_KEY"):
            require_safe(host, asks_for_key=False, open_to_all=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": ""},
        {"api_key": "short"},
        {"queue": 0},
        {"max_upload": 0},
        {"max_body_bytes": 1},
        {"head_seconds": -1.0},
    ],
)
def test_settings_that_protect_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ServiceSettings(**wrong)  # type: ignore[arg-type]


def test_a_full_house_answers_429_and_when_to_come_back(client: TestClient, defective: Path) -> None:
    worker = client.app.state.service.worker  # type: ignore[attr-defined]
    for _ in range(worker.places):
        worker.enter()
    refused = client.post("/v1/score", files={"file": defective.read_bytes()})
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert "waiting" in refused.json()["error"]
    assert client.get("/readyz").status_code == 200  # it is busy, not broken
    for _ in range(worker.places):
        worker.leave()
    assert client.post("/v1/score", files={"file": defective.read_bytes()}).status_code == 200
    assert worker.taken == 0


def test_a_refused_request_gives_its_place_back(client: TestClient) -> None:
    worker = client.app.state.service.worker  # type: ignore[attr-defined]
    for _ in range(2 * worker.places):
        assert (
            client.post("/v1/score", content=b"x", headers={"content-type": "image/png"}).status_code == 422
        )
    assert worker.taken == 0


def test_a_fault_is_a_counted_500_without_its_inside_and_gives_its_place_back(
    fitted_detector: AnomalyDetector, defective: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app([fitted_detector])
    with client_of(app, raise_server_exceptions=False) as client, monkeypatch.context() as broken:
        broken.setattr(ModelSession, "score_pixels", lambda *_: 1 / 0)
        answer = client.post("/v1/score", files={"file": defective.read_bytes()})
        assert (answer.status_code, list(answer.json())) == (500, ["error"])
        assert "division" not in answer.text and app.state.service.worker.taken == 0
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        counted = 'energyad_requests_total{route="/v1/score",status="500"} 1.0'
        assert counted in client.get("/metrics").text
        broken.undo()
        assert client.post("/v1/score", files={"file": defective.read_bytes()}).status_code == 200


def body(*chunks: tuple[float, bytes], announced: int | None = None) -> Request:
    """A request whose body comes in pieces, each after some seconds."""
    coming = iter(chunks)

    async def receive() -> dict[str, object]:
        seconds, data = next(coming)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": data, "more_body": True}

    headers = [] if announced is None else [(b"content-length", str(announced).encode())]
    return Request({"type": "http", "headers": headers, "client": None}, receive)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (body((0, b"x"), (5, b"y")), 408),
        (body(*[(0, bytes(300))] * 9), 413),  # no length announced: known while it comes
        (body(*[(0, bytes(300))] * 9, announced=2_700), 413),
    ],
    ids=["slow", "large", "announced"],
)
def test_a_body_that_is_slow_or_large_is_not_waited_for(request_: Request, status: int) -> None:
    settings = ServiceSettings(max_upload=1000, read_seconds=0.1)
    with pytest.raises(RequestError) as refused:
        asyncio.run(read_body(request_, PendingBodies(settings)))
    assert refused.value.status == status


def test_a_taken_port_is_one_clear_line() -> None:
    with server.listen("127.0.0.1", 0) as first, pytest.raises(SettingsError, match="cannot listen there"):
        server.listen("127.0.0.1", first.getsockname()[1])
