"""Laws: what the OpenAPI allows and forbids is answered as it says; the long form is a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from benchmarks.robustness.service import try_flood, try_protocol


@pytest.mark.slow
def test_requests_drawn_from_the_openapi_are_answered_as_it_says(model_folder: Path, defective: Path) -> None:
    counts = try_protocol(model_folder, defective, examples=4, seed=1)
    assert counts.is_clean, counts
    assert counts.answers["200"] > 20


@pytest.mark.slow
def test_honest_clients_are_answered_beside_hostile_ones(model_folder: Path, defective: Path) -> None:
    counts = try_flood(model_folder, defective, hostile=40, seconds=3.0, seed=1)
    assert counts.is_alive and counts.unanswered == 0, counts  # how fast is a matter of a quiet machine
    assert counts.scored > 0


def test_the_openapi_says_what_clients_of_kserve_and_of_pictures_get(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    infer = document["paths"]["/v2/models/{name}/infer"]["post"]
    assert {"400", "401", "404", "408", "413", "429"} <= set(infer["responses"])
    assert "inputs" in infer["requestBody"]["content"]["application/json"]["schema"]["required"]
    assert "503" in document["paths"]["/v2/health/ready"]["get"]["responses"]
    assert "404" in document["paths"]["/v2/models/{name}"]["get"]["responses"]
    scored = document["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"]
    names = [entry["$ref"].rsplit("/", 1)[1] for entry in scored["schema"]["anyOf"]]
    assert "pictures" in document["components"]["schemas"][names[1]]["properties"]
