package referrers

import (
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

func verdictOn(result verdict.Result, mode policy.Verify, containers ...string) verifiedImage {
	v := verifiedImage{Image: "example.com/" + string(result) + string(mode), Digest: root, Result: result, Mode: mode, Rule: "rule 1", Containers: containers}
	if result == verdict.Refused {
		v.Reason = "image " + v.Image + " is refused: \x1b[2J"
	}
	return v
}

var (
	good    = verdictOn(verdict.Verified, policy.VerifyEnforce, "a", "b")
	bad     = verdictOn(verdict.Refused, policy.VerifyEnforce, "c")
	worried = verdictOn(verdict.Refused, policy.VerifyWarn)
	free    = verdictOn(verdict.Unverified, "")
	failed  = verifiedImage{Image: "example.com/broken", Digest: node, Error: "not readable", Containers: []string{}}
)

// The exit code says the worst that is true of any image.
func TestVerifyAllEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		images []verifiedImage
		code   int
		says   string
	}{
		"no images":               {nil, 0, ""},
		"verified and unruled":    {[]verifiedImage{good, free}, 0, ""},
		"warned":                  {[]verifiedImage{good, worried}, 0, ""},
		"unruled alone":           {[]verifiedImage{free, free}, exitNone, "no rule verifies any of the 2 images of namespace k8s.io"},
		"one that was not judged": {[]verifiedImage{good, failed}, exitError, "1 of 2 images could not be judged"},
		"refused":                 {[]verifiedImage{good, bad, worried}, exitRefused, "1 of 3 images are refused by rules that enforce, 1 of them used"},
		"refused and not judged":  {[]verifiedImage{bad, failed}, exitRefused, "1 more could not be judged"},
	} {
		err := (&verifiedImages{Namespace: "k8s.io", Images: tc.images}).ends()
		if ExitCode(err) != tc.code || tc.says != "" && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: exit code %d, %v", name, ExitCode(err), err)
		}
	}
}

func TestPrintVerifiedImages(t *testing.T) {
	var out strings.Builder
	all := &verifiedImages{Images: []verifiedImage{good, bad, worried, free, failed}, Strays: []strayContainer{{"d", "example.com/gone"}}}
	if err := all.print(&out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(named(out.String())) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := `NAME DIGEST RESULT CONTAINERS RULE
example.com/verifiedenforce <root> verified 2 rule 1
example.com/refusedenforce <root> refused 1 rule 1
example.com/refusedwarn <root> warned 0 rule 1
example.com/unverified <root> unverified 0 rule 1
example.com/broken <node> error 0 -

refused image example.com/refusedenforce is refused: ?[2J
warned image example.com/refusedwarn is refused: ?[2J
error image example.com/broken could not be judged: not readable
no image container d was made from example.com/gone, which is not stored under this name any more
5 images: 1 verified (1 used by containers), 1 refused (1 used by containers), 1 refused with a warning only (0 used by containers), 1 under no rule that verifies (0 used by containers), 1 not judged (0 used by containers)`
	if strings.Join(got, "\n") != want {
		t.Errorf("printed is\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
