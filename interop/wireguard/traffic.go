package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/tun/netstack"
)

// pattern is a stream of bytes that the test can compute as well: a linear
// congruential generator that gives one byte a step.
type pattern struct{ state uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.state = p.state*6364136223846793005 + 1442695040888963407
		b[i] = byte(p.state >> 56)
	}
	return len(b), nil
}

// listenUDP echoes on a port of the tunnel until the program ends.
func listenUDP(inside *netstack.Net, c command) (answer, error) {
	pc, err := inside.ListenUDP(&net.UDPAddr{Port: c.Port})
	if err != nil {
		return nil, err
	}
	go echoDatagrams(pc)
	return answer{"address": pc.LocalAddr().String()}, nil
}

// listen serves on a port of the tunnel until the program ends.
func listen(inside streams, c command) (answer, error) {
	ln, err := inside.ListenTCP(&net.TCPAddr{Port: c.Port})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn, c)
		}
	}()
	return answer{"address": ln.Addr().String()}, nil
}

func echoDatagrams(pc net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo(buf[:n], from)
	}
}

func serve(conn net.Conn, c command) {
	defer conn.Close()
	switch c.Mode {
	case "echo":
		io.Copy(conn, conn)
	case "source":
		io.CopyN(conn, &pattern{c.Seed}, c.Size)
	case "count":
		// For benchmarks: nobody looks at the bytes.
		n, _ := io.Copy(io.Discard, conn)
		fmt.Fprintf(conn, "%d\n", n)
	case "sink":
		// Once the other side has ended, it is told what arrived.
		h := sha256.New()
		n, _ := io.Copy(h, conn)
		fmt.Fprintf(conn, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	}
}

// dial connects, sends a pattern, ends its side and reads until the other ends.
func dial(ctx context.Context, inside streams, c command) (answer, error) {
	began := time.Now()
	conn, err := inside.DialContext(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if strings.HasPrefix(c.Network, "udp") {
		return exchange(ctx, conn, c)
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	connected := time.Since(began)
	sent, got := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(conn, sent), &pattern{c.Seed}, c.Size)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		done <- err
	}()
	n, err := io.Copy(got, conn)
	if err == nil {
		err = <-done
	}
	return answer{
		"received":       n,
		"receivedSHA256": hex.EncodeToString(got.Sum(nil)),
		"sentSHA256":     hex.EncodeToString(sent.Sum(nil)),
		"connectSeconds": connected.Seconds(),
		"seconds":        time.Since(began).Seconds(),
	}, err
}

// noise is what is poured: sums over zeros are cheaper than those over anything
// else.
var noise = func() []byte {
	b := make([]byte, 1<<16)
	rand.Read(b)
	return b
}()

// pour sends noise over some connections at once, and measures until the other
// side has said that it got all of them.
func pour(ctx context.Context, inside streams, c command) (answer, error) {
	flows := max(c.Count, 1)
	conns := make([]net.Conn, flows)
	for i := range conns {
		conn, err := inside.DialContext(ctx, c.Network, c.Address)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if deadline, ok := ctx.Deadline(); ok {
			conn.SetDeadline(deadline)
		}
		conns[i] = conn
	}
	var wg sync.WaitGroup
	errs := make([]error, flows)
	times := make([]float64, flows)
	began := time.Now()
	for i, conn := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = pourOne(conn, c.Size/int64(flows))
			times[i] = time.Since(began).Seconds()
		}()
	}
	wg.Wait()
	seconds := time.Since(began).Seconds()
	return answer{"seconds": seconds, "times": times}, errors.Join(errs...)
}

func pourOne(conn net.Conn, size int64) error {
	for left := size; left > 0; {
		n, err := conn.Write(noise[:min(left, int64(len(noise)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	told, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d\n", size); string(told) != want {
		return fmt.Errorf("the other side got %q, not %q", told, want)
	}
	return nil
}

// usage is the processor time that this process took so far.
func usage() (answer, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return nil, err
	}
	seconds := time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	return answer{"cpu": seconds}, nil
}

// exchange sends a datagram and waits for one, again each second.
func exchange(ctx context.Context, conn net.Conn, c command) (answer, error) {
	out := make([]byte, c.Size)
	(&pattern{c.Seed}).Read(out)
	buf := make([]byte, 1<<16)
	for tries := 1; ctx.Err() == nil; tries++ {
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(buf)
		if err == nil {
			return answer{
				"tries": tries, "size": n, "equal": bytes.Equal(buf[:n], out),
			}, nil
		}
	}
	return nil, errors.New("no answer")
}

// ping sends an ICMP echo request, again each second, and waits for its answer.
func ping(ctx context.Context, inside *netstack.Net, c command) (answer, error) {
	to, err := netip.ParseAddr(c.Address)
	if err != nil {
		return nil, err
	}
	conn, err := inside.DialPingAddr(netip.Addr{}, to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	payload := make([]byte, c.Size)
	(&pattern{c.Seed}).Read(payload)
	buf := make([]byte, 1<<16)
	for tries := 1; ctx.Err() == nil; tries++ {
		// The stack fills in identifier and checksum.
		request := append([]byte{8, 0, 0, 0, 0, 0, 0, byte(tries)}, payload...)
		if to.Is6() {
			request[0] = 128
		}
		began := time.Now()
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(began.Add(time.Second))
		n, err := conn.Read(buf)
		if err == nil && n >= 8 {
			return answer{
				"tries":   tries,
				"equal":   bytes.Equal(buf[8:n], payload),
				"seconds": time.Since(began).Seconds(),
			}, nil
		}
	}
	return nil, errors.New("no answer")
}
