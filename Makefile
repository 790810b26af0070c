# Everything that a developer, CI and the README call. `make help` lists it.

GO      ?= go
# Tests and the daemon that they drive run with the race detector; `make test RACE=`
# leaves it out.
RACE    ?= -race
# How long each fuzz target runs; CI gives it a few seconds. Inputs are made smaller in
# few tries, which would take most of that time otherwise.
FUZZTIME ?= 10m
# How often `make soak` kills the daemon, how often it pulls and removes, and which
# seed it draws from; none means a new one, which it prints.
KILLS   ?= 500
PULLS   ?= 500
SEED    ?=
TOOLS   := $(CURDIR)/bin/tools
TESTBIN := $(CURDIR)/bin/test
# Which containerd the integration tests run: empty for the newest, v2.3 for the LTS,
# whose daemon has no race detector.
CONTAINERD ?=
# Tests to run, as for `go test -run`.
RUN     ?= .
MODULES := . verify cmd cmd/lts integration integration/fixture/generate

# The programs of one containerd; bin/test/v2.3 for the LTS.
DAEMONS := $(TESTBIN)$(if $(CONTAINERD),/$(CONTAINERD))
ifneq ($(filter-out v2.3,$(CONTAINERD)),)
$(error CONTAINERD=$(CONTAINERD): write v2.3, or leave it out for the newest)
endif

# Programs are static, like those of containerd's static releases: without cgo, and so
# without the snapshotter of btrfs.
TAGS := osusergo netgo static_build urfave_cli_no_docs
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)'

# Tools, each at one version.
CYCLONEDX_VERSION     := v1.10.0
BUF_VERSION           := v1.75.0
PROTOC_GEN_GO_VERSION := v1.36.11
GOLANGCI_VERSION      := v2.15.0
ORAS_VERSION          := v1.3.6
REGCTL_VERSION        := v0.11.7
COSIGN_VERSION        := v3.1.3
COSIGN2_VERSION       := v2.6.1

# The benchmark: BENCH=short has few rounds and no large content. Anything else is
# flags, of which bin/bench -h tells: BENCH='-scene again,known -contender stock,plugin
# -runs 5' runs two scenes, BENCH='-scene again -trace' lists their requests. Only the
# full form changes the documentation. Daemons live in BENCHDIR, in memory, so that the
# disk's syncs, which all contenders pay, do not drown what differs; one case is on disk.
BENCH    ?= full
BENCHDIR ?= /dev/shm
BENCHFLAGS := $(if $(filter full,$(BENCH)),-write .,$(if $(filter short,$(BENCH)),-short,$(BENCH)))

# What a daemon needs, said before anything is built; integration/daemon says it in the
# same words. The pattern is bit 21 of the effective capabilities, CAP_SYS_ADMIN.
define RIGHTS
if [ "$$(id -u)" != 0 ]; then \
	echo "demo: containerd needs root to unpack and mount layers; run this as root, for instance with sudo" >&2; exit 1; \
fi; \
case "$$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)" in *[2367abef]?????) ;; *) \
	echo "demo: containerd needs the capability CAP_SYS_ADMIN to mount layers, which this root lacks; run this outside of the container, or in one with --privileged" >&2; exit 1; \
esac
endef

.PHONY: bench waterfall bench-go help build demo test test-unit test-integration soak lint fuzz release check-release proto check-proto fixture cross tools clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

build: ## bin/containerd and bin/ctr
	@mkdir -p bin
	@test -e bin/containerd || echo "building bin/containerd and bin/ctr, which takes minutes the first time" >&2
	@cd cmd && $(STATIC) -o ../bin/ ./containerd ./ctr

demo: ## pull a signed image from an embedded registry and show what came (needs root)
	@$(RIGHTS)
	@$(MAKE) --no-print-directory build
	@cd integration && $(GO) build -o ../bin/demo ./demo
	@bin/demo

test: test-unit test-integration ## unit and integration tests (integration needs root)

test-unit: ## tests that need nothing but Go
	$(GO) test $(RACE) ./...
	cd verify && $(GO) test $(RACE) ./...
	cd cmd && $(GO) test $(RACE) ./...

# Tests of containers skip themselves where there is no runc.
test-integration: $(TOOLS)/oras $(TOOLS)/regctl $(TOOLS)/cosign $(TOOLS)/cosign2 $(TOOLS)/cyclonedx-gomod ## tests with a real daemon and real registries (needs root; runc for containers)
	@mkdir -p $(DAEMONS)/stock
	cd $(if $(CONTAINERD),cmd/lts,cmd) && $(if $(CONTAINERD)$(if $(RACE),,static),$(STATIC),$(GO) build $(RACE)) -o $(DAEMONS)/ ./containerd && $(STATIC) -o $(DAEMONS)/stock/ github.com/containerd/containerd/v2/cmd/containerd
	cd cmd && $(STATIC) -o $(DAEMONS)/ ./ctr github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	cd integration && TRANSFER_REFERRERS_BIN=$(DAEMONS) PATH="$(TOOLS):$$PATH" $(GO) test $(RACE) -count=1 -timeout 25m -run '$(RUN)' ./...

