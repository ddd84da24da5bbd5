"""The Node's configuration: what the operator said, what earlier runs left, what the engine can do."""

from __future__ import annotations

import os

from omninervous.core.events import NodeConfig, NucleusConfig, PeerConfig
from omninervous.core.secret import ClusterKeys
from omninervous.ganglion.config import EdgeConfig
from omninervous.ganglion.engines import EngineChoice
from omninervous.ganglion.persist import Remembered

__all__ = ["named_peers", "node_config"]


def node_config(
    config: EdgeConfig,
    cluster: ClusterKeys | None,
    remembered: Remembered,
    choice: EngineChoice,
    kernel_lanes: tuple[int, ...],
) -> NodeConfig:
    """What the Node must know before it starts."""
    return NodeConfig(
        boot_id=os.urandom(16),
        cluster=cluster,
        claim=config.claim,
        derivation=remembered.derivation,
        vip_known=remembered.vip_known,
        nuclei=tuple(
            NucleusConfig(
                name=str(each.place),
                key=each.key or remembered.pins.get(str(each.place)),
                given=each.key is not None,
            )
            for each in config.nuclei
        ),
        peers=named_peers(config),
        name=config.name,
        mtu=config.mtu,
        sessions_per_ip=config.sessions_per_ip,
        timestamp_mark=remembered.timestamp_mark,
        serial_mark=remembered.serial_mark,
        members=remembered.members,
        lanes=(*choice.lanes, *kernel_lanes),
        aeads=choice.aeads,
    )


def named_peers(config: EdgeConfig) -> tuple[PeerConfig, ...]:
    """The operator's peers. Endpoints with a name come later, from DNS."""
    return tuple(
        PeerConfig(
            x25519=each.x25519,
            ed25519=each.ed25519,
            endpoint=None if each.endpoint is None else each.endpoint.literal,
            psk=each.psk,
            allowed_ips=each.allowed_ips,
        )
        for each in config.peers
    )
