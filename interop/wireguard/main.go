// The wireguard-peer program is a WireGuard node without a kernel device: the
// device of wireguard-go on a user-space IP stack, told by a test what to do.
//
// It reads one JSON object a line on its standard input and answers each with
// one JSON object a line on its standard output. Commands run at the same time,
// but for the first, which is "start"; an answer carries the id of its command.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// command is one line of input.
type command struct {
	ID  int    `json:"id"`
	Cmd string `json:"cmd"`

	// For start, and those marked with * for set.
	PrivateKey string   `json:"privateKey"` // hex
	PeerKey    string   `json:"peerKey"`    // * hex, of the peer
	Endpoint   string   `json:"endpoint"`   // * of the peer, or empty
	Keepalive  int      `json:"keepalive"`  // * seconds, 0 for off
	AllowedIPs []string `json:"allowedIPs"` // * of the peer
	Addresses  []string `json:"addresses"`  // our own, inside
	MTU        int      `json:"mtu"`
	Local      string   `json:"local"`   // outside address and port to bind
	Batches    bool     `json:"batches"` // for benchmarks: the usual bind, TCP alone
	Verbose    bool     `json:"verbose"`

	// For listen, dial, pour and ping.
	Network string `json:"network"` // tcp or udp
	Port    int    `json:"port"`    // to listen on
	Address string `json:"address"` // host:port to dial, host to ping
	Mode    string `json:"mode"`    // of a TCP listener: echo, sink, source, count
	Size    int64  `json:"size"`    // bytes to send
	Seed    uint64 `json:"seed"`    // of the bytes to send
	Count   int    `json:"count"`   // streams to pour at once
	Timeout int    `json:"timeout"` // seconds
}

type answer map[string]any

// node is what start makes; there is no inside if it is for benchmarks.
type node struct {
	device  *device.Device
	inside  *netstack.Net
	streams streams
}

// streams is what both kinds of stack have.
type streams interface {
	DialContext(context.Context, string, string) (net.Conn, error)
	ListenTCP(*net.TCPAddr) (*gonet.TCPListener, error)
}

var (
	outMu sync.Mutex
	us    *node // set before any command runs beside the main loop
)

func main() {
	log.SetOutput(os.Stderr)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<16), 1<<20)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			reply(c.ID, nil, err)
			continue
		}
		if c.Cmd == "quit" {
			stop()
			reply(c.ID, nil, nil)
			return
		}
		if c.Cmd == "start" {
			a, err := start(c)
			reply(c.ID, a, err)
			continue
		}
		go func() {
			a, err := run(c)
			reply(c.ID, a, err)
		}()
	}
	stop()
}

func reply(id int, a answer, err error) {
	if a == nil {
		a = answer{}
	}
	a["id"] = id
	a["ok"] = err == nil
	if err != nil {
		a["error"] = err.Error()
	}
	line, err := json.Marshal(a)
	if err != nil {
		log.Fatal(err)
	}
	outMu.Lock()
	defer outMu.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func stop() {
	if us != nil {
		us.device.Close()
	}
}

func run(c command) (answer, error) {
	if c.Timeout == 0 {
		c.Timeout = 30
	}
	ctx, cancel := context.WithTimeout(
		context.Background(), time.Duration(c.Timeout)*time.Second)
	defer cancel()
	n := us
	if n == nil {
		return nil, errors.New("not started")
	}
	isStream := !strings.HasPrefix(c.Network, "udp")
	if n.inside == nil && (c.Cmd == "ping" || !isStream) {
		return nil, errors.New("started for streams alone")
	}
	switch c.Cmd {
	case "set":
		return nil, n.device.IpcSet(peerSettings(c))
	case "stats":
		return stats(n)
	case "listen":
		if isStream {
			return listen(n.streams, c)
		}
		return listenUDP(n.inside, c)
	case "dial":
		return dial(ctx, n.streams, c)
	case "ping":
		return ping(ctx, n.inside, c)
	case "pour":
		return pour(ctx, n.streams, c)
	case "usage":
		return usage()
	}
	return nil, fmt.Errorf("unknown command %q", c.Cmd)
}

func start(c command) (answer, error) {
	if us != nil {
		return nil, errors.New("started already")
	}
	if c.Local == "" {
		c.Local = "127.0.0.1:0"
	}
	local, err := netip.ParseAddrPort(c.Local)
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, text := range c.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, a)
	}
	if c.MTU == 0 {
		c.MTU = 1280
	}
	n := &node{}
	var link tun.Device
	var bind conn.Bind
	if c.Batches {
		batches, failed := newBatchTUN(addresses, c.MTU)
		n.streams, link, bind, err = batches, batches, conn.NewDefaultBind(), failed
	} else {
		link, n.inside, err = netstack.CreateNetTUN(addresses, nil, c.MTU)
		n.streams, bind = n.inside, &oneSocket{local: local.Addr()}
	}
	if err != nil {
		return nil, err
	}
	logger := &device.Logger{Verbosef: device.DiscardLogf, Errorf: log.Printf}
	if c.Verbose {
		logger.Verbosef = log.Printf
	}
	dev := device.NewDevice(link, bind, logger)
	settings := fmt.Sprintf("private_key=%s\nlisten_port=%d\n%s",
		c.PrivateKey, local.Port(), peerSettings(c))
	if err := dev.IpcSet(settings); err != nil {
		dev.Close()
		return nil, err
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, err
	}
	n.device = dev
	us = n
	values, err := settingsOf(dev)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(values["listen_port"])
	return answer{"port": port}, err
}

// peerSettings is the peer of a command in the form the device wants.
func peerSettings(c command) string {
	if c.PeerKey == "" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%s\n", c.PeerKey)
	fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", c.Keepalive)
	if c.Endpoint != "" {
		fmt.Fprintf(&b, "endpoint=%s\n", c.Endpoint)
	}
	for _, prefix := range c.AllowedIPs {
		fmt.Fprintf(&b, "allowed_ip=%s\n", prefix)
	}
	return b.String()
}

// stats tells of the (one) peer what the device knows.
func stats(n *node) (answer, error) {
	values, err := settingsOf(n.device)
	if err != nil {
		return nil, err
	}
	a := answer{"endpoint": values["endpoint"]}
	for name, key := range map[string]string{
		"sentBytes":     "tx_bytes",
		"receivedBytes": "rx_bytes",
		"lastHandshake": "last_handshake_time_sec",
	} {
		number, _ := strconv.ParseInt(values[key], 10, 64)
		a[name] = number
	}
	nanoseconds, _ := strconv.ParseInt(values["last_handshake_time_nsec"], 10, 64)
	a["lastHandshakeNanoseconds"] = nanoseconds
	return a, nil
}

func settingsOf(dev *device.Device) (map[string]string, error) {
	text, err := dev.IpcGet()
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	return values, nil
}
