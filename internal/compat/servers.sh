#!/bin/sh
# Puts a kube-apiserver of the version, built from its Go modules, and the etcd of e2e/tools into a folder, for
# KUBEBUILDER_ASSETS. With "list" nothing is compiled: it only shows that all modules are there.
#
#   sh internal/compat/servers.sh v1.31.14 FOLDER [list]
set -eu
version=$1
staging=v0.${version#v1.} # what a release of Kubernetes publishes its parts as
mkdir -p "$2"
out=$(cd "$2" && pwd)
tools=$(cd "$(dirname "$0")/../../e2e/tools" && pwd)

src=$out/src
mkdir -p "$src"
cd "$src"
mod=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^.*"GoMod": "\(.*\)".*$/\1/p')
[ -f "$mod" ] || { echo "k8s.io/kubernetes@$version cannot be downloaded" >&2; exit 1; }

# Kubernetes requires its parts as v0.0.0 and replaces them by folders of its own repository. Outside of it each has to
# be replaced by the version that was published for the same release.
{
	echo "module example.com/kube-apiserver"
	grep -E '^go ' "$mod"
	echo "require k8s.io/kubernetes $version"
	sed -nE -e 's#^(replace )?[[:space:]]*(k8s\.io/[a-z0-9.-]+) => \./staging/.*#\2#p' \
		-e 's#^[[:space:]]*(k8s\.io/[a-z0-9.-]+) v0\.0\.0( .*)?$#\1#p' "$mod" | sort -u |
		sed "s#.*#replace & => & $staging#"
} >go.mod

export CGO_ENABLED=0 GOWORK=off GOFLAGS="${GOFLAGS:-} -mod=mod"
package=k8s.io/kubernetes/cmd/kube-apiserver
if [ "${3:-}" = list ]; then
	echo "$(go list -deps $package | wc -l) packages of kube-apiserver $version"
	exit
fi
go build -o "$out/kube-apiserver" $package
cp "$(GOFLAGS= go -C "$tools" tool -n server)" "$out/etcd"
echo "kube-apiserver $version and etcd are in $out"
