package elector

// PodDir is the default of Options.StateDir in a pod.
var PodDir = &podDir
