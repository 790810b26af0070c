package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// ciSigned is a trust and the rule that enforces its signature, for the repository app.
func ciSigned(trust string) string {
	return trust + gateRule("enforce") + signedBy(`by = ["ci"]`)
}

// A container of a signed image runs. One of an image that came to the node in a way that no
// rule sees is refused at its creation, with the rule in the text, and leaves nothing.
func TestGateJudgesContainers(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, unsigned := pushRunnable(t, reg, "app", "signed"), pushRunnable(t, reg, "app", "unsigned")
	signBundle(t, signed, key)
	n := startNode(t, reg, required, ciSigned(trustedKeys(t, "ci", key.PEM)))
	n.connected(t, 1)
	n.pull(t, signed.name)
	id := n.runs(t, signed.name)
	n.runs(t, n.pull(t, signed.name)) // by its config's digest, as the kubelet does

	n.ctr(t, "images", "pull", "--local", unsigned.name)
	n.refuses(t, unsigned.name, "SignatureValidationFailed: image "+unsigned.name+" is refused: rule 1, ", "needs a signature by ci")
	n.wantRunning(t, id)
	if lines := n.LogLines("referrers: container refused"); len(lines) != 1 {
		t.Errorf("the log says of the refusal %q", lines)
	}
	metrics := scrape(t, n.Daemon)
	if got, _ := metrics.gauge("transfer_referrers_gate_connected"); got != 1 {
		t.Errorf("transfer_referrers_gate_connected is %v", got)
	}
	for result, want := range map[string]float64{"verified": 2, "refused": 1, "unjudged": 0} {
		if got := metrics.value("transfer_referrers_gate_verdicts_total", "result="+result, "mode=enforce"); got != want {
			t.Errorf("%v containers were %s, want %v", got, result, want)
		}
	}
	for _, query := range alerts(t) {
		if err := answers(query, metrics); strings.Contains(query, ofTheGate) && err != nil {
			t.Errorf("alert %s: %v", query, err)
		}
	}
}

// What was imported, and then tagged into a ruled repository, is refused under the new name and
// under the old: the strictest rule of all names holds.
func TestGateJudgesAllNamesOfAnImage(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	unruled := pushRunnable(t, reg, "other", "v1")
	outside := startDaemon(t, active(everything))
	pull(t, outside, unruled.name)
	path := exportedFrom(t, outside, unruled.name)
	n := startNode(t, reg, required, ciSigned(trustedKeys(t, "ci", key.PEM))+ruleFor("*/denied", "deny = true"))
	n.connected(t, 1)
	n.ctr(t, "images", "import", "--platform", "linux/amd64", path)
	eventually(t, patience, func() error { return n.known(t, unruled.name) })
	n.runs(t, unruled.name)

	ruledName := reg.Host + "/app:imported"
	n.ctr(t, "images", "tag", unruled.name, ruledName)
	eventually(t, patience, func() error { return n.known(t, ruledName) })
	for _, name := range []string{ruledName, unruled.name} {
		n.refuses(t, name, "SignatureValidationFailed: image "+ruledName+" is refused: rule 1, ", "needs a signature by ci")
	}
	n.ctr(t, "images", "rm", ruledName)
	n.runs(t, unruled.name)
	n.ctr(t, "images", "tag", unruled.name, reg.Host+"/denied:v1")
	n.refuses(t, unruled.name, "SignatureValidationFailed: image "+reg.Host+"/denied:v1 is refused: rule 2, ", "denies every image")
}

