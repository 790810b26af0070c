package policy

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

func TestTypePattern(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern string
		match   []string
		differ  []string
	}{
		{
			pattern: "application/spdx+json",
			match: []string{
				"application/spdx+json",
				"Application/SPDX+JSON", // RFC 6838, 4.2: names are case-insensitive
				"application/spdx+json; charset=utf-8",
				"application/spdx+json;version=2.3",
				" application/spdx+json ",
			},
			differ: []string{"", "application/spdx", "application/spdx+json2", "text/spdx+json"},
		}, {
			pattern: "Application/SPDX+JSON;version=2.2",
			match:   []string{"application/spdx+json", "application/spdx+json;version=2.3"},
			differ:  []string{"application/json"},
		}, {
			pattern: "application/vnd.Example.*",
			match:   []string{"application/vnd.example.a", "APPLICATION/VND.EXAMPLE.a/b", "application/vnd.example.;q=1"},
			differ:  []string{"application/vnd.example", "application/vndXexample.a", "x/application/vnd.example.a"},
		}, {
			pattern: "*+json",
			match:   []string{"application/spdx+json", "text/spdx+json; charset=utf-8"},
			differ:  []string{"application/spdx+jsonx", "application/spdxjson"},
		}, {
			pattern: "*",
			match:   []string{"application/spdx+json", "sbom", ""},
		}, {
			pattern: "sbom/cyclone-dx", // oras users attach what they like
			match:   []string{"sbom/cyclone-dx", "SBOM/Cyclone-DX"},
			differ:  []string{"sbom/cyclone"},
		}, {
			pattern: artifact.SetSBOMs,
			match:   []string{"application/spdx+json", "Text/SPDX; charset=utf-8"},
			differ:  []string{"sboms", "application/vnd.in-toto+json"},
		}, {
			pattern: SetAll,
			match:   []string{"application/spdx+json", "anything", ""},
		},
	} {
		t.Run(tc.pattern, func(t *testing.T) {
			t.Parallel()
			for _, prefix := range []string{"", "!"} {
				p, err := parseType(prefix + tc.pattern)
				if err != nil {
					t.Fatal(err)
				}
				if p.deny != (prefix == "!") || p.text != prefix+tc.pattern {
					t.Errorf("deny %v, text %q of %q", p.deny, p.text, prefix+tc.pattern)
				}
				for _, mime := range tc.match {
					if !p.matches(artifact.Readings(artifact.Referrer{ArtifactType: mime})[0]) {
						t.Errorf("%q does not match %q", p.text, mime)
					}
				}
				for _, mime := range tc.differ {
					if p.matches(artifact.Readings(artifact.Referrer{ArtifactType: mime})[0]) {
						t.Errorf("%q matches %q", p.text, mime)
					}
				}
			}
		})
	}
}

func TestTypePatternRejects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ pattern, what string }{
		{"", "is empty"},
		{"   ", "is empty"},
		{"!", "is empty"},
		{"! ", "is empty"},
		{"!!application/spdx+json", "has a character that no media type has"},
		{"application/[ab]", "has a character that no media type has"},
		{"application/vnd.ex?mple", "has a character that no media type has"},
		{"application/spdx\n", "has a character that no media type has"},
		{"application/späx", "has a character that no media type has"},
		{"signature", "is neither a media type nor a set"},
		{"!sbom", "is neither a media type nor a set"},
		{";a/b", "is neither a media type nor a set"},
		{"/", "is neither a media type nor a set"},
		{"a /b", "is neither a media type nor a set"},
		{"Signatures", "is neither a media type nor a set"},
		{"signatures ", "is neither a media type nor a set"},
	} {
		t.Run(tc.pattern, func(t *testing.T) {
			t.Parallel()
			_, err := parseType(tc.pattern)
			wantInvalid(t, err, append([]string{strconv.Quote(tc.pattern), tc.what, "write a media type, a glob"}, setNames...)...)
			if _, err := parseTypes([]string{SetAll, tc.pattern}); err == nil {
				t.Error("accepted in a list")
			}
		})
	}
}

// So would one that was meant to be a set.
func TestTypeGlobWithoutASlash(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"signature*", "!signatures*", "sbom**", "s*s"} {
		_, err := parseType(pattern)
		wantInvalid(t, err, strconv.Quote(pattern), "glob without a slash", "signatures, attestations, sboms, all")
	}
	for _, pattern := range []string{"*", "**", "*+json", "*spdx*", "text/*", "!text/*"} {
		if _, err := parseType(pattern); err != nil {
			t.Error(err)
		}
	}
}

// A glob that could match nothing would be a denial that denies nothing.
func TestTypeGlobRejects(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"!application/vnd.dev.sigstore.bundle+json;version=*", "application/vnd.* "} {
		_, err := parseType(pattern)
		wantInvalid(t, err, strconv.Quote(pattern), "parameter or a space", "leave it out")
	}
}

func TestTypeListFind(t *testing.T) {
	t.Parallel()
	list, err := parseTypes([]string{artifact.SetSignatures, "!application/vnd.dev.*", artifact.SetAttestations, artifact.TypeBundle, "!text/*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, mime string
		deny       bool
		want       string
	}{
		{"the first of the takes", artifact.TypeCosignSignature, false, artifact.SetSignatures},
		{"the first of the denials", artifact.TypeCosignSignature, true, "!application/vnd.dev.*"},
		{"none", "application/spdx+json", false, ""},
		{"no denial", artifact.TypeBuildKitAttestation, true, ""},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			got := ""
			if found := list.find(artifact.Readings(artifact.Referrer{ArtifactType: tc.mime})[0], tc.deny); found != nil {
				got = found.text
			}
			if got != tc.want {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSetNamesAreLiterals(t *testing.T) {
	t.Parallel()
	want := []string{"signatures", "attestations", "sboms", "all"}
	if !slices.Equal(setNames, want) {
		t.Errorf("sets %q, want %q, which operators write", setNames, want)
	}
}
