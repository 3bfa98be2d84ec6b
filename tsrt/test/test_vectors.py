"""
Every entry of C{vectors/vectors.json} against our code.

The bytes there were not made by this package.  Each test, here and in the
modules C{test_vectors_*}, names the vectors that it covers; the last one here
checks that none is left out.
"""

from __future__ import annotations

import base64
import inspect
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import (
    AddrPort,
    Prefix,
    formatAddress,
    parseAddress,
    parseViaName,
    viaPrefix,
)
from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.box import Box
from tsrt.crypto.noise import IKInitiator, IKResponder
from tsrt.keys import (
    ChallengePublic,
    DiscoPublic,
    MachineKey,
    MachinePublic,
    NodeKey,
    NodePublic,
    clamp,
)
from tsrt.test import test_vectors_datagrams, test_vectors_lock
from tsrt.test.vectorfile import VECTORS, covers, fixed, hexa
from tsrt.wire import controlframe, derp
from tsrt.wire.derpinfo import ClientInfo, ServerInfo
from tsrt.wire.peerapi import preferredPort
from tsrt.wire.taildrop import BLOCK_SIZE, BlockHash

MODULES = (test_vectors_datagrams, test_vectors_lock)


class KeyVectors(SynchronousTestCase):
    """Keys and their texts."""

    @covers("clamp")
    def test_clamp(self) -> None:
        """A scalar is clamped as RFC 7748 says."""
        vector = VECTORS["clamp"]
        self.assertEqual(clamp(hexa(vector["input"])), hexa(vector["output"]))

    @covers("key_text")
    def test_keyText(self) -> None:
        """Public keys follow from private ones, and all have their texts."""
        vector = VECTORS["key_text"]
        machine = MachineKey.parse(vector["machine_private"])
        self.assertEqual(machine.text(), vector["machine_private"])
        self.assertEqual(machine.public().text(), vector["machine_public"])
        node = NodeKey.parse(vector["node_private"])
        self.assertEqual(node.public().text(), vector["node_public"])
        self.assertEqual(node.public().short(), vector["node_short"])
        binary = hexa(vector["node_public_binary"])
        self.assertEqual(node.public().binary(), binary)
        self.assertEqual(NodePublic.fromBinary(binary), node.public())
        discoPublic = DiscoPublic.parse(vector["disco_public"])
        self.assertEqual(discoPublic.text(), vector["disco_public"])
        self.assertEqual(discoPublic.short(), vector["disco_short"])


