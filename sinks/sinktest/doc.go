// Package sinktest holds what the tests of every broker's sink share.
//
// [History] makes random batches of every kind, and [Frames] says what a sink
// must have stored of them: once, in order, nothing left out. It promises
// nothing beyond that and is for tests alone.
package sinktest
