package registry

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// transcripts are what registries answer, in the order of docs/registries.md, which says
// where that is known from. A new one is written here, and the page with -update.
var transcripts = []transcript{
	{registry: "Amazon ECR", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.basic(); p.signed(referrersOf) }},
	{registry: "Amazon ECR", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.basic(); p.each(referrersOf, hostile.Index()) }},
	{registry: "Artifactory", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/v2/token"); p.signed(referrersOf) }},
	{registry: "Artifactory, before 7.90", image: "unsigned", index: labels.Unknown, platform: labels.Unknown,
		first: "referrers 404, tag 403, referrers 404, tag 403",
		script: func(p *play) {
			p.bearer("/token")
			p.each(referrersOf, pageNotFound)
			p.each(tagOf, ociError(403, "UNAUTHORIZED"))
		}},
	{registry: "Azure ACR", image: "signed, on two pages", index: labels.Present, platform: labels.Absent, taken: 2,
		first: "referrers 200, page 2 200, referrers 200",
		script: func(p *play) {
			p.bearer("/oauth2/token")
			p.registry.On(referrersOf(index), hostile.Index(entry(1)).With("Link", next("?page=2")), hostile.Index(entry(2)),
				hostile.Index(entry(1)).With("Link", next("?page=2")), hostile.Index(entry(2)))
			p.registry.On(referrersOf(platform), hostile.Index())
		}},
	{registry: "Azure ACR", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/oauth2/token"); p.each(referrersOf, hostile.Index()) }},
	{registry: "distribution", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "referrers 404, tag 200, tag 404",
		next:  "tag 200, tag 404",
		script: func(p *play) {
			p.each(referrersOf, pageNotFound)
			p.registry.On(tagOf(index), hostile.Index(entry(1)))
		}},
	{registry: "distribution", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 404, tag 404, referrers 404, tag 404",
		script: func(p *play) { p.each(referrersOf, pageNotFound) }},
	{registry: "Docker Hub", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/token"); p.signed(referrersOf) }},
	{registry: "Docker Hub", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/token"); p.each(referrersOf, hostile.Index()) }},
	{registry: "GHCR", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "referrers 303, other host referrers 404, tag 200, tag 404",
		next:  "tag 200, tag 404",
		script: func(p *play) {
			ghcr(p, refusal(404, "text/plain", "Not Found"))
			p.registry.On(tagOf(index), hostile.Index(entry(1)))
		}},
	{registry: "GHCR", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 303, other host referrers 404, tag 404, HEAD manifest 200, tag 404",
		next:   "tag 404, tag 404",
		script: func(p *play) { ghcr(p, refusal(404, "text/plain", "Not Found")) }},
	{registry: "GHCR, whose other host limits requests", image: "unsigned", index: labels.Unknown, platform: labels.Unknown,
		first:  "referrers 303, other host referrers 429, tag 404, tag 404",
		script: func(p *play) { ghcr(p, hostile.Status(429).With("Retry-After", "60")) }},
	{registry: "GHCR, whose other host a firewall hides", image: "signed", index: labels.Unknown, platform: labels.Unknown, taken: 1,
		first: "referrers 303, other host referrers -, tag 200, tag 404",
		next:  "tag 200, tag 404",
		script: func(p *play) {
			ghcr(p, hostile.Answer{Hang: true})
			p.registry.On(tagOf(index), hostile.Index(entry(1)))
		}},
	{registry: "GHCR, whose other host a firewall hides", image: "unsigned", index: labels.Unknown, platform: labels.Unknown,
		first:  "referrers 303, other host referrers -, tag 404, tag 404",
		next:   "tag 404, tag 404",
		script: func(p *play) { ghcr(p, hostile.Answer{Hang: true}) }},
	{registry: "GitLab", image: "any", index: labels.Absent, platform: labels.Absent,
		first: "referrers 404, tag 200, tag 200",
		next:  "tag 200, tag 200",
		script: func(p *play) {
			p.bearer("/jwt/auth")
			p.each(referrersOf, pageNotFound)
			p.registry.On(tagOf(index), hostile.Content(ocispec.MediaTypeImageIndex, indexBody))
			p.registry.On(tagOf(platform), hostile.Content(ocispec.MediaTypeImageManifest, []byte("the platform's manifest")))
		}},
	{registry: "GitLab, its dependency proxy", image: "any", index: labels.Unknown, platform: labels.Unknown,
		first:  "referrers 200, tag 404, referrers 200, tag 404",
		script: func(p *play) { p.bearer("/jwt/auth"); p.each(referrersOf, signIn) }},
	{registry: "Google Artifact Registry", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/v2/token"); p.signed(referrersOf) }},
	{registry: "Google Artifact Registry", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/v2/token"); p.each(referrersOf, hostile.Index()) }},
	{registry: "Google Artifact Registry, before 2026", image: "signed", index: labels.Unknown, platform: labels.Unknown, taken: 1,
		first: "referrers 302, other host referrers 200, tag 200, tag 404",
		script: func(p *play) {
			p.elsewhere(302, referrersOf, signIn)
			p.registry.On(tagOf(index), hostile.Index(entry(1)))
		}},
	{registry: "Harbor", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/service/token"); p.signed(referrersOf) }},
	{registry: "Harbor", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/service/token"); p.each(referrersOf, hostile.Index()) }},
	{registry: "Harbor, before 2.11", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "referrers 200, referrers 200",
		script: func(p *play) {
			p.bearer("/service/token")
			large := entry(1)
			large.Size = 50 << 20 // of all that it holds
			p.registry.On(referrersOf(index), hostile.Index(large).With("Content-Type", "application/json"))
			p.registry.On(referrersOf(platform), hostile.Index().With("Content-Type", "application/json"))
		}},
	{registry: "Harbor, a mirror that caches", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "mirror referrers 200, mirror referrers 200, referrers 200",
		script: func(p *play) {
			p.mirror.On(referrersOf(index), hostile.Index(entry(1)))
			p.mirror.On(referrersOf(platform), hostile.Index())
			p.signed(referrersOf)
		}},
	{registry: "Harbor, a mirror that caches before August 2026", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "mirror referrers 200, referrers 200, mirror referrers 200, referrers 200",
		script: func(p *play) {
			p.mirror.On(referrersOf(index), hostile.Index())
			p.mirror.On(referrersOf(platform), hostile.Index())
			p.signed(referrersOf)
		}},
	{registry: "Quay", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/v2/auth"); p.signed(referrersOf) }},
	{registry: "Quay", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.bearer("/v2/auth"); p.each(referrersOf, hostile.Index()) }},
	{registry: "Quay", image: "without the platform's manifest", index: labels.Absent, platform: labels.Unknown,
		first: "referrers 200, referrers 400, tag 404",
		script: func(p *play) {
			p.bearer("/v2/auth")
			p.registry.On(referrersOf(index), hostile.Index())
			p.registry.On(referrersOf(platform), ociError(400, "MANIFEST_INVALID"))
		}},
	{registry: "registry.k8s.io", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 404, tag 307, other host tag 404, HEAD manifest 307, other host HEAD manifest 200, tag 307, other host tag 404",
		next:   "tag 307, other host tag 404, HEAD manifest 307, other host HEAD manifest 200, tag 307, other host tag 404",
		script: func(p *play) { k8s(p); p.each(referrersOf, refusal(404, "text/html", "<html>")) }},
	{registry: "registry.k8s.io, redirecting listings as well", image: "unsigned", index: labels.Absent, platform: labels.Absent,
		first:  "referrers 307, other host referrers 404, tag 307, other host tag 404, HEAD manifest 307, other host HEAD manifest 200, tag 307, other host tag 404",
		next:   "tag 307, other host tag 404, HEAD manifest 307, other host HEAD manifest 200, tag 307, other host tag 404",
		script: func(p *play) { k8s(p); p.elsewhere(307, referrersOf, pageNotFound) }},
	{registry: "registry.k8s.io, redirecting listings as well", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first: "referrers 307, other host referrers 200, referrers 307, other host referrers 200",
		script: func(p *play) {
			k8s(p)
			p.elsewhere(307, referrersOf, hostile.Index())
			p.site.On(referrersOf(index), hostile.Index(entry(1)))
		}},
	{registry: "zot", image: "signed", index: labels.Present, platform: labels.Absent, taken: 1,
		first:  "referrers 200, referrers 200",
		script: func(p *play) { p.signed(referrersOf) }},
	{registry: "zot", image: "without the platform's manifest", index: labels.Absent, platform: labels.Absent,
		first: "referrers 200, referrers 404, tag 404",
		script: func(p *play) {
			p.registry.On(referrersOf(index), hostile.Index())
			p.registry.On(referrersOf(platform), hostile.Status(404))
		}},
}

// ghcr sends the endpoint to another site.
func ghcr(p *play, site hostile.Answer) {
	p.bearer("/token")
	p.elsewhere(303, referrersOf, site)
}

// k8s sends everything below manifests to its backend.
func k8s(p *play) {
	p.elsewhere(307, tagOf, noManifest)
	p.elsewhere(307, manifestOf, hostile.Content(ocispec.MediaTypeImageIndex, indexBody).With("Docker-Content-Digest", index.String()))
}
