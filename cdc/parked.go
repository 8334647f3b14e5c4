package cdc

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// UndecodablePolicy says what happens with a message of the server that this
// version cannot read: one of a kind it does not know, cut off, or against the
// protocol. It is never skipped in silence.
type UndecodablePolicy string

// The policies.
const (
	// UndecodableStop ends the run with a [DecodeError].
	UndecodableStop UndecodablePolicy = "stop"
	// UndecodablePark appends the message to the file <slot>.parked.jsonl of the
	// StateDir, a JSON object ([Parked]) to a line, and goes on with the next
	// one. If it described a table, the rows that refer to it are parked, too. A
	// message that begins or ends a transaction cannot be missed, and stops.
	UndecodablePark UndecodablePolicy = "park"
)

// Parked is what a line of the file of parked messages holds.
type Parked struct {
	Time    time.Time `json:"time"` // when it was parked
	LSN     LSN       `json:"lsn"`  // as in [DecodeError]
	Type    string    `json:"type"`
	Error   string    `json:"error"`
	Message string    `json:"message"` // in hexadecimal digits
}

// parkUndecodable returns what a decoder does with a message that it cannot
// read, nil to stop there.
func (s *Source) parkUndecodable() func(msg []byte, cause *DecodeError) error {
	if s.c.Undecodable != UndecodablePark {
		return nil
	}
	return func(msg []byte, cause *DecodeError) error {
		s.c.Logger.Error("a message cannot be read; it is parked", "slot", s.c.Slot, "state_dir", s.c.StateDir, "error", cause)
		return s.c.park(msg, cause)
	}
}

// park stores a message before the next one is looked at, so that nothing
// behind it can be confirmed before.
func (c *config) park(msg []byte, cause *DecodeError) (err error) {
	line, err := json.Marshal(Parked{
		Time: time.Now().UTC(), LSN: cause.LSN, Type: string(rune(cause.Message)), Error: cause.Err.Error(),
		Message: hex.EncodeToString(msg),
	})
	if err != nil {
		return err
	}
	path := filepath.Join(c.StateDir, c.Slot+".parked.jsonl")
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("park a message: %w", err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("park a message: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("park a message: %w", err)
	}
	return syncDir(c.StateDir)
}
