// Package rabbittest gives tests a real RabbitMQ.
//
// A test binary that uses it says so once:
//
//	func TestMain(m *testing.M) { rabbittest.Main(m) }
//
// The first [Server] of the binary then starts one throw-away node (package
// rabbitserver), which all its tests share, and Main stops it after the last
// test. A test that kills the node resumes it.
//
// On a machine without RabbitMQ, and with ROWCALL_RABBITMQ=skip, tests that need
// it are skipped with one line. Where CI=true, and apt-get could install it, they
// fail instead.
package rabbittest
