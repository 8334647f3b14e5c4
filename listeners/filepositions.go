package listeners

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// FilePositions is a [PositionStore] in a directory: one small file for each
// name, "<name>.position", with the text of the position as its only line. What does not
// fit a file name is written %XX, and a long name gives way to its hash.
//
// A file is replaced as a whole, and on disk with its directory before Save
// returns: after a crash of the process or the machine it has the old position
// or the new one. What a crash left half written, the next Open of the name removes. Removing the file, while nobody uses it, forgets the
// position.
//
// A name in use is refused by Open: within a FilePositions always, between
// two of them and between processes on Unix, by a lock on "<name>.lock", which
// ends with the process and does not reach over all network file systems.
type FilePositions struct {
	dir string

	mu   sync.Mutex
	open map[string]struct{} // file names
}

// NewFilePositions returns a store in a directory, which the first Open makes
// if it is missing, for its owner only. It touches nothing yet.
func NewFilePositions(dir string) *FilePositions {
	return &FilePositions{dir: dir, open: make(map[string]struct{})}
}

// Open implements [PositionStore].
func (f *FilePositions) Open(_ context.Context, name string) (PositionKeeper, Position, error) {
	file := fileName(name)
	k := &filePosition{store: f, file: file, path: filepath.Join(f.dir, file+".position")}
	if !f.take(file) {
		return nil, Position{}, fmt.Errorf("%s: %w", k.path, ErrNameTaken)
	}
	at, err := k.begin()
	if err != nil {
		return nil, Position{}, errors.Join(err, k.Close())
	}
	return k, at, nil
}

func (f *FilePositions) take(file string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, taken := f.open[file]; taken {
		return false
	}
	f.open[file] = struct{}{}
	return true
}

// A filePosition is one name of a [FilePositions].
type filePosition struct {
	store *FilePositions
	file  string
	path  string
	lock  *os.File // nil before begin
}

func (k *filePosition) begin() (Position, error) {
	if err := os.MkdirAll(k.store.dir, 0o700); err != nil {
		return Position{}, err
	}
	var err error
	if k.lock, err = os.OpenFile(filepath.Join(k.store.dir, k.file+".lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return Position{}, err
	}
	if err := lockFile(k.lock); err != nil {
		return Position{}, fmt.Errorf("lock %s: %w", k.lock.Name(), err)
	}
	if err := k.sweep(); err != nil {
		return Position{}, err
	}
	text, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Position{}, nil
	case err != nil:
		return Position{}, err
	}
	at, err := ParsePosition(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return Position{}, fmt.Errorf("%s: %w; remove the file to begin without a position", k.path, err)
	}
	return at, nil
}

// sweep removes what processes that died in Save have left. The lock says that
// no other one is there now.
func (k *filePosition) sweep() error {
	// Not filepath.Glob, to which a directory's name may be a pattern.
	entries, err := os.ReadDir(k.store.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		random, own := strings.CutPrefix(e.Name(), k.file+".")
		random, temp := strings.CutSuffix(random, ".tmp")
		if !own || !temp || !isNumber(random) {
			continue // of another name, which may begin with this one
		}
		if err := os.Remove(filepath.Join(k.store.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isNumber reports whether s is what [os.CreateTemp] puts for a star.
func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Save implements [PositionKeeper].
func (k *filePosition) Save(_ context.Context, p Position) (err error) {
	temp, err := os.CreateTemp(k.store.dir, k.file+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.Write(append(p.Append(nil), '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp.Name(), k.path); err != nil {
		return err
	}
	dir, openErr := os.Open(k.store.dir)
	if openErr != nil {
		return nil // the file is there; what follows only hardens that
	}
	_ = dir.Sync() // some file systems cannot sync a directory; the rename is done then
	_ = dir.Close()
	return nil
}

// Close implements [PositionKeeper].
func (k *filePosition) Close() error {
	var err error
	if k.lock != nil {
		err = k.lock.Close() // which ends the lock
	}
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	delete(k.store.open, k.file)
	return err
}

// longestName leaves room for what is appended to a file's name.
const longestName = 200

// fileName writes a name so that no two names share a file and none leaves the
// directory.
func fileName(name string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			// Upper case too: some file systems take it for lower case.
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&0xf]})
		}
	}
	if b.Len() == 0 {
		return "%"
	}
	if b.Len() <= longestName {
		return b.String()
	}
	hash := sha256.Sum256([]byte(name))
	return b.String()[:longestName-2*len(hash)-2] + "%%" + hex.EncodeToString(hash[:])
}
