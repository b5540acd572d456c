#!/bin/sh
# Checks the model of the protocol (see README.md):
#
#   sh model/run.sh               everything; exit 0 if all is as it should be
#   sh model/run.sh trail FLAG…   the shortest way to the error with these flags, step by step: … trail -DDROP_S1
#
# Every search is exhaustive: no bitstate hashing, no hash compaction, and one that ends early counts as failed.
for tool in spin cc; do
	command -v $tool >/dev/null || {
		[ $tool = spin ] && echo "spin is not installed: apt-get install spin" || echo "a C compiler is not installed: apt-get install gcc"
		exit 0
	}
done
model=$(cd "$(dirname "$0")" && pwd)/elector.pml
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
cd "$dir" || exit 1
failed=0
small='-DNO_DRIFT -DLD0=3' # clocks of one rate need a tick less: fewer states
suspend="$small -DSUSPEND"
notice="$small -DNOTICE=2"
deaths="$small -DDEATHS"

# build SEARCH FLAG…: makes ./pan. BFS finds the shortest way to an error; DFS needs less memory.
build() {
	search=$1
	shift
	rm -f pan* ./*.trail
	spin -a "$@" "$model" >spin.out 2>&1 && cc -O3 -w -DSAFETY -DNOREDUCE -DMEMLIM=3800 $search -o pan pan.c || { cat spin.out; exit 1; }
}

# value PATTERN: the first word of what pan printed in the lines that match.
value() { sed -n "s/$1/\1/p" pan.out | tail -1; }

line() {
	printf '%-58s %s %10s states, depth %6s, %4s s\n' "$1" "$2" "$(value '^ *\([0-9]*\) states, stored.*')" \
		"$(value '.*depth reached \([0-9]*\).*')" "$(value '.*elapsed time \([0-9.]*\) seconds.*')"
}

# holds NAME FLAG…: the whole state space, and no error in it.
holds() {
	name=$1
	shift
	build "" "$@"
	timeout 1200 ./pan -m3000000 -n -w25 >pan.out 2>&1
	if [ $? = 0 ] && grep -q 'errors: 0' pan.out && ! grep -q -i -e 'search depth too small' -e 'out of memory' -e 'Search not completed' -e 'Bit statespace' pan.out; then
		line "$name" holds
	else
		failed=1
		line "$name" "NOT PROVEN"
		cat pan.out
	fi
}

# fails NAME FLAG…: an assertion is violated.
fails() {
	name=$1
	shift
	build -DBFS "$@"
	timeout 600 ./pan -n -w24 >pan.out 2>&1
	if grep -q 'assertion violated' pan.out; then
		line "$name" found
	else
		failed=1
		line "$name" "NOT FOUND"
		cat pan.out
	fi
}

if [ "$1" = trail ]; then
	shift
	build -DBFS "$@"
	./pan -n -w24 >pan.out 2>&1
	[ -f elector.pml.trail ] || { cat pan.out; exit 1; }
	./pan -rS elector.pml.trail | grep -E '^([01]|API|HAND|CLOCK|pan:1): *' | sed 's/^pan:1: assertion.*/two at once (or reached)/'
	exit 0
fi

echo "Never two callbacks at once:"
holds "  no fault but late replies, late and lost events" -DFAULTS=0
holds "  the same, both under one identity" -DFAULTS=0 -DSAME_NAME
holds "  the same, LeaseDuration 4 and 3" -DFAULTS=0 -DLD1=3
holds "  one deletion by an outside hand" -DFAULTS=1 -DKINDS=2
holds "  one edit of the holder by an outside hand" -DFAULTS=1 -DKINDS=8
holds "  one fault of a request, or a crash" -DFAULTS=1 -DKINDS=5
holds "  an outside hand cuts or drops the times, one identity" $small -DKINDS=16 -DSAME_NAME
holds "  an outside hand writes an older state of a term" $small -DKINDS=32
holds "  the same, the last state, which all have seen" $small -DKINDS=32 -DLATEST -DSEEN_ALL
holds "  the same, though a release was sent, as in the code" $small -DDROP_S8_SENT -DKINDS=32 -DLATEST -DSEEN_ALL
holds "  a crash with StateDir, both under one identity" $small -DKINDS=4 -DSTATEDIR -DSAME_NAME
holds "  two writes of a candidate under way at once" $small -DTWO -DFAULTS=0
holds "  the API goes back to a snapshot, once" $small -DKINDS=64
holds "  a process resigns with notice" $notice -DFAULTS=0
holds "  the same, one fault of a request, or a crash" $notice -DKINDS=5
holds "  a death that the kubelet tells, both under one identity" $deaths -DKINDS=4 -DSAME_NAME

echo "Never two valid terms at once, nor one that is valid again after another, though callbacks run for ever:"
holds "  no fault but late replies, late and lost events" $suspend -DFAULTS=0
holds "  the same, and answers as late as LeaseDuration" $suspend -DPATIENT=3 -DFAULTS=0
holds "  one fault of a request" $suspend -DKINDS=1
holds "  one deletion by an outside hand" $suspend -DKINDS=2
holds "  an outside hand cuts or drops the times, one identity" $suspend -DKINDS=16 -DSAME_NAME
holds "  an outside hand writes a last state, all have seen" $suspend -DKINDS=32 -DLATEST -DSEEN_ALL

echo "Without one of the rules, two at once:"
fails "  S1: authority counts from the reply" -DDROP_S1 -DFAULTS=0
fails "  S1: a renewal that is seen counts from when it is seen" $small -DDROP_S1_SEEN -DKINDS=1
fails "  S1: it counts from when it was last sent" $small -DDROP_S1_LAST -DKINDS=1
fails "  S3: patience counts from the record's timestamp" -DDROP_S3 -DFAULTS=0
fails "  S3: patience for the own duration, not the record's" -DDROP_S3_DURATION -DFAULTS=0 -DLD1=3
fails "  S3: a release that is restored frees the Lease" $small -DDROP_S3_BACK -DKINDS=64
fails "  S3: it does if the Lease was deleted before" $small -DDROP_S3_DELETED -DKINDS=66 -DFAULTS=2 -DDELETED
fails "  S4: writes are not conditional" -DDROP_S4 -DKINDS=1
fails "  S5: a Lease is ours by its holder string" -DDROP_S5
fails "  S5: a win in doubt is led on without a further write" -DDROP_S5_ADOPT
fails "  S5: cut times prove a term whose callback has returned" $small -DDROP_S5_TERM -DKINDS=16 -DSAME_NAME
fails "  S5: so does an older state of the term" $small -DDROP_S5_TERM -DKINDS=32
fails "  S5: cut times prove a win in doubt" $small -DDROP_S5_DOUBT -DKINDS=16 -DSAME_NAME
fails "  S6: a deleted Lease is free" -DDROP_S6
fails "  S6: a late POST wins though another was seen since" -DDROP_S6_POST
fails "  S6: so does a late PUT that fits again after a restore" $small -DDROP_S6_PUT -DKINDS=64
fails "  S8: release before the callback has returned" -DDROP_S8 -DFAULTS=0
fails "  S8: release what is another's" -DDROP_S8_OURS -DKINDS=8
fails "  S5: own write proves a win after another was seen" $small -DDROP_S5_SEEN -DKINDS=32 -DLATEST -DSEEN_ALL
fails "  S6: own write proves a term after another was seen" $small -DDROP_S6_OVERTAKEN -DKINDS=32 -DLATEST -DSEEN_ALL
fails "  S12: the file proves a death without its lock" $small -DDROP_S12_LOCK -DKINDS=4 -DSTATEDIR -DSAME_DIR
fails "  S12: the name proves a death, without its times" $small -DDROP_S12_TIMES -DKINDS=4 -DSTATEDIR -DSAME_NAME
fails "  S12: the file still proves when another was seen" $small -DDROP_S12_VOID -DKINDS=36 -DFAULTS=2 -DSTATEDIR
fails "  S8: others take at once what was released with notice" $notice -DDROP_S8_NOTICE -DFAULTS=0
fails "  S13: the mark is believed before its process has died" $deaths -DDROP_S13_ENDED -DFAULTS=0
fails "  S13: the name proves a death, without its times" $deaths -DDROP_S13_TIMES -DKINDS=4 -DSAME_NAME
fails "  S13: a record that a restore has brought back is free" $deaths -DDROP_S13_BACK -DKINDS=68 -DFAULTS=2
fails "  S13: so is one that was written back, by its count" $deaths -DDROP_S13_COUNT -DKINDS=36 -DFAULTS=2
fails "  S13: so is a term after which another was seen" $deaths -DDROP_S13_PAST -DUNCOUNTED -DKINDS=36 -DFAULTS=2
fails "  S14: the gate is open while the callback runs" $suspend -DDROP_S14_GATE -DFAULTS=0
fails "  S14: valid again by a write that was sent long ago" $suspend -DDROP_S14_SENT -DPATIENT=3 -DFAULTS=0
fails "  S14: valid again without a write, by what is seen" $suspend -DDROP_S14_KNOWN -DKINDS=1
fails "  S14: a suspended holder puts a deleted Lease back" $suspend -DDROP_S14_MISSING -DKINDS=2
fails "  S14: no times prove a suspended term" $suspend -DDROP_S14_EDITS -DKINDS=16 -DSAME_NAME
fails "  S14: so does one of two times" $suspend -DDROP_S14_EDITS -DKINDS=32
fails "  S14: another holder does not end a suspended term" $suspend -DDROP_S6_OVERTAKEN -DKINDS=32 -DLATEST -DSEEN_ALL
fails "  S14: a lost term puts right what is long expired" $suspend -DDROP_S14_DRAINING -DKINDS=16 -DSAME_NAME
fails "  L3: authority counts from the younger of two writes" $small -DDROP_L3 -DTWO -DFAULTS=0

echo "Beyond the promise, two at once:"
fails "  a callback one tick slower than the stop budget" -DSTOP=2 -DFAULTS=0
fails "  a process that ends a tick after its notice" $notice -DLINGERS=1 -DFAULTS=0
fails "  documented limit: a suspended holder's record comes back" $suspend -DKINDS=32 -DLATEST
fails "  documented limit: who has never seen a deleted Lease" -DNEWCOMER
fails "  the same with StateDir: what is written over unseen" $small -DUNSEEN -DKINDS=36 -DFAULTS=2 -DSTATEDIR
fails "  a renewal that is written over by the one before, unseen" $small -DKINDS=32 -DLATEST
fails "  documented limit: a restore undoes what not all have seen" $small -DUNSEEN -DKINDS=64
fails "  a release that fits again after a restore" $small -DLATE_RELEASE -DKINDS=64
fails "  a version that was undone is given out again" $small -DREPEATS -DKINDS=64

echo "The model is not empty:"
fails "  both lead, one after the other" -DREACH=1 -DFAULTS=0
fails "  a write that was given up is applied" -DREACH=2 -DKINDS=1
fails "  a leader puts a deleted Lease back" -DREACH=3
fails "  a win in doubt is adopted, and led on" -DREACH=4 -DKINDS=1
fails "  a proof of death lets a process lead at once" $small -DREACH=6 -DKINDS=4 -DSTATEDIR
fails "  the older of two writes wins" $small -DREACH=7 -DTWO -DFAULTS=0
fails "  a renewal counts because it is seen" $small -DREACH=8 -DKINDS=1
fails "  another leads after a restore" $small -DREACH=9 -DKINDS=64
fails "  a kubelet's word lets the other lead at once" $deaths -DREACH=10 -DKINDS=4
fails "  a term is valid again, and another leads later" $suspend -DREACH=11 -DFAULTS=0
fails "  another leads beside a suspended callback" $suspend -DREACH=12 -DFAULTS=0
fails "  a process resigns, and another leads later" $notice -DREACH=13 -DFAULTS=0

[ $failed = 0 ] && echo "All as it should be." || echo "NOT as it should be."
exit $failed
