package main

import (
	"bytes"
	"fmt"
	"html"
)

// svg draws in units of CSS pixels. Its colours follow the reader's light or dark
// mode.
type svg struct {
	bytes.Buffer
	height int
}

// width of all drawings.
const width = 860

// The kinds of colour; each is a class.
const (
	ours    = "a" // this plugin, and the referrers
	theirs  = "b" // all else, and the image
	auxil   = "c" // authorization
	links   = "d" // connections
	mutedFg = "m"
)

const style = `<style>
text{font:12px system-ui,sans-serif;fill:#1f2328}.m{fill:#59636e}.h{font-weight:600;font-size:13px}
.a{fill:#0969da}.b{fill:#8c959f}.c{fill:#bf8700}.d{fill:#8250df}.line{stroke:#d1d9e0;fill:none}.pa{stroke:#0969da;fill:none;stroke-width:2}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.m{fill:#9198a1}.a{fill:#4493f8}.b{fill:#656c76}.c{fill:#d29922}.d{fill:#ab7df8}.line{stroke:#3d444d}.pa{stroke:#4493f8}}
</style>`

func (s *svg) text(x, y float64, class, anchor, format string, args ...any) {
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(fmt.Sprintf(format, args...)))
}

func (s *svg) bar(x, y, w, h float64, class string) {
	fmt.Fprintf(s, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s"/>`+"\n", x, y, max(w, 1), h, class)
}

func (s *svg) line(x1, y1, x2, y2 float64) {
	fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="line"/>`+"\n", x1, y1, x2, y2)
}

// document returns the drawing as a file, with what it shows in words.
func (s *svg) document(title string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s\n", width, s.height, html.EscapeString(title), style)
	out.Write(s.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}
