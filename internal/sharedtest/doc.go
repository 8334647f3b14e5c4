// Package sharedtest keeps one server for all tests of a test binary, and stops
// it behind the last of them.
//
// It promises that the server starts once at the most, when the first test asks
// for it, that a failed start is not tried again, and that a TestMain which runs
// the tests by way of it leaves nothing running. It does not tidy up between
// tests.
package sharedtest
