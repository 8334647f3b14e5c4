package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ServerName is a name in the server's certificate, beside 127.0.0.1.
const ServerName = "server.test"

// Certificates are good for an hour.
type Certificates struct {
	// CA, Cert and Key are files in PEM: of the authority, and of the client.
	CA, Cert, Key string
	// Server has a server show its certificate and ask for one of the same
	// authority.
	Server *tls.Config
}

// New makes certificates, with files in a directory of the test.
func New(t testing.TB) *Certificates {
	t.Helper()
	return In(t, t.TempDir())
}

// In is New with files ca.pem, cert.pem and key.pem in a directory.
func In(t testing.TB, dir string) *Certificates {
	t.Helper()
	authority := issue(t, nil)
	serving, client := issue(t, authority), issue(t, authority)
	pair, err := tls.X509KeyPair(serving.certPEM, serving.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return &Certificates{
		CA: write("ca.pem", authority.certPEM), Cert: write("cert.pem", client.certPEM), Key: write("key.pem", client.keyPEM),
		Server: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
	}
}

// An issued certificate and its key.
type issued struct {
	key             *ecdsa.PrivateKey
	cert            *x509.Certificate
	certPEM, keyPEM []byte
}

// issue makes a certificate that an authority signs; nil makes an authority.
func issue(t testing.TB, by *issued) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{ServerName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{
		key: key, cert: cert,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}
