# Works without a terminal, as root or with sudo. `make` alone lists the targets.

GO ?= go
GOLANGCI_LINT_VERSION := v2.15.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-postgres-matrix test-nats-matrix test-kafka soak lint bench build need-go need-postgres need-rabbitmq need-maven need-cc kafka-libs debezium-libs

# What test-postgres-matrix tests with, and for how long soak goes on: a hundred seeds of
# the models of listeners, grid and its mirrors take about ten minutes on two cores.
VERSIONS ?= 14 15 16 17 18
MINUTES ?= 10
FAULTS ?= 100
SEEDS ?= $(FAULTS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: need-postgres ## play the three journeys on a throw-away PostgreSQL
	$(GO) run ./cmd/rowcall demo

# The tests wait for their servers a good deal, so one package more than there are cores runs at a time.
test: need-postgres need-rabbitmq need-cc ## vet, then all tests with the race detector
	$(GO) vet ./...
	CGO_ENABLED=1 $(GO) test -race -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) -timeout 20m ./...
	cd internal/interop && CGO_ENABLED=1 $(GO) test -race -mod=mod -timeout 20m ./...

# Those whose behaviour depends on the version of PostgreSQL.
test-postgres-matrix: need-go ## the tests against PostgreSQL 14 to 18, or those that VERSIONS="16 18" names
	@set -e; for version in $(VERSIONS); do \
		bin=$$($(GO) run ./internal/tools/pgfetch $$version); \
		echo "make: PostgreSQL $$version in $$bin" >&2; \
		ROWCALL_PG_BIN=$$bin $(GO) test -count 1 -timeout 20m ./cdc/... ./grid/pgwrite ./cmd/... ./examples/... ./internal/pgserver ./internal/pgtest; \
	done

# Those of JetStream, without the clusters, which are always embedded. The Go module proxy has
# the servers' sources; the version behind the name is the last one of that line.
test-nats-matrix: VERSIONS := $(if $(filter command% environment%,$(origin VERSIONS)),$(VERSIONS),2.10 2.11 2.12)
test-nats-matrix: need-go ## the tests of JetStream against NATS 2.10 to 2.12, or those that VERSIONS="2.10 2.12" names
	@set -e; for version in $(VERSIONS); do \
		dir='$(CURDIR)'/bin/nats-$$version; \
		[ -x "$$dir/nats-server" ] || { \
			echo "make: building NATS $$version into $$dir, once" >&2; \
			GOBIN="$$dir" CGO_ENABLED=0 $(GO) install github.com/nats-io/nats-server/v2@v$$version; }; \
		echo "make: NATS $$version in $$dir" >&2; \
		ROWCALL_NATS_BIN="$$dir/nats-server" $(GO) test -count 1 -timeout 20m -skip 'Cluster|ServerIsKilled' ./sinks/jetstream; \
	done

# The broker's jars are about 45 MB. ROWCALL_KAFKA_LIBS names a directory that has them.
ROWCALL_KAFKA_LIBS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rowcall/kafka-4.1.0
kafka-libs: need-maven
	@ls "$(ROWCALL_KAFKA_LIBS)"/kafka_2.13-*.jar >/dev/null 2>&1 || { \
		echo "make: fetching the jars of a Kafka broker into $(ROWCALL_KAFKA_LIBS)" >&2; \
		mvn -q -B -f internal/tools/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory='$(ROWCALL_KAFKA_LIBS).part' && \
		rm -rf '$(ROWCALL_KAFKA_LIBS)' && mv '$(ROWCALL_KAFKA_LIBS).part' '$(ROWCALL_KAFKA_LIBS)'; }

# For go run ./internal/bench -debezium, which needs a JDK besides.
DEBEZIUM_LIBS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rowcall/debezium-3.3.1
debezium-libs: need-maven
	@ls "$(DEBEZIUM_LIBS)"/debezium-embedded-*.jar >/dev/null 2>&1 || { \
		echo "make: fetching the jars of Debezium's engine into $(DEBEZIUM_LIBS)" >&2; \
		mvn -q -B -f internal/tools/debezium/pom.xml dependency:copy-dependencies -DoutputDirectory='$(DEBEZIUM_LIBS).part' && \
		rm -rf '$(DEBEZIUM_LIBS)' && mv '$(DEBEZIUM_LIBS).part' '$(DEBEZIUM_LIBS)'; }

