package sigstore

import (
	"crypto/x509"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// period is when an authority or a log may be used; a zero time is open.
type period struct{ start, end time.Time }

// authorities are the periods of the certificate authorities.
func authorities(m root.TrustedMaterial) (all []period) {
	for _, ca := range m.FulcioCertificateAuthorities() {
		if ca, ok := ca.(*root.FulcioCertificateAuthority); ok {
			all = append(all, within(period{ca.ValidityPeriodStart, ca.ValidityPeriodEnd}, append(ca.Intermediates[:len(ca.Intermediates):len(ca.Intermediates)], ca.Root)...))
		}
	}
	return all
}

// timestampers are the periods of the timestamp authorities.
func timestampers(m root.TrustedMaterial) (all []period) {
	for _, tsa := range m.TimestampingAuthorities() {
		if tsa, ok := tsa.(*root.SigstoreTimestampingAuthority); ok {
			all = append(all, within(period{tsa.ValidityPeriodStart, tsa.ValidityPeriodEnd}, append(tsa.Intermediates[:len(tsa.Intermediates):len(tsa.Intermediates)], tsa.Root, tsa.Leaf)...))
		}
	}
	return all
}

func logs(m map[string]*root.TransparencyLog) (all []period) {
	for _, log := range m {
		all = append(all, period{log.ValidityPeriodStart, log.ValidityPeriodEnd})
	}
	return all
}

// within ends a period where the first of the certificates does.
func within(p period, certificates ...*x509.Certificate) period {
	for _, c := range certificates {
		if c != nil && (p.end.IsZero() || c.NotAfter.Before(p.end)) {
			p.end = c.NotAfter
		}
	}
	return p
}

// lastEnd is when none of them may be used any more; zero for never.
func lastEnd(all []period) (end time.Time) {
	for _, p := range all {
		if p.end.IsZero() {
			return time.Time{}
		}
		if p.end.After(end) {
			end = p.end
		}
	}
	return end
}

// periodOf is when the newest part of a root begins, and when the first of its services has
// nobody left. Timestamp authorities count as needed where there are any: entries of Rekor v2
// have no time of their own.
func periodOf(m root.TrustedMaterial) (issued, expires time.Time) {
	for _, service := range [][]period{authorities(m), logs(m.RekorLogs()), logs(m.CTLogs()), timestampers(m)} {
		for _, p := range service {
			if p.start.After(issued) {
				issued = p.start
			}
		}
		if end := lastEnd(service); !end.IsZero() && (expires.IsZero() || end.Before(expires)) {
			expires = end
		}
	}
	return issued, expires
}
