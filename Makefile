# Only Go, gcc, make and git are needed: everything else is a Go module, built and cached by the go command.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULES = . operator cmd/elector examples figures metrics metrics/alerts e2e internal/release

.PHONY: test race servers quick e2e chaos scale bench lint sim mutants figures model migrating compat compat-build \
	compat-leaderelection compat-operator compat-servers compat-systems importers release release-check api

# Everything. The first run builds a kube-apiserver and an etcd, which takes some minutes. The race detector, for which
# all packages are compiled once more, is on where the concurrency is the library's own; make race has it everywhere. The
# modules of the tests require the same versions, so that what one has compiled is there for the others.
# LONG are tests that take a minute or more with the race detector, and that run what others run, more often.
LONG = ^TestFigures|OfManyItsTerm|SixHundred|FewStreams|OverABusy|ManyStuck|SlowWebhook
test: servers
	go vet -race ./...
	go test -race -timeout 30m -skip '$(LONG)' ./...
	go test -timeout 30m -run '$(LONG)' . -outages=20
	go test -timeout 60m -run '^TestSimulation$$' ./internal/sim -sim.seeds=5000 -sim.hours=2 # no race to find: it has one goroutine
	go -C metrics test -race -timeout 15m ./...
	go -C operator test -timeout 15m ./...
	go -C cmd/elector test -timeout 15m ./...
	go -C examples test -p 4 -timeout 15m ./... # they wait more than they work
	go -C figures test -timeout 15m ./...
	go -C metrics/alerts test -timeout 15m ./...
	go -C internal/release test -timeout 5m ./...
	$(MAKE) importers release-check
	$(MAKE) e2e

# The tests of the examples, of e2e and of cmd/elector under the race detector. Nightly.
race: servers
	go test -race -timeout 30m .
	go -C cmd/elector test -race -timeout 15m ./...
	go -C examples test -race -p 4 -timeout 15m ./...
	$(MAKE) e2e chaos RACE=-race

# The API server and its storage, built once and kept in the build cache; the tests would build them side by side.
servers:
	go -C e2e/tools tool -n server >/dev/null
	go -C e2e/tools tool -n kube-apiserver >/dev/null

# The part for people at work.
quick:
	go test ./...

# Replicas as processes against a real kube-apiserver and etcd, beside client-go's elector. -v shows the figures.
RACE =
e2e:
	go -C e2e test $(RACE) -count=1 -v -timeout 60m ./...

# One table of costs and figures beside client-go's elector, in virtual time but for the costs.
bench:
	go test -run '^TestBenchmarks$$' -v . -bench.table

# What happens to processes, connections and servers in the worst case, beside client-go's elector.
chaos:
	go -C e2e test $(RACE) -count=1 -v -timeout 30m -run TestChaos . -chaos

# Six hundred elections in each of two processes, on idle and on busy processors, beside client-go's elector.
scale: servers
	go -C e2e test -count=1 -v -timeout 30m -run TestScale . -scale