class ControlVectors(SynchronousTestCase):
    """The control connection."""

    @covers("noise_ik_control")
    def test_handshake(self) -> None:
        """Both sides make exactly these messages and agree on the keys."""
        vector = VECTORS["noise_ik_control"]
        version = vector["protocol_version"]
        machine = MachineKey(hexa(vector["machine_private"]))
        control = MachineKey(hexa(vector["control_private"]))
        self.assertEqual(machine.public().raw.hex(), vector["machine_public"])
        self.assertEqual(
            control.public(), MachinePublic(hexa(vector["control_public"]))
        )
        client = IKInitiator(
            machine,
            control.public(),
            version,
            fixed(hexa(vector["client_ephemeral_private"])),
        )
        server = IKResponder(control, fixed(hexa(vector["control_ephemeral_private"])))
        self.assertEqual(client.initiation().hex(), vector["initiation"])
        self.assertEqual(
            base64.b64encode(client.initiation()).decode(),
            vector["x_tailscale_handshake_header"],
        )
        self.assertEqual(server.consume(hexa(vector["initiation"])), version)
        self.assertEqual(server.clientKey, machine.public())
        self.assertEqual(server.response().hex(), vector["response"])
        send, receive, digest = client.finish(hexa(vector["response"]))
        self.assertEqual(send.hex(), vector["client_to_server_key"])
        self.assertEqual(receive.hex(), vector["server_to_client_key"])
        self.assertEqual(digest.hex(), vector["handshake_hash"])
        self.assertEqual(
            (server.receiveKey, server.sendKey, server.handshakeHash),
            (send, receive, digest),
        )

    @covers("noise_ik_control")
    def test_records(self) -> None:
        """Records are sealed and opened with big-endian counters."""
        vector = VECTORS["noise_ik_control"]
        for side, key in (
            ("client_records", "client_to_server_key"),
            ("server_records", "server_to_client_key"),
        ):
            cipher = CounterCipher(hexa(vector[key]), bigEndian=True)
            stream = b""
            expected = []
            for entry in vector[side]:
                counter, plaintext = entry["nonce_counter"], hexa(entry["plaintext"])
                sealed = cipher.seal(counter, plaintext)
                record = controlframe.encodeRecord(sealed)
                self.assertEqual(record.hex(), entry["record"])
                self.assertEqual(cipher.open(counter, sealed), plaintext)
                stream += record
                expected.append((controlframe.TYPE_RECORD, sealed))
            self.assertEqual(controlframe.RecordSplitter().feed(stream), expected)

    @covers("noise_ik_control")
    def test_earlyPayload(self) -> None:
        """The server's first record holds an early payload."""
        payload = hexa(VECTORS["noise_ik_control"]["server_records"][0]["plaintext"])
        early = controlframe.EarlyPayload()
        self.assertEqual(early.feed(payload + b"rest"), b"rest")
        assert early.challenge is not None
        self.assertIsInstance(early.challenge, ChallengePublic)
        self.assertEqual(controlframe.encodeEarlyPayload(early.challenge), payload)

    @covers("map_frame_plain")
    def test_mapFrame(self) -> None:
        """A map frame has a little-endian length."""
        frame = hexa(VECTORS["map_frame_plain"]["frame"])
        content = b'{"KeepAlive":true}'
        self.assertEqual(controlframe.encodeMapFrame(content), frame)
        self.assertEqual(controlframe.MapFrameSplitter().feed(frame), [content])


class DERPVectors(SynchronousTestCase):
    """Relays."""

    @covers("derp_client_info")
    def test_login(self) -> None:
        """All three login frames come out, and open on the other side."""
        vector = VECTORS["derp_client_info"]
        client = NodeKey(hexa(vector["client_private"]))
        server = NodeKey(hexa(vector["server_private"]))
        self.assertEqual(client.public().raw.hex(), vector["client_public"])
        self.assertEqual(server.public().raw.hex(), vector["server_public"])
        frame = derp.buildServerKey(server.public().raw)
        self.assertEqual(frame.hex(), vector["server_key_frame"])
        self.assertEqual(derp.parseServerKey(frame[5:]), server.public().raw)

        document = ClientInfo().encode()
        self.assertEqual(document.decode(), vector["client_info_json"])
        self.assertEqual(ClientInfo.decode(document), ClientInfo())
        nonce = hexa(vector["client_nonce"])
        box = Box(client.raw, server.public().raw)
        frame = derp.buildClientInfo(
            client.public().raw, nonce + box.seal(nonce, document)
        )
        self.assertEqual(frame.hex(), vector["client_info_frame"])
        sender, nonceAndBox = derp.parseClientInfo(frame[5:])
        self.assertEqual(sender, client.public().raw)
        serverBox = Box(server.raw, sender)
        self.assertEqual(serverBox.open(nonceAndBox[:24], nonceAndBox[24:]), document)

        document = ServerInfo().encode()
        self.assertEqual(document.decode(), vector["server_info_json"])
        nonce = hexa(vector["server_nonce"])
        frame = derp.buildServerInfo(nonce + serverBox.seal(nonce, document))
        self.assertEqual(frame.hex(), vector["server_info_frame"])
        self.assertEqual(box.open(nonce, frame[5 + 24 :]), document)

    @covers("derp_client_info")
    def test_frames(self) -> None:
        """Every frame of the steady state is built and read."""
        vector = VECTORS["derp_client_info"]
        frames = {name: hexa(text) for name, text in vector["frames"].items()}
        peer = hexa(frames["peer_gone_not_here"][5:37].hex())
        me = hexa(vector["client_public"])
        present = derp.PeerPresent(
            peer, AddrPort.parse("192.0.2.7:41641"), derp.PeerPresentFlag.REGULAR
        )
        built = {
            "send_packet": derp.buildSendPacket(peer, b"hello"),
            "recv_packet": derp.buildRecvPacket(me, b"hello"),
            "keepalive": derp.buildKeepAlive(),
            "note_preferred": derp.buildNotePreferred(True),
            "peer_gone_not_here": derp.buildPeerGone(
                peer, derp.PeerGoneReason.NOT_HERE
            ),
            "peer_present": derp.buildPeerPresent(present),
            "ping": derp.buildPing(b"12345678"),
            "pong": derp.buildPong(b"12345678"),
            "health": derp.buildHealth("dup"),
            "restarting_500ms_10s": derp.buildRestarting(0.5, 10),
        }
        self.assertEqual(built, frames)
        payloads = dict(
            zip(
                frames,
                [
                    payload
                    for _, payload in derp.FrameSplitter().feed(
                        b"".join(frames.values())
                    )
                ],
                strict=True,
            )
        )
        self.assertEqual(
            {
                "send_packet": derp.parseSendPacket(payloads["send_packet"]),
                "recv_packet": derp.parseRecvPacket(payloads["recv_packet"]),
                "note": derp.parseNotePreferred(payloads["note_preferred"]),
                "gone": derp.parsePeerGone(payloads["peer_gone_not_here"]),
                "present": derp.parsePeerPresent(payloads["peer_present"]),
                "ping": derp.parsePing(payloads["ping"]),
                "pong": derp.parsePing(payloads["pong"]),
                "health": derp.parseHealth(payloads["health"]),
                "restarting": derp.parseRestarting(payloads["restarting_500ms_10s"]),
            },
            {
                "send_packet": (peer, b"hello"),
                "recv_packet": (me, b"hello"),
                "note": True,
                "gone": (peer, derp.PeerGoneReason.NOT_HERE),
                "present": present,
                "ping": b"12345678",
                "pong": b"12345678",
                "health": "dup",
                "restarting": derp.Restarting(0.5, 10.0),
            },
        )


