package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// batchTUN is wireguard-go's device on a user-space stack, but that a read takes
// all packets that wait: with one at a time, the bind never has anything to put
// into one write. As there, the stack is made to wait while nobody reads. It
// carries TCP.
type batchTUN struct {
	link    *channel.Endpoint
	stack   *stack.Stack
	mtu     int
	events  chan tun.Event
	packets chan *stack.PacketBuffer
	ended   chan struct{}
}

func newBatchTUN(addresses []netip.Addr, mtu int) (*batchTUN, error) {
	t := &batchTUN{
		link: channel.New(1024, uint32(mtu), ""),
		stack: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{
				ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
			HandleLocal:        true,
		}),
		mtu:     mtu,
		events:  make(chan tun.Event, 1),
		packets: make(chan *stack.PacketBuffer, 1024),
		ended:   make(chan struct{}),
	}
	t.link.AddNotify(t)
	sack := tcpip.TCPSACKEnabled(true)
	if err := t.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return nil, fmt.Errorf("SACK: %v", err)
	}
	if err := t.stack.CreateNIC(1, t.link); err != nil {
		return nil, fmt.Errorf("CreateNIC: %v", err)
	}
	for _, a := range addresses {
		_, protocol := fullAddress(netip.AddrPortFrom(a, 0))
		err := t.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{
			Protocol:          protocol,
			AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{})
		if err != nil {
			return nil, fmt.Errorf("AddProtocolAddress(%v): %v", a, err)
		}
	}
	t.stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: 1})
	t.stack.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: 1})
	t.events <- tun.EventUp
	return t, nil
}

func fullAddress(at netip.AddrPort) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	protocol := ipv4.ProtocolNumber
	if at.Addr().Is6() {
		protocol = ipv6.ProtocolNumber
	}
	address := tcpip.AddrFromSlice(at.Addr().AsSlice())
	return tcpip.FullAddress{NIC: 1, Addr: address, Port: at.Port()}, protocol
}

// WriteNotify hands on what the stack sends.
func (t *batchTUN) WriteNotify() {
	packet := t.link.Read()
	if packet == nil {
		return
	}
	select {
	case t.packets <- packet:
	case <-t.ended:
		packet.DecRef()
	}
}

// Read waits for a packet, and takes those that wait behind it as well.
func (t *batchTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	var packet *stack.PacketBuffer
	select {
	case packet = <-t.packets:
	case <-t.ended:
		return 0, os.ErrClosed
	}
	for n := 0; ; {
		at := offset
		for _, piece := range packet.AsSlices() {
			at += copy(bufs[n][at:], piece)
		}
		sizes[n] = at - offset
		packet.DecRef()
		if n++; n == len(bufs) {
			return n, nil
		}
		select {
		case packet = <-t.packets:
		default:
			return n, nil
		}
	}
}

func (t *batchTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		data := b[offset:]
		if len(data) == 0 {
			continue
		}
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
			Payload: buffer.MakeWithData(data)})
		switch data[0] >> 4 {
		case 4:
			t.link.InjectInbound(header.IPv4ProtocolNumber, packet)
		case 6:
			t.link.InjectInbound(header.IPv6ProtocolNumber, packet)
		default:
			return 0, syscall.EAFNOSUPPORT
		}
		packet.DecRef()
	}
	return len(bufs), nil
}

func (t *batchTUN) Close() error {
	close(t.ended)
	t.stack.RemoveNIC(1)
	t.stack.Close()
	t.link.Close()
	close(t.events)
	return nil
}

func (t *batchTUN) Name() (string, error)    { return "go", nil }
func (t *batchTUN) File() *os.File           { return nil }
func (t *batchTUN) Events() <-chan tun.Event { return t.events }
func (t *batchTUN) MTU() (int, error)        { return t.mtu, nil }
func (t *batchTUN) BatchSize() int           { return conn.IdealBatchSize }

func (t *batchTUN) DialContext(
	ctx context.Context, network, address string,
) (net.Conn, error) {
	if network != "tcp" {
		return nil, net.UnknownNetworkError(network)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	to, protocol := fullAddress(at)
	return gonet.DialContextTCP(ctx, t.stack, to, protocol)
}

func (t *batchTUN) ListenTCP(at *net.TCPAddr) (*gonet.TCPListener, error) {
	to := tcpip.FullAddress{NIC: 1, Port: uint16(at.Port)}
	return gonet.ListenTCP(t.stack, to, ipv4.ProtocolNumber)
}
