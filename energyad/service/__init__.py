"""Models behind HTTP: images in, results out, and a page for people. Needs the extra `serve`.

settings     limits, keys, and which addresses are safe
security     keys, hosts, and what browsers may do
errors       every way a request is turned down
connections  how many are open, and how long each may wait for its client
bodies       how many are arriving, and how long they may take
uploads      bodies → bytes of images, within the limits
worker       one thread that scores, and a bounded number of requests in the queue
scoring      bytes → the result, the same one that the command line gives
metrics      what Prometheus reads
routes, app, server
"""

from __future__ import annotations
