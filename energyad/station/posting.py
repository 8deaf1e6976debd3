"""Parts to a web address: the webhook of `energyad watch`."""

from __future__ import annotations

import os

from energyad.line.outbox import Send
from energyad.line.webhook import KIND, SECRET_VARIABLE, WebhookSender
from energyad.station.config import WebhookConfig
from energyad.station.outputs import Status


class WebhookOutput:
    """Posts each part, signed where the secret's variable is set.

    Args:
        config: The address.
    """

    kind = KIND
    linger = 5.0

    def __init__(self, config: WebhookConfig) -> None:
        self.address = config.url
        self._sender = WebhookSender(config.url, secret=os.environ.get(SECRET_VARIABLE))

    @property
    def send(self) -> Send:
        """Post a part."""
        return self._sender.send

    def start(self) -> None:
        """Nothing is to be started."""

    def beat(self, status: Status) -> None:
        """A receiver of posts is told of parts alone."""

    def stop(self) -> None:
        """Nothing is to be ended."""
