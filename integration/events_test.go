package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/typeurl/v2"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// heard is what the daemon's event bus tells of referrers, a line an event.
type heard struct {
	t      *testing.T
	events chan string
}

// probe is the topic of the events by which listen knows that it is heard.
const probe = "/referrers/probe"

func listen(t *testing.T, d *daemon.Daemon) *heard {
	t.Helper()
	h := &heard{t, make(chan string, 100)}
	ctx, cancel := context.WithCancel(testContext(t))
	t.Cleanup(cancel)
	bus := d.Client.EventService()
	events, _ := bus.Subscribe(ctx, `topic~="^/referrers/"`)
	subscribed := make(chan struct{}, 1)
	go func() {
		for e := range events {
			if e == nil {
				return
			}
			if e.Topic == probe {
				select {
				case subscribed <- struct{}{}:
				default:
				}
				continue
			}
			v, err := typeurl.UnmarshalAny(e.Event)
			if err != nil {
				h.events <- err.Error()
				continue
			}
			text := e.Namespace + " " + e.Topic
			switch m := v.(type) {
			case *api.ReferrerAdded:
				text += fmt.Sprint(" ", m.Image, " ", m.Subject, " ", m.Referrer)
			case *api.ReferrerWithdrawn:
				text += fmt.Sprint(" ", m.Image, " ", m.Subject, " ", m.Referrer)
			case *api.VerdictChanged:
				text += fmt.Sprintf(" %s %s %q %q %s", m.Image, m.Digest, m.Previous, m.Result, m.Mode)
				if (m.Reason == "") != (m.Result == "verified") || m.Rule == "" {
					t.Errorf("the event has %+v", m)
				}
			}
			h.events <- text
		}
	}()
	// A subscription does not say when it holds: it does once it hears itself.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if err := bus.Publish(ctx, probe, &api.ReferrerAdded{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-subscribed:
			return h
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the event bus does not say what is published on it")
	return nil
}

// want fails where other events were published since.
func (h *heard) want(want ...string) {
	h.t.Helper()
	var got []string
	for wait := 5 * time.Second; ; {
		if len(got) >= len(want) {
			wait = 100 * time.Millisecond
		}
		select {
		case e := <-h.events:
			got = append(got, e)
			continue
		case <-time.After(wait):
		}
		break
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		h.t.Errorf("the events are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Pulls and fetches tell the event bus of each referrer that came or was withdrawn, and of a
// verdict that is another than before; where nothing changed they are silent.
func TestEvents(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	h := listen(t, d)
	digest := image.Digest.String()
	verdictOf := func(previous, result string) string {
		return fmt.Sprintf("default %s %s %s %q %q enforce", transfer.TopicVerdict, image.name, digest, previous, result)
	}
	image.withholds(t, d)
	h.want(verdictOf("", "refused"))
	signature := signBundle(t, image, key).Digest
	change := func(topic string) string {
		return fmt.Sprint("default ", topic, " ", image.name, " ", digest, " ", signature)
	}
	pull(t, d, image.name)
	h.want(verdictOf("refused", "verified"), change(transfer.TopicAdded))
	pull(t, d, image.name)
	referrers(t, d, "fetch", "--plain-http", image.name).want(t, 0)
	h.want()
	// The registry withdraws it, which a fetch finds out.
	if err := reg.DeleteManifest(testContext(t), "app", signature); err != nil {
		t.Fatal(err)
	}
	referrers(t, d, "fetch", "--plain-http", image.name).want(t, exitRefused)
	h.want(verdictOf("verified", "refused"), change(transfer.TopicWithdrawn))
	referrers(t, d, "verify", "--all").want(t, exitRefused)
	// It is signed by the same key again, byte for byte or not: the one that came back counts.
	again := signBundle(t, image, key).Digest
	referrers(t, d, "fetch", "--plain-http", image.name).want(t, 0)
	h.want(verdictOf("refused", "verified"), strings.ReplaceAll(change(transfer.TopicAdded), signature.String(), again.String()))
	// A pull that is refused tells of what was withdrawn as well.
	if err := reg.DeleteManifest(testContext(t), "app", again); err != nil {
		t.Fatal(err)
	}
	image.withholds(t, d)
	h.want(verdictOf("verified", "refused"), strings.ReplaceAll(change(transfer.TopicWithdrawn), signature.String(), again.String()))
}
