# Two commands matter: `make lab` shows the gate at work, `make test` proves it.
GO      ?= go
VERSION ?= 0.3.0-dev
BIN     ?= bin/portcullis
DIST    ?= dist
# Only what every packet and every mapping passes through is built with inlining;
# the rest waits for the kernel or the network anyway. 0.8 MB less.
HOT      = runtime runtime/... internal/... sync sync/... slices maps bytes strings strconv net/netip unique bufio io \
           portcullis/portmap portcullis/policy portcullis/pcp portcullis/internal/datagram portcullis/soap \
           portcullis/internal/xml1 portcullis/internal/http1
INLINE   = -gcflags=all=-l $(foreach p,$(HOT),-gcflags=$(p)=)
# Functions start at any octet: 0.2 MB less.
STRIP   ?= -s -w
LDFLAGS  = $(STRIP) -buildid= -funcalign=1 -X main.version=$(VERSION)
# Parts of the program begin at pages. Go leaves room for those of 64 kB on MIPS, where kernels
# have 4 or 16: 66 kB less, of zeros.
LDFLAGS += $(if $(filter mips mipsle,$(GOARCH)),-R 0x4000)

PREFIX  ?= /usr/local

export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

.PHONY: build flags install install-openwrt packages check-packages release lab pictures test bench bench-instructions memory unit system cases abuse clients page screenshot vet lint vuln reproducible sbom halfcore race fuzz size sizes clean deps

# Which instructions a program may use does not depend on who builds it: the environment does not
# count, an argument of make does (packages/targets.go). What is the oldest processor of a kind is here.
build: export GOAMD64    = v1
build: export GO386      = softfloat
build: export GOARM64    = v8.0
build: export GOARM      = 5
build: export GOMIPS     = softfloat
build: export GOMIPS64   = softfloat
build: export GOPPC64    = power8
build: export GORISCV64  = rva20u64
build: export GOFIPS140  = off
build: export GOEXPERIMENT =
build:
	CGO_ENABLED=0 $(GO) build -trimpath $(INLINE) -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/portcullis

# What `make build` tells the compiler, for who builds packages otherwise (etc/openwrt/feed).
flags:
	@echo "$(INLINE) -ldflags '$(LDFLAGS)'"

