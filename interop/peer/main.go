// The peer program joins a tailnet with tsnet and does what a test tells it.
//
// It reads one JSON object a line on its standard input and answers each with
// one JSON object a line on its standard output. Commands run at the same
// time; an answer carries the id of its command.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

// command is one line of input.
type command struct {
	ID  int    `json:"id"`
	Cmd string `json:"cmd"`

	// For start.
	Hostname  string   `json:"hostname"`
	Control   string   `json:"control"`
	AuthKey   string   `json:"authkey"`
	Dir       string   `json:"dir"`
	Ephemeral bool     `json:"ephemeral"`
	Tags      []string `json:"tags"`
	Verbose   bool     `json:"verbose"`

	// For the rest.
	Network string `json:"network"` // tcp, tcp6, udp …
	Address string `json:"address"` // host:port, or :port to listen
	Size    int64  `json:"size"`    // bytes to send
	Seed    uint64 `json:"seed"`    // of the bytes to send
	Mode    string `json:"mode"`    // echo, sink, source, count, http; or a ping type
	URL     string `json:"url"`

	// For benchmarks.
	Count    int     `json:"count"`    // flows, messages, connections or nodes
	Parallel int     `json:"parallel"` // connections at a time
	Pause    float64 `json:"pause"`    // seconds before nodes connect
	Timeout  int     `json:"timeout"`  // seconds
}

type answer map[string]any

var (
	outMu  sync.Mutex
	server *tsnet.Server
)

func reply(id int, a answer, err error) {
	if a == nil {
		a = answer{}
	}
	a["id"] = id
	a["ok"] = err == nil
	if err != nil {
		a["error"] = err.Error()
	}
	line, _ := json.Marshal(a)
	outMu.Lock()
	defer outMu.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// pattern yields a stream of bytes that both ends of a test can compute:
// a linear congruential generator, one byte a step.
type pattern struct{ x uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.x = p.x*6364136223846793005 + 1442695040888963407
		b[i] = byte(p.x >> 56)
	}
	return len(b), nil
}

func main() {
	log.SetOutput(os.Stderr)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<16), 1<<20)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			reply(0, nil, err)
			continue
		}
		if c.Cmd == "quit" {
			if server != nil {
				server.Close()
			}
			reply(c.ID, nil, nil)
			return
		}
		go func() {
			a, err := run(c)
			reply(c.ID, a, err)
		}()
	}
	if server != nil {
		server.Close()
	}
}

func run(c command) (answer, error) {
	if c.Timeout == 0 {
		c.Timeout = 60
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Timeout)*time.Second)
	defer cancel()
	if c.Cmd != "start" && server == nil {
		return nil, errors.New("not started")
	}
	switch c.Cmd {
	case "start":
		return start(ctx, c)
	case "status":
		return status(ctx)
	case "listen":
		return listen(c)
	case "dial":
		return dial(ctx, c)
	case "ping":
		return ping(ctx, c)
	case "get":
		return get(ctx, c)
	case "whois":
		return whois(ctx, c)
	case "logout":
		lc, err := server.LocalClient()
		if err != nil {
			return nil, err
		}
		return nil, lc.Logout(ctx)
	case "prefs":
		return prefs(ctx, c)
	case "pour":
		return pour(ctx, c)
	case "pingpong":
		return pingpong(ctx, c)
	case "connects":
		return connects(ctx, c)
	case "crowd":
		return crowd(ctx, c)
	case "usage":
		return usage()
	}
	return nil, fmt.Errorf("unknown command %q", c.Cmd)
}

func start(ctx context.Context, c command) (answer, error) {
	s := &tsnet.Server{
		Hostname:      c.Hostname,
		ControlURL:    c.Control,
		AuthKey:       c.AuthKey,
		Dir:           c.Dir,
		Ephemeral:     c.Ephemeral,
		AdvertiseTags: c.Tags,
		UserLogf:      log.Printf,
		Logf:          logger.Discard,
	}
	if c.Verbose {
		s.Logf = log.Printf
	}
	began := time.Now()
	st, err := s.Up(ctx)
	if err != nil {
		s.Close()
		return nil, err
	}
	server = s
	return answer{
		"addresses": st.TailscaleIPs,
		"name":      strings.TrimSuffix(st.Self.DNSName, "."),
		"state":     st.BackendState,
		"seconds":   time.Since(began).Seconds(),
	}, nil
}

