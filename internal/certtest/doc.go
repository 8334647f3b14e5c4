// Package certtest makes certificates for tests: of an authority, of a server
// on this machine, and of a client.
package certtest