# What `make build` has built, with its manuals and documents, its completions, its configuration where there
# is none, its units and its user. Nothing is started.
AT = $(DESTDIR)$(PREFIX)
CHARTS = docs/rate.svg docs/memory.svg docs/first-packet.svg
UNITS = portcullis.service portcullis-cleanup.service portcullis-web.service
install:
	install -D $(BIN) $(AT)/sbin/portcullis
	install -D -m 644 -t $(AT)/share/man/man8 etc/man/portcullis.8
	install -D -m 644 -t $(AT)/share/man/man5 etc/man/portcullis.toml.5
	install -D -m 644 -t $(AT)/share/doc/portcullis SECURITY.md
	install -D -m 644 -t $(AT)/share/doc/portcullis/docs docs/*.md $(CHARTS)
	test -e $(DESTDIR)/etc/portcullis/portcullis.toml || install -D -m 644 -t $(DESTDIR)/etc/portcullis etc/portcullis.toml
	install -D -m 644 -t $(AT)/share/bash-completion/completions etc/completion/portcullis
	install -D -m 644 -t $(AT)/share/zsh/site-functions etc/completion/_portcullis
	install -D -m 644 -t $(AT)/share/fish/vendor_completions.d etc/completion/portcullis.fish
	install -D -m 644 -t $(AT)/lib/sysusers.d etc/sysusers.d/portcullis.conf
	install -D -m 644 -t $(AT)/lib/systemd/system $(UNITS:%=etc/systemd/%)
	sed -i 's|/usr/sbin/portcullis|$(PREFIX)/sbin/portcullis|' $(UNITS:%=$(AT)/lib/systemd/system/%)
	test -n "$(DESTDIR)" -o ! -d /run/systemd/system || { systemd-sysusers portcullis.conf && systemctl daemon-reload; }

# What install has brought, but for the configuration and the user.
.PHONY: uninstall
uninstall:
	rm -f $(AT)/sbin/portcullis $(AT)/share/man/man8/portcullis.8 $(AT)/share/man/man5/portcullis.toml.5
	rm -f $(AT)/share/bash-completion/completions/portcullis $(AT)/share/zsh/site-functions/_portcullis
	rm -f $(AT)/share/fish/vendor_completions.d/portcullis.fish $(AT)/lib/sysusers.d/portcullis.conf
	rm -f $(UNITS:%=$(AT)/lib/systemd/system/%)
	rm -rf $(AT)/share/doc/portcullis
	test -n "$(DESTDIR)" -o ! -d /run/systemd/system || systemctl daemon-reload

# The same as install for a router with OpenWrt, into a package or an image. Where /etc/config/upnpd
# decides, as it does there, /etc/portcullis/portcullis.toml is what that becomes.
install-openwrt:
	install -D $(BIN) $(DESTDIR)/usr/sbin/portcullis
	install -D etc/openwrt/portcullis.init $(DESTDIR)/etc/init.d/portcullis
	install -D etc/openwrt/miniupnpd.init $(DESTDIR)/etc/init.d/miniupnpd
	install -D -m 600 etc/openwrt/upnpd.config $(DESTDIR)/etc/config/upnpd
	install -D -m 644 etc/openwrt/capabilities.json $(DESTDIR)/etc/capabilities/portcullis.json
	install -D -t $(DESTDIR)/usr/libexec/rpcd etc/openwrt/rpcd/portcullis
	install -D -m 644 -t $(DESTDIR)/usr/share/rpcd/acl.d etc/openwrt/acl.d/portcullis.json
	install -D -m 644 etc/openwrt/keep $(DESTDIR)/lib/upgrade/keep.d/portcullis
	install -D -m 644 -t $(DESTDIR)/usr/share/nftables.d/table-post etc/nftables.d/table-post/20-portcullis.nft
	install -D -m 644 -t $(DESTDIR)/usr/share/nftables.d/chain-pre/forward etc/nftables.d/chain-pre/forward/20-portcullis.nft
	install -d $(DESTDIR)/etc/portcullis
	ln -sfn /var/etc/portcullis/portcullis.toml $(DESTDIR)/etc/portcullis/portcullis.toml

lab: build bin/portcullis-lab
	bin/portcullis-lab

# The lab is a program of its own, which does not go onto routers.
.PHONY: bin/portcullis-lab
bin/portcullis-lab:
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/portcullis-lab

# The pictures of the README, from the program's own words; test/readme compares them.
pictures: build
	$(GO) test ./test/readme -count=1 -run 'TestPicture|TestRecording' -update

# Everything, in the order in which a failure is cheapest to find.
test: deps build vet lint size reproducible unit system cases clients page check-packages

deps:
	test/install

vet:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) vet ./...
	cd test/clients && $(GO) vet ./...
	cd test/clients/browser && $(GO) vet ./...
	cd packages && $(GO) vet ./...

# Tools of a module of their own, of which nothing comes into the program.
TOOL = $(GO) tool -modfile=test/tools/go.mod
lint:
	$(TOOL) staticcheck ./...
	git ls-files -z | xargs -0 awk 'FNR == 1 { if (/^#! ?\/(usr\/)?bin\/(env )?(ba)?sh/) print FILENAME; nextfile }' | xargs shellcheck

# Not a part of test: it asks a database on the Internet.
vuln:
	test/vuln

reproducible:
	test/reproducible

# What the program is made of, in the form of CycloneDX.
sbom: build
	mkdir -p $(DIST)
	$(TOOL) cyclonedx-gomod bin -json -noserial -version $(VERSION) -output $(DIST)/portcullis.cdx.json bin/portcullis
	sed -i '/"timestamp":/d' $(DIST)/portcullis.cdx.json

# Tests beside their code; in all they stay under 20 seconds. The firewall backends
# send real packets through a network of namespaces each, and are among the system's.
BACKENDS := ./firewall/nft ./firewall/iptables
CASES     = $(GO) run ./test/cases
unit:
	$(CASES) -record bin/unit.tests -timeout 120s $$($(GO) list ./... | grep -v -e /test/ -e /nft -e /iptables)

# The whole program on networks of namespaces, against the real kernel.
system: build
	$(CASES) -record bin/backends.tests -count=1 -p 1 -timeout 300s $(BACKENDS)
	PORTCULLIS=$(CURDIR)/bin/portcullis $(CASES) -record bin/system.tests -count=1 -p 1 -parallel 8 -timeout 600s ./test/...

# Each case of docs/abuse-cases.md, by what unit and system have shown.
cases:
	$(CASES) bin/unit.tests bin/backends.tests bin/system.tests

# The same, of a run of its tests alone.
abuse: build
	PORTCULLIS=$(CURDIR)/bin/portcullis $(CASES)

# Real control points from Debian, Go modules and npm.
clients: build
	cd test/clients && PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) test -count=1 -v -parallel 8 -timeout 900s ./...

# The owner's page in a browser.
page: build
	cd test/clients/browser && PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) test -count=1 -v -parallel 4 -timeout 600s ./...

# The README's picture of it.
screenshot: build
	cd test/clients/browser && PORTCULLIS=$(CURDIR)/bin/portcullis SCREENSHOT=$(CURDIR)/docs/page.webp $(GO) test -count=1 -run TestScreenshot ./...

bench: build
	test/install bench
	PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) run ./test/bench -keep bin/bench.json

# How many instructions a request takes; fails at 1.1 of what is recorded. Not a part of test:
# under valgrind on a busy machine a start may take longer than the daemon waits for the kernel.
bench-instructions: build
	test/install bench
	PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) run ./test/bench -only instructions

# Memory of all processes of the daemon together; fails where it is more than is promised.
memory: build
	PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) run ./test/bench -only memory

# Everything with half of one core, package by package: nothing may depend on time. Builds
# have all cores. TESTS='./test/faults -run TestCrash' runs some.
HALF = PORTCULLIS=$(CURDIR)/bin/portcullis $(GO) test -count=1 -p 1 -timeout 1800s -exec $(CURDIR)/test/halfcore
halfcore: build
	$(HALF) $(or $(TESTS),./...)
ifndef TESTS
	cd test/clients && $(HALF) ./...
	cd test/clients/browser && $(HALF) ./...
endif

# With a cold cache the compiler takes longer than the tests.
race:
	CGO_ENABLED=1 $(GO) test -race -timeout 900s $$($(GO) list ./... | grep -v -e /test/ -e /nft -e /iptables)
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 1800s $(BACKENDS)

# FUZZTIME for each target, one after another.
FUZZTIME ?= 20s
fuzz:
	test/fuzz $(FUZZTIME)

# Packages for Debian and OpenWrt, and tarballs, into dist/: all of them, or those of some
# processors. APK_KEY is a file with an RSA key, which signs those of OpenWrt 25.12.
packages:
	rm -rf $(DIST)/programs $(DIST)/portcullis[-_.]* $(DIST)/SHA256SUMS
	$(if $(ARCHS),,$(MAKE) --silent sbom)
	$(GO) run -C packages . -version $(VERSION) -out $(DIST) -archs "$(ARCHS)" $(if $(APK_KEY),-key $(abspath $(APK_KEY)))

# A release of the tag that stands here, signed: KEY has minisign's secret key, APK_KEY that of
# RSA for routers. Both are needed.
release:
	DIST='$(DIST)' ARCHS='$(ARCHS)' KEY='$(KEY)' APK_KEY='$(APK_KEY)' packages/release

# The stripped binary stays at or under 8.44 MB here, as packages/targets.go has it, which also has what is
# allowed on the other processors.
size: build
	@s=$$(stat -c %s bin/portcullis); echo "bin/portcullis: $$s bytes"; test $$s -le 8440000

# Every processor that we ship, as it is and in the file system of a router.
sizes:
	$(GO) run -C packages . -version $(VERSION) -out bin/sizes -sizes

# All packages are built, and looked at; programs of other processors run.
check-packages:
	cd packages && $(GO) test ./...
	test/packages
	test/codecs
	test/release

clean:
	rm -rf bin dist
