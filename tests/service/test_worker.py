from __future__ import annotations

import asyncio
import threading

from energyad.service.worker import DECODERS, Worker


def test_an_image_that_is_slow_to_decode_holds_up_no_other() -> None:
    worker, end = Worker(8), threading.Event()

    async def run() -> None:
        hostile = [
            asyncio.create_task(worker.decode_and_run(lambda: end.wait(60), lambda done: done))
            for _ in range(DECODERS - 1)
        ]
        honest = [await worker.decode_and_run(lambda: 2, lambda value: value + 1) for _ in range(5)]
        assert honest == [3] * 5 and not any(task.done() for task in hostile)
        end.set()
        assert await asyncio.gather(*hostile) == [True] * (DECODERS - 1)

    asyncio.run(asyncio.wait_for(run(), 60))
    worker.close()


def test_few_decoded_images_wait_to_be_scored() -> None:
    """Decoded images take much memory."""
    worker, end = Worker(32), threading.Event()
    decoded: list[int] = []

    async def run() -> None:
        tasks = [
            asyncio.create_task(
                worker.decode_and_run(lambda index=index: decoded.append(index), lambda _: end.wait(60))
            )
            for index in range(3 * DECODERS)
        ]
        while len(decoded) < DECODERS:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(decoded) == DECODERS
        end.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(run(), 60))
    worker.close()