class AddressVectors(SynchronousTestCase):
    """Ports and mapped addresses."""

    @covers("peerapi_port")
    def test_peerAPIPorts(self) -> None:
        """The preferred ports of each address, try by try."""
        for text, ports in VECTORS["peerapi_port"]["ports"].items():
            address = parseAddress(text)
            self.assertEqual(
                [preferredPort(address, attempt) for attempt in range(len(ports))],
                ports,
            )

    @covers("via")
    def test_via(self) -> None:
        """IPv4 prefixes of sites, and names of their addresses."""
        vector = VECTORS["via"]
        for description, mapped in vector["examples"].items():
            site, text = re.fullmatch(r"site (\d+), (\S+)", description).groups()  # type: ignore[union-attr]  # the file has this form
            self.assertEqual(viaPrefix(int(site), Prefix.parse(text)).text(), mapped)
        name, address = vector["dns_name"].split(" -> AAAA ")
        found = parseViaName(name)
        assert found is not None
        self.assertEqual(formatAddress(found), address)

    @covers("taildrop_block_hash")
    def test_blockHash(self) -> None:
        """The hash of a block of zeros."""
        text = VECTORS["taildrop_block_hash"]["json"]
        block = BlockHash.of(bytes(BLOCK_SIZE))
        self.assertEqual(block.encode().decode().rstrip("\n"), text)
        self.assertEqual(BlockHash.decode(text.encode()), block)


class CoverageTests(SynchronousTestCase):
    """Nothing is left out."""

    def test_everyVectorIsCovered(self) -> None:
        """The vectors that tests name are all that the file has."""
        covered = {
            name
            for module in (sys.modules[__name__], *MODULES)
            for case in vars(module).values()
            if inspect.isclass(case) and issubclass(case, SynchronousTestCase)
            for test in vars(case).values()
            for name in getattr(test, "covers", ())
        }
        self.assertEqual(covered, set(VECTORS))
