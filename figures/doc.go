// Package figures draws how client-go's elector and this one behave in the same three mishaps: lanes.svg of the README.
//
// The replicas are played in virtual time, against the API server of package electortest. Virtual time is to be had in
// tests only (testing/synctest), so it is a test that plays and draws; with -write it also writes the file:
//
//	go test -count=1 -write .
package figures
