# Every target runs on a bare machine with Go, make and git. `make help` lists them.
SHELL       := /bin/bash
GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -X github.com/fluid-sd/fluid/plugin/record.Version=$(VERSION)
BIN         := build/bin
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME    ?= 30s
FUZZDNSTIME ?= 10m
NEMESISTIME ?= 60s
TESTTIMEOUT ?= 10m

# The directories plugin, agent and build are never targets.
.PHONY: help build full run test test-full race lint fuzz fuzz-dns bench bench-dns model nemesis million proto tidy clean ci rename plugin agent

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build coredns, fluid-agent and fluidctl into build/bin
	@mkdir -p $(BIN)
	@echo "building coredns (a first build compiles about 530 packages, some minutes on two cores)"
	@$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/coredns ./build/coredns
	@echo "building fluid-agent and fluidctl"
	@$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./agent/cmd/fluid-agent ./agent/cmd/fluidctl
	@ls -lh $(BIN) | awk 'NR>1{print "  " $$9 "  " $$5}'

full: ## build coredns with every in-tree plugin into build/bin
	@mkdir -p $(BIN)
	$(GO) build -tags full -ldflags '$(LDFLAGS)' -o $(BIN)/coredns ./build/coredns

run: build ## start CoreDNS and an agent on loopback, register a demo app, ask for it
	@build/run.sh

test: ## run every test
	$(GO) test -timeout $(TESTTIMEOUT) ./...

test-full: ## build with every in-tree plugin and test beside those that the lean build lacks
	@mkdir -p build/dist
	$(GO) build -tags full -ldflags '$(LDFLAGS)' -o build/dist/coredns-full ./build/coredns
	@for p in fluid dnssec kubernetes etcd; do build/dist/coredns-full -plugins | grep -qw $$p || { echo "no $$p"; exit 1; }; done
	$(GO) test -tags full -run '^TestDNSSEC$$' ./plugin

race: ## run every test under the race detector
	$(GO) test -race -timeout 20m ./...

lint: ## check style, layering and documentation
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run ./...

fuzz: ## fuzz every decoder for FUZZTIME each
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

fuzz-dns: ## fuzz the DNS handler for FUZZDNSTIME, flood it with 100,000 queries, change 800,000 records; nothing may grow
	$(GO) test -run '^$$' -fuzz '^FuzzServeDNS$$' -fuzztime $(FUZZDNSTIME) -timeout 0 ./plugin
	FLUID_TEST_FLOOD=100000 $(GO) test -count=1 -v -run '^TestFlood$$' ./plugin
	FLUID_TEST_SOAK=300 $(GO) test -count=1 -v -run '^TestChurnSoak$$' ./plugin

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

nemesis: ## break a cluster of five real agents for NEMESISTIME and check the history
	@mkdir -p $(BIN)
	@$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./agent/cmd/fluid-agent
	$(GO) run ./build/nemesis -agent $(BIN)/fluid-agent -duration $(NEMESISTIME)

bench-dns: ## compare processor time per DNS query with other servers; BENCHDNS adds flags
	$(GO) run ./build/benchdns -install $(BENCHDNS)

model: ## check 200,000 random schedules of the catalog, 1,000 histories of Raft, the mesh at full size
	$(GO) test -timeout 0 -run 'TestSchedules' ./plugin/catalog -schedules 200000
	FLUID_LINEAR_RUNS=1000 $(GO) test -timeout 0 -run 'TestLinearizable' ./agent/store
	$(GO) test -timeout 0 -v -run 'TestSpeed|TestFaults|TestSplits|TestLoss' ./plugin/mesh -sim.full -sim.runs 200 -split.members 100

million: ## measure a million instances in the plugin and in the store, DNS beside its snapshots, a new member of the mesh
	FLUID_MILLION=1 $(GO) test -v -run 'TestMillion' ./plugin
	$(GO) test -v -run 'TestBootstrap$$' ./plugin/mesh -bootstrap.records 1000000 -bootstrap.steady 1m
	FLUID_MILLION=1 $(GO) test -run '^$$' -bench 'Million' -benchtime 1x ./agent/store
	FLUID_MILLION=1 $(GO) test -run '^$$' -bench 'SnapshotBesideDNS' -benchtime 1x ./agent/agenttest

proto: ## generate the Go code of the feed's protocol
	$(GO) generate ./plugin/feed/...

tidy: ## tidy go.mod, format the code
	$(GO) mod tidy
	$(GO) run mvdan.cc/gofumpt@v0.12.0 -l -w plugin agent build

clean: ## remove what the build made
	rm -rf $(BIN) build/dist

ci: ## what the continuous integration runs
	.ci/run

rename: ## rename the module: make rename MODULE=example.org/fluid
	@test -n "$(MODULE)" || { echo "usage: make rename MODULE=example.org/fluid"; exit 2; }
	git grep -lF github.com/fluid-sd/fluid | xargs sed -i 's|github.com/fluid-sd/fluid|$(MODULE)|g'
