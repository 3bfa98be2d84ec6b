package main

import (
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// oneSocket is a conn.Bind with a single UDP socket on one local address, so
// that a test on loopback opens nothing to the outside.
type oneSocket struct {
	local netip.Addr

	mu     sync.Mutex
	socket *net.UDPConn
}

// place is where a peer is.
type place struct{ netip.AddrPort }

func (p place) ClearSrc()           {}
func (p place) SrcToString() string { return "" }
func (p place) SrcIP() netip.Addr   { return netip.Addr{} }
func (p place) DstIP() netip.Addr   { return p.Addr() }
func (p place) DstToString() string { return p.String() }
func (p place) DstToBytes() []byte {
	b, _ := p.MarshalBinary()
	return b
}

func (b *oneSocket) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socket != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.local, port))
	socket, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, 0, err
	}
	b.socket = socket
	receive := func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := socket.ReadFromUDPAddrPort(packets[0])
		if err != nil {
			return 0, err
		}
		sizes[0] = n
		eps[0] = place{netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
		return 1, nil
	}
	actual := socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return []conn.ReceiveFunc{receive}, actual, nil
}

func (b *oneSocket) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socket == nil {
		return nil
	}
	err := b.socket.Close()
	b.socket = nil
	return err
}

func (b *oneSocket) SetMark(uint32) error { return nil }
func (b *oneSocket) BatchSize() int       { return 1 }

func (b *oneSocket) Send(packets [][]byte, ep conn.Endpoint) error {
	to, ok := ep.(place)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	socket := b.socket
	b.mu.Unlock()
	if socket == nil {
		return net.ErrClosed
	}
	for _, packet := range packets {
		if _, err := socket.WriteToUDPAddrPort(packet, to.AddrPort); err != nil {
			return err
		}
	}
	return nil
}

func (b *oneSocket) ParseEndpoint(text string) (conn.Endpoint, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, err
	}
	return place{at}, nil
}
