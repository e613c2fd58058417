package logging

import (
	"net/netip"
	"regexp"
	"strings"
)

var (
	pemBlock = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(-----END [A-Z0-9 ]+-----|$)`)
	userinfo = regexp.MustCompile(`://[^\s/@"']*@`)
	// What may be an IP address, with a port or a zone.
	address = regexp.MustCompile(`\[?[0-9A-Fa-f]*[.:][0-9A-Fa-f.:]+(%[0-9A-Za-z]+)?\]?(:[0-9]+)?`)
	// An id has 32 hex digits, and a connection's name 16.
	longHex  = regexp.MustCompile(`\b[0-9A-Fa-f]{33,}\b`)
	longText = regexp.MustCompile(`[0-9A-Za-z+/_-]{32,}={0,2}`)
)

// Clean takes out of a text what a log must not hold and what has a form to know it by: IP addresses, what stands
// between :// and @, PEM blocks, long runs of hex or base64.
func Clean(s string) string {
	s = pemBlock.ReplaceAllString(s, "(PEM)")
	s = userinfo.ReplaceAllString(s, "://(credentials)@")
	s = address.ReplaceAllStringFunc(s, hideAddress)
	s = longHex.ReplaceAllString(s, "(bytes)")
	return longText.ReplaceAllStringFunc(s, hideEncoded)
}

func hideAddress(s string) string {
	if isAddress(s) {
		return "(address)"
	}
	if trimmed := strings.TrimRight(s, ".:"); trimmed != s && isAddress(trimmed) { // The end of a sentence.
		return "(address)" + s[len(trimmed):]
	}
	return s
}

func isAddress(s string) bool {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return !p.Addr().IsUnspecified()
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && !a.IsUnspecified()
}

// hideEncoded leaves paths, ids and long words alone: random bytes in base64 have capitals, small letters and digits.
func hideEncoded(s string) string {
	const capitals, small, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
	for _, set := range []string{capitals, small, digits} {
		if !strings.ContainsAny(s, set) {
			return s
		}
	}
	return "(bytes)"
}
