"""Models behind HTTP: images in, results out, and a page for people. Needs the extra `serve`.

settings   limits, key, and which addresses are safe
refusals   every way a request is turned down
uploads    bodies → bytes of images, within the limits
worker     one thread that scores, and a bounded number of requests in the queue
scoring    bytes → the result, the same one that the command line gives
metrics    what Prometheus reads
routes, app, server
"""

from __future__ import annotations