lint:
	@for m in $(MODULES); do \
		echo "lint $$m"; \
		test -z "$$(gofmt -l $$m)" || { echo "gofmt would change:"; gofmt -l $$m; exit 1; }; \
		(cd $$m && go vet ./... && go run $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; \
	done

# The simulation at length: a million hours, SEEDS seeds of HOURS simulated hours each. A seed that fails prints how to run it
# again. The last line plays the library itself, goroutines and all, in virtual time.
SEEDS = 500000
FIRST = 1
HOURS = 2
sim:
	go test -run '^TestSimulation$$' -timeout 20h -v ./internal/sim -sim.first=$(FIRST) -sim.seeds=$(SEEDS) -sim.hours=$(HOURS)
	go test -run '^TestSimulation$$' -timeout 10h . -sim.first=$(FIRST) -sim.seeds=100 -sim.hours=2

# Break each rule of the protocol on purpose, and see which tests notice.
mutants:
	go run ./internal/mutants

# The picture in the README.
figures:
	go -C figures test -count=1 -v . -write

# The figures of examples/MIGRATING.md, on a real kube-apiserver, which is killed for a minute at the end.
migrating: servers
	go -C examples test -count=1 -v -timeout 15m -run '^TestFigures' ./internal/migrating -figures

# A model of the protocol, checked exhaustively where spin is installed (apt-get install spin).
model:
	sh model/run.sh

# What the library adds to the go.mod of an operator on each controller-runtime.
importers:
	go run ./internal/compat

# The versions that the README names: operators on each controller-runtime, compiled; the root module with the oldest Go
# and client-go, which are those in go.mod; with the newest client-go; on 32 bits; and package leaderelection, which is the closest to
# client-go's elector, with each client-go between, and with the leaderelection package of the one to come.
OLDEST_GO = go$(shell sed -n 's/^go //p' go.mod)
NEWEST = v0.37.2
COMING = v0.38.0-beta.0
BETWEEN = v0.32.13 v0.33.13 v0.34.13 v0.35.10 v0.36.6
TESTS = -timeout 30m -skip '^TestFigures$$'
LIBRARY = . ./electortest/... ./leaderelection/...
# A go.mod of its own for the version of client-go that is in the shell's variable v.
MODFILE = mkdir -p bin && cp go.mod bin/$$v.mod && cp go.sum bin/$$v.sum && \
	go get -modfile=bin/$$v.mod k8s.io/client-go@$$v k8s.io/api@$$v k8s.io/apimachinery@$$v && go mod tidy -modfile=bin/$$v.mod
compat: compat-build compat-leaderelection compat-systems
	go run ./internal/compat -build
	GOTOOLCHAIN=$(OLDEST_GO) go test -timeout 30m ./...
	go test -modfile=bin/$(NEWEST).mod $(TESTS) $(LIBRARY)
	GOARCH=386 CGO_ENABLED=0 go test $(TESTS) $(LIBRARY)

# What of it takes less than a minute when nothing has to be compiled anew: CI runs it on each push.
compat-build:
	GOTOOLCHAIN=$(OLDEST_GO) go vet ./...
	v=$(NEWEST) && $(MODFILE) && go vet -modfile=bin/$$v.mod $(LIBRARY)
	GOARCH=386 CGO_ENABLED=0 go vet ./...
	for os in $(SYSTEMS); do GOOS=$$os CGO_ENABLED=0 go vet ./... || exit 1; done

# All that runs on other systems, with its tests, which are linked and not run. Those of e2e and examples need Unix's signals.
SYSTEMS = windows darwin
compat-systems:
	@for os in $(SYSTEMS); do \
		export GOOS=$$os CGO_ENABLED=0; \
		for m in . metrics operator cmd/elector figures; do \
			echo "$$os: $$m"; (cd $$m && go vet ./... && go test -c -o /dev/null ./...) || exit 1; \
		done; \
		for m in e2e examples; do echo "$$os: $$m, without its tests"; go -C $$m build ./... || exit 1; done; \
	done

compat-leaderelection:
	for v in $(BETWEEN); do $(MODFILE) && go test -modfile=bin/$$v.mod ./leaderelection || exit 1; done
	sh internal/compat/recovery.sh $(COMING)

# The module operator with each later controller-runtime: its go.mod has the oldest that it works with.
CONTROLLER_RUNTIMES = v0.22.5 v0.23.3 v0.24.1 v0.25.2
compat-operator:
	@mkdir -p bin
	@for v in $(CONTROLLER_RUNTIMES); do \
		echo "operator with controller-runtime $$v"; \
		cp operator/go.mod bin/operator-$$v.mod && cp operator/go.sum bin/operator-$$v.sum && \
		go -C operator get -modfile=../bin/operator-$$v.mod sigs.k8s.io/controller-runtime@$$v && \
		go -C operator mod tidy -modfile=../bin/operator-$$v.mod && \
		go -C operator test -modfile=../bin/operator-$$v.mod -timeout 15m ./... || exit 1; \
	done

# Conformance and e2e on the kube-apiserver of the oldest client-go's release, with that client and with the newest.
# Building it takes minutes, each time that the build cache does not have it.
OLDEST_SERVER = v1.31.14
compat-servers:
	sh internal/compat/servers.sh $(OLDEST_SERVER) bin/$(OLDEST_SERVER)
	KUBEBUILDER_ASSETS=$(CURDIR)/bin/$(OLDEST_SERVER) go -C e2e test -count=1 -v -timeout 60m .

# What a module proxy would serve of VERSION, tried in fresh folders as the READMEs will say. Nothing here is changed.
VERSION = v$(shell sed -n '/^## /{s/^## \([0-9.]*\).*/\1/p;q;}' CHANGELOG.md)
release-check:
	go -C internal/release run . $(VERSION)

# The commit that is tagged: CONTRIBUTING.md says what comes before it and after it.
release:
	go -C internal/release run . -write $(VERSION)

# What has changed in the exported names since the last tag. It fails if something does not fit, and CHANGELOG.md does not say so.
api:
	sh internal/release/api.sh