soak: ## kill the daemon KILLS times in pulls, pull and remove PULLS times, from 50 registries as well; say what was lost (needs root)
	@mkdir -p $(TESTBIN)
	cd cmd && $(GO) build -o $(TESTBIN)/ ./containerd ./ctr github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	cd integration && TRANSFER_REFERRERS_BIN=$(TESTBIN) TRANSFER_REFERRERS_KILLS=$(KILLS) TRANSFER_REFERRERS_PULLS=$(PULLS) TRANSFER_REFERRERS_SEED=$(SEED) \
		$(GO) test -count=1 -v -timeout 3h -run '^(TestPullThatIsKilled|TestPullsLeakNothing|TestGateThroughKills)' .

release: $(TOOLS)/cyclonedx-gomod ## dist/: archives for linux, bills of materials, checksums (VERSION=, ARCHS=)
	TAGS='$(TAGS)' PATH="$(TOOLS):$$PATH" release/archive

check-release: $(TOOLS)/cyclonedx-gomod ## fail where a release is not whole, or not the same bytes from another place
	TAGS='$(TAGS)' PATH="$(TOOLS):$$PATH" release/check

bench: build $(TOOLS)/oras $(TOOLS)/regctl ## measure against every other way to bring referrers, into docs/performance.md (needs root)
	@cd integration && $(GO) build -o ../bin/bench ./bench
	@PATH="$(TOOLS):$$PATH" bin/bench -dir $(BENCHDIR) $(BENCHFLAGS)

waterfall: build ## draw the requests of one pull, into docs/waterfall.svg (needs root)
	@cd integration && $(GO) build -o ../bin/bench ./bench
	@bin/bench -dir $(BENCHDIR) -scene waterfall -write .

bench-go: ## Go's benchmarks of policy, listings and gathering, with allocations
	TMPDIR=$(BENCHDIR) $(GO) test -run '^$$' -bench . -benchmem ./transfer/...
	cd verify && TMPDIR=$(BENCHDIR) $(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: ## run every fuzz target for FUZZTIME, one after the other
	@set -e; for dir in . verify; do cd $(CURDIR)/$$dir; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "fuzz $$pkg $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$pkg; \
		done; \
	done; done

lint: $(TOOLS)/golangci-lint ## golangci-lint over all modules, and gofmt
	@set -e; for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

cross: ## compile the library for every platform that containerd has
	@set -e; for os in linux windows darwin freebsd; do echo "build for $$os"; GOOS=$$os $(GO) build ./...; done

# Files of messages that are gone go. buf's own "clean: true" would take doc.go as well,
# which is written by hand.
proto: $(TOOLS)/buf $(TOOLS)/protoc-gen-go ## generate api/ from proto/
	PATH="$(TOOLS):$$PATH" buf lint
	@find api -name '*.pb.go' -delete
	PATH="$(TOOLS):$$PATH" buf generate

check-proto: ## fail where api/ is not what proto/ generates
	@before=$$(mktemp -d) && trap 'rm -rf "$$before"' EXIT && cp -r api/. "$$before" && $(MAKE) --no-print-directory proto && \
	diff -r "$$before" api || { echo "api/ is out of date: run make proto and commit"; exit 1; }

fixture: $(TOOLS)/oras $(TOOLS)/regctl $(TOOLS)/cosign $(TOOLS)/cosign2 ## make integration/fixture/testdata anew with the real producers
	cd integration/fixture/generate && PATH="$(TOOLS):$$PATH" $(GO) run . ../testdata

tools: $(addprefix $(TOOLS)/,buf protoc-gen-go golangci-lint cyclonedx-gomod oras regctl cosign cosign2) ## install what CI needs

$(TOOLS)/buf:
	GOBIN=$(TOOLS) $(GO) install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
$(TOOLS)/protoc-gen-go:
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
$(TOOLS)/cyclonedx-gomod:
	GOBIN=$(TOOLS) $(GO) install -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
$(TOOLS)/oras:
	GOBIN=$(TOOLS) $(GO) install oras.land/oras/cmd/oras@$(ORAS_VERSION)
$(TOOLS)/regctl:
	GOBIN=$(TOOLS) $(GO) install github.com/regclient/regclient/cmd/regctl@$(REGCTL_VERSION)
$(TOOLS)/cosign:
	GOBIN=$(TOOLS) $(GO) install github.com/sigstore/cosign/v3/cmd/cosign@$(COSIGN_VERSION)
$(TOOLS)/cosign2:
	GOBIN=$(TOOLS)/v2 $(GO) install github.com/sigstore/cosign/v2/cmd/cosign@$(COSIGN2_VERSION)
	mv $(TOOLS)/v2/cosign $@

clean: ## remove bin/ and dist/
	rm -rf bin dist
