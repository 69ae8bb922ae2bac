# Two commands matter: `make lab` shows the gate at work, `make test` proves it.
GO      ?= go
VERSION ?= 0.1.0-dev
TAGS     = nethttpomithttp2
# What no packet waits for, or waits for the kernel anyway, is built without
# inlining: 0.7 MB less.
COLD_STD = crypto/... vendor/... math/big encoding/... compress/... regexp/... mime/... \
           fmt flag os os/... log/slog reflect text/tabwriter time
COLD_OWN = lab config netif journal dhcp control firewall/nft cmd/...
COLD_LIB = BurntSushi/... vishvananda/... google/... mdlayher/... coreos/...
COLD     = $(foreach p,$(COLD_STD) $(COLD_OWN:%=portcullis/%) $(COLD_LIB:%=github.com/%) golang.org/x/sys/...,-gcflags=$(p)=-l)
LDFLAGS  = -s -w -buildid= -X main.version=$(VERSION)

.PHONY: build lab test bench unit system clients vet race fuzz arch size vuln man clean deps

build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) $(COLD) -ldflags '$(LDFLAGS)' -o bin/portcullis ./cmd/portcullis

lab: build
	bin/portcullis lab

# Everything, in the order in which a failure is cheapest to find.
test: deps build vet size unit system clients

deps:
	test/install

vet:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) vet ./...
	cd test/clients && $(GO) vet ./...

# Rooms beside their code; in all they stay under 20 seconds.
unit:
	$(GO) test -timeout 120s $$($(GO) list ./... | grep -v /test/)

# The whole program on networks of namespaces, against the real kernel.
system: build
	PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) test -count=1 -parallel 8 -timeout 600s ./test/...

# Real control points from Debian, Go modules and npm.
clients: build
	cd test/clients && PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) test -count=1 -v -timeout 900s ./...

bench: build
	test/install bench
	PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) run ./test/bench

race:
	CGO_ENABLED=1 $(GO) test -race -timeout 300s $$($(GO) list ./... | grep -v /test/)

# FUZZTIME for each target, one after another.
FUZZTIME ?= 20s
fuzz:
	test/fuzz $(FUZZTIME)

# The stripped binary stays at or under 10 MB.
size: build
	@s=$$(stat -c %s bin/portcullis); echo "bin/portcullis: $$s bytes"; test $$s -le 10000000

clean:
	rm -rf bin dist
