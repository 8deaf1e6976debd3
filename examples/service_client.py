"""Send images to a running service and print its verdicts: `service_client.py http://127.0.0.1:8000 *.png`.

Needs Python alone. The key, where the service asks for one, is in ENERGYAD_API_KEY.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def score(url: str, path: str) -> dict:
    """Return the result of one image; a service that is busy (429) is asked again."""
    headers = {
        "Content-Type": "application/octet-stream",
        "X-API-Key": os.environ.get("ENERGYAD_API_KEY", ""),
    }
    request = urllib.request.Request(f"{url}/v1/score", Path(path).read_bytes(), headers, method="POST")
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise SystemExit(f"{path}: {error.code} {json.load(error).get('detail')}") from None
            time.sleep(float(error.headers.get("Retry-After", 1)))


service, *images = sys.argv[1:]
for image in images:
    result = score(service.rstrip("/"), image)
    print(f"{result['score']:.6g} {result['verdict']} {image}")
