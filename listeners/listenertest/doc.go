// Package listenertest helps to test code that listens. A [Recorder] is a
// listener that remembers what it heard as plain values, which compare with
// == and go-cmp and outlive the events. [Positions] tests a store of positions.
package listenertest
