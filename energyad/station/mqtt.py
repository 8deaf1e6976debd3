"""Parts to an MQTT 5 broker.

Topics below the one of the file: `parts`, each part as JSON, quality of service 1, with the delivery's key as the user
property `idempotency-key`; and `status`, retained: the station's state as JSON, which the broker replaces by
`{"state": "offline"}` (the last will) when the station is gone.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from energyad.errors import first_line
from energyad.extras import require
from energyad.line.outbox import Failure, Message, Unanswered
from energyad.station.config import MqttConfig
from energyad.station.outputs import Status

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

PASSWORD_VARIABLE: Final = "ENERGYAD_MQTT_PASSWORD"
ANSWER_SECONDS: Final = 10.0
"""How long a broker's acknowledgement of one part is waited for."""
KEEPALIVE_SECONDS: Final = 10
OFFLINE: Final = json.dumps({"state": "offline"})


class MqttOutput:
    """Publishes parts and the station's state.

    Args:
        config: The broker.
        station: The station's name.
        password: For the user name of the file.

    Raises:
        MissingExtraError: The extra `station` is not installed.
    """

    kind = "mqtt"
    linger = 5.0

    def __init__(self, config: MqttConfig, station: str, *, password: str | None = None) -> None:
        require("station", "an MQTT output")
        topic = config.topic or f"energyad/{station}"
        self._config, self._parts, self._status = config, f"{topic}/parts", f"{topic}/status"
        self.address = f"mqtt://{config.host}:{config.port}/{topic}"
        self._client = _client(config, station, password, self._status)
        self._client.on_publish = self._on_publish
        self._client.on_connect = self._on_connect
        self._refusals: OrderedDict[int, str] = OrderedDict()
        self._pending: tuple[str, MQTTMessageInfo] | None = None
        self._refused = ""
        self._told: tuple[float, Status] | None = None
        self._topic: str | None = None

    def on_topic(self, topic: str, call: Callable[[bytes], object]) -> None:
        """Have something called with each message of a topic; before `start`."""
        self._topic = topic
        self._client.on_message = lambda client, data, message: call(message.payload)

    def start(self) -> None:
        """Connect, now and whenever the connection is lost."""
        self._client.connect_async(
            self._config.host, self._config.port, keepalive=KEEPALIVE_SECONDS, clean_start=True
        )
        self._client.loop_start()

    def send(self, message: Message, stop: threading.Event) -> Failure | None:
        """Publish a part; None where the broker acknowledged it."""
        if not self._client.is_connected():
            return Failure(self._refused or f"no connection to {self._config.host}:{self._config.port}")
        info = self._published(message)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not info.is_published():
            if stop.is_set():
                raise Unanswered
            if time.monotonic() > deadline or not self._client.is_connected():
                return Failure(
                    "the broker does not answer"
                )  # it is sent again when it does, and not twice by us
            stop.wait(0.002)
        self._pending = None
        refusal = self._refusals.pop(info.mid, None)
        return None if refusal is None else Failure(f"the broker refused it: {refusal}", is_refusal=True)

    def beat(self, status: Status) -> None:
        """Publish the state when it changes, and every few seconds."""
        now = time.monotonic()
        if self._told is not None:
            then, told = self._told
            if now - then < self._config.heartbeat and told.state == status.state:
                return
        if self._client.is_connected():
            self._told = (now, status)
            self._client.publish(self._status, json.dumps(asdict(status)), qos=0, retain=True)

    def stop(self) -> None:
        """Say that the station is offline, and disconnect."""
        if self._client.is_connected():
            info = self._client.publish(self._status, OFFLINE, qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the last will says it
                info.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _published(self, message: Message) -> MQTTMessageInfo:
        """What was published for a message: the client sends it again by itself after a lost connection."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if self._pending is None or self._pending[0] != message.key:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ContentType = "application/json"
            properties.UserProperty = [("idempotency-key", message.key)]
            info = self._client.publish(self._parts, message.line.encode(), qos=1, properties=properties)
            self._pending = (message.key, info)
        return self._pending[1]

    def _on_publish(self, client: Client, data: Any, number: int, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusals[number] = str(reason)
            while len(self._refusals) > 100:
                self._refusals.popitem(last=False)

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = f"the broker refuses the connection: {reason}" if reason.is_failure else ""
        self._told = None
        if self._topic is not None and not reason.is_failure:
            client.subscribe(self._topic, qos=1)


def _client(config: MqttConfig, station: str, password: str | None, status: str) -> Client:
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2, client_id=f"energyad-{station}", protocol=MQTTv5)
    client.will_set(status, OFFLINE, qos=1, retain=True)
    client.reconnect_delay_set(min_delay=1, max_delay=10)
    _give_access(client, config, password)
    return client


def _give_access(client: Client, config: MqttConfig, password: str | None) -> None:
    """User name, password and encryption, as the file has them. Raises OSError for a file that cannot be read."""
    if config.username is not None:
        client.username_pw_set(config.username, password)
    if config.tls:
        client.tls_set(ca_certs=None if config.ca_file is None else str(config.ca_file))


def probe(config: MqttConfig, *, password: str | None, seconds: float = 5.0) -> str | None:
    """Connect to a broker once.

    Args:
        config: The broker.
        password: For the user name of the file.
        seconds: To wait for its answer.

    Returns:
        Why that is not possible; None where it is.
    """
    require("station", "an MQTT output")
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion

    answers: list[Any] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.connect_timeout = seconds
    client.on_connect = lambda client, data, flags, reason, properties: answers.append(reason)
    try:
        _give_access(client, config, password)
        client.connect(config.host, config.port, keepalive=KEEPALIVE_SECONDS)
        deadline = time.monotonic() + seconds
        while not answers and time.monotonic() < deadline:
            client.loop(0.05)
    except (OSError, ValueError) as error:
        return first_line(error).lower()
    finally:
        client.disconnect()
    if not answers:
        return "it does not answer as MQTT 5"
    return str(answers[0]).lower() if answers[0].is_failure else None
