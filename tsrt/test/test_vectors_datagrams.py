"""
Vectors of all that travels in datagrams of its own.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import (
    AddrPort,
    parseAddress,
)
from tsrt.crypto import xchacha
from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.box import Box
from tsrt.crypto.hashes import blake2s, kdf, mac16, x25519, x25519Base
from tsrt.keys import (
    DiscoKey,
    DiscoPublic,
)
from tsrt.test.vectorfile import VECTORS, covers, hexa
from tsrt.wire import disco, portmap, stun, tsmp, wireguard
from tsrt.wire.classify import Kind, classify
from tsrt.wire.geneve import (
    PROTOCOL_DISCO,
    PROTOCOL_WIREGUARD,
    GeneveHeader,
    parseGeneve,
)
from tsrt.wire.relayendpoint import RelayEndpoint

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"


class DiscoVectors(SynchronousTestCase):
    """Disco datagrams."""

    @covers("disco_ping")
    def test_datagrams(self) -> None:
        """Ping, padded ping, pong and call-me-maybe, sealed and opened."""
        vector = VECTORS["disco_ping"]
        sender = DiscoKey(hexa(vector["sender_disco_private"]))
        receiver = DiscoKey(hexa(vector["receiver_disco_private"]))
        self.assertEqual(sender.public().raw.hex(), vector["sender_disco_public"])
        there = Box(sender.raw, receiver.public().raw)
        back = Box(receiver.raw, sender.public().raw)
        self.assertEqual(there.shared.hex(), vector["shared_key_beforenm"])
        self.assertEqual(back.shared, there.shared)
        nonce, pongNonce = hexa(vector["nonce"]), hexa(vector["pong_nonce"])
        txid = hexa(vector["txid"])
        nodeKey = hexa(vector["sender_node_public"])
        here = AddrPort.parse("192.0.2.7:41641")
        ping = disco.Ping(txid, nodeKey)
        padded = disco.Ping(txid, nodeKey, 200 - disco.PING_DATAGRAM)
        pong = disco.Pong(txid, here)
        call = disco.CallMeMaybe((here, AddrPort.parse("[2001:db8::5]:41641")))
        self.assertEqual(ping.encode().hex(), vector["ping_plaintext"])
        self.assertEqual(pong.encode().hex(), vector["pong_plaintext"])
        self.assertEqual(call.encode().hex(), vector["call_me_maybe_plaintext"])
        for message, key, box, useNonce, name in (
            (ping, sender, there, nonce, "ping_datagram"),
            (padded, sender, there, nonce, "ping_padded_to_200"),
            (pong, receiver, back, pongNonce, "pong_datagram"),
            (call, sender, there, pongNonce, "call_me_maybe_over_derp"),
        ):
            datagram = disco.encodeEnvelope(
                key.public().raw, useNonce + box.seal(useNonce, message.encode())
            )
            self.assertEqual(datagram.hex(), vector[name])
            self.assertIs(classify(datagram), Kind.DISCO)
            public, nonceAndBox = disco.parseEnvelope(datagram)
            self.assertEqual(public, key.public().raw)
            opened = box.open(nonceAndBox[:24], nonceAndBox[24:])
            parsed = disco.parseMessage(opened)
            self.assertEqual(parsed, message)
            self.assertIs(type(parsed), type(message))
        self.assertEqual(len(hexa(vector["ping_datagram"])), disco.PING_DATAGRAM)
        self.assertEqual(len(hexa(vector["ping_padded_to_200"])), 200)

    @covers("disco_plaintexts")
    def test_plaintexts(self) -> None:
        """Each kind of message has the published bytes."""
        vector = VECTORS["disco_plaintexts"]
        inputs = vector["inputs"]
        txid = bytes(range(1, 13))
        remote = hexa(inputs["remote_key"])
        first, second = map(hexa, inputs["client_disco"])
        addrPorts = tuple(map(AddrPort.parse, inputs["addr_ports"]))
        endpoint = RelayEndpoint(
            serverDisco=remote,
            clientDisco=(first, second),
            lamportID=inputs["lamport_id"],
            vni=inputs["vni_endpoint"],
            bindLifetime=inputs["bind_lifetime_ns"] / 1e9,
            steadyStateLifetime=inputs["steady_lifetime_ns"] / 1e9,
            addrPorts=addrPorts,
        )
        vni, generation = inputs["vni_handshake"], inputs["generation_handshake"]
        challenge = bytes(range(32))
        allocation = inputs["generation_alloc"]
        messages: dict[str, disco.Message] = {
            "ping_no_key": disco.Ping(txid),
            "ping_node_key": disco.Ping(txid, remote),
            "pong_v4": disco.Pong(txid, AddrPort.parse("2.3.4.5:1234")),
            "pong_v6": disco.Pong(txid, AddrPort.parse("[fed0::12]:6666")),
            "call_me_maybe": disco.CallMeMaybe(addrPorts),
            "bind": disco.BindEndpoint(vni, generation, remote, challenge),
            "challenge": disco.BindChallenge(vni, generation, remote, challenge),
            "answer": disco.BindAnswer(vni, generation, remote, challenge),
            "call_me_maybe_via": disco.CallMeMaybeVia(endpoint),
            "alloc_request": disco.AllocateRequest((first, second), allocation),
            "alloc_response": disco.AllocateResponse(allocation, endpoint),
        }
        self.assertEqual(
            {name: message.encode().hex() for name, message in messages.items()},
            vector["messages"],
        )
        for name, message in messages.items():
            parsed = disco.parseMessage(hexa(vector["messages"][name]))
            self.assertEqual(parsed, message, name)
            self.assertIs(type(parsed), type(message), name)


class DatagramVectors(SynchronousTestCase):
    """STUN, Geneve, TSMP and port mapping."""

    @covers("stun_request")
    def test_stunRequest(self) -> None:
        """A request has these bytes and is accepted."""
        vector = VECTORS["stun_request"]
        txid, request = hexa(vector["txid"]), hexa(vector["request"])
        self.assertEqual(stun.buildRequest(txid), request)
        self.assertEqual(stun.parseRequest(request), txid)
        self.assertIs(classify(request), Kind.STUN)

    @covers("stun_response_v4", "stun_response_v6")
    def test_stunResponses(self) -> None:
        """Responses of both families have these bytes and are understood."""
        for name in ("stun_response_v4", "stun_response_v6"):
            vector = VECTORS[name]
            txid, response = hexa(vector["txid"]), hexa(vector["response"])
            source = AddrPort.parse(vector["address"])
            self.assertEqual(stun.buildResponse(txid, source), response)
            self.assertEqual(stun.parseResponse(response), (txid, source))
            self.assertIs(classify(response), Kind.STUN)

    @covers("geneve")
    def test_geneve(self) -> None:
        """The headers of all uses."""
        vector = VECTORS["geneve"]
        for name, header in {
            "disco_control_vni_456": GeneveHeader(PROTOCOL_DISCO, 456, True),
            "disco_vni_456": GeneveHeader(PROTOCOL_DISCO, 456),
            "wireguard_vni_456": GeneveHeader(PROTOCOL_WIREGUARD, 456),
        }.items():
            self.assertEqual(header.encode().hex(), vector[name])
            self.assertEqual(parseGeneve(hexa(vector[name])), header)

    @covers("tsmp")
    def test_tsmp(self) -> None:
        """Every kind of message."""
        vector = VECTORS["tsmp"]
        key = DiscoPublic.parse(VECTORS["key_text"]["disco_public"]).raw
        messages: dict[str, tsmp.TSMPMessage] = {
            "reject_acl_tcp_40000_to_22": tsmp.Reject(
                6, tsmp.RejectReason.ACL, 40000, 22
            ),
            "ping": tsmp.Ping(b"12345678"),
            "pong_port_43210": tsmp.Pong(b"12345678", 43210),
            "disco_advert": tsmp.DiscoAdvertisement(key),
        }
        for name, message in messages.items():
            self.assertEqual(message.encode().hex(), vector[name])
            parsed = tsmp.parseTSMP(hexa(vector[name]))
            self.assertEqual(parsed, message)
            self.assertIs(type(parsed), type(message))

    @covers("portmap")
    def test_portmap(self) -> None:
        """Requests of NAT-PMP and PCP."""
        vector = VECTORS["portmap"]
        client = parseAddress("192.168.1.5")
        self.assertEqual(
            portmap.buildPMPAddressRequest().hex(), vector["pmp_public_address"]
        )
        self.assertEqual(
            portmap.buildPMPMapRequest(41641).hex(), vector["pmp_map_udp_41641"]
        )
        request = hexa(vector["pcp_map_udp_41641"])
        self.assertEqual(request[20:24], client)
        self.assertEqual(
            portmap.buildPCPMapRequest(client, bytes(range(12)), 41641), request
        )


class WireGuardVectors(SynchronousTestCase):
    """Layouts and primitives of WireGuard, put together here by hand."""

    def handshake(self) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        """Initiation and response up to their MACs, and both transport keys."""
        vector = VECTORS["wireguard_initiation"]
        initiator, responder = (
            hexa(vector[f"{side}_private"]) for side in ("initiator", "responder")
        )
        ephemeralI, ephemeralR = (
            hexa(vector[f"{side}_ephemeral_private"])
            for side in ("initiator", "responder")
        )
        publicI, publicR = x25519Base(initiator), x25519Base(responder)
        self.assertEqual(publicI.hex(), vector["initiator_public"])
        self.assertEqual(publicR.hex(), vector["responder_public"])
        chain = blake2s(CONSTRUCTION)
        digest = blake2s(blake2s(chain, IDENTIFIER), publicR)
        ephemeral = x25519Base(ephemeralI)
        (chain,) = kdf(1, chain, ephemeral)
        digest = blake2s(digest, ephemeral)
        chain, key = kdf(2, chain, x25519(ephemeralI, publicR))
        static = CounterCipher(key).seal(0, publicI, digest)
        digest = blake2s(digest, static)
        chain, key = kdf(2, chain, x25519(initiator, publicR))
        stamp = wireguard.tai64n(1700000000 * 10**9 + 0x12345678)
        self.assertEqual(stamp.hex(), vector["timestamp"])
        sealedStamp = CounterCipher(key).seal(0, stamp, digest)
        digest = blake2s(digest, sealedStamp)
        initiation = wireguard.Initiation(
            vector["sender_index"], ephemeral, static, sealedStamp
        )
        ephemeral = x25519Base(ephemeralR)
        (chain,) = kdf(1, chain, ephemeral)
        digest = blake2s(digest, ephemeral)
        (chain,) = kdf(1, chain, x25519(ephemeralR, initiation.ephemeral))
        (chain,) = kdf(1, chain, x25519(ephemeralR, publicI))
        chain, mix, key = kdf(3, chain, bytes(32))
        empty = CounterCipher(key).seal(0, b"", blake2s(digest, mix))
        response = wireguard.Response(
            vector["responder_index"], vector["sender_index"], ephemeral, empty
        )
        macKey = blake2s(b"mac1----", publicR)
        self.assertEqual(macKey.hex(), vector["mac1_key_for_responder"])
        mac = mac16(macKey, initiation.encode()[:-32])
        answerMac = mac16(blake2s(b"mac1----", publicI), response.encode()[:-32])
        return (
            initiation._replace(mac1=mac).encode(),
            response._replace(mac1=answerMac).encode(),
            kdf(2, chain, b""),
        )

    @covers("wireguard_initiation")
    def test_handshake(self) -> None:
        """Both handshake messages."""
        vector = VECTORS["wireguard_initiation"]
        initiation, response, _ = self.handshake()
        self.assertEqual(initiation.hex(), vector["initiation"])
        self.assertEqual(response.hex(), vector["response"])
        parsed = wireguard.Initiation.decode(initiation)
        self.assertEqual(parsed.senderIndex, vector["sender_index"])
        self.assertEqual(parsed.encode(), initiation)
        answer = wireguard.Response.decode(response)
        self.assertEqual(answer.receiverIndex, vector["sender_index"])
        self.assertEqual(answer.senderIndex, vector["responder_index"])
        self.assertEqual(answer.encode(), response)

    @covers("wireguard_session")
    def test_session(self) -> None:
        """Transport messages in both directions."""
        vector = VECTORS["wireguard_session"]
        handshake = VECTORS["wireguard_initiation"]
        _, _, (there, back) = self.handshake()
        self.assertEqual(there.hex(), vector["initiator_send_key"])
        self.assertEqual(back.hex(), vector["responder_send_key"])
        packet = hexa(vector["inner_packet"])
        padded = packet + wireguard.paddingFor(len(packet), 1280)
        for name, key, index, counter, plaintext in (
            ("keepalive_counter0", there, "responder_index", 0, b""),
            ("data_counter1", there, "responder_index", 1, padded),
            ("reply_keepalive_counter0", back, "sender_index", 0, b""),
        ):
            sealed = CounterCipher(key).seal(counter, plaintext)
            message = wireguard.Transport(handshake[index], counter, sealed)
            self.assertEqual(message.encode().hex(), vector[name])
            self.assertEqual(wireguard.Transport.decode(hexa(vector[name])), message)
            self.assertEqual(
                CounterCipher(key).open(counter, message.sealed), plaintext
            )

    @covers("wireguard_cookie_reply")
    def test_cookieReply(self) -> None:
        """A cookie reply, and the second MAC that follows from it."""
        vector = VECTORS["wireguard_cookie_reply"]
        handshake = VECTORS["wireguard_initiation"]
        initiation = hexa(handshake["initiation"])
        mac1 = wireguard.Initiation.decode(initiation).mac1
        key = blake2s(b"cookie--", hexa(handshake["responder_public"]))
        self.assertEqual(key.hex(), vector["key"])
        nonce, cookie = hexa(vector["nonce"]), hexa(vector["cookie"])
        sealed = xchacha.seal(key, nonce, cookie, mac1)
        reply = wireguard.CookieReply(handshake["sender_index"], nonce, sealed)
        self.assertEqual(reply.encode().hex(), vector["cookie_reply"])
        parsed = wireguard.CookieReply.decode(hexa(vector["cookie_reply"]))
        self.assertEqual(parsed, reply)
        self.assertEqual(xchacha.open(key, nonce, parsed.sealedCookie, mac1), cookie)
        self.assertEqual(
            mac16(cookie, initiation[:-16]).hex(),
            vector["mac2_of_same_initiation"],
        )