test-kafka: need-go need-cc kafka-libs ## the Kafka firehose, sources and groups against a real broker
	ROWCALL_KAFKA_LIBS='$(ROWCALL_KAFKA_LIBS)' CGO_ENABLED=1 $(GO) test -race -count 1 -timeout 9m -run RealBroker -v ./sinks/kafka

# The tests that play random histories with internal/seedtest.
models := ^Test(RandomHistoriesAreOrdered|EveryPolicyTells|EverythingTogetherTells|ResumedAgainAndAgain|RestartedNameHears|RegionBehavesAs|ALimitedRegionBehaves|GroupFollowsRandom|EverythingAtOnceTells|WhoGoesOnIsTold|MirrorsGroupsAndNames|ARandomHistoryOfWriters|AMirrorShowsAtEach|MirrorsEqualTheRegion)
modelled := ./listeners ./grid ./grid/pgwrite ./sinks/jetstream
soak: need-postgres need-cc need-rabbitmq ## random histories with crashes, MINUTES=10 long, then SEEDS=100 (as FAULTS) of the models, then FAULTS=100 of each kind for the sinks; a failure prints its seed
	ROWCALL_SOAK=$(MINUTES)m CGO_ENABLED=1 $(GO) test -race -count 1 -timeout 0 -run '^TestRandomHistory$$' -v ./cdc
	[ $(SEEDS) = 0 ] || ROWCALL_MODEL_SEEDS=$(SEEDS) CGO_ENABLED=1 $(GO) test -race -count 1 -timeout 0 -run '$(models)' $(modelled)
	[ $(FAULTS) = 0 ] || ROWCALL_FIREHOSE_FAULTS=$(FAULTS) ROWCALL_COMMAND_FAULTS=$(FAULTS) ROWCALL_GROUP_FAULTS=$(FAULTS) \
		CGO_ENABLED=1 $(GO) test -race -count 1 -timeout 0 -run '^Test(Firehoses|Commands|Groups)' ./sinks/jetstream ./sinks/kafka ./sinks/rabbitmq

