#!/bin/sh
# Compares the exported names of each module that is released with those of the last tag, and also those of the internal
# packages that other modules import: these may be older than the root that they are built with.
#
# What does not fit the last tag has a line in the newest part of CHANGELOG.md that begins with "- Incompatible:".
#
#   sh internal/release/api.sh      in the root
set -eu
tag=$(git tag --list 'v[0-9]*' --sort=-v:refname | sed -n 1p)
if [ -z "$tag" ]; then
	echo "no tag yet: there is no released API to compare with"
	exit
fi
: "${APIDIFF:=$(go -C internal/release tool -n apidiff)}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/old"
git archive "$tag" | tar -x -C "$tmp/old"

modules=". operator metrics cmd/elector"
for m in $modules; do
	[ ! -f "$m/go.mod" ] || go -C "$m" list -f '{{join .Imports "\n"}}' ./...
done | grep '/internal/' | sort -u >"$tmp/internal"

incompatible=
for m in $modules; do
	[ -f "$tmp/old/$m/go.mod" ] && [ -f "$m/go.mod" ] || continue
	go -C "$tmp/old/$m" list -f '{{if ne .Name "main"}}{{.ImportPath}}{{end}}' ./... >"$tmp/packages"
	root=$(go -C . list -m)
	while read -r package; do
		case $package in */internal/*) case $(go -C "$m" list -m) in "$root") ;; *) continue ;; esac ;; esac
		case $package in */internal/*) grep -qx "$package" "$tmp/internal" || continue ;; esac
		(cd "$tmp/old/$m" && "$APIDIFF" -w "$tmp/old.api" "$package")
		(cd "$m" && "$APIDIFF" "$tmp/old.api" "$package") >"$tmp/diff"
		[ -s "$tmp/diff" ] || continue
		echo "== $package since $tag"
		cat "$tmp/diff"
		! grep -q '^Incompatible changes:' "$tmp/diff" || incompatible=yes
	done <"$tmp/packages"
done
