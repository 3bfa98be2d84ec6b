package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

// What benchmarks ask for: streams that nobody looks at, small messages to and
// fro, many connections, and what the process has used.

const chunk = 1 << 16

// noise is what is poured: sums over zeros are cheaper than those over anything
// else.
var noise = func() []byte {
	b := make([]byte, chunk)
	rand.Read(b)
	return b
}()

// count takes a stream to its end and answers with its length.
func count(conn net.Conn) {
	n, _ := io.Copy(io.Discard, conn)
	fmt.Fprintf(conn, "%d\n", n)
}

// pour sends noise over some connections at once, and measures until the other
// side has said that it got all of them.
func pour(ctx context.Context, c command) (answer, error) {
	flows := max(c.Count, 1)
	conns := make([]net.Conn, flows)
	for i := range conns {
		conn, err := server.Dial(ctx, c.Network, c.Address)
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
	errs := make(chan error, flows)
	times := make([]float64, flows)
	began := time.Now()
	for i, conn := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs <- pourOne(conn, c.Size/int64(flows))
			times[i] = time.Since(began).Seconds()
		}()
	}
	wg.Wait()
	seconds := time.Since(began).Seconds()
	for range conns {
		if err := <-errs; err != nil {
			return nil, err
		}
	}
	return answer{"seconds": seconds, "times": times}, nil
}

func pourOne(conn net.Conn, size int64) error {
	for left := size; left > 0; {
		n, err := conn.Write(noise[:min(left, chunk)])
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

// pingpong sends messages of some size one after the other, and waits for the
// echo of each.
func pingpong(ctx context.Context, c command) (answer, error) {
	conn, err := server.Dial(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	out, back := make([]byte, c.Size), make([]byte, c.Size)
	rand.Read(out)
	times := make([]float64, c.Count)
	for i := range times {
		began := time.Now()
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, back); err != nil {
			return nil, err
		}
		times[i] = time.Since(began).Seconds()
	}
	return answer{"times": times}, nil
}

// connects opens and closes connections, some at a time.
func connects(ctx context.Context, c command) (answer, error) {
	var wg sync.WaitGroup
	work := make(chan struct{}, c.Count)
	for range c.Count {
		work <- struct{}{}
	}
	close(work)
	errs := make(chan error, c.Count)
	began := time.Now()
	for range max(c.Parallel, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range work {
				conn, err := server.Dial(ctx, c.Network, c.Address)
				if err != nil {
					errs <- err
					return
				}
				conn.Close()
			}
		}()
	}
	wg.Wait()
	seconds := time.Since(began).Seconds()
	select {
	case err := <-errs:
		return nil, err
	default:
	}
	return answer{"seconds": seconds}, nil
}

// crowd starts more nodes in this process, and then connects each to an address;
// it measures how long each takes to connect.
func crowd(ctx context.Context, c command) (answer, error) {
	var started []*tsnet.Server
	for i := range c.Count {
		s := &tsnet.Server{
			Hostname:   fmt.Sprintf("%s-%d", c.Hostname, i),
			ControlURL: c.Control,
			AuthKey:    c.AuthKey,
			Dir:        fmt.Sprintf("%s-%d", c.Dir, i),
			Ephemeral:  true,
			UserLogf:   log.Printf,
			Logf:       logger.Discard,
		}
		if _, err := s.Up(ctx); err != nil {
			s.Close()
			return nil, err
		}
		started = append(started, s)
	}
	members = append(members, started...)
	time.Sleep(time.Duration(c.Pause * float64(time.Second)))
	times := make([]float64, len(started))
	for i, s := range started {
		began := time.Now()
		conn, err := s.Dial(ctx, c.Network, c.Address)
		if err != nil {
			return nil, err
		}
		times[i] = time.Since(began).Seconds()
		conn.Close()
	}
	return answer{"times": times}, nil
}

// members are the nodes that crowd has started.
var members []*tsnet.Server

// usage is what this process took so far.
func usage() (answer, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return nil, err
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return nil, err
	}
	seconds := time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	return answer{"cpu": seconds, "rss": resident * int64(os.Getpagesize())}, nil
}
