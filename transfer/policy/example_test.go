package policy_test

import (
	"fmt"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// A policy says what a node takes, without a node: rules in, decisions and their
// reasons out.
func Example() {
	p, err := policy.New([]policy.Rule{{
		Repositories:  []string{"registry.example.com/prod/**"},
		ArtifactTypes: []string{"signatures", "sboms", "!application/vnd.cyclonedx+xml"},
		Required:      []string{"signatures"},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	sel, err := p.Select("registry.example.com/prod/app", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, artifactType := range []string{
		"application/vnd.cncf.notary.signature",
		"application/spdx+json",
		"application/vnd.cyclonedx+xml",
		"text/html",
		"", // some registries list no type
	} {
		d := sel.Decide(artifact.Referrer{ArtifactType: artifactType})
		fmt.Println(d.Verdict, d.Reason)
	}
	fmt.Println("missing:", sel.Missing([]artifact.Referrer{{ArtifactType: "application/spdx+json"}}))
	// Output:
	// take rule 1, repository "registry.example.com/prod/**": artifact type "signatures"
	// take rule 1, repository "registry.example.com/prod/**": artifact type "sboms"
	// skip rule 1, repository "registry.example.com/prod/**": denied by "!application/vnd.cyclonedx+xml"
	// skip rule 1, repository "registry.example.com/prod/**": "text/html" is not among its artifact types
	// ask rule 1, repository "registry.example.com/prod/**": the listing's type "" says nothing; the manifest decides
	// missing: [signatures]
}

// A client's artifact types replace the rule's, and never what it requires.
func ExamplePolicy_Select() {
	p, err := policy.New([]policy.Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{"all"}, Required: []string{"signatures"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	sel, err := p.Select("docker.io/library/alpine", []string{"sboms"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sel)
	fmt.Println(sel.Wants("application/spdx+json"), sel.Wants("application/vnd.cncf.notary.signature"), sel.Wants("text/html"))
	// Output:
	// rule 1, repository "**", artifact types of the client's selection: takes [sboms], requires [signatures], depth 2, on_error warn
	// true true false
}
