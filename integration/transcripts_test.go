package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// play is a registry that answers as another does about one image, of two subjects: its index, which is signed,
// and one platform's manifest.
type play struct {
	registry  *registry.Registry
	site      *registry.Registry // that it sends clients to; has the image as well
	mirror    *registry.Registry // before it, nil where there is none
	index     ocispec.Descriptor
	platform  ocispec.Descriptor
	signature ocispec.Descriptor
}

// put puts the image into a registry.
func (p *play) put(t *testing.T, reg *registry.Registry, text string) {
	t.Helper()
	p.platform = pushSmall(t, reg, "app", "", text).Descriptor
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{p.platform},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.index, err = reg.PushManifest(testContext(t), "app", "v1", ocispec.MediaTypeImageIndex, data); err != nil {
		t.Fatal(err)
	}
	p.signature, _ = attach(t, reg, "app", p.index, "application/vnd.cncf.notary.signature", []byte("signature of "+text))
	p.signature.ArtifactType = "application/vnd.cncf.notary.signature"
}

// of says what a request is about, "" where it is the image's own.
func (p *play) of(method, path string) string {
	_, rest, _ := strings.Cut(path, "/app/")
	kind, reference, _ := strings.Cut(rest, "/")
	switch {
	case strings.HasPrefix(path, "/token"):
		return "token"
	case kind == "referrers" && strings.Contains(reference, "page=2"):
		return "page 2"
	case kind == "referrers":
		return "referrers"
	case kind == "manifests" && strings.HasPrefix(reference, "sha256-"):
		return "tag"
	case kind == "manifests" && strings.HasPrefix(reference, p.signature.Digest.String()):
		return "signature"
	case kind == "manifests" && method == http.MethodHead && strings.HasPrefix(reference, "sha256:"):
		return "manifest"
	}
	return ""
}

// requests returns those of a pull that are not the image's own, sorted: subjects are asked about at once.
func (p *play) requests() []string {
	var out []string
	for _, host := range []struct {
		name string
		reg  *registry.Registry
	}{{"", p.registry}, {"other host ", p.site}, {"mirror ", p.mirror}} {
		if host.reg == nil {
			continue
		}
		for _, r := range host.reg.Requests() {
			what := p.of(r.Method, r.Path)
			if what == "" {
				continue
			}
			if r.Method == http.MethodHead {
				what = "HEAD " + what
			}
			out = append(out, fmt.Sprintf("%s%s %d", host.name, what, r.Code))
		}
		host.reg.Reset()
	}
	slices.Sort(out)
	return out
}

// say answers with a body.
func say(w http.ResponseWriter, code int, mediaType string, body []byte) bool {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(code)
	_, _ = w.Write(body)
	return true
}

// listing is an index of the descriptors.
func listing(entries ...ocispec.Descriptor) []byte {
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, entries...),
	})
	if err != nil {
		panic(err) // descriptors of the test's own making
	}
	return data
}

// faultOf is a fault by what a request is about, "image" of the image's own manifests; what it leaves is the registry's to answer.
func (p *play) faultOf(answers map[string]func(w http.ResponseWriter, q *http.Request, subject digest.Digest) bool) registry.Fault {
	return func(w http.ResponseWriter, q *http.Request) bool {
		subject := digest.Digest(strings.Replace(path.Base(q.URL.Path), "sha256-", "sha256:", 1))
		what := p.of(q.Method, q.URL.RequestURI())
		if what == "" && strings.Contains(q.URL.Path, "/manifests/") {
			what = "image"
		}
		answer := answers[what]
		return answer != nil && answer(w, q, subject)
	}
}

type answering = map[string]func(w http.ResponseWriter, q *http.Request, subject digest.Digest) bool

// says answers the same about both subjects.
func says(code int, mediaType, body string) func(http.ResponseWriter, *http.Request, digest.Digest) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ digest.Digest) bool {
		return say(w, code, mediaType, []byte(body))
	}
}

// toSite redirects to the site.
func (p *play) toSite(code int) func(http.ResponseWriter, *http.Request, digest.Digest) bool {
	return func(w http.ResponseWriter, q *http.Request, _ digest.Digest) bool {
		w.Header().Set("Location", p.site.URL()+q.URL.Path)
		w.WriteHeader(code)
		return true
	}
}

// signedTag has the signature under the index's fallback tag, and nothing under the manifest's.
func (p *play) signedTag(w http.ResponseWriter, _ *http.Request, subject digest.Digest) bool {
	if subject == p.index.Digest {
		body := listing(p.signature)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
		return say(w, http.StatusOK, ocispec.MediaTypeImageIndex, body)
	}
	return say(w, http.StatusNotFound, "application/json", []byte(`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`))
}

