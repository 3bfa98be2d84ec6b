// Package tools pins the Headscale server that the tests run against.
//
// It is a module of its own because Headscale needs another version of the
// Tailscale module than the peers that the tests run.
package tools
