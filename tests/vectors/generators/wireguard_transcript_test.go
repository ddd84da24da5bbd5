// Prints handshakes of wireguard-go itself, with the secrets that they used, as JSON. Run by wireguard_transcript.sh,
// which puts this file into a copy of wireguard-go's device package: only from inside can the ephemerals be read.

package device

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

const laneLabel = "omninervous lane v1"

type object = map[string]any

func must(t *testing.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func fixedKey(first byte) (key NoisePrivateKey) {
	for i := range key {
		key[i] = first + byte(i)
	}
	key.clamp()
	return key
}

func fixedDevice(first byte) *Device {
	device := NewDevice(tuntest.NewChannelTUN().TUN(), conn.NewDefaultBind(), NewLogger(LogLevelError, ""))
	device.SetPrivateKey(fixedKey(first))
	return device
}

func wire(t *testing.T, message any) []byte {
	var buffer bytes.Buffer
	must(t, binary.Write(&buffer, binary.LittleEndian, message))
	return buffer.Bytes()
}

func sealed(pair *Keypair, counter uint64, plaintext string) object {
	header := make([]byte, MessageTransportHeaderSize)
	binary.LittleEndian.PutUint32(header, MessageTransportType)
	binary.LittleEndian.PutUint32(header[4:], pair.remoteIndex)
	binary.LittleEndian.PutUint64(header[8:], counter)
	var nonce [12]byte
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	datagram := pair.send.Seal(header, nonce[:], []byte(plaintext), nil)
	return object{"counter": counter, "plaintext": hex.EncodeToString([]byte(plaintext)), "datagram": hex.EncodeToString(datagram)}
}

func lanes(chain [32]byte, hash [32]byte) (all []object) {
	for _, lane := range []struct{ number, aead byte }{{1, 0}, {1, 1}, {7, 1}, {8, 0}} {
		var keys [2][32]byte
		for direction := range keys {
			KDF1(&keys[direction], chain[:], append(append([]byte(laneLabel), lane.number, lane.aead, byte(direction)), hash[:]...))
		}
		all = append(all, object{
			"lane": int(lane.number), "aead": int(lane.aead),
			"initiator_to_responder": hex.EncodeToString(keys[0][:]), "responder_to_initiator": hex.EncodeToString(keys[1][:]),
		})
	}
	return all
}

func transcript(t *testing.T, psk byte, withCookies bool) object {
	initiator, responder := fixedDevice(1), fixedDevice(101)
	defer initiator.Close()
	defer responder.Close()
	ofInitiator, err := responder.NewPeer(initiator.staticIdentity.publicKey)
	must(t, err)
	ofResponder, err := initiator.NewPeer(responder.staticIdentity.publicKey)
	must(t, err)
	ofInitiator.Start()
	ofResponder.Start()
	var shared NoisePresharedKey
	if psk != 0 {
		for i := range shared {
			shared[i] = psk + byte(i)
		}
	}
	ofInitiator.handshake.presharedKey, ofResponder.handshake.presharedKey = shared, shared

	out := object{
		"initiator_static": hex.EncodeToString(initiator.staticIdentity.privateKey[:]),
		"responder_static": hex.EncodeToString(responder.staticIdentity.privateKey[:]),
		"initiator_public": hex.EncodeToString(initiator.staticIdentity.publicKey[:]),
		"responder_public": hex.EncodeToString(responder.staticIdentity.publicKey[:]),
		"psk":              hex.EncodeToString(shared[:]),
	}

	first, err := initiator.CreateMessageInitiation(ofResponder)
	must(t, err)
	out["initiator_ephemeral"] = hex.EncodeToString(ofResponder.handshake.localEphemeral[:])
	out["initiator_index"] = first.Sender
	initiation := wire(t, first)
	ofResponder.cookieGenerator.AddMacs(initiation)
	if withCookies {
		source := []byte{192, 0, 2, 7, 0x40, 0x9c}
		out["initiation_before_cookie"] = hex.EncodeToString(initiation)
		reply, err := responder.cookieChecker.CreateReply(initiation, first.Sender, source)
		must(t, err)
		out["cookie_reply"] = hex.EncodeToString(wire(t, reply))
		if !ofResponder.cookieGenerator.ConsumeReply(reply) {
			t.Fatal("cookie reply")
		}
		out["cookie"] = hex.EncodeToString(ofResponder.cookieGenerator.mac2.cookie[:])
		ofResponder.cookieGenerator.AddMacs(initiation)
		if !responder.cookieChecker.CheckMAC2(initiation, source) {
			t.Fatal("mac2")
		}
	}
	out["initiation"] = hex.EncodeToString(initiation)

	if responder.ConsumeMessageInitiation(first) == nil {
		t.Fatal("initiation")
	}
	out["timestamp"] = hex.EncodeToString(ofInitiator.handshake.lastTimestamp[:])
	second, err := responder.CreateMessageResponse(ofInitiator)
	must(t, err)
	out["responder_ephemeral"] = hex.EncodeToString(ofInitiator.handshake.localEphemeral[:])
	out["responder_index"] = second.Sender
	response := wire(t, second)
	ofInitiator.cookieGenerator.AddMacs(response)
	out["response"] = hex.EncodeToString(response)
	if initiator.ConsumeMessageResponse(second) == nil {
		t.Fatal("response")
	}
	out["handshake_hash"] = hex.EncodeToString(ofResponder.handshake.hash[:])
	out["lanes"] = lanes(ofResponder.handshake.chainKey, ofResponder.handshake.hash)

	must(t, ofResponder.BeginSymmetricSession())
	must(t, ofInitiator.BeginSymmetricSession())
	forward, backward := ofResponder.keypairs.current, ofInitiator.keypairs.next.Load()
	out["initiator_to_responder"] = []object{sealed(forward, 0, ""), sealed(forward, 1, "hello"), sealed(forward, 1<<40+3, "far")}
	out["responder_to_initiator"] = []object{sealed(backward, 0, ""), sealed(backward, 1, "hello back")}
	return out
}

func TestPrintTranscripts(t *testing.T) {
	vectors := object{
		"source":    "wireguard-go " + os.Getenv("WIREGUARD_VERSION") + ", golang.zx2c4.com/wireguard/device",
		"generator": "tests/vectors/generators/wireguard_transcript.sh",
		"note": "A real run of wireguard-go; its random ephemerals, indices and timestamp are recorded. The lanes' keys: " +
			"wireguard-go's KDF1 over the final chaining key.",
		"transcripts": object{
			"without_psk": transcript(t, 0, false),
			"with_psk":    transcript(t, 33, false),
			"with_cookie": transcript(t, 33, true),
		},
	}
	text, err := json.MarshalIndent(vectors, "", "  ")
	must(t, err)
	must(t, os.WriteFile(os.Getenv("OUTPUT"), append(text, '\n'), 0o644))
}
