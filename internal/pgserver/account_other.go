//go:build !unix

package pgserver

import "os"

func (*account) mayTraverse(os.FileInfo) bool { return true }

func ownedByThisUser(os.FileInfo) bool { return false }
