"""An independent ROS 2 peer: CycloneDDS, types from the message definitions, nothing of our Rust."""

from __future__ import annotations

import collections
import itertools
import random
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos, ReadCondition, SampleState, InstanceState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from idl_from_msg import dds_name, message, service

# This machine only; messages of several megabytes in one go, as the facts of DDS on loopback demand.
CONFIGURATION = """<CycloneDDS><Domain id="any">
  <General>
    <Interfaces><NetworkInterface name="lo" multicast="true"/></Interfaces>
    <AllowMulticast>true</AllowMulticast>
    <MaxMessageSize>65500B</MaxMessageSize>
    <FragmentSize>65000B</FragmentSize>
  </General>
  <Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer address="localhost"/></Peers></Discovery>
</Domain></CycloneDDS>"""


def quality(reliable=True, latched=False, depth=10) -> Qos:
    """Quality of service in ROS 2's terms, in its wire format (XCDR1)."""
    return Qos(
        Policy.Reliability.Reliable(duration(seconds=1)) if reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(depth),
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
    )


def until(condition, timeout: float, what: str):
    """Poll `condition` until it gives something true; its value. Fails after `timeout` seconds, saying `what`."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout} s still waiting for {what}")
        time.sleep(0.02)
    return value


class Subscription:
    """One topic's samples, in the order they came."""

    def __init__(self, participant, topic, kind, qos):
        self.name = topic
        self.reader = DataReader(participant, Topic(participant, topic, kind, qos=qos), qos=qos)
        self.waitset = WaitSet(participant)
        self.waitset.attach(ReadCondition(self.reader, ViewState.Any | InstanceState.Any | SampleState.Any))

    def matched(self) -> bool:
        return self.reader.get_subscription_matched_status().current_count > 0

    def take(self, timeout=0.0) -> list:
        """What has come since the last call, waiting up to `timeout` seconds for the first."""
        self.waitset.wait(duration(seconds=timeout))
        return [sample for sample in self.reader.take(N=1000) if sample.sample_info.valid_data]

    def wait(self, condition=lambda sample: True, timeout=30.0):
        """The first sample for which `condition` holds; earlier ones are dropped."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            for sample in self.take(min(left, 1.0)):
                if condition(sample):
                    return sample
        raise TimeoutError(f"no such sample on {self.name} within {timeout} s")


@dataclass
class Publisher:
    """One topic's writer."""

    writer: DataWriter

    def matched(self) -> bool:
        return self.writer.get_publication_matched_status().current_count > 0

    def send(self, sample):
        self.writer.write(sample)


class Peer:
    """A participant in a ROS domain, on this machine only."""

    def __init__(self, domain: int):
        self.domain = Domain(domain, CONFIGURATION)
        self.participant = DomainParticipant(domain)
        self.sequence = itertools.count(1)
        # Clients nobody is calling with just now: made once and used again, as a node does.
        self.clients = collections.defaultdict(list)

    def subscribe(self, topic: str, ros_type: str, **qos) -> Subscription:
        return Subscription(self.participant, f"rt{topic}", message(ros_type), quality(**qos))

    def publisher(self, topic: str, ros_type: str, **qos) -> Publisher:
        qos = quality(**qos)
        return Publisher(DataWriter(self.participant, Topic(self.participant, f"rt{topic}", message(ros_type), qos=qos), qos=qos))

    def call(self, name: str, ros_type: str, timeout=30.0, **fields):
        """Call a service the way rmw_cyclonedds does; the response."""
        idle = self.clients[name, ros_type]
        writer, reader = client = idle.pop() if idle else self._client(name, ros_type)
        until(lambda: writer.matched() and reader.matched(), timeout, f"service {name}")
        request = service(ros_type)[0].__idl__.v1_machine.default_initialize()
        # The client is named by half of its writer's GUID, so that it knows its replies among all.
        request.client, request.sequence = random.getrandbits(64), next(self.sequence)
        for field, value in fields.items():
            setattr(request, field, value)
        writer.send(request)
        mine = (request.client, request.sequence)
        reply = reader.wait(lambda reply: (reply.client, reply.sequence) == mine, timeout)
        idle.append(client)
        return reply

    def answers(self, name: str, ros_type: str) -> Subscription:
        """All answers of a service, whoever they are for."""
        return Subscription(self.participant, f"rr{name}Reply", service(ros_type)[1], quality())

    def _client(self, name: str, ros_type: str) -> tuple[Publisher, Subscription]:
        qos = quality()
        topic = Topic(self.participant, f"rq{name}Request", service(ros_type)[0], qos=qos)
        return Publisher(DataWriter(self.participant, topic, qos=qos)), self.answers(name, ros_type)

    def topics(self) -> dict[str, str]:
        """Topics other participants write or read, with their types, both as on the wire."""
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription

        found = {}
        for kind in (BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription):
            for endpoint in BuiltinDataReader(self.participant, kind).take(N=1000):
                found[endpoint.topic_name] = endpoint.type_name
        return found


__all__ = ["Peer", "Publisher", "Subscription", "dds_name", "quality", "until"]
