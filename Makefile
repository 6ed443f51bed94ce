# The two commands of the README are `make run` and `make test`; the rest is for those who work on meibo.
SHELL       := /bin/bash
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS     := -trimpath
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 1s

.DEFAULT_GOAL := build
.PHONY: build run test lint packages soak bench bench-cluster bench-gossip bench-dns fuzz verify clean FORCE

build: bin/meibo

bin/meibo: FORCE
	@CGO_ENABLED=0 go build $(GOFLAGS) -ldflags '$(LDFLAGS)' -o $@ ./cmd/meibo

# A single host in the foreground with sample services; its state is kept in .run between starts.
run: build
	@exec bin/meibo agent -config-dir packaging/example -data-dir .run

# Everything that CI runs: set-up, every test under the race detector, a short turn of each fuzz target.
test: build
	@bench/peers/test.sh $(FUZZTIME)

# deb and rpm for amd64 and arm64, in bin/packages; VERSION=1.2.3 in place of what the git tag says.
packages:
	@VERSION='$(if $(filter command line environment,$(origin VERSION)),$(VERSION))' packaging/build.sh

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags docs ./cmd/...
	GOOS=darwin go vet ./resolver/... ./cache/... ./forwarder/...
	go run $(STATICCHECK) ./...

fuzz:
	@bench/peers/fuzz.sh $(FUZZTIME)

bench: build
	@bench/peers/alone.sh go test -run '^$$' -bench . -benchtime 2s ./resolver/... ./cache/... ./forwarder/... ./cluster/...
	@MEIBO_BIN=$$PWD/bin/meibo bench/peers/alone.sh go test -count=1 -run '^$$' -bench . -benchtime 5x ./bench/...

# What a fleet's lookups cost the servers, beside the ways of today, one size at a time:
# make bench-cluster ARGS='-hosts 1000 -services 2000 -instances 50000 -duration 60s -json FILE'; ARGS=-help lists the flags.
# With -write, report, plots and figures go into bench/.
bench-cluster: build
	@go build -o bin/bench-cluster ./bench/cluster
	@MEIBO_BIN=$$PWD/bin/meibo bench/peers/alone.sh bin/bench-cluster $(ARGS)

# Gossip alone among 150 and 300 hosts, or HOSTS="150 300 600" of them, in one process and fake time: a minute and 400 MB for 300,
# and with the square of the number for more, most of it what is told when all start at once: RETRANSMIT=2 has each host tell it a fifth as
# often (the daemon: 10). The figures go into bench/RESULTS.md, and into the file GOSSIP_JSON if that is set.
bench-gossip:
	@MEIBO_GOSSIP_LOAD=1 GOSSIP_HOSTS='$(or $(HOSTS),150 300)' GOSSIP_RETRANSMIT='$(RETRANSMIT)' GOSSIP_COMMAND='$(strip $(if $(HOSTS),HOSTS="$(HOSTS)") $(if $(RETRANSMIT),RETRANSMIT=$(RETRANSMIT)))' GOSSIP_JSON='$(abspath $(GOSSIP_JSON))' bench/peers/alone.sh go test -count=1 -timeout 60m -run '^TestGossipLoad$$' -v ./bench/gossip

# meibo beside its peers, some five minutes for each round, as root on Debian; the figures go into bench/RESULTS.md. With
# KEEP=1 the rounds are added to those that were kept on the same commit: runs of one round each make a table of five.
ROUNDS  ?= 5
COREDNS ?= v1.15.0
bench-dns: build
	@bench/peers/fetch.sh .peers-dns dnsperf unbound dnsmasq-base bind9 knot-resolver pdns-recursor nsd
	@[ -x .peers-dns/root/usr/bin/coredns ] || CGO_ENABLED=0 GOFLAGS= GOBIN=$$PWD/.peers-dns/root/usr/bin go install github.com/coredns/coredns@$(COREDNS)
	@MEIBO_BIN=$$PWD/bin/meibo MEIBO_DNS_PEERS=$$PWD/.peers-dns/root MEIBO_BENCH_DNS=$(ROUNDS) MEIBO_BENCH_DNS_KEEP=$(if $(KEEP),$$PWD/.peers-dns/rounds.json) bench/peers/alone.sh go test -count=1 -timeout 30m -run '^TestDNSLoad$$' -v ./bench

# One daemon under load and churn: memory, goroutines and descriptors must be flat. SOAK=24h takes a day.
SOAK ?= 5m
soak: build
	@MEIBO_BIN=$$PWD/bin/meibo MEIBO_SOAK=$(SOAK) bench/peers/alone.sh go test -count=1 -timeout 0 -run '^TestSoak$$' -v ./bench

# The long forms, part by part (PART=NAME, each at most 15 minutes); without a part it lists them.
verify: $(if $(PART),build)
	@TARGET='$(TARGET)' RUN='$(RUN)' bench/peers/verify.sh '$(PART)'

clean:
	rm -rf bin .run .peers .tools
