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

# Folders of modules whose packages others import. cmd/elector has none, but imports internal ones.
importers=". operator metrics cmd/elector"
for m in $importers; do
	[ ! -f "$m/go.mod" ] || go -C "$m" list -f '{{join .Imports "\n"}}' ./...
done | grep '/internal/' | sort -u >"$tmp/internal" || true

for m in . operator metrics; do
	[ -f "$tmp/old/$m/go.mod" ] || continue
	go -C "$tmp/old/$m" list -f '{{if ne .Name "main"}}{{.ImportPath}}{{end}}' ./... | while read -r package; do
		case $package in
		*/internal/*) grep -qx "$package" "$tmp/internal" || continue ;;
		esac
		(cd "$tmp/old/$m" && "$APIDIFF" -w "$tmp/old.api" "$package")
		if ! (cd "$m" && "$APIDIFF" -allow-internal "$tmp/old.api" "$package") >"$tmp/diff" 2>&1; then
			echo "Incompatible changes:" >>"$tmp/diff" # it is not there any more, or does not compile
		fi
		[ ! -s "$tmp/diff" ] || { echo "== $package since $tag" && cat "$tmp/diff"; } | tee -a "$tmp/all"
	done
done
if grep -q '^Incompatible changes:' "$tmp/all" 2>/dev/null &&
	! sed -n '/^## /,$p' CHANGELOG.md | sed '1d;/^## /,$d' | grep -q '^- Incompatible:'; then
	echo 'Say in the newest part of CHANGELOG.md what does not fit, in a line that begins with "- Incompatible:".' >&2
	exit 1
fi
