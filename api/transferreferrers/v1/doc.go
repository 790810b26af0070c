// Package v1 holds the messages that clients and the daemon's plugin exchange: what
// a pull selects, and what an explanation or a fetch answers. Go programs make them
// with the packages transfer/source and transfer/explain. Others are events of containerd's
// bus, of the topics /referrers/added, /referrers/withdrawn and /referrers/verdict.
package v1
