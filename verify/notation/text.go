package notation

import "strconv"

// maxText is how many bytes of a text from the network enter a message.
const maxText = 200

// cut shortens a text that comes from the network.
func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// quote cuts a text that comes from the network, and quotes it.
func quote(s string) string { return strconv.Quote(cut(s)) }