// A key that was replaced in its file, and a signature that was withdrawn, refuse the next
// container; one that came since lets it be created. Nobody pulls for that, and what runs goes on.
func TestGateJudgesByTodaysTrustAndEvidence(t *testing.T) {
	was, is := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	file := newKeyFile(t, was.PEM)
	reg := startRegistry(t, registry.Olareg)
	image := pushRunnable(t, reg, "app", "v1")
	signature := signBundle(t, image, was)
	n := startNode(t, reg, required, ciSigned(file.trust()))
	n.connected(t, 1)
	n.pull(t, image.name)
	id := n.runs(t, image.name)

	file.write(t, is.PEM)
	n.refuses(t, image.name, "SignatureValidationFailed: ", "needs a signature by ci")
	file.write(t, was.PEM)
	n.runs(t, image.name)

	withdrawManifest(t, image, signature)
	n.runs(t, image.name) // nobody has asked the registry since
	if _, err := n.images.PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image.name}}); err == nil {
		t.Error("an image whose signature was withdrawn is pulled")
	}
	n.refuses(t, image.name, "SignatureValidationFailed: ", "it was withdrawn")

	signBundle(t, image, was)
	n.ctr(t, "referrers", "fetch", image.name)
	n.runs(t, image.name)
	n.wantRunning(t, id)
}

// While the gate is not there NRI's validator refuses containers; where it does not require the
// gate they are created, and the daemon has warned of it.
func TestGateThatIsGone(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for name, tc := range map[string]struct {
		nri, gate string
		refused   bool
		warns     string
	}{
		"required":     {required, `gate = "off"`, true, "referrers: no container can be created: NRI's default validator requires"},
		"not required": {unrequired, `gate = "off"`, false, ""},
		"warned of":    {unrequired, "", true, "containers are created unjudged: to have NRI refuse them then, write in containerd's config.toml: "},
		"warning only": {required, `gate = "warn"`, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushRunnable(t, reg, "app", "v1")
			n := startNode(t, reg, tc.nri, tc.gate+ciSigned(trustedKeys(t, "ci", key.PEM)))
			n.ctr(t, "images", "pull", "--local", image.name)
			eventually(t, patience, func() error { return n.known(t, image.name) })
			says := `required plugin "referrers-gate" not present`
			if !strings.Contains(tc.gate, "off") {
				n.connected(t, 1)
				says = "SignatureValidationFailed: "
			}
			if tc.refused {
				n.refuses(t, image.name, says)
			} else {
				n.runs(t, image.name)
			}
			if lines := n.LogLines(tc.warns); tc.warns != "" && len(lines) != 1 {
				t.Errorf("the log warns %q", lines)
			}
			if lines := n.LogLines("the mode warn lets it be created"); strings.Contains(tc.gate, "warn") && len(lines) != 1 {
				t.Errorf("the log says of an image that is not verified %q", lines)
			}
		})
	}
}

// Containers that run go on when the daemon is killed, and the next is judged by the one that
// is started then.
func TestGateAfterTheDaemonWasKilled(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, unsigned := pushRunnable(t, reg, "app", "signed"), pushRunnable(t, reg, "app", "unsigned")
	signBundle(t, signed, key)
	n := startNode(t, reg, required, ciSigned(trustedKeys(t, "ci", key.PEM)))
	n.connected(t, 1)
	n.pull(t, signed.name)
	id := n.runs(t, signed.name)
	n.ctr(t, "images", "pull", "--local", unsigned.name)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.connect(t)
	// From its first answer on, and until the gate is connected, it refuses.
	eventually(t, patience, func() error {
		_, err := n.create(t, unsigned.name)
		switch {
		case err == nil:
			t.Fatal("a container of an image that is refused was created")
		case !strings.Contains(err.Error(), "SignatureValidationFailed: "):
			return err
		}
		return nil
	})
	n.wantRunning(t, id)
	n.runs(t, signed.name)
}

