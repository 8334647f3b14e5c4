package jetstream

import (
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

// security returns the options that say who connects, and how the servers are
// known. Its errors hold no secrets.
func (o *ConnectOptions) security() ([]nats.Option, error) {
	for name, file := range map[string]string{
		"CredentialsFile": o.CredentialsFile, "NKeySeedFile": o.NKeySeedFile,
		"CAFile": o.CAFile, "CertFile": o.CertFile, "KeyFile": o.KeyFile,
	} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("jetstream: %s: %w", name, err)
		}
	}
	var set []nats.Option
	ways := 0
	if o.CredentialsFile != "" {
		ways++
		set = append(set, nats.UserCredentials(o.CredentialsFile))
	}
	if o.NKeySeedFile != "" {
		ways++
		nkey, err := nats.NkeyOptionFromSeed(o.NKeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("jetstream: NKeySeedFile %s: %w; it must hold a seed that begins with SU", o.NKeySeedFile, err)
		}
		set = append(set, nkey)
	}
	if o.User != "" {
		ways++
		set = append(set, nats.UserInfo(o.User, o.Password))
	} else if o.Password != "" {
		return nil, errors.New("jetstream: there is a Password, but no User")
	}
	if o.Token != "" {
		ways++
		set = append(set, nats.Token(o.Token))
	}
	if ways > 1 {
		return nil, errors.New("jetstream: only one of CredentialsFile, NKeySeedFile, User and Token may be set")
	}
	files := o.CAFile != "" || o.CertFile != "" || o.KeyFile != ""
	switch {
	case o.TLS != nil && files:
		return nil, errors.New("jetstream: TLS may not be set beside CAFile, CertFile and KeyFile")
	case (o.CertFile == "") != (o.KeyFile == ""):
		return nil, errors.New("jetstream: CertFile and KeyFile go together: set both or none")
	case o.TLS != nil:
		set = append(set, nats.Secure(o.TLS))
	}
	if o.CAFile != "" {
		set = append(set, nats.RootCAs(o.CAFile))
	}
	if o.CertFile != "" {
		set = append(set, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	return set, nil
}
