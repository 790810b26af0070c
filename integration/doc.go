// Package integration tests the programs as they are shipped: a real containerd with
// the plugin, real registries, and the clients that operators use. `make
// test-integration` builds what it needs and runs it, as root.
//
// The parts:
//
//   - daemon starts a containerd in a temporary directory, and fails on any plugin
//     that did not load.
//   - registry starts olareg, distribution or go-containerregistry behind a front that
//     counts requests, asks for tokens, answers late or fails.
//   - fixture is an image with referrers that cosign, notation, oras and regctl made.
//   - demo is `make demo`, bench is `make bench`.
//
// Where to look for a test:
//
//   - plugin, switch, node, kubernetes: how the plugin is configured and enabled
//   - stock, cri, cri_fallback, client, auth: what clients send works as in stock
//     containerd
//   - pull, discovery, producers, requests, queries, airgap: what a pull finds,
//     stores and asks
//   - failure, hostile, liar, disk, collision, shared: what may go wrong
//   - refresh, ahead, collect, leak, crash: the lifetime of referrers
//   - export, import, push: how they leave the node, and return
//   - ctr, explain, readme, docs, troubleshooting: commands, and what the pages say of
//     them
//   - metrics, pull_log, tracing: what an operator sees
package integration