const (
	pageNotFound = "404 page not found\n"
	anonymous    = "" // WithToken gives a token to anyone
)

// Each registry that transfer/registry has a transcript of is played to whole pulls: what a daemon then says of the
// image's subjects, what it took, and what it asked for beside the image, at the first pull and at the next.
func TestTranscriptsOfWholePulls(t *testing.T) {
	token, basic := registry.WithToken(anonymous, ""), registry.WithBasic("AWS", "secret")
	signIn := strings.Repeat("<p>Sign in</p>", 1000)
	for _, tc := range []struct {
		registry        string
		opts            []registry.Option
		flags           []string
		script          func(p *play) answering // of the registry
		site            func(p *play) answering
		mirror          bool
		index, platform labels.Status
		taken           int
		first, next     string
		// atOnce says that what is learnt of one subject may come too late for the other, which is asked about at
		// the same time: requests that are made for both are one here.
		atOnce bool
	}{
		{
			registry: "Amazon ECR", opts: []registry.Option{basic}, flags: []string{"-u", "AWS:secret"},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "referrers 200, referrers 200, signature 200", next: "referrers 200, referrers 200",
		},
		{
			registry: "Artifactory, before 7.90", opts: []registry.Option{token},
			script: func(*play) answering {
				return answering{"referrers": says(404, "text/plain", pageNotFound), "tag": says(403, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)}
			},
			index: labels.Unknown, platform: labels.Unknown,
			first: "referrers 404, referrers 404, tag 403, tag 403, token 200",
			next:  "HEAD tag 403, HEAD tag 403, referrers 404, referrers 404",
		},
		{
			registry: "Azure ACR", opts: []registry.Option{token},
			script: func(p *play) answering {
				page := func(entries ...ocispec.Descriptor) func(http.ResponseWriter, *http.Request, digest.Digest) bool {
					return func(w http.ResponseWriter, q *http.Request, subject digest.Digest) bool {
						if subject != p.index.Digest {
							return false
						}
						if q.URL.RawQuery == "" {
							w.Header().Set("Link", "<"+q.URL.Path+`?page=2>; rel="next"`)
						}
						return say(w, http.StatusOK, ocispec.MediaTypeImageIndex, listing(entries...))
					}
				}
				return answering{"referrers": page(), "page 2": page(p.signature)}
			},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "page 2 200, referrers 200, referrers 200, signature 200, token 200",
			next:  "page 2 200, referrers 200, referrers 200",
		},
		{
			registry: "distribution",
			script: func(p *play) answering {
				return answering{"referrers": says(404, "text/plain", pageNotFound), "tag": p.signedTag}
			},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first:  "referrers 404, signature 200, tag 200, tag 404",
			next:   "HEAD tag 200, HEAD tag 404",
			atOnce: true,
		},
		{
			registry: "Docker Hub", opts: []registry.Option{token},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "referrers 200, referrers 200, signature 200, token 200",
			next:  "referrers 200, referrers 200",
		},
		{
			registry: "GHCR", opts: []registry.Option{token},
			script: func(p *play) answering { return answering{"referrers": p.toSite(303), "tag": p.signedTag} },
			site:   func(*play) answering { return answering{"referrers": says(404, "text/plain", "Not Found")} },
			index:  labels.Present, platform: labels.Absent, taken: 1,
			first:  "other host referrers 404, referrers 303, signature 200, tag 200, tag 404, token 200",
			next:   "HEAD tag 200, HEAD tag 404",
			atOnce: true,
		},
		{
			registry: "GitLab", opts: []registry.Option{token},
			script: func(p *play) answering {
				return answering{"referrers": says(404, "text/plain", pageNotFound), "tag": p.asDigest}
			},
			index: labels.Absent, platform: labels.Absent,
			first:  "referrers 404, tag 200, token 200",
			next:   "HEAD tag 200",
			atOnce: true,
		},
		{
			registry: "Google Artifact Registry, before 2026",
			script:   func(p *play) answering { return answering{"referrers": p.toSite(302), "tag": p.signedTag} },
			site:     func(*play) answering { return answering{"referrers": says(200, "text/html", signIn)} },
			index:    labels.Unknown, platform: labels.Unknown, taken: 1,
			first:  "other host referrers 200, referrers 302, signature 200, tag 200, tag 404",
			next:   "HEAD tag 200, HEAD tag 404, other host referrers 200, referrers 302",
			atOnce: true,
		},
		{
			registry: "Harbor, before 2.11", opts: []registry.Option{token},
			script: func(p *play) answering {
				return answering{"referrers": func(w http.ResponseWriter, _ *http.Request, subject digest.Digest) bool {
					var entries []ocispec.Descriptor
					if subject == p.index.Digest {
						large := p.signature
						large.Size = 50 << 20 // of all that it holds
						entries = append(entries, large)
					}
					return say(w, http.StatusOK, "application/json", listing(entries...))
				}}
			},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "referrers 200, referrers 200, signature 200, token 200",
			next:  "referrers 200, referrers 200",
		},
		{
			registry: "Harbor, a mirror that caches", mirror: true,
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "mirror referrers 200, mirror referrers 200, mirror signature 200, referrers 200",
			next:  "mirror referrers 200, mirror referrers 200, referrers 200",
		},
		{
			registry: "Quay", opts: []registry.Option{token},
			script: func(p *play) answering {
				return answering{"referrers": func(w http.ResponseWriter, _ *http.Request, subject digest.Digest) bool {
					return subject == p.platform.Digest && say(w, http.StatusBadRequest, "application/json", []byte(`{"errors":[{"code":"MANIFEST_INVALID"}]}`))
				}}
			},
			index: labels.Present, platform: labels.Unknown, taken: 1,
			first: "referrers 200, referrers 400, signature 200, tag 404, token 200",
			next:  "HEAD tag 404, referrers 200, referrers 400",
		},
		{
			registry: "registry.k8s.io",
			script: func(p *play) answering {
				return answering{
					"referrers": says(404, "text/html", "<html>"),
					"tag":       p.toSite(307), "image": p.toSite(307), "manifest": p.toSite(307),
				}
			},
			index: labels.Absent, platform: labels.Absent,
			first:  "HEAD manifest 307, other host HEAD manifest 200, other host tag 404, referrers 404, tag 307",
			next:   "HEAD manifest 307, HEAD tag 307, other host HEAD manifest 200, other host HEAD tag 404",
			atOnce: true,
		},
		{
			registry: "zot",
			script: func(p *play) answering {
				return answering{"referrers": func(w http.ResponseWriter, _ *http.Request, subject digest.Digest) bool {
					return subject == p.platform.Digest && say(w, http.StatusNotFound, "application/json", []byte(`{"errors":[{"code":"NOT_FOUND"}]}`))
				}}
			},
			index: labels.Present, platform: labels.Absent, taken: 1,
			first: "referrers 200, referrers 404, signature 200, tag 404",
			next:  "HEAD tag 404, referrers 200, referrers 404",
		},
	} {
		t.Run(tc.registry, func(t *testing.T) {
			p := &play{registry: startRegistry(t, registry.Olareg, tc.opts...), site: startRegistry(t, registry.Olareg)}
			p.put(t, p.site, tc.registry)
			p.put(t, p.registry, tc.registry)
			if tc.script != nil {
				p.registry.Fail(p.faultOf(tc.script(p)))
			}
			if tc.site != nil {
				p.site.Fail(p.faultOf(tc.site(p)))
			}
			flags := append([]string{"--plain-http"}, tc.flags...)
			if tc.mirror {
				p.mirror = startRegistry(t, registry.Olareg)
				p.put(t, p.mirror, tc.registry)
				flags = append(tc.flags, "--hosts-dir", mirrored(t, p.registry, p.mirror))
			}
			d := startDaemon(t, active("cosign_tags = \"never\"\n"+everything))
			image := p.registry.Host + "/app:v1"
			_ = p.requests() // those that filled it
			for n, want := range []string{tc.first, tc.next} {
				pull(t, d, image, flags...)
				got := p.requests()
				if tc.atOnce {
					got = slices.Compact(got)
				}
				if got := strings.Join(got, ", "); got != want {
					t.Errorf("pull %d asked\n%s\nwant\n%s", n, got, want)
				}
				read := ls(t, d, image)
				status := map[digest.Digest]labels.Status{}
				for _, s := range read.Subjects {
					status[s.Digest] = s.Status
				}
				if status[p.index.Digest] != tc.index || status[p.platform.Digest] != tc.platform || len(read.Referrers) != tc.taken {
					t.Errorf("after pull %d: %v with %d taken, want %s and %s with %d", n, status, len(read.Referrers), tc.index, tc.platform, tc.taken)
				}
				if tc.taken == 1 && read.Referrers[0].Digest != p.signature.Digest {
					t.Errorf("taken is %s, want the signature", read.Referrers[0].Digest)
				}
			}
			wantClean(t, d)
		})
	}
}

// asDigest reads a fallback tag as a digest, as GitLab does.
func (p *play) asDigest(w http.ResponseWriter, _ *http.Request, subject digest.Digest) bool {
	resp, err := http.Get(p.registry.Backend + "/v2/app/manifests/" + subject.String())
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, resp.Body); err != nil {
		return false
	}
	w.Header().Set("Docker-Content-Digest", subject.String())
	return say(w, resp.StatusCode, resp.Header.Get("Content-Type"), body.Bytes())
}
