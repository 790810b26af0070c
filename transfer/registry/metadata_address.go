package registry

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// metadataServices are addresses beside the link-local ones.
var metadataServices = []string{"fd00:ec2::254", "fd20:ce::254", "100.100.100.200"}

// linkLocal covers the addresses of clouds' metadata services, which no registry
// redirects to in good faith, and spellings of addresses that only serve to hide
// one. A name that resolves to such an address passes: where a redirect leads there, what
// it answers is held against a digest or read as a listing, and reaches no one. Of a token
// service that is not so, see checkChallenge.
func linkLocal(host string) bool {
	host, _, _ = strings.Cut(strings.TrimSuffix(host, "."), "%")
	for _, c := range []byte(host) {
		if c >= utf8.RuneSelf {
			return true // the client would turn full-width digits into an address
		}
	}
	ip := net.ParseIP(host)
	if ip == nil {
		last := host[strings.LastIndexByte(host, '.')+1:]
		_, err := strconv.ParseUint(last, 0, 64)
		return err == nil // no top-level domain is a number: 2852039166, 0xa9fea9fe
	}
	if ip.IsLinkLocalUnicast() || slices.ContainsFunc(metadataServices, func(a string) bool { return ip.Equal(net.ParseIP(a)) }) {
		return true
	}
	// The last four bytes of ::/96 and of NAT64's 64:ff9b::/96 are IPv4.
	v6, embedded := ip.To16(), ip.To16()[12:]
	for _, prefix := range []string{"::", "64:ff9b::"} {
		if p := net.ParseIP(prefix); ip.To4() == nil && slices.Equal(v6[:12], p[:12]) {
			return linkLocal(embedded.String())
		}
	}
	return false
}