// The daemon says at its start whether containers are judged, and why not.
func TestGateSaysWhetherItIsActive(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for name, tc := range map[string]struct {
		nri, plugin     string
		says, saysOfLTS string
		warns           int
	}{
		"required":     {required, "", "gate: enforce (NRI plugin 00-referrers-gate, which NRI's default validator requires)", "gate: not active: this containerd does not tell NRI which image a container has", 0},
		"not required": {unrequired, "", "gate: enforce (NRI plugin 00-referrers-gate, which NRI's default validator does not require)", "gate: not active: this containerd does not tell NRI which image a container has", 1},
		"warn":         {unrequired, `gate = "warn"`, "gate: warn (NRI plugin", "gate: not active: ", 0},
		"off":          {unrequired, `gate = "off"`, "gate: off", "gate: off", 0},
		"no NRI":       {"", "", "gate: not active: NRI is disabled: remove disable = true from ", "gate: not active: NRI is disabled: ", 1},
		"no way in":    {"  disable_connections = true\n", "", "gate: not active: NRI takes no connections: ", "gate: not active: NRI takes no connections: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			config := active(tc.plugin + ciSigned(trustedKeys(t, "ci", key.PEM)))
			config.NRI = tc.nri
			d := startDaemon(t, config)
			says, warns := tc.says, tc.warns
			if isLTS(t, d) {
				says = tc.saysOfLTS
				if tc.plugin != `gate = "off"` {
					warns = 1
				}
			}
			lines := d.LogLines("referrers are active")
			if len(lines) != 1 || !strings.Contains(strings.ReplaceAll(lines[0], `\"`, `"`), "; "+says) {
				t.Errorf("the daemon says %q, want %s", lines, says)
			}
			if got := len(d.LogLines("containers are created unjudged")); got != warns {
				t.Errorf("the log warns %d times, want %d", got, warns)
			}
		})
	}
	t.Run("no rule", func(t *testing.T) {
		config := active(everything)
		config.NRI = unrequired
		if lines := startDaemon(t, config).LogLines("gate: "); len(lines) > 0 {
			t.Errorf("without a rule that verifies the daemon says %q", lines)
		}
	})
}

// known says whether CRI knows an image by the name, which it learns from events.
func (n *criNode) known(t *testing.T, name string) error {
	t.Helper()
	status, err := n.images.ImageStatus(testContext(t), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err == nil && status.Image == nil {
		err = fmt.Errorf("CRI does not know the image %s", name)
	}
	return err
}

// A daemon that is killed at any moment lets no container of a refused image be created: not
// while it is judged, and not before the gate of the next is connected.
func TestGateThroughKills(t *testing.T) {
	kills := long(t, "TRANSFER_REFERRERS_KILLS", 10)
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, unsigned := pushRunnable(t, reg, "app", "signed"), pushRunnable(t, reg, "app", "unsigned")
	signBundle(t, signed, key)
	n := startNode(t, reg, required, ciSigned(trustedKeys(t, "ci", key.PEM)))
	n.connected(t, 1)
	n.pull(t, signed.name)
	n.ctr(t, "images", "pull", "--local", unsigned.name)
	eventually(t, patience, func() error { return n.known(t, unsigned.name) })
	created, refused := 0, 0
	for kill := range kills {
		ended := make(chan struct{})
		go func() {
			time.Sleep(time.Duration(kill*37%400) * time.Millisecond)
			if err := n.Kill(); err != nil {
				t.Error(err)
			}
			close(ended)
		}()
		for alive := true; alive; {
			if _, err := n.create(t, unsigned.name); err == nil {
				t.Fatal("a container of an image that is refused was created")
			} else if strings.Contains(err.Error(), "SignatureValidationFailed: ") {
				refused++
			}
			if kill%2 == 0 { // also between containers that are created
				if id, err := n.create(t, signed.name); err == nil {
					created++
					_, _ = n.runtime.RemoveContainer(testContext(t), &cri.RemoveContainerRequest{ContainerId: id})
				}
			}
			select {
			case <-ended:
				alive = false
			default:
			}
		}
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.connect(t)
	}
	n.connected(t, 1)
	list, err := n.runtime.ListContainers(testContext(t), &cri.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Containers {
		if c.Image.GetUserSpecifiedImage() == unsigned.name || c.Image.GetImage() == unsigned.name {
			t.Errorf("there is a container of the refused image: %v", c)
		}
	}
	t.Logf("%d kills: %d containers were created, %d refused", kills, created, refused)
	if created == 0 || refused == 0 {
		t.Error("nothing was created, or nothing refused")
	}
	n.runs(t, signed.name)
}
