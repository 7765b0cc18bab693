package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// In dev the address has a name, where browsers know one.
func TestLocalhostIsANameOfItsAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:8080": "localhost:8080", "[::1]:8080": "localhost:8080", "127.0.0.2:8080": "127.0.0.2:8080",
	} {
		if got := localhost(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

// Browsers that are sent to localhost must not find another program there.
func TestAnotherProgramAtLocalhostIsNoticed(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkLocalhost(t.Context(), "[::1]:"+port); err == nil || !strings.HasPrefix(err.Error(), "--listen: another program is at 127.0.0.1:"+port) {
		t.Errorf("another program is there: %v", err)
	}
	for _, free := range []string{"127.0.0.1:" + port, "localhost:" + port, "127.0.0.2:" + port, "[::1]:0"} {
		if err := checkLocalhost(t.Context(), free); err != nil {
			t.Errorf("%s: %v", free, err)
		}
	}
}
