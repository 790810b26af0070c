package integration

import (
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// gauge is the value of a gauge without labels, false where it is absent.
func (f families) gauge(metric string) (float64, bool) {
	if len(f[metric].GetMetric()) == 0 {
		return 0, false
	}
	return f[metric].GetMetric()[0].GetGauge().GetValue(), true
}

// withMetrics has a daemon serve its metrics.
func withMetrics(config daemon.Config) daemon.Config {
	config.Extra = metricsEndpoint
	return config
}

// Verdicts, pieces of evidence and the time that layers were withheld are counted.
func TestVerificationIsCounted(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	vendor := newVendor(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign")
	signBundle(t, signed, key)
	signBundle(t, foreign, stranger)
	tagLayers(t, reg, foreign.Digest, ".sig", stranger.CosignSignature(t, reg.Host+"/app", foreign.Digest))
	referEnvelope(t, reg, foreign.Descriptor, notationtest.COSE, vendor)
	d := startDaemon(t, withMetrics(enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`))))
	if _, there := scrape(t, d).gauge("transfer_referrers_trust_expiry_seconds"); there {
		t.Error("a key expires")
	}
	pull(t, d, signed.name)
	foreign.withholds(t, d)
	after := scrape(t, d)
	for _, want := range []struct {
		metric string
		labels []string
		value  float64
	}{
		{"verdicts_total", []string{"result=verified", "mode=enforce"}, 1},
		{"verdicts_total", []string{"result=refused", "mode=enforce"}, 1},
		{"verdicts_total", nil, 2},
		{"evidence_total", []string{"format=sigstore-bundle", "result=verified"}, 1},
		{"evidence_total", []string{"format=sigstore-bundle", "result=invalid"}, 1},
		{"evidence_total", []string{"format=cosign-signature", "result=invalid"}, 1},
		{"evidence_total", []string{"format=notation", "result=stranger"}, 1},
		{"pulls_total", []string{"outcome=refused"}, 1},
		{"trusts_broken", nil, 0},
	} {
		if got := after.value("transfer_referrers_"+want.metric, want.labels...); got != want.value {
			t.Errorf("%s%v is %v, want %v", want.metric, want.labels, got, want.value)
		}
	}
	if n := after["transfer_referrers_withheld_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n != 2 {
		t.Errorf("%d times of withholding are counted, want 2", n)
	}
}

// The seconds until the first trust expires, and how many cannot be used, are there before
// anything is pulled, and move with the files.
func TestTrustsAreCounted(t *testing.T) {
	vendor, key := newVendor(t), sigstoretest.NewKey(t)
	file := newKeyFile(t, key.PEM)
	d := startDaemon(t, withMetrics(enforced(file.trust()+trustedVendor(t, "vendor", vendor), signedBy(`by = ["ci", "vendor"]`))))
	if got, there := scrape(t, d).gauge("transfer_referrers_trust_expiry_seconds"); !there || got < 22*3600 || got > 24*3600 {
		t.Errorf("the first trust expires in %v seconds, want a day", got)
	}
	if got, _ := scrape(t, d).gauge("transfer_referrers_trusts_broken"); got != 0 {
		t.Errorf("%v trusts are broken", got)
	}
	file.write(t, []byte("no key"))
	if got, _ := scrape(t, d).gauge("transfer_referrers_trusts_broken"); got != 1 {
		t.Errorf("%v trusts are broken, want 1", got)
	}
	file.write(t, key.PEM)
	if got, _ := scrape(t, d).gauge("transfer_referrers_trusts_broken"); got != 0 {
		t.Errorf("%v trusts are broken after one was mended", got)
	}
}