lint: need-go ## run golangci-lint at the pinned version
	@set -e; \
	lint=golangci-lint; \
	if ! $$lint version 2>/dev/null | grep -qF 'version $(GOLANGCI_LINT_VERSION:v%=%) '; then \
		lint=bin/golangci-lint-$(GOLANGCI_LINT_VERSION); \
		[ -x $$lint ] || { \
			echo "make: building golangci-lint $(GOLANGCI_LINT_VERSION) into bin, once; this takes minutes" >&2; \
			GOBIN='$(CURDIR)/bin' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION); \
			mv bin/golangci-lint $$lint; }; \
	fi; \
	case $$lint in bin/*) lint='$(CURDIR)'/$$lint ;; esac; \
	for module in . internal/interop internal/bench/regions; do echo "$$lint run, in $$module"; (cd $$module && $$lint run); done

# The peers of the regions are in a module of their own; -mod=mod lets it follow
# the versions of ours.
bench: need-postgres ## drain a backlog beside pg_recvlogical, regions beside their peers, then the benchmarks of the packages
	$(GO) run ./internal/bench
	cd internal/bench/regions && $(GO) run -mod=mod .
	$(GO) test -run '^$$' -bench . ./...

build: need-go ## build bin/rowcall
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/rowcall ./cmd/rowcall

need-go:
	@command -v '$(GO)' >/dev/null || { \
		echo "make: there is no Go here; rowcall needs the version that go.mod names: https://go.dev/doc/install" >&2; \
		exit 1; }

# Debian's postgresql package creates a cluster and starts it on port 5432. The
# file in createcluster.d turns that off for the time of the installation.
need-postgres: need-go
	@why=$$($(GO) run ./internal/tools/pgbin 2>&1 >/dev/null) && exit 0; \
	case "$$why" in *"no PostgreSQL server binaries"*) ;; *) echo "$$why" >&2; exit 1 ;; esac; \
	if [ -n "$$ROWCALL_PG_BIN" ] || ! command -v apt-get >/dev/null; then echo "make: $$why" >&2; exit 1; fi; \
	$(as_root); \
	conf=/etc/postgresql-common/createcluster.d/rowcall-make.conf; \
	trap '$$root rm -f $$conf' EXIT; trap 'exit 1' HUP INT TERM; \
	$$root mkdir -p "$${conf%/*}" && echo 'create_main_cluster = false' | $$root tee $$conf >/dev/null && \
	packages=postgresql && why='the demo and the tests run a throw-away PostgreSQL; no cluster is set up' && \
	$(apt_install)

# Debian's rabbitmq-server package starts a service on port 5672, and Erlang's a
# port mapper. A policy-rc.d that refuses keeps them from it for the time of the
# installation; one that is there is put back. Nor does it start at the next boot. ROWCALL_RABBITMQ=skip leaves out
# the tests that need it, and so does a system without apt-get.
need-rabbitmq: need-go
	@[ "$$ROWCALL_RABBITMQ" = skip ] && exit 0; \
	why=$$($(GO) run ./internal/tools/rabbitbin 2>&1 >/dev/null) && exit 0; \
	case "$$why" in *"no RabbitMQ server"*) ;; *) echo "$$why" >&2; exit 1 ;; esac; \
	if [ -n "$$ROWCALL_RABBITMQ_BIN" ]; then echo "make: $$why" >&2; exit 1; fi; \
	if ! command -v apt-get >/dev/null; then echo "make: the tests of RabbitMQ are skipped: $$why" >&2; exit 0; fi; \
	$(as_root); \
	policy=/usr/sbin/policy-rc.d; kept=$$policy.rowcall-make; \
	trap '$$root rm -f $$policy; if [ -e $$kept ]; then $$root mv -f $$kept $$policy; fi' EXIT; trap 'exit 1' HUP INT TERM; \
	if [ -e $$policy ] && [ ! -e $$kept ]; then $$root mv $$policy $$kept; fi && \
	printf '#!/bin/sh\nexit 101\n' | $$root tee $$policy >/dev/null && $$root chmod 755 $$policy && \
	packages=rabbitmq-server && why='the tests run a throw-away RabbitMQ; no service is started' && \
	$(apt_install) && \
	{ ! command -v systemctl >/dev/null || $$root systemctl disable --quiet rabbitmq-server 2>/dev/null || :; }

need-maven:
	@command -v mvn >/dev/null && command -v java >/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then echo "make: a Kafka broker needs Java 17 and Maven; install them" >&2; exit 1; fi; \
	$(as_root); \
	packages='default-jre-headless maven' && why='Maven fetches, and Java runs, a Kafka broker for the test and Debezium for the benchmark' && \
	$(apt_install)

# The race detector links with C.
need-cc: need-go
	@cc=$$($(GO) env CC) || exit 1; \
	echo 'int main(void) { return 0; }' | $$cc -include stdlib.h -x c -o /dev/null - 2>/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then \
		echo "make: the race detector needs a C compiler ($$cc) with the C library's headers; install one" >&2; exit 1; fi; \
	$(as_root); \
	packages='gcc libc6-dev' && why='the race detector of the tests links with C' && \
	$(apt_install)

# Shell text that sets $root to what makes a command run as root.
define as_root
root=; \
	if [ "$$(id -u)" != 0 ]; then \
		command -v sudo >/dev/null || { echo "make: apt-get needs root, and there is no sudo; run this as root, or install PostgreSQL and gcc yourself" >&2; exit 1; }; \
		root=sudo; [ -t 0 ] || root='sudo -n'; \
	fi
endef

# Shell text that installs $packages. An update that fails (one dead source
# among many) need not keep the packages from being found.
define apt_install
echo "make: installing $$packages with apt-get: $$why" >&2 && \
	{ $$root apt-get -q update </dev/null || echo "make: apt-get update failed; trying with the lists that are there" >&2; } && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $$packages </dev/null
endef