func status(ctx context.Context) (answer, error) {
	lc, err := server.LocalClient()
	if err != nil {
		return nil, err
	}
	st, err := lc.Status(ctx)
	if err != nil {
		return nil, err
	}
	peers := []answer{}
	for _, p := range st.Peer {
		peers = append(peers, answer{
			"name":      strings.TrimSuffix(p.DNSName, "."),
			"addresses": p.TailscaleIPs,
			"online":    p.Online,
			"relay":     p.Relay,
			"direct":    p.CurAddr,
			"key":       p.PublicKey.String(),
		})
	}
	return answer{"state": st.BackendState, "peers": peers, "health": st.Health}, nil
}

// listen serves on a TCP or UDP address of the tailnet until the end.
func listen(c command) (answer, error) {
	if strings.HasPrefix(c.Network, "udp") {
		pc, err := server.ListenPacket(c.Network, c.Address)
		if err != nil {
			return nil, err
		}
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				pc.WriteTo(buf[:n], from)
			}
		}()
		return answer{"address": pc.LocalAddr().String()}, nil
	}
	ln, err := server.Listen(c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	if c.Mode == "http" {
		go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello from %s to %s\n", server.Hostname, r.RemoteAddr)
		}))
		return answer{"address": ln.Addr().String()}, nil
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

func serve(conn net.Conn, c command) {
	defer conn.Close()
	switch c.Mode {
	case "echo":
		io.Copy(conn, conn)
	case "source":
		io.CopyN(conn, &pattern{c.Seed}, c.Size)
	case "count":
		count(conn)
	case "sink":
		// Answers, once the other side has ended, with what it got.
		h := sha256.New()
		n, _ := io.Copy(h, conn)
		fmt.Fprintf(conn, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	}
}

// dial connects, sends size bytes of a pattern, closes the sending side and
// reads to the end.
func dial(ctx context.Context, c command) (answer, error) {
	began := time.Now()
	conn, err := server.Dial(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	connected := time.Since(began)
	if strings.HasPrefix(c.Network, "udp") {
		return exchange(conn, c)
	}
	sent := sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(conn, sent), &pattern{c.Seed}, c.Size)
		if cw, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = cw.CloseWrite()
		}
		done <- err
	}()
	got := sha256.New()
	head := &head{limit: 200}
	n, err := io.Copy(io.MultiWriter(got, head), conn)
	if err == nil {
		err = <-done
	}
	return answer{
		"received":       n,
		"receivedSHA256": hex.EncodeToString(got.Sum(nil)),
		"sentSHA256":     hex.EncodeToString(sent.Sum(nil)),
		"head":           string(head.data),
		"connectSeconds": connected.Seconds(),
		"seconds":        time.Since(began).Seconds(),
	}, err
}

// exchange sends one datagram and waits for one, trying again each second.
func exchange(conn net.Conn, c command) (answer, error) {
	out := make([]byte, c.Size)
	(&pattern{c.Seed}).Read(out)
	buf := make([]byte, 1<<16)
	for tries := 1; tries <= c.Timeout; tries++ {
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(buf)
		if err == nil {
			return answer{"tries": tries, "size": n, "equal": string(buf[:n]) == string(out)}, nil
		}
	}
	return nil, errors.New("no answer")
}

type head struct {
	data  []byte
	limit int
}

func (h *head) Write(b []byte) (int, error) {
	if room := h.limit - len(h.data); room > 0 {
		h.data = append(h.data, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func ping(ctx context.Context, c command) (answer, error) {
	lc, err := server.LocalClient()
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(c.Address)
	if err != nil {
		return nil, err
	}
	r, err := lc.Ping(ctx, ip, tailcfg.PingType(c.Mode))
	if err != nil {
		return nil, err
	}
	if r.Err != "" {
		return nil, errors.New(r.Err)
	}
	return answer{
		"latency":  r.LatencySeconds,
		"endpoint": r.Endpoint,
		"relay":    r.PeerRelay,
		"derp":     r.DERPRegionCode,
		"node":     r.NodeName,
	}, nil
}

func get(ctx context.Context, c command) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", c.URL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := server.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{"status": resp.StatusCode, "body": string(body)}, err
}

func whois(ctx context.Context, c command) (answer, error) {
	lc, err := server.LocalClient()
	if err != nil {
		return nil, err
	}
	w, err := lc.WhoIs(ctx, c.Address)
	if err != nil {
		return nil, err
	}
	return answer{"node": w.Node.Name, "user": w.UserProfile.LoginName}, nil
}

// prefs turns shields-up on (mode "shields-up") or off.
func prefs(ctx context.Context, c command) (answer, error) {
	lc, err := server.LocalClient()
	if err != nil {
		return nil, err
	}
	_, err = lc.EditPrefs(ctx, &ipn.MaskedPrefs{
		Prefs:        ipn.Prefs{ShieldsUp: c.Mode == "shields-up"},
		ShieldsUpSet: true,
	})
	return nil, err
}
