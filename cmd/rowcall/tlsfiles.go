package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// tlsFiles say how a server is known, and with which certificate one goes there.
// Files are in PEM. No error holds what is in them.
type tlsFiles struct {
	ca, cert, key string
	serverName    string
}

func (f *tlsFiles) given() bool { return *f != tlsFiles{} }

// about returns the key of what was given, of ca, cert and key the first.
func (f *tlsFiles) about() string {
	switch {
	case f.ca == "" && f.cert != "":
		return "cert"
	case f.ca == "" && f.key != "":
		return "key"
	}
	return "ca"
}

// config returns what TLS is set up with, nil if nothing was given.
func (f *tlsFiles) config() (*tls.Config, error) {
	if !f.given() {
		return nil, nil //nolint:nilnil // nil is the default of all who take it
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.ca)
		}
	}
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, errors.New("a certificate and its key go together: set both or none")
	case f.cert != "":
		if _, err := f.pair(); err != nil {
			return nil, err
		}
		// With each connection, since certificates are renewed.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.pair() }
	}
	return c, nil
}

func (f *tlsFiles) pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if pe, ok := errors.AsType[*fs.PathError](err); ok && pe.Path == f.key {
		err = fmt.Errorf("its key: %w", unseen(err))
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", f.cert, err)
	}
	return &pair, nil
}

// readSecret returns what a file holds, without the space around it.
func readSecret(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", unseen(err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return secret, nil
}

// unseen takes the name out of the error of a file that cannot be opened: who gave
// the secret itself in its place must not find it in a log.
func unseen(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s the file that it names (which is not shown: it may be the secret itself): %w", pe.Op, pe.Err)
	}
	return err
}
