# mypy: disable-error-code="type-arg,arg-type,call-overload"
# cyclonedds builds its sample types from annotations that no type checker understands.
"""A DDS process for `test_dds.py`: `python dds_participant.py ask|echo COUNT SIZE PAUSE`.

`ask` writes samples, PAUSE seconds after one another, and wants each one back; `echo` sends back what it reads. They
find each other by multicast.
"""

# No `from __future__ import annotations`: cyclonedds reads the types of a sample's fields.
import random
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import sequence, uint8
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

PATIENCE = 30.0


@dataclass
class Sample(IdlStruct, typename="Sample"):
    number: int
    data: sequence[uint8]


def main(role: str, count: int, size: int, pause: float) -> None:
    participant = DomainParticipant(0)
    qos = Qos(
        Policy.Reliability.Reliable(duration(seconds=PATIENCE)),
        Policy.History.KeepAll,
        Policy.Durability.TransientLocal,
    )
    asked, echoed = (Topic(participant, name, Sample, qos=qos) for name in ("asked", "echoed"))
    read, write = (echoed, asked) if role == "ask" else (asked, echoed)
    reader, writer = DataReader(participant, read, qos=qos), DataWriter(participant, write, qos=qos)
    print("waiting", flush=True)
    chance = random.Random(1)
    for number in range(count):
        if role == "ask":
            data = chance.randbytes(size)
            started = time.monotonic()
            writer.write(Sample(number, list(data)))
            sample = next_sample(reader)
            assert sample.number == number and bytes(sample.data) == data, "another sample came back"
            print(f"sample {number}: {size} bytes there and back in {time.monotonic() - started:.3f} s", flush=True)
            time.sleep(pause)
        else:
            writer.write(next_sample(reader))
    if role == "echo":
        writer.wait_for_acks(duration(seconds=PATIENCE))
    print("done", flush=True)


def next_sample(reader: DataReader[Sample]) -> Sample:
    return next(reader.take_iter(timeout=duration(seconds=PATIENCE)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
