// Package pgtest gives tests a real PostgreSQL.
//
// A test binary that uses it says so once:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The first [Database] of the binary then starts one throw-away cluster
// (wal_level=logical, see package pgserver), every test gets databases of its
// own in it, and Main stops it after the last test. [Own] starts another cluster
// for a test that restarts its server or needs other settings.
//
// ROWCALL_TEST_DATABASE_URL, a postgres:// URL of a superuser on a server with
// wal_level=logical, makes Database use that server instead.
//
// On a machine without server binaries, tests that need them are skipped with
// one line; where CI=true they fail.
package pgtest
