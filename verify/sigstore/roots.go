package sigstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// roots are the trusted roots of a trust, and the identities that they may vouch for.
type roots struct {
	verifier   *verify.Verifier
	identities verify.CertificateIdentities
	notes      []string
}

func loadRoots(identities []trust.Identity, files []trust.File, now time.Time) (*verifier, error) {
	var all root.TrustedMaterialCollection
	var has services
	for i, file := range files {
		one, err := readRoot(file, now)
		if err != nil {
			return nil, err
		}
		offers := servicesOf(one)
		if i > 0 && offers != has {
			return nil, refuse(fmt.Sprintf("%s and %s are roots of different kinds: one has a transparency log or a certificate log and the other has none", files[0].Path, file.Path),
				`make a trust of each, and name both in by = ["…", "…"]`)
		}
		has = offers
		all = append(all, one)
	}
	ids, err := matchers(identities)
	if err != nil {
		return nil, err
	}
	v, err := verify.NewVerifier(all, rootOptions(has)...)
	if err != nil {
		return nil, refuseFor("the trusted root", err, "name another")
	}
	facts := trust.Facts{}
	var exact bool
	if facts.Names, exact = names(identities); exact {
		facts.Identities = len(facts.Names)
	}
	facts.Issued, facts.Expires = periodOf(all)
	return &verifier{signer: &roots{verifier: v, identities: ids, notes: notesOn(has)}, facts: facts}, nil
}

// readRoot reads a trusted_root.json, which must be able to vouch for signatures made now.
func readRoot(file trust.File, now time.Time) (*root.TrustedRoot, error) {
	const remedy = "write it again: cosign trusted-root create, or from your instance's TUF repository"
	if len(file.Data) == 0 {
		return nil, refuse(file.Path+" is empty", remedy)
	}
	r, err := root.NewTrustedRootFromJSON(file.Data)
	if err != nil {
		return nil, refuseFor(file.Path+" is no trusted root", err, remedy)
	}
	cas := authorities(r)
	switch ends := lastEnd(cas); {
	case len(cas) == 0:
		return nil, refuse(file.Path+" has no certificate authority", remedy)
	case len(r.RekorLogs()) == 0 && len(r.TimestampingAuthorities()) == 0:
		return nil, refuse(file.Path+" has neither a log nor a timestamp authority, so that nothing says when a signature was made", remedy)
	case !ends.IsZero() && now.After(ends):
		return nil, refuse(fmt.Sprintf("%s has expired: the last of its certificate authorities ended on %s", file.Path, ends.UTC().Format(time.RFC3339)), remedy)
	}
	return r, nil
}

func servicesOf(r root.TrustedMaterial) services {
	return services{logs: len(r.RekorLogs()) > 0, ctLogs: len(r.CTLogs()) > 0}
}

func notesOn(has services) (notes []string) {
	if !has.logs {
		notes = append(notes, "no transparency log is asked for: the trusted root names none")
	}
	if !has.ctLogs {
		notes = append(notes, "no certificate log is asked for: the trusted root names none")
	}
	return notes
}

func (*roots) material() material { return byCertificate }

func (r *roots) authenticate(ctx context.Context, s *signed) (by, error) {
	if err := ctx.Err(); err != nil {
		return by{}, err
	}
	result, err := r.verifier.Verify(s.entity, rootPolicy(s, r.identities))
	if err != nil {
		return by{}, r.explain(s, err)
	}
	if result.Signature == nil || result.Signature.Certificate == nil || result.VerifiedIdentity == nil {
		return by{}, refuse("no identity was verified", "sign with a certificate") // sigstore-go never does that
	}
	name, err := nameOf(result.Signature.Certificate)
	if err != nil {
		return by{}, err
	}
	return by{identity: name, time: earliest(result.VerifiedTimestamps), notes: r.notes}, nil
}

// earliest is when the signature was there: any of the times has been verified.
func earliest(all []verify.TimestampVerificationResult) (first time.Time) {
	for _, ts := range all {
		if first.IsZero() || ts.Timestamp.Before(first) {
			first = ts.Timestamp
		}
	}
	return first
}

// explain says whose it is, if it is valid but for that, and else what sigstore-go says.
func (r *roots) explain(s *signed, err error) error {
	var other *verify.ErrNoMatchingCertificateIdentity
	if errors.As(err, &other) { // the last of what is verified
		if summary, err := certificate.SummarizeCertificate(s.entity.verification.Certificate()); err == nil {
			return fmt.Errorf("it is signed by %s, none of the trust's %d identities; add that to identities if it is trusted: %w",
				cut(identityOf(summary.SubjectAlternativeName, summary.Issuer)), len(r.identities), errdefs.ErrPermissionDenied)
		}
	}
	return refuseFor("the trusted root does not vouch for it", err, "sign with the instance of the trust, or add its trusted_root.json")
}
