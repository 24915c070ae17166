# Shared by the scripts here; to be sourced, not run.
# shellcheck shell=bash

# The release that is fetched when the machine has no Go that is new enough. It must be at least the version in go.mod.
GO_RELEASE=1.26.8
GOLANGCI_LINT_VERSION=v2.15.0
GOVULNCHECK_VERSION=v1.9.0
CONTROLLER_TOOLS_VERSION=v0.23.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.cache/bin

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND... runs the command, then prints how long it took. A failing command ends the script: it is called
# outside of any condition, so that `set -e` counts within the command too.
step() {
	local name=$1 started=${EPOCHREALTIME/./}
	shift
	say "$name"
	"$@"
	local took=$(( (${EPOCHREALTIME/./} - started) / 1000 ))
	printf -- '--- %s: ok, %d.%d s\n' "$name" $((took / 1000)) $((took % 1000 / 100))
}

# at_least A B: version A is B or later.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# as_root COMMAND... runs it as root, or says what a person must do.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "not root and no sudo here: run this as root, then try again: $*"
	fi
}

# apt_install PACKAGE... installs Debian packages, without questions. The package lists are only fetched when there are none
# yet, or when they are too old to install from.
apt_install() {
	command -v apt-get >/dev/null || die "no apt-get here (this is made for Debian): install by hand: $*"
	local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@")
	local log
	log=$(mktemp)
	if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || ! as_root "${install[@]}" >"$log" 2>&1; then
		as_root apt-get update -qq >"$log" 2>&1 || { cat "$log" >&2; die "apt-get update failed"; }
		as_root "${install[@]}" >"$log" 2>&1 || { cat "$log" >&2; die "apt-get could not install: $*"; }
	fi
	rm -f "$log"
}

# go_version GO prints the version of a go command ("1.26.8"), or nothing.
go_version() { (cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9.]*\).*/\1/p'); }

# use_go puts a Go that is new enough in front of PATH: the first of those installed, else the one that
# scripts/install-go fetches. It is the only Go that is used from then on, whatever go.mod of a dependency asks for.
use_go() {
	local want go
	want=$(sed -n 's/^go //p' "$ROOT/go.mod")
	export GOTOOLCHAIN=local
	for go in "$(command -v go || true)" /usr/local/go/bin/go; do
		if [ -x "$go" ] && at_least "$(go_version "$go")" "$want"; then
			export PATH=${go%/*}:$PATH
			return
		fi
	done
	go=$("$ROOT/scripts/install-go") || exit 1
	export PATH=${go%/*}:$PATH
}

# What tests run that need no tag (house_programs_test.go compares).
# shellcheck disable=SC2034 # used by those who source this
test_programs=(etcd kube-apiserver kube-controller-manager kube-scheduler helm)

# use_kubernetes PROGRAM... has programs of Kubernetes built, if they are not yet, and tells the tests where they are.
use_kubernetes() {
	TOUCHSTONE_KUBERNETES=$("$ROOT/scripts/kubernetes" "$@")
	export TOUCHSTONE_KUBERNETES
}
