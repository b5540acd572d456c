#!/bin/sh
# Tests package leaderelection with that of client-go $1, which as a whole needs a newer Go and newer k8s.io modules: both are
# copied, and what the copy of ours imports is the other. More arguments go to go test. Usage: recovery.sh v0.38.0-beta.0
set -e
version=$1
shift
newer=$(go env GOMODCACHE)/k8s.io/client-go@$version/tools/leaderelection
go mod download "k8s.io/client-go@$version" 2>/dev/null || test -d "$newer"
older=$(go list -f '{{.Dir}}' k8s.io/client-go/tools/leaderelection)
dir=bin/testdata # no wildcard of the go command looks there
rm -rf $dir/clientgo $dir/leaderelection
mkdir -p $dir/clientgo $dir/leaderelection
cp "$older"/leasecandidate.go "$newer"/leaderelection.go "$newer"/writegate.go "$newer"/metrics.go "$newer"/healthzadaptor.go $dir/clientgo
cp leaderelection/*.go $dir/leaderelection
chmod -R u+w $dir
sed -i.bak -e 's|"k8s.io/client-go/tools/leaderelection"|"github.com/elector-go/elector/bin/testdata/clientgo"|' \
	-e 's|"github.com/elector-go/elector/leaderelection"|"github.com/elector-go/elector/bin/testdata/leaderelection"|' $dir/leaderelection/*.go
go test "$@" ./$dir/leaderelection
