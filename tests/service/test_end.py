"""Laws of the end: what was accepted is answered, within the time that is stated, and then the service ends."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoringOutcome
from energyad.service.scoring import ModelSession

from .serving import HALF_BODY, HEALTH, answer_of, serving, wait_until


def test_what_was_accepted_is_answered_before_the_end(
    fitted_detector: AnomalyDetector, defective: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, score = threading.Event(), ModelSession.score_pixels

    def slow(session: ModelSession, pixels: Any) -> ScoringOutcome:
        release.wait(20)
        return score(session, pixels)

    monkeypatch.setattr(ModelSession, "score_pixels", slow)
    image = defective.read_bytes()
    whole = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image) + image
    with serving(fitted_detector, drain_seconds=20.0) as service, contextlib.ExitStack() as stack:
        asked = [stack.enter_context(service.connect(whole)) for _ in range(4)]
        half = stack.enter_context(service.connect(whole[:-1]))
        wait_until(lambda: service.app.state.service.worker.taken == 4 and service.num_bodies == 1)
        service.server.should_exit = True
        time.sleep(0.3)  # it is ending now
        release.set()
        half.sendall(whole[-1:])
        assert [answer_of(connection)[9:12] for connection in (*asked, half)] == [b"200"] * 5
        service.thread.join(20)
        assert not service.thread.is_alive()


def test_connections_that_wait_to_be_accepted_are_answered_too(fitted_detector: AnomalyDetector) -> None:
    with serving(fitted_detector, drain_seconds=20.0) as service, contextlib.ExitStack() as stack:
        loop = service.server.servers[0]._tasks[0].get_loop()  # type: ignore[attr-defined]
        loop.call_soon_threadsafe(time.sleep, 0.4)
        time.sleep(0.1)  # the loop is busy now
        asked = [stack.enter_context(service.connect(HEALTH)) for _ in range(20)]
        service.server.should_exit = True
        assert [answer_of(connection)[9:12] for connection in asked] == [b"200"] * 20
        service.thread.join(20)
        assert not service.thread.is_alive()


def test_the_end_does_not_wait_longer_than_stated(fitted_detector: AnomalyDetector) -> None:
    limits = {"drain_seconds": 0.3, "idle_seconds": 60.0, "read_seconds": 60.0}
    with serving(fitted_detector, **limits) as service, service.connect(HALF_BODY) as half:
        wait_until(lambda: service.num_bodies == 1)
        service.server.should_exit = True
        answer = answer_of(half)
        assert b" 503 " in answer[:20] and b"ending" in answer
        service.thread.join(20)
        assert not service.thread.is_alive()
