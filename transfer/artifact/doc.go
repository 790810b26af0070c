// Package artifact holds the facts about manifests and indexes of untrusted sources:
// what kind of artifact they are, which subject they refer to and what content they
// name. It reads bounded bytes into bounded structures and does no I/O.
//
// [Parse] reads a manifest and [ParseIndex] a listing, both strictly: a document that
// two readers could understand differently is refused. [Walk] is the one way through
// all that a referrer names. [SetOf] tells signatures, attestations and SBOMs apart.
package artifact
